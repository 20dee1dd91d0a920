//! The processes that hold it.

use super::super::families::process_labels;
use super::{Group, Kind, Label, Metric, Unit};
use crate::sample::{Cause, ProcessState};

const PID: Label = Label::open("pid", "process id in the namespace of `--path.procfs`, or `other`");
const PROCESS: Label =
    Label::open("process", "`/proc/PID/comm`, bytes that are not UTF-8 as `\\xNN`, or `other`");

pub(super) const GROUP: Group = Group {
    title: "Per process",
    about: "Of the newest complete sample. A process appears when its TCP memory reaches `--process.min-memory` or it \
            has a finding, and stays until it has been well below for a while; at most `--process.max` of them, \
            largest first. All others are the row `pid=\"other\",process=\"other\"`, so that every metric still sums \
            to the host. A socket held by several processes counts once, for its oldest holder.",
    metrics: &[
        Metric {
            name: "skmem_process_tcp_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[PID, PROCESS],
            help: "rmem_alloc plus wmem_queued plus fwd_alloc of SKMEMINFO in sock_diag, summed over the sockets in \
                   /proc/PID/fd and the connections waiting in its listeners' accept queues; sampled on the daemon's \
                   own interval",
            read: |exposed, out| out.each_process(exposed, |row| Some(row.sums.memory)),
        },
        Metric {
            name: "skmem_process_tcp_receive_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[PID, PROCESS],
            help: "rmem_alloc of SKMEMINFO in sock_diag, summed over its sockets: what received data occupies, \
                   overhead and out-of-order data included",
            read: |exposed, out| out.each_process(exposed, |row| Some(row.sums.receive_memory)),
        },
        Metric {
            name: "skmem_process_tcp_send_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[PID, PROCESS],
            help: "wmem_queued of SKMEMINFO in sock_diag, summed over its sockets: what data to send occupies until \
                   it is acknowledged, overhead included",
            read: |exposed, out| out.each_process(exposed, |row| Some(row.sums.send_memory)),
        },
        Metric {
            name: "skmem_process_tcp_receive_queue_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[PID, PROCESS],
            help: "idiag_rqueue of sock_diag, summed over its sockets, listeners left out: data received in order \
                   and not read; an unread end of stream counts 1",
            read: |exposed, out| out.each_process(exposed, |row| Some(row.sums.receive_queue)),
        },
        Metric {
            name: "skmem_process_tcp_send_queue_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[PID, PROCESS],
            help: "idiag_wqueue of sock_diag, summed over its sockets, listeners left out: data written and not \
                   acknowledged",
            read: |exposed, out| out.each_process(exposed, |row| Some(row.sums.send_queue)),
        },
        Metric {
            name: "skmem_process_tcp_receive_queue_max_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[PID, PROCESS],
            help: "idiag_rqueue of sock_diag, of its socket with the most unread data, listeners left out",
            read: |exposed, out| out.each_process(exposed, |row| Some(row.sums.receive_queue_max)),
        },
        Metric {
            name: "skmem_process_tcp_sockets",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[
                PID,
                PROCESS,
                Label::closed("state", || ProcessState::ALL.map(ProcessState::label).to_vec()),
            ],
            help: "Its sockets by idiag_state of sock_diag, connections waiting in its accept queues included",
            read: |exposed, out| {
                for row in exposed.sample.iter().flat_map(|sample| &sample.processes) {
                    for (state, count) in ProcessState::ALL.into_iter().zip(row.sums.sockets) {
                        let [pid, process] = process_labels(&row.name);
                        out.push([pid, process, state.label().into()], count);
                    }
                }
            },
        },
        Metric {
            name: "skmem_process_tcp_accept_queue_connections",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[PID, PROCESS],
            help: "Sockets of sock_diag without an inode that share address and port with one of its listeners: \
                   connections that it has not accepted yet",
            read: |exposed, out| out.each_process(exposed, |row| Some(row.sums.accept_queue_connections)),
        },
        Metric {
            name: "skmem_process_tcp_accept_queue_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[PID, PROCESS],
            help: "rmem_alloc plus wmem_queued plus fwd_alloc of SKMEMINFO in sock_diag, summed over the connections \
                   that it has not accepted yet; part of its TCP memory",
            read: |exposed, out| out.each_process(exposed, |row| Some(row.sums.accept_queue_memory)),
        },
        Metric {
            name: "skmem_process_resident_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[PID, PROCESS],
            help: "resident of /proc/PID/statm times the page size: what the process itself occupies, which its \
                   sockets' memory is no part of",
            read: |exposed, out| out.each_process(exposed, |row| row.resident_memory),
        },
        Metric {
            name: "skmem_process_tcp_memory_by_cause_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[PID, PROCESS, Label::closed("cause", || Cause::ALL.map(Cause::label).to_vec())],
            help: "The same memory split by why it is held, judged from successive samples of sock_diag and, for sockets \
                   that held something for longer than one, from tcp_info; docs/causes.md has the rules",
            read: |exposed, out| {
                for row in exposed.sample.iter().flat_map(|sample| &sample.processes) {
                    for (cause, sums) in Cause::ALL.into_iter().zip(row.sums.by_cause) {
                        let [pid, process] = process_labels(&row.name);
                        out.push([pid, process, cause.label().into()], sums.memory);
                    }
                }
            },
        },
        Metric {
            name: "skmem_process_tcp_stall_start_timestamp_seconds",
            kind: Kind::Gauge,
            unit: Unit::Seconds,
            labels: &[PID, PROCESS],
            help: "Since when its oldest stalled socket has not moved, as seen in successive samples of sock_diag and \
                   tcp_info, seconds since the epoch; absent without a stalled socket",
            read: |exposed, out| out.each_process(exposed, |row| row.stall_start),
        },
        Metric {
            name: "skmem_process_info",
            kind: Kind::Info,
            unit: Unit::None,
            labels: &[
                PID,
                PROCESS,
                Label::open("exe", "target of `/proc/PID/exe`; empty if it may not be read"),
                Label::open("cgroup", "cgroup2 path, or the memory controller's where there is no cgroup2"),
                Label::open("systemd_unit", "systemd unit in that path, or empty"),
                Label::open("container_id", "64 hex digits in that path, or empty"),
                Label::open("pod_uid", "Kubernetes pod uid in that path, or empty"),
            ],
            help: "/proc/PID/exe and /proc/PID/cgroup, what to join the other metrics of a process on; always 1",
            read: |exposed, out| {
                for row in exposed.sample.iter().flat_map(|sample| &sample.processes) {
                    let Some(info) = &row.info else { continue };
                    let [pid, process] = process_labels(&row.name);
                    let [exe, cgroup, unit, container, pod] =
                        [&info.exe, &info.cgroup, &info.systemd_unit, &info.container_id, &info.pod_uid]
                            .map(|value| value.as_str().into());
                    out.push([pid, process, exe, cgroup, unit, container, pod], 1_u64);
                }
            },
        },
    ],
};
