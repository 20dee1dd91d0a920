//! Why a socket holds its memory: one pure function from what successive samples have shown.
//!
//! A socket's receive memory and its send memory are judged apart, each by the first row that fits. `T` is `--stall.after`.
//!
//! | cause | state | test | why so |
//! |---|---|---|---|
//! | `accept_queue` | waits in an accept queue | has waited for `T` | a server that accepts takes milliseconds |
//! | `close_wait` | CLOSE_WAIT with a file | at most the FIN is unread, and nothing has been sent, for `T`; or payload is unread and consumption has not moved for `T` | the application has been told that the peer is gone |
//! | `half_closed` | FIN_WAIT2 with a file, payload and [`FLOOR`] bytes of memory for `T` | consumption has not moved for `T` | shutdown(), then nobody read on |
//! | `not_reading` | payload and [`FLOOR`] bytes of memory for `T` | consumption has not moved for `T` | recv() moves it, MSG_PEEK does not |
//! | `small_segments` | memory [`HOARD`] times the payload, [`FLOOR`] bytes for `T` | mean segment below [`SMALL_SEGMENT`] bytes, and some of the payload has been unread for `T` | each segment costs a buffer of its own |
//! | `out_of_order` | memory [`HOARD`] times the payload, [`FLOOR`] bytes for `T` | segments arrived out of order, and for `T` less in order than 1/[`HOARD`] of the memory | the queue of readable data is short, the rest is behind a hole |
//! | `slow_reading` | payload and [`FLOOR`] bytes of memory for `T` | it holds more than is read in [`LINGER_MS`] ms, and in two of the last eight answers window or buffer was the limit too | the sender could send more, the reader does not keep up |
//! | `peer_not_reading` | send memory of [`FLOOR`] bytes for `T` | nothing acknowledged for `T`, the peer's window is closed, and it answers | its application does not read |
//! | `path_stalled` | send memory of [`FLOOR`] bytes for `T` | nothing acknowledged for `T`, retransmissions or window probes, no ack for `T` | the peer or the path is dead |
//! | `active` | everything else | | data on its way |
//!
//! Whatever needs tcp_info and has none is `active`: nobody is accused for want of evidence.

use std::time::Duration;

use crate::sample::{Cause, TcpState};
use crate::socket::Socket;
use crate::tcp_info::TcpInfo;

/// Less memory than a page is nobody's trouble: ten forgotten bytes occupy a buffer of 768.
pub const FLOOR: u32 = 4096;

/// Receive memory that is this many times the unread payload is not payload. In-order segments of 1,448 bytes cost 1.6
/// times their payload and partly read GSO segments up to 3.3; single bytes cost 5 to 800.
pub const HOARD: u64 = 4;

/// Mean payload of a segment below which its overhead is the memory: a buffer costs some 800 bytes whatever it holds.
pub const SMALL_SEGMENT: u64 = 200;

/// A flow that is read as it comes fills its buffer too where the sender is the faster, but is through with it in some 10
/// ms. What takes longer than this to be read is memory that lies.
pub const LINGER_MS: u128 = 200;

/// A receive buffer that is this full, in eighths, has no window worth offering.
const FULL_EIGHTHS: u64 = 7;

/// What successive samples have shown of a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// How long it has been followed in its present state.
    pub in_state: Duration,
    /// How long every sample has shown unread payload or receive memory.
    pub receiving: Duration,
    /// How long every sample has shown unacknowledged payload.
    pub sending: Duration,
    /// What tcp_info said, if it was asked in this sample and answered.
    pub answer: Option<Answer>,
}

/// What tcp_info said in this sample, and what that means beside earlier answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer {
    /// The newest.
    pub info: TcpInfo,
    /// How long consumption has not moved; zero at the first answer.
    pub not_consumed: Duration,
    /// How long nothing has been acknowledged; zero at the first answer.
    pub not_acked: Duration,
    /// How long it has been asked already; zero at the first answer.
    pub watched: Duration,
    /// How long some of what is unread has been unread; zero at the first answer.
    pub lying: Duration,
    /// How long the memory has been a multiple of the payload, and less has arrived in order than would make it none; zero
    /// at the first answer.
    pub not_filled: Duration,
    /// Whether the reader is behind, and in two of the last eight answers window or buffer was the limit too.
    pub is_limited: bool,
}

/// Why one part of a socket's memory is held, and for how long that has been so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub cause: Cause,
    /// How long nothing has moved; zero for what is active.
    pub stalled: Duration,
}

impl Verdict {
    /// Data on its way.
    pub const ACTIVE: Self = Self { cause: Cause::Active, stalled: Duration::ZERO };

    fn new(cause: Cause, stalled: Duration) -> Self {
        Self { cause, stalled }
    }
}

/// Why the two parts of a socket's memory are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdicts {
    /// Of its receive memory.
    pub receive: Verdict,
    /// Of its send memory.
    pub send: Verdict,
}

impl Verdicts {
    /// Data on its way, both ways.
    pub const ACTIVE: Self = Self { receive: Verdict::ACTIVE, send: Verdict::ACTIVE };
}

/// Whether more is held than `read`, which is what was read in `elapsed`, lets expect to be read in [`LINGER_MS`]. What is
/// held counts and not what is unread of it: a buffer is given back when its last byte is read.
pub fn lingers(rmem_alloc: u32, read: u64, elapsed: Duration) -> bool {
    u128::from(rmem_alloc) * elapsed.as_millis() >= u128::from(read) * LINGER_MS
}

/// Whether the receiver's window or buffer is what limits the sender.
pub fn is_limited(info: &TcpInfo, rmem_alloc: u32, rcvbuf: u32) -> bool {
    let is_full = u64::from(rmem_alloc) * 8 >= u64::from(rcvbuf) * FULL_EIGHTHS;
    // A window below a segment is a closed one. Kernels before 6.2 do not tell it.
    is_full || info.receive_window.is_some_and(|window| window < info.receive_mss)
}

/// Judges one socket. `is_queued`: it waits in an accept queue.
pub fn judge(socket: &Socket, is_queued: bool, history: &History, stall_after: Duration) -> Verdicts {
    if is_queued {
        let verdict = lasting(Cause::AcceptQueue, history.in_state, stall_after);
        return Verdicts { receive: verdict, send: verdict };
    }
    Verdicts {
        receive: judge_receiving(socket, history, stall_after),
        send: judge_sending(socket, history.answer.as_ref(), history.sending, stall_after),
    }
}

/// `cause` once it has lasted for long enough.
fn lasting(cause: Cause, stalled: Duration, stall_after: Duration) -> Verdict {
    if stalled >= stall_after { Verdict::new(cause, stalled) } else { Verdict::ACTIVE }
}

fn judge_receiving(socket: &Socket, history: &History, stall_after: Duration) -> Verdict {
    // A FIN counts as one byte of payload.
    let has_payload = socket.rqueue > 1;
    let is_left = socket.state == TcpState::CloseWait && socket.inode != 0;
    if is_left && !has_payload {
        // Whoever still answers a peer that has only shut its own half has not forgotten it.
        let answering = history.answer.map_or(history.in_state, |answer| answer.not_acked);
        let idle = if socket.wmem_queued > 0 { Duration::ZERO } else { history.in_state.min(answering) };
        return lasting(Cause::CloseWait, idle, stall_after);
    }
    let Some(answer) = &history.answer else { return Verdict::ACTIVE };
    // Consumption stands still too while there is nothing to consume: that counts for nobody.
    let unread = history.receiving.max(if is_left { history.in_state } else { Duration::ZERO });
    let unread = unread.min(answer.not_consumed);
    let is_stuck = has_payload && unread >= stall_after;
    if is_left && is_stuck {
        return Verdict::new(Cause::CloseWait, unread);
    }
    if socket.rmem_alloc < FLOOR {
        return Verdict::ACTIVE;
    }
    if is_stuck {
        let is_half_closed = socket.state == TcpState::FinWait2 && socket.inode != 0;
        let cause = if is_half_closed { Cause::HalfClosed } else { Cause::NotReading };
        return Verdict::new(cause, unread);
    }
    let info = &answer.info;
    let is_small = mean_segment(info).is_some_and(|bytes| bytes < SMALL_SEGMENT);
    let has_had_holes = info.out_of_order_segments.is_some_and(|segments| segments > 0);
    let rest = [
        // Before holes, of which any connection may have had one at some time.
        (is_hoard(socket) && is_small, Cause::SmallSegments, answer.lying),
        (is_hoard(socket) && has_had_holes, Cause::OutOfOrder, answer.not_filled),
        // Until it has been watched for as long, it may not be reading at all.
        (has_payload && answer.is_limited, Cause::SlowReading, answer.watched),
    ];
    rest.into_iter()
        .filter(|(is_so, ..)| *is_so)
        .map(|(_, cause, since)| lasting(cause, history.receiving.min(since), stall_after))
        .find(|verdict| verdict.cause != Cause::Active)
        .unwrap_or(Verdict::ACTIVE)
}

/// Whether the receive memory is a multiple of the payload in it.
pub fn is_hoard(socket: &Socket) -> bool {
    u64::from(socket.rqueue.max(1)) <= payload_of(socket.rmem_alloc)
}

/// Payload that justifies this much memory. Where as much has arrived in order, holes are being filled.
pub fn payload_of(rmem_alloc: u32) -> u64 {
    u64::from(rmem_alloc) / HOARD
}

fn mean_segment(info: &TcpInfo) -> Option<u64> {
    info.bytes_received?.checked_div(u64::from(info.data_segments_in?))
}

fn judge_sending(
    socket: &Socket,
    answer: Option<&Answer>,
    sending: Duration,
    stall_after: Duration,
) -> Verdict {
    let Some(answer) = answer else { return Verdict::ACTIVE };
    let stalled = sending.min(answer.not_acked);
    if socket.wmem_queued < FLOOR {
        return Verdict::ACTIVE;
    }
    let info = &answer.info;
    let is_silent = Duration::from_millis(info.last_ack_received_ms.into()) >= stall_after;
    // Closed with segments on their way where their buffers filled the peer's memory before their payload its window:
    // it drops them, and answers each retransmission with its closed window.
    let is_closed = info.send_window.map_or(info.unacked == 0, |window| window == 0);
    let cause = if is_closed {
        // Of probes ever farther apart the newest may be on its way; the one before it has had its time.
        if is_silent && info.probes > 1 { Cause::PathStalled } else { Cause::PeerNotReading }
    } else if info.unacked > 0 && info.retransmits > 0 && is_silent {
        Cause::PathStalled
    } else {
        return Verdict::ACTIVE;
    };
    lasting(cause, stalled, stall_after)
}

#[cfg(test)]
mod tests;
