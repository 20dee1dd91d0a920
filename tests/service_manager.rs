//! What the daemon tells the service manager, heard on a real socket. The host is a recorded one: a file of it that is a FIFO
//! makes a sample hang for as long as a test likes.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use skmem_exporter::sampler::{Heartbeat, SAMPLE_DEADLINE};

/// Longer than anything here should take, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_secs(1);
const WATCHDOG: Duration = Duration::from_secs(1);
/// How long a sampler with that interval may be silent: its bound, and what a busy machine adds.
const SILENCE: Duration = Duration::from_secs(30 + 2 + 20);
/// Read at the start of each sample, and not before the first.
const READ_FIRST: &str = "sys/net/ipv4/tcp_mem";

/// A manager with one service, and the host that the service looks at.
struct Manager {
    directory: tempfile::TempDir,
    socket: UnixDatagram,
    child: Option<Child>,
    address: Option<SocketAddr>,
    log: Arc<Mutex<Vec<String>>>,
    /// What has been heard, one line each.
    heard: Vec<String>,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host/proc");
        let copied = Command::new("cp").arg("-a").arg(host).arg(directory.path()).status().unwrap();
        assert!(copied.success());
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        Self { directory, socket, child: None, address: None, log: Arc::default(), heard: Vec::new() }
    }

    fn procfs(&self) -> PathBuf {
        self.directory.path().join("proc")
    }

    fn start(&mut self, environment: &[(&str, &str)]) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_skmem-exporter"))
            .args([
                "--web.listen-address=127.0.0.1:0",
                "--sample.interval=1s",
                "--netns=own",
                "--path.procfs",
            ])
            .arg(self.procfs())
            .env_remove("WATCHDOG_PID")
            .env_remove("WATCHDOG_USEC")
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"))
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| {
                log.lock().unwrap().push(line);
            });
        });
        self.child = Some(child);
        let begin = Instant::now();
        self.address = loop {
            let url = self.log().iter().find_map(|line| Some(line.split_once("url=http://")?.1.to_owned()));
            if let Some(url) = url {
                break Some(url.split('/').next().unwrap().parse().unwrap());
            }
            assert!(begin.elapsed() < PATIENCE, "{:?}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        };
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The next message, if one comes within `patience`.
    fn hear(&mut self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).unwrap();
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        let message = String::from_utf8(message[..length].to_vec()).unwrap();
        self.heard.extend(message.lines().map(str::to_owned));
        Some(message)
    }

    /// Waits for a message that begins like this.
    #[track_caller]
    fn expect(&mut self, start: &str, patience: Duration) -> String {
        let begin = Instant::now();
        loop {
            match self.hear(patience.saturating_sub(begin.elapsed())) {
                Some(message) if message.starts_with(start) => return message,
                Some(_) => {}
                None => panic!("no {start} within {patience:?}: {:#?} {:#?}", self.heard, self.log()),
            }
        }
    }

    /// Hears what came so far.
    fn catch_up(&mut self) {
        while self.hear(Duration::ZERO).is_some() {}
    }

    /// Listens for as long as that, whatever comes.
    fn listen(&mut self, duration: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < duration {
            self.hear(duration.saturating_sub(begin.elapsed()));
        }
    }

    fn last_status(&self) -> &str {
        self.heard.iter().rfind(|line| line.starts_with("STATUS=")).unwrap()
    }

    fn count(&self, line: &str) -> usize {
        self.heard.iter().filter(|heard| *heard == line).count()
    }

    /// Waits until as many lines of the log have this in them.
    #[track_caller]
    fn logged(&self, part: &str, times: usize) {
        let begin = Instant::now();
        while self.log().iter().filter(|line| line.contains(part)).count() < times {
            assert!(begin.elapsed() < PATIENCE, "not {times} times {part}: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn status(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    }

    /// Waits until it answers with this status.
    #[track_caller]
    fn becomes(&self, path: &str, status: &str) {
        let begin = Instant::now();
        while self.status(path) != status {
            assert!(begin.elapsed() < PATIENCE, "{path} is not {status}: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// From now on a sample hangs, until the returned file is dropped.
    fn hang(&self) -> Hang {
        self.hang_at(self.procfs().join(READ_FIRST))
    }

    /// From now on whoever reads the file hangs.
    fn hang_at(&self, file: PathBuf) -> Hang {
        let kept = self.directory.path().join("kept");
        let fifo = self.directory.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        fs::rename(&file, &kept).unwrap();
        fs::hard_link(&fifo, &file).unwrap();
        Hang { file, kept, fifo }
    }

    fn terminate(&mut self) -> bool {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.success();
            }
            if begin.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Hang {
    file: PathBuf,
    kept: PathBuf,
    fifo: PathBuf,
}

impl Hang {
    fn end(self) {
        let content = fs::read(&self.kept).unwrap();
        fs::rename(&self.kept, &self.file).unwrap();
        // Opens as soon as the sample has, which it has if it hangs.
        fs::write(&self.fifo, content).unwrap();
        fs::remove_file(&self.fifo).unwrap();
    }
}

fn microseconds(duration: Duration) -> String {
    duration.as_micros().to_string()
}

#[test]
fn it_is_ready_when_it_can_be_asked_and_says_how_it_goes_until_it_ends() {
    let mut manager = Manager::new();
    let begin = Instant::now();
    manager.start(&[("WATCHDOG_USEC", &microseconds(WATCHDOG))]);
    manager.expect("READY=1", PATIENCE);
    assert_eq!(manager.status("/-/ready"), "200", "it has a sample");
    assert_eq!(manager.heard[0], "STATUS=Reading the host for the first time.");
    let status = manager.last_status();
    // What the recording says; its sockets are the real ones, and how many there are is none of this test's business.
    assert!(status.starts_with("STATUS=") && status.contains(" socket"), "{status}");

    for _ in 0..6 {
        manager.expect("WATCHDOG=1", PATIENCE);
    }
    // The first comes at once; what has waited in the socket was sent no earlier, either.
    let pings = u32::try_from(manager.count("WATCHDOG=1")).unwrap();
    let least = WATCHDOG / 2 * (pings - 1);
    assert!(
        begin.elapsed() >= least,
        "half of WATCHDOG_USEC is the rhythm: {pings} in {:?}",
        begin.elapsed()
    );
    let log = manager.log().join("\n");
    for part in ["watchdog=1s", "WatchdogSec=10s"] {
        assert!(log.contains(part), "no {part} in {log}");
    }

    assert!(manager.terminate());
    manager.expect("STOPPING=1", PATIENCE);
    assert!(manager.hear(Duration::from_millis(100)).is_none(), "nothing after the end: {:?}", manager.heard);
    assert_eq!(manager.count("READY=1"), 1);
    assert_eq!(manager.count("STOPPING=1"), 1);
    let statuses: Vec<_> = manager.heard.iter().filter(|line| line.starts_with("STATUS=")).collect();
    assert!(statuses.windows(2).all(|two| two[0] != two[1]), "told without having changed: {statuses:#?}");
}

#[test]
fn a_failing_source_is_told_and_does_not_keep_it_from_being_ready() {
    let mut manager = Manager::new();
    fs::write(manager.procfs().join(READ_FIRST), "many\n").unwrap();
    manager.start(&[]);
    manager.expect("READY=1", PATIENCE);
    let status = manager.last_status();
    assert!(status.contains("Failing: sysctl."), "{status}");
    assert_eq!(manager.count("WATCHDOG=1"), 0, "without WATCHDOG_USEC nobody waits for a ping");
    assert!(manager.terminate());
}

#[test]
fn a_watchdog_that_is_somebody_elses_or_off_is_not_fed() {
    for environment in [
        [("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "1")],
        [("WATCHDOG_USEC", "0"), ("WATCHDOG_PID", "")],
        [("WATCHDOG_USEC", "soon"), ("WATCHDOG_PID", "")],
    ] {
        let mut manager = Manager::new();
        manager.start(&environment);
        manager.expect("READY=1", PATIENCE);
        manager.listen(INTERVAL * 2);
        assert_eq!(manager.count("WATCHDOG=1"), 0, "{environment:?}");
    }
}

#[test]
fn a_sampler_that_hangs_is_not_vouched_for() {
    assert!(Heartbeat::new(INTERVAL).silent_for().is_none() && SILENCE > SAMPLE_DEADLINE + INTERVAL * 2);
    let mut manager = Manager::new();
    manager.start(&[("WATCHDOG_USEC", &microseconds(WATCHDOG))]);
    manager.expect("READY=1", PATIENCE);
    let begin = Instant::now();
    let hang = manager.hang();
    manager.expect("STATUS=Hung: ", SILENCE);
    assert!(begin.elapsed() > SAMPLE_DEADLINE, "a slow sample is no hung one: {:?}", begin.elapsed());
    assert_eq!(manager.status("/-/healthy"), "503");
    let pings = manager.count("WATCHDOG=1");
    assert!(pings > 20, "{pings} pings while it could still end");
    manager.listen(WATCHDOG * 3);
    assert_eq!(manager.count("WATCHDOG=1"), pings, "pings although it hangs");

    hang.end();
    manager.expect("WATCHDOG=1", PATIENCE);
    // Either may be told first.
    if manager.last_status().contains("Hung") {
        manager.expect("STATUS=", PATIENCE);
    }
    assert!(!manager.last_status().contains("Hung"), "{:?}", manager.heard);
    assert!(manager.terminate());
}

#[test]
fn a_first_sample_that_hangs_does_not_keep_it_from_being_ready_for_ever() {
    let mut manager = Manager::new();
    let hang = manager.hang();
    manager.start(&[]);
    let begin = Instant::now();
    manager.listen(INTERVAL * 3);
    assert_eq!(manager.count("READY=1"), 0, "ready without figures");
    assert_eq!((manager.status("/-/ready"), manager.status("/-/healthy")), ("503".into(), "200".into()));
    manager.expect("READY=1", SAMPLE_DEADLINE + PATIENCE);
    assert!(begin.elapsed() < SILENCE);
    hang.end();
    manager.expect("STATUS=", PATIENCE);
    assert_eq!(manager.count("READY=1"), 1);
    assert!(manager.terminate());
}

/// As on a network file system whose server has gone. No request may be let in, and nothing else may stop.
#[test]
fn a_web_configuration_file_that_hangs_stops_neither_answers_nor_pings() {
    let mut manager = Manager::new();
    let file = manager.directory.path().join("web.yml");
    fs::write(&file, "http_server_config: {http2: true}\n").unwrap();
    let watchdog = microseconds(WATCHDOG);
    manager.start(&[("WATCHDOG_USEC", &watchdog), ("SKMEM_WEB_CONFIG_FILE", file.to_str().unwrap())]);
    manager.expect("READY=1", PATIENCE);
    assert_eq!(manager.status("/-/healthy"), "200");

    let hang = manager.hang_at(file);
    // More at once than there are workers, and again when it is known.
    for _ in 0..2 {
        std::thread::scope(|scope| {
            let asking: Vec<_> = ["/-/healthy", "/metrics", "/", "/-/ready"]
                .map(|path| scope.spawn(|| manager.status(path)))
                .into_iter()
                .collect();
            for status in asking {
                assert_eq!(status.join().unwrap(), "500");
            }
        });
    }
    manager.catch_up();
    let pings = manager.count("WATCHDOG=1");
    for _ in 0..4 {
        manager.expect("WATCHDOG=1", PATIENCE);
    }
    assert!(manager.count("WATCHDOG=1") >= pings + 4);
    let said = |part: &str| manager.log().iter().filter(|line| line.contains(part)).count();
    assert_eq!(said("cannot be looked at"), 1, "{:#?}", manager.log());

    hang.end();
    manager.becomes("/metrics", "200");
    manager.logged("can be looked at again", 1);

    let _hang = manager.hang_at(manager.directory.path().join("web.yml"));
    assert_eq!(manager.status("/metrics"), "500");
    assert!(manager.terminate(), "it ends though the file hangs");
}

#[test]
fn a_hangup_is_answered_by_a_line_and_ends_nothing() {
    let mut manager = Manager::new();
    manager.start(&[]);
    manager.expect("READY=1", PATIENCE);
    for times in 1..=2 {
        kill_process(Pid::from_child(manager.child.as_ref().unwrap()), Signal::HUP).unwrap();
        manager.logged("SIGHUP", times);
    }
    let log = manager.log().join("\n");
    assert!(log.contains("web configuration file") && log.contains("take a restart"), "{log}");
    assert_eq!(manager.status("/-/ready"), "200");
    assert!(manager.terminate());
}

#[test]
fn a_manager_that_cannot_be_told_is_complained_of_once_and_changes_nothing() {
    let mut manager = Manager::new();
    manager.start(&[("NOTIFY_SOCKET", "/nonexistent/notify"), ("WATCHDOG_USEC", "100000")]);
    manager.logged("NOTIFY_SOCKET", 1);
    manager.becomes("/-/ready", "200");
    // Some twenty pings more that nobody hears.
    std::thread::sleep(INTERVAL);
    assert!(manager.terminate());
    let complaints = manager.log().iter().filter(|line| line.contains("NOTIFY_SOCKET")).count();
    assert_eq!(complaints, 1, "{:#?}", manager.log());
}
