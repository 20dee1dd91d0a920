//! The daemon under test.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use super::actor::{Actor, Held};
use super::host::{PATIENCE, eventually, same};
use super::scrape::{Scrape, http_get};

pub const BINARY: &str = env!("CARGO_BIN_EXE_skmem-exporter");

/// The shortest interval, and a row for every process that has a socket.
pub const FLAGS: [&str; 4] = [
    "--web.listen-address=127.0.0.1:0",
    "--sample.interval=1s",
    "--process.min-memory=0",
    "--process.max=1000",
];

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    pub address: SocketAddr,
}

impl Daemon {
    /// One that sees the whole host.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further flags.
    pub fn start_with(flags: &[&str]) -> Self {
        Self::start_command(Command::new(BINARY).args(FLAGS).args(flags))
    }

    /// The same by a command that ends in exec.
    pub fn start_command(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        let mut daemon = Self { child, log, address: ([127, 0, 0, 1], 0).into() };
        let listening = eventually("a line with the daemon's address", || {
            let log = daemon.log();
            if let Some(status) = daemon.child.try_wait().unwrap() {
                return Ok(Err(format!("the daemon ended, {status}: {}", log.join("\n"))));
            }
            let line = log.iter().find_map(|line| line.split_once("url=http")).ok_or(log.join("\n"))?.1;
            let (_, url) = line.split_once("://").unwrap_or_default();
            let address = url.split('/').next().unwrap_or_default();
            address.parse().map(Ok).map_err(|error| format!("{address}: {error}"))
        });
        daemon.address = listening.unwrap();
        daemon
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// What it serves now.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        let (head, body) = http_get(self.address, "/metrics").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Scrape::parse(body)
    }

    /// The first sample whose sockets are read from now on.
    #[track_caller]
    pub fn next_sample(&self) -> Scrape {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        eventually("a sample", || {
            let scrape = self.scrape();
            let timestamp = scrape.timestamp();
            if timestamp > now {
                Ok(scrape)
            } else {
                Err(format!("the newest is of {timestamp}, now is {now}"))
            }
        })
    }

    /// A sample during which nothing changed at these processes, and what each held throughout.
    #[track_caller]
    pub fn settled<const N: usize>(&self, mut actors: [&mut Actor; N]) -> (Scrape, [Held; N]) {
        eventually("a sample while the sockets are still", || {
            let before = actors.each_mut().map(|actor| actor.sockets());
            let scrape = self.next_sample();
            let after = actors.each_mut().map(|actor| actor.sockets());
            same("sockets", &after, &before)?;
            Ok((scrape, before.map(|sockets| Held::sum(sockets.values()))))
        })
    }

    /// Tells it to end; how it did and how long that took.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < PATIENCE, "SIGTERM did not end it");
            std::thread::sleep(Duration::from_millis(5));
        };
        (status, begin.elapsed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log().join("\n"));
        }
    }
}

/// Whether the row of an actor says what the actor says.
pub fn row_is(scrape: &Scrape, actor: &Actor, held: &Held) -> Result<(), String> {
    let row = |name: &str| {
        let pid = actor.pid.to_string();
        scrape
            .find(&format!("skmem_process_{name}"), &[("pid", &pid), ("process", &actor.comm)])
            .ok_or_else(|| format!("no {name} of {}", actor.comm))
    };
    let got = Held {
        memory: row("tcp_memory_bytes")?,
        receive_memory: row("tcp_receive_memory_bytes")?,
        send_memory: row("tcp_send_memory_bytes")?,
        receive_queue: row("tcp_receive_queue_bytes")?,
        send_queue: row("tcp_send_queue_bytes")?,
        receive_queue_max: row("tcp_receive_queue_max_bytes")?,
        sockets: scrape.sum("skmem_process_tcp_sockets", &[("pid", &actor.pid.to_string())]),
    };
    same(&actor.comm, &got, held)
}

/// Where the daemon's own files are, for one that may not read the build directory.
pub fn copy_binary(directory: &Path) -> std::path::PathBuf {
    let copy = directory.join("skmem-exporter");
    std::fs::copy(BINARY, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    copy
}
