//! Follows sockets from sample to sample: who is a suspect, and since when nothing has moved. Pure; time is handed in as
//! a duration since any fixed moment.
//!
//! A socket that holds less than a page is not followed and costs nothing, unless it is in CLOSE_WAIT or waits in an accept
//! queue: those leak without holding anything. One that is followed costs 56 bytes.
//!
//! tcp_info cannot be asked of everybody in every sample. A verdict that an answer has led to stands while the dump shows
//! the very queues that it was given for; nobody is judged who has never answered.

use std::num::NonZeroU32;
use std::time::Duration;

use hashbrown::HashMap;

use crate::cause::{Answer, FLOOR, History, Verdict, Verdicts, is_limited};
use crate::sample::{Cause, TcpState};
use crate::socket::Socket;
use crate::tcp_info::TcpInfo;

/// A moment to a tenth of a second: thirteen years fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment(NonZeroU32);

impl Moment {
    const PER_SECOND: u128 = 10;

    fn at(now: Duration) -> Self {
        let tenths = now.as_millis() * Self::PER_SECOND / 1000;
        Self(NonZeroU32::MIN.saturating_add(u32::try_from(tenths).unwrap_or(u32::MAX)))
    }

    /// How long ago it was; zero if it is now. Two calls differ by exactly what has passed between them, so that what is
    /// counted back from a clock stands still.
    fn ago(self, now: Duration) -> Duration {
        if self == Self::at(now) {
            return Duration::ZERO;
        }
        let since = Duration::from_millis(u64::from(self.0.get() - 1) * 100);
        now.saturating_sub(since)
    }
}

/// A number and since when it has been the same.
#[derive(Debug, Clone, Copy)]
struct Still {
    /// Its low half: to be taken for the same, the number would have to move by a multiple of 4 GiB exactly.
    value: u32,
    since: Moment,
}

impl Still {
    /// How long `value` has been the same, at `now`, given what was known before.
    fn update(known: &mut Option<Self>, value: Option<u64>, now: Duration) -> Duration {
        let Some(value) = value.map(low_half) else {
            *known = None;
            return Duration::ZERO;
        };
        match known {
            Some(still) if still.value == value => still.since.ago(now),
            _ => {
                *known = Some(Self { value, since: Moment::at(now) });
                Duration::ZERO
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // cut off on purpose
fn low_half(value: u64) -> u32 {
    value as u32
}

/// What is remembered of one socket.
#[derive(Debug, Clone, Copy)]
struct Track {
    in_state_since: Moment,
    receiving_since: Option<Moment>,
    sending_since: Option<Moment>,
    consumed: Option<Still>,
    acked: Option<Still>,
    answered: Option<Moment>,
    /// The queues at the newest answer, and what it led to.
    rqueue: u32,
    wqueue: u32,
    receive: Cause,
    send: Cause,
    state: TcpState,
    was_limited: bool,
    /// Whether the round in progress has shown it.
    is_shown: bool,
}

/// What following a socket has shown so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighted {
    /// Its history, without an answer.
    pub history: History,
    /// Whether tcp_info should be asked: it held something in the sample before too.
    pub is_suspect: bool,
    /// How long ago it last answered; `None` if it never has.
    pub answered: Option<Duration>,
    /// What its last answer led to, if its queues are still the same.
    pub standing: Option<Verdicts>,
}

/// All followed sockets.
#[derive(Debug, Default)]
pub struct Followed {
    namespace: u64,
    /// Those of that namespace, by cookie.
    tracks: HashMap<u64, Track>,
    /// Those of all others.
    elsewhere: HashMap<u64, HashMap<u64, Track>>,
}

impl Followed {
    /// Goes on in the network namespace with this inode: cookies are unique within one.
    pub fn enter(&mut self, namespace: u64) {
        if namespace == self.namespace {
            return;
        }
        let tracks = self.elsewhere.remove(&namespace).unwrap_or_default();
        let left = std::mem::replace(&mut self.tracks, tracks);
        if !left.is_empty() {
            self.elsewhere.insert(self.namespace, left);
        }
        self.namespace = namespace;
    }

    /// Takes note of a socket of the sample; `None` for one that is not worth following.
    pub fn sight(&mut self, socket: &Socket, is_queued: bool, now: Duration) -> Option<Sighted> {
        let receives = socket.rmem_alloc >= FLOOR;
        let sends = socket.wmem_queued >= FLOOR;
        let may_leak = is_queued || socket.state == TcpState::CloseWait;
        if !(receives || sends || may_leak) || socket.state == TcpState::Listen {
            return None;
        }
        let moment = Moment::at(now);
        let fresh = Track {
            in_state_since: moment,
            receiving_since: None,
            sending_since: None,
            consumed: None,
            acked: None,
            answered: None,
            rqueue: 0,
            wqueue: 0,
            receive: Cause::Active,
            send: Cause::Active,
            state: socket.state,
            was_limited: false,
            is_shown: true,
        };
        let track = self.tracks.entry(socket.cookie).or_insert(fresh);
        track.is_shown = true;
        // An accept queue's connection is one and the same wait, whatever its state.
        if track.state != socket.state && !is_queued {
            (track.state, track.in_state_since) = (socket.state, moment);
        }
        track.receiving_since = receives.then(|| track.receiving_since.unwrap_or(moment));
        track.sending_since = sends.then(|| track.sending_since.unwrap_or(moment));
        let ago = |since: Option<Moment>| since.map_or(Duration::ZERO, |since| since.ago(now));
        let history = History {
            in_state: track.in_state_since.ago(now),
            receiving: ago(track.receiving_since),
            sending: ago(track.sending_since),
            answer: None,
        };
        let lasts = history.receiving.max(history.sending) > Duration::ZERO;
        let has_unread_after_close = may_leak && socket.rqueue > 1 && history.in_state > Duration::ZERO;
        Some(Sighted {
            history,
            is_suspect: !is_queued && (lasts || has_unread_after_close),
            answered: track.answered.map(|answered| answered.ago(now)),
            standing: track.standing(socket, &history, now),
        })
    }

    /// Takes note of what tcp_info says of a socket sighted in this sample, with the memory the same answer shows.
    pub fn answer(&mut self, socket: &Socket, rcvbuf: u32, info: TcpInfo, now: Duration) -> Option<Answer> {
        let track = self.tracks.get_mut(&socket.cookie)?;
        let limited_now = is_limited(&info, socket.rmem_alloc, rcvbuf);
        let answer = Answer {
            info,
            not_consumed: Still::update(&mut track.consumed, info.consumed(socket.rqueue), now),
            not_acked: Still::update(&mut track.acked, info.bytes_acked, now),
            is_limited: limited_now && track.was_limited,
        };
        track.was_limited = limited_now;
        track.answered = Some(Moment::at(now));
        Some(answer)
    }

    /// Takes note of what an answer in this sample has led to.
    pub fn judged(&mut self, socket: &Socket, verdicts: &Verdicts) {
        if let Some(track) = self.tracks.get_mut(&socket.cookie) {
            (track.rqueue, track.wqueue) = (socket.rqueue, socket.wqueue);
            (track.receive, track.send) = (verdicts.receive.cause, verdicts.send.cause);
        }
    }

    /// Ends a complete sample: whatever it did not show, or showed empty, is forgotten. After an incomplete one nothing is,
    /// and the next goes on from what was known before.
    pub fn end(&mut self) {
        let is_kept = |_: &u64, track: &mut Track| std::mem::take(&mut track.is_shown);
        self.tracks.retain(is_kept);
        self.elsewhere.retain(|_, tracks| {
            tracks.retain(is_kept);
            !tracks.is_empty()
        });
    }

    /// Sockets followed.
    pub fn len(&self) -> usize {
        self.tracks.len() + self.elsewhere.values().map(HashMap::len).sum::<usize>()
    }

    /// Whether none is followed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Track {
    /// The verdicts of the newest answer, if the queues have not changed since: whoever reads or is acknowledged changes
    /// them, unless as much comes in its place.
    fn standing(&self, socket: &Socket, history: &History, now: Duration) -> Option<Verdicts> {
        let is_stalled = self.receive != Cause::Active || self.send != Cause::Active;
        if !is_stalled || (socket.rqueue, socket.wqueue) != (self.rqueue, self.wqueue) {
            return None;
        }
        let ago = |still: Option<Still>| still.map_or(Duration::ZERO, |still| still.since.ago(now));
        let lasted = |cause| match cause {
            Cause::NotReading | Cause::HalfClosed | Cause::CloseWait => ago(self.consumed),
            Cause::PeerNotReading | Cause::PathStalled => history.sending.min(ago(self.acked)),
            Cause::SlowReading | Cause::OutOfOrder | Cause::SmallSegments => history.receiving,
            Cause::AcceptQueue => history.in_state,
            Cause::Active => Duration::ZERO,
        };
        let verdict = |cause| Verdict { cause, stalled: lasted(cause) };
        Some(Verdicts { receive: verdict(self.receive), send: verdict(self.send) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: u64 = 7;

    fn socket(state: TcpState, rmem_alloc: u32, rqueue: u32) -> Socket {
        Socket {
            cookie: COOKIE,
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
            let sighted = followed.sight(socket, false, at(seconds));
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
            let small = Socket { cookie, ..socket(TcpState::Established, 768, 10) };
            assert_eq!(followed.sight(&small, false, at(0)), None);
        }
        assert!(followed.is_empty());
        followed.sight(&socket(TcpState::CloseWait, 832, 1), false, at(0)).unwrap();
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
            followed.sight(&socket, false, at(seconds));
            let info = TcpInfo { bytes_received: Some(received), ..TcpInfo::default() };
            let answer = followed.answer(&socket, 131_072, info, at(seconds)).unwrap();
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
        followed.sight(&full, false, at(0));
        followed.end();
        // Two attempts that were given up before they came to this socket.
        let sighted = followed.sight(&full, false, at(45)).unwrap();
        assert_eq!(sighted.history.receiving, at(45));
    }

    #[test]
    fn a_new_state_counts_from_when_it_was_seen() {
        let mut followed = Followed::default();
        followed.sight(&socket(TcpState::Established, 8192, 5000), false, at(0));
        followed.end();
        let sighted = followed.sight(&socket(TcpState::CloseWait, 8192, 5001), false, at(15)).unwrap();
        assert_eq!((sighted.history.in_state, sighted.history.receiving), (at(0), at(15)));
    }

    /// A verdict goes on between answers as long as the dump shows what it was given for, and no longer.
    #[test]
    fn a_verdict_stands_while_the_queues_do() {
        let mut followed = Followed::default();
        let full = socket(TcpState::Established, 60_000, 50_000);
        assert_eq!(followed.sight(&full, false, at(0)).unwrap().standing, None, "nobody is judged unasked");
        let info = TcpInfo { bytes_received: Some(50_000), ..TcpInfo::default() };
        followed.answer(&full, 131_072, info, at(0));
        followed.judged(&full, &Verdicts::ACTIVE);
        followed.end();
        assert_eq!(
            followed.sight(&full, false, at(15)).unwrap().standing,
            None,
            "nobody is accused by silence"
        );
        followed.answer(&full, 131_072, info, at(40));
        let verdict = Verdict { cause: Cause::NotReading, stalled: at(40) };
        followed.judged(&full, &Verdicts { receive: verdict, ..Verdicts::ACTIVE });
        followed.end();

        let later = followed.sight(&full, false, at(100)).unwrap();
        let expected = Verdict { cause: Cause::NotReading, stalled: at(100) };
        assert_eq!(later.standing, Some(Verdicts { receive: expected, ..Verdicts::ACTIVE }));
        assert_eq!(later.answered, Some(at(60)));
        for (rqueue, wqueue) in [(49_999, 0), (50_000, 1)] {
            let moved = Socket { wqueue, ..socket(TcpState::Established, 60_000, rqueue) };
            assert_eq!(followed.sight(&moved, false, at(115)).unwrap().standing, None);
        }
    }

    #[test]
    fn cookies_are_unique_within_a_namespace_only() {
        let mut followed = Followed::default();
        let full = socket(TcpState::Established, 8192, 5000);
        for (round, seconds) in [(0, 0), (1, 15)] {
            for namespace in [4, 5] {
                followed.enter(namespace);
                if round == 1 && namespace == 5 {
                    continue;
                }
                let sighted = followed.sight(&full, false, at(seconds)).unwrap();
                assert_eq!(sighted.is_suspect, round == 1);
            }
            followed.end();
            assert_eq!(followed.len(), 2 - round, "one that has gone is forgotten");
        }
    }

    /// 200,000 followed sockets fit into 16 MiB.
    #[test]
    fn a_followed_socket_costs_little() {
        assert!(size_of::<(u64, Track)>() <= 56, "{}", size_of::<(u64, Track)>());
    }

    #[test]
    fn moments_are_exact_in_their_differences() {
        let began = Moment::at(Duration::from_millis(1_234));
        assert_eq!(began.ago(Duration::from_millis(1_234)), Duration::ZERO);
        let ago = |millis| began.ago(Duration::from_millis(millis));
        assert_eq!(ago(16_234), ago(6_234) + at(10));
        assert_eq!(ago(6_234), Duration::from_millis(5_034), "since the tenth of a second it fell into");
    }
}
