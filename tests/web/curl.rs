//! curl as the client.

use crate::document::example;
use crate::kit::host::{eventually, holds, shared};
use crate::site::{CONFIGS, Said, Site};

#[track_caller]
fn served(said: &Said, version: &str) {
    assert!(said.succeeded && said.err.ends_with(&format!("200 HTTP/{version}")), "{said:?}");
}

/// Refused before anything was asked.
#[track_caller]
fn refused(said: &Said) {
    assert!(!said.succeeded && said.err.contains("000 HTTP/0"), "{said:?}");
}

#[test]
fn tls_and_http_versions() {
    let _host = shared();
    let (site, daemon) = Site::serving("TLS");
    for tls in ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"] {
        served(&site.curl(&daemon, &format!("{tls} --http2 TLS/-/healthy")), "2");
        served(&site.curl(&daemon, &format!("{tls} --http1.1 TLS/-/healthy")), "1.1");
    }
    // The certificate is what it should be: another authority's would not do.
    refused(&site.curl(&daemon, "--cacert client.crt TLS/-/healthy"));
    // Plain HTTP is told why.
    let said = site.curl(&daemon, "PLAIN/metrics");
    assert!(said.err.contains("400 HTTP/1") && said.out.contains("this port speaks TLS"), "{said:?}");
    // Neither the upgrade nor prior knowledge gets HTTP/2 without TLS.
    site.write("web.yml", "");
    let daemon = site.start();
    served(&site.curl(&daemon, "--http2 PLAIN/-/healthy"), "1.1");
    let said = site.curl(&daemon, "--http2-prior-knowledge PLAIN/-/healthy");
    assert!(!said.err.contains("200 HTTP"), "{said:?}");
    served(&site.curl(&daemon, "PLAIN/-/healthy"), "1.1");
}

#[test]
fn versions_outside_the_bounds() {
    let _host = shared();
    let (site, daemon) = Site::serving("TLS, chosen");
    served(&site.curl(&daemon, "--http2 --tlsv1.2 TLS/-/healthy"), "1.1");
    refused(&site.curl(&daemon, "--tlsv1.3 TLS/-/healthy"));
    // The bounds are read anew as well.
    let newer = example("web.yml: TLS").replace("server.key", "server.key\n  min_version: TLS13");
    site.write("web.yml", &newer);
    served(&site.curl(&daemon, "--tlsv1.3 TLS/-/healthy"), "2");
    refused(&site.curl(&daemon, "--tlsv1.2 --tls-max 1.2 TLS/-/healthy"));
    // By the two versions that were not common, and the certificate that curl did not take.
    eventually("handshakes that failed", || {
        let scrape = site.scrape(&daemon, "TLS/metrics");
        let count = scrape.int("skmem_exporter_http_refused_total", &[("reason", "tls_handshake")]);
        holds(|| format!("{count} handshakes failed"), count == 2)
    });
}

#[test]
fn client_certificates() {
    let _host = shared();
    let site = Site::new();
    // Somebody else's, for the same name, and one of ours for another.
    let others = site.path("others");
    std::fs::create_dir(&others).unwrap();
    site.script(&format!("cd others\n{}", example("certificates.sh")));
    let sign = example("certificates.sh").replace("openssl req -x509", ": openssl req -x509");
    site.script(&sign.replace("sign client \"DNS:prometheus", "sign intern \"DNS:grafana"));
    let ours = "--cert client.crt --key client.key";
    let intern = "--cert intern.crt --key intern.key";
    let foreign = "--cert others/client.crt --key others/client.key";
    site.configure("TLS");
    let daemon = site.start();
    let policies = [
        ("NoClientCert", false, [true, true, true]),
        ("RequestClientCert", false, [true, true, true]),
        ("RequireAnyClientCert", false, [false, true, true]),
        ("VerifyClientCertIfGiven", true, [true, true, false]),
        ("RequireAndVerifyClientCert", true, [false, true, false]),
    ];
    let document = include_str!("../../docs/web.md");
    for (policy, authority, lets_in) in policies {
        let lines = if authority { "\n  client_ca_file: ca.crt" } else { "" };
        let config = example("web.yml: TLS");
        site.write("web.yml", &format!("{}\n  client_auth_type: {policy}{lines}\n", config.trim_end()));
        for version in ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"] {
            for (who, let_in) in ["", ours, foreign].into_iter().zip(lets_in) {
                let said = site.curl(&daemon, &format!("{version} {who} TLS/-/healthy"));
                assert_eq!(said.err.contains("200 HTTP/2"), let_in, "{policy} {version} {who}: {said:?}");
            }
        }
        // The document's table says the same.
        let row = document.lines().find(|line| line.starts_with(&format!("| `{policy}`"))).unwrap();
        let told = row.split('|').skip(2).take(2).map(|cell| cell.trim().starts_with("let in"));
        assert_eq!(told.collect::<Vec<_>>(), [lets_in[0], lets_in[2]], "{row}");
    }
    site.configure("client certificates");
    served(&site.curl(&daemon, &format!("{ours} TLS/-/healthy")), "2");
    for who in ["", intern, foreign] {
        refused(&site.curl(&daemon, &format!("{who} --http1.1 TLS/-/healthy")));
    }
}

#[test]
fn passwords() {
    let _host = shared();
    let (site, daemon) = Site::serving("passwords");
    let wrong = ["", "--user prometheus:wrong", "--user nobody:wrong", "--user prometheus:"];
    for (path, user) in
        ["PLAIN/metrics", "PLAIN/", "PLAIN/-/healthy"].iter().flat_map(|p| wrong.map(|u| (p, u)))
    {
        let said = site.curl(&daemon, &format!("{user} {path}"));
        assert!(said.err.ends_with("401 HTTP/1.1"), "{said:?}");
        assert!(said.out.to_lowercase().contains("www-authenticate: basic"), "{said:?}");
        assert!(!said.out.contains("skmem_"), "{said:?}");
    }
    let right = format!("--user prometheus:{} PLAIN/metrics", site.password);
    eventually("each counted", || {
        let scrape = site.scrape(&daemon, &right);
        let count = scrape.int("skmem_exporter_http_refused_total", &[("reason", "unauthorized")]);
        holds(|| format!("{count} unauthorized"), count == 12)
    });
    // The other way of making a hash.
    let python = site.script(&example("hash.sh: Python, with Debian's python3-bcrypt"));
    site.write("web.yml", &format!("basic_auth_users:\n  prometheus: {python}\n"));
    served(&site.curl(&daemon, &right), "1.1");
}

#[test]
fn headers_gzip_and_rate_limit() {
    let _host = shared();
    let (site, daemon) = Site::serving("headers");
    let said = site.curl(&daemon, "PLAIN/metrics");
    let head = said.out.to_lowercase();
    for header in ["strict-transport-security: max-age=31536000", "x-frame-options: deny", "nosniff"] {
        assert!(head.contains(header), "{said:?}");
    }
    // curl unpacks it, and it is the same as without.
    let said = site.curl(&daemon, "--compressed PLAIN/metrics");
    assert!(said.out.to_lowercase().contains("content-encoding: gzip"), "{said:?}");
    assert!(said.out.contains("skmem_tcp_memory_bytes "), "{said:?}");

    site.configure("rate limit");
    let url = "PLAIN/-/ready";
    let said: Vec<_> = (0..8).map(|_| site.curl(&daemon, url).err).collect();
    let answered = said.iter().filter(|said| said.ends_with("200 HTTP/1.1")).count();
    let limited = said.iter().filter(|said| said.ends_with("429 HTTP/1.1")).count();
    // Five at once, and one more if this took a minute.
    assert!((5..=6).contains(&answered) && answered + limited == 8, "{said:?}");
    // Whoever asks whether it lives is never told to come later.
    served(&site.curl(&daemon, "PLAIN/-/healthy"), "1.1");
    site.write("web.yml", "");
    eventually("each counted", || {
        let scrape = daemon.scrape();
        let count = scrape.int("skmem_exporter_http_refused_total", &[("reason", "rate_limited")]);
        holds(|| format!("{count} limited"), usize::try_from(count) == Ok(limited))
    });
}

/// Every example is accepted, and none by accident: the same with a fault is not.
#[test]
fn examples_are_accepted() {
    let site = Site::new();
    for title in CONFIGS {
        site.write("web.yml", &example(&format!("web.yml: {title}")));
        crate::check_config::accepted(&site);
        site.write("web.yml", &example(&format!("web.yml: {title}")).replacen(":\n", "s:\n", 1));
        crate::check_config::refused(&site);
    }
}
