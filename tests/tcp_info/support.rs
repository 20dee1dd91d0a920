//! The daemon and the processes it watches, started for real and stopped whatever happens.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here should take, on a machine with other things to do.
pub const PATIENCE: Duration = Duration::from_secs(20);

const SOCKETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tcp_info/sockets.py");

/// A process of ours that ends with its test.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The daemon, with a sample each second and three of them for a stall.
pub struct Daemon {
    pub process: Guard,
    pub address: SocketAddr,
}

impl Daemon {
    pub fn start() -> Self {
        let mut process = Guard(
            Command::new(env!("CARGO_BIN_EXE_skmem-exporter"))
                .args(["--web.listen-address", "127.0.0.1:0", "--sample.interval", "1s"])
                .args(["--stall.after", "3s", "--process.min-memory", "8KiB"])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
        let hello = lines.next().unwrap().unwrap();
        let (_, url) = hello.split_once("url=http://").unwrap_or_else(|| panic!("no url: {hello}"));
        let address = url.split('/').next().unwrap().parse().unwrap();
        // Nobody may have to wait for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// All samples, by name and labels as they are written.
    pub fn scrape(&self) -> HashMap<String, f64> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        samples
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(key, value)| (key.to_owned(), value.parse().unwrap()))
            .collect()
    }

    pub fn read(&self, key: &str) -> f64 {
        self.scrape().get(key).copied().unwrap_or(0.0)
    }

    pub fn queries(&self, outcome: &str) -> f64 {
        self.read(&format!("skmem_suspect_queries_total{{outcome=\"{outcome}\"}}"))
    }

    /// Waits until `count` more samples have been published.
    pub fn samples(&self, count: usize) {
        for _ in 0..count {
            let before = self.read("skmem_sample_timestamp_seconds");
            eventually("a new sample", || self.read("skmem_sample_timestamp_seconds") > before);
        }
    }

    /// Its children, each with its state.
    pub fn children(&self) -> Vec<(u32, char)> {
        let pids = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| Some((pid, stat(pid)?)))
            .filter(|(_, (_, parent))| *parent == self.pid())
            .map(|(pid, (state, _))| (pid, state))
            .collect()
    }

    /// Those that wait for a lock.
    pub fn stuck(&self) -> Vec<u32> {
        self.children().into_iter().filter_map(|(pid, state)| (state == 'D').then_some(pid)).collect()
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.process.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
}

/// State and parent of a process.
pub fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// A process with loopback connections that hold unread data.
pub struct Sockets {
    process: Guard,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Sockets {
    /// In the test's own network namespace.
    pub fn open() -> Self {
        Self::spawn(Command::new("/usr/bin/python3").arg(SOCKETS))
    }

    /// In a network namespace of their own.
    pub fn open_apart() -> Self {
        let script = format!("ip link set lo up && exec /usr/bin/python3 {SOCKETS}");
        Self::spawn(Command::new("unshare").args(["--net", "sh", "-c", &script]))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut process = Guard(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        let commands = process.0.stdin.take().unwrap();
        let answers = BufReader::new(process.0.stdout.take().unwrap());
        let mut sockets = Self { process, commands, answers };
        sockets.expect("ready");
        sockets
    }

    pub fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
        self.expect(command);
    }

    fn expect(&mut self, answer: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), answer);
    }

    /// Its memory that is held for `cause`, as the daemon says.
    pub fn memory(&self, daemon: &Daemon, cause: &str) -> f64 {
        let pid = self.process.0.id();
        daemon.read(&format!(
            "skmem_process_tcp_memory_by_cause_bytes{{pid=\"{pid}\",process=\"python3\",cause=\"{cause}\"}}"
        ))
    }
}

#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(within(PATIENCE, condition), "never: {what}");
}

pub fn within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if begin.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
