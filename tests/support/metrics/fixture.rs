//! Three hosts: one that has everything, one that tries to break the formats, and one not looked at yet.

use std::sync::Arc;
use std::time::Duration;

use skmem_exporter::sample::{
    BufferLevels, Cause, CauseSums, CgroupRow, ExporterFigures, Exposed, FindingKind, HostFigures,
    MemoryCounters, MemoryLevels, NamespaceCounts, OTHER, ProcessInfo, ProcessName, ProcessRow, Reason,
    Sample, SegmentCounters, SelfFigures, SocketSums, Source, SourceState, SuspectCounts, TcpState, Worst,
};

const COUNT: u32 = 12;

/// Names that processes gave themselves, as `ProcessName::One` spells them.
pub(crate) const HOSTILE: [&str; COUNT as usize] = [
    "q\"uote",
    "back\\slash",
    "new\nline",
    r"\xff\xfe",
    "} 1",
    "a\",b=\"c",
    "x\\",
    "# EOF",
    "tab\tcr\r",
    " ",
    "žluťoučký",
    "",
];

/// Hands out numbers that all differ, and remembers which.
#[derive(Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    const FIRST: u64 = 1001;

    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0 - 1
    }

    fn signed(&mut self) -> i64 {
        self.next().cast_signed()
    }

    fn seconds(&mut self) -> f64 {
        self.next() as f64
    }

    /// All that were handed out.
    pub(crate) fn all(&self) -> std::ops::Range<u64> {
        Self::FIRST..self.0
    }
}

/// Every figure there is, all different, so that each can be found again.
pub(crate) fn everything() -> (Exposed, Numbers) {
    let mut n = Numbers(Numbers::FIRST);
    let host = HostFigures {
        tcp_memory: Some(n.next()),
        tcp_memory_limit: Some(MemoryLevels { min: n.next(), pressure: n.next(), max: n.next() }),
        memory_pressure: Some(true),
        sockets_allocated: Some(n.next()),
        orphan_sockets: Some(n.next()),
        orphan_sockets_limit: Some(n.next()),
        time_wait_sockets: Some(n.next()),
        hidden_sockets: Some(n.next()),
        segments: Some(SegmentCounters { received: n.next(), sent: n.next(), retransmitted: n.next() }),
        memory_counters: Some(MemoryCounters {
            receive_drops: std::array::from_fn(|_| n.next()),
            receive_prunes: n.next(),
            receive_collapses: n.next(),
            pressure_entries: n.next(),
            pressure_milliseconds: n.next() * 1000,
            aborts_on_memory: n.next(),
            zero_window: std::array::from_fn(|_| n.next()),
            listen_overflows: n.next(),
            listen_drops: n.next(),
        }),
        receive_buffer_limit: Some(BufferLevels { min: n.next(), default: n.next(), max: n.next() }),
        send_buffer_limit: Some(BufferLevels { min: n.next(), default: n.next(), max: n.next() }),
        window_scaling: Some(true),
        receive_autotuning: Some(false),
    };
    let sample = Sample {
        timestamp: n.seconds(),
        sockets: n.next(),
        // sock_diag is never asked for TIME_WAIT.
        states: TcpState::ALL.map(|state| if state == TcpState::TimeWait { 0 } else { n.next() }),
        attributed: std::array::from_fn(|_| n.signed()),
        unattributed: Some(n.signed()),
        unattributed_bound: Some(n.next()),
        processes: vec![
            ProcessRow {
                name: ProcessName::One { pid: 1, comm: "systemd".into() },
                sums: distinct_sums(&mut n),
                stall_start: Some(n.seconds()),
                resident_memory: Some(n.next()),
                info: Some(ProcessInfo {
                    exe: "/usr/lib/systemd/systemd".into(),
                    cgroup: "/init.scope".into(),
                    systemd_unit: "init.scope".into(),
                    container_id: "0".repeat(64),
                    pod_uid: "00000000-0000-0000-0000-000000000000".into(),
                }),
                worst: Worst::default(),
                activity: None,
            },
            ProcessRow {
                name: ProcessName::Other,
                sums: distinct_sums(&mut n),
                stall_start: Some(n.seconds()),
                resident_memory: None,
                info: None,
                worst: Worst::default(),
                activity: None,
            },
        ],
        processes_truncated: n.next(),
        cgroups: ["/init.scope", OTHER]
            .map(|path| CgroupRow {
                path: path.into(),
                memory: n.signed(),
                receive_queue: n.next(),
                sock_memory: Some(n.next()),
            })
            .into(),
        unreadable_processes: n.next(),
        ..Sample::default()
    };
    let exporter = ExporterFigures {
        stages: std::array::from_fn(|_| Duration::from_secs(n.next())),
        sources: std::array::from_fn(|_| SourceState {
            success: true,
            errors: std::array::from_fn(|_| n.next()),
        }),
        overruns: n.next(),
        namespaces: NamespaceCounts { sampled: n.next(), failed: n.next() },
        capabilities: [true, false, true],
        suspects: SuspectCounts {
            answered: n.next(),
            vanished: n.next(),
            timed_out: n.next(),
            skipped: n.next(),
            failed: n.next(),
        },
        refusals: std::array::from_fn(|_| n.next()),
        process: Some(SelfFigures {
            cpu_seconds: n.seconds(),
            resident_memory: n.next(),
            virtual_memory: n.next(),
            open_fds: n.next(),
            max_fds: n.next(),
            start_time: n.seconds(),
        }),
    };
    let findings = Some(std::array::from_fn(|_| n.next()));
    (Exposed { host, sample: Some(Arc::new(sample)), findings, faults: Vec::new(), exporter }, n)
}

fn distinct_sums(n: &mut Numbers) -> SocketSums {
    SocketSums {
        memory: n.signed(),
        receive_memory: n.next(),
        send_memory: n.next(),
        receive_queue: n.next(),
        send_queue: n.next(),
        receive_queue_max: n.next(),
        sockets: std::array::from_fn(|_| n.next()),
        accept_queue_connections: n.next(),
        accept_queue_memory: n.signed(),
        by_cause: std::array::from_fn(|_| CauseSums { memory: n.signed(), ..CauseSums::default() }),
    }
}

/// A busy host in a container's view: hostile names, no limits to read, one source gone, sums that hold.
pub(crate) fn busy() -> Exposed {
    let mut processes: Vec<ProcessRow> = (0_u32..).zip(HOSTILE).map(|(i, comm)| busy_row(i, comm)).collect();
    processes.push(ProcessRow {
        name: ProcessName::Other,
        sums: SocketSums {
            memory: -4096,
            sockets: [2, 0, 0, 1, 0],
            by_cause: by_cause(-4096, 0),
            ..SocketSums::default()
        },
        stall_start: None,
        resident_memory: None,
        info: None,
        worst: Worst::default(),
        activity: None,
    });
    let all: i64 = processes.iter().map(|row| row.sums.memory).sum();
    let waiting: i64 = processes.iter().map(|row| row.sums.accept_queue_memory).sum();
    let attributed = [all - waiting, waiting, 3_862_528, 0];
    let unattributed = -450_560;
    let tcp_memory = attributed.iter().sum::<i64>() + unattributed;

    let sample = Sample {
        timestamp: 1_700_000_000.25,
        sockets: 5417,
        states: [4711, 0, 0, 120, 3, 0, 1, 570, 0, 12, 0],
        attributed,
        unattributed: Some(unattributed),
        unattributed_bound: Some(2 << 20),
        processes,
        processes_truncated: 4,
        cgroups: vec![
            CgroupRow {
                path: "/system.slice/we\"ird\\x2dunit.service".into(),
                memory: 41_943_040,
                receive_queue: 29_696,
                sock_memory: Some(42_000_384),
            },
            CgroupRow { path: "/".into(), memory: 0, receive_queue: 0, sock_memory: None },
            CgroupRow { path: OTHER.into(), memory: 8192, receive_queue: 1, sock_memory: None },
        ],
        unreadable_processes: 7,
        ..Sample::default()
    };
    let mut sources = [SourceState { success: true, errors: [0; Reason::ALL.len()] }; Source::ALL.len()];
    sources[Source::Owners as usize] = SourceState { success: false, errors: [9, 0, 0, 0, 1, 0] };
    Exposed {
        faults: Vec::new(),
        findings: Some(FindingKind::ALL.map(|kind| u64::from(kind == FindingKind::AcceptQueue))),
        host: HostFigures {
            tcp_memory: Some(tcp_memory.cast_unsigned()),
            tcp_memory_limit: None,
            memory_pressure: Some(false),
            sockets_allocated: Some(5519),
            orphan_sockets: Some(120),
            orphan_sockets_limit: None,
            time_wait_sockets: Some(88),
            hidden_sockets: Some(101),
            segments: Some(SegmentCounters { received: u64::MAX, sent: 36_241, retransmitted: 17 }),
            memory_counters: Some(MemoryCounters {
                receive_prunes: 2885,
                pressure_entries: 2,
                pressure_milliseconds: 61_417,
                zero_window: [71, 70, 4],
                ..MemoryCounters::default()
            }),
            receive_buffer_limit: Some(BufferLevels { min: 4096, default: 131_072, max: 33_554_432 }),
            send_buffer_limit: Some(BufferLevels { min: 4096, default: 16_384, max: 4_194_304 }),
            window_scaling: Some(true),
            receive_autotuning: None,
        },
        sample: Some(Arc::new(sample)),
        exporter: ExporterFigures {
            stages: [210, 1_800, 4_700, 0, 950, 8_000].map(Duration::from_micros),
            sources,
            overruns: 1,
            namespaces: NamespaceCounts { sampled: 3, failed: 1 },
            capabilities: [true, true, false],
            suspects: SuspectCounts { answered: 4711, timed_out: 3, ..SuspectCounts::default() },
            refusals: [0, 0, 3, 0, 0, 1, 0, 0, 0, 0],
            process: Some(SelfFigures {
                cpu_seconds: 12.34,
                resident_memory: 9_437_184,
                virtual_memory: 270_532_608,
                open_fds: 14,
                max_fds: 1_048_576,
                start_time: 1_699_990_000.5,
            }),
        },
    }
}

/// Memory of which what waits in accept queues is stalled there, and the rest on its way.
fn by_cause(active: i64, accept_queue: i64) -> [CauseSums; Cause::ALL.len()] {
    Cause::ALL.map(|cause| {
        let memory = match cause {
            Cause::AcceptQueue => accept_queue,
            Cause::Active => active,
            _ => 0,
        };
        CauseSums { memory, ..CauseSums::default() }
    })
}

fn busy_row(i: u32, comm: &str) -> ProcessRow {
    let size = u64::from(COUNT - i);
    let accept_queue_connections = size % 3;
    let accept_queue_memory = (accept_queue_connections * 53_248).cast_signed();
    ProcessRow {
        name: ProcessName::One { pid: 4_194_304 - i, comm: comm.to_owned() },
        sums: SocketSums {
            memory: (size * 4_194_304).cast_signed() + accept_queue_memory,
            receive_memory: size * 3_145_728 + accept_queue_connections * 51_664,
            send_memory: size * 1_048_576,
            receive_queue: size * 1_900_544,
            send_queue: size * 900_000,
            receive_queue_max: 1_900_544,
            sockets: [size * 10, size, 0, 1, 0],
            accept_queue_connections,
            accept_queue_memory,
            by_cause: by_cause((size * 4_194_304).cast_signed(), accept_queue_memory),
        },
        stall_start: i.is_multiple_of(2).then(|| 1_699_999_000.0 + f64::from(i)),
        resident_memory: (i % 4 != 3).then_some(u64::from(i + 1) << 20),
        info: Some(ProcessInfo {
            exe: format!("/opt/{comm}/bin (deleted)"),
            cgroup: format!("/system.slice/{comm}.service"),
            systemd_unit: format!("{comm}.service"),
            container_id: String::new(),
            pod_uid: String::new(),
        }),
        worst: Worst::default(),
        activity: None,
    }
}

/// Just started, nothing read yet.
pub(crate) fn nothing() -> Exposed {
    Exposed::default()
}
