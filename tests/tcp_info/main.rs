//! Suspect sockets of real processes, asked by the real daemon. Wants root: other network namespaces, userfaultfd.
// Helpers of tests are tests too; and nothing outside this program can reach them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use skmem_exporter::kernel::diag::ASKER;
use support::{Daemon, Sockets, eventually, stat, within};

/// Beyond `--stall.after` by more than a sample.
const STALLED_SAMPLES: usize = 6;

#[test]
fn who_does_not_read_is_told_from_who_does() {
    let [mut peeking, mut apart, mut reading] = [Sockets::open(), Sockets::open_apart(), Sockets::open()];
    peeking.tell("peek");
    apart.tell("peek");
    reading.tell("read");
    let daemon = Daemon::start();
    daemon.samples(STALLED_SAMPLES);
    for stalled in [&peeking, &apart] {
        eventually("not_reading", || stalled.memory(&daemon, "not_reading") > 0.0);
        assert!(stalled.memory(&daemon, "active").abs() < 1.0, "MSG_PEEK takes nothing out");
    }
    assert!(reading.memory(&daemon, "active") > 0.0);
    assert!(reading.memory(&daemon, "not_reading").abs() < 1.0);
    assert!(daemon.queries("answered") > 0.0);

    peeking.tell("read");
    daemon.samples(2);
    assert!(peeking.memory(&daemon, "active") > 0.0, "recv() moves it");
    assert!(peeking.memory(&daemon, "not_reading").abs() < 1.0);
    // One zombie a round would never leave it without a child.
    eventually("no child between samples", || daemon.children().is_empty());
}

#[test]
fn a_locked_socket_costs_its_own_answer_and_nothing_else() {
    let mut sockets = Sockets::open();
    let daemon = Daemon::start();
    daemon.samples(3);
    sockets.tell("fault");
    eventually("timed_out", || daemon.queries("timed_out") > 0.0);
    let (timed_out, answered) = (daemon.queries("timed_out"), daemon.queries("answered"));
    for _ in 0..3 {
        daemon.samples(1);
        let total = daemon.read("skmem_sample_duration_seconds{stage=\"total\"}");
        assert!(total < 1.0, "a sample of {total} s");
    }
    assert!(daemon.queries("timed_out") >= timed_out + 3.0);
    assert!(daemon.queries("answered") >= answered + 9.0, "its neighbours are asked all the same");
    let stuck = daemon.stuck();
    assert_eq!(stuck.len(), 1, "one child for one socket, however often it is a suspect");
    has_nothing_of_ours(stuck[0]);

    sockets.tell("release");
    eventually("the child has ended", || stat(stuck[0]).is_none());
    let timed_out = daemon.queries("timed_out");
    daemon.samples(3);
    assert!((daemon.queries("timed_out") - timed_out).abs() < 2.0, "it answers again");
    eventually("no child between samples", || daemon.children().is_empty());
}

/// Its pipes, no stderr, and the netlink socket.
fn has_nothing_of_ours(child: u32) {
    let link = |process: &str, fd: &str| {
        let target = fs::read_link(format!("/proc/{process}/fd/{fd}")).ok()?;
        target.into_os_string().into_string().ok()
    };
    let pid = child.to_string();
    let mut fds = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let fd = entry.unwrap().file_name().into_string().unwrap();
        let target = link(&pid, &fd).unwrap();
        // Whoever runs the tests may leave descriptors open for all who come after; they keep their numbers.
        let is_inherited = fd.len() > 1 || fd.as_str() > "2";
        if !(is_inherited && link("self", &fd).as_ref() == Some(&target)) {
            fds.push((fd, target));
        }
    }
    fds.sort();
    let [(_, requests), (_, answers), (_, errors), (_, netlink)] = &fds[..] else { panic!("{fds:?}") };
    assert!(requests.starts_with("pipe:") && answers.starts_with("pipe:"), "{fds:?}");
    assert_eq!(errors, "/dev/null");
    let inode = netlink.strip_prefix("socket:[").unwrap().strip_suffix(']').unwrap();
    let table = fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap();
    assert!(table.lines().any(|line| line.split_whitespace().last() == Some(inode)), "{table}");
    assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for field in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{field}:\t0000000000000000\n")), "{field}: {status}");
    }
    assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
}

#[test]
fn a_locked_socket_keeps_neither_the_daemon_nor_its_port() {
    let mut sockets = Sockets::open();
    let mut daemon = Daemon::start();
    daemon.samples(3);
    sockets.tell("fault");
    eventually("a child that waits", || !daemon.stuck().is_empty());
    let stuck = daemon.stuck();

    let begin = Instant::now();
    daemon.terminate();
    let has_ended = within(Duration::from_secs(1), || daemon.process.0.try_wait().unwrap().is_some());
    assert!(has_ended, "still there after {:?}", begin.elapsed());
    TcpListener::bind(daemon.address).unwrap();
    assert_eq!(stat(stuck[0]).unwrap().0, 'D', "the fault lasts");

    sockets.tell("release");
    // A zombie is for whoever inherited it to reap.
    eventually("the child has ended", || stat(stuck[0]).is_none_or(|(state, _)| state == 'Z'));
}

#[test]
fn the_asker_takes_whole_requests_only_and_is_no_command() {
    let program = env!("CARGO_BIN_EXE_skmem-exporter");
    let run = |argument: &str, input: &[u8]| {
        let mut command = Command::new(program);
        command.arg(argument).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    };
    let ready = [0; 4];
    let nothing = run(ASKER, &[]);
    assert!(nothing.status.success());
    assert_eq!(nothing.stdout, ready);
    for broken in [&[1, 2, 3][..], &100u32.to_ne_bytes(), &u32::MAX.to_ne_bytes()] {
        let answer = run(ASKER, broken);
        assert!(!answer.status.success());
        assert_eq!(answer.stdout, ready);
        assert!(answer.stderr.is_empty());
    }
    let help = run("--help", &[]);
    assert!(!String::from_utf8(help.stdout).unwrap().contains(ASKER));
}
