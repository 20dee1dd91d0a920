//! From what the samples have shown to what is wrong, with evidence and advice. One pure function: [`find`].
//!
//! A finding needs more than a cause: enough of it ([`is_worth_a_finding`]), so that nobody is called at night for a
//! forgotten kilobyte. The time it must have lasted is already in the cause, which is given after `--stall.after` only;
//! what is said of the host must have lasted as long.

mod advice;
mod host;
mod peers;
mod process;
#[cfg(test)]
mod tests;
mod trend;

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sample::{
    Cause, CauseSums, Connection, FindingKind, HostFigures, ListenerQueue, Sample, SocketSums, Worst,
};
use crate::series::Series;

pub use process::because;

/// Memory held for one cause that is worth a finding: half of what a new socket may hold (tcp_rmem's default), so that a
/// single connection that is not read is found and a forgotten response is not. Bytes.
pub const MEMORY_FLOOR: i64 = 64 * 1024;

/// Connections in CLOSE_WAIT that are worth a finding though they hold nothing: more than a pool of idle connections that
/// a server has just closed, well before a limit of 1,024 descriptors.
pub const LEAKED_FLOOR: u64 = 100;

/// Connections in an accept queue that are worth a finding though they hold little; a full queue always is.
pub const WAITING_FLOOR: u64 = 10;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The host is affected, or soon will be.
    Critical,
    /// Something is wrong, and will get worse.
    Warning,
    /// Worth knowing.
    Notice,
}

impl Severity {
    /// As it stands in reports.
    pub fn label(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// Whom a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Subject {
    /// A process.
    Process {
        /// Its pid.
        pid: u32,
        /// Its comm.
        process: String,
    },
    /// A listener of a process.
    Listener {
        /// The process's pid.
        pid: u32,
        /// Its comm.
        process: String,
        /// Where it listens: the one with the longest queue.
        address: SocketAddr,
    },
    /// Somebody whom the exporter may not see, or cannot.
    Unresolved,
    /// Sockets that their applications have closed.
    Orphans,
    /// The host as a whole.
    Host,
}

impl Subject {
    /// The process in question.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Process { pid, .. } | Self::Listener { pid, .. } => Some(*pid),
            Self::Unresolved | Self::Orphans | Self::Host => None,
        }
    }
}

/// What a fact's number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Anything counted.
    Count,
    /// A part of one.
    Ratio,
    /// Each second.
    PerSecond,
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// What the number is, in snake_case.
    pub name: String,
    /// The number.
    pub value: f64,
    /// What it counts.
    pub unit: Unit,
    /// The same as a sentence fragment.
    pub text: String,
}

impl Fact {
    fn new(name: &str, value: f64, unit: Unit, text: String) -> Self {
        Self { name: name.to_owned(), value, unit, text }
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Advice {
    /// What, and why.
    pub text: String,
    /// The command that does it, to be run as root; null where there is none.
    pub command: Option<String>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// How bad it is.
    pub severity: Severity,
    /// Whom it is about.
    pub subject: Subject,
    /// Memory concerned, bytes; 0 where none is.
    pub memory_bytes: i64,
    /// What it makes others on this host hold, as far as their worst connections show, bytes: data that they send to it.
    pub pinned_bytes: i64,
    /// Sockets concerned.
    pub sockets: u64,
    /// Since when, seconds since the epoch; null where that is not known.
    pub since: Option<f64>,
    /// Whether it may have begun before `since`: it was there already when watching began.
    pub since_is_at_the_latest: bool,
    /// One or two sentences that say it all.
    pub summary: String,
    /// What shows it.
    pub evidence: Vec<Fact>,
    /// The connections concerned that hold most, at most ten.
    pub connections: Vec<Connection>,
    /// The listeners concerned with the longest queues, at most ten.
    pub listeners: Vec<ListenerQueue>,
    /// What to do, in order.
    pub advice: Vec<Advice>,
}

/// Everything there is to judge from.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The samples of the last hour.
    pub series: &'a Series,
    /// The host at the newest attempt.
    pub host: &'a HostFigures,
    /// The newest complete sample.
    pub sample: &'a Sample,
    /// `--stall.after`
    pub stall_after: Duration,
}

impl Seen<'_> {
    /// How close to the beginning of watching something must have begun that it may have begun before: two samples, as
    /// the first only shows that something is there and the second that it still is.
    fn may_have_begun_before(&self, lasted: Duration) -> bool {
        let began = self.series.points().take(3).map(|point| point.timestamp);
        let slack =
            began.clone().next_back().zip(began.clone().next()).map_or(0.0, |(last, first)| last - first);
        lasted.as_secs_f64() + slack >= self.series.watched().as_secs_f64()
    }
}

/// What is wrong, worst first; empty where nothing is.
pub fn find(seen: Seen<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        seen.sample.processes.iter().flat_map(|row| process::find(seen, row)).collect();
    findings.extend(process::find_unresolved(seen));
    findings.extend(host::find(seen));
    findings.extend(trend::find(seen));
    peers::link(&mut findings);
    findings.sort_by_key(|finding| {
        let memory = finding.memory_bytes + finding.pinned_bytes;
        (finding.severity, finding.kind, Reverse(memory), Reverse(finding.sockets))
    });
    findings
}

/// Whether what a process holds for a cause is worth a finding.
pub fn is_worth_a_finding(cause: Cause, sums: &CauseSums, worst: &Worst) -> bool {
    let enough_memory = sums.memory >= MEMORY_FLOOR;
    match cause {
        Cause::Active => false,
        Cause::CloseWait => enough_memory || sums.sockets >= LEAKED_FLOOR,
        Cause::AcceptQueue => {
            let is_full = sums.sockets > 0 && worst.listeners.iter().any(ListenerQueue::is_full);
            enough_memory || sums.sockets >= WAITING_FLOOR || is_full
        }
        _ => enough_memory,
    }
}

/// Whether a process has a finding, and so deserves a row however little it holds.
pub fn has_finding(sums: &SocketSums, worst: &Worst) -> bool {
    Cause::ALL.into_iter().zip(&sums.by_cause).any(|(cause, sums)| is_worth_a_finding(cause, sums, worst))
}
