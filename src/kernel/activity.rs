//! What single processes do, from `/proc/PID` and their cgroups: the evidence for [`crate::predicament`].
//!
//! This runs on the sampler's thread, so nothing in it may wait for the process it reads. These files do not; beside what is
//! taken to find any file below `/proc`, this is what is taken to print them:
//!
//! | file | taken |
//! |---|---|
//! | `stat`, `status`, and those of its threads | spinlocks: task, signals; for a moment a reference to the memory map, never its lock |
//! | `schedstat` of its threads | nothing |
//! | `wchan` of its threads | a spinlock: the scheduler's, of that thread |
//! | `limits` | a spinlock: signals |
//! | `fd` (stat(2) only) | a spinlock: task |
//! | `task` (listed, if it has more than one thread) | RCU |
//! | `cgroup` | a spinlock; cgroup_mutex before Linux 6.8, which is held by the kernel's work only |
//! | `cgroup.events`, `cgroup.freeze`, `freezer.*`, `cpu.stat` | spinlocks; freezer_mutex for `freezer.state` |
//!
//! `syscall`, `stack` and `personality` are not read: they take `exec_update_lock`, which a process can hold for as long as
//! it likes, in an execve() that waits for a page of its own making. Neither are `cmdline`, `environ`, `maps`, which take the
//! memory map's lock, nor is `fd` listed. What is left is what every reader of `/proc` shares: a process can hold the lock of its
//! own `/proc/PID` or `/proc/PID/task` as it can that of its `fd`, and who then lists it, or looks up a name in it that is not
//! cached, waits.
//!
//! `wchan` says 0 unless we may trace the process (`CAP_SYS_PTRACE`), and is missing without `CONFIG_KALLSYMS`; `schedstat` is zero
//! without `CONFIG_SCHED_INFO`. All else is for everybody, unless `hidepid` hides the process.
//!
//! One reading costs 0.09 ms of a process with one thread, and some 26 us for each of many threads: 2.6 ms for 100, 14 ms for 500,
//! two thirds of it in the kernel.

mod restraint;
mod task;

use std::path::Path;
use std::time::Duration;

use hashbrown::HashMap;

use super::cgroup_place::CgroupPlace;
use super::proc_root::ProcRoot;
use crate::account::ProcessId;
use crate::predicament::{Activity, SPINNING, ThreadGroup, ThreadState};
use restraint::Restraints;
use task::{Run, TaskStat};

/// Threads read of one process, which bounds its reading to some 14 ms. Servers have hundreds; the share of the process as a
/// whole does not need each of them.
pub const THREADS_MAX: usize = 512;

/// Readings that are closer together say nothing of shares: the kernel adds CPU time up in steps of up to 10 ms.
const INTERVAL_MIN: Duration = Duration::from_millis(200);

/// Reads processes, and remembers each until the next reading.
#[derive(Debug)]
pub struct ActivityReader {
    root: ProcRoot,
    place: CgroupPlace,
    restraints: Restraints,
    ticks_per_second: f64,
    last: Option<Duration>,
    past: HashMap<ProcessId, Past>,
}

/// A process at the reading before.
#[derive(Debug)]
struct Past {
    /// Tells it from a later process with the same pid.
    start_time: u64,
    cpu_ticks: u64,
    runs: Runs,
    still_since: Duration,
}

/// How much each thread has run, by tid; `None` where the kernel does not tell.
type Runs = HashMap<u32, Option<Run>>;

/// What the threads of a process do.
#[derive(Debug, Default)]
struct Threads {
    read: u32,
    /// State of the main thread, as it is in `groups`; the process's own file was read a moment before.
    main: Option<ThreadState>,
    groups: HashMap<(ThreadState, String), u32>,
    runs: Runs,
}

impl ActivityReader {
    /// Reads below `root`, and the cgroup hierarchies mounted at or below `cgroupfs`: cgroup2 at `unified`, where `place` is
    /// ours.
    pub fn new(root: ProcRoot, cgroupfs: &Path, unified: Option<&Path>, place: CgroupPlace) -> Self {
        Self {
            place,
            root,
            restraints: Restraints::new(cgroupfs.to_owned(), unified.map(Path::to_owned)),
            ticks_per_second: rustix::param::clock_ticks_per_second() as f64,
            last: None,
            past: HashMap::new(),
        }
    }

    /// Reads the processes with these pids, each beside its reading in the call before if there was one. One that has ended
    /// is missing in the answer. `now` is any clock that only grows.
    pub fn read(&mut self, pids: &[(ProcessId, u32)], now: Duration) -> HashMap<ProcessId, Activity> {
        let elapsed = self.last.replace(now).map(|last| now.saturating_sub(last));
        let mut past = std::mem::take(&mut self.past);
        self.restraints.begin();
        pids.iter()
            .filter_map(|&(id, pid)| {
                let (activity, present) = self.read_one(pid, past.remove(&id), elapsed, now)?;
                self.past.insert(id, present);
                Some((id, activity))
            })
            .collect()
    }

    fn read_one(
        &mut self,
        pid: u32,
        past: Option<Past>,
        elapsed: Option<Duration>,
        now: Duration,
    ) -> Option<(Activity, Past)> {
        let stat = self.parse(&format!("{pid}/stat"), task::stat)?;
        let past = past.filter(|past| past.start_time == stat.start_time);
        let threads = self.threads(pid, &stat);
        let interval = elapsed.filter(|&elapsed| past.is_some() && elapsed >= INTERVAL_MIN);
        let seconds = interval.map(|interval| interval.as_secs_f64());
        let since = past.as_ref().filter(|past| has_stood_still(past, &stat, &threads.runs));
        let still_since = since.map_or(now, |past| past.still_since);
        let (frozen, freezer, throttled_share) = self.restraints(pid, seconds);
        let mut activity = Activity {
            state: threads.main.unwrap_or(stat.state),
            tracer_pid: self.parse(&format!("{pid}/status"), task::tracer_pid).unwrap_or(0),
            threads_total: stat.threads,
            threads_not_read: stat.threads.saturating_sub(threads.read),
            threads: Vec::new(),
            interval_seconds: seconds,
            still_seconds: (past.is_some() && tells_runs(&threads.runs))
                .then(|| now.saturating_sub(still_since).as_secs_f64()),
            cpu_share: None,
            spinning: 0,
            frozen,
            freezer,
            throttled_share,
            open_fds: self.open_fds(pid),
            fd_limit: self.parse(&format!("{pid}/limits"), task::soft_fd_limit),
        };
        if let (Some(past), Some(seconds)) = (&past, seconds) {
            let ticks = stat.cpu_ticks.saturating_sub(past.cpu_ticks) as f64 / self.ticks_per_second;
            let spans = spans(&past.runs, &threads.runs);
            // Ticks count threads that have ended too, but what is shorter than one of them only the threads tell.
            activity.cpu_share = Some(ticks.max(spans.iter().sum()) / seconds);
            let spinning = spans.iter().filter(|span| **span >= SPINNING * seconds).count();
            activity.spinning = u32::try_from(spinning).unwrap_or(u32::MAX);
        }
        activity.threads = sorted(threads.groups);
        // Asked last: what was read in between is of this process only if it is still there.
        let last = self.parse(&format!("{pid}/stat"), task::stat);
        let is_same = last.is_some_and(|last| last.start_time == stat.start_time);
        let present =
            Past { start_time: stat.start_time, cpu_ticks: stat.cpu_ticks, runs: threads.runs, still_since };
        is_same.then_some((activity, present))
    }

    fn parse<T>(&self, file: &str, parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        parse(&self.root.bytes(file).ok()?)
    }

    /// Its threads, the main thread first.
    fn threads(&self, pid: u32, stat: &TaskStat) -> Threads {
        let mut threads = Threads::default();
        if stat.threads == 1 {
            // A process's own files are its main thread's, but for what sums over threads, here the same.
            self.thread(&pid.to_string(), pid, stat.state, &mut threads);
            return threads;
        }
        let Ok(tids) = std::fs::read_dir(self.root.join(format!("{pid}/task"))) else { return threads };
        let tids =
            tids.map_while(Result::ok).filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for tid in tids.take(THREADS_MAX) {
            let directory = format!("{pid}/task/{tid}");
            // It may have ended meanwhile.
            if let Some(stat) = self.parse(&format!("{directory}/stat"), task::stat) {
                if tid == pid {
                    threads.main = Some(stat.state);
                }
                self.thread(&directory, tid, stat.state, &mut threads);
            }
        }
        threads
    }

    fn thread(&self, directory: &str, tid: u32, state: ThreadState, threads: &mut Threads) {
        let waits = matches!(state, ThreadState::Sleeping | ThreadState::Uninterruptible);
        let channel = || self.parse(&format!("{directory}/wchan"), |text| Some(task::wait_channel(text)));
        let channel = waits.then(channel).flatten().unwrap_or_default();
        let run = self.parse(&format!("{directory}/schedstat"), task::run);
        *threads.groups.entry((state, channel)).or_default() += 1;
        threads.runs.insert(tid, run);
        threads.read += 1;
    }

    /// Whether it is frozen, by which cgroup, and the share of the time it was throttled.
    fn restraints(&mut self, pid: u32, seconds: Option<f64>) -> (Option<bool>, String, Option<f64>) {
        let text = self.place.cgroups(&self.root, pid);
        let (frozen, freezer) = self.restraints.frozen(&text);
        (frozen, freezer, self.restraints.throttled_share(&text, seconds))
    }

    /// The kernel's count for stat(2) (`fs/proc/fd.c`, `proc_readfd_count`); `None` before Linux 6.2, which has zero there.
    fn open_fds(&self, pid: u32) -> Option<u64> {
        let length = std::fs::metadata(self.root.join(format!("{pid}/fd"))).ok()?.len();
        (length > 0).then_some(length)
    }
}

/// Whether nothing has run since: the same threads with the same counts, and no CPU used by any other.
fn has_stood_still(past: &Past, stat: &TaskStat, runs: &Runs) -> bool {
    past.cpu_ticks == stat.cpu_ticks && past.runs == *runs && tells_runs(runs)
}

/// Whether it is known of every thread how much it has run.
fn tells_runs(runs: &Runs) -> bool {
    !runs.is_empty() && runs.values().all(Option::is_some)
}

/// For how long each thread that was there before has run since. Seconds.
fn spans(past: &Runs, runs: &Runs) -> Vec<f64> {
    let span = |tid: &u32, run: &Option<Run>| {
        let (before, now) = (past.get(tid)?.as_ref()?, run.as_ref()?);
        // Less than before is another thread with its tid.
        Some(Duration::from_nanos(now.nanoseconds.checked_sub(before.nanoseconds)?).as_secs_f64())
    };
    runs.iter().filter_map(|(tid, run)| span(tid, run)).collect()
}

fn sorted(groups: HashMap<(ThreadState, String), u32>) -> Vec<ThreadGroup> {
    let mut groups: Vec<ThreadGroup> = groups
        .into_iter()
        .map(|((state, wait_channel), count)| ThreadGroup { state, wait_channel, count })
        .collect();
    // Most frequent first; the rest of the order only has to be the same in each reading.
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.cmp(b)));
    groups
}

#[cfg(test)]
mod tests;
