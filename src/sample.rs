//! Plain data of one sample: what the kernel said, added up per owner. No I/O, no clock, no metric names.
//!
//! Three layers meet here. The `kernel` room reads and produces these types, `account` and `select` fill and
//! trim them, and `metrics` renders them. All byte counts are bytes (never pages), all times seconds.

use std::time::Duration;

/// TCP states as the kernel numbers them (`include/net/tcp_states.h`), plus the ones sock_diag tells apart.
///
/// `TIME_WAIT` is here because sockstat counts it; no sample ever asks sock_diag for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// Open connection.
    Established = 1,
    /// Active open under way.
    SynSent = 2,
    /// A full socket in `SYN_RECV` (TCP Fast Open). Half-open requests are minisocks without memory.
    SynRecv = 3,
    /// Closed by us, FIN not acknowledged yet.
    FinWait1 = 4,
    /// Closed by us, waiting for the peer's FIN.
    FinWait2 = 5,
    /// Minisocks, counted by sockstat `tw`.
    TimeWait = 6,
    /// Bound but not connected, or reset: shown only through `BOUND_INACTIVE` (Linux 6.8 and later).
    Close = 7,
    /// The peer has closed, the application has not.
    CloseWait = 8,
    /// Both closed, our FIN not acknowledged yet.
    LastAck = 9,
    /// Listener.
    Listen = 10,
    /// Both sides closed at once.
    Closing = 11,
}

impl TcpState {
    /// Every state, in the kernel's order: the label values of `skmem_tcp_sockets`.
    pub const ALL: [Self; 11] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
    ];

    /// The state with the kernel's number `raw`; `None` for a number no kernel we know of sends.
    pub fn from_kernel(raw: u8) -> Option<Self> {
        Self::ALL.get(usize::from(raw).checked_sub(1)?).copied()
    }

    /// Position in [`TcpState::ALL`].
    pub fn index(self) -> usize {
        self as usize - 1
    }

    /// Label value: the kernel's name in lower case.
    pub fn label(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::SynRecv => "syn_recv",
            Self::FinWait1 => "fin_wait1",
            Self::FinWait2 => "fin_wait2",
            Self::TimeWait => "time_wait",
            Self::Close => "close",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
        }
    }
}

/// The states a process row tells apart: the ones somebody acts on, and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ProcessState {
    /// `ESTABLISHED`
    Established,
    /// `CLOSE_WAIT`
    CloseWait,
    /// `FIN_WAIT2` with an inode: half closed by `shutdown()`.
    FinWait2,
    /// `LISTEN`
    Listen,
    /// Every other state.
    Other,
}

impl ProcessState {
    /// Every value, in the order of the rows.
    pub const ALL: [Self; 5] =
        [Self::Established, Self::CloseWait, Self::FinWait2, Self::Listen, Self::Other];

    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::CloseWait => "close_wait",
            Self::FinWait2 => "fin_wait2",
            Self::Listen => "listen",
            Self::Other => "other",
        }
    }
}

impl From<TcpState> for ProcessState {
    fn from(state: TcpState) -> Self {
        match state {
            TcpState::Established => Self::Established,
            TcpState::CloseWait => Self::CloseWait,
            TcpState::FinWait2 => Self::FinWait2,
            TcpState::Listen => Self::Listen,
            _ => Self::Other,
        }
    }
}

/// Who holds a socket's memory. The classes are disjoint and cover every socket of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OwnerClass {
    /// A file descriptor of a process we can see.
    Process,
    /// Waits in the accept queue of a listener whose process we can see.
    AcceptQueue,
    /// Closed by its application, not finished by the kernel.
    Orphan,
    /// None of these: no process we may look into holds it.
    Unresolved,
}

impl OwnerClass {
    /// Every class: the label values of `skmem_tcp_attributed_memory_bytes`.
    pub const ALL: [Self; 4] = [Self::Process, Self::AcceptQueue, Self::Orphan, Self::Unresolved];

    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::AcceptQueue => "accept_queue",
            Self::Orphan => "orphan",
            Self::Unresolved => "unresolved",
        }
    }
}

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

/// Why the kernel threw received segments away; label values of `skmem_tcp_receive_drops_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DropReason {
    /// `RcvPruned`: receive queue pruned, nothing left to free.
    RcvPruned,
    /// `OfoPruned`: the out-of-order queue was dropped.
    OfoPruned,
    /// `TCPRcvQDrop`: no memory for the receive queue.
    RcvqDrop,
    /// `TCPBacklogDrop`: the socket's backlog was full.
    BacklogDrop,
    /// `TCPZeroWindowDrop`: data against a closed window.
    ZeroWindowDrop,
}

impl DropReason {
    /// Every reason with its field in the `TcpExt` table of `/proc/net/netstat`.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::RcvPruned, "RcvPruned"),
        (Self::OfoPruned, "OfoPruned"),
        (Self::RcvqDrop, "TCPRcvQDrop"),
        (Self::BacklogDrop, "TCPBacklogDrop"),
        (Self::ZeroWindowDrop, "TCPZeroWindowDrop"),
    ];

    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::RcvPruned => "rcv_pruned",
            Self::OfoPruned => "ofo_pruned",
            Self::RcvqDrop => "rcvq_drop",
            Self::BacklogDrop => "backlog_drop",
            Self::ZeroWindowDrop => "zero_window_drop",
        }
    }
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

/// Label values and `TcpExt` fields of `skmem_tcp_zero_window_transitions_total`.
pub const ZERO_WINDOW_DIRECTIONS: [(&str, &str); 3] =
    [("to", "TCPToZeroWindowAdv"), ("from", "TCPFromZeroWindowAdv"), ("want", "TCPWantZeroWindowAdv")];

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
}

/// One process, or all without a row of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessRow {
    /// Who.
    pub name: ProcessName,
    /// Its sockets, accept-queue children of its listeners included.
    pub sums: SocketSums,
    /// RSS from `/proc/PID/statm`, bytes; for [`ProcessName::Other`] absent.
    pub resident_memory: Option<u64>,
    /// Labels of `skmem_process_info`; absent for [`ProcessName::Other`].
    pub info: Option<ProcessInfo>,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When the sockets were read: seconds since the epoch.
    pub timestamp: f64,
    /// Sockets dumped, duplicates dropped.
    pub sockets: u64,
    /// Sockets by state; `TimeWait` stays 0 here, its number is [`HostFigures::time_wait_sockets`].
    pub states: [u64; TcpState::ALL.len()],
    /// r + w + f by [`OwnerClass`].
    pub attributed: [i64; OwnerClass::ALL.len()],
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
}

/// Where a figure comes from; label values of `skmem_source_success`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Source {
    /// `/proc/net/sockstat` and `sockstat6`
    Sockstat,
    /// `/proc/net/snmp`
    Snmp,
    /// `/proc/net/netstat`
    Netstat,
    /// `/proc/net/protocols`
    Protocols,
    /// `/proc/sys/net`
    Sysctl,
    /// Finding and entering network namespaces.
    Namespaces,
    /// sock_diag netlink.
    SockDiag,
    /// `/proc/PID/fd`
    Owners,
    /// cgroup2 directories and memory.stat.
    Cgroups,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 9] = [
        Self::Sockstat,
        Self::Snmp,
        Self::Netstat,
        Self::Protocols,
        Self::Sysctl,
        Self::Namespaces,
        Self::SockDiag,
        Self::Owners,
        Self::Cgroups,
    ];

    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sockstat => "sockstat",
            Self::Snmp => "snmp",
            Self::Netstat => "netstat",
            Self::Protocols => "protocols",
            Self::Sysctl => "sysctl",
            Self::Namespaces => "namespaces",
            Self::SockDiag => "sock_diag",
            Self::Owners => "owners",
            Self::Cgroups => "cgroups",
        }
    }
}

/// Why a source failed, by what one can do about it; label values of `skmem_source_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// EACCES or EPERM: give the capability that the start line names.
    Denied,
    /// The file, or the protocol's diag module, is not there.
    Missing,
    /// It said something we cannot read: a new kernel, or a wrong `--path.procfs`.
    Malformed,
    /// It ended before it was complete: no NLMSG_DONE, or a cut datagram.
    Incomplete,
    /// The sample's deadline passed.
    Deadline,
    /// Any other error of the kernel.
    Failed,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Denied, Self::Missing, Self::Malformed, Self::Incomplete, Self::Deadline, Self::Failed];

    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Incomplete => "incomplete",
            Self::Deadline => "deadline",
            Self::Failed => "failed",
        }
    }
}

/// The parts of a sample that are timed; label values of `skmem_sample_duration_seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Host counters and sysctls.
    Host,
    /// Finding namespaces.
    Namespaces,
    /// sock_diag dumps, all namespaces.
    Sockets,
    /// Finding owners.
    Owners,
    /// Names, RSS and cgroups of the rows.
    Rows,
    /// The whole sample.
    Total,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 6] =
        [Self::Host, Self::Namespaces, Self::Sockets, Self::Owners, Self::Rows, Self::Total];

    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Namespaces => "namespaces",
            Self::Sockets => "sockets",
            Self::Owners => "owners",
            Self::Rows => "rows",
            Self::Total => "total",
        }
    }
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

/// A privilege that decides how much of the host the exporter sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// `CAP_DAC_READ_SEARCH`: list the file descriptors of other users' processes.
    DacReadSearch,
    /// `CAP_SYS_PTRACE`: resolve them, and find namespaces.
    SysPtrace,
    /// `CAP_SYS_ADMIN`: enter other network namespaces.
    SysAdmin,
}

impl Capability {
    /// Every capability that matters.
    pub const ALL: [Self; 3] = [Self::DacReadSearch, Self::SysPtrace, Self::SysAdmin];

    /// Label value: the kernel's name in lower case.
    pub fn label(self) -> &'static str {
        match self {
            Self::DacReadSearch => "cap_dac_read_search",
            Self::SysPtrace => "cap_sys_ptrace",
            Self::SysAdmin => "cap_sys_admin",
        }
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
    /// The exporter itself.
    pub exporter: ExporterFigures,
}
