//! Follows sockets from sample to sample: who is a suspect, and since when nothing has moved. Pure; time is handed in as
//! a duration since any fixed moment.
//!
//! A socket that holds less than a page is not followed and costs nothing, unless it is in CLOSE_WAIT or waits in an accept
//! queue: those leak without holding anything.

use std::time::Duration;

use hashbrown::HashMap;

use crate::cause::{Answer, FLOOR, History, is_limited};
use crate::sample::TcpState;
use crate::socket::Socket;
use crate::tcp_info::TcpInfo;

/// Names a socket for as long as the host is up: the network namespace and the cookie within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketKey {
    /// Inode of the namespace.
    pub namespace: u64,
    /// `sock_gen_cookie`
    pub cookie: u64,
}

/// A number and since when it has been the same.
#[derive(Debug, Clone, Copy)]
struct Still {
    value: u64,
    since: Duration,
}

impl Still {
    /// How long `value` has been the same, at `now`, given what was known before.
    fn update(known: &mut Option<Self>, value: Option<u64>, now: Duration) -> Duration {
        let Some(value) = value else {
            *known = None;
            return Duration::ZERO;
        };
        match known {
            Some(still) if still.value == value => now.saturating_sub(still.since),
            _ => {
                *known = Some(Self { value, since: now });
                Duration::ZERO
            }
        }
    }
}

/// What is remembered of one socket.
#[derive(Debug, Clone, Copy)]
struct Track {
    state: TcpState,
    in_state_since: Duration,
    receiving_since: Option<Duration>,
    sending_since: Option<Duration>,
    consumed: Option<Still>,
    acked: Option<Still>,
    was_limited: bool,
    round: u32,
}

/// What following a socket has shown so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighted {
    /// Its history, without an answer.
    pub history: History,
    /// Whether tcp_info should be asked: it held something in the sample before too.
    pub is_suspect: bool,
}

/// All followed sockets.
#[derive(Debug, Default)]
pub struct Followed {
    round: u32,
    tracks: HashMap<SocketKey, Track>,
}

impl Followed {
    /// Takes note of a socket of the sample; `None` for one that is not worth following.
    pub fn sight(
        &mut self,
        key: SocketKey,
        socket: &Socket,
        is_queued: bool,
        now: Duration,
    ) -> Option<Sighted> {
        let receives = socket.rmem_alloc >= FLOOR;
        let sends = socket.wmem_queued >= FLOOR;
        let may_leak = is_queued || socket.state == TcpState::CloseWait;
        if !(receives || sends || may_leak) || socket.state == TcpState::Listen {
            return None;
        }
        let fresh = Track {
            state: socket.state,
            in_state_since: now,
            receiving_since: None,
            sending_since: None,
            consumed: None,
            acked: None,
            was_limited: false,
            round: self.round,
        };
        let track = self.tracks.entry(key).or_insert(fresh);
        track.round = self.round;
        // An accept queue's connection is one and the same wait, whatever its state.
        if track.state != socket.state && !is_queued {
            (track.state, track.in_state_since) = (socket.state, now);
        }
        track.receiving_since = receives.then(|| track.receiving_since.unwrap_or(now));
        track.sending_since = sends.then(|| track.sending_since.unwrap_or(now));
        let since = |since: Option<Duration>| since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let history = History {
            in_state: now.saturating_sub(track.in_state_since),
            receiving: since(track.receiving_since),
            sending: since(track.sending_since),
            answer: None,
        };
        let lasts = history.receiving.max(history.sending) > Duration::ZERO;
        let has_unread_after_close = may_leak && socket.rqueue > 1 && history.in_state > Duration::ZERO;
        Some(Sighted { history, is_suspect: !is_queued && (lasts || has_unread_after_close) })
    }

    /// Takes note of what tcp_info says of a socket sighted in this sample, with the memory the same answer shows.
    pub fn answer(
        &mut self,
        key: SocketKey,
        socket: &Socket,
        rcvbuf: u32,
        info: TcpInfo,
        now: Duration,
    ) -> Option<Answer> {
        let track = self.tracks.get_mut(&key)?;
        let limited_now = is_limited(&info, socket.rmem_alloc, rcvbuf);
        let answer = Answer {
            info,
            not_consumed: Still::update(&mut track.consumed, info.consumed(socket.rqueue), now),
            not_acked: Still::update(&mut track.acked, info.bytes_acked, now),
            is_limited: limited_now && track.was_limited,
        };
        track.was_limited = limited_now;
        Some(answer)
    }

    /// Ends a complete sample: whatever it did not show, or showed empty, is forgotten. After an incomplete one nothing is,
    /// and the next goes on from what was known before.
    pub fn end(&mut self) {
        let round = self.round;
        self.tracks.retain(|_, track| track.round == round);
        self.round += 1;
    }

    /// Sockets followed.
    pub fn len(&self) -> usize {
        self.tracks.len()
    }

    /// Whether none is followed.
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SocketKey = SocketKey { namespace: 1, cookie: 7 };

    fn socket(state: TcpState, rmem_alloc: u32, rqueue: u32) -> Socket {
        Socket {
            cookie: KEY.cookie,
            cgroup: 0,
            inode: 5,
            rmem_alloc,
            wmem_queued: 0,
            forward_alloc: 0,
            rqueue,
            wqueue: 0,
            state,
            is_mptcp: false,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_socket_becomes_a_suspect_when_it_still_holds_something() {
        let mut followed = Followed::default();
        let full = socket(TcpState::Established, 8192, 5000);
        let empty = socket(TcpState::Established, 0, 0);
        let mut sample = |socket: &Socket, seconds| {
            let sighted = followed.sight(KEY, socket, false, at(seconds));
            followed.end();
            sighted
        };
        assert!(!sample(&full, 0).unwrap().is_suspect);
        let second = sample(&full, 15).unwrap();
        assert!(second.is_suspect);
        assert_eq!(second.history.receiving, at(15));
        assert_eq!(sample(&empty, 30), None);
        assert!(!sample(&full, 45).unwrap().is_suspect, "a queue that was empty in between starts anew");
    }

    #[test]
    fn what_holds_nothing_costs_nothing() {
        let mut followed = Followed::default();
        for cookie in 0..100 {
            let key = SocketKey { cookie, ..KEY };
            assert_eq!(followed.sight(key, &socket(TcpState::Established, 768, 10), false, at(0)), None);
        }
        assert!(followed.is_empty());
        followed.sight(KEY, &socket(TcpState::CloseWait, 832, 1), false, at(0)).unwrap();
        followed.end();
        assert_eq!(followed.len(), 1, "a leaked CLOSE_WAIT holds next to nothing");
        followed.end();
        assert!(followed.is_empty(), "and is forgotten once it is closed");
    }

    #[test]
    fn consumption_stands_still_only_between_equal_answers() {
        let mut followed = Followed::default();
        let mut answer = |received: u64, rqueue: u32, seconds| {
            let socket = socket(TcpState::Established, 60_000, rqueue);
            followed.sight(KEY, &socket, false, at(seconds));
            let info = TcpInfo { bytes_received: Some(received), ..TcpInfo::default() };
            let answer = followed.answer(KEY, &socket, 131_072, info, at(seconds)).unwrap();
            followed.end();
            answer.not_consumed
        };
        assert_eq!(answer(50_000, 50_000, 0), at(0));
        assert_eq!(answer(55_000, 55_000, 15), at(15), "arrivals are no reads");
        assert_eq!(answer(60_000, 55_000, 30), at(0), "5,000 bytes were read");
        assert_eq!(answer(60_001, 55_001, 60), at(30), "an unread FIN cancels out");
    }

    #[test]
    fn an_incomplete_sample_breaks_no_history() {
        let mut followed = Followed::default();
        let full = socket(TcpState::Established, 8192, 5000);
        followed.sight(KEY, &full, false, at(0));
        followed.end();
        // Two attempts that were given up before they came to this socket.
        let sighted = followed.sight(KEY, &full, false, at(45)).unwrap();
        assert_eq!(sighted.history.receiving, at(45));
    }

    #[test]
    fn a_new_state_counts_from_when_it_was_seen() {
        let mut followed = Followed::default();
        followed.sight(KEY, &socket(TcpState::Established, 8192, 5000), false, at(0));
        followed.end();
        let sighted = followed.sight(KEY, &socket(TcpState::CloseWait, 8192, 5001), false, at(15)).unwrap();
        assert_eq!((sighted.history.in_state, sighted.history.receiving), (at(0), at(15)));
    }
}
