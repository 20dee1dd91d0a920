//! TLS: versions, suites, HTTP/2, and clients that speak something else.

use crate::certificates::*;
use crate::support::*;
use hyper_util::rt::{TokioExecutor, TokioIo};
use skmem_exporter::config::ListenAddress;
use skmem_exporter::http::limits::Limits;
use skmem_exporter::http::{Health, healthcheck, liveness};
use skmem_exporter::sample::Refusal;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

async fn start(place: &Place, lines: &[&str]) -> Running {
    Setup { web_config: Some(place.tls(lines)), ..Setup::default() }.start().await
}

#[tokio::test]
async fn serves_with_tls() {
    let place = Place::new();
    let server = start(&place, &[]).await;
    for versions in [&OLD, &NEW] {
        let client = Client { versions, ..place.client() };
        let stream = client.connect(server.address).await.unwrap();
        let answer = exchange(stream, &get("/metrics", "")).await;
        assert_eq!(answer.text(), "Classic sample 1\n");
    }
    let inline = place.authority.server();
    let config = format!(
        "tls_server_config:\n  cert: |\n{}  key: |\n{}",
        indent(&inline.cert, 4),
        indent(&inline.key, 4)
    );
    let config = place.write("inline.yml", &config);
    let server = Setup { web_config: Some(config), ..Setup::default() }.start().await;
    assert!(place.client().is_served(server.address).await);
}

#[tokio::test]
async fn versions_suites_and_curves() {
    let place = Place::new();
    let old = || Client { versions: &OLD, ..place.client() };
    let new = || Client { versions: &NEW, ..place.client() };
    for (lines, with_old, with_new) in [
        (&["min_version: TLS13"][..], false, true),
        (&["max_version: TLS12"], true, false),
        (&["min_version: TLS12", "max_version: TLS13"], true, true),
        (&["cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]"], true, true),
        // The server's key is no RSA key.
        (&["cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]"], false, true),
        // As in Go: the list is about TLS 1.2, which then has none.
        (&["cipher_suites: [TLS_AES_128_GCM_SHA256]"], false, true),
        (&["cipher_suites: []", "curve_preferences: []"], true, true),
        (&["curve_preferences: [CurveP384]", "prefer_server_cipher_suites: false"], true, true),
        (&["curve_preferences: [X25519, CurveP256, CurveP384]"], true, true),
    ] {
        let server = start(&place, lines).await;
        assert_eq!(old().is_served(server.address).await, with_old, "{lines:?}");
        assert_eq!(new().is_served(server.address).await, with_new, "{lines:?}");
        let failed = u64::from(!with_old) + u64::from(!with_new);
        assert_eq!(server.refusals.get(Refusal::TlsHandshake), failed, "{lines:?}");
    }
    let server = start(&place, &["cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]"]).await;
    let stream = old().connect(server.address).await.unwrap();
    let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(format!("{suite:?}"), "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2() {
    let place = Place::new();
    let server = start(&place, &[]).await;
    let client = Client { alpn: &[b"h2", b"http/1.1"], ..place.client() };
    let stream = client.connect(server.address).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..3 {
        let request = axum::http::Request::get("https://localhost/metrics")
            .header("accept", "application/openmetrics-text")
            .body(axum::body::Body::empty())
            .unwrap();
        let answer = requests.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let body = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 1 << 20).await.unwrap();
        assert_eq!(body, "OpenMetrics sample 1\n");
    }
    // Stopping ends it in order.
    let took = server.stop().await;
    assert!(took < Duration::from_millis(800), "{took:?}");
    connection.await.unwrap().unwrap();
    assert!(requests.is_closed());

    let config =
        "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nhttp_server_config: {http2: no}\n";
    let config = place.write("web.yml", config);
    let server = Setup { web_config: Some(config), ..Setup::default() }.start().await;
    let stream = client.connect(server.address).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(exchange(stream, &get("/-/ready", "")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_http2_connection_stays() {
    let place = Place::new();
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        response_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Setup { web_config: Some(place.tls(&[])), limits, ..Setup::default() }.start().await;
    let client = Client { alpn: &[b"h2"], ..place.client() };
    let stream = client.connect(server.address).await.unwrap();
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = axum::http::Request::get("https://localhost/-/ready");
        let answer = requests.send_request(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        tokio::time::sleep(limits.header_timeout * 3).await;
    }
    // One that never asks does not.
    let silent = client.connect(server.address).await.unwrap();
    let (_requests, connection) = hyper::client::conn::http2::handshake::<_, _, axum::body::Body>(
        TokioExecutor::new(),
        TokioIo::new(silent),
    )
    .await
    .unwrap();
    let _ = tokio::time::timeout(PATIENCE, connection).await.expect("still open");
    assert_eq!(server.refusals.get(Refusal::HeaderTimeout), 1);
    assert_eq!(server.refusals.get(Refusal::ResponseTimeout), 0);
}

#[tokio::test]
async fn no_http2_without_tls() {
    let server = Setup::default().start().await;
    let stream = server.connect().await;
    let answer = exchange(stream, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_ne!(answer.status, 200);
}

#[tokio::test]
async fn plain_http_to_a_tls_port() {
    let place = Place::new();
    let limits = Limits { handshake_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = Setup { web_config: Some(place.tls(&[])), limits, ..Setup::default() }.start().await;
    let answer = server.get("/metrics", "").await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("https"), "{}", answer.text());
    assert_eq!(server.refusals.get(Refusal::TlsHandshake), 1);
    // One that begins a handshake and stops, and one that says nothing.
    let mut half = server.connect().await;
    half.write_all(b"\x16\x03\x01\x02").await.unwrap();
    let mut silent = server.connect().await;
    read_to_end(&mut half).await;
    assert_eq!(read_to_end(&mut silent).await, b"");
    eventually("both are counted", || server.refusals.get(Refusal::TlsHandshake) == 3).await;
    assert!(place.client().is_served(server.address).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_cuts_handshakes() {
    let place = Place::new();
    let server = start(&place, &[]).await;
    let mut half = server.connect().await;
    half.write_all(b"\x16\x03\x01\x02").await.unwrap();
    let took = server.stop().await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    read_to_end(&mut half).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_check_with_tls() {
    let place = Place::new();
    let config = place.tls(&[]);
    let server = Setup { web_config: Some(config.clone()), ..Setup::default() }.start().await;
    let address = server.address;
    let listen = ListenAddress::Socket(address);
    assert_eq!(healthcheck(&listen, Some(&config)).await.unwrap(), format!("{address} is healthy"));
    let error = healthcheck(&listen, None).await.unwrap_err().to_string();
    assert!(error.contains("answered 400"), "{error}");
    let error = healthcheck(&listen, Some(&place.path("none.yml"))).await.unwrap_err().to_string();
    assert!(error.contains("none.yml: cannot be read"), "{error}");

    for max_version in ["TLS12", "TLS13"] {
        let lines = [
            "client_auth_type: RequireAndVerifyClientCert",
            "client_ca_file: ca.pem",
            &format!("max_version: {max_version}"),
        ];
        let config = place.tls(&lines);
        let server = Setup { web_config: Some(config.clone()), ..Setup::default() }.start().await;
        let listen = ListenAddress::Socket(server.address);
        let alive = healthcheck(&listen, Some(&config)).await.unwrap();
        assert!(alive.contains("alive; it asks for a client certificate"), "{max_version}: {alive}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liveness_forgives_what_a_restart_would_not_mend() {
    let place = Place::new();
    let config = place.tls(&[]);
    let good = std::fs::read_to_string(&config).unwrap();
    let server = Setup { web_config: Some(config.clone()), ..Setup::default() }.start().await;
    let listen = ListenAddress::Socket(server.address);
    let well = format!("{} is healthy", server.address);
    assert_eq!(liveness(&listen, Some(&config)).await.unwrap(), well);

    // Neither can the file be parsed, nor a file that it names be read.
    for bad in ["tls_server_config: [", &good.replace("cert.pem", "none.pem")] {
        assert_ne!(bad, good);
        std::fs::write(&config, bad).unwrap();
        healthcheck(&listen, Some(&config)).await.unwrap_err();
        let alive = liveness(&listen, Some(&config)).await.unwrap();
        assert!(alive.contains("takes connections") && alive.contains(".yml"), "{alive}");
    }
    // TLS cannot be taken away without a restart.
    std::fs::write(&config, "").unwrap();
    liveness(&listen, Some(&config)).await.unwrap_err();

    std::fs::write(&config, good).unwrap();
    assert_eq!(liveness(&listen, Some(&config)).await.unwrap(), well);
    *server.health.lock().unwrap() = Health::Unhealthy("no tick for 90 s".to_owned());
    liveness(&listen, Some(&config)).await.unwrap_err();

    std::fs::write(&config, "[").unwrap();
    server.stop().await;
    let error = liveness(&listen, Some(&config)).await.unwrap_err().to_string();
    assert!(error.starts_with("no answer from"), "{error}");
}
