//! The end: what is asked is answered, and nobody can hold it up.

use crate::support::*;
use skmem_exporter::sample::{ExporterFigures, Exposed, HostFigures, SelfFigures};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_an_open_scrape() {
    let slow = SelfFigures { max_fds: 300, ..SelfFigures::default() };
    let exposed =
        Exposed { exporter: ExporterFigures { process: Some(slow), ..Default::default() }, ..exposed(7.0) };
    let server = Setup { exposed, ..Setup::default() }.start().await;
    let address = server.address;
    let mut scrape = server.connect().await;
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(read_one(&mut idle).await.status, 200);
    let mut half = server.connect().await;
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
    sleep(Duration::from_millis(50)).await;

    let took = server.stop().await;
    assert!(took < Duration::from_millis(800), "{took:?}");
    let answer = Answer::parse(&read_to_end(&mut scrape).await);
    assert_eq!((answer.status, answer.text().as_str()), (200, "Classic sample 7\n"));
    assert_eq!(read_to_end(&mut idle).await, b"");
    assert_eq!(read_to_end(&mut half).await, b"");
    assert!(TcpStream::connect(address).await.is_err(), "still listening");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_end_at_once() {
    let server = Setup::default().start().await;
    let mut open = vec![server.connect().await];
    for _ in 0..20 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_eq!(read_one(&mut stream).await.status, 200);
        open.push(stream);
    }
    let took = server.stop().await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    for stream in &mut open {
        assert_eq!(read_to_end(stream).await, b"");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stuck_clients_are_cut() {
    let stuck = SelfFigures { max_fds: 0, ..SelfFigures::default() };
    let exposed = Exposed {
        host: HostFigures { tcp_memory: Some(64 << 20), ..HostFigures::default() },
        exporter: ExporterFigures { process: Some(stuck), ..Default::default() },
        ..exposed(1.0)
    };
    let server = Setup { exposed, ..Setup::default() }.start().await;
    let mut stuck = server.connect().await;
    stuck.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    stuck.readable().await.unwrap();
    let took = server.stop().await;
    assert!(took >= Duration::from_millis(800) && took < Duration::from_millis(1200), "{took:?}");
}
