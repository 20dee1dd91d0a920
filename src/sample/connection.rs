//! Single sockets: the few of each owner that an engineer would look at first.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cause, TcpState};
use crate::tcp_info::TcpInfo;

/// One connection, as the newest sample shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Inode of its network namespace.
    pub namespace: u64,
    /// Local address and port; null where the reader may not know it.
    pub local: Option<SocketAddr>,
    /// Remote address and port; null where the reader may not know it.
    pub remote: Option<SocketAddr>,
    /// State, as the kernel has it.
    pub state: TcpState,
    /// Whether it waits in an accept queue.
    pub is_queued: bool,
    /// rmem_alloc + wmem_queued + forward_alloc, bytes.
    pub memory_bytes: i64,
    /// rmem_alloc, bytes.
    pub receive_memory_bytes: u32,
    /// wmem_queued, bytes.
    pub send_memory_bytes: u32,
    /// Unread payload, bytes; an unread end of stream counts 1.
    pub receive_queue_bytes: u32,
    /// Unacknowledged payload, bytes.
    pub send_queue_bytes: u32,
    /// sk_rcvbuf: how far its receive memory may grow now, bytes.
    pub receive_buffer_bytes: u32,
    /// Why the larger part of its memory is held.
    pub cause: Cause,
    /// How long nothing has moved, seconds; 0 for what is active.
    #[serde(with = "seconds", rename = "stalledSeconds")]
    #[schemars(with = "f64")]
    pub stalled: Duration,
    /// What tcp_info said in this sample, where it was asked and answered.
    pub tcp_info: Option<TcpInfo>,
}

/// A listener with connections that nobody has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerQueue {
    /// Inode of its network namespace.
    pub namespace: u64,
    /// Where it listens.
    pub local: SocketAddr,
    /// Connections in its accept queue (idiag_rqueue of a listener).
    pub waiting: u32,
    /// How many it may hold (idiag_wqueue of a listener).
    pub limit: u32,
}

impl ListenerQueue {
    /// Whether the next connection is turned away: the kernel does so once the queue is longer than its limit.
    pub fn is_full(&self) -> bool {
        self.waiting > self.limit
    }
}

/// The sockets of one owner that say most: bounded, whatever it holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Worst {
    /// Stalled ones first, then by memory.
    pub connections: Vec<Connection>,
    /// Longest queue first.
    pub listeners: Vec<ListenerQueue>,
}

/// Durations as seconds, the unit of everything that leaves the exporter.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes seconds.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    /// Reads seconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}
