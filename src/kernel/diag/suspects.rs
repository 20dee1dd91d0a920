//! tcp_info of single sockets, without ever waiting for one of them.
//!
//! The kernel takes the socket's lock to answer, inside our send(): a process that faults in the middle of its own send()
//! on that socket holds it for as long as it likes, and nothing can interrupt the wait. So a thread of its own asks; when an
//! answer is overdue, that thread is left behind with its one socket and another goes on with the rest.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::super::error::Error;
use super::dump::{call, open, receive, send};
use super::message::{Entry, exact};
use super::query::exact_request;
use crate::tcp_info::TcpInfo;

/// One answer takes 3 us. A socket whose lock is merely busy is free again within a scheduling slice or two.
const OVERDUE: Duration = Duration::from_millis(50);

/// Threads that may be left behind waiting for a socket. Each pins its network namespace until that socket is free, and
/// costs a stack; whoever locks more sockets than this costs the others their answers, which is counted.
const LEFT_BEHIND_MAX: usize = 8;

/// Room for one answer: 72 bytes, SKMEMINFO, tcp_info of 280 bytes and a few small attributes.
const ANSWER_MAX: usize = 4096;

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
    /// It was not asked: too many sockets are locked, or time was up.
    Skipped,
    /// The kernel refused, or said something unexpected.
    Failed,
}

/// One fate for each socket asked about, in order.
pub type Answers = Vec<Fate>;

/// Asks, and remembers how many threads still wait for a socket.
#[derive(Debug, Default)]
pub struct Interrogator {
    left_behind: Arc<AtomicUsize>,
}

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const LEFT_BEHIND: u8 = 2;

impl Interrogator {
    /// Asks `suspects` of the calling thread's namespace.
    pub fn ask(&mut self, suspects: Vec<Entry>, deadline: Instant) -> Answers {
        let suspects: Arc<[Entry]> = suspects.into();
        let mut fates = Vec::with_capacity(suspects.len());
        while fates.len() < suspects.len()
            && self.left_behind.load(SeqCst) < LEFT_BEHIND_MAX
            && Instant::now() < deadline
        {
            let state = Arc::new(AtomicU8::new(RUNNING));
            let (answers, answered) = mpsc::channel();
            let worker = Worker {
                suspects: Arc::clone(&suspects),
                from: fates.len(),
                state: Arc::clone(&state),
                left_behind: Arc::clone(&self.left_behind),
            };
            // A new thread is in the network namespace of the thread that makes it.
            let thread = std::thread::Builder::new().name("tcp_info".to_owned());
            if thread.spawn(move || worker.run(&answers)).is_err() {
                break;
            }
            let is_overdue = loop {
                match answered.recv_timeout(OVERDUE) {
                    Ok(fate) => fates.push(fate),
                    Err(RecvTimeoutError::Disconnected) => break false,
                    Err(RecvTimeoutError::Timeout) => break true,
                }
            };
            if !is_overdue {
                break;
            }
            // Counted first, so that the thread finds itself counted when it comes back.
            self.left_behind.fetch_add(1, SeqCst);
            if state.compare_exchange(RUNNING, LEFT_BEHIND, SeqCst, SeqCst).is_ok() {
                fates.push(Fate::TimedOut);
            } else {
                // It was done after all.
                self.left_behind.fetch_sub(1, SeqCst);
                fates.extend(answered.try_iter());
                break;
            }
        }
        fates.resize(suspects.len(), Fate::Skipped);
        fates
    }
}

struct Worker {
    suspects: Arc<[Entry]>,
    from: usize,
    state: Arc<AtomicU8>,
    left_behind: Arc<AtomicUsize>,
}

impl Worker {
    fn run(self, answers: &Sender<Fate>) {
        if let Ok(socket) = open() {
            let mut buffer = vec![0; ANSWER_MAX];
            for (sequence, suspect) in (1..).zip(&self.suspects[self.from..]) {
                let fate = ask(&socket, suspect, sequence, &mut buffer).unwrap_or(Fate::Failed);
                if answers.send(fate).is_err() || self.state.load(SeqCst) == LEFT_BEHIND {
                    break;
                }
            }
        }
        if self.state.compare_exchange(RUNNING, DONE, SeqCst, SeqCst).is_err() {
            self.left_behind.fetch_sub(1, SeqCst);
        }
    }
}

fn ask(socket: &OwnedFd, suspect: &Entry, sequence: u32, buffer: &mut [u8]) -> Result<Fate, Error> {
    send(socket, &exact_request(suspect, sequence))?;
    loop {
        let received = receive(socket, buffer).map_err(|errno| call("recvmsg(NETLINK_SOCK_DIAG)", errno))?;
        let Some(length) = received else { continue };
        let answer = exact(&buffer[..length], sequence)?;
        return Ok(answer.map_or(Fate::Vanished, |(entry, info)| Fate::Answered(entry, info)));
    }
}
