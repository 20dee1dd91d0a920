//! The exporter's own process, always from the real `/proc`: `--path.procfs` may be another host's.

use procfs::process::{LimitValue, Process};
use procfs::{CurrentSI, KernelStats, ProcResult, WithCurrentSystemInfo};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::sample::{Capability, SelfFigures};

/// In the order of [`Capability::ALL`].
const CAPABILITIES: [CapabilitySet; Capability::ALL.len()] =
    [CapabilitySet::DAC_READ_SEARCH, CapabilitySet::SYS_PTRACE, CapabilitySet::SYS_ADMIN];

/// When this process started, seconds since the epoch: btime of `/proc/stat` plus its own start since boot. To be asked
/// once: btime moves with the wall clock, and a start time must not.
pub fn start_time() -> Option<f64> {
    let stat = Process::myself().and_then(|process| process.stat()).ok()?;
    let since_boot = stat.starttime as f64 / procfs::ticks_per_second() as f64;
    Some(KernelStats::current().ok()?.btime as f64 + since_boot)
}

/// CPU, memory and descriptors of this process, which started at `start_time`; `None` where `/proc/self` does not say.
pub fn figures(start_time: f64) -> Option<SelfFigures> {
    read(start_time).ok()
}

fn read(start_time: f64) -> ProcResult<SelfFigures> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second();
    let limits = process.limits()?;
    let max_fds = match limits.max_open_files.soft_limit {
        LimitValue::Value(value) => value,
        LimitValue::Unlimited => u64::MAX,
    };
    Ok(SelfFigures {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks as f64,
        resident_memory: stat.rss_bytes().get(),
        virtual_memory: stat.vsize,
        open_fds: process.fd_count()? as u64,
        max_fds,
        start_time,
    })
}

/// Effective capabilities of the calling thread: not all of ours have the same ([`super::confine`]). By a system call that
/// needs no file descriptor.
pub fn capabilities() -> [bool; Capability::ALL.len()] {
    among(|sets| sets.effective)
}

/// Those that it may make effective, as it does when it confines itself.
pub fn permitted_capabilities() -> [bool; Capability::ALL.len()] {
    among(|sets| sets.permitted)
}

fn among(set: impl FnOnce(CapabilitySets) -> CapabilitySet) -> [bool; Capability::ALL.len()] {
    let has = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), set);
    CAPABILITIES.map(|capability| has.contains(capability))
}
