//! `skmem-exporter check-config` with web configuration files.

use std::process::Command;

use crate::document::example;
use crate::kit::daemon::BINARY;
use crate::site::{Said, Site};

fn check(site: &Site, command: &str) -> Said {
    let file = format!("--web.config.file={}", site.file("web.yml"));
    // A daemon that took a bad file would run for ever.
    let mut bounded = Command::new("timeout");
    site.tell(bounded.args(["30", BINARY, command, &file, "--web.listen-address=127.0.0.1:0"]), "")
}

#[track_caller]
pub fn accepted(site: &Site) {
    let said = check(site, "check-config");
    assert!(said.succeeded && said.out.contains("web.yml") && said.err.is_empty(), "{said:?}");
}

/// What it says of a bad file: the same as the daemon, which does not start.
#[track_caller]
pub fn refused(site: &Site) -> String {
    let said = check(site, "check-config");
    assert!(!said.succeeded && said.out.is_empty() && said.err.lines().count() == 1, "{said:?}");
    let daemon = check(site, "serve");
    assert!(!daemon.succeeded, "{daemon:?}");
    // The log escapes quotes and backslashes.
    let bare = |text: &str| text.trim().replace(['\\', '"', '\''], "");
    assert!(bare(&daemon.err).contains(&bare(&said.err)), "{daemon:?}\n{said:?}");
    said.err
}

#[test]
fn says_file_line_key_and_cure() {
    let site = Site::new();
    let tls = example("web.yml: TLS");
    let client = example("web.yml: client certificates");
    let passwords = example("web.yml: passwords");
    for (config, said) in [
        (tls.replace("cert_file", "cert_path"), "line 3: \"cert_path\" is no key of this section, which has"),
        (tls.replace("server.crt", "none.crt"), "line 3, tls_server_config.cert_file: "),
        (
            tls.replace("server.key", "client.key"),
            "line 4, tls_server_config.key_file: this key does not belong",
        ),
        (
            client.replace("RequireAndVerifyClientCert", "Yes"),
            "line 5, tls_server_config.client_auth_type: \"Yes\"",
        ),
        (
            client.replace("[prometheus.example.com]", "[]"),
            "line 8, tls_server_config.client_allowed_sans: an empty",
        ),
        (
            passwords.replace("$2y$10", "$2y$1"),
            "line 3, basic_auth_users.prometheus: this is no bcrypt hash; make one",
        ),
        (
            example("web.yml: headers").replace("deny", "never"),
            "X-Frame-Options: \"never\" is no value of this header; use deny",
        ),
        (
            example("web.yml: rate limit").replace('5', "0"),
            "line 4, rate_limit.burst: a burst of 0 would refuse",
        ),
        ("tls_server_config: [".to_owned(), "line 1"),
    ] {
        site.write("web.yml", &config);
        let error = refused(&site);
        assert!(error.starts_with(&format!("web configuration file {}", site.file("web.yml"))), "{error}");
        assert!(error.contains(said), "{said}: {error}");
        // The hash is nobody's business.
        assert!(!error.contains("2vLTeMyC"), "{error}");
    }
    site.write("web.yml", &tls);
    accepted(&site);
}
