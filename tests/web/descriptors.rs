//! A daemon that has no file descriptors left.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::kit::daemon::{BINARY, Daemon, FLAGS};
use crate::kit::host::{PATIENCE, alone, eventually, holds};

/// How long accept() is kept from working: some thirty of its pauses.
const STARVED: Duration = Duration::from_secs(3);

/// Descriptors that a process has open.
pub fn open(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The processor time that a process has used.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

fn set_limit(daemon: &Daemon, descriptors: u64) {
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(descriptors), maximum: Some(20_000) }).unwrap();
}

/// Asks on an open connection; whether it was answered.
fn ask(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer)?;
    Ok(answer[..length].starts_with(b"HTTP/1.1 200 OK"))
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    let _host = alone();
    let daemon = Daemon::start();
    daemon.next_sample();
    let mut kept: Vec<_> = (0..3).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    for stream in &mut kept {
        assert!(ask(stream).unwrap());
    }
    // Far fewer than it has open: no new one can be opened.
    let used = open(daemon.pid());
    set_limit(&daemon, 4);
    let before = cpu(daemon.pid());
    // It is in the kernel's queue, and accept() fails.
    let mut waiting = TcpStream::connect(daemon.address).unwrap();
    waiting.write_all(b"GET /-/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    std::thread::sleep(STARVED);
    // A loop that turned would have used all of a processor.
    let used_cpu = cpu(daemon.pid()).checked_sub(before).unwrap();
    assert!(used_cpu < STARVED / 2, "{used_cpu:?} of {STARVED:?}");
    let said = daemon.log().iter().filter(|line| line.contains("cannot accept connections")).count();
    assert_eq!(said, 1, "once, not for each pause: {:?}", daemon.log());

    set_limit(&daemon, 20_000);
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    eventually("the line of its end", || {
        let log = daemon.log();
        holds(|| format!("{log:?}"), log.iter().any(|line| line.contains("can be accepted again")))
    });
    // The one that had idled longest has been closed in vain, and that was it: nobody could have come back.
    assert!(!ask(&mut kept[0]).unwrap_or(false));
    assert!(ask(&mut kept[1]).unwrap() && ask(&mut kept[2]).unwrap());
    let scrape = daemon.next_sample();
    assert_eq!(scrape.int("skmem_exporter_http_refused_total", &[("reason", "over_max_connections")]), 1);
    eventually("the descriptors it had, less the connections", || {
        let now = open(daemon.pid());
        holds(|| format!("{now} open, {used} before"), now <= used)
    });
}

#[test]
fn scrapes_on_open_connections_go_on() {
    let _host = alone();
    let daemon = Daemon::start();
    daemon.next_sample();
    let mut idle = TcpStream::connect(daemon.address).unwrap();
    assert!(ask(&mut idle).unwrap());
    let mut scraper = TcpStream::connect(daemon.address).unwrap();
    assert!(ask(&mut scraper).unwrap());
    // Nobody wants in: nothing is closed, and who is in is served, although no sample can be taken.
    set_limit(&daemon, 4);
    for _ in 0..20 {
        assert!(ask(&mut scraper).unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
    // With as many as it has open: the one that has idled longest makes room.
    set_limit(&daemon, u64::try_from(open(daemon.pid())).unwrap());
    let mut newcomer = TcpStream::connect(daemon.address).unwrap();
    assert!(ask(&mut newcomer).unwrap());
    assert!(ask(&mut scraper).unwrap());
    set_limit(&daemon, 20_000);
    daemon.next_sample();
}

#[test]
fn connections_leave_half_to_samples() {
    let _host = alone();
    let daemon = Daemon::start_command(Command::new("prlimit").args(["--nofile=128", BINARY]).args(FLAGS));
    daemon.next_sample();
    let idle: Vec<_> = (0..200).map(|_| TcpStream::connect(daemon.address).unwrap()).collect();
    let scrape = daemon.next_sample();
    assert!(scrape.failures().is_empty(), "{:?}", scrape.failures());
    // The scrapes of this test come from the same peer, and take places as well.
    eventually("all who are too many turned away", || {
        let scrape = daemon.next_sample();
        let refused = scrape.int("skmem_exporter_http_refused_total", &[("reason", "over_max_connections")]);
        holds(|| format!("{refused} are"), refused >= 200 - 64)
    });
    assert!(open(daemon.pid()) < 128);
    assert!(daemon.log().iter().all(|line| !line.contains("cannot accept")), "{:?}", daemon.log());
    drop(idle);
}
