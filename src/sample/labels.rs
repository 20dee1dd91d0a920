//! Closed sets: every value of them is a label value, present from the start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TCP states as the kernel numbers them (`include/net/tcp_states.h`), plus the ones sock_diag tells apart.
///
/// `TIME_WAIT` is here because sockstat counts it; no sample ever asks sock_diag for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
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

/// Label values and `TcpExt` fields of `skmem_tcp_zero_window_transitions_total`.
pub const ZERO_WINDOW_DIRECTIONS: [(&str, &str); 3] =
    [("to", "TCPToZeroWindowAdv"), ("from", "TCPFromZeroWindowAdv"), ("want", "TCPWantZeroWindowAdv")];

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

/// Why a process's TCP memory is held; label values of the memory by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Cause {
    /// Unread payload, and the application takes none of it.
    NotReading,
    /// The application reads, and the queue is never empty: its buffer or window is the limit.
    SlowReading,
    /// Nobody accepts the connection.
    AcceptQueue,
    /// The peer has closed, the application has not, and does nothing.
    CloseWait,
    /// Half closed by shutdown(), with data that nobody reads.
    HalfClosed,
    /// Segments behind a hole.
    OutOfOrder,
    /// Payload in tiny segments: the buffers are a multiple of it.
    SmallSegments,
    /// Our data, against the peer's closed window.
    PeerNotReading,
    /// Our data, which nothing acknowledges.
    PathStalled,
    /// Everything else: data on its way.
    Active,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 10] = [
        Self::NotReading,
        Self::SlowReading,
        Self::AcceptQueue,
        Self::CloseWait,
        Self::HalfClosed,
        Self::OutOfOrder,
        Self::SmallSegments,
        Self::PeerNotReading,
        Self::PathStalled,
        Self::Active,
    ];

    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotReading => "not_reading",
            Self::SlowReading => "slow_reading",
            Self::AcceptQueue => "accept_queue",
            Self::CloseWait => "close_wait",
            Self::HalfClosed => "half_closed",
            Self::OutOfOrder => "out_of_order",
            Self::SmallSegments => "small_segments",
            Self::PeerNotReading => "peer_not_reading",
            Self::PathStalled => "path_stalled",
            Self::Active => "active",
        }
    }
}

/// Why the web server turned somebody away; label values of `skmem_exporter_http_refused_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// A scrape beyond `--web.max-requests`: it, or one of the peer that had most, in its place.
    OverMaxRequests,
    /// A connection beyond the most that are kept open: it, or one of the peer that had most, in its place.
    OverMaxConnections,
    /// Headers that did not come in time, or no request at all.
    HeaderTimeout,
    /// Headers beyond their size or number.
    HeaderTooLarge,
    /// An answer that was not read in time.
    ResponseTimeout,
    /// A TLS handshake that failed: no TLS at all, no common version, a client certificate we do not take, or a web
    /// configuration file that cannot be used.
    TlsHandshake,
    /// Not the right user and password.
    Unauthorized,
    /// A login beyond those that may wait to be checked.
    OverWaitingLogins,
    /// Beyond `rate_limit` of the web configuration file.
    RateLimited,
    /// Answered with 500 because the web configuration file cannot be used.
    BadWebConfig,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::OverMaxRequests,
        Self::OverMaxConnections,
        Self::HeaderTimeout,
        Self::HeaderTooLarge,
        Self::ResponseTimeout,
        Self::TlsHandshake,
        Self::Unauthorized,
        Self::OverWaitingLogins,
        Self::RateLimited,
        Self::BadWebConfig,
    ];

    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::OverMaxRequests => "over_max_requests",
            Self::OverMaxConnections => "over_max_connections",
            Self::HeaderTimeout => "header_timeout",
            Self::HeaderTooLarge => "header_too_large",
            Self::ResponseTimeout => "response_timeout",
            Self::TlsHandshake => "tls_handshake",
            Self::Unauthorized => "unauthorized",
            Self::OverWaitingLogins => "over_waiting_logins",
            Self::RateLimited => "rate_limited",
            Self::BadWebConfig => "bad_web_config",
        }
    }
}
