//! Sockets: bound, handed over, refused; and the health check that connects to them.

use crate::support::*;
use skmem_exporter::config::ListenAddress;
use skmem_exporter::http::{Health, ask_daemon, bind, from_systemd, healthcheck};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn host(address: SocketAddr) -> ListenAddress {
    ListenAddress::Socket(address)
}

#[tokio::test]
async fn all_interfaces_take_ipv4() {
    let listeners = bind(&[ListenAddress::AllInterfaces { port: 0 }]).await.unwrap();
    let port = listeners[0].local_addr().unwrap().port();
    let accepted = tokio::spawn(async move { listeners[0].accept().await.unwrap().1 });
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    assert!(accepted.await.unwrap().ip().to_canonical().is_loopback());
}

#[tokio::test]
async fn several_addresses() {
    let any = || ListenAddress::Socket(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listeners = bind(&[any(), "localhost:0".parse().unwrap()]).await.unwrap();
    assert_eq!(listeners.len(), 2);
    assert!(listeners.iter().all(|listener| listener.local_addr().unwrap().ip().is_loopback()));
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = TcpListener::bind(taken).unwrap();
    let error = async |address: &[ListenAddress]| bind(address).await.unwrap_err().to_string();

    let in_use = error(&[host(taken)]).await;
    assert!(in_use.starts_with(&format!("cannot listen on {taken}: Address already in use")), "{in_use}");
    assert!(in_use.contains(&format!("sport = :{}", taken.port())), "{in_use}");
    assert!(in_use.contains("--web.listen-address"), "{in_use}");

    let foreign = error(&["192.0.2.1:0".parse().unwrap()]).await;
    assert!(foreign.contains("192.0.2.1:0") && foreign.contains("no interface"), "{foreign}");
    let unknown = error(&["no-such-host.invalid:1".parse().unwrap()]).await;
    assert!(unknown.contains("no-such-host.invalid:1") && unknown.contains("/etc/hosts"), "{unknown}");
    assert!(error(&[]).await.contains("--web.listen-address"));
}

/// The part of `sockets_from_systemd` that runs in a process of its own.
#[tokio::test]
async fn systemd_child() {
    match std::env::var("HTTP_TEST_SYSTEMD").as_deref() {
        Ok("sockets") => {
            let listeners = from_systemd().unwrap();
            println!("port {}", listeners[0].local_addr().unwrap().port());
            let (mut stream, _) = listeners[0].accept().await.unwrap();
            stream.write_all(b"from the child").await.unwrap();
        }
        Ok("errors") => println!("error {}", from_systemd().unwrap_err()),
        _ => {}
    }
}

fn child(mode: &str, shell: &str, stdin: Stdio) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell} exec \"$0\" --exact listening::systemd_child --nocapture")])
        .arg(std::env::current_exe().unwrap())
        .env("HTTP_TEST_SYSTEMD", mode)
        .stdin(stdin)
        .stdout(Stdio::piped());
    command
}

#[tokio::test]
async fn sockets_from_systemd() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let passed = "exec 3<&0; export LISTEN_FDS=1 LISTEN_PID=$$;";
    let running = child("sockets", passed, OwnedFd::from(listener).into()).spawn().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, b"from the child");
    let output = running.wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout);
    assert!(output.contains(&format!("port {}\n", address.port())), "{output}");
}

#[test]
fn systemd_passed_something_else() {
    let output = |shell, stdin: Stdio| {
        let output = child("errors", shell, stdin).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let none = output("", Stdio::null());
    assert!(none.contains("error --web.systemd-socket is set, but systemd passed no socket"), "{none}");
    let passed = "exec 3<&0; export LISTEN_FDS=1 LISTEN_PID=$$;";
    let no_socket = output(passed, Stdio::null());
    assert!(no_socket.contains("error socket 1 passed by systemd is no TCP listener"), "{no_socket}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let accepting = output(passed, OwnedFd::from(connected).into());
    assert!(accepting.contains("error socket 1 passed by systemd is no TCP listener"), "{accepting}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asks_for_health() {
    let server = Setup::default().start().await;
    let address = server.address;
    assert_eq!(healthcheck(&host(address), None).await.unwrap(), format!("{address} is healthy"));
    *server.health.lock().unwrap() = Health::Unhealthy("no tick for 90 s".to_owned());
    let error = healthcheck(&host(address), None).await.unwrap_err().to_string();
    assert_eq!(error, format!("{address} answered 503 Service Unavailable: unhealthy: no tick for 90 s"));
    server.stop().await;
    let error = healthcheck(&host(address), None).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("no answer from {address}: Connection refused")), "{error}");
    let unknown = "no-such-host.invalid:1".parse().unwrap();
    let error = healthcheck(&unknown, None).await.unwrap_err().to_string();
    assert!(
        error.contains("no-such-host.invalid") && error.contains("put the name into /etc/hosts"),
        "{error}"
    );
    let error = ask_daemon(&unknown, None, "/").await.unwrap_err().to_string();
    assert!(
        error.contains("no-such-host.invalid") && error.contains("put the name into /etc/hosts"),
        "{error}"
    );

    // Takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let begin = Instant::now();
    let error = healthcheck(&host(silent.local_addr().unwrap()), None).await.unwrap_err().to_string();
    assert!(error.contains("none within"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(6));
}
