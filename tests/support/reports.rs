//! Reports of hosts that do not exist, built by hand: what they look like depends on nothing but this file.

use std::collections::BTreeMap;
use std::time::Duration;

use skmem_exporter::finding::{Advice, Fact, Finding, Severity, Subject, Unit};
use skmem_exporter::report::{
    BufferSizes, CauseReport, Generator, HostReport, Levels, Mode, ProcessReport, Report, SCHEMA_VERSION,
    Watch,
};
use skmem_exporter::sample::{BlindSpot, Cause, Connection, FindingKind, ListenerQueue, TcpState};
use skmem_exporter::series::{Attribution, Point};
use skmem_exporter::tcp_info::TcpInfo;

const NOW: f64 = 1_795_396_337.25;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap()
}

/// Nothing known: no sample yet.
pub fn nothing() -> Report {
    Report {
        schema_version: SCHEMA_VERSION,
        generator: Generator {
            name: "skmem-exporter".to_owned(),
            version: "1.2.3".to_owned(),
            mode: Mode::Diagnose,
        },
        hostname: String::new(),
        timestamp: None,
        watch: Watch { seconds: 0.0, samples: 0, interval_seconds: 1.0, stall_after_seconds: 7.5 },
        is_healthy: false,
        verdict: "Not known yet: there is no complete sample.".to_owned(),
        host: HostReport::default(),
        findings: Vec::new(),
        processes: Vec::new(),
        processes_truncated: 0,
        are_addresses_hidden: false,
        blind_spots: Vec::new(),
        history: Vec::new(),
    }
}

/// A sample, and a host that tells nothing of itself.
pub fn unreadable() -> Report {
    let spot =
        |what: &str, cure: Option<&str>| BlindSpot { what: what.to_owned(), cure: cure.map(str::to_owned) };
    Report {
        hostname: "web-7".to_owned(),
        timestamp: Some(NOW),
        watch: Watch { seconds: 10.004, samples: 12, interval_seconds: 1.0, stall_after_seconds: 7.5 },
        verdict: "Healthy: TCP holds an unknown amount, and nobody who holds it has stopped.".to_owned(),
        blind_spots: vec![
            spot(
                "The source sockstat could not be read in the newest attempt.",
                Some("see the exporter's log"),
            ),
            spot(
                "other users' sockets stay unresolved",
                Some("give CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE, or run as root"),
            ),
            spot("3 sockets held memory and could not be asked why.", None),
        ],
        ..nothing()
    }
}

fn host(memory: u64, memory_pressure: bool) -> HostReport {
    let sockets =
        [("established", 4210), ("time_wait", 987), ("listen", 31), ("close_wait", 5), ("closing", 0)];
    HostReport {
        tcp_memory_bytes: Some(memory),
        tcp_memory_limit: Some(Levels {
            min_bytes: 1200 * MIB,
            pressure_bytes: 1536 * MIB,
            max_bytes: 2304 * MIB,
        }),
        memory_pressure: Some(memory_pressure),
        held: Attribution {
            process_bytes: signed(memory - MIB),
            accept_queue_bytes: signed(512 * KIB),
            orphan_bytes: 0,
            unresolved_bytes: 0,
            unattributed_bytes: Some(signed(512 * KIB)),
            unattributed_bound_bytes: Some(2 * MIB),
        },
        sockets_allocated: Some(4246),
        orphan_sockets: Some(12),
        orphan_sockets_limit: Some(131_072),
        hidden_sockets: Some(0),
        sockets: BTreeMap::from(sockets.map(|(state, count)| (state.to_owned(), count))),
        receive_buffer_limit: Some(BufferSizes {
            min_bytes: 4096,
            default_bytes: 131_072,
            max_bytes: 6 * MIB,
        }),
        send_buffer_limit: Some(BufferSizes { min_bytes: 4096, default_bytes: 16_384, max_bytes: 4 * MIB }),
        window_scaling: Some(true),
        receive_autotuning: Some(true),
    }
}

fn process(pid: u32, name: &str, memory: u64, cause: Cause) -> ProcessReport {
    let is_stalled = cause != Cause::Active;
    ProcessReport {
        pid: Some(pid),
        process: name.to_owned(),
        memory_bytes: signed(memory),
        receive_memory_bytes: memory,
        send_memory_bytes: 0,
        receive_queue_bytes: memory / 5 * 3,
        send_queue_bytes: 0,
        sockets: 20,
        accept_queue_connections: 0,
        resident_bytes: Some(11 * MIB),
        stalled_since: is_stalled.then_some(NOW - 312.0),
        causes: vec![CauseReport {
            cause,
            memory_bytes: signed(memory),
            sockets: 20,
            stalled_seconds: 312.0,
        }],
        cgroup: format!("/system.slice/{name}.service"),
        systemd_unit: format!("{name}.service"),
        container_id: String::new(),
        pod_uid: String::new(),
        activity: None,
        predicament: None,
        connections: if is_stalled {
            vec![connection("127.0.0.1:8080", "127.0.0.1:43210", cause)]
        } else {
            Vec::new()
        },
        listeners: Vec::new(),
    }
}

fn connection(local: &str, remote: &str, cause: Cause) -> Connection {
    Connection {
        namespace: 4_026_531_840,
        local: Some(local.parse().unwrap()),
        remote: Some(remote.parse().unwrap()),
        state: TcpState::Established,
        is_queued: false,
        memory_bytes: 135_168,
        receive_memory_bytes: 135_168,
        send_memory_bytes: 0,
        receive_queue_bytes: 98_304,
        send_queue_bytes: 0,
        receive_buffer_bytes: 131_072,
        cause,
        stalled: Duration::from_secs(312),
        tcp_info: Some(TcpInfo { receive_window: Some(0), ..TcpInfo::default() }),
    }
}

fn finding(kind: FindingKind, severity: Severity, subject: Subject, summary: &str) -> Finding {
    let fact =
        |text: &str| Fact { name: "fact".to_owned(), value: 1.0, unit: Unit::Count, text: text.to_owned() };
    Finding {
        kind,
        severity,
        subject,
        memory_bytes: signed(2 * MIB),
        pinned_bytes: 0,
        sockets: 20,
        since: Some(NOW - 312.0),
        since_is_at_the_latest: true,
        summary: summary.to_owned(),
        evidence: vec![
            fact("2.0 MiB of its 2.6 MiB of TCP memory"),
            fact("nothing taken out of the queue for 5m 12s"),
        ],
        connections: Vec::new(),
        listeners: Vec::new(),
        advice: vec![
            Advice {
                text: "See the connections and what waits in them (Recv-Q).".to_owned(),
                command: Some("nsenter -t 6920 -n ss -tmnipOe | grep pid=6920,".to_owned()),
            },
            Advice { text: "Close them.".to_owned(), command: None },
        ],
    }
}

/// Nothing wrong, told by a daemon that has watched for an hour.
pub fn healthy() -> Report {
    let sizes = [
        (901, "postgres", 40),
        (77, "nginx", 21),
        (78, "nginx", 20),
        (5, "sshd", 3),
        (1204, "java", 2),
        (6, "a", 1),
    ];
    let mut processes: Vec<_> =
        sizes.iter().map(|(pid, name, mib)| process(*pid, name, mib * MIB, Cause::Active)).collect();
    processes.push(ProcessReport {
        pid: None,
        resident_bytes: None,
        ..process(0, "other", 900 * KIB, Cause::Active)
    });
    let point = |minute: u32| Point {
        timestamp: NOW - 3600.0 + f64::from(minute) * 60.0,
        tcp_memory_bytes: Some(u64::from(20 + minute + minute % 7 * 3) * MIB),
        ..Point::default()
    };
    Report {
        generator: Generator { mode: Mode::Daemon, ..nothing().generator },
        hostname: "web-7".to_owned(),
        timestamp: Some(NOW),
        watch: Watch { seconds: 93_600.0, samples: 6241, interval_seconds: 15.0, stall_after_seconds: 30.0 },
        is_healthy: true,
        verdict: "Healthy: TCP holds 88.0 MiB, 3.8 % of the maximum, and nobody who holds it has stopped."
            .to_owned(),
        host: host(88 * MIB, false),
        processes,
        history: (0..=60).map(point).collect(),
        ..nothing()
    }
}

/// One process that does not read.
pub fn not_reading() -> Report {
    let summary = "report-writer (pid 6920) has stopped reading 20 connections, for at least 5m 12s: 2.0 MiB of kernel \
                   memory. It waits for events, but not for these sockets'.";
    let subject = Subject::Process { pid: 6920, process: "report-writer".to_owned() };
    let mut culprit = process(6920, "report-writer", 2700 * KIB, Cause::NotReading);
    culprit.causes[0].memory_bytes = signed(2400 * KIB);
    culprit.causes.push(CauseReport {
        cause: Cause::Active,
        memory_bytes: signed(300 * KIB),
        sockets: 2,
        stalled_seconds: 0.0,
    });
    Report {
        hostname: "web-7".to_owned(),
        timestamp: Some(NOW),
        watch: Watch { seconds: 10.02, samples: 12, interval_seconds: 1.0, stall_after_seconds: 7.5 },
        verdict: summary.to_owned(),
        host: host(88 * MIB, false),
        findings: vec![finding(FindingKind::NotReading, Severity::Warning, subject, summary)],
        processes: vec![process(901, "postgres", 40 * MIB, Cause::Active), culprit],
        ..nothing()
    }
}

/// Memory pressure, whoever causes it, and orphans.
pub fn pressure() -> Report {
    let mut report = not_reading();
    let host = host(2200 * MIB, true);
    report.host = HostReport {
        held: Attribution {
            orphan_bytes: signed(32 * MIB),
            unattributed_bytes: Some(signed(3 * MIB)),
            ..host.held
        },
        orphan_sockets: Some(70_000),
        hidden_sockets: Some(17),
        ..host
    };
    let summary = "The kernel is in TCP memory pressure: every connection on the host gets smaller buffers, 2.1 GiB are \
                   in use.";
    let v6 = |port: u16| format!("[2001:db8:1234:5678:9abc:def0:1234:{port:x}]:{port}");
    let listener: std::net::SocketAddr = v6(61_443).parse().unwrap();
    let mut host = finding(FindingKind::MemoryPressure, Severity::Critical, Subject::Host, summary);
    host.since = Some(NOW - 100_000.0);
    host.since_is_at_the_latest = false;
    let subject = Subject::Listener { pid: 4_194_303, process: "gateway".to_owned(), address: listener };
    let mut queue = finding(
        FindingKind::AcceptQueue,
        Severity::Warning,
        subject,
        "gateway (pid 4194303) does not accept.",
    );
    queue.listeners = vec![ListenerQueue { namespace: 1, local: listener, waiting: 129, limit: 128 }];
    queue.advice[0].command = Some(
        "for f in $(find /sys/fs/cgroup -path '*/kubepods.slice/pod 1234/cgroup.freeze'); do echo 0 > \"$f\"; done; \
         kubectl get pods -A -o custom-columns=NS:.metadata.namespace,POD:.metadata.name,UID:.metadata.uid,NODE:.spec.nodeName | \
         grep 01234567"
            .to_owned(),
    );
    let mut orphans =
        finding(FindingKind::OrphanMemory, Severity::Warning, Subject::Orphans, "Orphans hold 32.0 MiB.");
    orphans.connections = vec![Connection {
        state: TcpState::FinWait1,
        memory_bytes: signed(4 * MIB),
        tcp_info: None,
        ..connection("192.0.2.1:443", "198.51.100.200:65535", Cause::PeerNotReading)
    }];
    report.findings.splice(0..0, [host, queue]);
    report.findings.push(orphans);
    let mut gateway = process(4_194_303, "gateway", 1900 * MIB, Cause::AcceptQueue);
    gateway.systemd_unit.clear();
    gateway.container_id = "0123456789abcdef".repeat(4);
    "01234567-89ab-cdef-0123-456789abcdef".clone_into(&mut gateway.pod_uid);
    gateway.connections = vec![connection(&v6(61_443), &v6(50_000), Cause::AcceptQueue)];
    report.processes.insert(0, gateway);
    report.verdict = format!("{summary} gateway (pid 4194303) does not accept.");
    report
}

/// Names made to deceive whoever reads them.
pub fn hostile() -> Report {
    defile(
        pressure(),
        "a\u{1b}[2J\u{1b}]0;pwned\u{7}\u{202e}gpj.\u{9b}31m\nOK  Healthy\r\u{200b}網網網\u{e0041}",
    )
}

/// The report with its texts replaced.
pub fn defile(mut report: Report, text: &str) -> Report {
    let long = format!("/{text}").repeat(12);
    text.clone_into(&mut report.hostname);
    text.clone_into(&mut report.generator.version);
    report.verdict = format!("{text} {long} has stopped.");
    report.are_addresses_hidden = true;
    report.host.sockets.insert(text.to_owned(), 3);
    for finding in &mut report.findings {
        finding.summary.clone_from(&long);
        for fact in &mut finding.evidence {
            fact.text = format!("{text} {}", fact.text);
        }
        for advice in &mut finding.advice {
            advice.text.push_str(text);
            advice.command = advice.command.take().map(|command| format!("{command} {text}"));
        }
        if let Subject::Process { process, .. } | Subject::Listener { process, .. } = &mut finding.subject {
            text.clone_into(process);
        }
    }
    for process in &mut report.processes {
        text.clone_into(&mut process.process);
        process.cgroup.clone_from(&long);
        process.systemd_unit.clear();
        text.clone_into(&mut process.pod_uid);
        process.connections.iter_mut().for_each(|connection| connection.remote = None);
    }
    report.blind_spots.push(BlindSpot { what: text.to_owned(), cure: Some(long) });
    report
}

/// Fifty processes, each with a finding.
pub fn many() -> Report {
    let mut report = not_reading();
    let (findings, processes) = (1..=50)
        .map(|pid| {
            let name = format!("worker-{pid}");
            let subject = Subject::Process { pid, process: name.clone() };
            let summary = format!("{name} (pid {pid}) has stopped reading 20 connections.");
            let process = process(pid, &name, u64::from(60 - pid) * MIB, Cause::NotReading);
            (finding(FindingKind::NotReading, Severity::Warning, subject, &summary), process)
        })
        .unzip();
    (report.findings, report.processes) = (findings, processes);
    report.verdict.clone_from(&report.findings[0].summary);
    report
}
