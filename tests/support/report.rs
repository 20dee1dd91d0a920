//! A report with everything in it, as a host in trouble would have it.

use std::net::SocketAddr;
use std::time::Duration;

use skmem_exporter::finding::{Advice, Fact, Finding, Severity, Subject, Unit};
use skmem_exporter::predicament::{Activity, Predicament, ThreadGroup, ThreadState};
use skmem_exporter::report::{
    BufferSizes, CauseReport, Generator, HostReport, Levels, Mode, ProcessReport, Report, SCHEMA_VERSION,
    Watch,
};
use skmem_exporter::sample::{BlindSpot, Cause, Connection, FindingKind, ListenerQueue, TcpState};
use skmem_exporter::series::{Attribution, OwnerPoint, Point};
use skmem_exporter::tcp_info::TcpInfo;

/// When it was made.
pub const NOW: f64 = 1_795_389_600.25;
const MIB: i64 = 1 << 20;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A connection that has not been read for six minutes.
pub fn unread(index: u16) -> Connection {
    Connection {
        namespace: 4_026_531_840,
        local: Some(address("192.0.2.10:5432")),
        remote: Some(address(&format!("198.51.100.7:{}", 40_000 + index))),
        state: TcpState::Established,
        is_queued: false,
        memory_bytes: 6 * MIB - i64::from(index) * 4096,
        receive_memory_bytes: 6 << 20,
        send_memory_bytes: 0,
        receive_queue_bytes: 3_211_264,
        send_queue_bytes: 0,
        receive_buffer_bytes: 6_291_456,
        cause: Cause::NotReading,
        stalled: Duration::from_secs(372),
        tcp_info: Some(TcpInfo {
            receive_mss: 1448,
            receive_rtt_us: 1250,
            receive_window: Some(0),
            bytes_received: Some(73_400_320),
            ..TcpInfo::default()
        }),
    }
}

fn listener() -> ListenerQueue {
    ListenerQueue { namespace: 4_026_531_840, local: address("[::]:8443"), waiting: 129, limit: 128 }
}

/// What its threads do.
pub fn activity() -> Activity {
    Activity {
        state: ThreadState::Sleeping,
        threads_total: 18,
        threads_not_read: 1,
        threads: vec![
            ThreadGroup {
                state: ThreadState::Sleeping,
                wait_channel: "futex_wait_queue".to_owned(),
                count: 16,
            },
            ThreadGroup { state: ThreadState::Running, wait_channel: String::new(), count: 1 },
        ],
        interval_seconds: Some(15.0),
        still_seconds: Some(372.0),
        cpu_share: Some(0.004),
        open_fds: Some(212),
        fd_limit: Some(1024),
        throttled_share: Some(0.0),
        frozen: Some(false),
        ..Activity::default()
    }
}

fn cause(cause: Cause, memory_bytes: i64, sockets: u64, stalled_seconds: f64) -> CauseReport {
    CauseReport { cause, memory_bytes, sockets, stalled_seconds }
}

/// One process's row.
pub fn process(pid: u32, name: &str, memory_bytes: i64) -> ProcessReport {
    ProcessReport {
        pid: Some(pid),
        process: name.to_owned(),
        memory_bytes,
        receive_memory_bytes: memory_bytes.unsigned_abs(),
        send_memory_bytes: 0,
        receive_queue_bytes: memory_bytes.unsigned_abs() / 2,
        send_queue_bytes: 0,
        sockets: 12,
        accept_queue_connections: 0,
        resident_bytes: Some(48 << 20),
        stalled_since: None,
        causes: vec![cause(Cause::Active, memory_bytes, 12, 0.0)],
        cgroup: format!("/system.slice/{name}.service"),
        systemd_unit: format!("{name}.service"),
        container_id: String::new(),
        pod_uid: String::new(),
        activity: None,
        predicament: None,
        connections: Vec::new(),
        listeners: Vec::new(),
    }
}

fn culprit() -> ProcessReport {
    ProcessReport {
        receive_queue_bytes: 61 << 20,
        send_queue_bytes: 300 << 10,
        send_memory_bytes: 1 << 20,
        sockets: 149,
        accept_queue_connections: 129,
        resident_bytes: Some(11 << 20),
        stalled_since: Some(NOW - 372.0),
        causes: vec![
            cause(Cause::NotReading, 112 * MIB, 19, 372.0),
            cause(Cause::AcceptQueue, 9 * MIB, 129, 140.0),
            cause(Cause::Active, MIB, 1, 0.0),
        ],
        activity: Some(activity()),
        predicament: Some(Predicament::Deadlocked),
        connections: (0..10).map(unread).collect(),
        listeners: vec![listener()],
        ..process(4711, "report-writer", 122 * MIB)
    }
}

fn findings() -> Vec<Finding> {
    let advice = |text: &str, command: Option<&str>| Advice {
        text: text.to_owned(),
        command: command.map(str::to_owned),
    };
    let fact = |name: &str, value: f64, unit: Unit, text: &str| Fact {
        name: name.to_owned(),
        value,
        unit,
        text: text.to_owned(),
    };
    let culprit = Finding {
        kind: FindingKind::NotReading,
        severity: Severity::Critical,
        subject: Subject::Process { pid: 4711, process: "report-writer".to_owned() },
        memory_bytes: 112 * MIB,
        pinned_bytes: 0,
        sockets: 19,
        since: Some(NOW - 372.0),
        since_is_at_the_latest: false,
        summary:
            "report-writer (pid 4711) has not read from 19 connections for 6m 12s: all its threads wait for \
                  locks. They hold 112.0 MiB."
                .to_owned(),
        evidence: vec![
            fact("unread_bytes", 63_963_136.0, Unit::Bytes, "61.0 MiB of payload is unread"),
            fact("resident_bytes", 11_534_336.0, Unit::Bytes, "its RSS is 11.0 MiB, a tenth of that"),
            fact("threads", 18.0, Unit::Count, "16 of 18 threads wait in futex_wait_queue"),
        ],
        connections: (0..10).map(unread).collect(),
        listeners: Vec::new(),
        advice: vec![
            advice(
                "All its threads wait for locks; keep the stacks for its developers.",
                Some("gdb -p 4711 -batch -ex 'thread apply all bt'"),
            ),
            advice(
                "See the connections and what waits in them (Recv-Q).",
                Some("nsenter -t 4711 -n ss -tmnipOe | grep pid=4711,"),
            ),
            advice("If it does not go on: restart it.", Some("systemctl restart report-writer.service")),
        ],
    };
    let queue = Finding {
        kind: FindingKind::AcceptQueue,
        severity: Severity::Warning,
        subject: Subject::Listener {
            pid: 4711,
            process: "report-writer".to_owned(),
            address: listener().local,
        },
        memory_bytes: 9 * MIB,
        pinned_bytes: 0,
        sockets: 129,
        since: Some(NOW - 140.0),
        summary: "report-writer (pid 4711) does not accept the 129 connections that wait at [::]:8443."
            .to_owned(),
        evidence: vec![fact("waiting", 129.0, Unit::Count, "129 connections wait, the queue may hold 128")],
        connections: Vec::new(),
        listeners: vec![listener()],
        advice: vec![advice("Whoever waits there gives up sooner or later.", None)],
        ..culprit.clone()
    };
    let scaling = Finding {
        kind: FindingKind::WindowScalingOff,
        severity: Severity::Notice,
        subject: Subject::Host,
        memory_bytes: 0,
        pinned_bytes: 0,
        sockets: 0,
        since: None,
        summary: "Window scaling is off: no connection can have more than 64 KiB on its way.".to_owned(),
        evidence: Vec::new(),
        listeners: Vec::new(),
        advice: vec![advice("Turn it on.", Some("sysctl -w net.ipv4.tcp_window_scaling=1"))],
        ..queue.clone()
    };
    vec![culprit, queue, scaling]
}

/// An hour of samples in which the culprit grows; five minutes of them are missing.
pub fn history() -> Vec<Point> {
    let points = (0..=240).filter(|tick| !(100..120).contains(tick));
    points
        .map(|tick: i32| {
            let grown = i64::from((tick - 60).max(0)) * 122 * MIB / 180;
            let web = 22 * MIB + i64::from((tick % 40 - 20).abs()) * (MIB * 4 / 5);
            let small = 4 * MIB + i64::from(tick % 7) * (MIB / 4);
            let processes = grown + web + small + 2 * MIB;
            let owner = |pid, process: &str, memory_bytes| OwnerPoint {
                pid,
                process: process.to_owned(),
                memory_bytes,
                resident_bytes: Some(48 << 20),
            };
            let mut owners =
                vec![owner(4711, "report-writer", grown), owner(812, "nginx", web), owner(99, "etcd", small)];
            owners.sort_by_key(|owner| std::cmp::Reverse(owner.memory_bytes));
            Point {
                timestamp: NOW - f64::from(240 - tick) * 15.0,
                tcp_memory_bytes: u64::try_from(processes + 3 * MIB).ok(),
                memory_pressure: Some(false),
                held: Attribution {
                    process_bytes: processes * 9 / 10,
                    accept_queue_bytes: processes / 10,
                    orphan_bytes: MIB,
                    unresolved_bytes: MIB / 2,
                    unattributed_bytes: Some(MIB * 3 / 2),
                    unattributed_bound_bytes: Some(2 << 20),
                },
                owners,
                ..Point::default()
            }
        })
        .collect()
}

/// A host in trouble.
pub fn busy() -> Report {
    let history = history();
    let newest = history.last().expect("a point").clone();
    let findings = findings();
    Report {
        schema_version: SCHEMA_VERSION,
        generator: Generator {
            name: "skmem-exporter".to_owned(),
            version: "0.1.0".to_owned(),
            mode: Mode::Daemon,
        },
        hostname: "db-3.example".to_owned(),
        timestamp: Some(NOW),
        watch: Watch { seconds: 86_400.0, samples: 5761, interval_seconds: 15.0, stall_after_seconds: 30.0 },
        is_healthy: false,
        verdict: findings[0].summary.clone(),
        host: HostReport {
            tcp_memory_bytes: newest.tcp_memory_bytes,
            tcp_memory_limit: Some(Levels {
                min_bytes: 1128 << 20,
                pressure_bytes: 1504 << 20,
                max_bytes: 2256 << 20,
            }),
            memory_pressure: Some(false),
            held: newest.held,
            sockets_allocated: Some(412),
            orphan_sockets: Some(3),
            orphan_sockets_limit: Some(262_144),
            hidden_sockets: Some(0),
            sockets: TcpState::ALL.into_iter().map(|state| (state.label().to_owned(), 7)).collect(),
            receive_buffer_limit: Some(BufferSizes {
                min_bytes: 4096,
                default_bytes: 131_072,
                max_bytes: 6_291_456,
            }),
            send_buffer_limit: None,
            window_scaling: Some(false),
            receive_autotuning: Some(true),
        },
        findings,
        processes: vec![
            culprit(),
            process(812, "nginx", 34 * MIB),
            process(99, "etcd", 5 * MIB),
            ProcessReport { pid: None, resident_bytes: None, ..process(0, "other", 2 * MIB) },
        ],
        processes_truncated: 2,
        are_addresses_hidden: false,
        blind_spots: vec![
            BlindSpot {
                what: "2 network namespaces could not be entered.".to_owned(),
                cure: Some("give CAP_SYS_ADMIN and CAP_SYS_PTRACE, or run as root".to_owned()),
            },
            BlindSpot { what: "Why memory is held is told on Linux 6.9 and later.".to_owned(), cure: None },
        ],
        history,
    }
}
