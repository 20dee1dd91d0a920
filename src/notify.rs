//! What the service manager is told (sd_notify(3)): when we serve, how it goes, that we live, that we end.
//!
//! - `READY=1` when the sockets listen and the first attempt at a sample has ended, so that whoever is ordered after us can be
//!   given figures. An attempt that fails has ended too: a source that is missing is for the metrics and the log to tell, and
//!   must not make the start time out. Nor must an attempt that hangs, so that it is waited for no longer than a sample may take;
//!   from then on hanging is the watchdog's business.
//! - `STATUS=` for whoever reads `systemctl status`, when it changes.
//! - `WATCHDOG=1` at half of `WATCHDOG_USEC`, as long as the sampler's [`Heartbeat`] is not silent beyond its bound. The rhythm
//!   is the manager's own and not the sampler's, so that an interval longer than the watchdog does not starve it; a sampler that
//!   hangs or has died stops the pings, and so does a runtime that no longer runs its tasks.
//! - `STOPPING=1` when we have been told to end.
//!
//! Without `NOTIFY_SOCKET` nothing happens. The variables stay in our environment, as taking them out needs unsafe code; the
//! only program we start is given an empty one.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, warn};

use crate::human;
use crate::report::Report;
use crate::sample::{Exposed, Source};
use crate::sampler::{Heartbeat, SAMPLE_DEADLINE};

/// A watchdog shorter than this restarts a healthy exporter on a host that has no CPU for it for as long as half of that, and
/// with it the history of every stall is gone: just when it is needed.
const WATCHDOG_MIN: Duration = Duration::from_secs(10);
/// Bytes of a status at most: the manager drops a message above 4096, and nobody reads further.
const STATUS_MAX: usize = 512;
/// How long the manager may take to be told that we end. It finds that out anyway.
const FAREWELL: Duration = Duration::from_millis(200);

/// What is told.
#[derive(Debug)]
pub struct Told {
    /// The newest attempt.
    pub exposed: watch::Receiver<Arc<Exposed>>,
    /// The newest report, published after that.
    pub report: watch::Receiver<Arc<Report>>,
    /// Whether the sampler lives.
    pub heartbeat: Heartbeat,
}

/// Whether there is somebody to tell.
pub fn is_wanted() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty())
}

/// Tells the service manager how it goes, for as long as it is polled. The sockets must listen already.
pub async fn keep_telling(mut told: Told) {
    let watchdog = sd_notify::watchdog_enabled().filter(|watchdog| !watchdog.is_zero());
    if let Some(watchdog) = watchdog.filter(|watchdog| *watchdog < WATCHDOG_MIN) {
        let (watchdog, enough) =
            (humantime::format_duration(watchdog), humantime::format_duration(WATCHDOG_MIN));
        warn!(%watchdog, "the watchdog is so short that a busy host restarts us: set WatchdogSec={enough} or more");
    }
    // Without a watchdog the heartbeat is looked at all the same, to say in the status that it has stopped.
    let mut pulse = interval(watchdog.map_or(SAMPLE_DEADLINE, |watchdog| watchdog / 2));
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut teller = Teller::default();
    teller.status("Reading the host for the first time.".to_owned()).await;
    let patience = Instant::now() + SAMPLE_DEADLINE;
    loop {
        tokio::select! {
            changed = told.report.changed() => {
                // The sampler has died; that its heart no longer beats shows at the next pulses.
                if changed.is_err() {
                    break;
                }
                let (exposed, report) = (told.exposed.borrow().clone(), told.report.borrow_and_update().clone());
                let status = status(&exposed, &report, teller.newest);
                teller.newest = report.timestamp;
                teller.status(status).await;
                teller.ready().await;
            }
            () = sleep_until(patience), if !teller.is_ready => teller.ready().await,
            _ = pulse.tick() => teller.pulse(&told.heartbeat, watchdog.is_some()).await,
        }
    }
    loop {
        pulse.tick().await;
        teller.pulse(&told.heartbeat, watchdog.is_some()).await;
    }
}

/// Says that we end.
pub async fn say_stopping() {
    if is_wanted() {
        let _ = timeout(FAREWELL, send(&[NotifyState::Stopping, NotifyState::Status("Ending.")])).await;
    }
}

/// What has been told.
#[derive(Debug, Default)]
struct Teller {
    is_ready: bool,
    status: String,
    /// When the newest complete sample was taken.
    newest: Option<f64>,
    /// Whether telling fails.
    is_deaf: bool,
}

impl Teller {
    async fn ready(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            self.tell(&[NotifyState::Ready]).await;
        }
    }

    async fn status(&mut self, status: String) {
        if status != self.status {
            self.tell(&[NotifyState::Status(&status)]).await;
            self.status = status;
        }
    }

    async fn pulse(&mut self, heartbeat: &Heartbeat, has_watchdog: bool) {
        match heartbeat.silent_for() {
            None if has_watchdog => self.tell(&[NotifyState::Watchdog]).await,
            None => {}
            Some(silent) => {
                let since = SystemTime::now().checked_sub(silent).unwrap_or(SystemTime::UNIX_EPOCH);
                let since = humantime::format_rfc3339_seconds(since);
                self.status(format!("Hung: no attempt at a sample has ended since {since}.")).await;
            }
        }
    }

    /// A manager that cannot be told is complained of once.
    async fn tell(&mut self, states: &[NotifyState<'_>]) {
        match send(states).await {
            Ok(()) => self.is_deaf = false,
            Err(error) if !self.is_deaf => {
                self.is_deaf = true;
                warn!(%error, "cannot tell the service manager by NOTIFY_SOCKET, which may restart us for that");
            }
            Err(error) => debug!(%error, "cannot tell the service manager"),
        }
    }
}

/// Sends one message. Not on a thread that answers scrapes: where the manager does not read, sending waits.
async fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    let told = tokio::task::spawn_blocking(move || {
        let states: Vec<_> = lines.iter().map(|line| NotifyState::Custom(line)).collect();
        sd_notify::notify(&states)
    });
    told.await.map_err(io::Error::other)?
}

/// The line for `systemctl status`. `before`: when the complete sample before was taken; the same one says that the newest
/// attempt came to nothing.
fn status(exposed: &Exposed, report: &Report, before: Option<f64>) -> String {
    // Names are chosen by those the report accuses: a line break in one would be a message of its own.
    let mut status = human::printable(&report.verdict).into_owned();
    if let Some(sample) = exposed.sample.as_deref() {
        let _ = write!(status, " {}", human::count(sample.sockets, "socket"));
        if !report.findings.is_empty() {
            let _ = write!(status, ", {}", human::count(report.findings.len() as u64, "finding"));
        }
        status.push('.');
    }
    let sources = &exposed.exporter.sources;
    let failing: Vec<_> = Source::ALL
        .into_iter()
        .filter(|source| !sources[*source as usize].success)
        .map(Source::label)
        .collect();
    if !failing.is_empty() {
        let _ = write!(status, " Failing: {}.", failing.join(", "));
    }
    if let Some(newest) = report.timestamp.filter(|newest| before.is_some_and(|before| before >= *newest)) {
        let taken = SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(newest).unwrap_or_default();
        let _ = write!(status, " No newer sample than {}.", humantime::format_rfc3339_seconds(taken));
    }
    if status.len() > STATUS_MAX {
        status.truncate(status.floor_char_boundary(STATUS_MAX - '…'.len_utf8()));
        status.push('…');
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Context, Mode, compose};
    use crate::sample::Sample;
    use crate::series::Series;

    fn told(timestamp: Option<f64>, verdict: &str) -> (Exposed, Report) {
        let mut exposed = Exposed::default();
        exposed.exporter.sources.iter_mut().for_each(|source| source.success = true);
        exposed.sample =
            timestamp.map(|timestamp| Arc::new(Sample { timestamp, sockets: 3, ..Sample::default() }));
        let interval = Duration::from_secs(15);
        let context = Context {
            mode: Mode::Daemon,
            hostname: "host".to_owned(),
            interval,
            stall_after: Duration::from_secs(30),
            missing: Vec::new(),
        };
        let mut report = compose(&context, &Series::new(interval), &exposed);
        report.verdict = verdict.to_owned();
        (exposed, report)
    }

    #[test]
    fn the_status_says_what_is_known_and_what_fails() {
        let (mut exposed, report) = told(Some(1_700_000_000.25), "Healthy.");
        assert_eq!(status(&exposed, &report, None), "Healthy. 3 sockets.");
        assert_eq!(status(&exposed, &report, Some(1_699_999_985.0)), "Healthy. 3 sockets.");
        exposed.exporter.sources[Source::Owners as usize].success = false;
        exposed.exporter.sources[Source::Cgroups as usize].success = false;
        let said = status(&exposed, &report, Some(1_700_000_000.25));
        let want = "Healthy. 3 sockets. Failing: owners, cgroups. No newer sample than 2023-11-14T22:13:20Z.";
        assert_eq!(said, want);
    }

    #[test]
    fn a_name_cannot_say_anything_to_the_manager() {
        let (exposed, report) = told(Some(1.0), "x\nMAINPID=1\nREADY=1 (pid 7) has stopped.");
        assert_eq!(
            status(&exposed, &report, None),
            "x\\x0aMAINPID=1\\x0aREADY=1 (pid 7) has stopped. 3 sockets."
        );
    }

    #[test]
    fn a_long_status_is_cut_between_characters() {
        for shift in 0..4 {
            let (exposed, report) = told(None, &format!("{}{}", "a".repeat(shift), "網".repeat(STATUS_MAX)));
            let said = status(&exposed, &report, None);
            assert!(
                said.len() <= STATUS_MAX && said.len() > STATUS_MAX - 4 && said.ends_with("網…"),
                "{said}"
            );
        }
    }
}
