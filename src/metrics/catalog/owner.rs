//! Who owns it: the classes of owners, and the cgroups.

use super::{Group, Kind, Label, Metric, Unit};
use crate::sample::{FindingKind, OwnerClass};

pub(super) const GROUP: Group = Group {
    title: "Who owns it",
    about: "Of the newest complete sample. Absent before the first.",
    metrics: &[
        Metric {
            name: "skmem_tcp_attributed_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[Label::closed("owner", || OwnerClass::ALL.map(OwnerClass::label).to_vec())],
            help: "rmem_alloc plus wmem_queued plus fwd_alloc of SKMEMINFO in sock_diag, summed over the sockets of \
                   each class of owners; every socket is in exactly one class; sampled on the daemon's own interval",
            read: |exposed, out| {
                if let Some(sample) = &exposed.sample {
                    out.each(OwnerClass::ALL.map(OwnerClass::label).into_iter().zip(sample.attributed));
                }
            },
        },
        Metric {
            name: "skmem_tcp_unattributed_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[],
            help: "TCP mem of /proc/net/sockstat times the page size, minus the memory of all sockets that sock_diag \
                   showed; below zero where the kernel has not added up its CPUs' shares yet",
            read: |exposed, out| out.one(exposed.sample.as_ref().and_then(|sample| sample.unattributed)),
        },
        Metric {
            name: "skmem_tcp_unattributed_memory_bound_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[],
            help: "/proc/sys/net/core/mem_pcpu_rsv times the page size times the CPUs: how far from zero unattributed \
                   memory may be only because each CPU keeps its share of TCP mem to itself",
            read: |exposed, out| {
                out.one(exposed.sample.as_ref().and_then(|sample| sample.unattributed_bound));
            },
        },
        Metric {
            name: "skmem_findings",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[Label::closed("finding", || FindingKind::ALL.map(FindingKind::label).to_vec())],
            help: "What is wrong, by kind, judged from successive samples of sock_diag, tcp_info and /proc: as many as \
                   /api/v1/report tells of",
            read: |exposed, out| {
                if let Some(findings) = exposed.findings {
                    out.each(FindingKind::ALL.map(FindingKind::label).into_iter().zip(findings));
                }
            },
        },
    ],
};

const CGROUP: Label = Label::open("cgroup", "path below the cgroup2 mount, or `other`");

pub(super) const CGROUP_GROUP: Group = Group {
    title: "Per cgroup",
    about: "Of the newest complete sample; largest first, chosen as processes are, and all others are the row \
            `cgroup=\"other\"`. Absent where no cgroup2 is mounted.",
    metrics: &[
        Metric {
            name: "skmem_cgroup_tcp_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[CGROUP],
            help: "rmem_alloc plus wmem_queued plus fwd_alloc of SKMEMINFO in sock_diag, summed over the sockets whose \
                   INET_DIAG_CGROUP_ID is this cgroup: the one they were created in, for accepted ones their \
                   listener's",
            read: |exposed, out| out.each_cgroup(exposed, |row| Some(row.memory)),
        },
        Metric {
            name: "skmem_cgroup_tcp_receive_queue_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[CGROUP],
            help: "idiag_rqueue of sock_diag, summed over the sockets whose INET_DIAG_CGROUP_ID is this cgroup: data \
                   received and not read, listeners left out",
            read: |exposed, out| out.each_cgroup(exposed, |row| Some(row.receive_queue)),
        },
        Metric {
            name: "skmem_cgroup_sock_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[CGROUP],
            help: "sock of memory.stat, where the memory controller is on cgroup2: socket buffers charged to this \
                   cgroup and its descendants, every protocol's",
            read: |exposed, out| out.each_cgroup(exposed, |row| row.sock_memory),
        },
    ],
};
