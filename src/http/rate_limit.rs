//! `rate_limit` of the web configuration file: one token bucket for all requests.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One request per `interval`, and up to `burst` of them at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RateLimit {
    pub(super) interval: Duration,
    pub(super) burst: u32,
}

/// The bucket. It is filled anew when the limit changes.
#[derive(Default)]
pub(super) struct Bucket {
    state: Mutex<Option<State>>,
}

struct State {
    limit: RateLimit,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Takes a token if there is one.
    pub(super) fn allows(&self, limit: RateLimit, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = f64::from(limit.burst);
        let state = match &mut *state {
            Some(state) if state.limit == limit => state,
            other => other.insert(State { limit, tokens: burst, at: now }),
        };
        let passed = now.saturating_duration_since(state.at);
        state.tokens = burst.min(state.tokens + passed.as_secs_f64() / limit.interval.as_secs_f64());
        state.at = state.at.max(now);
        let allowed = state.tokens >= 1.0;
        if allowed {
            state.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_and_empties() {
        let (bucket, start) = (Bucket::default(), Instant::now());
        let limit = RateLimit { interval: Duration::from_secs(1), burst: 3 };
        let at = |milliseconds| bucket.allows(limit, start + Duration::from_millis(milliseconds));
        assert_eq!([at(0), at(0), at(0), at(0)], [true, true, true, false]);
        assert_eq!([at(900), at(1001), at(1002)], [false, true, false]);
        // However long the pause, no more than the burst.
        assert_eq!([at(60_000), at(60_000), at(60_000), at(60_000)], [true, true, true, false]);
        // Another limit begins anew.
        let other = RateLimit { interval: Duration::from_secs(9), burst: 1 };
        let at = |milliseconds| bucket.allows(other, start + Duration::from_millis(milliseconds));
        assert_eq!([at(60_000), at(60_000)], [true, false]);
    }
}
