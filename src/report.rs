//! The answer as data: what `diagnose` prints, the status page shows and `/api/v1/report` serves. Pure.
//!
//! The JSON is a public surface: `docs/report.schema.json` is made from these types. Adding a field leaves
//! [`SCHEMA_VERSION`] as it is; removing one, or changing what one means, raises it.

mod compose;
pub mod text;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::predicament::{Activity, Predicament};
use crate::sample::{BlindSpot, Cause, Connection, ListenerQueue};
use crate::series::{Attribution, Point};

pub use compose::{Context, compose};

/// The version of the schema, raised by a change that a reader has to know of.
pub const SCHEMA_VERSION: u32 = 1;

/// Who holds the host's TCP memory, why, and what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this schema.
    pub schema_version: u32,
    /// Who says so.
    pub generator: Generator,
    /// The host's name (/proc/sys/kernel/hostname).
    pub hostname: String,
    /// When the newest complete sample was taken, seconds since the epoch; null before the first.
    pub timestamp: Option<f64>,
    /// How long and how often it has looked.
    pub watch: Watch,
    /// Whether there is no finding.
    pub is_healthy: bool,
    /// The answer in one sentence.
    pub verdict: String,
    /// The host's own figures.
    pub host: HostReport,
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
    /// Who holds TCP memory, largest first; the last row is all processes without one of their own.
    pub processes: Vec<ProcessReport>,
    /// Processes that deserved a row and found no place within --process.max.
    pub processes_truncated: u64,
    /// Whether addresses of connections are left out because of who asks.
    pub are_addresses_hidden: bool,
    /// What could not be seen, and the cure.
    pub blind_spots: Vec<BlindSpot>,
    /// The samples of the last hour, oldest first.
    pub history: Vec<Point>,
}

/// Who made a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Generator {
    /// `skmem-exporter`
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether a daemon or a single run made it.
    pub mode: Mode,
}

/// How a report came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A daemon that has watched the host.
    Daemon,
    /// `diagnose`, which has watched it for a short while.
    Diagnose,
}

/// How long and how often a report's maker has looked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// From the first complete sample to the newest, seconds.
    pub seconds: f64,
    /// Complete samples.
    pub samples: u64,
    /// Between two of them, seconds.
    pub interval_seconds: f64,
    /// Without movement for this long a socket counts as stalled, seconds.
    pub stall_after_seconds: f64,
}

/// The host, as the kernel counts it. Null: not readable here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// sockstat TCP mem, bytes.
    pub tcp_memory_bytes: Option<u64>,
    /// tcp_mem, bytes.
    pub tcp_memory_limit: Option<Levels>,
    /// Whether the kernel is in TCP memory pressure.
    pub memory_pressure: Option<bool>,
    /// Who holds it.
    #[serde(flatten)]
    pub held: Attribution,
    /// TCP sockets, host-wide.
    pub sockets_allocated: Option<u64>,
    /// Closed by their applications and not finished, host-wide.
    pub orphan_sockets: Option<u64>,
    /// tcp_max_orphans
    pub orphan_sockets_limit: Option<u64>,
    /// In no table that sock_diag can show.
    pub hidden_sockets: Option<u64>,
    /// By state, over all namespaces; the kernel's state names in lower case.
    pub sockets: BTreeMap<String, u64>,
    /// tcp_rmem, bytes.
    pub receive_buffer_limit: Option<BufferSizes>,
    /// tcp_wmem, bytes.
    pub send_buffer_limit: Option<BufferSizes>,
    /// tcp_window_scaling
    pub window_scaling: Option<bool>,
    /// tcp_moderate_rcvbuf
    pub receive_autotuning: Option<bool>,
}

/// tcp_mem, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Levels {
    /// Below this the kernel leaves memory pressure.
    pub min_bytes: u64,
    /// Above this it enters it.
    pub pressure_bytes: u64,
    /// Above this it refuses new buffers.
    pub max_bytes: u64,
}

/// tcp_rmem or tcp_wmem, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BufferSizes {
    /// Always granted.
    pub min_bytes: u64,
    /// A new socket's.
    pub default_bytes: u64,
    /// How far it may grow.
    pub max_bytes: u64,
}

/// One process, or all without a row of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessReport {
    /// Its pid; null for the row of all others.
    pub pid: Option<u32>,
    /// Its comm, bytes that are not UTF-8 as `\xNN`; `other` for the row of all others.
    pub process: String,
    /// r + w + f of its sockets, accept queues included, bytes.
    pub memory_bytes: i64,
    /// rmem_alloc, bytes.
    pub receive_memory_bytes: u64,
    /// wmem_queued, bytes.
    pub send_memory_bytes: u64,
    /// Unread payload, bytes.
    pub receive_queue_bytes: u64,
    /// Unacknowledged payload, bytes.
    pub send_queue_bytes: u64,
    /// Sockets.
    pub sockets: u64,
    /// Connections in its accept queues, which are among its sockets.
    pub accept_queue_connections: u64,
    /// RSS, bytes; null for the row of all others.
    pub resident_bytes: Option<u64>,
    /// Since when its oldest stalled socket has not moved, seconds since the epoch; null without one.
    pub stalled_since: Option<f64>,
    /// Its memory by cause; causes that hold nothing are left out.
    pub causes: Vec<CauseReport>,
    /// cgroup2 path, or the memory controller's; empty where it cannot be read.
    pub cgroup: String,
    /// systemd unit, or empty.
    pub systemd_unit: String,
    /// Container id, or empty.
    pub container_id: String,
    /// Kubernetes pod uid, or empty.
    pub pod_uid: String,
    /// What it is doing; null where its sockets do not stand still.
    pub activity: Option<Activity>,
    /// What that means.
    pub predicament: Option<Predicament>,
    /// Its sockets that say most, at most ten: stalled ones first, then by memory.
    pub connections: Vec<Connection>,
    /// Its listeners with the longest queues, at most ten.
    pub listeners: Vec<ListenerQueue>,
}

/// What one cause holds of a process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CauseReport {
    /// Why.
    pub cause: Cause,
    /// Bytes.
    pub memory_bytes: i64,
    /// Sockets.
    pub sockets: u64,
    /// For how long the oldest of them has not moved, seconds.
    pub stalled_seconds: f64,
}

impl Report {
    /// The same without addresses of connections, for somebody who may not know who talks to whom. Listeners stay:
    /// their addresses are the host's own.
    #[must_use]
    pub fn without_addresses(&self) -> Self {
        let mut report = self.clone();
        report.are_addresses_hidden = true;
        let findings = report.findings.iter_mut().map(|finding| &mut finding.connections);
        let processes = report.processes.iter_mut().map(|process| &mut process.connections);
        for connection in findings.chain(processes).flatten() {
            (connection.local, connection.remote) = (None, None);
        }
        report
    }

    /// The worst connections of all processes, worst first: stalled before active, then by memory.
    pub fn worst_connections(&self, most: usize) -> Vec<(&ProcessReport, &Connection)> {
        let mut all: Vec<_> = self
            .processes
            .iter()
            .flat_map(|process| process.connections.iter().map(move |connection| (process, connection)))
            .collect();
        all.sort_by_key(|(_, connection)| {
            std::cmp::Reverse((connection.cause != Cause::Active, connection.memory_bytes))
        });
        all.truncate(most);
        all
    }

    /// The JSON schema of a report.
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}
