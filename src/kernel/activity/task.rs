//! Pure parsers of the files of a process or thread. What they do not find is `None`: evidence may be missing.

use super::super::text;
use crate::predicament::ThreadState;

/// The part of `/proc/PID/stat` that tells what a process does (`fs/proc/array.c`, `do_task_stat`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskStat {
    /// Of the main thread, or of the thread whose file it is.
    pub state: ThreadState,
    /// User and system time. Clock ticks; of all threads together in a process's own file, those that have ended included.
    pub cpu_ticks: u64,
    /// Threads of the process.
    pub threads: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// How much a thread has run (`/proc/PID/task/TID/schedstat`). Each time it runs, both grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Time on a CPU. Nanoseconds; while it runs, behind by up to a tick of the scheduler.
    pub nanoseconds: u64,
    /// How often it was put on a CPU.
    pub times: u64,
}

/// Parses `stat`. The name in it may hold anything, parentheses and line ends included.
pub fn stat(text: &[u8]) -> Option<TaskStat> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> =
        std::str::from_utf8(text.get(end + 1..)?).ok()?.split_ascii_whitespace().collect();
    // proc(5) counts from 1, and the state is the third.
    let field = |number: usize| fields.get(number - 3).copied();
    let user: u64 = field(14)?.parse().ok()?;
    let system: u64 = field(15)?.parse().ok()?;
    Some(TaskStat {
        state: ThreadState::from_letter(field(3)?.chars().next()?),
        cpu_ticks: user.saturating_add(system),
        threads: field(20)?.parse().ok()?,
        start_time: field(22)?.parse().ok()?,
    })
}

/// Parses `schedstat`: three zeros mean that this kernel does not count.
pub fn run(text: &[u8]) -> Option<Run> {
    let mut words = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let nanoseconds = words.next()?.parse().ok()?;
    let times = words.nth(1)?.parse().ok()?;
    (times > 0).then_some(Run { nanoseconds, times })
}

/// Parses `wchan`: 0 for a thread that runs, and where we may not look. What the compiler appended to the name says nothing.
pub fn wait_channel(text: &[u8]) -> String {
    let name = text.trim_ascii().split(|byte| *byte == b'.').next().unwrap_or_default();
    if name == b"0" { String::new() } else { text::lossless(name) }
}

/// `TracerPid` of `status`.
pub fn tracer_pid(text: &[u8]) -> Option<u32> {
    after(text, b"TracerPid:")?.parse().ok()
}

/// The soft limit on open files in `limits`; `None` if there is none.
pub fn soft_fd_limit(text: &[u8]) -> Option<u64> {
    after(text, b"Max open files ")?.parse().ok()
}

/// The first word after `name` at the beginning of a line.
fn after<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let rest = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    std::str::from_utf8(rest).ok()?.split_ascii_whitespace().next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAT: &str = "77 (a) R 1) (b\n) S 76 77 77 0 -1 4194560 85436 0 0 0 760 13088 597056 242515 20 0 13 0 25 42938368 \
        3163 18446744073709551615 1 1 0 0 0 0 0 4096 1256 1 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn stat_is_read_behind_the_name() {
        let want = TaskStat { state: ThreadState::Sleeping, cpu_ticks: 13_848, threads: 13, start_time: 25 };
        assert_eq!(stat(STAT.as_bytes()), Some(want));
        assert_eq!(stat(b"77 (cut) S 76 77"), None);
        assert_eq!(stat(b""), None);
        assert_eq!(stat(b"77 (name\xff) "), None);
    }

    #[test]
    fn schedstat_of_a_kernel_that_counts() {
        assert_eq!(run(b"192234728 12799027 528\n"), Some(Run { nanoseconds: 192_234_728, times: 528 }));
        assert_eq!(run(b"0 0 0\n"), None);
        assert_eq!(run(b"1 2"), None);
    }

    #[test]
    fn wait_channels_are_function_names() {
        assert_eq!(wait_channel(b"do_epoll_wait"), "do_epoll_wait");
        assert_eq!(wait_channel(b"poll_schedule_timeout.constprop.0\n"), "poll_schedule_timeout");
        assert_eq!(wait_channel(b"0"), "");
        assert_eq!(wait_channel(b""), "");
    }

    #[test]
    fn lines_by_name() {
        let status = b"Name:\tTracerPid:\t7\nState:\tt (tracing stop)\nTracerPid:\t4711\nUid:\t0\n";
        assert_eq!(tracer_pid(status), Some(4711));
        assert_eq!(tracer_pid(b"Name:\tx\n"), None);
        let limits = b"Limit                     Soft Limit           Hard Limit           Units     \n\
            Max processes             96365                96365                processes \n\
            Max open files            1024                 32768                files     \n";
        assert_eq!(soft_fd_limit(limits), Some(1024));
        assert_eq!(
            soft_fd_limit(b"Max open files            unlimited            unlimited            files\n"),
            None
        );
        assert_eq!(soft_fd_limit(b""), None);
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in prop::collection::vec(any::<u8>(), 0..300), words in "[a-zA-Z0-9():. \n-]{0,200}") {
            for text in [text.as_slice(), words.as_bytes()] {
                let _ = (stat(text), run(text), wait_channel(text), tracer_pid(text), soft_fd_limit(text));
            }
        }
    }
}
