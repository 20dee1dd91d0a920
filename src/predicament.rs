//! What a process does instead of reading: one pure function from what two successive readings of it have shown.
//!
//! The first row that fits is the answer. "Still" means that no thread has run at all, "quiet" that the process has used
//! less than [`QUIET`] of one CPU since the reading before. Zombie threads do not count.
//!
//! | predicament | test | why so |
//! |---|---|---|
//! | `stopped` | its main thread, or every thread, is stopped | SIGSTOP or SIGTSTP: nothing runs before SIGCONT |
//! | `traced` | its main thread, or half of its threads, is stopped by a tracer | a debugger holds it; being traced while it runs is no obstacle |
//! | `frozen` | its cgroup's freezer is on, or every thread is where only a freezer keeps it | nothing runs before it is thawed; such threads would else look asleep or uninterruptible |
//! | `uninterruptible` | quiet; its main thread or half of its threads is in uninterruptible sleep, or one is and all others wait for locks | a disk, NFS or a driver does not answer; who only passes by there uses CPU in between |
//! | `deadlocked` | still for [`STILL_SECONDS`]; every thread was read and waits for a lock | a pool at rest has somebody who polls or sleeps, a wait with a timeout runs when that ends |
//! | `out_of_fds` | open fds are [`FDS_FULL`] of the soft limit | accept() fails; before `spinning`, because an event loop spins on an accept that fails |
//! | `spinning` | a thread has used [`SPINNING`] of one CPU | it never comes to wait for a socket |
//! | `throttled` | held back by its cgroup's CPU quota for [`THROTTLED`] of the time | it would run, but may not |
//! | `waits_elsewhere` | quiet; every thread was read and waits for a lock, or for a pipe, a timer, a child, a signal, a file lock | nobody in it waits for the network |
//! | `idle` | quiet; no thread runs, one waits for events or for a socket | it waits for something, but for other sockets than these |
//! | `working` | a thread runs, or CPU was used | busy with something else, or slow |
//! | `unknown` | everything else | |
//!
//! Whatever is not known makes the answer less specific: nobody is accused for want of evidence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// CPUs used, below which a process is as good as asleep: event loops and runtimes at rest wake for their timers, which
/// costs up to some percent.
pub const QUIET: f64 = 0.05;

/// How long no thread may have run until all of them waiting for locks is a deadlock. Seconds. Waits with a timeout mostly
/// have one of a second or so; and whoever is asked about has let data lie for longer already.
pub const STILL_SECONDS: f64 = 5.0;

/// Share of one CPU from which on a thread spins.
pub const SPINNING: f64 = 0.9;

/// Share of the time from which on a CPU quota counts as what holds a process back.
pub const THROTTLED: f64 = 0.25;

/// Share of the soft limit on open file descriptors that is as good as all of them.
pub const FDS_FULL: f64 = 0.99;

/// What a thread does, or a process's main thread: the letter in `/proc/PID/stat` (`fs/proc/array.c`, `task_state_array`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ThreadState {
    /// `R`: runs, or waits for a CPU.
    Running,
    /// `S`: sleeps, a signal would wake it.
    Sleeping,
    /// `D`: sleeps, and only what it waits for wakes it.
    Uninterruptible,
    /// `T`: stopped by a signal.
    Stopped,
    /// `t`: stopped by its tracer.
    Traced,
    /// `Z` or `X`: has ended.
    Zombie,
    /// Not read, or a letter no kernel we know of prints.
    #[default]
    Unknown,
}

impl ThreadState {
    /// The state that the kernel calls `letter`.
    pub fn from_letter(letter: char) -> Self {
        match letter {
            'R' => Self::Running,
            // Parked, and asleep without counting as load: threads of the kernel, and workers of io_uring.
            'S' | 'I' | 'P' => Self::Sleeping,
            'D' => Self::Uninterruptible,
            'T' => Self::Stopped,
            't' => Self::Traced,
            'Z' | 'X' | 'x' => Self::Zombie,
            _ => Self::Unknown,
        }
    }

    /// As label value and in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::Uninterruptible => "uninterruptible",
            Self::Stopped => "stopped",
            Self::Traced => "traced",
            Self::Zombie => "zombie",
            Self::Unknown => "unknown",
        }
    }
}

/// Threads of one process that are in the same state and wait in the same place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThreadGroup {
    /// Their state.
    pub state: ThreadState,
    /// The kernel's function they wait in, without what the compiler appended to its name; empty for those that do not
    /// wait, and where it may not be read.
    pub wait_channel: String,
    /// How many.
    pub count: u32,
}

/// What two successive readings of one process have shown. Whatever needs both is `None` at the first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// Its main thread; `Unknown` where nothing could be read.
    pub state: ThreadState,
    /// Who traces its main thread; 0 for nobody, and for a tracer outside the pid namespace of `--path.procfs`.
    pub tracer_pid: u32,
    /// Threads, by `/proc/PID/stat`.
    pub threads_total: u32,
    /// How many of them are not in `threads`: beyond the limit of one reading, or ended meanwhile.
    pub threads_not_read: u32,
    /// What they do, most frequent first.
    pub threads: Vec<ThreadGroup>,
    /// Time between the two readings that the shares below are of. Seconds.
    pub interval_seconds: Option<f64>,
    /// For how long successive readings have shown no thread run at all. Seconds; zero if one ran since the reading before.
    pub still_seconds: Option<f64>,
    /// CPUs used: 1.0 is one CPU all the time.
    pub cpu_share: Option<f64>,
    /// Threads that have used [`SPINNING`] of one CPU or more.
    pub spinning: u32,
    /// Whether a freezer above it is on; `None` where no freezer can be read.
    pub frozen: Option<bool>,
    /// The cgroup whose freezer is on, as in `/proc/PID/cgroup`; empty if none is.
    pub freezer: String,
    /// Share of the time in which the CPU quota of its cgroup, or of one above, held threads back: 0.0 to 1.0; 0.0 without
    /// a quota, `None` where that cannot be read.
    pub throttled_share: Option<f64>,
    /// Open file descriptors; `None` before Linux 6.2.
    pub open_fds: Option<u64>,
    /// Soft limit on them; `None` where it cannot be read or there is none.
    pub fd_limit: Option<u64>,
}

/// What keeps a process from reading.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Predicament {
    /// Stopped by a signal.
    Stopped,
    /// Stopped by a debugger.
    Traced,
    /// Its cgroup is frozen.
    Frozen,
    /// Waits for a device or a file system, and cannot be interrupted.
    Uninterruptible,
    /// Every thread waits for a lock, and none has run for a while.
    Deadlocked,
    /// It can open no more file descriptors.
    OutOfFds,
    /// A thread uses a CPU without ever waiting.
    Spinning,
    /// Its cgroup's CPU quota holds it back.
    Throttled,
    /// It waits for something that is not the network.
    WaitsElsewhere,
    /// It waits for events, but not for these sockets'.
    Idle,
    /// It runs.
    Working,
    /// Not enough is known.
    #[default]
    Unknown,
}

impl Predicament {
    /// Every one, in the order of the rules.
    pub const ALL: [Self; 12] = [
        Self::Stopped,
        Self::Traced,
        Self::Frozen,
        Self::Uninterruptible,
        Self::Deadlocked,
        Self::OutOfFds,
        Self::Spinning,
        Self::Throttled,
        Self::WaitsElsewhere,
        Self::Idle,
        Self::Working,
        Self::Unknown,
    ];

    /// As label value and in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Traced => "traced",
            Self::Frozen => "frozen",
            Self::Uninterruptible => "uninterruptible",
            Self::Deadlocked => "deadlocked",
            Self::OutOfFds => "out_of_fds",
            Self::Spinning => "spinning",
            Self::Throttled => "throttled",
            Self::WaitsElsewhere => "waits_elsewhere",
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Unknown => "unknown",
        }
    }
}

/// What is said if the test fits.
type Rule = (Predicament, fn(&Activity) -> bool);

impl Predicament {
    /// Whether nothing else can be the reason: who is stopped reads nothing, whatever he would wait for.
    pub fn is_certain(self) -> bool {
        matches!(self, Self::Stopped | Self::Traced | Self::Frozen | Self::Uninterruptible)
    }
}

impl Activity {
    /// The first rule that fits.
    pub fn predicament(&self) -> Predicament {
        let rules: [Rule; 11] = [
            (Predicament::Stopped, |a| {
                a.main_is(ThreadState::Stopped) || a.all(|t| t.is(ThreadState::Stopped))
            }),
            (Predicament::Traced, |a| a.mostly(ThreadState::Traced)),
            (Predicament::Frozen, |a| a.frozen == Some(true) || a.all(|t| t.wait() == Wait::Freezer)),
            (Predicament::Uninterruptible, |a| a.is_quiet() && a.is_uninterruptible()),
            (Predicament::Deadlocked, |a| a.is_still() && a.was_read() && a.all(|t| t.wait() == Wait::Lock)),
            (Predicament::OutOfFds, Self::is_out_of_fds),
            (Predicament::Spinning, |a| a.spinning > 0),
            (Predicament::Throttled, |a| a.throttled_share.is_some_and(|share| share >= THROTTLED)),
            (Predicament::WaitsElsewhere, |a| a.is_quiet() && a.was_read() && a.waits_elsewhere()),
            (Predicament::Idle, |a| a.is_quiet() && a.waits_for_events()),
            (Predicament::Working, |a| a.any(|t| t.is(ThreadState::Running)) || a.cpu_share > Some(0.0)),
        ];
        rules
            .iter()
            .find(|(_, fits)| fits(self))
            .map_or(Predicament::Unknown, |(predicament, _)| *predicament)
    }

    fn living(&self) -> impl Iterator<Item = &ThreadGroup> {
        self.threads.iter().filter(|group| group.count > 0 && !group.is(ThreadState::Zombie))
    }

    fn any(&self, test: impl Fn(&ThreadGroup) -> bool) -> bool {
        self.living().any(test)
    }

    /// Whether it is so of every living thread, of which there are some.
    fn all(&self, test: impl Fn(&ThreadGroup) -> bool) -> bool {
        self.any(|_| true) && self.living().all(test)
    }

    /// Where nothing is known of threads, what is known of the main thread decides alone.
    fn main_is(&self, state: ThreadState) -> bool {
        self.state == state
    }

    fn mostly(&self, state: ThreadState) -> bool {
        let count = |groups: &mut dyn Iterator<Item = &ThreadGroup>| -> u64 {
            groups.map(|group| u64::from(group.count)).sum()
        };
        let such = count(&mut self.living().filter(|group| group.is(state)));
        self.main_is(state) || such > 0 && such * 2 >= count(&mut self.living())
    }

    /// Whether every thread is in `threads`.
    fn was_read(&self) -> bool {
        self.threads_not_read == 0
    }

    fn is_quiet(&self) -> bool {
        self.cpu_share.is_some_and(|share| share < QUIET)
    }

    fn is_still(&self) -> bool {
        self.still_seconds.is_some_and(|seconds| seconds >= STILL_SECONDS)
    }

    fn is_uninterruptible(&self) -> bool {
        let is_such = |group: &ThreadGroup| group.is(ThreadState::Uninterruptible);
        self.mostly(ThreadState::Uninterruptible)
            || self.any(is_such)
                && self.was_read()
                && self.all(|group| is_such(group) || group.wait() == Wait::Lock)
    }

    fn is_out_of_fds(&self) -> bool {
        // Counts of fds are far below 2^53.
        self.open_fds.zip(self.fd_limit).is_some_and(|(open, limit)| open as f64 >= limit as f64 * FDS_FULL)
    }

    fn waits_elsewhere(&self) -> bool {
        self.any(|group| group.wait() == Wait::Elsewhere)
            && self.all(|group| matches!(group.wait(), Wait::Elsewhere | Wait::Lock))
    }

    fn waits_for_events(&self) -> bool {
        self.any(|group| group.wait() == Wait::Events) && self.all(|group| group.is(ThreadState::Sleeping))
    }
}

impl ThreadGroup {
    fn is(&self, state: ThreadState) -> bool {
        self.state == state
    }

    fn wait(&self) -> Wait {
        match (self.state, Wait::of(&self.wait_channel)) {
            (ThreadState::Sleeping, wait) => wait,
            (ThreadState::Uninterruptible, Wait::Freezer) => Wait::Freezer,
            // Since Linux 6.1 a freezer leaves sleepers where they are, and they are printed as if only it could wake them. In
            // these places nobody else sleeps like that.
            (ThreadState::Uninterruptible, Wait::Lock | Wait::Events | Wait::Elsewhere)
                if !self.is_killable() =>
            {
                Wait::Freezer
            }
            _ => Wait::Unknown,
        }
    }

    fn is_killable(&self) -> bool {
        KILLABLE.contains(&self.wait_channel.as_str())
    }
}

/// What a sleeping thread waits for, as far as the name of the kernel's function tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// A lock or a condition variable of user space; any futex.
    Lock,
    /// Events, or a socket.
    Events,
    /// Something that is not the network.
    Elsewhere,
    /// To be thawed.
    Freezer,
    /// Not known.
    Unknown,
}

/// Functions of the freezers: of cgroup v1 and suspend, and of cgroup2, which is mostly inlined; nothing else in get_signal()
/// is an interruptible sleep.
const FREEZERS: [&str; 3] = ["__refrigerator", "do_freezer_trap", "get_signal"];

/// Functions that wait for events or for a socket. Which one is seen depends on what the compiler inlined, so callers are
/// here too. `wait_woken` is recv() and send() of TCP, but also a terminal's read: the milder reading of the two.
const EVENTS: [&str; 27] = [
    "ep_poll",
    "do_epoll_wait",
    "do_epoll_pwait",
    "poll_schedule_timeout",
    "do_poll",
    "do_sys_poll",
    "do_select",
    "core_sys_select",
    "wait_woken",
    "sk_wait_data",
    "sk_stream_wait_memory",
    "sk_stream_wait_connect",
    "tcp_recvmsg",
    "tcp_recvmsg_locked",
    "tcp_sendmsg_locked",
    "inet_csk_accept",
    "inet_csk_wait_for_connect",
    "inet_wait_for_connect",
    "__inet_stream_connect",
    "__skb_wait_for_more_packets",
    "unix_stream_read_generic",
    "unix_stream_data_wait",
    "unix_wait_for_peer",
    "sock_alloc_send_pskb",
    "io_cqring_wait",
    "io_wq_worker",
    "io_sq_thread",
];

/// Functions that wait for anything else: pipes and FIFOs, timers, children, signals, file locks, System V IPC and message
/// queues, FUSE, autofs.
const ELSEWHERE: [&str; 34] = [
    "pipe_read",
    "anon_pipe_read",
    "fifo_pipe_read",
    "pipe_write",
    "anon_pipe_write",
    "fifo_pipe_write",
    "pipe_wait",
    "pipe_wait_readable",
    "pipe_wait_writable",
    "wait_for_partner",
    "hrtimer_nanosleep",
    "do_nanosleep",
    "common_nsleep",
    "alarmtimer_do_nsleep",
    "do_wait",
    "kernel_wait4",
    "kernel_waitid",
    "do_sigtimedwait",
    "sigsuspend",
    "__do_sys_pause",
    "__x64_sys_pause",
    "__se_sys_pause",
    "locks_lock_inode_wait",
    "flock_lock_inode_wait",
    "posix_lock_inode_wait",
    "fcntl_setlk",
    "do_semtimedop",
    "__do_semtimedop",
    "do_msgrcv",
    "do_msgsnd",
    "wq_sleep",
    "n_tty_read",
    "request_wait_answer",
    "autofs_wait",
];

/// Those among them that may be either: a signal wakes them, or only a deadly one does.
const KILLABLE: [&str; 2] = ["request_wait_answer", "autofs_wait"];

impl Wait {
    fn of(channel: &str) -> Self {
        if FREEZERS.contains(&channel) {
            Self::Freezer
        } else if channel.trim_start_matches('_').starts_with("futex_") {
            // futex_wait_queue_me, futex_wait_queue, futex_do_wait, __futex_wait: every few releases another one.
            Self::Lock
        } else if EVENTS.contains(&channel) {
            Self::Events
        } else if ELSEWHERE.contains(&channel) {
            Self::Elsewhere
        } else {
            Self::Unknown
        }
    }
}

#[cfg(test)]
mod tests;
