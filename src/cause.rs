//! Why a socket holds its memory: one pure function from what successive samples have shown.
//!
//! A socket's receive memory and its send memory are judged apart, each by the first row that fits. `T` is `--stall.after`.
//!
//! | cause | state | test | why so |
//! |---|---|---|---|
//! | `accept_queue` | waits in an accept queue | has waited for `T` | a server that accepts takes milliseconds |
//! | `close_wait` | CLOSE_WAIT with a file | only the FIN is unread, or consumption has not moved, for `T` | the application has been told that the peer is gone |
//! | `half_closed` | FIN_WAIT2 with a file, [`FLOOR`] bytes | consumption has not moved for `T` | shutdown(), then nobody read on |
//! | `not_reading` | more than a FIN unread, [`FLOOR`] bytes | consumption has not moved for `T` | recv() moves it, MSG_PEEK does not |
//! | `out_of_order` | memory [`HOARD`] times the payload, [`FLOOR`] bytes | for `T`, and segments arrived out of order | the queue of readable data is short, the rest is behind a hole |
//! | `small_segments` | memory [`HOARD`] times the payload, [`FLOOR`] bytes | for `T`, mean segment below [`SMALL_SEGMENT`] bytes | each segment costs a buffer of its own |
//! | `slow_reading` | unread payload in every sample for `T` | window or buffer is the limit twice in a row | the sender could send more, the reader does not keep up |
//! | `peer_not_reading` | send memory of [`FLOOR`] bytes | nothing acknowledged for `T`, the peer's window is closed | its application does not read |
//! | `path_stalled` | send memory of [`FLOOR`] bytes | nothing acknowledged for `T`, retransmissions, no ack for `T` | the peer or the path is dead |
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
    /// Whether window or buffer was the limit in this answer and in the one before.
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
    let has_file = socket.inode != 0;
    if socket.state == TcpState::CloseWait && has_file && !has_payload {
        return lasting(Cause::CloseWait, history.in_state, stall_after);
    }
    let Some(answer) = &history.answer else { return Verdict::ACTIVE };
    let is_stuck = has_payload && answer.not_consumed >= stall_after;
    if socket.state == TcpState::CloseWait && has_file && is_stuck {
        return Verdict::new(Cause::CloseWait, answer.not_consumed);
    }
    if socket.rmem_alloc < FLOOR {
        return Verdict::ACTIVE;
    }
    if is_stuck {
        let is_half_closed = socket.state == TcpState::FinWait2 && has_file;
        let cause = if is_half_closed { Cause::HalfClosed } else { Cause::NotReading };
        return Verdict::new(cause, answer.not_consumed);
    }
    let cause = if is_hoard(socket) && answer.info.out_of_order_segments.is_some_and(|segments| segments > 0)
    {
        Cause::OutOfOrder
    } else if is_hoard(socket) && mean_segment(&answer.info).is_some_and(|bytes| bytes < SMALL_SEGMENT) {
        Cause::SmallSegments
    } else if has_payload && answer.is_limited {
        Cause::SlowReading
    } else {
        return Verdict::ACTIVE;
    };
    lasting(cause, history.receiving, stall_after)
}

/// Whether the receive memory is a multiple of the payload in it.
fn is_hoard(socket: &Socket) -> bool {
    u64::from(socket.rmem_alloc) >= HOARD * u64::from(socket.rqueue.max(1))
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
    // Probes of a closed window are answered, so acks come though nothing is acknowledged.
    if info.unacked == 0 && info.not_sent.is_none_or(|bytes| bytes > 0) && info.send_window.unwrap_or(0) == 0
    {
        return lasting(Cause::PeerNotReading, stalled, stall_after);
    }
    let is_silent = Duration::from_millis(info.last_ack_received_ms.into()) >= stall_after;
    if info.unacked > 0 && info.retransmits > 0 && is_silent {
        return lasting(Cause::PathStalled, stalled, stall_after);
    }
    Verdict::ACTIVE
}

#[cfg(test)]
mod tests;
