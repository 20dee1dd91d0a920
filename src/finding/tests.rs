//! A table of hosts and what is found on them: each culprit beside an innocent neighbour.

use std::time::Duration;

use super::*;
use crate::predicament::{Activity, ThreadGroup, ThreadState};
use crate::sample::{
    DropReason, MemoryCounters, MemoryLevels, OwnerClass, ProcessInfo, ProcessName, ProcessRow,
    SegmentCounters,
};
use crate::series::Point;

const MIB: i64 = 1 << 20;
const STALL_AFTER: Duration = Duration::from_secs(30);
const INTERVAL: u32 = 15;
const PID: u32 = 4242;

/// A host with room for everything.
fn quiet_host() -> HostFigures {
    HostFigures {
        tcp_memory: Some(100 << 20),
        tcp_memory_limit: Some(MemoryLevels { min: 1 << 30, pressure: 3 << 29, max: 2 << 30 }),
        memory_pressure: Some(false),
        orphan_sockets: Some(3),
        orphan_sockets_limit: Some(131_072),
        hidden_sockets: Some(0),
        segments: Some(SegmentCounters { received: 1_000_000, ..SegmentCounters::default() }),
        memory_counters: Some(MemoryCounters::default()),
        window_scaling: Some(true),
        receive_autotuning: Some(true),
        ..HostFigures::default()
    }
}

fn row(causes: &[(Cause, i64, u64)]) -> ProcessRow {
    let mut sums = SocketSums::default();
    for (cause, memory, sockets) in causes {
        let stalled = if *cause == Cause::Active { Duration::ZERO } else { Duration::from_mins(5) };
        sums.by_cause[*cause as usize] = CauseSums { memory: *memory, sockets: *sockets, stalled };
        sums.memory += memory;
        sums.receive_queue += memory.unsigned_abs() / 2;
    }
    ProcessRow {
        name: ProcessName::One { pid: PID, comm: "worker".to_owned() },
        stall_start: None,
        sums,
        resident_memory: Some(20 << 20),
        info: Some(ProcessInfo { systemd_unit: "worker.service".to_owned(), ..ProcessInfo::default() }),
        worst: Worst::default(),
        activity: None,
    }
}

fn sample(rows: Vec<ProcessRow>) -> Sample {
    Sample {
        is_of_whole_host: true,
        processes: rows,
        unattributed: Some(0),
        unattributed_bound: Some(2 << 20),
        ..Sample::default()
    }
}

/// The same host at `samples` ticks, changed by `change` at each of them.
fn watched(
    samples: u32,
    row: Option<&ProcessRow>,
    change: impl Fn(u32, &mut HostFigures, &mut Sample),
) -> Vec<Finding> {
    let mut series = Series::new(Duration::from_secs(INTERVAL.into()));
    let (mut host, mut newest) = (quiet_host(), Sample::default());
    for tick in 0..samples {
        host = quiet_host();
        newest = sample(row.into_iter().cloned().collect());
        newest.timestamp = f64::from(1_700_000_000 + tick * INTERVAL);
        change(tick, &mut host, &mut newest);
        series.push(Point::of(&host, &newest));
    }
    find(Seen { series: &series, host: &host, sample: &newest, stall_after: STALL_AFTER })
}

/// The same for an hour, without change.
fn with_row(row: &ProcessRow) -> Vec<Finding> {
    watched(241, Some(row), |_, _, _| {})
}

#[track_caller]
fn kinds(findings: &[Finding], expected: &[FindingKind]) {
    let got: Vec<FindingKind> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(got, expected, "{findings:#?}");
}

#[test]
fn a_busy_host_has_no_findings() {
    let rows = [row(&[(Cause::Active, 60 * MIB, 4000)]), row(&[])];
    for row in &rows {
        kinds(&with_row(row), &[]);
    }
}

#[test]
fn every_cause_is_a_finding_from_its_floor_on() {
    let enough =
        |cause, memory, sockets| with_row(&row(&[(cause, memory, sockets), (Cause::Active, MIB, 9)]));
    for cause in Cause::ALL {
        let expected: Vec<FindingKind> = FindingKind::of_cause(cause).into_iter().collect();
        kinds(&enough(cause, MEMORY_FLOOR, 1), &expected);
        kinds(&enough(cause, MEMORY_FLOOR - 1, 1), &[]);
    }
    kinds(&enough(Cause::CloseWait, 0, LEAKED_FLOOR), &[FindingKind::CloseWait]);
    kinds(&enough(Cause::CloseWait, 0, LEAKED_FLOOR - 1), &[]);
    kinds(&enough(Cause::AcceptQueue, 0, WAITING_FLOOR), &[FindingKind::AcceptQueue]);
    kinds(&enough(Cause::AcceptQueue, 0, WAITING_FLOOR - 1), &[]);
    kinds(&enough(Cause::NotReading, 0, 100_000), &[]);
}

#[test]
fn a_full_accept_queue_is_a_finding_however_short_it_is() {
    let mut row = row(&[(Cause::AcceptQueue, 0, 3)]);
    let queue =
        |waiting, limit| ListenerQueue { namespace: 1, local: ([0, 0, 0, 0], 80).into(), waiting, limit };
    row.worst.listeners = vec![queue(2, 2)];
    kinds(&with_row(&row), &[]);
    row.worst.listeners = vec![queue(3, 2)];
    let findings = with_row(&row);
    kinds(&findings, &[FindingKind::AcceptQueue]);
    assert_eq!(findings[0].severity, Severity::Warning, "new connections are turned away");
    assert!(matches!(findings[0].subject, Subject::Listener { pid: PID, .. }), "{:?}", findings[0].subject);
    assert!(findings[0].summary.contains("0.0.0.0:80"), "{}", findings[0].summary);
}

#[test]
fn severity_follows_what_it_does_to_the_host() {
    let of = |memory| with_row(&row(&[(Cause::NotReading, memory, 1)]))[0].severity;
    assert_eq!(of(MEMORY_FLOOR), Severity::Notice);
    assert_eq!(of(MIB), Severity::Warning);
    assert_eq!(of(3 << 27), Severity::Critical, "a quarter of the level of pressure");
}

#[test]
fn the_summary_says_who_what_since_when_and_how_much() {
    let findings = with_row(&row(&[(Cause::NotReading, 12 * MIB, 3)]));
    assert_eq!(
        findings[0].summary,
        "worker (pid 4242) has stopped reading 3 connections, for 5m: 12.0 MiB of kernel memory."
    );
    assert!(!findings[0].since_is_at_the_latest);
    // Seen from the first sample on: nobody knows when it began.
    let findings = watched(21, Some(&row(&[(Cause::NotReading, MIB, 1)])), |_, _, _| {});
    assert!(findings[0].summary.contains("for at least 5m"), "{}", findings[0].summary);
    assert_eq!(findings[0].since, Some(f64::from(1_700_000_000 + 20 * INTERVAL - 300)));
}

/// `kill -STOP`, a frozen cgroup and a deadlock are named, and each has its own cure.
#[test]
fn what_keeps_the_process_is_named_and_its_cure_differs() {
    let group =
        |state, wait_channel: &str| ThreadGroup { state, wait_channel: wait_channel.to_owned(), count: 4 };
    let with = |activity: Activity| {
        let mut row = row(&[(Cause::NotReading, MIB, 1)]);
        row.activity = Some(activity);
        let finding = with_row(&row).remove(0);
        let commands: Vec<String> = finding.advice.into_iter().filter_map(|advice| advice.command).collect();
        (finding.summary, commands)
    };
    let read =
        Activity { threads_total: 4, cpu_share: Some(0.0), still_seconds: Some(60.0), ..Activity::default() };
    let (summary, commands) = with(Activity {
        state: ThreadState::Stopped,
        threads: vec![group(ThreadState::Stopped, "do_signal_stop")],
        ..read.clone()
    });
    assert!(summary.ends_with("It is stopped by a signal."), "{summary}");
    assert_eq!(commands[0], "kill -CONT 4242");
    assert!(
        !commands.iter().any(|command| command.contains("restart")),
        "it only has to go on: {commands:?}"
    );

    let (summary, commands) =
        with(Activity { frozen: Some(true), freezer: "/box".to_owned(), ..read.clone() });
    assert!(summary.ends_with("Its cgroup is frozen."), "{summary}");
    assert!(commands[0].contains("/box/cgroup.freeze") && commands[0].contains("THAWED"), "{commands:?}");

    let (summary, commands) = with(Activity {
        state: ThreadState::Sleeping,
        threads: vec![group(ThreadState::Sleeping, "futex_wait_queue")],
        ..read.clone()
    });
    assert!(summary.contains("deadlock"), "{summary}");
    assert!(commands[0].starts_with("gdb -p 4242"), "{commands:?}");
    assert_eq!(commands.last().unwrap(), "systemctl restart worker.service");

    // The name of a cgroup is somebody else's text, and would go into a root shell.
    let hostile = Activity { frozen: Some(true), freezer: "/a';reboot;'".to_owned(), ..read };
    assert!(!with(hostile).1.iter().any(|command| command.contains("reboot")));
}

/// What helps nobody is never advised.
#[test]
fn advice_is_what_holds() {
    for cause in Cause::ALL {
        for finding in with_row(&row(&[(cause, 40 * MIB, 2000)])) {
            assert!(!finding.advice.is_empty() && !finding.evidence.is_empty(), "{finding:?}");
            let told = format!("{:?}", finding.advice);
            for wrong in ["tcp_rmem", "tcp_wmem", "tcp_fin_timeout", "rmem_max", "drop_caches"] {
                assert!(!told.contains(wrong), "{cause:?}: {told}");
            }
        }
    }
}

#[test]
fn commands_hold_nothing_that_others_have_written() {
    let hostile = "$(reboot).service";
    let info = ProcessInfo { systemd_unit: hostile.to_owned(), ..ProcessInfo::default() };
    let row = ProcessRow { info: Some(info), ..row(&[(Cause::NotReading, MIB, 1)]) };
    let told = format!("{:?}", with_row(&row)[0].advice);
    assert!(!told.contains("reboot") && told.contains("kill 4242"), "{told}");
}

#[test]
fn memory_against_the_levels_of_tcp_mem() {
    let at = |memory: u64| {
        watched(5, None, |_, host, _| host.tcp_memory = Some(memory))
            .first()
            .map(|finding| (finding.kind, finding.severity))
    };
    assert_eq!(at((1 << 30) - 1), None);
    assert_eq!(at(1 << 30), Some((FindingKind::MemoryLevel, Severity::Notice)));
    assert_eq!(at(3 << 29), Some((FindingKind::MemoryLevel, Severity::Warning)));
    assert_eq!(at(1_950_000_000), Some((FindingKind::MemoryLevel, Severity::Critical)));
    assert_eq!(at(2 << 30), Some((FindingKind::MemoryLevel, Severity::Critical)));
}

#[test]
fn pressure_is_told_first_and_its_culprit_with_it() {
    let row = row(&[(Cause::NotReading, 700 * MIB, 9)]);
    let findings = watched(5, Some(&row), |_, host, _| host.memory_pressure = Some(true));
    kinds(&findings, &[FindingKind::MemoryPressure, FindingKind::NotReading]);
}

#[test]
fn orphans_by_memory_and_by_number() {
    let orphans = |bytes: i64, number| {
        watched(5, None, move |_, host, sample| {
            host.orphan_sockets = Some(number);
            sample.attributed[OwnerClass::Orphan as usize] = bytes;
            sample.classes[OwnerClass::Orphan as usize] = number;
        })
    };
    kinds(&orphans(16 * MIB, 5), &[FindingKind::OrphanMemory]);
    kinds(&orphans(16 * MIB - 1, 65_535), &[]);
    kinds(&orphans(0, 65_536), &[FindingKind::OrphanSockets]);
    assert_eq!(orphans(0, 131_072)[0].severity, Severity::Critical);
    assert_eq!(orphans(16 * MIB, 5)[0].subject, Subject::Orphans);
}

#[test]
fn drops_and_aborts_only_while_they_happen() {
    let counted = |drops: fn(u32) -> u64, prunes: fn(u32) -> u64, aborts: fn(u32) -> u64| {
        watched(20, None, move |tick, host, _| {
            let mut counters = MemoryCounters { receive_prunes: prunes(tick), ..MemoryCounters::default() };
            counters.receive_drops[DropReason::RcvqDrop as usize] = drops(tick);
            counters.aborts_on_memory = aborts(tick);
            host.memory_counters = Some(counters);
        })
    };
    kinds(&counted(|tick| u64::from(tick) * 15, |_| 0, |_| 0), &[FindingKind::ReceiveDrops]);
    kinds(&counted(|tick| u64::from(tick) * 14, |_| 0, |_| 0), &[]);
    kinds(&counted(|tick| if tick < 10 { 0 } else { 90_000 }, |_| 0, |_| 0), &[]);
    // Pruning alone loses nothing: it also happens where a buffer only has to grow.
    kinds(&counted(|_| 0, |tick| u64::from(tick) * 1000, |_| 0), &[]);
    kinds(&counted(|_| 0, |_| 0, |tick| u64::from(tick > 18)), &[FindingKind::MemoryAborts]);
}

/// Memory at each tick, segments at each tick.
fn traffic(memory: fn(u32) -> u64, segments: fn(u32) -> u64, samples: u32) -> Vec<Finding> {
    watched(samples, None, move |tick, host, _| {
        host.tcp_memory = Some(memory(tick));
        host.segments = Some(SegmentCounters { received: segments(tick), ..SegmentCounters::default() });
    })
}

#[test]
fn memory_that_rises_without_traffic_stays() {
    let rising = |tick: u32| (100 << 20) + (u64::from(tick) << 22);
    let flat = |tick: u32| u64::from(tick) * 15_000;
    kinds(&traffic(rising, flat, 10), &[FindingKind::MemoryWithoutTraffic]);
    // More traffic holds more memory.
    kinds(&traffic(rising, |tick| u64::from(tick * tick) * 15_000, 10), &[]);
    // A burst comes and goes.
    kinds(&traffic(|tick| if tick == 5 { 900 << 20 } else { 100 << 20 }, flat, 10), &[]);
    // Not watched for long enough to call it a trend.
    kinds(&traffic(rising, flat, 8), &[]);
}

#[test]
fn a_leak_is_projected_to_the_maximum() {
    let busier = |tick: u32| u64::from(tick * tick) * 15_000;
    let leak = |tick: u32| (500 << 20) + (u64::from(tick) << 21);
    let findings = traffic(leak, busier, 60);
    kinds(&findings, &[FindingKind::MemoryProjected]);
    let left = findings[0].evidence.iter().find(|fact| fact.name == "seconds_left").unwrap().value;
    // 2 MiB each 15 s; 1,430 MiB to go after 59 ticks.
    assert!((left - 10_725.0).abs() < 300.0, "{left}");
    // Four times as slow: not within the horizon.
    kinds(&traffic(|tick| (500 << 20) + (u64::from(tick) << 19), busier, 60), &[]);
    kinds(&traffic(leak, busier, 20), &[]);
}

#[test]
fn tcp_memory_far_above_rss() {
    let active = |memory| row(&[(Cause::Active, memory, 40)]);
    kinds(&with_row(&active(80 * MIB)), &[FindingKind::MemoryAboveRss]);
    kinds(&with_row(&active(80 * MIB - 1)), &[]);
    // Large, and no wonder.
    kinds(&with_row(&ProcessRow { resident_memory: Some(1 << 30), ..active(900 * MIB) }), &[]);
    // It says less than a cause does.
    kinds(&with_row(&row(&[(Cause::NotReading, 80 * MIB, 40)])), &[FindingKind::NotReading]);
    // Only for a moment.
    let row = active(80 * MIB);
    kinds(&watched(2, Some(&row), |_, _, _| {}), &[]);
}

#[test]
fn a_residual_counts_when_it_stays_on_its_side() {
    let residual = |bytes: fn(u32) -> i64, hidden| {
        watched(10, None, move |tick, host, sample| {
            host.hidden_sockets = Some(hidden);
            sample.unattributed = Some(bytes(tick));
        })
    };
    kinds(&residual(|_| 3 * MIB, 0), &[FindingKind::UnattributedMemory]);
    kinds(&residual(|_| 3 * MIB, 7), &[FindingKind::HiddenMemory]);
    kinds(&residual(|_| -3 * MIB, 7), &[FindingKind::UnattributedMemory]);
    kinds(&residual(|_| 2 * MIB, 7), &[]);
    let in_part = watched(10, None, |_, _, sample| {
        (sample.unattributed, sample.is_of_whole_host) = (Some(900 * MIB), false);
    });
    kinds(&in_part, &[]);
    kinds(&residual(|tick| if tick % 2 == 0 { 20 * MIB } else { -20 * MIB }, 0), &[]);
}

#[test]
fn switches_that_are_off() {
    kinds(
        &watched(1, None, |_, host, _| host.window_scaling = Some(false)),
        &[FindingKind::WindowScalingOff],
    );
    kinds(
        &watched(1, None, |_, host, _| host.receive_autotuning = Some(false)),
        &[FindingKind::AutotuningOff],
    );
}

/// Whatever cannot be read is no reason to say anything.
#[test]
fn nothing_known_is_nothing_found() {
    let findings = watched(241, None, |_, host, sample| {
        *host = HostFigures::default();
        (sample.unattributed, sample.unattributed_bound) = (None, None);
    });
    kinds(&findings, &[]);
}

/// Who does not read is told before those whom that makes wait, however much more they hold.
#[test]
fn the_two_ends_of_a_connection_are_linked() {
    let end = |local: u16, remote: u16, cause, memory_bytes| Connection {
        namespace: 1,
        local: Some(([127, 0, 0, 1], local).into()),
        remote: Some(([127, 0, 0, 1], remote).into()),
        state: crate::sample::TcpState::Established,
        is_queued: false,
        memory_bytes,
        receive_memory_bytes: 0,
        send_memory_bytes: 0,
        receive_queue_bytes: 0,
        send_queue_bytes: 0,
        receive_buffer_bytes: 0,
        cause,
        stalled: Duration::from_mins(5),
        tcp_info: None,
    };
    let process = |pid, comm: &str, cause, memory, connection| ProcessRow {
        name: ProcessName::One { pid, comm: comm.to_owned() },
        worst: Worst { connections: vec![connection], listeners: Vec::new() },
        ..row(&[(cause, memory, 1)])
    };
    let rows = vec![
        process(1, "sender", Cause::PeerNotReading, 4 * MIB, end(4000, 80, Cause::PeerNotReading, 4 * MIB)),
        process(2, "other", Cause::NotReading, 2 * MIB, end(81, 9, Cause::NotReading, 2 * MIB)),
        process(3, "reader", Cause::NotReading, MIB, end(80, 4000, Cause::NotReading, MIB)),
    ];
    let findings = watched(241, None, move |_, _, sample| sample.processes.clone_from(&rows));
    let pids: Vec<_> = findings.iter().map(|finding| finding.subject.pid().unwrap()).collect();
    assert_eq!(pids, [3, 2, 1]);
    assert_eq!(findings[0].pinned_bytes, 4 * MIB);
    assert!(findings[0].evidence[1].text.contains("sender (pid 1)"), "{:?}", findings[0].evidence);
    assert!(findings[2].advice[0].text.contains("reader (pid 3)"), "{:?}", findings[2].advice);
    assert_eq!(findings[1].pinned_bytes, 0);
}

/// With samples farther apart than `--stall.after` three of them must agree.
#[test]
fn rare_samples_are_enough() {
    let mut series = Series::new(Duration::from_mins(5));
    let host = quiet_host();
    let mut found = Vec::new();
    for tick in 0..4 {
        let mut sample = sample(Vec::new());
        (sample.timestamp, sample.unattributed) = (f64::from(tick * 300), Some(9 * MIB));
        series.push(Point::of(&host, &sample));
        found.push(
            find(Seen { series: &series, host: &host, sample: &sample, stall_after: STALL_AFTER }).len(),
        );
    }
    assert_eq!(found, [0, 0, 1, 1]);
}

/// Somebody holds what nobody we can see does.
#[test]
fn whoever_cannot_be_seen_may_have_stopped_reading_too() {
    let hidden = row(&[(Cause::NotReading, 20 * MIB, 30)]);
    let findings = watched(241, None, move |_, _, sample| sample.unowned.unresolved_sums = hidden.sums);
    kinds(&findings, &[FindingKind::NotReading]);
    assert_eq!(findings[0].subject, Subject::Unresolved);
    assert!(findings[0].summary.starts_with("Somebody who cannot be seen has stopped"), "{findings:?}");
}

/// Whoever passes data on has to stop reading when nobody takes it from him.
#[test]
fn a_proxy_is_not_to_blame_for_its_upstream() {
    let proxy = row(&[(Cause::NotReading, 2 * MIB, 3), (Cause::PeerNotReading, 9 * MIB, 3)]);
    let findings = with_row(&proxy);
    kinds(&findings, &[FindingKind::NotReading, FindingKind::PeerNotReading]);
    assert!(findings[0].summary.contains("held up by its own peers"), "{}", findings[0].summary);
    let told = format!("{:?}", findings[0].advice);
    assert!(!told.contains("restart") && !told.contains("kill"), "{told}");
}

#[test]
fn a_users_manager_is_not_restarted_for_one_of_its_services() {
    let info = ProcessInfo { systemd_unit: "user@1000.service".to_owned(), ..ProcessInfo::default() };
    let row = ProcessRow { info: Some(info), ..row(&[(Cause::NotReading, MIB, 1)]) };
    let told = format!("{:?}", with_row(&row)[0].advice);
    assert!(told.contains("kill 4242") && !told.contains("systemctl"), "{told}");
}

#[test]
fn nothing_is_thawed_that_is_not_known_to_be_its_own() {
    for freezer in ["", "/", "/a/../b", "relative"] {
        let activity = Activity { frozen: Some(true), freezer: freezer.to_owned(), ..Activity::default() };
        let row = ProcessRow { activity: Some(activity), ..row(&[(Cause::NotReading, MIB, 1)]) };
        let first = with_row(&row).remove(0).advice.remove(0);
        assert_eq!(first.command, None, "{freezer:?}");
    }
}
