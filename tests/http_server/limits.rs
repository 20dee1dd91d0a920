//! Clients that want too much, or take too long.

use crate::support::*;
use skmem_exporter::http::Settings;
use skmem_exporter::http::limits::{Limits, MAX_CONNECTIONS, MAX_HEADER_BYTES, MAX_HEADERS};
use skmem_exporter::sample::Refusal;
use skmem_exporter::sample::{Exposed, HostFigures};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// More than the kernel buffers between a server and a client that does not read.
const UNREADABLE: u64 = 64 << 20;

fn huge() -> Exposed {
    Exposed { host: HostFigures { tcp_memory: Some(UNREADABLE), ..HostFigures::default() }, ..exposed(1.0) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_scrapes() {
    let settings = Settings { max_requests: 1, ..Settings::default() };
    let limits = Limits { response_timeout: Duration::from_secs(1), ..Limits::default() };
    let server = Setup { exposed: huge(), settings, limits, ..Setup::default() }.start().await;
    // Asks and does not read: the scrape goes on, although its body was rendered long ago.
    let mut slow = server.connect().await;
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    slow.readable().await.unwrap();
    let answer = server.get("/metrics", "").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("--web.max-requests"), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(server.refusals.get(Refusal::OverMaxRequests), 1);
    assert_eq!(server.get("/-/healthy", "").await.status, 200, "only scrapes are limited");

    // It is cut at its deadline, and its place is free again.
    eventually("the slow scrape is cut", || server.refusals.get(Refusal::ResponseTimeout) == 1).await;
    let mut next = server.connect().await;
    next.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answer = read_one(&mut next).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() as u64 >= UNREADABLE);
    // A scrape that has ended needs no place, although its connection stays.
    assert_eq!(server.request("HEAD /metrics HTTP/1.1\r\nConnection: close\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn slow_headers() {
    let limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    let server = Setup { limits, ..Setup::default() }.start().await;
    // Nothing, a byte now and then, and half a header at once.
    let begin = Instant::now();
    let mut silent = server.connect().await;
    let mut half = server.connect().await;
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
    let mut dripping = server.connect().await;
    let drip = tokio::spawn(async move {
        for byte in b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: and very much longer than this\r\n\r\n" {
            if dripping.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(30)).await;
        }
        read_to_end(&mut dripping).await
    });
    assert_eq!(read_to_end(&mut silent).await, b"");
    assert_eq!(read_to_end(&mut half).await, b"");
    assert!(begin.elapsed() >= limits.header_timeout);
    assert_eq!(drip.await.unwrap(), b"");
    assert_eq!(server.refusals.get(Refusal::HeaderTimeout), 3);
}

#[tokio::test]
async fn idle_connections_outlive_the_header_timeout() {
    let limits = Limits {
        header_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(1500),
        ..Limits::default()
    };
    let server = Setup { limits, ..Setup::default() }.start().await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(read_one(&mut stream).await.status, 200);
        sleep(limits.header_timeout * 3).await;
    }
    // But not for ever, and the begin of a request starts its own time.
    let mut half = server.connect().await;
    half.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(read_one(&mut half).await.status, 200);
    half.write_all(b"GET").await.unwrap();
    let begin = Instant::now();
    assert_eq!(read_to_end(&mut half).await, b"");
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(server.refusals.get(Refusal::HeaderTimeout), 1);
    assert_eq!(read_to_end(&mut stream).await, b"");
    assert_eq!(server.refusals.get(Refusal::HeaderTimeout), 1, "an idle connection's end is no refusal");
}

#[tokio::test]
async fn huge_headers() {
    let server = Setup::default().start().await;
    let fits = format!("X-Big: {}\r\n", "x".repeat(MAX_HEADER_BYTES - 1024));
    assert_eq!(server.get("/metrics", &fits).await.status, 200);
    let lines = "X: y\r\n".repeat(MAX_HEADERS - 10);
    assert_eq!(server.get("/metrics", &lines).await.status, 200);

    let one = format!("X-Big: {}\r\n", "x".repeat(MAX_HEADER_BYTES));
    let many = "X: y\r\n".repeat(MAX_HEADERS + 1);
    let path = format!("/{}", "x".repeat(MAX_HEADER_BYTES));
    for (number, request) in
        [get("/metrics", &one), get("/metrics", &many), get(&path, "")].iter().enumerate()
    {
        let mut stream = server.connect().await;
        // The server may close before all of it is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = Answer::parse(&read_to_end(&mut stream).await);
        // It may even be that the reset overtakes the answer.
        assert!([431, 414, 0].contains(&answer.status), "{}", answer.head);
        eventually("counted", || server.refusals.get(Refusal::HeaderTooLarge) == number as u64 + 1).await;
    }
}

#[tokio::test]
async fn nonsense() {
    let server = Setup::default().start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = Answer::parse(&read_to_end(&mut stream).await);
        assert!([0, 400, 505].contains(&answer.status), "{bytes:?}: {}", answer.head);
    }
    for request in
        ["GET * HTTP/1.1\r\nConnection: close\r\n\r\n", "OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n"]
    {
        assert!((400..500).contains(&server.request(request).await.status), "{request}");
    }
    assert_eq!(server.request("GET /metrics HTTP/1.0\r\n\r\n").await.status, 200, "HTTP/1.0 is fine");
    assert_eq!(server.get("/-/healthy", "").await.status, 200);
}

#[tokio::test]
async fn one_connection_too_many() {
    let limits = Limits { max_connections: 3, ..Limits::default() };
    let server = Setup { limits, ..Setup::default() }.start().await;
    let idle = async |from: [u8; 4]| {
        let mut stream = server.connect_from(from).await;
        stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(read_one(&mut stream).await.status, 200);
        stream
    };
    let mut modest = idle([127, 0, 0, 2]).await;
    let mut first = idle([127, 0, 0, 1]).await;
    let mut second = idle([127, 0, 0, 1]).await;
    // The one that has idled longest of the peer that has most makes room, for itself as for others.
    let mut third = idle([127, 0, 0, 1]).await;
    assert_eq!(read_to_end(&mut first).await, b"");
    assert_eq!(server.refusals.get(Refusal::OverMaxConnections), 1);
    let mut other = idle([127, 0, 0, 3]).await;
    assert_eq!(read_to_end(&mut second).await, b"");
    assert_eq!(server.refusals.get(Refusal::OverMaxConnections), 2);
    for open in [&mut modest, &mut third, &mut other] {
        open.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(read_one(open).await.status, 200);
    }
    // Who leaves by itself makes room as well.
    drop(third);
    let begin = Instant::now();
    loop {
        let before = server.refusals.get(Refusal::OverMaxConnections);
        assert_eq!(server.get("/-/ready", "").await.status, 200);
        if server.refusals.get(Refusal::OverMaxConnections) == before {
            break;
        }
        assert!(begin.elapsed() < PATIENCE);
    }
}

/// Connections from 127.0.0.1 that ask for more than the kernel buffers, and do not read.
async fn deaf(server: &Running, count: usize) -> Vec<TcpStream> {
    let mut deaf = Vec::new();
    for _ in 0..count {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.readable().await.unwrap();
        deaf.push(stream);
    }
    deaf
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_shared_among_peers() {
    let limits = Limits { max_connections: 3, ..Limits::default() };
    let server = Setup { exposed: huge(), limits, ..Setup::default() }.start().await;
    let _deaf = deaf(&server, 3).await;
    // Answers that are under way are not cut for more of the same peer, but for others.
    assert_eq!(server.get("/-/ready", "").await.status, 0);
    assert_eq!(server.refusals.get(Refusal::OverMaxConnections), 1);
    let other = server.connect_from([127, 0, 0, 2]).await;
    assert_eq!(exchange(other, &get("/-/ready", "")).await.status, 200);
    assert_eq!(server.refusals.get(Refusal::OverMaxConnections), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_shared_among_peers() {
    let settings = Settings { max_requests: 2, ..Settings::default() };
    let server = Setup { exposed: huge(), settings, ..Setup::default() }.start().await;
    let _deaf = deaf(&server, 2).await;
    assert_eq!(server.get("/metrics", "").await.status, 503);
    assert_eq!(server.refusals.get(Refusal::OverMaxRequests), 1);
    let other = server.connect_from([127, 0, 0, 2]).await;
    let answer = exchange(other, &get("/metrics", "")).await;
    assert_eq!((answer.status, answer.body.len() as u64 >= UNREADABLE), (200, true));
    assert_eq!(server.refusals.get(Refusal::OverMaxRequests), 2);
}

#[test]
fn connections_leave_descriptors_to_samples() {
    let most = |descriptors| Limits::with_descriptors(descriptors).max_connections;
    assert_eq!(most(None), MAX_CONNECTIONS);
    assert_eq!(most(Some(1024)), MAX_CONNECTIONS);
    assert_eq!(most(Some(100)), 50);
    assert_eq!(most(Some(0)), 1);
}
