//! The exporter's own process, always from the real `/proc`: `--path.procfs` may be another host's.

use procfs::process::{LimitValue, Process};
use procfs::{Current, ProcResult, Uptime, WithCurrentSystemInfo};

use crate::sample::{Capability, SelfFigures};

/// Bits of `CapEff` (`include/uapi/linux/capability.h`), in the order of [`Capability::ALL`].
const CAPABILITY_BITS: [u32; Capability::ALL.len()] = [2, 19, 21];

/// CPU, memory and descriptors of this process; `None` where `/proc/self` does not say.
pub fn figures() -> Option<SelfFigures> {
    read().ok()
}

fn read() -> ProcResult<SelfFigures> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second();
    let limits = process.limits()?;
    let max_fds = match limits.max_open_files.soft_limit {
        LimitValue::Value(value) => value,
        LimitValue::Unlimited => u64::MAX,
    };
    let age = Uptime::current()?.uptime - stat.starttime as f64 / ticks as f64;
    Ok(SelfFigures {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks as f64,
        resident_memory: stat.rss_bytes().get(),
        virtual_memory: stat.vsize,
        open_fds: process.fd_count()? as u64,
        max_fds,
        start_time: super::unix_seconds(std::time::SystemTime::now()) - age,
    })
}

/// Effective capabilities of this process.
pub fn capabilities() -> [bool; Capability::ALL.len()] {
    let effective = Process::myself().and_then(|process| process.status()).map_or(0, |status| status.capeff);
    CAPABILITY_BITS.map(|bit| effective & 1 << bit != 0)
}
