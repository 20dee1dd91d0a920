//! How much a client may take, and how often one was refused for taking more.

use crate::sample::Refusal;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// From the first byte of a request to the end of its headers, and from connecting to the first request.
/// A scraper sends its headers in one packet; ten seconds forgive a very bad path.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// From the end of a request's headers to the last byte of the answer. As long as three default scrape
/// timeouts: whoever reads more slowly has given up already.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may stay open between requests. A little more than the five minutes after which
/// Prometheus closes an idle connection itself: were we first, its next scrape could meet a closing socket.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(330);

/// From connecting to the end of the TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Request line and headers together. Browsers with cookies of a whole domain send a few KiB, and the
/// longest basic authentication we accept is far below that.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Headers in one request. A browser behind two proxies sends about forty.
pub const MAX_HEADERS: usize = 100;

/// Open connections on all listeners together. Each costs a file descriptor and some 20 KiB (a few times that
/// with TLS); a unit's default of 1024 descriptors must also hold what a sample opens. When there are as many,
/// a new one takes the place of one from the peer that has most.
pub const MAX_CONNECTIONS: usize = 256;

/// The part of the process's file descriptors that connections may take, where that is less than
/// [`MAX_CONNECTIONS`]: one in so many. The rest is for what a sample opens.
pub const DESCRIPTOR_SHARE: u64 = 2;

/// Requests at once on one HTTP/2 connection. A scraper uses one, a browser with the status page a few.
pub const MAX_STREAMS: u32 = 16;

/// Logins that wait for the one bcrypt that may run. At ten hashes a second the last of them waits for as long
/// as it is worth waiting ([`RESPONSE_TIMEOUT`] kills it anyway).
pub const MAX_WAITING_LOGINS: usize = 64;

/// From the request to stop until every connection is cut. Open scrapes need milliseconds; a second is what
/// a restart may cost, and this leaves a part of it to the rest of the program.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_millis(900);

/// The limits of one server. The defaults are the constants of this module; tests choose smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// [`HEADER_TIMEOUT`]
    pub header_timeout: Duration,
    /// [`RESPONSE_TIMEOUT`]
    pub response_timeout: Duration,
    /// [`IDLE_TIMEOUT`]
    pub idle_timeout: Duration,
    /// [`HANDSHAKE_TIMEOUT`]
    pub handshake_timeout: Duration,
    /// [`MAX_CONNECTIONS`]
    pub max_connections: usize,
    /// [`SHUTDOWN_LIMIT`]
    pub shutdown: Duration,
}

impl Limits {
    /// The defaults, for a process that may have so many open file descriptors (`RLIMIT_NOFILE`; `None`: no limit).
    pub fn with_descriptors(descriptors: Option<u64>) -> Self {
        let share = descriptors.map_or(u64::MAX, |descriptors| (descriptors / DESCRIPTOR_SHARE).max(1));
        let max_connections = MAX_CONNECTIONS.min(usize::try_from(share).unwrap_or(usize::MAX));
        Self { max_connections, ..Self::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: HEADER_TIMEOUT,
            response_timeout: RESPONSE_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
            shutdown: SHUTDOWN_LIMIT,
        }
    }
}

/// What was refused since start, by reason. Any thread may add and read.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    /// Counts one.
    pub(super) fn add(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Relaxed);
    }

    /// How many for this reason.
    pub fn get(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize].load(Relaxed)
    }

    /// All of them, by position in [`Refusal::ALL`].
    pub fn counts(&self) -> [u64; Refusal::ALL.len()] {
        Refusal::ALL.map(|refusal| self.get(refusal))
    }
}
