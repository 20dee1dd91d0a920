//! Which process a row names.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::kit::actor::Actor;
use crate::kit::daemon::{Daemon, row_is};
use crate::kit::host::{self, eventually, same, unique};

/// How often to try for a pid that other programs on the host want too.
const PID_ATTEMPTS: usize = 100;

/// A new process with exactly this pid, which must be free.
fn with_pid(pid: u32) -> Actor {
    for _ in 0..PID_ATTEMPTS {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
            .expect("the kernel needs CONFIG_CHECKPOINT_RESTORE");
        let actor = Actor::start();
        if actor.pid == pid {
            return actor;
        }
    }
    panic!("something else always took the pid {pid}");
}

#[test]
fn a_reused_pid_is_another_process() {
    let _host = host::alone();
    let mut first = Actor::start();
    first.ask("pairs", json!({ "prefix": "a", "count": 3, "size": 40_000 }));
    let daemon = Daemon::start();
    eventually("the first process", || {
        let (scrape, [held]) = daemon.settled([&mut first]);
        row_is(&scrape, &first, &held)
    });
    first.kill();
    let mut second = with_pid(first.pid);
    second.ask("pairs", json!({ "prefix": "b", "count": 1, "size": 5000 }));
    let mut samples = 0;
    eventually("the second process", || {
        samples += 1;
        let (scrape, [held]) = daemon.settled([&mut second]);
        let of_first = [("process", first.comm.as_str())];
        same("the first's row", &scrape.sum("skmem_process_tcp_memory_bytes", &of_first), &0)?;
        row_is(&scrape, &second, &held)
    });
    assert!(samples <= 3, "{samples} samples");
}

#[test]
fn a_hostile_name_breaks_nothing() {
    let _host = host::shared();
    let mut actor = Actor::start();
    actor.ask("pairs", json!({ "prefix": "a", "count": 1, "size": 5000 }));
    actor.ask("rename", json!({ "name": b"q\"\n\\\xff{}=,\r# T" }));
    let daemon = Daemon::start();
    let scrape = eventually("its row", || {
        let (scrape, [held]) = daemon.settled([&mut actor]);
        same("memory", &scrape.process("tcp_memory_bytes", actor.pid), &Some(held.memory))?;
        Ok(scrape)
    });
    let pid = actor.pid.to_string();
    let comm = scrape.label("skmem_process_tcp_memory_bytes", &[("pid", &pid)], "process");
    assert_eq!(comm.as_deref(), Some("q\"\n\\\\xff{}=,\r# T"));
    promtool(&scrape.text);
}

/// Debian's promtool finds nothing to say.
fn promtool(text: &str) {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

/// A cgroup2 cgroup, removed when dropped.
struct Cgroup {
    path: String,
    directory: PathBuf,
}

impl Cgroup {
    fn new() -> Self {
        // The one mount, or the one beside cgroup v1.
        let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(Path::new)
            .into_iter()
            .find(|mount| mount.join("cgroup.controllers").exists())
            .expect("the live tests need cgroup2 mounted below /sys/fs/cgroup");
        let path = format!("/{}/in ner", unique("skmem-test-"));
        let directory = mount.join(&path[1..]);
        std::fs::create_dir_all(&directory).unwrap();
        Self { path, directory }
    }

    fn add(&self, pid: u32) {
        std::fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Only an empty one goes, and only after what it contains.
        for directory in [Some(self.directory.as_path()), self.directory.parent()].into_iter().flatten() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

#[test]
fn sockets_are_counted_for_the_cgroup_they_were_made_in() {
    let _host = host::shared();
    let cgroup = Cgroup::new();
    let mut actor = Actor::start();
    cgroup.add(actor.pid);
    actor.ask("pairs", json!({ "prefix": "a", "count": 4, "size": 30_000 }));
    let daemon = Daemon::start();
    let labels = [("cgroup", cgroup.path.as_str())];
    eventually("the cgroup's row", || {
        let (scrape, [held]) = daemon.settled([&mut actor]);
        row_is(&scrape, &actor, &held)?;
        same("memory", &scrape.find("skmem_cgroup_tcp_memory_bytes", &labels), &Some(held.memory))?;
        let unread = scrape.find("skmem_cgroup_tcp_receive_queue_bytes", &labels);
        same("unread", &unread, &Some(held.receive_queue))?;
        let pid = actor.pid.to_string();
        let info = |label: &str| scrape.label("skmem_process_info", &[("pid", &pid)], label);
        same("its cgroup", &info("cgroup"), &Some(cgroup.path.clone()))?;
        let exe = std::fs::canonicalize(host::PYTHON).unwrap().to_str().map(str::to_owned);
        same("its program", &info("exe"), &exe)
    });

    // A process that moves leaves its sockets where they are.
    let mut other = Actor::start();
    let elsewhere = Cgroup::new();
    elsewhere.add(actor.pid);
    other.ask("pairs", json!({ "prefix": "b", "count": 1, "size": 1000 }));
    eventually("the process's new cgroup", || {
        let (scrape, [held, _]) = daemon.settled([&mut actor, &mut other]);
        let pid = actor.pid.to_string();
        let info = scrape.label("skmem_process_info", &[("pid", &pid)], "cgroup");
        same("its cgroup", &info, &Some(elsewhere.path.clone()))?;
        same("memory", &scrape.find("skmem_cgroup_tcp_memory_bytes", &labels), &Some(held.memory))
    });
    drop(actor);
}
