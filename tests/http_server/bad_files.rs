//! Files that are refused at start, and what is said about them.

use crate::certificates::*;
use skmem_exporter::http::WebConfigFile;

const PAIR: &str = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n";

/// What is in the file (after `+`: more of a good `tls_server_config`), and what must be said.
const FILES: &[(&str, &[&str])] = &[
    // YAML and keys
    ("tls_server_config: {", &["line 1", "not valid YAML"]),
    ("rate_limit:\n  interval: 1s\n burst: 1\n", &["line 3", "not valid YAML"]),
    ("just words\n", &["line 1", "must be a section"]),
    ("- a\n- list\n", &["line 1", "must be a section"]),
    ("tls_config: {}\n", &["line 1", "\"tls_config\" is no key", "tls_server_config"]),
    ("basic_auth_users: {}\nbasic_auth_users: {}\n", &["line 2", "\"basic_auth_users\" is given twice"]),
    ("tls_server_config:\n  cert_files: x\n", &["line 2", "\"cert_files\" is no key", "cert_file"]),
    ("http_server_config:\n  http3: true\n", &["line 2", "\"http3\" is no key"]),
    ("http_server_config:\n  http2: maybe\n", &["line 2, http2", "true or false"]),
    ("rate_limit:\n  burst: many\n", &["line 2, burst", "whole number"]),
    ("rate_limit:\n  burst: -1\n", &["line 2, burst", "whole number"]),
    ("tls_server_config: yes\n", &["line 1, tls_server_config", "must be a section"]),
    ("basic_auth_users: [alice]\n", &["line 1, basic_auth_users", "must be a section"]),
    ("rate_limit: {}\n---\nrate_limit: {}\n", &["line 3", "second YAML document"]),
    // certificate and key
    ("tls_server_config:\n  cert_file: cert.pem\n", &["tls_server_config: TLS needs key or key_file"]),
    ("tls_server_config:\n  key_file: key.pem\n", &["tls_server_config: TLS needs cert or cert_file"]),
    ("tls_server_config:\n  min_version: TLS13\n", &["TLS needs cert or cert_file"]),
    ("tls_server_config:\n  client_auth_type: RequestClientCert\n", &["TLS needs cert or cert_file"]),
    (
        "tls_server_config:\n  cert_file: none.pem\n  key_file: key.pem\n",
        &["line 2, tls_server_config.cert_file", "none.pem cannot be read", "relative to the directory"],
    ),
    (
        "tls_server_config:\n  cert_file: cert.pem\n  key_file: none.pem\n",
        &["line 3, tls_server_config.key_file", "none.pem cannot be read"],
    ),
    (
        "tls_server_config:\n  cert_file: empty.pem\n  key_file: key.pem\n",
        &["tls_server_config.cert_file: there is no certificate in it"],
    ),
    (
        "tls_server_config:\n  cert_file: junk.pem\n  key_file: key.pem\n",
        &["tls_server_config.cert_file: there is no certificate in it"],
    ),
    (
        "tls_server_config:\n  cert_file: cut.pem\n  key_file: key.pem\n",
        &["tls_server_config.cert_file: the PEM in it is damaged"],
    ),
    (
        "tls_server_config:\n  cert_file: wrong.pem\n  key_file: key.pem\n",
        &["line 2, tls_server_config.cert_file: certificate 1 in it cannot be read"],
    ),
    (
        "tls_server_config:\n  cert_file: cert.pem\n  key_file: cert.pem\n",
        &["tls_server_config.key_file: there is no private key in it"],
    ),
    (
        "tls_server_config:\n  cert_file: cert.pem\n  key_file: encrypted.pem\n",
        &["tls_server_config.key_file: the key is encrypted", "openssl pkey"],
    ),
    (
        "tls_server_config:\n  cert_file: cert.pem\n  key_file: other-key.pem\n",
        &["line 3, tls_server_config.key_file", "does not belong to the certificate"],
    ),
    ("tls_server_config:\n  cert: words\n  key: words\n", &["line 2, tls_server_config.cert: there is no"]),
    // versions, suites, curves
    ("+min_version: TLS10\n", &["line 4, tls_server_config.min_version: TLS10 is broken", "use TLS12"]),
    ("+max_version: TLS11\n", &["tls_server_config.max_version: TLS11 is broken"]),
    ("+min_version: TLS1.2\n", &["\"TLS1.2\" is no TLS version"]),
    ("+min_version: TLS13\n  max_version: TLS12\n", &["line 4", "above max_version"]),
    (
        "+cipher_suites:\n  - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\n  - TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\n",
        &["line 6", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "not offered here", "choose from TLS_AES_256_GCM"],
    ),
    ("+cipher_suites: [TLS_MADE_UP]\n", &["tls_server_config.cipher_suites", "TLS_MADE_UP"]),
    (
        "+cipher_suites: [TLS_AES_128_GCM_SHA256]\n  max_version: TLS12\n",
        &["tls_server_config.cipher_suites", "no suite of TLS 1.2"],
    ),
    (
        "+curve_preferences: [CurveP521]\n",
        &[
            "line 4, tls_server_config.curve_preferences",
            "CurveP521",
            "choose from X25519, CurveP256, CurveP384",
        ],
    ),
    ("+curve_preferences: [P256]\n", &["\"P256\" is not offered"]),
    // client certificates
    (
        "+client_auth_type: Yes\n",
        &["line 4, tls_server_config.client_auth_type", "is no policy", "NoClientCert"],
    ),
    (
        "+client_ca_file: ca.pem\n",
        &["tls_server_config.client_ca_file", "would check nothing", "RequireAndVerify"],
    ),
    ("+client_auth_type: NoClientCert\n  client_ca_file: ca.pem\n", &["would check nothing"]),
    ("+client_allowed_sans: [a]\n", &["tls_server_config.client_allowed_sans", "would check nothing"]),
    (
        "+client_auth_type: RequireAnyClientCert\n  client_allowed_sans: []\n",
        &["line 5, tls_server_config.client_allowed_sans", "refuse every client"],
    ),
    (
        "+client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: none.pem\n",
        &["line 5, tls_server_config.client_ca_file", "none.pem cannot be read"],
    ),
    (
        "+client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: junk.pem\n",
        &["tls_server_config.client_ca_file: there is no certificate"],
    ),
    (
        "+client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: wrong.pem\n",
        &["tls_server_config.client_ca_file: certificate 1 in it cannot be read"],
    ),
    ("+client_auth_type: RequestClientCert\n  client_ca_file: junk.pem\n", &["there is no certificate"]),
    // users, headers, rate limit
    (
        "basic_auth_users:\n  alice: secret\n",
        &["line 2, basic_auth_users.alice", "no bcrypt hash", "htpasswd"],
    ),
    ("basic_auth_users:\n  alice:\n", &["basic_auth_users.alice: this is no bcrypt hash"]),
    ("basic_auth_users:\n  a: $2y$10$tooshort\n", &["basic_auth_users.a: this is no bcrypt hash"]),
    (
        "http_server_config:\n  headers:\n    Server: me\n",
        &["line 3, http_server_config.headers.Server", "cannot be set", "Strict-Transport-Security"],
    ),
    (
        "http_server_config:\n  headers:\n    X-Frame-Options: allow\n",
        &["line 3, http_server_config.headers.X-Frame-Options", "\"allow\"", "deny or sameorigin"],
    ),
    ("http_server_config:\n  headers:\n    X-Content-Type-Options: sniff\n", &["use nosniff"]),
    (
        "http_server_config:\n  headers:\n    X-XSS-Protection: \"a\\nb\"\n",
        &["a character that no header may have"],
    ),
    ("rate_limit:\n  interval: soon\n  burst: 1\n", &["line 2, rate_limit.interval", "\"soon\"", "1m30s"]),
    ("rate_limit:\n  interval: 1\n  burst: 1\n", &["line 2, rate_limit.interval", "no duration"]),
    ("rate_limit:\n  interval: -1s\n  burst: 1\n", &["rate_limit.interval", "no duration"]),
    ("rate_limit:\n  interval: 1s\n", &["line 2, rate_limit.burst", "refuse every request"]),
    ("rate_limit:\n  interval: 1s\n  burst: 0\n", &["line 3, rate_limit.burst", "refuse every request"]),
];

#[test]
fn refused_with_the_place_and_the_cure() {
    let place = Place::new();
    place.write("other-key.pem", &place.authority.server().key);
    place.write("empty.pem", "");
    place.write("junk.pem", "this is no PEM\n");
    place.write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    place.write("wrong.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    place.write(
        "encrypted.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let mut wrong = Vec::new();
    for (content, expected) in FILES {
        let content =
            content.strip_prefix('+').map_or((*content).to_owned(), |rest| format!("{PAIR}  {rest}"));
        let path = place.write("web.yml", &content);
        let error = WebConfigFile::load(&path).expect_err(&content).to_string();
        assert!(error.starts_with(&format!("web configuration file {}", path.display())), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        for part in *expected {
            if !error.contains(part) {
                wrong.push(format!("{part:?} is not in: {error}\n{content}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let error = WebConfigFile::load(place.path("none.yml")).unwrap_err().to_string();
    assert!(error.contains("none.yml: cannot be read (No such file"), "{error}");
}

#[test]
fn errors_keep_secrets() {
    let place = Place::new();
    for content in [
        "basic_auth_users:\n  alice: $2y$10$hunter2\n",
        "basic_auth_users: \"alice:$2y$10$hunter2\"\n",
        "basic_auth_users:\n  alice: [hunter2]\n",
        "tls_server_config:\n  cert_file: cert.pem\n  key: hunter2\n",
        "tls_server_config: hunter2\n",
        "tls_server_config:\n  key: \"hunter2\n",
        "tls_server_config:\n  key: {hunter2: 1}\n",
        "rate_limit:\n  burst: hunter2\n",
    ] {
        let error = WebConfigFile::load(place.write("web.yml", content)).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn every_name_that_is_taken() {
    let place = Place::new();
    let suites = [
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    ];
    let lines = [
        &format!("cipher_suites: [{}]", suites.join(", ")),
        "curve_preferences: [CurveP256, CurveP384, X25519]",
        "min_version: TLS12",
        "max_version: TLS13",
    ];
    assert!(WebConfigFile::load(place.tls(&lines)).unwrap().tls());
}
