//! Programs that hold TCP memory: `tests/programs/actor.py`, told what to do step by step.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::host::{NOBODY, PATIENCE, PYTHON, unique};

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs");

/// One process.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
    pub pid: u32,
    pub comm: String,
}

/// What a process says of its sockets, or several add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub memory: i64,
    pub receive_memory: i64,
    pub send_memory: i64,
    pub receive_queue: i64,
    pub send_queue: i64,
    pub receive_queue_max: i64,
    pub sockets: i64,
}

impl Actor {
    /// A process with a comm of its own, started directly.
    pub fn start() -> Self {
        Self::start_by("")
    }

    /// The same inside the network namespace `netns`.
    pub fn start_in(netns: &str) -> Self {
        Self::start_by(&format!("ip netns exec {netns}"))
    }

    /// The same as a user without any privilege, who may not be able to read a checkout.
    pub fn start_as_nobody() -> Self {
        let copy = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-r").arg(Path::new(PROGRAMS)).arg(copy.path()).status().unwrap();
        assert!(copied.success());
        let readable = Command::new("chmod").args(["-R", "a+rX"]).arg(copy.path()).status().unwrap();
        assert!(readable.success());
        // It has read everything when it has said its pid.
        Self::start_program(NOBODY, &copy.path().join("programs"))
    }

    /// The same started by a command that ends in exec.
    pub fn start_by(prefix: &str) -> Self {
        Self::start_program(prefix, Path::new(PROGRAMS))
    }

    fn start_program(prefix: &str, programs: &Path) -> Self {
        let program = programs.join("actor.py");
        let comm = unique("a");
        let mut words = prefix.split_whitespace().chain([PYTHON, "-B", program.to_str().unwrap(), &comm]);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = mpsc::channel();
        // So that waiting for an answer can end. The thread ends with the process.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut actor = Self { child, stdin, answers, pid: 0, comm };
        actor.pid = u32::try_from(actor.answer()["pid"].as_u64().unwrap()).unwrap();
        actor
    }

    fn answer(&self) -> Value {
        let line =
            self.answers.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{}: {error}", self.comm));
        serde_json::from_str(&line).unwrap()
    }

    /// Does one thing and waits until it is done.
    #[track_caller]
    pub fn ask(&mut self, operation: &str, arguments: Value) -> Value {
        let request = Value::Array(vec![operation.into(), arguments]);
        writeln!(self.stdin, "{request}").unwrap();
        let answer = self.answer();
        assert!(answer.get("error").is_none(), "{}: {answer}", self.comm);
        answer["answer"].clone()
    }

    /// The same, where the answer is a port.
    #[track_caller]
    pub fn ask_port(&mut self, operation: &str, arguments: Value) -> u16 {
        u16::try_from(self.ask(operation, arguments).as_u64().unwrap()).unwrap()
    }

    /// The figures of each of its sockets, as the kernel tells the process itself.
    #[track_caller]
    pub fn sockets(&mut self) -> BTreeMap<String, Held> {
        sockets(&self.ask("report", json!({})))
    }

    /// Their sum.
    #[track_caller]
    pub fn held(&mut self) -> Held {
        Held::sum(self.sockets().values())
    }

    /// Forks children that hold what it holds now.
    #[track_caller]
    pub fn fork(&mut self, count: u32, name: &str) -> Vec<Forked> {
        let pids = self.ask("fork", json!({ "count": count, "name": name }));
        let pids = pids.as_array().unwrap().iter().map(|pid| u32::try_from(pid.as_u64().unwrap()).unwrap());
        pids.map(|pid| Forked { pid }).collect()
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it at once, its sockets as they are.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A child of an actor, which outlives it.
#[derive(Debug)]
pub struct Forked {
    pub pid: u32,
}

impl Drop for Forked {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Held {
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, one| Self {
            memory: sum.memory + one.memory,
            receive_memory: sum.receive_memory + one.receive_memory,
            send_memory: sum.send_memory + one.send_memory,
            receive_queue: sum.receive_queue + one.receive_queue,
            send_queue: sum.send_queue + one.send_queue,
            receive_queue_max: sum.receive_queue_max.max(one.receive_queue_max),
            sockets: sum.sockets + one.sockets,
        })
    }
}

/// Reads the answer of a report.
pub fn sockets(report: &Value) -> BTreeMap<String, Held> {
    let figures = |one: &Value| {
        let number = |key: &str| one.get(key).and_then(Value::as_i64).unwrap_or(0);
        Held {
            memory: number("memory"),
            receive_memory: number("receive_memory"),
            send_memory: number("send_memory"),
            receive_queue: number("receive_queue"),
            send_queue: number("send_queue"),
            receive_queue_max: number("receive_queue"),
            sockets: 1,
        }
    };
    let report = report.as_object().unwrap();
    report.iter().filter(|(_, one)| !one.is_null()).map(|(name, one)| (name.clone(), figures(one))).collect()
}
