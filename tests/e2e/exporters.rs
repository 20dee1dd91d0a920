//! Faults of the exporters themselves, and of the rules.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit};

use crate::faults;
use crate::kit::daemon::{BINARY, Daemon, copy_binary};
use crate::kit::host::{NOBODY, Netns, PYTHON};
use crate::monitoring::Monitoring;
use crate::stage::Times;
use crate::trial;

/// A second between samples; rows for few only, as on any host. 3 s are three samples.
const FLAGS: [&str; 3] = ["--web.listen-address=127.0.0.1:0", "--sample.interval=1s", "--stall.after=3s"];

/// Ends in exec inside another network namespace, with a listener from this one as systemd would pass it.
const PASS_A_LISTENER: &str = "
import os, socket, sys
listener = socket.create_server(('127.0.0.1', 0))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)  # dup2 leaves it as it was where the listener is 3 already
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execvp('ip', ['ip', 'netns', 'exec', *sys.argv[1:]])
";

/// One that lacks nothing.
pub fn healthy() -> Daemon {
    Daemon::start_command(Command::new(BINARY).args(FLAGS))
}

pub fn run(monitoring: &Monitoring, exporter: Daemon, times: &mut Times) {
    one_by_one(monitoring, &exporter, times);
    without_any(monitoring, exporter, times);
}

/// Five exporters beside the healthy one, each with something else wrong.
fn one_by_one(monitoring: &Monitoring, healthy: &Daemon, times: &mut Times) {
    let mut stage = monitoring.stage(healthy.address);
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let netns = Netns::new();
    // More than who is blind may miss; none of the two holds enough by itself to be told of.
    let _unread = [faults::holds_a_little(), faults::holds_a_little()];

    let start = |flags: &[&str]| Daemon::start_command(Command::new(BINARY).args(FLAGS).args(flags));
    let out_of_fds = start(&[]);
    let killed = start(&[]);
    let cramped = start(&["--process.max=1", "--process.min-memory=0"]);
    let mut words = NOBODY.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let blind = Daemon::start_command(command.args(words).arg(copy_binary(directory.path())).args(FLAGS));
    let mut command = Command::new(PYTHON);
    command.args(["-c", PASS_A_LISTENER, &netns.name, BINARY, "--web.systemd-socket", "--netns=own"]);
    let elsewhere = Daemon::start_command(command.args(&FLAGS[1..]));

    let at = Instant::now();
    for (fault, exporter) in [("blind", &blind), ("elsewhere", &elsewhere), ("cramped", &cramped)] {
        stage.begun_at(fault, at, exporter.address, None, None);
    }
    let all = [&out_of_fds, &killed, &cramped, &blind, &elsewhere, healthy];
    monitoring.scrape(all.map(|exporter| exporter.address));
    for exporter in [&out_of_fds, &killed] {
        exporter.next_sample();
    }
    stage.begun_at("out_of_fds", Instant::now(), out_of_fds.address, None, None);
    take_descriptors(&out_of_fds);
    stage.begun_at("killed", Instant::now(), killed.address, None, None);
    drop(killed);
    stage.hears_all();

    monitoring.scrape([healthy.address]);
    stage.hears_the_end(times);
}

/// No exporter at all, and rules that have lost a threshold.
fn without_any(monitoring: &Monitoring, exporter: Daemon, times: &mut Times) {
    let mut stage = monitoring.stage(exporter.address);
    stage.begun("lost_threshold", Instant::now(), None, None);
    monitoring.replace_rules(&trial::rules_without("leaked_sockets"));
    stage.begun("all_gone", Instant::now(), None, None);
    monitoring.scrape([]);
    drop(exporter);
    stage.hears_all();

    let exporter = healthy();
    monitoring.scrape([exporter.address]);
    monitoring.replace_rules(&trial::rules());
    stage.hears_the_end(times);
}

/// Whatever it opens from now on fails; the connection of Prometheus stays.
fn take_descriptors(exporter: &Daemon) {
    let pid = Pid::from_raw(i32::try_from(exporter.pid()).unwrap());
    let limit = Rlimit { current: Some(4), maximum: Some(4) };
    rustix::process::prlimit(pid, Resource::Nofile, limit).unwrap();
}
