//! What can be found; label values of `skmem_findings`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Cause;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum FindingKind {
    /// The kernel is in TCP memory pressure.
    MemoryPressure,
    /// TCP memory is above a level of tcp_mem, or nearly at its maximum.
    MemoryLevel,
    /// Connections are aborted for lack of TCP memory.
    MemoryAborts,
    /// A process does not read what has arrived.
    NotReading,
    /// A listener's connections are not accepted.
    AcceptQueue,
    /// A process does not close connections that the peer has closed.
    CloseWait,
    /// A process has half closed connections and does not read what still arrives.
    HalfClosed,
    /// A process reads more slowly than data arrives, at the limit of its buffers.
    SlowReading,
    /// Segments behind a hole that is not filled.
    OutOfOrder,
    /// Payload in tiny segments.
    SmallSegments,
    /// Peers do not read what a process sends.
    PeerNotReading,
    /// Nothing acknowledges what a process sends.
    PathStalled,
    /// Memory that no application holds any more: closed connections that cannot finish.
    OrphanMemory,
    /// The number of orphans is near its limit.
    OrphanSockets,
    /// Received segments are thrown away for lack of memory.
    ReceiveDrops,
    /// Memory rises while segments received stay flat.
    MemoryWithoutTraffic,
    /// Memory will cross the maximum soon if it goes on as it does.
    MemoryProjected,
    /// A process's TCP memory is far above its resident memory.
    MemoryAboveRss,
    /// Sockets that no table shows, and memory that no socket shows.
    HiddenMemory,
    /// Memory that no socket shows, beyond what the kernel's accounting explains.
    UnattributedMemory,
    /// Window scaling is off.
    WindowScalingOff,
    /// Receive buffer autotuning is off.
    AutotuningOff,
}

impl FindingKind {
    /// Every kind. Among findings of one severity this is the order in which they are told: what threatens the whole host,
    /// then whoever causes it, then its victims and signs.
    pub const ALL: [Self; 22] = [
        Self::MemoryPressure,
        Self::MemoryLevel,
        Self::MemoryAborts,
        Self::NotReading,
        Self::AcceptQueue,
        Self::CloseWait,
        Self::HalfClosed,
        Self::SlowReading,
        Self::OutOfOrder,
        Self::SmallSegments,
        Self::PeerNotReading,
        Self::PathStalled,
        Self::OrphanMemory,
        Self::OrphanSockets,
        Self::ReceiveDrops,
        Self::MemoryWithoutTraffic,
        Self::MemoryProjected,
        Self::MemoryAboveRss,
        Self::HiddenMemory,
        Self::UnattributedMemory,
        Self::WindowScalingOff,
        Self::AutotuningOff,
    ];

    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::MemoryPressure => "memory_pressure",
            Self::MemoryLevel => "memory_level",
            Self::MemoryAborts => "memory_aborts",
            Self::NotReading => "not_reading",
            Self::AcceptQueue => "accept_queue",
            Self::CloseWait => "close_wait",
            Self::HalfClosed => "half_closed",
            Self::SlowReading => "slow_reading",
            Self::OutOfOrder => "out_of_order",
            Self::SmallSegments => "small_segments",
            Self::PeerNotReading => "peer_not_reading",
            Self::PathStalled => "path_stalled",
            Self::OrphanMemory => "orphan_memory",
            Self::OrphanSockets => "orphan_sockets",
            Self::ReceiveDrops => "receive_drops",
            Self::MemoryWithoutTraffic => "memory_without_traffic",
            Self::MemoryProjected => "memory_projected",
            Self::MemoryAboveRss => "memory_above_rss",
            Self::HiddenMemory => "hidden_memory",
            Self::UnattributedMemory => "unattributed_memory",
            Self::WindowScalingOff => "window_scaling_off",
            Self::AutotuningOff => "autotuning_off",
        }
    }

    /// What a cause becomes when it is worth a finding; `None` for what is active.
    pub fn of_cause(cause: Cause) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == cause.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_but_active_is_a_kind_and_labels_are_what_json_says() {
        for cause in Cause::ALL {
            assert_eq!(FindingKind::of_cause(cause).is_none(), cause == Cause::Active, "{cause:?}");
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.label());
        }
        for (index, kind) in FindingKind::ALL.into_iter().enumerate() {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.label());
            assert_eq!(kind as usize, index);
        }
    }
}
