//! `diagnose` where something listens that may be the daemon.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

// Not every test needs every report.
#[allow(dead_code)]
#[path = "support/reports.rs"]
mod reports;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use skmem_exporter::report::{Mode, Report};

/// The answer to one request, and then to no other.
fn serve(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut piece = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            let length = stream.read(&mut piece).unwrap();
            request.extend_from_slice(&piece[..length]);
        }
        assert!(request.starts_with(b"GET /api/v1/report HTTP/1.0\r\n"));
        stream.write_all(answer.as_bytes()).unwrap();
    });
    address
}

fn ok(report: &Report) -> String {
    let body = serde_json::to_string(report).unwrap();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// What a daemon would say now.
fn fresh(report: Report) -> Report {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let mut report = Report { timestamp: Some(now - 1.0), ..report };
    report.generator.mode = Mode::Daemon;
    report.watch.seconds = report.watch.seconds.max(report.watch.stall_after_seconds);
    report
}

/// Runs it where it cannot look itself: then only the daemon can have told it anything.
fn diagnose(address: SocketAddr, arguments: &[&str]) -> Output {
    let begin = Instant::now();
    let listen = format!("--web.listen-address={address}");
    let output = Command::new(env!("CARGO_BIN_EXE_skmem-exporter"))
        .args(["diagnose", &listen, "--path.procfs=/nonexistent"])
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(begin.elapsed() < Duration::from_secs(8), "{output:?}");
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_daemon_that_knows_is_believed() {
    let healthy = diagnose(serve(ok(&fresh(reports::healthy()))), &[]);
    assert_eq!((healthy.status.code(), text(&healthy.stderr)), (Some(0), ""));
    let shown = text(&healthy.stdout);
    assert!(shown.starts_with("OK  Healthy: ") && shown.contains("Host web-7, "), "{shown}");
    assert!(shown.contains("Asked of the daemon") && shown.contains("History"), "{shown}");

    let report = fresh(reports::pressure());
    let wrong = diagnose(serve(ok(&report)), &["--format=json"]);
    assert_eq!((wrong.status.code(), text(&wrong.stderr)), (Some(1), ""));
    assert_eq!(serde_json::from_slice::<Report>(&wrong.stdout).unwrap(), report);
}

/// One line says why not; the next is of its own attempt.
#[track_caller]
fn is_not_believed(answer: String, why: &str) {
    let address = serve(answer);
    let output = diagnose(address, &[]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""), "{output:?}");
    let said: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(said[0], format!("No answer from the daemon: {address} {why}. Watching for 10s instead."));
    assert!(said.len() == 2 && said[1].contains("--path.procfs: /nonexistent"), "{said:?}");
}

#[test]
fn any_other_is_not_and_it_says_why() {
    let nothing = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    is_not_believed(nothing("401 Unauthorized"), "asks for a password (basic_auth_users)");
    is_not_believed(nothing("404 Not Found"), "answers /api/v1/report with 404");
    is_not_believed(nothing("200 OK"), "answers with something else");
    is_not_believed(ok(&Report { timestamp: None, ..reports::nothing() }), "has no complete sample yet");
    let mut young = fresh(reports::not_reading());
    young.watch.seconds = 3.0;
    is_not_believed(ok(&young), "has watched for 3 s only, a stall shows after 8 s");
    let mut other = fresh(reports::healthy());
    other.generator.name = "other".to_owned();
    is_not_believed(ok(&other), "is another program");
}

#[test]
fn nobody_is_asked_where_nobody_listens_or_with_a_duration() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = diagnose(address, &[]);
    assert_eq!(nobody.status.code(), Some(2));
    assert_eq!(text(&nobody.stderr).lines().count(), 1, "{nobody:?}");

    let daemon = TcpListener::bind("127.0.0.1:0").unwrap();
    daemon.set_nonblocking(true).unwrap();
    let own = diagnose(daemon.local_addr().unwrap(), &["--duration=3s"]);
    assert_eq!(own.status.code(), Some(2));
    assert!(daemon.accept().is_err(), "it was asked");
}
