//! The host, as the kernel counts it.

use super::{Choice, Group, Kind, Label, Metric, Unit};
use crate::sample::{BufferLevels, DropReason, MemoryLevels, TcpState, ZERO_WINDOW_DIRECTIONS};

/// `net.ipv4.tcp_mem`.
const MEMORY_LEVELS: [Choice<MemoryLevels>; 3] =
    [("min", |levels| levels.min), ("pressure", |levels| levels.pressure), ("max", |levels| levels.max)];

/// `net.ipv4.tcp_rmem` and `tcp_wmem`.
const BUFFER_LEVELS: [Choice<BufferLevels>; 3] =
    [("min", |levels| levels.min), ("default", |levels| levels.default), ("max", |levels| levels.max)];

const BUFFER_LEVEL_LABEL: Label =
    Label::closed("level", || BUFFER_LEVELS.iter().map(|(value, _)| *value).collect());

pub(super) const GROUP: Group = Group {
    title: "The host, as the kernel counts it",
    about: "Of the newest attempt, whether or not the sockets could be read as well.",
    metrics: &[
        Metric {
            name: "skmem_tcp_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[],
            help: "TCP mem of /proc/net/sockstat times the page size: memory of all TCP sockets of the host, \
                   whatever their namespace, sampled on the daemon's own interval",
            read: |exposed, out| out.one(exposed.host.tcp_memory),
        },
        Metric {
            name: "skmem_tcp_memory_limit_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[Label::closed("level", || MEMORY_LEVELS.iter().map(|(value, _)| *value).collect())],
            help: "/proc/sys/net/ipv4/tcp_mem times the page size: below min the kernel leaves memory pressure, \
                   above pressure it enters it, above max it refuses memory; only the initial network namespace has \
                   the file",
            read: |exposed, out| {
                if let Some(levels) = &exposed.host.tcp_memory_limit {
                    out.each(MEMORY_LEVELS.map(|(value, figure)| (value, figure(levels))));
                }
            },
        },
        Metric {
            name: "skmem_tcp_memory_pressure",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "press of the TCP row in /proc/net/protocols: 1 while the kernel is in TCP memory pressure, \
                   host-wide, as found when the sample was taken",
            read: |exposed, out| out.one(exposed.host.memory_pressure),
        },
        Metric {
            name: "skmem_tcp_sockets_allocated",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "TCP alloc of /proc/net/sockstat: TCP sockets of the host that the kernel has not freed, closed and \
                   unbound ones included, TIME_WAIT not",
            read: |exposed, out| out.one(exposed.host.sockets_allocated),
        },
        Metric {
            name: "skmem_tcp_orphan_sockets",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "TCP orphan of /proc/net/sockstat: sockets of the host that their application has closed and the \
                   kernel has not finished yet",
            read: |exposed, out| out.one(exposed.host.orphan_sockets),
        },
        Metric {
            name: "skmem_tcp_orphan_sockets_limit",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "/proc/sys/net/ipv4/tcp_max_orphans: orphans beyond it are reset; only the initial network \
                   namespace has the file",
            read: |exposed, out| out.one(exposed.host.orphan_sockets_limit),
        },
        Metric {
            name: "skmem_tcp_sockets",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[Label::closed("state", || TcpState::ALL.map(TcpState::label).to_vec())],
            help: "Sockets by state in all sampled network namespaces, from sock_diag; time_wait is TCP tw of \
                   /proc/net/sockstat",
            read: |exposed, out| {
                let Some(sample) = &exposed.sample else { return };
                for state in TcpState::ALL {
                    let count = match state {
                        TcpState::TimeWait => exposed.host.time_wait_sockets,
                        _ => Some(sample.states[state.index()]),
                    };
                    out.each(count.map(|count| (state.label(), count)));
                }
            },
        },
        Metric {
            name: "skmem_tcp_hidden_sockets",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "TCP alloc of /proc/net/sockstat minus inuse of every network namespace's sockstat and sockstat6 and \
                   minus the bound sockets that sock_diag shows: sockets in none of its tables, such as those reset with \
                   unread data and not closed",
            read: |exposed, out| out.one(exposed.host.hidden_sockets),
        },
        Metric {
            name: "skmem_tcp_segments_received_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[],
            help: "Tcp InSegs of /proc/net/snmp, summed over network namespaces; segments merged by GRO count once",
            read: |exposed, out| out.one(exposed.host.segments.map(|segments| segments.received)),
        },
        Metric {
            name: "skmem_tcp_segments_sent_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[],
            help: "Tcp OutSegs of /proc/net/snmp, summed over network namespaces; every segment of a GSO packet \
                   counts",
            read: |exposed, out| out.one(exposed.host.segments.map(|segments| segments.sent)),
        },
        Metric {
            name: "skmem_tcp_segments_retransmitted_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[],
            help: "Tcp RetransSegs of /proc/net/snmp, summed over network namespaces",
            read: |exposed, out| out.one(exposed.host.segments.map(|segments| segments.retransmitted)),
        },
        Metric {
            name: "skmem_tcp_receive_drops_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[Label::closed("reason", || {
                DropReason::ALL.iter().map(|(reason, _)| reason.label()).collect()
            })],
            help: "Received segments thrown away: TcpExt RcvPruned, OfoPruned, TCPRcvQDrop, TCPBacklogDrop and \
                   TCPZeroWindowDrop of /proc/net/netstat, summed over network namespaces",
            read: |exposed, out| {
                if let Some(counters) = &exposed.host.memory_counters {
                    let reasons = DropReason::ALL.map(|(reason, _)| reason.label());
                    out.each(reasons.into_iter().zip(counters.receive_drops));
                }
            },
        },
        Metric {
            name: "skmem_tcp_receive_prunes_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[],
            help: "TcpExt PruneCalled of /proc/net/netstat, summed over network namespaces: a receive buffer was \
                   full and the kernel made room, which alone loses nothing",
            read: |exposed, out| {
                out.one(exposed.host.memory_counters.map(|counters| counters.receive_prunes));
            },
        },
        Metric {
            name: "skmem_tcp_receive_collapses_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[],
            help: "TcpExt TCPRcvCollapsed of /proc/net/netstat, summed over network namespaces: received buffers \
                   copied together to save memory",
            read: |exposed, out| {
                out.one(exposed.host.memory_counters.map(|counters| counters.receive_collapses));
            },
        },
        Metric {
            name: "skmem_tcp_memory_pressure_entries_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[],
            help: "TcpExt TCPMemoryPressures of /proc/net/netstat, summed over network namespaces: times the kernel \
                   entered TCP memory pressure",
            read: |exposed, out| {
                out.one(exposed.host.memory_counters.map(|counters| counters.pressure_entries));
            },
        },
        Metric {
            name: "skmem_tcp_memory_pressure_seconds_total",
            kind: Kind::Counter,
            unit: Unit::Seconds,
            labels: &[],
            help: "TcpExt TCPMemoryPressuresChrono of /proc/net/netstat, summed over network namespaces: time in TCP \
                   memory pressure, which the kernel adds only when it leaves it",
            read: |exposed, out| {
                let counters = exposed.host.memory_counters;
                // Exact to the millisecond for some 285,000 years of pressure.
                out.one(counters.map(|counters| counters.pressure_milliseconds as f64 / 1000.0));
            },
        },
        Metric {
            name: "skmem_tcp_aborts_on_memory_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[],
            help: "TcpExt TCPAbortOnMemory of /proc/net/netstat, summed over network namespaces: closed connections \
                   reset because TCP memory or the number of orphans was beyond its limit",
            read: |exposed, out| {
                out.one(exposed.host.memory_counters.map(|counters| counters.aborts_on_memory));
            },
        },
        Metric {
            name: "skmem_tcp_zero_window_transitions_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[Label::closed("direction", || {
                ZERO_WINDOW_DIRECTIONS.iter().map(|(value, _)| *value).collect()
            })],
            help: "TcpExt TCPToZeroWindowAdv, TCPFromZeroWindowAdv and TCPWantZeroWindowAdv of /proc/net/netstat, \
                   summed over network namespaces: own receive windows closed, reopened, and kept open \
                   without room only because the peer had been promised it",
            read: |exposed, out| {
                if let Some(counters) = &exposed.host.memory_counters {
                    let directions = ZERO_WINDOW_DIRECTIONS.map(|(value, _)| value);
                    out.each(directions.into_iter().zip(counters.zero_window));
                }
            },
        },
        Metric {
            name: "skmem_tcp_listen_overflows_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[],
            help: "TcpExt ListenOverflows of /proc/net/netstat, summed over network namespaces: connections dropped \
                   because an accept queue was full",
            read: |exposed, out| {
                out.one(exposed.host.memory_counters.map(|counters| counters.listen_overflows));
            },
        },
        Metric {
            name: "skmem_tcp_listen_drops_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[],
            help: "TcpExt ListenDrops of /proc/net/netstat, summed over network namespaces: connections dropped by a \
                   listener for whatever reason, ListenOverflows included",
            read: |exposed, out| out.one(exposed.host.memory_counters.map(|counters| counters.listen_drops)),
        },
        Metric {
            name: "skmem_tcp_receive_buffer_limit_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[BUFFER_LEVEL_LABEL],
            help: "/proc/sys/net/ipv4/tcp_rmem of the exporter's own network namespace: the receive buffer a socket \
                   always has, starts with, and can grow to",
            read: |exposed, out| {
                if let Some(levels) = &exposed.host.receive_buffer_limit {
                    out.each(BUFFER_LEVELS.map(|(value, figure)| (value, figure(levels))));
                }
            },
        },
        Metric {
            name: "skmem_tcp_send_buffer_limit_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[BUFFER_LEVEL_LABEL],
            help: "/proc/sys/net/ipv4/tcp_wmem of the exporter's own network namespace: the send buffer a socket \
                   always has, starts with, and can grow to",
            read: |exposed, out| {
                if let Some(levels) = &exposed.host.send_buffer_limit {
                    out.each(BUFFER_LEVELS.map(|(value, figure)| (value, figure(levels))));
                }
            },
        },
        Metric {
            name: "skmem_tcp_window_scaling_enabled",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "/proc/sys/net/ipv4/tcp_window_scaling of the exporter's own network namespace: 1 if windows may \
                   exceed 64 KiB",
            read: |exposed, out| out.one(exposed.host.window_scaling),
        },
        Metric {
            name: "skmem_tcp_receive_autotuning_enabled",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "/proc/sys/net/ipv4/tcp_moderate_rcvbuf of the exporter's own network namespace: 1 if receive \
                   buffers grow by themselves",
            read: |exposed, out| out.one(exposed.host.receive_autotuning),
        },
    ],
};
