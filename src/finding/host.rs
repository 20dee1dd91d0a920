//! What is wrong with the host as a whole.

use std::time::Duration;

use super::advice::{consider, run};
use super::{Advice, Fact, Finding, Seen, Severity, Subject, Unit, is_worth_a_finding};
use crate::human;
use crate::sample::{Cause, Connection, FindingKind, MemoryLevels, OwnerClass, ProcessName, ProcessRow};
use crate::series::{OwnerPoint, Point};
use crate::worst::KEPT_MAX;

/// Part of tcp_mem's maximum that is as good as all of it, in tenths.
const NEAR_MAX_TENTHS: u64 = 9;
/// The kernel begins to reset orphans at a quarter of their limit and at half of it when memory is scarce
/// (`tcp_check_oom`): half is near.
const NEAR_ORPHANS_DIVISOR: u64 = 2;
/// Memory without an application that somebody should see to. Bytes.
const ORPHAN_MEMORY: i64 = 16 << 20;
/// TCP memory this many times the RSS is far above it.
const FAR_ABOVE: u64 = 4;
/// And worth telling from here on: proxies with little memory of their own carry many megabytes. Bytes.
const FAR_ABOVE_FLOOR: u64 = 64 << 20;
/// Points that something must have lasted over, whatever the time: two ends and one between.
const POINTS_MIN: usize = 3;

/// The findings about the host.
pub fn find(seen: Seen<'_>) -> Vec<Finding> {
    [
        pressure(seen),
        level(seen),
        orphan_memory(seen),
        orphan_sockets(seen),
        unattributed(seen),
        window_scaling(seen),
        autotuning(seen),
    ]
    .into_iter()
    .flatten()
    .chain(seen.sample.processes.iter().filter_map(|row| above_rss(seen, row)))
    .collect()
}

/// A finding about the host, to be filled in.
pub fn about(kind: FindingKind, severity: Severity, summary: String) -> Finding {
    Finding {
        kind,
        severity,
        subject: Subject::Host,
        memory_bytes: 0,
        pinned_bytes: 0,
        sockets: 0,
        since: None,
        since_is_at_the_latest: false,
        summary,
        evidence: Vec::new(),
        connections: Vec::new(),
        listeners: Vec::new(),
        advice: Vec::new(),
    }
}

/// The points that something must have lasted over: those of `span`, or more where samples are farther apart; `None` while
/// there are too few.
pub fn lasting(seen: Seen<'_>, span: Duration) -> Option<Vec<&Point>> {
    if seen.series.watched() < span || seen.series.points().len() < POINTS_MIN {
        return None;
    }
    let count = seen.series.recent(span).count().max(POINTS_MIN);
    Some(seen.series.points().skip(seen.series.points().len() - count).collect())
}

/// Since when, looking back from now, every point has shown it.
fn since(seen: Seen<'_>, is_so: impl Fn(&Point) -> bool) -> (Option<f64>, bool) {
    let points = seen.series.points().rev();
    let first = points.take_while(|point| is_so(point)).last().map(|point| point.timestamp);
    let oldest = seen.series.points().next().map(|point| point.timestamp);
    (first, first.is_some() && first == oldest)
}

pub fn memory_fact(memory: u64) -> Fact {
    Fact::new(
        "tcp_memory",
        memory as f64,
        Unit::Bytes,
        format!("{} of TCP memory on the host", human::bytes(memory)),
    )
}

fn level_fact(name: &str, bytes: u64, what: &str) -> Fact {
    Fact::new(name, bytes as f64, Unit::Bytes, format!("{} is {what}", human::bytes(bytes)))
}

/// Deal with the holders first; the limit is raised where all is well and RAM allows.
pub fn relieve() -> Vec<Advice> {
    vec![
        consider("Deal with whoever holds it, below: memory that nobody reads grows into any limit."),
        run(
            "Where all of it is traffic and RAM allows, raise tcp_mem (pages: min, pressure, max) and keep it in sysctl.d.",
            "sysctl net.ipv4.tcp_mem",
        ),
    ]
}

fn pressure(seen: Seen<'_>) -> Option<Finding> {
    if seen.host.memory_pressure != Some(true) {
        return None;
    }
    let memory = seen.host.tcp_memory?;
    let (since, at_the_latest) = since(seen, |point| point.memory_pressure == Some(true));
    let summary = format!(
        "The kernel is in TCP memory pressure: every connection on the host gets smaller buffers, {} are in use.",
        human::bytes(memory)
    );
    let levels = seen.host.tcp_memory_limit;
    let mut evidence = vec![memory_fact(memory)];
    evidence.extend(levels.map(|levels| level_fact("level_min", levels.min, "where pressure ends")));
    Some(Finding {
        memory_bytes: signed(memory),
        since,
        since_is_at_the_latest: at_the_latest,
        evidence,
        advice: relieve(),
        ..about(FindingKind::MemoryPressure, Severity::Critical, summary)
    })
}

fn level(seen: Seen<'_>) -> Option<Finding> {
    let (memory, levels) = seen.host.tcp_memory.zip(seen.host.tcp_memory_limit)?;
    let MemoryLevels { min, pressure, max } = levels;
    let near_max = max / 10 * NEAR_MAX_TENTHS;
    let (severity, reached, what) = if memory >= max {
        (Severity::Critical, max, "its maximum: the kernel refuses buffers and drops what arrives")
    } else if memory >= near_max {
        (Severity::Critical, near_max, "90 % of its maximum: soon the kernel will refuse buffers")
    } else if memory >= pressure {
        (Severity::Warning, pressure, "the level of pressure: the kernel shrinks every connection's buffers")
    } else if memory >= min {
        (Severity::Notice, min, "the level up to which buffers grow freely: they do not any more")
    } else {
        return None;
    };
    let part = human::percent(memory, max).unwrap_or_default();
    let summary = format!(
        "TCP memory is above {what}. {} are in use, {part} of the maximum of {}.",
        human::bytes(memory),
        human::bytes(max)
    );
    let (since, at_the_latest) =
        since(seen, |point| point.tcp_memory_bytes.is_some_and(|bytes| bytes >= reached));
    Some(Finding {
        memory_bytes: signed(memory),
        since,
        since_is_at_the_latest: at_the_latest,
        evidence: vec![
            memory_fact(memory),
            level_fact("level_min", min, "where buffers stop growing"),
            level_fact("level_pressure", pressure, "where pressure begins"),
            level_fact("level_max", max, "the maximum"),
        ],
        advice: relieve(),
        ..about(FindingKind::MemoryLevel, severity, summary)
    })
}

fn orphan_memory(seen: Seen<'_>) -> Option<Finding> {
    let class = OwnerClass::Orphan as usize;
    let (memory, sockets) = (seen.sample.attributed[class], seen.sample.classes[class]);
    let points = lasting(seen, seen.stall_after)?;
    if points.iter().any(|point| point.held.orphan_bytes < ORPHAN_MEMORY) {
        return None;
    }
    let connections: Vec<Connection> =
        seen.sample.unowned.orphans.connections.iter().take(KEPT_MAX).cloned().collect();
    let (since, at_the_latest) = since(seen, |point| point.held.orphan_bytes >= ORPHAN_MEMORY);
    let summary = format!(
        "{} that their applications have closed still hold {}: their peers do not take the rest.",
        human::count(sockets, "connection"),
        human::signed_bytes(memory)
    );
    let text = format!("{} held by {}", human::signed_bytes(memory), human::count(sockets, "orphan"));
    Some(Finding {
        subject: Subject::Orphans,
        memory_bytes: memory,
        sockets,
        since,
        since_is_at_the_latest: at_the_latest,
        evidence: vec![Fact::new("orphan_memory", memory as f64, Unit::Bytes, text)],
        connections,
        advice: orphan_advice(),
        ..about(FindingKind::OrphanMemory, Severity::Warning, summary)
    })
}

fn orphan_advice() -> Vec<Advice> {
    vec![
        run(
            "See them, their peers and their timers, in the namespace they are in. No process holds them, so restarting \
             one does not help.",
            "ss -tanmo state fin-wait-1 state closing state last-ack",
        ),
        run(
            "The kernel gives them up by itself: where nobody answers after net.ipv4.tcp_orphan_retries retransmissions (0 \
             means 8), where the peer answers and does not read after some five minutes. Its application is the one to look at.",
            "sysctl net.ipv4.tcp_orphan_retries",
        ),
    ]
}

fn orphan_sockets(seen: Seen<'_>) -> Option<Finding> {
    let (orphans, limit) = seen.host.orphan_sockets.zip(seen.host.orphan_sockets_limit)?;
    if limit == 0 || orphans < limit / NEAR_ORPHANS_DIVISOR {
        return None;
    }
    let summary = format!(
        "{orphans} connections are closed and unfinished, of {limit} that the kernel allows: it resets them early."
    );
    let text = format!("{orphans} of {limit} orphans");
    let at_limit = orphans >= limit;
    let severity = if at_limit { Severity::Critical } else { Severity::Warning };
    Some(Finding {
        subject: Subject::Orphans,
        memory_bytes: seen.sample.attributed[OwnerClass::Orphan as usize],
        sockets: orphans,
        evidence: vec![Fact::new("orphan_sockets", orphans as f64, Unit::Count, text)],
        connections: seen.sample.unowned.orphans.connections.iter().take(KEPT_MAX).cloned().collect(),
        advice: orphan_advice(),
        ..about(FindingKind::OrphanSockets, severity, summary)
    })
}

/// How far what no socket shows is beyond its bound: above zero beyond it upwards, below zero downwards.
fn beyond_bound(point: &Point) -> Option<i64> {
    let bound = i64::try_from(point.held.unattributed_bound_bytes?).ok()?;
    let memory = point.held.unattributed_bytes?;
    Some(memory.signum() * (memory.abs() - bound).max(0))
}

/// Under heavy traffic the residual swings both ways, because the counter and the sockets are read one after the other. Only
/// one that stays on its side is none of that.
fn unattributed(seen: Seen<'_>) -> Option<Finding> {
    // The counter is of all namespaces: whoever does not see them all misses their sockets.
    if !seen.sample.is_of_whole_host {
        return None;
    }
    let points = lasting(seen, seen.stall_after)?;
    let (memory, bound) = seen.sample.unattributed.zip(seen.sample.unattributed_bound)?;
    let is_beyond = |point: &Point| {
        beyond_bound(point).is_some_and(|beyond| beyond != 0 && beyond.signum() == memory.signum())
    };
    if !points.iter().all(|point| is_beyond(point)) {
        return None;
    }
    let hidden = seen.host.hidden_sockets.unwrap_or_default();
    let is_hidden = memory > 0 && points.iter().all(|point| point.hidden_sockets > Some(0));
    let held = human::signed_bytes(memory);
    let (kind, severity, summary) = if is_hidden {
        let sockets = human::count(hidden, "socket");
        let summary = format!("{sockets} that no table shows may hold {held}.");
        (FindingKind::HiddenMemory, Severity::Warning, summary)
    } else if memory > 0 {
        let summary = format!("{held} of TCP memory are in no socket that the kernel shows.");
        (FindingKind::UnattributedMemory, Severity::Notice, summary)
    } else {
        let more = human::bytes(memory.unsigned_abs());
        let summary = format!("Sockets hold {more} more than the kernel counts as TCP memory.");
        (FindingKind::UnattributedMemory, Severity::Notice, summary)
    };
    let (since, at_the_latest) = since(seen, is_beyond);
    let advice = if memory > 0 {
        vec![
            run(
                "See whether namespaces are held only by an open descriptor, which hides their sockets.",
                "lsns -t net",
            ),
            consider(
                "A process whose connection was reset keeps unread data in a socket that is in no table until it closes it; \
                 so do kernel services such as NFS and iSCSI.",
            ),
        ]
    } else {
        vec![run(
            "Sockets may be exempt from the counter (net.core.bypass_prot_mem, Linux 6.19 and later).",
            "sysctl -a --pattern bypass_prot_mem",
        )]
    };
    let text = format!("{held} beyond the sockets; up to {} is the kernel's accounting", human::bytes(bound));
    let hidden_text = format!("{} in no table", human::count(hidden, "socket"));
    Some(Finding {
        memory_bytes: memory,
        sockets: if is_hidden { hidden } else { 0 },
        since,
        since_is_at_the_latest: at_the_latest,
        evidence: vec![
            Fact::new("unattributed_memory", memory as f64, Unit::Bytes, text),
            Fact::new("hidden_sockets", hidden as f64, Unit::Count, hidden_text),
        ],
        advice,
        ..about(kind, severity, summary)
    })
}

fn window_scaling(seen: Seen<'_>) -> Option<Finding> {
    let summary =
        "Window scaling is off: no window exceeds 64 KiB, so buffers beyond that stay unused and transfers \
                   over distance are slow."
            .to_owned();
    (seen.host.window_scaling == Some(false)).then(|| Finding {
        evidence: vec![Fact::new(
            "window_scaling",
            0.0,
            Unit::Count,
            "net.ipv4.tcp_window_scaling is 0".to_owned(),
        )],
        advice: vec![run("Switch it on; new connections use it.", "sysctl -w net.ipv4.tcp_window_scaling=1")],
        ..about(FindingKind::WindowScalingOff, Severity::Notice, summary)
    })
}

fn autotuning(seen: Seen<'_>) -> Option<Finding> {
    let summary =
        "Receive buffer autotuning is off: buffers stay at their default size, whatever a connection needs."
            .to_owned();
    (seen.host.receive_autotuning == Some(false)).then(|| Finding {
        evidence: vec![Fact::new(
            "autotuning",
            0.0,
            Unit::Count,
            "net.ipv4.tcp_moderate_rcvbuf is 0".to_owned(),
        )],
        advice: vec![run("Switch it on.", "sysctl -w net.ipv4.tcp_moderate_rcvbuf=1")],
        ..about(FindingKind::AutotuningOff, Severity::Notice, summary)
    })
}

/// A process whose sockets hold far more than it does itself, without being stalled: the answer to why its RSS shows
/// nothing. Whoever is stalled has a finding that says more.
fn above_rss(seen: Seen<'_>, row: &ProcessRow) -> Option<Finding> {
    let ProcessName::One { pid, comm } = &row.name else { return None };
    let stalls = Cause::ALL.into_iter().zip(&row.sums.by_cause);
    if stalls.into_iter().any(|(cause, sums)| is_worth_a_finding(cause, sums, &row.worst)) {
        return None;
    }
    let is_far = |owner: &OwnerPoint| {
        let memory = u64::try_from(owner.memory_bytes).unwrap_or(0);
        let resident = owner.resident_bytes;
        memory >= FAR_ABOVE_FLOOR && resident.is_some_and(|resident| memory >= FAR_ABOVE * resident)
    };
    let was_far = |point: &Point| point.owners.iter().any(|owner| owner.pid == *pid && is_far(owner));
    if !lasting(seen, seen.stall_after)?.into_iter().all(was_far) {
        return None;
    }
    let (memory, resident) = (row.sums.memory, row.resident_memory?);
    let (since, at_the_latest) = since(seen, was_far);
    let summary = format!(
        "{comm} (pid {pid}) holds {} of TCP memory and has an RSS of {} only; its data is on its way.",
        human::signed_bytes(memory),
        human::bytes(resident)
    );
    Some(Finding {
        subject: Subject::Process { pid: *pid, process: comm.clone() },
        memory_bytes: memory,
        sockets: row.sums.sockets.iter().sum(),
        since,
        since_is_at_the_latest: at_the_latest,
        evidence: vec![
            Fact::new(
                "tcp_memory",
                memory as f64,
                Unit::Bytes,
                format!("{} of TCP memory", human::signed_bytes(memory)),
            ),
            Fact::new(
                "resident_memory",
                resident as f64,
                Unit::Bytes,
                format!("{} of RSS", human::bytes(resident)),
            ),
        ],
        connections: row.worst.connections.iter().take(KEPT_MAX).cloned().collect(),
        advice: vec![
            consider("Count both when you size it: a container pays for its sockets too (memory.stat sock)."),
            run("See its connections.", format!("nsenter -t {pid} -n ss -tmnipO | grep pid={pid},")),
        ],
        ..about(FindingKind::MemoryAboveRss, Severity::Notice, summary)
    })
}

pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
