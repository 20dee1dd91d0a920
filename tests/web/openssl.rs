//! OpenSSL's s_client as the client.

use std::process::Command;

use crate::document::example;
use crate::kit::daemon::Daemon;
use crate::kit::host::shared;
use crate::site::{Said, Site};

const REQUEST: &str = "GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// `openssl s_client` with these arguments, and a request.
fn s_client(site: &Site, daemon: &Daemon, arguments: &str) -> Said {
    let address = daemon.address.to_string();
    let mut command = Command::new("timeout");
    command.args([
        "30",
        "openssl",
        "s_client",
        "-connect",
        &address,
        "-CAfile",
        "ca.crt",
        "-servername",
        "localhost",
    ]);
    // Not -quiet: what was agreed upon is what this is about. It stays until the server ends the connection.
    let command = command.args(["-ign_eof", "-verify_return_error"]).args(arguments.split_whitespace());
    let mut said = site.tell(command, REQUEST);
    // As OpenSSL 3.0 and later ones write it.
    said.out = said.out.replace("Peer Temp Key", "Server Temp Key").replace("CN = ", "CN=");
    said
}

#[track_caller]
fn agreed(said: &Said, with: &[&str]) {
    assert!(
        said.out.contains("HTTP/1.1 200 OK") && said.out.contains("Verify return code: 0 (ok)"),
        "{said:?}"
    );
    for what in with {
        assert!(said.out.contains(what), "{what}: {said:?}");
    }
}

#[track_caller]
fn refused(said: &Said, alert: &str) {
    assert!(!said.out.contains("HTTP/1.1 200"), "{said:?}");
    assert!(said.err.contains(alert), "{alert}: {said:?}");
}

#[test]
fn what_is_negotiated() {
    let _host = shared();
    let (site, daemon) = Site::serving("TLS");
    agreed(
        &s_client(&site, &daemon, "-tls1_3"),
        &["TLSv1.3", "Server Temp Key: X25519", "No ALPN negotiated"],
    );
    let said = s_client(&site, &daemon, "-tls1_2 -alpn http/1.1");
    agreed(
        &said,
        &["TLSv1.2", "ECDHE-ECDSA-", "ALPN protocol: http/1.1", "Secure Renegotiation IS supported"],
    );
    let said = s_client(&site, &daemon, "-alpn h2,http/1.1");
    assert!(said.out.contains("ALPN protocol: h2"), "{said:?}");
    refused(&s_client(&site, &daemon, "-alpn gopher"), "alert no application protocol");
    refused(&s_client(&site, &daemon, "-tls1_1 -cipher DEFAULT@SECLEVEL=0"), "alert handshake failure");
    // Suites that are not forward secret, or have CBC, are none of ours.
    refused(
        &s_client(&site, &daemon, "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA:AES128-GCM-SHA256"),
        "alert handshake failure",
    );
    // Renegotiation (R on a line of its own) is refused, and costs nothing but the connection.
    let address = daemon.address.to_string();
    let said = site.tell(
        Command::new("timeout").args(["30", "openssl", "s_client", "-connect", &address, "-tls1_2"]),
        "R\n",
    );
    assert!(said.err.contains("RENEGOTIATING") && said.err.contains("no renegotiation"), "{said:?}");
    agreed(&s_client(&site, &daemon, ""), &[]);
}

#[test]
fn suites_and_curves_that_were_chosen() {
    let _host = shared();
    let (site, daemon) = Site::serving("TLS, chosen");
    let said = s_client(&site, &daemon, "-alpn h2,http/1.1");
    let chosen = "ECDHE-ECDSA-CHACHA20-POLY1305";
    agreed(&said, &["TLSv1.2", chosen, "Server Temp Key: ECDH, secp384r1", "ALPN protocol: http/1.1"]);
    refused(&s_client(&site, &daemon, "-cipher ECDHE-ECDSA-AES128-GCM-SHA256"), "alert handshake failure");
    refused(&s_client(&site, &daemon, "-groups X25519"), "alert handshake failure");
    refused(&s_client(&site, &daemon, "-tls1_3"), "alert protocol version");
    // The order is the server's, or the client's.
    let two = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];
    let config = |prefer: &str| {
        let tls = example("web.yml: TLS").trim_end().to_owned();
        format!("{tls}\n  cipher_suites: [{}]\n  prefer_server_cipher_suites: {prefer}\n", two.join(", "))
    };
    let ask = "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384";
    site.write("web.yml", &config("true"));
    agreed(&s_client(&site, &daemon, ask), &["ECDHE-ECDSA-AES256-GCM-SHA384"]);
    site.write("web.yml", &config("false"));
    agreed(&s_client(&site, &daemon, ask), &["ECDHE-ECDSA-AES128-GCM-SHA256"]);
    // TLS 1.3 keeps its suites.
    agreed(&s_client(&site, &daemon, "-tls1_3"), &["TLSv1.3", "TLS_"]);
}

/// An authority below another: the client knows only the upper one, so the chain must be sent.
#[test]
fn the_chain_is_sent() {
    let _host = shared();
    let site = Site::new();
    site.script(
        "key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'\n\
         openssl req $key -subj /CN=between -addext basicConstraints=critical,CA:TRUE -keyout b.key -out b.csr\n\
         openssl x509 -req -in b.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 9 -copy_extensions copy -out b.crt\n\
         openssl req $key -subj /CN=server -addext subjectAltName=DNS:localhost -keyout server.key -out s.csr\n\
         openssl x509 -req -in s.csr -CA b.crt -CAkey b.key -CAcreateserial -days 9 -copy_extensions copy -out s.crt\n\
         cp s.crt server.crt",
    );
    site.configure("TLS");
    let daemon = site.start();
    refused(&s_client(&site, &daemon, ""), "unable to get local issuer certificate");
    site.script("cat s.crt b.crt > server.crt");
    let said = s_client(&site, &daemon, "-showcerts -verify_hostname localhost");
    agreed(&said, &["CN=server", "CN=between"]);
    assert_eq!(said.out.matches("BEGIN CERTIFICATE").count(), 2, "{said:?}");
}

#[test]
fn client_certificates_are_refused_with_an_alert() {
    let _host = shared();
    let site = Site::new();
    std::fs::create_dir(site.path("others")).unwrap();
    let others = example("certificates.sh").replace("metrics authority", "another authority");
    site.script(&format!("cd others\n{others}"));
    // One that only says it is of the right authority.
    std::fs::create_dir(site.path("liars")).unwrap();
    site.script(&format!("cd liars\n{}", example("certificates.sh")));
    // `openssl x509` makes none that ended in the past; `openssl ca` does.
    site.script(
        "touch index.txt\n\
         printf '[ca]\\ndefault_ca=a\\n[a]\\ndatabase=index.txt\\nnew_certs_dir=.\\nrand_serial=yes\\ndefault_md=sha256\\n\
         policy=p\\ncopy_extensions=copy\\n[p]\\ncommonName=supplied\\n' > ca.conf\n\
         openssl ca -batch -config ca.conf -cert ca.crt -keyfile ca.key -in client.csr -out expired.crt -notext \
         -startdate 20200101000000Z -enddate 20200201000000Z\n\
         openssl x509 -in client.csr -req -CA ca.crt -CAkey ca.key -days 9 -copy_extensions none -out nameless.crt",
    );
    site.configure("client certificates");
    let daemon = site.start();
    agreed(&s_client(&site, &daemon, "-cert client.crt -key client.key"), &["CN=metrics authority"]);
    for version in ["-tls1_2", "-tls1_3"] {
        let refused =
            |who: &str, alert: &str| refused(&s_client(&site, &daemon, &format!("{version} {who}")), alert);
        refused("-cert expired.crt -key client.key", "alert certificate expired");
        refused("-cert others/client.crt -key others/client.key", "alert unknown ca");
        refused("-cert liars/client.crt -key liars/client.key", "alert");
        refused("-cert nameless.crt -key client.key", "alert");
        // The server's own is one of this authority's, for another purpose.
        refused("-cert server.crt -key server.key", "alert");
        refused("", if version == "-tls1_3" { "alert certificate required" } else { "alert" });
    }
}
