//! What a connection is doing and how long it may go on, enforced where its bytes pass.
//!
//! hyper's own header timeout also runs while a connection is idle, so it cannot tell a scraper that keeps
//! its connection from a client that sends a header a minute; and it has none for a client that does not
//! read. Here the deadline depends on the phase, and any read or write that would wait beyond it fails.

use super::limits::Limits;
use super::places::Permit;
use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, Sleep, sleep_until};

/// After the order to stop, how long a connection without a request may still stay: long enough to read a
/// request that is already in the kernel's buffer.
const STOP_GRACE: Duration = Duration::from_millis(50);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A request is expected at once: the connection is new, or a part of the request is here.
    Head,
    /// Between requests.
    Idle,
    /// A request is being answered.
    Busy,
}

/// The state of one connection, shared by its socket and its requests.
pub(super) struct Activity {
    peer: IpAddr,
    limits: Limits,
    /// HTTP/2: bytes between requests may be mere window updates, and do not start a request.
    multiplexed: AtomicBool,
    state: Mutex<State>,
    cut: Notify,
}

struct State {
    phase: Phase,
    since: Instant,
    deadline: Instant,
    in_flight: usize,
    /// Bytes came that belong to the next request. The part of one that came in the same packet as the whole
    /// request before it is not seen: such a connection counts as idle until more comes.
    ahead: bool,
    stopping: bool,
    expired: bool,
    permits: Vec<Permit>,
}

impl Activity {
    /// Of a connection that has just been accepted.
    pub(super) fn new(peer: IpAddr, limits: Limits) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            phase: Phase::Head,
            since: now,
            deadline: now + limits.header_timeout,
            in_flight: 0,
            ahead: false,
            stopping: false,
            expired: false,
            permits: Vec::new(),
        };
        let (multiplexed, cut) = (AtomicBool::new(false), Notify::new());
        Arc::new(Self { peer, limits, multiplexed, state: Mutex::new(state), cut })
    }

    /// The other end.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// From here on it speaks HTTP: after a handshake the time for the first request begins anew.
    pub(super) fn speaks(&self, multiplexed: bool) {
        self.multiplexed.store(multiplexed, Relaxed);
        self.lock().deadline = Instant::now() + self.limits.header_timeout;
    }

    /// Whether a request is being answered, and since when that has been so, or not.
    pub(super) fn occupied(&self) -> (bool, Instant) {
        let state = self.lock();
        (state.phase == Phase::Busy, state.since)
    }

    /// Ends the connection at once.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }

    /// Resolves when it is to end at once.
    pub(super) async fn until_cut(&self) {
        self.cut.notified().await;
    }

    /// A request has been read. It is in flight until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        let mut state = self.lock();
        state.in_flight += 1;
        state.ahead = false;
        state.enter(Phase::Busy, self.limits.response_timeout);
        InFlight(Arc::clone(self))
    }

    /// No further requests, please.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        if state.phase != Phase::Busy {
            let phase = state.phase;
            state.enter(phase, STOP_GRACE);
        }
    }

    /// The phase whose deadline has cut the connection, if one has.
    pub(super) fn expired(&self) -> Option<Phase> {
        let state = self.lock();
        (state.expired && !state.stopping).then_some(state.phase)
    }

    fn received(&self) {
        let mut state = self.lock();
        match state.phase {
            Phase::Idle if !self.multiplexed() && !state.stopping => {
                state.enter(Phase::Head, self.limits.header_timeout);
            }
            Phase::Busy => state.ahead = true,
            _ => {}
        }
    }

    /// Everything written so far is with the kernel. Whether that ended an answer.
    fn flushed(&self) -> bool {
        let mut state = self.lock();
        let ended = state.phase == Phase::Busy && state.in_flight == 0;
        let permits = if ended { self.finish(&mut state) } else { Vec::new() };
        drop(state);
        drop(permits);
        ended
    }

    /// What is returned must be dropped after the lock on `state`: who looks for room locks the other way around.
    #[must_use]
    fn finish(&self, state: &mut State) -> Vec<Permit> {
        let (phase, timeout) = if state.ahead && !self.multiplexed() {
            (Phase::Head, self.limits.header_timeout)
        } else {
            (Phase::Idle, self.limits.idle_timeout)
        };
        let timeout = if state.stopping { STOP_GRACE } else { timeout };
        state.enter(phase, timeout);
        std::mem::take(&mut state.permits)
    }

    fn multiplexed(&self) -> bool {
        self.multiplexed.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase, timeout: Duration) {
        let now = Instant::now();
        // Idle is idle: a byte of a next request makes nobody younger.
        if (self.phase == Phase::Busy) != (phase == Phase::Busy) {
            self.since = now;
        }
        self.phase = phase;
        self.deadline = now + timeout;
    }
}

/// A request that is being answered.
pub(super) struct InFlight(Arc<Activity>);

impl InFlight {
    /// Of the connection that it came over.
    pub(super) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.0)
    }

    /// Keeps `permit` until the answer is out.
    pub(super) fn hold(&self, permit: Permit) {
        self.0.lock().permits.push(permit);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.in_flight -= 1;
        // An HTTP/2 stream ends in a task of its own, and nothing may be left to flush after it.
        let is_last = self.0.multiplexed() && state.in_flight == 0;
        let permits = if is_last { self.0.finish(&mut state) } else { Vec::new() };
        drop(state);
        drop(permits);
    }
}

/// The body of an answer; the request is in flight until hyper has taken all of it.
pub(super) struct Tracked {
    body: Body,
    _in_flight: InFlight,
}

impl Tracked {
    pub(super) fn new(body: Body, in_flight: InFlight) -> Self {
        Self { body, _in_flight: in_flight }
    }
}

impl hyper::body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that keeps to the deadlines of its [`Activity`].
pub(super) struct Guarded<I> {
    io: I,
    activity: Arc<Activity>,
    alarm: Pin<Box<Sleep>>,
}

impl<I> Guarded<I> {
    pub(super) fn new(io: I, activity: Arc<Activity>) -> Self {
        let deadline = activity.lock().deadline;
        Self { io, activity, alarm: Box::pin(sleep_until(deadline)) }
    }

    /// What would wait may wait until the deadline.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let deadline = self.activity.lock().deadline;
        if self.alarm.deadline() != deadline {
            self.alarm.as_mut().reset(deadline);
        }
        if self.alarm.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.activity.lock().expired = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Poll::Ready(result) = Pin::new(&mut self.io).poll_read(cx, buf) else { return self.wait(cx) };
        if buf.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(result)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, buf) {
            Poll::Pending => self.wait(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.wait(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => self.wait(cx),
            Poll::Ready(Ok(())) => {
                if self.activity.flushed() {
                    // Nothing may be read or written from here on, and the alarm is still set for the answer.
                    // The new deadline is ahead, so this only sets it.
                    let _ = self.wait::<()>(cx);
                }
                Poll::Ready(Ok(()))
            }
            error @ Poll::Ready(Err(_)) => error,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_shutdown(cx) {
            Poll::Pending => self.wait(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }
}
