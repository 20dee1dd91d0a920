//! From samples to a report.

use std::time::Duration;

use super::{
    BufferSizes, CauseReport, Generator, HostReport, Levels, Mode, ProcessReport, Report, SCHEMA_VERSION,
    Watch,
};
use crate::finding::{self, Finding, Seen, Severity, Subject};
use crate::human;
use crate::predicament::Activity;
use crate::sample::{
    BlindSpot, BufferLevels, Cause, Exposed, HostFigures, OTHER, OwnerClass, ProcessName, ProcessRow, Sample,
    TcpState,
};
use crate::series::{Attribution, Series};
use crate::worst::KEPT_MAX;

/// What does not change while a program runs.
#[derive(Debug, Clone)]
pub struct Context {
    /// Who makes the report.
    pub mode: Mode,
    /// The host's name.
    pub hostname: String,
    /// Between two samples.
    pub interval: Duration,
    /// From when on a socket that does not move counts as stalled.
    pub stall_after: Duration,
    /// What the host does not let us see.
    pub missing: Vec<BlindSpot>,
}

/// The report on what `series` and the newest `exposed` show.
pub fn compose(context: &Context, series: &Series, exposed: &Exposed) -> Report {
    let host = &exposed.host;
    let sample = exposed.sample.as_deref();
    let findings = sample.map_or_else(Vec::new, |sample| {
        finding::find(Seen { series, host, sample, stall_after: context.stall_after })
    });
    Report {
        schema_version: SCHEMA_VERSION,
        generator: Generator {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: context.mode,
        },
        hostname: context.hostname.clone(),
        timestamp: sample.map(|sample| sample.timestamp),
        watch: Watch {
            seconds: series.watched().as_secs_f64(),
            samples: series.samples(),
            interval_seconds: context.interval.as_secs_f64(),
            stall_after_seconds: context.stall_after.as_secs_f64(),
        },
        is_healthy: sample.is_some() && findings.is_empty(),
        verdict: verdict(context, series, host, sample, &findings),
        host: host_report(host, sample),
        processes: sample.map_or_else(Vec::new, |sample| sample.processes.iter().map(process).collect()),
        processes_truncated: sample.map_or(0, |sample| sample.processes_truncated),
        are_addresses_hidden: false,
        blind_spots: blind_spots(context, exposed),
        history: series.points().cloned().collect(),
        findings,
    }
}

fn verdict(
    context: &Context,
    series: &Series,
    host: &HostFigures,
    sample: Option<&Sample>,
    findings: &[Finding],
) -> String {
    if sample.is_none() {
        return "Not known yet: there is no complete sample.".to_owned();
    }
    let Some(first) = findings.first() else {
        let held = host.tcp_memory.map_or("an unknown amount".to_owned(), human::bytes);
        let of = host.tcp_memory_limit.and_then(|levels| {
            Some(format!(", {} of the maximum", human::percent(host.tcp_memory?, levels.max)?))
        });
        let of = of.unwrap_or_default();
        if series.watched() < context.stall_after {
            let (watched, needed) = (human::duration(series.watched()), human::duration(context.stall_after));
            return format!(
                "Nothing wrong so far: TCP holds {held}{of}. Watched for {watched}; a stall shows after {needed}."
            );
        }
        return format!("Healthy: TCP holds {held}{of}, and nobody who holds it has stopped.");
    };
    // The state of the host is the headline; whoever caused it is the answer.
    let culprit = findings.iter().find(|finding| finding.subject != Subject::Host);
    match culprit {
        Some(culprit) if first.subject == Subject::Host && first.severity == Severity::Critical => {
            format!("{} {}", first.summary, culprit.summary)
        }
        Some(culprit) => culprit.summary.clone(),
        None => first.summary.clone(),
    }
}

fn host_report(host: &HostFigures, sample: Option<&Sample>) -> HostReport {
    let whole = sample.filter(|sample| sample.is_of_whole_host);
    let sizes = |levels: BufferLevels| BufferSizes {
        min_bytes: levels.min,
        default_bytes: levels.default,
        max_bytes: levels.max,
    };
    let sockets = sample.into_iter().flat_map(|sample| {
        TcpState::ALL.into_iter().map(|state| {
            let count = match state {
                TcpState::TimeWait => host.time_wait_sockets.unwrap_or_default(),
                _ => sample.states[state.index()],
            };
            (state.label().to_owned(), count)
        })
    });
    HostReport {
        tcp_memory_bytes: host.tcp_memory,
        tcp_memory_limit: host.tcp_memory_limit.map(|levels| Levels {
            min_bytes: levels.min,
            pressure_bytes: levels.pressure,
            max_bytes: levels.max,
        }),
        memory_pressure: host.memory_pressure,
        held: Attribution {
            // Of a part of the host it would be the other parts' sockets.
            unattributed_bytes: whole.and_then(|sample| sample.unattributed),
            ..sample.map(Attribution::of).unwrap_or_default()
        },
        sockets_allocated: host.sockets_allocated,
        orphan_sockets: host.orphan_sockets,
        orphan_sockets_limit: host.orphan_sockets_limit,
        hidden_sockets: whole.and(host.hidden_sockets),
        sockets: sockets.collect(),
        receive_buffer_limit: host.receive_buffer_limit.map(sizes),
        send_buffer_limit: host.send_buffer_limit.map(sizes),
        window_scaling: host.window_scaling,
        receive_autotuning: host.receive_autotuning,
    }
}

fn process(row: &ProcessRow) -> ProcessReport {
    let (pid, process) = match &row.name {
        ProcessName::One { pid, comm } => (Some(*pid), comm.clone()),
        ProcessName::Other => (None, OTHER.to_owned()),
    };
    let sums = &row.sums;
    let causes = Cause::ALL.into_iter().zip(&sums.by_cause);
    let info = row.info.clone().unwrap_or_default();
    ProcessReport {
        pid,
        process,
        memory_bytes: sums.memory,
        receive_memory_bytes: sums.receive_memory,
        send_memory_bytes: sums.send_memory,
        receive_queue_bytes: sums.receive_queue,
        send_queue_bytes: sums.send_queue,
        sockets: sums.sockets.iter().sum(),
        accept_queue_connections: sums.accept_queue_connections,
        resident_bytes: row.resident_memory,
        stalled_since: row.stall_start,
        causes: causes
            .filter(|(_, sums)| sums.memory != 0 || sums.sockets > 0)
            .map(|(cause, sums)| CauseReport {
                cause,
                memory_bytes: sums.memory,
                sockets: sums.sockets,
                stalled_seconds: sums.stalled.as_secs_f64(),
            })
            .collect(),
        cgroup: info.cgroup,
        systemd_unit: info.systemd_unit,
        container_id: info.container_id,
        pod_uid: info.pod_uid,
        predicament: row.activity.as_ref().map(Activity::predicament),
        activity: row.activity.clone(),
        connections: row.worst.connections.iter().take(KEPT_MAX).cloned().collect(),
        listeners: row.worst.listeners.clone(),
    }
}

/// Memory that nobody can be named for, from which on that is worth telling. Bytes.
const UNRESOLVED_TOLD: i64 = 1 << 20;

fn blind_spots(context: &Context, exposed: &Exposed) -> Vec<BlindSpot> {
    let mut spots: Vec<BlindSpot> = context.missing.iter().chain(&exposed.faults).cloned().collect();
    let mut tell = |what: String, cure: Option<&str>| {
        spots.push(BlindSpot { what, cure: cure.map(str::to_owned) });
    };
    let failed = exposed.exporter.namespaces.failed;
    if failed > 0 {
        let what = format!("{} could not be entered.", human::count(failed, "network namespace"));
        tell(what, Some("give CAP_SYS_ADMIN and CAP_SYS_PTRACE, or run as root"));
    }
    let Some(sample) = exposed.sample.as_deref() else { return spots };
    let unresolved = sample.attributed[OwnerClass::Unresolved as usize];
    if unresolved >= UNRESOLVED_TOLD {
        tell(
            format!("{} are held by nobody we can see.", human::signed_bytes(unresolved)),
            Some(
                "run as root, or with CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE, and in the host's pid namespace",
            ),
        );
    }
    if sample.unasked > 0 {
        let what = human::count(sample.unasked, "socket");
        let why = "could not be asked why (too many, or locked); that memory counts as active.";
        tell(format!("{what} held memory and {why}"), None);
    }
    if sample.processes_truncated > 0 {
        let what = human::count(sample.processes_truncated, "process row");
        tell(format!("There was no place for {what}."), Some("raise --process.max"));
    }
    spots
}
