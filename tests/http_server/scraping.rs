//! Routes, formats, encodings, and one rendering per sample.

use crate::support::*;
use flate2::read::GzDecoder;
use skmem_exporter::http::{Health, PathError, Settings};
use skmem_exporter::sample::{ExporterFigures, Exposed, HostFigures, SelfFigures};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

const PROMETHEUS_2: &str = "Accept: application/openmetrics-text;version=1.0.0,\
    application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\
    Accept-Encoding: gzip\r\n";

#[tokio::test]
async fn every_route() {
    let server = Setup::default().start().await;
    let table = [
        ("/metrics", 200, "Classic sample 1\n"),
        ("/metrics?collect[]=x", 200, "Classic sample 1\n"),
        ("/-/healthy", 200, "healthy\n"),
        ("/-/ready", 200, "ready\n"),
        ("/metrics/", 404, "not found"),
        ("//metrics", 404, "not found"),
        ("/METRICS", 404, "not found"),
        ("/api/v1/", 404, "not found"),
        ("/-/", 404, "not found"),
        ("/../etc/passwd", 404, "not found"),
        ("http://other.example/metrics", 200, "Classic sample 1\n"),
    ];
    for (path, status, body) in table {
        let answer = server.get(path, "").await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.text().starts_with(body), "{path}: {}", answer.text());
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(answer.head.len() < 1024, "vmagent reads no more than 4 KiB of headers");
    }
    let landing = server.get("/", "").await;
    assert_eq!(landing.status, 200);
    assert_eq!(landing.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(landing.text().contains("<a href=\"/metrics\">"), "{}", landing.text());
    assert!(landing.text().contains(env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn other_methods() {
    let server = Setup::default().start().await;
    for path in ["/metrics", "/api/v1/report", "/", "/-/healthy", "/-/ready"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
            );
            let answer = server.request(&request).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some("GET,HEAD"), "{method} {path}");
        }
        let (get, head) = (
            server.get(path, "").await,
            server.request(&format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await,
        );
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
}

#[tokio::test]
async fn telemetry_path_is_configurable() {
    let settings = |path: &str| Settings { telemetry_path: path.to_owned(), ..Settings::default() };
    let server = Setup { settings: settings("/-/tcp/metrics"), ..Setup::default() }.start().await;
    assert_eq!(server.get("/-/tcp/metrics", "").await.status, 200);
    assert_eq!(server.get("/metrics", "").await.status, 404);
    assert!(server.get("/", "").await.text().contains("<a href=\"/-/tcp/metrics\">"));

    let server = Setup { settings: settings("/"), ..Setup::default() }.start().await;
    assert_eq!(server.get("/", "").await.text(), "Classic sample 1\n");

    let state = skmem_exporter::http::State {
        exposed: server.publish.subscribe(),
        report: server.publish_report.subscribe(),
        render,
        health: Arc::new(|| Health::Healthy),
    };
    let refused: Result<_, PathError> =
        skmem_exporter::http::router(&state, settings("metrics"), Arc::default());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "--web.telemetry-path \"metrics\" does not start with a slash; use a path like /metrics"
    );
}

#[tokio::test]
async fn negotiates() {
    let server = Setup::default().start().await;
    let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let classic = "text/plain; version=0.0.4; charset=utf-8";
    for (headers, content_type, body) in [
        ("", classic, "Classic sample 1\n"),
        ("Accept: */*\r\n", classic, "Classic sample 1\n"),
        ("Accept: application/openmetrics-text\r\n", open, "OpenMetrics sample 1\n"),
        (
            "Accept: text/plain;q=0.1\r\naccept: application/openmetrics-text\r\n",
            open,
            "OpenMetrics sample 1\n",
        ),
        (
            "Accept: application/openmetrics-text;version=0.0.1\r\n",
            "application/openmetrics-text; version=0.0.1; charset=utf-8",
            "OpenMetrics sample 1\n",
        ),
        ("Accept: text/html, image/png\r\n", classic, "Classic sample 1\n"),
        ("Accept: \u{e4}\r\n", classic, "Classic sample 1\n"),
    ] {
        let answer = server.get("/metrics", headers).await;
        assert_eq!(answer.header("content-type"), Some(content_type), "{headers}");
        assert_eq!(answer.header("vary"), Some("Accept, Accept-Encoding"));
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.text(), body, "{headers}");
    }
    let answer = server.get("/metrics", PROMETHEUS_2).await;
    assert_eq!(answer.header("content-type"), Some(open));
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    GzDecoder::new(answer.body.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "OpenMetrics sample 1\n");
}

#[tokio::test]
async fn health_and_readiness() {
    let server = Setup { exposed: Exposed::default(), ..Setup::default() }.start().await;
    let answer = server.get("/-/ready", "").await;
    assert_eq!((answer.status, answer.text().contains("no complete sample")), (503, true));
    assert_eq!(server.get("/metrics", "").await.status, 200, "the host's figures do not need a sample");
    *server.health.lock().unwrap() = Health::Unhealthy("no tick for 90 s".to_owned());
    let answer = server.get("/-/healthy", "").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "unhealthy: no tick for 90 s\n"));

    server.publish.send_replace(Arc::new(exposed(2.0)));
    assert_eq!(server.get("/-/ready", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_rendering_per_sample_and_format() {
    const TEST: u64 = 1;
    let figures = |timestamp, milliseconds| Exposed {
        exporter: ExporterFigures {
            overruns: TEST,
            process: Some(SelfFigures { max_fds: milliseconds, ..SelfFigures::default() }),
            ..ExporterFigures::default()
        },
        ..exposed(timestamp)
    };
    let server = Arc::new(Setup { exposed: figures(1.0, 100), ..Setup::default() }.start().await);
    let mut scrapes = tokio::task::JoinSet::new();
    for turn in 0..20 {
        let server = Arc::clone(&server);
        let headers = if turn % 2 == 0 { PROMETHEUS_2 } else { "Accept: application/openmetrics-text\r\n" };
        scrapes.spawn(async move { (turn % 2, server.get("/metrics", headers).await.body) });
    }
    let bodies = scrapes.join_all().await;
    let rendered = || RENDERED[usize::try_from(TEST).unwrap()].load(SeqCst);
    assert_eq!(rendered(), 1);
    for (encoding, body) in &bodies {
        let same = bodies.iter().filter(|(other, _)| other == encoding).all(|(_, other)| other == body);
        assert!(same, "scrapes of one sample differ");
    }

    server.get("/metrics", "").await;
    assert_eq!(rendered(), 2, "the other format");
    server.publish.send_replace(Arc::new(figures(2.0, 0)));
    assert_eq!(server.get("/metrics", "").await.text(), "Classic sample 2\n");
    server.get("/metrics", "").await;
    assert_eq!(rendered(), 3);

    // Whoever leaves early does not waste the work.
    server.publish.send_replace(Arc::new(figures(3.0, 200)));
    for _ in 0..3 {
        let mut stream = server.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, get("/metrics", "").as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.get("/metrics", "").await.text(), "Classic sample 3\n");
    assert_eq!(rendered(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_connections_open() {
    let server = Setup::default().start().await;
    let mut stream = server.connect().await;
    for timestamp in [1.0, 2.0, 3.0] {
        server.publish.send_replace(Arc::new(exposed(timestamp)));
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(read_one(&mut stream).await.text(), format!("Classic sample {timestamp}\n"));
    }
    // Pipelined requests are answered in order.
    let two = "GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\nGET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, two.as_bytes()).await.unwrap();
    assert_eq!(read_one(&mut stream).await.text(), "ready\n");
    assert_eq!(read_one(&mut stream).await.text(), "healthy\n");
}

/// How long scrapes of some 1500 series take; prints, and only refuses what no machine should need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrape_latency() {
    let big = |timestamp| Exposed {
        host: HostFigures { tcp_memory: Some(150_000), ..HostFigures::default() },
        ..exposed(timestamp)
    };
    let server = Setup { exposed: big(0.0), ..Setup::default() }.start().await;
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for turn in 0..50_u32 {
        server.publish.send_replace(Arc::new(big(f64::from(turn))));
        for times in [&mut first, &mut again] {
            let begin = Instant::now();
            assert_eq!(server.get("/metrics", PROMETHEUS_2).await.status, 200);
            times.push(begin.elapsed());
        }
    }
    for (name, times) in [("first of a sample", &mut first), ("later", &mut again)] {
        times.sort();
        println!("{name}: median {:?}, largest {:?}", times[25], times[49]);
        assert!(times[25] < Duration::from_millis(100));
    }
}
