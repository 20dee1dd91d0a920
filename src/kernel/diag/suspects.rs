//! tcp_info of single sockets, without ever waiting for one of them.
//!
//! The kernel takes the socket's lock to answer, inside our send(): a process that faults in the middle of its own send()
//! on that socket holds it for as long as it likes, and nothing can interrupt the wait, not even SIGKILL. A thread of ours
//! that waits there would keep this process from ending and its ports from being free. So a child asks; when an answer is
//! overdue, the child is killed and left behind with its one socket, and another goes on with the rest.

use std::process::Child;
use std::time::{Duration, Instant};

use super::super::error::Error;
use super::super::proc_root::ProcRoot;
use super::super::text::kernel_version;
use super::asker::{Asker, Silence, has_ended, until};
use super::frames;
use super::message::{Entry, exact};
use super::query::exact_request;
use crate::tcp_info::TcpInfo;

/// The first kernel that answers an exact query under no lock but the socket's. Before it, whoever waits for a socket holds
/// sock_diag_mutex and inet_diag_table_mutex meanwhile: every dump on the host, ours and that of `ss`, would wait with it.
pub const ASKED_SINCE: (u32, u32) = (6, 9);

/// One answer takes 3 us. A socket whose lock is merely busy is free again within a scheduling slice or two.
const OVERDUE: Duration = Duration::from_millis(50);

/// How long a child may take that lacks nothing but a CPU: a container's quota can hold it up for several periods of 100 ms.
const PATIENCE: Duration = Duration::from_secs(1);

/// Children that may be left behind waiting for a socket. Each pins its network namespace until that socket is free, and
/// costs a process; whoever locks more sockets than this costs the others their answers, which is counted.
const LEFT_BEHIND_MAX: usize = 8;

/// How asking a socket ended.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(clippy::large_enum_variant)] // answers are the rule, and a box for each would be what costs
pub enum Fate {
    /// It answered, with its numbers as of then.
    Answered(Entry, TcpInfo),
    /// It is gone, or no connection any more.
    Vanished,
    /// Somebody holds its lock.
    TimedOut,
    /// It was not asked: too many sockets are locked, time was up, or the kernel is too old to be asked.
    Skipped,
    /// The kernel refused, or said something unexpected; or there was no child to ask.
    Failed,
}

/// One fate for each socket asked about, in order.
pub type Answers = Vec<Fate>;

/// Asks, and remembers the children that still wait for a socket. By default it does not ask.
#[derive(Debug, Default)]
pub struct Interrogator {
    asks: bool,
    left_behind: Vec<LeftBehind>,
}

#[derive(Debug)]
struct LeftBehind {
    child: Child,
    /// The socket it waits for, if it is known to.
    cookie: Option<u64>,
}

/// How a child's answers ended.
enum End {
    /// All have come.
    Done,
    /// The next one is overdue.
    Locked,
    /// The sample's time is up, or the child has never begun.
    OutOfTime,
    /// The child is no use.
    Broken,
}

impl Interrogator {
    /// One that asks where the kernel allows it. The program's main has to hand over to [`super::run_asker`].
    pub fn asking() -> Self {
        Self { asks: is_recent_enough(), left_behind: Vec::new() }
    }

    /// Forgets the children that have ended since they were left behind.
    pub fn reap(&mut self) {
        self.left_behind.retain_mut(|left| !has_ended(&mut left.child));
    }

    /// Asks `suspects` of the calling thread's namespace.
    pub fn ask(&mut self, suspects: &[Entry], deadline: Instant) -> Answers {
        self.reap();
        let mut fates = vec![Fate::Skipped; suspects.len()];
        if !self.asks {
            return fates;
        }
        let mut rest: Vec<usize> = Vec::with_capacity(suspects.len());
        for (index, suspect) in suspects.iter().enumerate() {
            // A child still waits for it: another would only join it.
            if self.left_behind.iter().any(|left| left.cookie == Some(suspect.socket.cookie)) {
                fates[index] = Fate::TimedOut;
            } else {
                rest.push(index);
            }
        }
        let mut rest = &rest[..];
        while !rest.is_empty() && self.left_behind.len() < LEFT_BEHIND_MAX && Instant::now() < deadline {
            let (answered, end) = self.ask_in_a_row(suspects, rest, &mut fates, deadline);
            rest = &rest[answered..];
            match (end, rest) {
                (End::Locked, [locked, others @ ..]) => {
                    fates[*locked] = Fate::TimedOut;
                    rest = others;
                }
                (End::Broken, _) => {
                    for index in rest {
                        fates[*index] = Fate::Failed;
                    }
                    break;
                }
                _ => break,
            }
            // Most that are killed only lacked a CPU, and are gone by now.
            self.reap();
        }
        fates
    }

    /// Has one child ask the suspects that `indices` name, as far as it gets: how far that was, and why no further.
    fn ask_in_a_row(
        &mut self,
        suspects: &[Entry],
        indices: &[usize],
        fates: &mut [Fate],
        deadline: Instant,
    ) -> (usize, End) {
        let Ok((mut asker, requests)) = Asker::spawn() else { return (0, End::Broken) };
        let mut stream = Vec::new();
        for (sequence, index) in (1..).zip(indices) {
            frames::push(&mut stream, &exact_request(&suspects[*index], sequence));
        }
        let ready_by = until(PATIENCE, deadline);
        let ready = requests.send(&stream, ready_by).and_then(|()| asker.answer(ready_by));
        let mut answered = 0;
        let mut end = match ready {
            Ok(_) => End::Done,
            Err(Silence::Overdue) => End::OutOfTime,
            Err(Silence::Broken) => End::Broken,
        };
        if matches!(end, End::Done) {
            for (sequence, index) in (1..).zip(indices) {
                match patiently(&mut asker, deadline) {
                    Ok(answer) => fates[*index] = fate(&answer, sequence).unwrap_or(Fate::Failed),
                    Err(silence) => {
                        end = silence;
                        break;
                    }
                }
                answered += 1;
            }
        }
        let cookie = match end {
            End::Locked => indices.get(answered).map(|index| suspects[*index].socket.cookie),
            _ => None,
        };
        let left = match end {
            End::Done => asker.finish(until(PATIENCE, deadline)),
            _ => asker.abandon(),
        };
        self.left_behind.extend(left.map(|child| LeftBehind { child, cookie }));
        (answered, end)
    }
}

/// Waits for an answer until it is overdue. A child that is merely kept from running gets more time.
fn patiently(asker: &mut Asker, deadline: Instant) -> Result<Vec<u8>, End> {
    let patient_until = until(PATIENCE, deadline);
    loop {
        match asker.answer(until(OVERDUE, patient_until)) {
            Ok(answer) => return Ok(answer),
            Err(Silence::Broken) => return Err(End::Broken),
            Err(Silence::Overdue) if asker.is_stuck() => return Err(End::Locked),
            Err(Silence::Overdue) if Instant::now() >= deadline => return Err(End::OutOfTime),
            Err(Silence::Overdue) if Instant::now() >= patient_until => return Err(End::Locked),
            Err(Silence::Overdue) => {}
        }
    }
}

/// What an answer says; an empty one says that asking failed.
fn fate(answer: &[u8], sequence: u32) -> Result<Fate, Error> {
    let answer = exact(answer, sequence)?;
    Ok(answer.map_or(Fate::Vanished, |(entry, info)| Fate::Answered(entry, info)))
}

/// Always by the real `/proc`: it is this kernel that would be asked. One that does not say its version is not.
fn is_recent_enough() -> bool {
    let version = ProcRoot::new("/proc").parse("sys/kernel/osrelease", |release| {
        kernel_version(release).ok_or_else(|| format!("no version in {release:?}"))
    });
    version.is_ok_and(|version| version >= ASKED_SINCE)
}
