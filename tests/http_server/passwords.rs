//! Users, rate limits and headers of the web configuration file.

use crate::support::*;
use skmem_exporter::config::ListenAddress;
use skmem_exporter::http::healthcheck;
use skmem_exporter::sample::Refusal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// alice:secret, alice:wrong, bob:secret
const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
const WRONG: &str = "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n";
const BOB: &str = "Authorization: Basic Ym9iOnNlY3JldA==\r\n";

fn config(content: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.yml");
    std::fs::write(&path, content).unwrap();
    (directory, path)
}

async fn start(content: &str) -> (tempfile::TempDir, PathBuf, Running) {
    let (directory, path) = config(content);
    let server = Setup { web_config: Some(path.clone()), ..Setup::default() }.start().await;
    (directory, path, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    // Hashes of other tools differ in their prefix only.
    for prefix in ["$2b$", "$2a$", "$2y$"] {
        let hash = hash.replace("$2b$", prefix);
        let (_directory, path, server) = start(&format!("basic_auth_users:\n  alice: {hash}\n")).await;
        let paths = ["/metrics", "/", "/-/healthy", "/-/ready", "/nothing"];
        for path in paths {
            for headers in ["", WRONG, BOB, "Authorization: Bearer YWxpY2U6c2VjcmV0\r\n"] {
                let answer = server.get(path, headers).await;
                assert_eq!(answer.status, 401, "{path} {headers}");
                assert_eq!(answer.header("www-authenticate"), Some("Basic"));
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            }
            let expected = if path == "/nothing" { 404 } else { 200 };
            assert_eq!(server.get(path, ALICE).await.status, expected, "{path}");
        }
        assert_eq!(server.refusals.get(Refusal::Unauthorized), 4 * paths.len() as u64);
        let listen = ListenAddress::Socket(SocketAddr::from(([127, 0, 0, 1], server.address.port())));
        let alive = healthcheck(&listen, Some(&path)).await.unwrap();
        assert!(alive.contains("alive; it asks for a password"), "{alive}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_does_not_slow_others() {
    let hash = bcrypt::hash("secret", 11).unwrap();
    let (_directory, _, server) = start(&format!("basic_auth_users:\n  alice: {hash}\n")).await;
    assert_eq!(server.get("/metrics", ALICE).await.status, 200);
    // Each of these costs a bcrypt of a tenth of a second and more.
    let mut guesses = tokio::task::JoinSet::new();
    for guess in 0..6 {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let encoded = BASE64_STANDARD.encode(format!("alice:{guess}"));
        let mut stream = server.connect().await;
        guesses.spawn(async move {
            let request = get("/metrics", &format!("Authorization: Basic {encoded}\r\n"));
            exchange(&mut stream, &request).await.status
        });
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let begin = Instant::now();
    assert_eq!(server.get("/metrics", ALICE).await.status, 200);
    let took = begin.elapsed();
    assert!(guesses.try_join_next().is_none() || took < Duration::from_millis(50), "{took:?}");
    // Nor does a stop wait for them.
    let took = server.stop().await;
    assert!(took < Duration::from_millis(1200), "{took:?}");
}

#[tokio::test]
async fn rate_limit() {
    let (_directory, _, server) = start("rate_limit:\n  interval: 1h\n  burst: 3\n").await;
    for expected in [200, 200, 200, 429, 429] {
        assert_eq!(server.get("/metrics", "").await.status, expected);
    }
    assert_eq!(server.refusals.get(Refusal::RateLimited), 2);
    // A probe is no reason to kill it, and takes nothing from others.
    for _ in 0..5 {
        assert_eq!(server.get("/-/healthy", "").await.status, 200);
    }
    assert_eq!(server.get("/-/ready", "").await.status, 429);
    assert_eq!(server.get("/-/healthy/", "").await.status, 429);
    let (_directory, _, server) = start("rate_limit:\n  interval: 0\n").await;
    for _ in 0..10 {
        assert_eq!(server.get("/metrics", "").await.status, 200);
    }
}

#[tokio::test]
async fn health_is_no_way_to_guess_passwords_past_the_limit() {
    let hash = bcrypt::hash("secret", 4).unwrap();
    let content = format!("rate_limit: {{interval: 1h, burst: 1}}\nbasic_auth_users: {{alice: {hash}}}\n");
    let (_directory, _, server) = start(&content).await;
    // alice:wrong
    let guess = "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n";
    for (headers, expected) in [("", 401), ("", 401), (guess, 401), (guess, 429), ("", 401)] {
        assert_eq!(server.get("/-/healthy", headers).await.status, expected, "{headers}");
    }
}

#[tokio::test]
async fn headers() {
    let content = "http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=1\n    \
        X-Frame-Options: deny\n    X-XSS-Protection: 1\n    X-Content-Type-Options: nosniff\n    \
        Content-Security-Policy: \"default-src 'self'\"\n";
    let (_directory, _, server) = start(content).await;
    for path in ["/", "/metrics", "/nothing"] {
        let answer = server.get(path, "").await;
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=1"));
        assert_eq!(answer.header("x-frame-options"), Some("deny"));
        assert_eq!(answer.header("x-xss-protection"), Some("1"));
        assert_eq!(answer.header("content-security-policy"), Some("default-src 'self'"), "{path}");
        assert_eq!(answer.head.matches("content-security-policy").count(), 1);
    }
}

#[tokio::test]
async fn files_that_ask_for_nothing() {
    for content in [
        "",
        "# nothing\n",
        "---\n",
        "{}\n",
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n",
        "tls_server_config: {}\nbasic_auth_users: {}\nrate_limit: {}\n",
        "tls_server_config:\n  cert_file: \"\"\n  key_file:\n",
        "http_server_config:\n  http2: off\n  headers:\n    X-Frame-Options: \"\"\n    X-XSS-Protection:\n",
    ] {
        let (_directory, _, server) = start(content).await;
        assert_eq!(server.get("/metrics", "").await.status, 200, "{content:?}");
    }
}
