//! Processes in a predicament and the cgroups that put them there, undone whatever happens.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use skmem_exporter::account::ProcessId;
use skmem_exporter::kernel::activity::ActivityReader;
use skmem_exporter::kernel::cgroup_place::CgroupPlace;
use skmem_exporter::kernel::cgroups::Cgroups;
use skmem_exporter::kernel::proc_root::ProcRoot;
use skmem_exporter::predicament::{Activity, Predicament};

/// Longer than anything here should take, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between readings: some hundred clock ticks, so that shares mean something.
const INTERVAL: Duration = Duration::from_secs(1);

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/activity/programs.py");

pub const CGROUPS: &str = "/sys/fs/cgroup";

/// A process of ours that ends with its test.
pub struct Process {
    child: Child,
    /// Whom to look at: the child, or its child.
    pub pid: u32,
}

impl Process {
    pub fn start(name: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "the live tests need root: run them with sudo -E");
        let mut child = Command::new("/usr/bin/python3")
            .args(["-B", PROGRAMS, name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().ok();
        let mut process = Self { child, pid: 0 };
        process.pid = pid.unwrap_or_else(|| panic!("{name} said {line:?}"));
        process
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid.cast_signed()).unwrap(), signal).unwrap();
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads processes again and again.
pub struct Watch {
    reader: ActivityReader,
    started: Instant,
}

impl Watch {
    pub fn new() -> Self {
        let root = ProcRoot::new("/proc");
        let cgroups = Cgroups::new(Path::new(CGROUPS));
        let place = CgroupPlace::find(&root, cgroups.mount());
        let reader = ActivityReader::new(root, Path::new(CGROUPS), cgroups.mount(), place);
        Self { reader, started: Instant::now() }
    }

    pub fn read(&mut self, pid: u32) -> Option<Activity> {
        self.reader.read(&[(ProcessId(pid), pid)], self.started.elapsed()).remove(&ProcessId(pid))
    }

    /// Reads the process until it is in this predicament. Whatever accuses it of something else before is wrong.
    #[track_caller]
    pub fn until(&mut self, process: &Process, want: Predicament) -> Activity {
        loop {
            let activity = self.read(process.pid).expect("it lives");
            let predicament = activity.predicament();
            if predicament == want {
                return activity;
            }
            let is_late = self.started.elapsed() > PATIENCE;
            // Until it has arrived it starts up, or waits for others on a busy machine.
            let is_mild =
                [Predicament::Unknown, Predicament::Working, Predicament::Idle, Predicament::WaitsElsewhere];
            assert!(
                is_mild.contains(&predicament) && !is_late,
                "{predicament:?}, not {want:?}: {activity:#?}"
            );
            std::thread::sleep(INTERVAL);
        }
    }
}

/// A cgroup and one in it, removed when dropped. Whatever is in it has to have ended by then.
pub struct Cgroup {
    pub outer: PathBuf,
    inner: PathBuf,
    /// As in `/proc/PID/cgroup`.
    pub path: String,
}

impl Cgroup {
    pub fn new(mount: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("skmem-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let outer = mount.join(&name);
        let cgroup = Self { inner: outer.join("in ner"), outer, path: format!("/{name}") };
        fs::create_dir_all(&cgroup.inner).unwrap();
        cgroup
    }

    pub fn add(&self, process: &Process) {
        fs::write(self.inner.join("cgroup.procs"), process.pid.to_string()).unwrap();
    }

    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.outer.join(file), text)
            .unwrap_or_else(|error| panic!("{file} of {}: {error}", self.path));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let end = Instant::now() + PATIENCE;
        for directory in [&self.inner, &self.outer] {
            // A process that was reaped a moment ago may still be in it.
            while fs::remove_dir(directory).is_err() && directory.exists() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Frozen until dropped: a process in the ice of cgroup v1 cannot even be killed.
pub struct Ice<'a> {
    cgroup: &'a Cgroup,
    file: &'static str,
    thawed: &'static str,
}

impl<'a> Ice<'a> {
    pub fn new(cgroup: &'a Cgroup, file: &'static str, [frozen, thawed]: [&'static str; 2]) -> Self {
        cgroup.write(file, frozen);
        Self { cgroup, file, thawed }
    }
}

impl Drop for Ice<'_> {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup.outer.join(self.file), self.thawed);
    }
}
