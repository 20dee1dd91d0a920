//! Our own client, against our own server and against others.

use crate::certificates::Place;
use crate::support::*;
use skmem_exporter::config::ListenAddress;
use skmem_exporter::http::ask_daemon;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn ask(address: SocketAddr, web_config: Option<&Path>, path: &str) -> Result<String, String> {
    let asked = ask_daemon(&ListenAddress::Socket(address), web_config, path).await;
    asked.map(|body| String::from_utf8(body).unwrap()).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_what_is_served_whole() {
    let mut large = exposed(1.0);
    large.host.tcp_memory = Some(3 << 20);
    let server = Setup { exposed: large, ..Setup::default() }.start().await;
    let address = server.address;
    let body = ask(address, None, "/metrics").await.unwrap();
    assert!(body.len() >= 3 << 20 && body.ends_with("} 1\n"), "{}", body.len());
    assert_eq!(ask(address, None, "/nothing").await, Err(format!("{address} answers /nothing with 404")));
    let mut huge = exposed(1.0);
    huge.host.tcp_memory = Some(33 << 20);
    server.publish.send_replace(Arc::new(huge));
    let error = ask(address, None, "/metrics").await.unwrap_err();
    assert_eq!(error, format!("{address} has not answered to the end: more than 32 MiB"));
    server.stop().await;
    assert_eq!(ask(address, None, "/metrics").await, Err(format!("nobody listens on {address}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_unless_it_would_have_to_say_who_it_is() {
    let place = Place::new();
    let config = place.tls(&[]);
    let server = Setup { web_config: Some(config.clone()), ..Setup::default() }.start().await;
    assert!(ask(server.address, Some(&config), "/metrics").await.unwrap().contains("sample 1"));
    let error = ask(server.address, None, "/metrics").await.unwrap_err();
    assert!(error.ends_with("answers /metrics with 400"), "{error}");

    for max_version in ["TLS12", "TLS13"] {
        let version = format!("max_version: {max_version}");
        let policy = "client_auth_type: RequireAndVerifyClientCert";
        let config = place.tls(&[policy, "client_ca_file: ca.pem", &version]);
        let server = Setup { web_config: Some(config.clone()), ..Setup::default() }.start().await;
        let address = server.address;
        let expect = format!("{address} asks for a client certificate (client_auth_type)");
        assert_eq!(ask(address, Some(&config), "/metrics").await, Err(expect), "{max_version}");
    }

    let users = place.write(
        "users.yml",
        "basic_auth_users:\n  alice: $2y$04$zgJLmX0BMDD9kNwt2zR5i.Zs3cHyqBqKQlOoTjJnWYMn5Zd9eJtnS\n",
    );
    let server = Setup { web_config: Some(users.clone()), ..Setup::default() }.start().await;
    let address = server.address;
    let expect = format!("{address} asks for a password (basic_auth_users)");
    assert_eq!(ask(address, Some(&users), "/metrics").await, Err(expect));
}

/// A listener that sends `answer` to whoever asks, and then keeps the connection open.
async fn sends(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await.unwrap();
        stream.write_all(answer).await.unwrap();
        std::future::pending::<()>().await;
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_keeps_it_waiting() {
    for (answer, expect) in [
        (&b""[..], "does not answer in time"),
        (b"HTTP/1.1 200 OK\r\n", "does not answer in time"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "does not answer in time"),
        (
            b"HTTP/1.1 200 OK\r\n\r\nto the end of the connection, which does not come",
            "does not answer in time",
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "does not speak HTTP"),
    ] {
        let begin = Instant::now();
        let error = ask(sends(answer).await, None, "/metrics").await.unwrap_err();
        assert!(error.contains(expect), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{error}");
    }
}
