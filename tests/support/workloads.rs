//! What real programs do with their connections, and what the exporter must say of them: the table from which
//! `tests/live/workloads.rs` runs, and which docs/causes.md shows. `tests/programs/workloads.py` has the programs.

use skmem_exporter::sample::Cause;

/// Two programs with connections to each other. Not all who read the table need all of it.
#[allow(dead_code)]
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// What the program does, as a name.
    pub name: &'static str,
    pub place: Place,
    /// The program that listens.
    pub program: End,
    /// The one that connects to it.
    pub peer: End,
}

/// One of the two.
#[allow(dead_code)]
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// In words.
    pub does: &'static str,
    /// Why all of its memory is held; `None` where it has no socket of its own to hold any.
    pub said: Option<Cause>,
    /// Why else it may be held before that.
    pub before: Cause,
    /// Memory that it must have shown at some time, bytes: who holds nothing is not accused of anything.
    pub holds: i64,
}

/// What lies between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Loopback,
    /// A TUN device, whose other end the peer itself is.
    Tun,
    /// Two namespaces with a pair of veth devices between them, which is cut at some time.
    CutWire,
    /// The same, not cut, at two megabits a second.
    SlowWire,
}

const fn end(does: &'static str, said: Cause, holds: i64) -> End {
    End { does, said: Some(said), before: Cause::Active, holds }
}

const fn gone(does: &'static str) -> End {
    End { does, said: None, before: Cause::Active, holds: 0 }
}

const fn on_loopback(name: &'static str, program: End, peer: End) -> Workload {
    Workload { name, place: Place::Loopback, program, peer }
}

/// Programs with something to be accused of.
pub const CULPRITS: &[Workload] = &[
    on_loopback(
        "never_reads",
        end("accepts and never calls recv()", Cause::NotReading, 50_000),
        end("sends until nothing more goes", Cause::PeerNotReading, 1_000_000),
    ),
    on_loopback(
        "only_peeks",
        end("calls recv(MSG_PEEK) every 100 ms and nothing else", Cause::NotReading, 20_000),
        end("sends 20 kB once", Cause::Active, 0),
    ),
    on_loopback(
        "never_reads_small_messages",
        end("sets SO_RCVBUF to 8 kB and never calls recv()", Cause::NotReading, 4096),
        end("sends single bytes until nothing more goes", Cause::PeerNotReading, 4096),
    ),
    on_loopback(
        "reads_slowly",
        end("reads 20 kB every 230 ms", Cause::SlowReading, 50_000),
        end("sends as much as goes", Cause::Active, 1_000_000),
    ),
    on_loopback(
        "never_accepts",
        end("listens and never calls accept()", Cause::AcceptQueue, 30_000),
        end("opens three connections and sends 10 kB on each", Cause::Active, 0),
    ),
    on_loopback(
        "ignores_the_end",
        end("accepts and never calls recv()", Cause::CloseWait, 20_000),
        gone("sends 20 kB and closes"),
    ),
    on_loopback(
        "leaks_connections",
        end("accepts fifty connections and forgets them", Cause::CloseWait, 50 * 4096),
        gone("closes them without having sent anything"),
    ),
    on_loopback(
        "shuts_and_forgets",
        end("calls shutdown(SHUT_WR) and never recv()", Cause::HalfClosed, 20_000),
        end("sends 20 kB, reads the end of the stream and keeps the socket", Cause::CloseWait, 0),
    ),
    Workload {
        name: "waits_behind_a_hole",
        place: Place::Tun,
        program: end("reads whatever comes", Cause::OutOfOrder, 40_000),
        peer: gone("leaves the first byte out of 40 kB"),
    },
    Workload {
        name: "hoards_small_segments",
        place: Place::Tun,
        program: end("reads 10 bytes every 100 ms", Cause::SmallSegments, 50_000),
        peer: gone("sends 10 kB in segments of 100 bytes, the first one late"),
    },
    Workload {
        name: "loses_its_path",
        place: Place::CutWire,
        program: end("sends as much as goes", Cause::PathStalled, 100_000),
        peer: end("reads it until the cable is cut", Cause::Active, 0),
    },
    Workload {
        name: "loses_its_path_with_the_window_closed",
        place: Place::CutWire,
        program: End {
            before: Cause::PeerNotReading,
            ..end("sends until nothing more goes", Cause::PathStalled, 100_000)
        },
        peer: end("never calls recv(), and then the cable is cut", Cause::NotReading, 50_000),
    },
];

/// Programs that somebody in a hurry might accuse.
pub const INNOCENTS: &[Workload] = &[
    on_loopback(
        "reads_bursts_late",
        end("lets each burst lie for 800 ms and reads it whole", Cause::Active, 50_000),
        end("sends 50 kB every 1.2 s", Cause::Active, 0),
    ),
    on_loopback(
        "forgets_ten_bytes",
        end("accepts and never calls recv()", Cause::Active, 4096),
        end("sends ten bytes", Cause::Active, 0),
    ),
    on_loopback(
        "keeps_connections_idle",
        end("has answered one request on each of 500 connections", Cause::Active, 0),
        end("keeps them alive", Cause::Active, 0),
    ),
    on_loopback(
        "reads_saturated_flows",
        end("reads two flows as they come", Cause::Active, 50_000),
        end("sends as much as goes on both", Cause::Active, 50_000),
    ),
    on_loopback(
        "keeps_a_small_buffer_full",
        end("sets SO_RCVBUF to 100 kB and reads as it comes", Cause::Active, 50_000),
        end("sends as much as goes", Cause::Active, 50_000),
    ),
    on_loopback(
        "serves_requests",
        end("answers requests of 1 kB with 20 kB", Cause::Active, 0),
        end("sends a hundred of them a second on one connection", Cause::Active, 0),
    ),
    on_loopback(
        "serves_new_connections",
        end("accepts, answers and closes", Cause::Active, 0),
        end("opens fifty connections a second for one request each", Cause::Active, 0),
    ),
    on_loopback(
        "accepts_once_a_second",
        end("calls accept() once a second for all that wait", Cause::Active, 4096),
        end("opens ten connections a second for one request each", Cause::Active, 0),
    ),
    on_loopback(
        "reads_to_the_end_and_closes",
        end("reads to the end of the stream, works for 300 ms, answers and closes", Cause::Active, 0),
        end("uploads 10 kB ten times a second, calls shutdown(SHUT_WR) and waits", Cause::Active, 0),
    ),
    on_loopback(
        "reads_slowly_to_the_last",
        end("reads 1 kB every 20 ms", Cause::Active, 4096),
        end("sends 30 kB every 1.3 s", Cause::Active, 0),
    ),
    on_loopback(
        "answers_a_half_closed_peer",
        end("sends 20 kB every 300 ms and does not look for the end of the stream", Cause::Active, 0),
        end("sends a request, calls shutdown(SHUT_WR) and reads", Cause::Active, 0),
    ),
    on_loopback(
        "reads_small_messages",
        end("reads whatever comes", Cause::Active, 0),
        end("sends 10,000 messages of 20 bytes a second", Cause::Active, 0),
    ),
    Workload {
        name: "is_interrupted_while_it_sends",
        place: Place::SlowWire,
        program: end(
            "sends as much as goes, which is 2 Mbit/s, and lets each message lie for 1.5 s",
            Cause::Active,
            50_000,
        ),
        peer: end("reads it, and sends a message of 20 kB every 5 s", Cause::Active, 0),
    },
    Workload {
        name: "reads_what_was_reordered",
        place: Place::Tun,
        program: end("reads whatever comes", Cause::Active, 20_000),
        peer: gone("sends 100 kB a second, one byte always 200 ms late"),
    },
    Workload {
        name: "sends_down_a_slow_path",
        place: Place::SlowWire,
        program: end("sends as much as goes, which is 2 Mbit/s", Cause::Active, 50_000),
        peer: end("reads whatever comes", Cause::Active, 0),
    },
];
