//! The exporter's own process, always from the real `/proc`: `--path.procfs` may be another host's.

use procfs::process::{LimitValue, Process};
use procfs::{CurrentSI, KernelStats, ProcResult, WithCurrentSystemInfo};

use crate::sample::{Capability, SelfFigures};

/// Bits of `CapEff` (`include/uapi/linux/capability.h`), in the order of [`Capability::ALL`].
const CAPABILITY_BITS: [u32; Capability::ALL.len()] = [2, 19, 21];

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

/// Effective capabilities of this process.
pub fn capabilities() -> [bool; Capability::ALL.len()] {
    let effective = Process::myself().and_then(|process| process.status()).map_or(0, |status| status.capeff);
    CAPABILITY_BITS.map(|bit| effective & 1 << bit != 0)
}
