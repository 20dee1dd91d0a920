//! Host counters: `/proc/net` per namespace, sysctls of the exporter's own.

use super::error::Error;
use super::outcome::Outcomes;
use super::proc_root::ProcRoot;
use super::text::{self, Sockstat, Table};
use crate::monotonic::Monotonic;
use crate::sample::{
    BufferLevels, DropReason, HostFigures, MemoryCounters, MemoryLevels, Reason, SegmentCounters, Source,
    ZERO_WINDOW_DIRECTIONS,
};

/// `InSegs`, `OutSegs`, `RetransSegs`.
const SEGMENTS: usize = 3;
/// Receive drops, then the single counters of [`MemoryCounters`], then zero window transitions.
const MEMORY: usize = DropReason::ALL.len() + SINGLE.len() + ZERO_WINDOW_DIRECTIONS.len();
/// In the order that [`memory_counters`] takes them apart.
const SINGLE: [&str; 7] = [
    "PruneCalled",
    "TCPRcvCollapsed",
    "TCPMemoryPressures",
    "TCPMemoryPressuresChrono",
    "TCPAbortOnMemory",
    "ListenOverflows",
    "ListenDrops",
];

/// `mem_pcpu_rsv` (Linux 6.7 and later) is 256 pages of 4 KiB by default; before it was a sysctl the kernel had the
/// same figure built in: `SK_MEMORY_PCPU_RESERVE`, 1 MiB.
const PER_CPU_RESERVE_DEFAULT: u64 = 1 << 20;
/// The first kernel that keeps a part of tcp_memory_allocated per CPU; before it the counter is exact.
const PER_CPU_RESERVE_SINCE: (u32, u32) = (6, 0);

/// What one namespace's `/proc/net` says. `None`: not readable.
#[derive(Debug, Clone, Copy, Default)]
pub struct NamespaceFigures {
    /// `/proc/net/sockstat`
    pub sockstat: Option<Sockstat>,
    /// `TCP6: inuse` of `/proc/net/sockstat6`; 0 where IPv6 is off.
    pub inuse6: Option<u64>,
    segments: Option<[u64; SEGMENTS]>,
    memory: Option<[u64; MEMORY]>,
}

impl NamespaceFigures {
    /// Reads the files below `net`, such as `self/net`.
    pub fn read(root: &ProcRoot, net: &str, outcomes: &mut Outcomes) -> Self {
        let file = |name: &str| format!("{net}/{name}");
        let sockstat = root.parse(file("sockstat"), text::sockstat);
        let inuse6 = match root.parse(file("sockstat6"), text::sockstat6) {
            Err(error) if error.reason() == Reason::Missing => Ok(0),
            result => result,
        };
        Self {
            sockstat: outcomes.note(Source::Sockstat, sockstat),
            inuse6: outcomes.note(Source::Sockstat, inuse6),
            segments: outcomes.note(Source::Snmp, root.parse(file("snmp"), segments)),
            memory: outcomes.note(Source::Netstat, root.parse(file("netstat"), memory)),
        }
    }

    /// Hashed TCP sockets of the namespace, both families.
    pub fn inuse(&self) -> Option<u64> {
        Some(self.sockstat?.inuse + self.inuse6?)
    }
}

fn segments(text: &str) -> Result<[u64; SEGMENTS], String> {
    let table = Table::find(text, "Tcp")?;
    Ok([table.required("InSegs")?, table.required("OutSegs")?, table.required("RetransSegs")?])
}

fn memory(text: &str) -> Result<[u64; MEMORY], String> {
    let table = Table::find(text, "TcpExt")?;
    let drops = DropReason::ALL.iter().map(|(_, field)| *field);
    let zero_window = ZERO_WINDOW_DIRECTIONS.iter().map(|(_, field)| *field);
    let mut values = [0; MEMORY];
    for (value, field) in values.iter_mut().zip(drops.chain(SINGLE).chain(zero_window)) {
        *value = table.counter(field)?;
    }
    Ok(values)
}

fn memory_counters(values: [u64; MEMORY]) -> MemoryCounters {
    let mut values = values.into_iter();
    let mut next = || values.next().unwrap_or_default();
    MemoryCounters {
        receive_drops: std::array::from_fn(|_| next()),
        receive_prunes: next(),
        receive_collapses: next(),
        pressure_entries: next(),
        pressure_milliseconds: next(),
        aborts_on_memory: next(),
        listen_overflows: next(),
        listen_drops: next(),
        zero_window: std::array::from_fn(|_| next()),
    }
}

/// Host-wide sums over the namespaces of each sample.
#[derive(Debug, Default)]
pub struct HostCounters {
    segments: Monotonic<SEGMENTS>,
    memory: Monotonic<MEMORY>,
}

impl HostCounters {
    /// Takes in the readings of one sample by namespace inode and fills in the sums over namespaces. `exists` says
    /// which namespaces are still there, read or not.
    pub fn fill(
        &mut self,
        figures: &mut HostFigures,
        namespaces: &[(u64, NamespaceFigures)],
        exists: impl Fn(u64) -> bool,
    ) {
        for (inode, namespace) in namespaces {
            namespace.segments.inspect(|now| self.segments.update(*inode, *now));
            namespace.memory.inspect(|now| self.memory.update(*inode, *now));
        }
        self.segments.retain(&exists);
        self.memory.retain(&exists);
        if namespaces.iter().any(|(_, namespace)| namespace.segments.is_some()) {
            let [received, sent, retransmitted] = self.segments.total();
            figures.segments = Some(SegmentCounters { received, sent, retransmitted });
        }
        if namespaces.iter().any(|(_, namespace)| namespace.memory.is_some()) {
            figures.memory_counters = Some(memory_counters(self.memory.total()));
        }
        figures.time_wait_sockets =
            namespaces.iter().map(|(_, namespace)| Some(namespace.sockstat?.time_wait)).sum();
    }
}

/// Reads the sysctls of the exporter's own namespace and the memory pressure state.
pub fn host_figures(root: &ProcRoot, page_size: u64, outcomes: &mut Outcomes) -> HostFigures {
    let mut sysctl = Sysctls { root, outcomes };
    let receive_buffer_limit = sysctl.required("ipv4/tcp_rmem", buffer_levels);
    let send_buffer_limit = sysctl.required("ipv4/tcp_wmem", buffer_levels);
    let window_scaling = sysctl.required("ipv4/tcp_window_scaling", text::switch);
    let receive_autotuning = sysctl.required("ipv4/tcp_moderate_rcvbuf", text::switch);
    // These two exist in the initial namespace only.
    let tcp_memory_limit = sysctl.optional("ipv4/tcp_mem", |text| {
        let [min, pressure, max] = text::three_numbers(text)?.map(|pages| pages.saturating_mul(page_size));
        Ok(MemoryLevels { min, pressure, max })
    });
    let orphan_sockets_limit = sysctl.optional("ipv4/tcp_max_orphans", text::one_number);
    let pressure = root.parse("self/net/protocols", text::tcp_memory_pressure);
    HostFigures {
        tcp_memory_limit,
        memory_pressure: outcomes.note(Source::Protocols, pressure),
        orphan_sockets_limit,
        receive_buffer_limit,
        send_buffer_limit,
        window_scaling,
        receive_autotuning,
        ..HostFigures::default()
    }
}

/// Fills in what is host-wide in any namespace's sockstat.
pub fn fill_from_sockstat(figures: &mut HostFigures, sockstat: Sockstat, page_size: u64) {
    figures.tcp_memory = Some(sockstat.mem_pages.saturating_mul(page_size));
    figures.sockets_allocated = Some(sockstat.alloc);
    figures.orphan_sockets = Some(sockstat.orphan);
}

struct Sysctls<'a> {
    root: &'a ProcRoot,
    outcomes: &'a mut Outcomes,
}

impl Sysctls<'_> {
    fn required<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let result = self.root.parse(format!("sys/net/{name}"), parse);
        self.outcomes.note(Source::Sysctl, result)
    }

    /// One that not every kernel or namespace has.
    fn optional<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match self.root.parse(format!("sys/net/{name}"), parse) {
            Err(error) if error.reason() == Reason::Missing => None,
            result => self.outcomes.note(Source::Sysctl, result),
        }
    }
}

fn buffer_levels(text: &str) -> Result<BufferLevels, String> {
    let [min, default, max] = text::three_numbers(text)?;
    Ok(BufferLevels { min, default, max })
}

/// How far `tcp_memory_allocated` may be from the sum over sockets by the kernel's per-CPU accounting: each CPU keeps
/// back up to `mem_pcpu_rsv` pages in either direction (`sk_memory_allocated_add`). Bytes.
pub fn unattributed_bound(root: &ProcRoot, page_size: u64) -> Result<u64, Error> {
    let per_cpu = match root.parse("sys/net/core/mem_pcpu_rsv", text::one_number) {
        Ok(pages) => pages.saturating_mul(page_size),
        Err(error) if error.reason() == Reason::Missing => {
            let version = root.parse("sys/kernel/osrelease", |release| {
                text::kernel_version(release).ok_or_else(|| format!("no version in {release:?}"))
            })?;
            if version >= PER_CPU_RESERVE_SINCE { PER_CPU_RESERVE_DEFAULT } else { 0 }
        }
        Err(error) => return Err(error),
    };
    let cpus = root.parse("self/net/softnet_stat", text::online_cpus)?;
    Ok(per_cpu.saturating_mul(cpus))
}
