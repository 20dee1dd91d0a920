//! Follows sockets from sample to sample: who is a suspect, and since when nothing has moved. Pure; time is handed in as
//! a duration since any fixed moment.
//!
//! A socket that holds less than a page is not followed and costs nothing, unless it is in CLOSE_WAIT or waits in an accept
//! queue: those leak without holding anything. One that is followed costs 24 bytes, one that has answered 64 more.
//!
//! tcp_info cannot be asked of everybody in every sample. A verdict that an answer has led to stands while the dump shows
//! the very queues that it was given for; nobody is judged who has never answered.

use std::num::NonZeroU32;
use std::time::Duration;

use hashbrown::HashMap;

use crate::cause::{Answer, FLOOR, History, Verdict, Verdicts, is_hoard, is_limited, lingers, payload_of};
use crate::sample::{Cause, TcpState};
use crate::socket::Socket;
use crate::tcp_info::TcpInfo;

/// A moment to a tenth of a second: thirteen years fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment(NonZeroU32);

/// The present, microseconds.
#[derive(Debug, Clone, Copy)]
struct Now(u64);

impl Now {
    fn new(now: Duration) -> Self {
        Self(now.as_secs() * 1_000_000 + u64::from(now.subsec_micros()))
    }
}

impl Moment {
    /// A tenth of a second, microseconds.
    const TENTH: u64 = 100_000;

    fn at(now: Now) -> Self {
        Self(NonZeroU32::MIN.saturating_add(u32::try_from(now.0 / Self::TENTH).unwrap_or(u32::MAX)))
    }

    /// How long ago it was; zero if it is now. Two calls differ by exactly what has passed between them, so that what is
    /// counted back from a clock stands still.
    fn ago(self, now: Now) -> Duration {
        let ago = now.0.saturating_sub(u64::from(self.0.get() - 1) * Self::TENTH);
        // Samples are farther apart.
        if ago < Self::TENTH { Duration::ZERO } else { Duration::from_micros(ago) }
    }
}

/// A number that only grows, and since when it has been the same.
#[derive(Debug, Clone, Copy)]
struct Still {
    value: u64,
    since: Moment,
}

impl Still {
    fn new(value: u64, now: Now) -> Self {
        Self { value, since: Moment::at(now) }
    }

    /// How long the number, which is `value` now, has been the same but for `slack`, given what was known before.
    fn update(known: &mut Option<Self>, value: Option<u64>, slack: u64, now: Now) -> Duration {
        let still = known.filter(|still| value.is_some_and(|value| value.abs_diff(still.value) <= slack));
        *known = still.or(value.map(|value| Self::new(value, now)));
        still.map_or(Duration::ZERO, |still| still.since.ago(now))
    }
}

/// What is remembered of one socket.
#[derive(Debug, Clone, Copy)]
struct Track {
    in_state_since: Moment,
    receiving_since: Option<Moment>,
    sending_since: Option<Moment>,
    state: TcpState,
    /// Whether the round in progress has shown it.
    is_shown: bool,
}

/// What is remembered of a suspect's answers.
#[derive(Debug, Clone, Copy)]
struct Answers {
    began: Moment,
    newest: Moment,
    consumed: Option<Still>,
    acked: Option<Still>,
    /// What had been received when something last lay unread that no longer does.
    lying: Option<Still>,
    /// What had been received when the memory became a multiple of the payload.
    filled: Option<Still>,
    /// The queues at the newest answer, and what it led to.
    rqueue: u32,
    wqueue: u32,
    receive: Cause,
    send: Cause,
    /// Whether window or buffer was the limit in the last eight, the newest lowest.
    limited: u8,
    /// Whether the round in progress has shown it as a suspect.
    is_shown: bool,
}

/// Suspects whose answers are remembered, in 3 MiB. Beyond them nobody new is asked: it takes half an hour already to ask
/// all of them twice at the default interval.
const ANSWERS_MAX: usize = 28_000;

/// Answers of the last eight in which the window must have been the limit: one may be a moment's.
const LIMITED_MIN: u32 = 2;

/// What following a socket has shown so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighted {
    /// Its history, without an answer.
    pub history: History,
    /// Whether tcp_info should be asked: it held something, or was in CLOSE_WAIT, in the sample before too.
    pub is_suspect: bool,
    /// How long ago it last answered; `None` if it never has.
    pub answered: Option<Duration>,
    /// What its last answer led to, if its queues are still the same.
    pub standing: Option<Verdicts>,
}

/// Followed sockets of one network namespace, by cookie.
#[derive(Debug, Default)]
struct Tracks {
    tracks: HashMap<u64, Track>,
    answers: HashMap<u64, Answers>,
}

/// All followed sockets.
#[derive(Debug, Default)]
pub struct Followed {
    namespace: u64,
    /// Those of that namespace.
    here: Tracks,
    /// Those of all others.
    elsewhere: HashMap<u64, Tracks>,
    /// Answers remembered of all of them.
    answers: usize,
}

impl Followed {
    /// Goes on in the network namespace with this inode: cookies are unique within one.
    pub fn enter(&mut self, namespace: u64) {
        if namespace == self.namespace {
            return;
        }
        let there = self.elsewhere.remove(&namespace).unwrap_or_default();
        let left = std::mem::replace(&mut self.here, there);
        if !left.tracks.is_empty() {
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
        let now = Now::new(now);
        let moment = Moment::at(now);
        let fresh = Track {
            in_state_since: moment,
            receiving_since: None,
            sending_since: None,
            state: socket.state,
            is_shown: true,
        };
        let track = self.here.tracks.entry(socket.cookie).or_insert(fresh);
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
        let may_leak = may_leak && history.in_state > Duration::ZERO;
        let is_suspect = !is_queued && (lasts || may_leak);
        let answers = if is_suspect { self.here.answers.get_mut(&socket.cookie) } else { None };
        let (mut answered, mut standing) = (None, None);
        if let Some(answers) = answers {
            answers.is_shown = true;
            answered = Some(answers.newest.ago(now));
            standing = answers.standing(socket, &history, now);
        }
        Some(Sighted { history, is_suspect, answered, standing })
    }

    /// How many that have not answered yet may be asked.
    pub fn room(&self) -> usize {
        ANSWERS_MAX.saturating_sub(self.answers)
    }

    /// Takes note of what tcp_info says of a socket sighted in this sample, with the memory the same answer shows.
    pub fn answer(&mut self, socket: &Socket, rcvbuf: u32, info: TcpInfo, now: Duration) -> Answer {
        let now = Now::new(now);
        let moment = Moment::at(now);
        let known = self.here.answers.len();
        let answers = self.here.answers.entry(socket.cookie).or_insert(Answers {
            began: moment,
            newest: moment,
            consumed: None,
            acked: None,
            lying: None,
            filled: None,
            rqueue: 0,
            wqueue: 0,
            receive: Cause::Active,
            send: Cause::Active,
            limited: 0,
            is_shown: true,
        });
        let (consumed, received) = (info.consumed(socket.rqueue), info.bytes_received);
        let is_behind = answers.consumed.zip(consumed).is_some_and(|(before, consumed)| {
            lingers(socket.rmem_alloc, consumed.saturating_sub(before.value), before.since.ago(now))
        });
        // A reader's rhythm and ours may agree, and the window then is open, or closed, whenever we look.
        let limited_now = is_behind && is_limited(&info, socket.rmem_alloc, rcvbuf);
        answers.limited = answers.limited << 1 | u8::from(limited_now);
        // Otherwise all that was unread then has been read since.
        answers.lying = answers.lying.filter(|then| consumed.is_some_and(|consumed| consumed < then.value));
        let lying = *answers.lying.get_or_insert(Still::new(received.unwrap_or_default(), now));
        let hoarded = received.filter(|_| is_hoard(socket));
        let answer = Answer {
            info,
            not_consumed: Still::update(&mut answers.consumed, consumed, 0, now),
            not_acked: Still::update(&mut answers.acked, info.bytes_acked, 0, now),
            watched: answers.began.ago(now),
            lying: lying.since.ago(now),
            not_filled: Still::update(&mut answers.filled, hoarded, payload_of(socket.rmem_alloc), now),
            is_limited: is_behind && answers.limited.count_ones() >= LIMITED_MIN,
        };
        answers.newest = moment;
        self.answers += self.here.answers.len() - known;
        answer
    }

    /// Takes note of what an answer in this sample has led to.
    pub fn judged(&mut self, socket: &Socket, verdicts: &Verdicts) {
        if let Some(answers) = self.here.answers.get_mut(&socket.cookie) {
            (answers.rqueue, answers.wqueue) = (socket.rqueue, socket.wqueue);
            (answers.receive, answers.send) = (verdicts.receive.cause, verdicts.send.cause);
        }
    }

    /// Ends a complete sample: whatever it did not show, or showed empty, is forgotten. After an incomplete one nothing is,
    /// and the next goes on from what was known before.
    pub fn end(&mut self) {
        self.here.forget();
        self.elsewhere.retain(|_, tracks| {
            tracks.forget();
            !tracks.tracks.is_empty()
        });
        self.answers = self.all().map(|tracks| tracks.answers.len()).sum();
    }

    /// Sockets followed.
    pub fn len(&self) -> usize {
        self.all().map(|tracks| tracks.tracks.len()).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Tracks> {
        self.elsewhere.values().chain([&self.here])
    }

    /// Whether none is followed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Tracks {
    /// Forgets what the round that ends has not shown.
    fn forget(&mut self) {
        self.tracks.retain(|_, track| std::mem::take(&mut track.is_shown));
        self.answers.retain(|_, answers| std::mem::take(&mut answers.is_shown));
    }
}

impl Answers {
    /// The verdicts of the newest answer, if the queues have not changed since: whoever reads or is acknowledged changes
    /// them, unless as much comes in its place.
    fn standing(&self, socket: &Socket, history: &History, now: Now) -> Option<Verdicts> {
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
mod tests;
