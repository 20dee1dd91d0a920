//! The child process that asks, seen from both sides.
//!
//! It is this program again: started from a thread, it is in that thread's network namespace. As every descriptor of ours is
//! closed on exec, it has nothing but its two pipes and its netlink socket, so one that cannot end holds nothing else.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::super::confine::{Role, confine};
use super::super::error::Error;
use super::dump::{call, open, receive, send};
use super::frames::{self, Frames, RECORD_MAX};

/// The first argument that makes the program an asker; nobody types it.
pub const ASKER: &str = "__ask-tcp-info";

/// How many answers are taken out of the pipe at once, about.
const PIECE: usize = 16 * 1024;

/// Why no answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Time is up.
    Overdue,
    /// The child has ended, or says what it should not.
    Broken,
}

/// A child that asks.
#[derive(Debug)]
pub struct Asker {
    child: Child,
    answers: ChildStdout,
    frames: Frames,
}

impl Asker {
    /// Starts a child in the calling thread's network namespace; the pipe takes its requests.
    pub fn spawn() -> io::Result<(Self, Requests)> {
        // Whatever the child complains of, nobody would know what to do with it. Nothing of ours is opened for writing.
        let nowhere = File::open("/dev/null")?;
        // No parent-death signal: when we die, the child's next write fails, and one that waits for a lock could not heed
        // a signal anyway.
        let mut child = Command::new("/proc/self/exe")
            .arg0(env!("CARGO_PKG_NAME"))
            .arg(ASKER)
            .env_clear()
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(nowhere)
            .spawn()?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take());
        let (requests, answers) = requests.zip(answers).expect("both are piped");
        let asker = Self { child, answers, frames: Frames::default() };
        // The child's own ends keep waiting.
        rustix::io::ioctl_fionbio(&requests, true)?;
        rustix::io::ioctl_fionbio(&asker.answers, true)?;
        Ok((asker, Requests(requests)))
    }

    /// Waits for the next answer: the kernel's own bytes, or none where asking failed.
    pub fn answer(&mut self, until: Instant) -> Result<Vec<u8>, Silence> {
        loop {
            match self.frames.next() {
                Ok(Some(answer)) => return Ok(answer.to_vec()),
                Ok(None) => {}
                Err(_) => return Err(Silence::Broken),
            }
            if self.take_piece(until)? == 0 {
                return Err(Silence::Broken);
            }
        }
    }

    /// Reads what has come; 0 at the end of the stream.
    fn take_piece(&mut self, until: Instant) -> Result<usize, Silence> {
        let mut piece = [0; PIECE];
        loop {
            wait_for(&self.answers, PollFlags::IN, until)?;
            match self.answers.read(&mut piece) {
                Ok(length) => {
                    self.frames.feed(&piece[..length]);
                    return Ok(length);
                }
                Err(error) if is_passing(&error) => {}
                Err(_) => return Err(Silence::Broken),
            }
        }
    }

    /// Whether the child waits inside the kernel, where nothing can interrupt it: for the lock, as opposed to a CPU.
    pub fn is_stuck(&self) -> bool {
        let stat = std::fs::read(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let mut after_name = stat.rsplit(|byte| *byte == b')');
        after_name.next().is_some_and(|rest| rest.starts_with(b" D"))
    }

    /// After its last answer: sees the child end. One that does not is given back.
    pub fn finish(mut self, until: Instant) -> Option<Child> {
        match self.take_piece(until) {
            // Its descriptors are closed: it waits for nobody any more.
            Ok(0) if self.frames.end().is_ok() => {
                let _ = self.child.wait();
                None
            }
            _ => self.abandon(),
        }
    }

    /// Kills the child. One that cannot die yet is given back: somebody has to see it end.
    pub fn abandon(mut self) -> Option<Child> {
        let _ = self.child.kill();
        (!has_ended(&mut self.child)).then_some(self.child)
    }
}

/// Whether the child has ended; if so, nothing is left of it.
pub fn has_ended(child: &mut Child) -> bool {
    // The only error is that there is no such child: who started us may have had all children reaped by the kernel.
    !matches!(child.try_wait(), Ok(None))
}

/// Where a child's requests go.
#[derive(Debug)]
pub struct Requests(ChildStdin);

impl Requests {
    /// Hands all requests over, as one stream, and ends it.
    pub fn send(mut self, mut stream: &[u8], until: Instant) -> Result<(), Silence> {
        while !stream.is_empty() {
            wait_for(&self.0, PollFlags::OUT, until)?;
            match self.0.write(stream) {
                Ok(length) => stream = &stream[length..],
                Err(error) if is_passing(&error) => {}
                Err(_) => return Err(Silence::Broken),
            }
        }
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Looks at least once, however late it is.
fn wait_for(end: &impl AsFd, what: PollFlags, until: Instant) -> Result<(), Silence> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        match poll(&mut [PollFd::new(end, what)], Some(&timeout)) {
            Ok(0) => return Err(Silence::Overdue),
            // Also when the other end is closed, which the read or write then tells.
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(_) => return Err(Silence::Broken),
        }
    }
}

/// The child: reads requests to their end, then asks one after another and writes each answer before it asks the next, for
/// it may never come back from that one. An empty record before the first says that it is about to ask.
pub fn run() -> ExitCode {
    // It would be called "exe". Whoever finds one that cannot be killed should see whose it is.
    let _ = rustix::thread::set_name(c"skmem-asker");
    // Asking needs no privilege. Nothing can be said from here of what remains; a test looks.
    let _ = confine(Role::Asker);
    match answer_all(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever started it sees the stream end early.
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer_all(mut requests: impl Read, mut answers: impl Write) -> io::Result<()> {
    let mut stream = Vec::new();
    requests.read_to_end(&mut stream)?;
    let mut frames = Frames::default();
    frames.feed(&stream);
    let socket = open().map_err(io::Error::other)?;
    let mut buffer = vec![0; RECORD_MAX];
    let mut record = Vec::new();
    let mut write = |answer: &[u8]| {
        record.clear();
        frames::push(&mut record, answer);
        answers.write_all(&record)?;
        answers.flush()
    };
    write(&[])?;
    while let Some(request) = frames.next().map_err(io::Error::other)? {
        let length = ask(&socket, request, &mut buffer).unwrap_or(0);
        write(&buffer[..length])?;
    }
    frames.end().map_err(io::Error::other)
}

fn ask(socket: &OwnedFd, request: &[u8], buffer: &mut [u8]) -> Result<usize, Error> {
    send(socket, request)?;
    loop {
        let received = receive(socket, buffer).map_err(|errno| call("recvmsg(NETLINK_SOCK_DIAG)", errno))?;
        if let Some(length) = received {
            return Ok(length);
        }
    }
}

/// The earlier of `patience` from now and `deadline`.
pub fn until(patience: Duration, deadline: Instant) -> Instant {
    deadline.min(Instant::now() + patience)
}
