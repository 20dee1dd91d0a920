//! `diagnose` on this host: what it finds, how it ends, what it looks like in a terminal.

use std::fs;
use std::io::pipe;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use skmem_exporter::report::{Mode, Report};
use tempfile::TempDir;

use crate::kit::actor::Actor;
use crate::kit::daemon::BINARY;
use crate::kit::host::{self, Netns, PATIENCE, eventually, run};

/// One run under way; killed when dropped.
struct Diagnosis {
    child: Child,
    begin: Instant,
    said: TempDir,
}

/// How a run has ended.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    out: String,
    err: String,
    took: Duration,
}

impl Diagnosis {
    fn start(flags: &[&str]) -> Self {
        Self::start_by("", flags)
    }

    /// The same by a command that ends in exec.
    fn start_by(prefix: &str, flags: &[&str]) -> Self {
        let said = tempfile::tempdir().unwrap();
        let file = |name: &str| fs::File::create(said.path().join(name)).unwrap();
        let mut words = prefix.split_whitespace().chain([BINARY, "diagnose"]).chain(flags.iter().copied());
        let child = Command::new(words.next().unwrap())
            .args(words)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap();
        Self { child, begin: Instant::now(), said }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> Ended {
        let status = eventually("an end", || {
            self.child.try_wait().unwrap().ok_or_else(|| format!("it runs for {:?}", self.begin.elapsed()))
        });
        let took = self.begin.elapsed();
        let read = |name: &str| fs::read_to_string(self.said.path().join(name)).unwrap();
        Ended { status, out: read("out"), err: read("err"), took }
    }
}

impl Drop for Diagnosis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A reader that reads nothing, and who fills its connection.
fn culprit(netns: Option<&Netns>) -> (Actor, Actor) {
    let start = || netns.map_or_else(Actor::start, |netns| Actor::start_in(&netns.name));
    let (mut reader, mut writer) = (start(), start());
    let port = reader.ask_port("listen", json!({ "name": "listener" }));
    writer.ask("connect", json!({ "name": "client", "port": port }));
    reader.ask("accept", json!({ "name": "server", "listener": "listener" }));
    writer.ask("fill", json!({ "name": "client" }));
    (reader, writer)
}

#[test]
fn a_culprit_is_named_with_its_cause_and_nothing_is_left_behind() {
    let _host = host::shared();
    let netns = Netns::new();
    let (reader, writer) = culprit(Some(&netns));
    let prefix = format!("ip netns exec {}", netns.name);
    let ended = Diagnosis::start_by(&prefix, &["--duration=3s"]).end();
    assert_eq!((ended.status.code(), ended.err.as_str()), (Some(1), ""), "{}", ended.out);
    assert!(ended.took < Duration::from_secs(6), "{:?}", ended.took);
    for (actor, cause) in [(&reader, "not_reading"), (&writer, "peer_not_reading")] {
        let named = format!("{cause}: {} (pid {})", actor.comm, actor.pid);
        assert!(ended.out.contains(&named), "no {named} in {}", ended.out);
    }
    assert!(!ended.out.contains('\x1b'), "{}", ended.out);
    let mut left: Vec<u32> =
        run(&format!("ip netns pids {}", netns.name)).lines().map(|pid| pid.parse().unwrap()).collect();
    left.retain(|pid| ![reader.pid, writer.pid].contains(pid));
    assert!(left.is_empty(), "{left:?} are left behind");
}

#[test]
fn json_is_the_report_by_its_schema() {
    let _host = host::shared();
    let (reader, _writer) = culprit(None);
    let ended = Diagnosis::start(&["--duration=3s", "--format=json", "--process.max=1000"]).end();
    assert_eq!((ended.status.code(), ended.err.as_str()), (Some(1), ""), "{}", ended.out);
    let json: Value = serde_json::from_str(&ended.out).unwrap();
    let validator = jsonschema::validator_for(&serde_json::to_value(Report::schema()).unwrap()).unwrap();
    let errors: Vec<String> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");

    let report: Report = serde_json::from_value(json).unwrap();
    assert_eq!(report.generator.mode, Mode::Diagnose);
    assert!((report.watch.stall_after_seconds - 2.25).abs() < f64::EPSILON, "{:?}", report.watch);
    assert!(report.watch.samples >= 4 && report.watch.seconds >= 2.9, "{:?}", report.watch);
    assert!(report.findings.iter().any(|finding| finding.subject.pid() == Some(reader.pid)));
    assert!(!report.are_addresses_hidden);
}

#[test]
fn nothing_is_wrong_where_nothing_happens() {
    let _host = host::alone();
    let netns = Netns::new();
    let prefix = format!("ip netns exec {}", netns.name);
    let ended = Diagnosis::start_by(&prefix, &["--duration=3s", "--netns=own"]).end();
    assert_eq!((ended.status.code(), ended.err.as_str()), (Some(0), ""), "{}", ended.out);
    assert!(ended.out.starts_with("OK  Healthy: "), "{}", ended.out);
    assert!(ended.out.contains("other network namespaces are not looked at: run with --netns all."));
}

#[test]
fn it_says_so_at_once_if_it_cannot_look() {
    let _host = host::shared();
    let ended = Diagnosis::start(&["--duration=1h", "--path.procfs=/nonexistent"]).end();
    assert_eq!((ended.status.code(), ended.out.as_str()), (Some(2), ""));
    assert!(ended.err.lines().count() == 1 && ended.err.contains("--path.procfs"), "{}", ended.err);

    for (flag, word) in [("--duration=2s", "3s"), ("--duration=10", "10s"), ("--format=xml", "--format")] {
        let ended = Diagnosis::start(&[flag]).end();
        assert_eq!((ended.status.code(), ended.out.as_str()), (Some(2), ""), "{flag}");
        assert!(ended.err.contains(word), "{flag}: {}", ended.err);
    }
}

#[test]
fn interrupted_it_tells_what_it_knows() {
    let _host = host::shared();
    let (reader, _writer) = culprit(None);
    for signal in [Signal::INT, Signal::TERM] {
        let diagnosis = Diagnosis::start(&["--duration=20s", "--stall.after=1s", "--process.max=1000"]);
        // Samples at 0 s, 0.25 s, 2 s and 4 s: the third shows a stall.
        std::thread::sleep(Duration::from_millis(4500));
        diagnosis.signal(signal);
        let ended = diagnosis.end();
        assert_eq!((ended.status.code(), ended.err.as_str()), (Some(1), ""), "{}", ended.out);
        assert!(ended.took < Duration::from_secs(10), "{:?}", ended.took);
        let named = format!("not_reading: {} (pid {})", reader.comm, reader.pid);
        assert!(ended.out.contains(&named), "no {named} in {}", ended.out);
    }
}

#[test]
fn a_reader_that_has_gone_is_no_trouble() {
    let _host = host::shared();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = Command::new(BINARY);
    command.args(["diagnose", "--duration=3s", "--netns=own"]).stdin(Stdio::null()).stderr(Stdio::piped());
    let output = command.stdout(writer).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)) && output.status.signal().is_none(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// A terminal of 100 columns with something running in it; gone when dropped.
struct Terminal {
    directory: TempDir,
}

impl Terminal {
    fn run(script: &str) -> Self {
        let terminal = Self { directory: tempfile::tempdir().unwrap() };
        let started =
            terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "250", script]);
        assert!(started.status.success(), "{started:?}");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> std::process::Output {
        let socket = self.directory.path().join("tmux");
        let mut command = Command::new("tmux");
        command
            .args(["-u", "-S", socket.to_str().unwrap()])
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR");
        command.env_remove("TMUX").stdin(Stdio::null()).output().unwrap()
    }

    /// What it shows; with `-e` also how, with `-J` a line that it had to wrap as one.
    fn capture(&self, how: &[&str]) -> String {
        let output = self.tmux(&[&["capture-pane", "-p"], how].concat());
        String::from_utf8(output.stdout).unwrap()
    }

    fn eventually_shows(&self, words: &str) -> String {
        eventually(words, || {
            let shown = self.capture(&["-J"]);
            if shown.contains(words) { Ok(shown) } else { Err(shown) }
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Runs it in a terminal to its end: with its colours, and as plain text.
fn in_a_terminal(environment: &str) -> (String, String) {
    let seconds = PATIENCE.as_secs();
    let flags = "--duration 3s --process.max 1000";
    let terminal =
        Terminal::run(&format!("env {environment} {BINARY} diagnose {flags}; echo exit=$?; sleep {seconds}"));
    let progress = terminal.eventually_shows("watching TCP sockets");
    assert!(progress.contains("of 3s") && progress.contains(" sample"), "{progress}");
    let plain = terminal.eventually_shows("exit=1");
    assert!(!plain.contains("watching TCP sockets"), "{plain}");
    let widest = plain.lines().map(|line| line.trim_end().chars().count()).max();
    assert!(widest <= Some(100), "{widest:?} columns: {plain}");
    (terminal.capture(&["-e"]), plain)
}

#[test]
fn in_a_terminal_it_fits_and_has_colours() {
    let _host = host::shared();
    let (reader, _writer) = culprit(None);
    let (shown, plain) = in_a_terminal("LC_ALL=C.UTF-8");
    assert!(plain.contains(&format!("not_reading: {} (pid {})", reader.comm, reader.pid)), "{plain}");
    assert!(
        shown.contains("\x1b[1m") && shown.contains("\x1b[33m") || shown.contains("\x1b[1;33m"),
        "{shown}"
    );
    assert!(plain.contains('█') || plain.contains('▏') || plain.contains('·'), "{plain}");
}

#[test]
fn in_a_terminal_without_colours_or_blocks_it_has_none() {
    let _host = host::shared();
    let (_reader, _writer) = culprit(None);
    let (shown, plain) = in_a_terminal("NO_COLOR=1 LC_ALL=C");
    assert!(!shown.contains('\x1b'), "{shown}");
    assert!(plain.is_ascii(), "{plain}");
}
