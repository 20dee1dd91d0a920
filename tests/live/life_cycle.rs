//! How the daemon starts and ends.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::kit::daemon::{BINARY, Daemon};
use crate::kit::host::{self, PATIENCE};

#[test]
fn sigterm_ends_it_within_a_second_and_open_scrapes_are_answered() {
    let _host = host::shared();
    let daemon = Daemon::start();
    daemon.next_sample();
    let address = daemon.address;
    // One that has asked nothing, and one in the middle of its answer on a connection that it means to keep.
    let mut idle = TcpStream::connect(address).unwrap();
    let mut scrape = TcpStream::connect(address).unwrap();
    scrape.set_read_timeout(Some(PATIENCE)).unwrap();
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 15];
    scrape.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let (status, took) = daemon.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let mut rest = String::new();
    scrape.read_to_string(&mut rest).unwrap();
    let (head, body) = rest.split_once("\r\n\r\n").unwrap();
    let length = format!("content-length: {}", body.len());
    assert!(head.to_lowercase().contains(&length) && body.contains("skmem_sample_sockets "), "{rest}");
    let mut nothing = Vec::new();
    idle.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(idle.read_to_end(&mut nothing).unwrap_or(0), 0);
    assert!(TcpStream::connect(address).is_err(), "still listening");
}

/// Starts a daemon that cannot work: it must end at once, with one line that has these words in it.
#[track_caller]
fn refuses(exit_status: i32, arguments: &[&str], words: &[&str]) {
    let begin = Instant::now();
    let mut child = Command::new(BINARY).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > Duration::from_secs(5) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{arguments:?}: it runs");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(exit_status), "{arguments:?}: {status}");
    assert_eq!(said.trim_end().lines().count(), 1, "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: no {word} in {said}");
    }
}

#[test]
fn what_cannot_work_ends_at_once_with_one_line() {
    let _host = host::shared();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses(1, &["--web.listen-address", &address], &[&address, "in use"]);

    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().to_str().unwrap();
    let free = "--web.listen-address=127.0.0.1:0";
    refuses(1, &[free, "--path.procfs", here], &["--path.procfs", here, "sockstat"]);
    refuses(1, &[free, "--path.procfs=/nonexistent"], &["--path.procfs", "/nonexistent"]);

    let config = directory.path().join("config.toml");
    let config = config.to_str().unwrap();
    std::fs::write(config, "sample.intervall = \"15s\"\n").unwrap();
    refuses(2, &[free, "--config.file", config], &[config, "sample.intervall"]);
    std::fs::write(config, "sample.interval = \"0s\"\n").unwrap();
    refuses(2, &[free, "--config.file", config], &[config, "sample.interval", "0s"]);
    refuses(2, &[free, "--config.file=/nonexistent"], &["/nonexistent"]);
    refuses(2, &[free, "--web.config.file=/nonexistent"], &["web configuration file /nonexistent"]);
    refuses(2, &[free, "--web.telemetry-path=/-/ready"], &["--web.telemetry-path", "/-/ready"]);
}
