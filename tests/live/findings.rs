//! Findings about real culprits: what keeps them from reading is named, and how to end that.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use skmem_exporter::finding::Finding;
use skmem_exporter::report::Report;
use skmem_exporter::sample::FindingKind;

use crate::kit::actor::Actor;
use crate::kit::daemon::Daemon;
use crate::kit::host::{eventually, holds, shared};
use crate::kit::scrape::http_get;

const MIB: u32 = 1 << 20;

/// A culprit and somebody to send to it.
struct Stuck {
    culprit: Actor,
    _sender: Actor,
}

impl Stuck {
    /// A process with connections that it does not read, each with as much as goes in.
    fn start() -> Self {
        let (mut culprit, mut sender) = (Actor::start(), Actor::start());
        let port = culprit.ask_port("listen", json!({ "name": "listener" }));
        for index in 0..3 {
            let client = format!("client{index}");
            sender.ask("connect", json!({ "name": client, "port": port }));
            culprit.ask("accept", json!({ "name": format!("server{index}"), "listener": "listener" }));
            sender.ask("fill", json!({ "name": client }));
        }
        Self { culprit, _sender: sender }
    }
}

fn report(daemon: &Daemon) -> Report {
    let (head, body) = http_get(daemon.address, "/api/v1/report").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(&body).unwrap()
}

/// The finding that `culprit` does not read, once its summary has `told`.
#[track_caller]
fn finding(daemon: &Daemon, culprit: &Actor, told: &str) -> Finding {
    eventually("a finding about the culprit", || {
        let report = report(daemon);
        let of_it = |finding: &&Finding| {
            finding.subject.pid() == Some(culprit.pid) && finding.kind == FindingKind::NotReading
        };
        let finding = report.findings.iter().find(of_it).ok_or_else(|| report.verdict.clone())?;
        if finding.summary.contains(told) { Ok(finding.clone()) } else { Err(finding.summary.clone()) }
    })
}

fn first_command(finding: &Finding) -> &str {
    finding.advice.first().and_then(|advice| advice.command.as_deref()).unwrap_or_default()
}

fn signal(actor: &Actor, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(actor.pid).unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn a_stopped_process_is_told_to_go_on_and_its_senders_are_not_to_blame() {
    let _host = shared();
    let stuck = Stuck::start();
    signal(&stuck.culprit, Signal::STOP);
    let daemon = Daemon::start_with(&["--stall.after=2s"]);
    let found = finding(&daemon, &stuck.culprit, "stopped by a signal");
    assert_eq!(first_command(&found), format!("kill -CONT {}", stuck.culprit.pid));
    assert_eq!(found.sockets, 3);
    assert!(found.since_is_at_the_latest, "it was so when watching began");
    assert!(found.pinned_bytes > i64::from(MIB), "what its sender holds: {found:#?}");
    let row = report(&daemon).processes.into_iter().find(|row| row.pid == Some(stuck.culprit.pid)).unwrap();
    assert_eq!(row.causes.iter().map(|cause| cause.memory_bytes).sum::<i64>(), row.memory_bytes);
    assert!(row.connections.iter().any(|connection| connection.remote.is_some()), "we ask from loopback");
    signal(&stuck.culprit, Signal::CONT);
}

#[test]
fn a_deadlock_is_named() {
    let _host = shared();
    let mut stuck = Stuck::start();
    stuck.culprit.ask("deadlock", json!({}));
    let daemon = Daemon::start_with(&["--stall.after=2s"]);
    let found = finding(&daemon, &stuck.culprit, "deadlock");
    assert!(first_command(&found).starts_with("gdb -p "), "{found:#?}");
}

/// A cgroup of its own that is thawed and removed whatever happens.
struct Freezer(PathBuf);

impl Freezer {
    /// In the hierarchy of cgroup v1's freezer, or else in cgroup2.
    fn holding(actor: &Actor) -> Self {
        let name = format!("skmem-live-{}", actor.pid);
        let legacy = PathBuf::from("/sys/fs/cgroup/freezer");
        let parent = if legacy.is_dir() { legacy } else { PathBuf::from("/sys/fs/cgroup") };
        let group = parent.join(name);
        fs::create_dir(&group).unwrap();
        let freezer = Self(group);
        fs::write(freezer.0.join("cgroup.procs"), actor.pid.to_string()).unwrap();
        freezer
    }

    fn set(&self, frozen: bool) {
        let legacy = self.0.join("freezer.state");
        let done = if legacy.exists() {
            fs::write(legacy, if frozen { "FROZEN" } else { "THAWED" })
        } else {
            fs::write(self.0.join("cgroup.freeze"), if frozen { "1" } else { "0" })
        };
        done.unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.set(false);
        let procs = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            let _ = fs::write(self.0.parent().unwrap().join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// The advice is run as it stands, and helps.
#[test]
fn a_frozen_cgroup_is_thawed_by_the_command_that_is_advised() {
    let _host = shared();
    let stuck = Stuck::start();
    let freezer = Freezer::holding(&stuck.culprit);
    freezer.set(true);
    let daemon = Daemon::start_with(&["--stall.after=2s"]);
    let found = finding(&daemon, &stuck.culprit, "cgroup is frozen");
    let status = std::process::Command::new("sh").args(["-c", first_command(&found)]).status().unwrap();
    assert!(status.success(), "{}", first_command(&found));
    eventually("the finding without the freezer", || {
        let report = report(&daemon);
        let told = report.findings.iter().find(|found| found.subject.pid() == Some(stuck.culprit.pid));
        match told {
            Some(found) if found.summary.contains("frozen") => Err(found.summary.clone()),
            _ => Ok(()),
        }
    });
}

/// Only so many sockets are asked in a sample; the others get their turn, and keep their verdict meanwhile.
#[test]
fn more_culprits_than_are_asked_at_once_are_all_found() {
    let _host = shared();
    let mut culprit = Actor::start();
    culprit.ask("pairs", json!({ "prefix": "p", "count": 1500, "size": 5000 }));
    let daemon = Daemon::start_with(&["--stall.after=2s"]);
    eventually("all of it not read", || {
        let scrape = daemon.scrape();
        let row = |name: &str, cause: &str| {
            let labels = [("pid", culprit.pid.to_string()), ("cause", cause.to_owned())];
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            scrape.find(name, &labels[..if cause.is_empty() { 1 } else { 2 }]).unwrap_or_default()
        };
        let all = row("skmem_process_tcp_memory_bytes", "");
        let unread = row("skmem_process_tcp_memory_by_cause_bytes", "not_reading");
        holds(|| format!("{unread} of {all}"), unread == all && all > i64::from(MIB))
    });
    let skipped = daemon.scrape().int("skmem_suspect_queries_total", &[("outcome", "skipped")]);
    assert!(skipped > 0, "all could be asked at once: this proves nothing");
}
