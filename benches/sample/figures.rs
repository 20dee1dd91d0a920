//! What one run took and what it saw, and several runs together.

use std::time::{Duration, Instant};

use procfs::process::Process;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::Result;

/// One run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Time on the clock.
    pub wall: Duration,
    /// CPU time of the process, threads that have ended included.
    pub cpu: Duration,
    /// Resident memory afterwards.
    pub rss: u64,
    /// The most there was in this process so far.
    pub peak_rss: u64,
    /// What it saw.
    pub seen: Seen,
}

/// What a run saw, to tell a wrong answer from a fast one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Sockets.
    pub sockets: u64,
    /// r + w + f of all of them, where it was added up.
    pub memory: i64,
    /// Processes, where they were found.
    pub rows: Vec<Row>,
}

/// A process of a sample.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Its pid.
    pub pid: u32,
    /// Its sockets.
    pub sockets: u64,
    /// Their memory.
    pub memory: i64,
}

/// Runs `work` once in this process.
pub fn measure(work: impl FnOnce() -> Result<Seen>) -> Result<Measured> {
    let (cpu, clock) = (cpu_time(), Instant::now());
    let seen = work()?;
    let (wall, cpu) = (clock.elapsed(), cpu_time().saturating_sub(cpu));
    let memory = Memory::of(std::process::id()).ok_or("cannot read /proc/self/status")?;
    Ok(Measured { wall, cpu, rss: memory.resident, peak_rss: memory.peak, seen })
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // It starts from zero with the process, so neither part is negative.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident memory of a process, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// `VmRSS`
    pub resident: u64,
    /// `VmHWM`
    pub peak: u64,
}

impl Memory {
    /// That of `pid`; `None` once it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        let status = Process::new(i32::try_from(pid).ok()?).and_then(|process| process.status()).ok()?;
        Some(Self { resident: status.vmrss? * 1024, peak: status.vmhwm? * 1024 })
    }
}

/// Several runs of the same work.
#[derive(Debug, Clone, Default)]
pub struct Runs(Vec<Measured>);

impl Runs {
    /// Adds a run.
    pub fn push(&mut self, measured: Measured) {
        self.0.push(measured);
    }

    /// Median of the time on the clock; `None` without any run.
    pub fn median(&self) -> Option<Duration> {
        middle(self.0.iter().map(|run| run.wall).collect())
    }

    /// The fastest run.
    pub fn min(&self) -> Option<Duration> {
        self.0.iter().map(|run| run.wall).min()
    }

    /// Median of the CPU time.
    pub fn median_cpu(&self) -> Option<Duration> {
        middle(self.0.iter().map(|run| run.cpu).collect())
    }

    /// The most memory any run had.
    pub fn peak_rss(&self) -> Option<u64> {
        self.0.iter().map(|run| run.peak_rss).max()
    }
}

fn middle(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// The value below which `share` of the sorted `times` lie.
pub fn percentile(sorted: &[Duration], share: f64) -> Duration {
    // Positive and at most the length.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
