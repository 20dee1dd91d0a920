//! Plain data of one sample: what the kernel said, added up per owner. No I/O, no clock, no metric names.
//!
//! Three layers meet here. The `kernel` room reads and produces these types, `account` and `select` fill and
//! trim them, and `metrics` renders them. All byte counts are bytes (never pages), all times seconds.

mod connection;
mod finding_kind;
mod labels;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::predicament::Activity;

pub use connection::*;
pub use finding_kind::*;
pub use labels::*;

/// `net.ipv4.tcp_mem`, bytes. Also its three label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLevels {
    /// Below this the kernel leaves memory pressure.
    pub min: u64,
    /// Above this it enters memory pressure.
    pub pressure: u64,
    /// Above this it refuses new buffers.
    pub max: u64,
}

/// `net.ipv4.tcp_rmem` or `tcp_wmem`, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferLevels {
    /// Always granted, even under pressure.
    pub min: u64,
    /// A new socket's buffer.
    pub default: u64,
    /// How far autotuning may grow it.
    pub max: u64,
}

/// The `Tcp` row of `/proc/net/snmp`, summed over namespaces, monotonic while they come and go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SegmentCounters {
    /// `InSegs`
    pub received: u64,
    /// `OutSegs`
    pub sent: u64,
    /// `RetransSegs`
    pub retransmitted: u64,
}

/// The part of `TcpExt` (`/proc/net/netstat`) that tells of TCP memory, summed over namespaces, monotonic.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MemoryCounters {
    /// Segments thrown away, by [`DropReason`].
    pub receive_drops: [u64; DropReason::ALL.len()],
    /// `PruneCalled`
    pub receive_prunes: u64,
    /// `TCPRcvCollapsed`
    pub receive_collapses: u64,
    /// `TCPMemoryPressures`
    pub pressure_entries: u64,
    /// `TCPMemoryPressuresChrono`, which the kernel adds to only when it leaves pressure. Milliseconds.
    pub pressure_milliseconds: u64,
    /// `TCPAbortOnMemory`
    pub aborts_on_memory: u64,
    /// `TCPToZeroWindowAdv`, `TCPFromZeroWindowAdv`, `TCPWantZeroWindowAdv`: [`ZERO_WINDOW_DIRECTIONS`].
    pub zero_window: [u64; 3],
    /// `ListenOverflows`
    pub listen_overflows: u64,
    /// `ListenDrops` (overflows included)
    pub listen_drops: u64,
}

/// The host's own figures. `None` means: not readable here, and so absent from `/metrics`, never zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostFigures {
    /// sockstat `TCP: mem` times the page size: bytes, host-wide.
    pub tcp_memory: Option<u64>,
    /// `net.ipv4.tcp_mem` times the page size; readable in the initial network namespace only.
    pub tcp_memory_limit: Option<MemoryLevels>,
    /// `press` of the TCP row in `/proc/net/protocols`: the live state, host-wide.
    pub memory_pressure: Option<bool>,
    /// sockstat `TCP: alloc`, host-wide.
    pub sockets_allocated: Option<u64>,
    /// sockstat `TCP: orphan`, host-wide.
    pub orphan_sockets: Option<u64>,
    /// `net.ipv4.tcp_max_orphans`; readable in the initial network namespace only.
    pub orphan_sockets_limit: Option<u64>,
    /// sockstat `TCP: tw`, summed over namespaces.
    pub time_wait_sockets: Option<u64>,
    /// Allocated but in no table that sock_diag can show.
    pub hidden_sockets: Option<u64>,
    /// `/proc/net/snmp`
    pub segments: Option<SegmentCounters>,
    /// `/proc/net/netstat`
    pub memory_counters: Option<MemoryCounters>,
    /// `net.ipv4.tcp_rmem` of the exporter's own namespace.
    pub receive_buffer_limit: Option<BufferLevels>,
    /// `net.ipv4.tcp_wmem` of the exporter's own namespace.
    pub send_buffer_limit: Option<BufferLevels>,
    /// `net.ipv4.tcp_window_scaling` of the exporter's own namespace.
    pub window_scaling: Option<bool>,
    /// `net.ipv4.tcp_moderate_rcvbuf` of the exporter's own namespace.
    pub receive_autotuning: Option<bool>,
}

/// Who a process row speaks of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessName {
    /// One process.
    One {
        /// Its pid in the namespace of `--path.procfs`.
        pid: u32,
        /// `/proc/PID/comm`, bytes that are not UTF-8 written as `\xNN`.
        comm: String,
    },
    /// All processes without a row of their own.
    Other,
}

/// What to join a process row on; empty strings where a thing does not apply or may not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Target of `/proc/PID/exe`.
    pub exe: String,
    /// cgroup2 path, or the memory controller's path where there is no cgroup2.
    pub cgroup: String,
    /// systemd unit from that path.
    pub systemd_unit: String,
    /// 64 hex digits from that path.
    pub container_id: String,
    /// Kubernetes pod uid from that path, with dashes.
    pub pod_uid: String,
}

/// What a set of sockets holds; the unit of every sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketSums {
    /// rmem_alloc + wmem_queued + forward_alloc. Signed: forward_alloc may be below zero for a moment.
    pub memory: i64,
    /// rmem_alloc
    pub receive_memory: u64,
    /// wmem_queued
    pub send_memory: u64,
    /// Unread payload; never a listener's backlog.
    pub receive_queue: u64,
    /// Unacknowledged payload; never a listener's backlog limit.
    pub send_queue: u64,
    /// The fullest single receive queue.
    pub receive_queue_max: u64,
    /// Sockets by state.
    pub sockets: [u64; ProcessState::ALL.len()],
    /// Connections that wait in accept queues (also in `sockets`).
    pub accept_queue_connections: u64,
    /// What those hold (also in `memory`).
    pub accept_queue_memory: i64,
    /// By why memory is held, by position in [`Cause::ALL`]. Their `memory` sums to `memory`.
    pub by_cause: [CauseSums; Cause::ALL.len()],
}

/// What is held for one cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CauseSums {
    /// Bytes.
    pub memory: i64,
    /// Sockets that hold something for it. One may hold receive memory for one cause and send memory for another.
    pub sockets: u64,
    /// How long the one that has been stalled for longest has not moved; zero for what is active.
    pub stalled: Duration,
}

impl SocketSums {
    /// How long the socket that has been stalled for longest has not moved; zero where none is.
    pub fn stalled(&self) -> Duration {
        self.by_cause.iter().map(|sums| sums.stalled).max().unwrap_or_default()
    }
}

/// One process, or all without a row of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessRow {
    /// Who.
    pub name: ProcessName,
    /// Its sockets, accept-queue children of its listeners included.
    pub sums: SocketSums,
    /// Since when its oldest stalled socket has not moved, seconds since the epoch; absent where none is stalled.
    pub stall_start: Option<f64>,
    /// RSS from `/proc/PID/statm`, bytes; for [`ProcessName::Other`] absent.
    pub resident_memory: Option<u64>,
    /// Labels of `skmem_process_info`; absent for [`ProcessName::Other`].
    pub info: Option<ProcessInfo>,
    /// Its sockets that say most; empty for [`ProcessName::Other`].
    pub worst: Worst,
    /// What it is doing; read only where its sockets stand still.
    pub activity: Option<Activity>,
}

/// Sockets without a process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unowned {
    /// Closed by their applications.
    pub orphans: Worst,
    /// Held by no process we can see.
    pub unresolved: Worst,
    /// What those hold.
    pub unresolved_sums: SocketSums,
}

/// One cgroup2 cgroup, or all without a row of their own (`path` is then [`OTHER`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupRow {
    /// Path below the cgroup2 mount, `/` for its root.
    pub path: String,
    /// r + w + f of its sockets.
    pub memory: i64,
    /// Unread payload of its sockets.
    pub receive_queue: u64,
    /// `sock` of its memory.stat, where the memory controller is on cgroup2. Includes its descendants.
    pub sock_memory: Option<u64>,
}

/// Label value of the rows that stand for everything without a row of its own.
pub const OTHER: &str = "other";

/// The newest complete reading of every socket, with owners.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// When the sockets were read: seconds since the epoch.
    pub timestamp: f64,
    /// Whether every network namespace in sight was read, so that what is missing is nowhere.
    pub is_of_whole_host: bool,
    /// Sockets dumped, duplicates dropped.
    pub sockets: u64,
    /// Sockets by state; `TimeWait` stays 0 here, its number is [`HostFigures::time_wait_sockets`].
    pub states: [u64; TcpState::ALL.len()],
    /// r + w + f by [`OwnerClass`].
    pub attributed: [i64; OwnerClass::ALL.len()],
    /// Sockets by [`OwnerClass`].
    pub classes: [u64; OwnerClass::ALL.len()],
    /// The sockets that say most among those that nobody can be named for.
    pub unowned: Unowned,
    /// sockstat `mem` of this sample minus the sum of `attributed`.
    pub unattributed: Option<i64>,
    /// How far `unattributed` may be from zero by the kernel's per-CPU accounting alone.
    pub unattributed_bound: Option<u64>,
    /// Largest first, then [`ProcessName::Other`], which is always there.
    pub processes: Vec<ProcessRow>,
    /// Processes that reached the threshold and found no place within the limit.
    pub processes_truncated: u64,
    /// Largest first, then [`OTHER`]; empty where no cgroup2 is mounted.
    pub cgroups: Vec<CgroupRow>,
    /// Processes whose file descriptors we may not list.
    pub unreadable_processes: u64,
    /// Suspects that have held something for `--stall.after` and never answered: too many, locked, or refused.
    pub unasked: u64,
}

/// How long each [`Stage`] of the newest attempt took, by position in [`Stage::ALL`].
pub type StageDurations = [Duration; Stage::ALL.len()];

/// One source's state and history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceState {
    /// Whether the newest attempt read all of it.
    pub success: bool,
    /// Failures since start, by [`Reason`].
    pub errors: [u64; Reason::ALL.len()],
}

/// How many namespaces the newest attempt found and how it fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamespaceCounts {
    /// Read whole.
    pub sampled: u64,
    /// Found, but not readable.
    pub failed: u64,
}

/// How asking suspect sockets for tcp_info has ended since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SuspectCounts {
    /// They answered.
    pub answered: u64,
    /// They were gone before they were asked.
    pub vanished: u64,
    /// Somebody held their lock for too long.
    pub timed_out: u64,
    /// They were not asked: there were too many, or too many were locked.
    pub skipped: u64,
    /// The kernel refused.
    pub failed: u64,
}

impl SuspectCounts {
    /// Adds those of one more sample.
    pub fn add(&mut self, more: &Self) {
        self.answered += more.answered;
        self.vanished += more.vanished;
        self.timed_out += more.timed_out;
        self.skipped += more.skipped;
        self.failed += more.failed;
    }
}

/// The exporter's own process, from `/proc/self`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SelfFigures {
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// RSS, bytes.
    pub resident_memory: u64,
    /// Virtual memory, bytes.
    pub virtual_memory: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Soft limit on them.
    pub max_fds: u64,
    /// Start, seconds since the epoch.
    pub start_time: f64,
}

/// Something that cannot be seen on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlindSpot {
    /// What is not seen.
    pub what: String,
    /// What would help; null where nothing does.
    pub cure: Option<String>,
}

/// What the exporter says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExporterFigures {
    /// Stages of the newest attempt.
    pub stages: StageDurations,
    /// By position in [`Source::ALL`].
    pub sources: [SourceState; Source::ALL.len()],
    /// Ticks at which the sample before was still running.
    pub overruns: u64,
    /// Namespaces of the newest attempt.
    pub namespaces: NamespaceCounts,
    /// Effective capabilities, by position in [`Capability::ALL`].
    pub capabilities: [bool; Capability::ALL.len()],
    /// Suspects asked.
    pub suspects: SuspectCounts,
    /// What the web server turned away since start, by position in [`Refusal::ALL`].
    pub refusals: [u64; Refusal::ALL.len()],
    /// `None` where `/proc/self` cannot be read.
    pub process: Option<SelfFigures>,
}

/// Everything a scrape shows. Immutable once published; scrapes of one `Exposed` are identical.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposed {
    /// Host figures of the newest attempt.
    pub host: HostFigures,
    /// The newest complete sample; `None` before the first.
    pub sample: Option<std::sync::Arc<Sample>>,
    /// How many findings there are of each kind, by position in [`FindingKind::ALL`]; `None` before the first sample.
    pub findings: Option<[u64; FindingKind::ALL.len()]>,
    /// What the newest attempt could not read, and why.
    pub faults: Vec<BlindSpot>,
    /// The exporter itself.
    pub exporter: ExporterFigures,
}
