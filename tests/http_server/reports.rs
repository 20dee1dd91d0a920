//! `/api/v1/report` and the page: who is shown what, and how it is served.

use crate::report_fixture;
use crate::support::*;
use flate2::read::GzDecoder;
use serde_json::Value;
use skmem_exporter::http::Settings;
use skmem_exporter::sample::Refusal;
use std::io::Read;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

const PATH: &str = "/api/v1/report";

fn busy() -> Setup {
    Setup { report: report_fixture::busy(), ..Setup::default() }
}

#[tokio::test]
async fn serves_the_newest_report() {
    let server = busy().start().await;
    let answer = server.get(PATH, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(json, serde_json::to_value(report_fixture::busy()).unwrap());

    let zipped = server.get(PATH, "Accept-Encoding: gzip\r\n").await;
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    assert!(zipped.body.len() * 4 < answer.body.len());
    let mut plain = Vec::new();
    GzDecoder::new(zipped.body.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, answer.body);

    let newer = skmem_exporter::report::Report { hostname: "newer".to_owned(), ..report_fixture::busy() };
    server.publish_report.send_replace(Arc::new(newer));
    assert!(server.get(PATH, "").await.text().contains("\"hostname\":\"newer\""));
}

#[tokio::test]
async fn before_the_first_sample() {
    let server = Setup::default().start().await;
    let json: Value = serde_json::from_slice(&server.get(PATH, "").await.body).unwrap();
    assert_eq!((json["timestamp"].clone(), json["isHealthy"].clone()), (Value::Null, Value::Bool(false)));
}

#[tokio::test]
async fn addresses_are_for_those_we_trust() {
    let server = busy().start().await;
    for (headers, is_hidden) in [
        ("", false),
        ("X-Forwarded-For: 203.0.113.9\r\n", true),
        ("Forwarded: for=203.0.113.9\r\nAccept-Encoding: identity\r\n", true),
        ("", false),
    ] {
        let answer = server.get(PATH, headers).await;
        let json: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(json["areAddressesHidden"], is_hidden, "{headers}");
        assert_eq!(answer.text().contains("198.51.100.7"), !is_hidden, "{headers}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_the_places_of_scrapes() {
    let settings = Settings { max_requests: 1, ..Settings::default() };
    let mut report = report_fixture::busy();
    // More than the kernel buffers between a server and a client that does not read.
    report.verdict = "x".repeat(64 << 20);
    let server = Setup { report, settings, ..Setup::default() }.start().await;
    let mut slow = server.connect().await;
    slow.write_all(get(PATH, "").as_bytes()).await.unwrap();
    slow.readable().await.unwrap();
    for path in [PATH, "/metrics"] {
        assert_eq!(server.get(path, "").await.status, 503, "{path}");
    }
    assert_eq!(server.refusals.get(Refusal::OverMaxRequests), 2);
}

#[tokio::test]
async fn the_page_is_served_like_the_report() {
    let settings = Settings { telemetry_path: "/a&b".to_owned(), ..Settings::default() };
    let server = Setup { settings, ..busy() }.start().await;
    let answer = server.get("/", "").await;
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
    let policy = skmem_exporter::page::policy();
    assert_eq!(answer.header("content-security-policy"), Some(policy.as_str()));
    assert!(answer.text().contains("href=\"/a&amp;b\""));
    assert!(answer.text().contains("198.51.100.7"));

    let zipped = server.get("/", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let forwarded = server.get("/", "X-Forwarded-For: 203.0.113.9\r\n").await;
    assert!(!forwarded.text().contains("198.51.100.7") && forwarded.text().contains("addresses-hidden"));
    let head = server.request("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}
