use std::fs;

use super::*;
use crate::predicament::Predicament;

const ID: ProcessId = ProcessId(1);
const PID: u32 = 42;

/// A procfs with one process in it.
struct Procfs {
    directory: tempfile::TempDir,
    reader: ActivityReader,
}

impl Procfs {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, cgroupfs) = (ProcRoot::new(directory.path()), directory.path().join("cgroup"));
        let reader = ActivityReader::new(root, &cgroupfs, None, CgroupPlace::default());
        Self { directory, reader }
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.directory.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn stat(&self, directory: &str, state: char, ticks: u64, threads: usize, start: u64) {
        let text = format!("1 (a b) {state} 0 0 0 0 0 0 0 0 0 0 {ticks} 0 0 0 0 0 {threads} 0 {start} 0 0\n");
        self.write(&format!("{directory}/stat"), &text);
    }

    fn thread(&self, tid: u32, wchan: &str, nanoseconds: u64, times: u64) {
        let directory = format!("{PID}/task/{tid}");
        self.stat(&directory, 'S', 0, 1, 5);
        self.write(&format!("{directory}/wchan"), wchan);
        self.write(&format!("{directory}/schedstat"), &format!("{nanoseconds} 0 {times}\n"));
    }

    fn read(&mut self, seconds: u64) -> Option<Activity> {
        self.reader.read(&[(ID, PID)], Duration::from_secs(seconds)).remove(&ID)
    }
}

#[test]
fn differences_of_two_readings() {
    let mut procfs = Procfs::new();
    procfs.stat("42", 'S', 100, 2, 5);
    procfs.thread(42, "futex_do_wait", 1_000_000, 3);
    procfs.thread(43, "futex_do_wait", 7_000_000, 4);
    let first = procfs.read(100).unwrap();
    let group =
        ThreadGroup { state: ThreadState::Sleeping, wait_channel: "futex_do_wait".to_owned(), count: 2 };
    assert_eq!(first.threads, [group]);
    assert_eq!((first.cpu_share, first.still_seconds, first.interval_seconds), (None, None, None));
    assert_eq!(first.predicament(), Predicament::Unknown);
    let still = procfs.read(106).unwrap();
    assert_eq!(
        (still.cpu_share, still.still_seconds, still.interval_seconds),
        (Some(0.0), Some(6.0), Some(6.0))
    );
    assert_eq!(procfs.read(112).unwrap().predicament(), Predicament::Deadlocked, "12 seconds in all");

    procfs.thread(43, "0", 9_007_000_000, 5);
    procfs.stat("42", 'S', 100 + 9 * rustix::param::clock_ticks_per_second(), 2, 5);
    let spinning = procfs.read(122).unwrap();
    assert_eq!((spinning.cpu_share, spinning.still_seconds, spinning.spinning), (Some(0.9), Some(0.0), 1));
    assert_eq!(spinning.threads.len(), 2);
}

#[test]
fn a_wakeup_of_microseconds_is_seen() {
    let mut procfs = Procfs::new();
    procfs.stat("42", 'S', 100, 1, 5);
    procfs.write("42/wchan", "futex_do_wait");
    procfs.write("42/schedstat", "1000 0 3\n");
    procfs.read(0).unwrap();
    procfs.write("42/schedstat", "3000 0 4\n");
    let woken = procfs.read(20).unwrap();
    assert_eq!(woken.still_seconds, Some(0.0));
    assert!(woken.cpu_share > Some(0.0));
    procfs.write("42/schedstat", "0 0 0\n");
    procfs.read(40).unwrap();
    assert_eq!(procfs.read(60).unwrap().still_seconds, None, "this kernel does not count");
}

#[test]
fn another_process_begins_anew() {
    let mut procfs = Procfs::new();
    procfs.stat("42", 'S', 100, 1, 5);
    procfs.read(0).unwrap();
    procfs.stat("42", 'S', 200, 1, 6);
    assert_eq!(procfs.read(20).unwrap().cpu_share, None, "a later process with its pid");
    procfs.reader.read(&[], Duration::from_secs(40));
    assert_eq!(procfs.read(60).unwrap().cpu_share, None, "not asked in between");
    assert_eq!(
        procfs.reader.read(&[(ID, PID)], Duration::from_millis(60_100))[&ID].cpu_share,
        None,
        "too soon"
    );
    assert!(procfs.read(80).unwrap().cpu_share.is_some());
    fs::remove_file(procfs.directory.path().join("42/stat")).unwrap();
    assert_eq!(procfs.read(100), None);
}

#[test]
fn threads_beyond_the_limit_are_counted() {
    let mut procfs = Procfs::new();
    procfs.stat("42", 'S', 100, THREADS_MAX + 10, 5);
    for tid in 42..42 + u32::try_from(THREADS_MAX).unwrap() + 10 {
        procfs.stat(&format!("42/task/{tid}"), 'S', 0, 1, 5);
    }
    let activity = procfs.read(0).unwrap();
    assert_eq!(activity.threads_not_read, 10);
    assert_eq!(activity.threads.iter().map(|group| group.count).sum::<u32>(), 512);
}

#[test]
fn whatever_else_is_there() {
    let mut procfs = Procfs::new();
    procfs.stat("42", 't', 100, 1, 5);
    let little = procfs.read(0).unwrap();
    let want = Activity {
        state: ThreadState::Traced,
        threads_total: 1,
        threads: vec![ThreadGroup { state: ThreadState::Traced, count: 1, ..ThreadGroup::default() }],
        ..Activity::default()
    };
    assert_eq!(little, want);
    procfs.write("42/status", "Name:\tx\nTracerPid:\t7\n");
    procfs.write("42/limits", "Max open files            10                   20                   files\n");
    procfs.write("42/cgroup", "6:freezer:/a\n");
    procfs.write("cgroup/freezer/a/freezer.state", "FROZEN\n");
    let more = procfs.read(0).unwrap();
    assert_eq!((more.tracer_pid, more.fd_limit), (7, Some(10)));
    assert_eq!((more.frozen, more.freezer.as_str()), (Some(true), "/a"));
}
