//! Watching the host for a while.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Failure;
use super::progress::Progress;
use crate::config::{Config, NetnsScope};
use crate::kernel::facts::Facts;
use crate::kernel::proc_root::ProcRoot;
use crate::kernel::{Kernel, Reading, Scope, text};
use crate::report::{Context, Mode, Report};
use crate::sample::{Capability, Reason, Source};
use crate::sampler::{Publication, SAMPLE_DEADLINE};

/// Samples in a watch, about: enough to see something move, few enough to watch the host and not ourselves.
const SAMPLES: u32 = 10;
/// Nobody needs samples more often: the daemon's shortest interval.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Nor less often: the daemon's usual interval.
const INTERVAL_MAX: Duration = Duration::from_secs(15);
/// How soon after the first sample the second follows. What holds memory in both is asked why, so all the rest of the
/// watch shows whether it stands still.
const SECOND_AFTER: Duration = Duration::from_millis(250);
/// How long a sample under way may take to end once nobody waits for it. Its child process ends by itself if it does not.
const LAST_SAMPLE: Duration = Duration::from_secs(1);
/// How often the progress is drawn.
const DRAW: Duration = Duration::from_millis(200);

/// When to sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// From the first sample to the last.
    pub duration: Duration,
    /// Between two of them.
    pub interval: Duration,
    /// From when on a socket that does not move counts as stalled.
    pub stall_after: Duration,
}

impl Plan {
    /// A watch of `duration`. A stall can be told only within it, so `stall_after` is no more than three quarters of it.
    pub fn new(duration: Duration, stall_after: Duration) -> Self {
        Self {
            duration,
            interval: (duration / SAMPLES).clamp(INTERVAL_MIN, INTERVAL_MAX),
            stall_after: stall_after.min(duration * 3 / 4),
        }
    }

    /// When the samples after the first are taken, counted from the first.
    fn ticks(self) -> impl Iterator<Item = Duration> {
        let grid = (1..).map(move |tick| self.interval * tick).take_while(move |at| *at < self.duration);
        std::iter::once(SECOND_AFTER).chain(grid).chain(std::iter::once(self.duration))
    }
}

/// Watches the host as planned, or until SIGINT or SIGTERM. `given`: the capabilities that we were started with, by which the
/// cure of what cannot be seen is told.
pub async fn watch(
    config: &Config,
    plan: Plan,
    given: [bool; Capability::ALL.len()],
) -> Result<Arc<Report>, Failure> {
    let root = ProcRoot::new(&config.procfs);
    root.parse("self/net/sockstat", text::sockstat).map_err(Failure::Procfs)?;
    let facts = Facts { capabilities: given, ..Facts::gather(&root, &config.cgroupfs) };
    let mut publication = Publication::new(Context {
        mode: Mode::Diagnose,
        hostname: root.parse("sys/kernel/hostname", |name| Ok(name.trim().to_owned())).unwrap_or_default(),
        interval: plan.interval,
        stall_after: plan.stall_after,
        missing: facts.blind_spots(config.netns == NetnsScope::All),
    });
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut draw = tokio::time::interval(DRAW);
    let (sender, mut readings) = unbounded_channel();
    // Dropping `stop` ends the thread after the sample under way.
    let (stop, stopped) = channel();
    sample(config, plan, sender, stopped)?;

    let mut progress = Progress::new(plan.duration);
    let mut failed = String::new();
    let mut signal = None;
    loop {
        tokio::select! {
            reading = readings.recv() => {
                let Some((reading, skipped)) = reading else { break };
                let is_hopeless = note_failure(&reading, &mut failed);
                publication.absorb(reading, skipped);
                progress.sampled();
                if is_hopeless && publication.report().timestamp.is_none() {
                    break;
                }
            }
            _ = draw.tick() => progress.draw(),
            _ = interrupt.recv() => signal = Some(SignalKind::interrupt()),
            _ = term.recv() => signal = Some(SignalKind::terminate()),
        }
        if signal.is_some() {
            break;
        }
    }
    drop(stop);
    progress.clear();
    finish(&mut readings).await;

    let report = publication.report();
    match (report.timestamp, signal) {
        (Some(_), _) => Ok(report),
        (None, Some(signal)) => {
            Err(Failure::Interrupted { signal: u8::try_from(signal.as_raw_value()).unwrap_or_default() })
        }
        (None, None) => Err(Failure::NoSample(failed)),
    }
}

/// Waits for the thread to end, which it does after the sample under way: nothing of ours should be running when we end.
async fn finish(readings: &mut UnboundedReceiver<Sampled>) {
    let ended = async { while readings.recv().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_SAMPLE, ended).await;
}

/// A reading, and how many ticks have passed unused meanwhile.
type Sampled = (Reading, u64);

/// Samples on a thread of its own, because a sample blocks and must not keep us from ending.
fn sample(
    config: &Config,
    plan: Plan,
    readings: UnboundedSender<Sampled>,
    stopped: Receiver<()>,
) -> io::Result<()> {
    let config = config.clone();
    let run = move || {
        let mut kernel = Kernel::new(&Scope {
            procfs: &config.procfs,
            cgroupfs: &config.cgroupfs,
            all_namespaces: config.netns == NetnsScope::All,
            row_min_memory: config.process_min_memory,
            rows_max: config.process_max,
            stall_after: plan.stall_after,
            reads_ahead: true,
            deadline: SAMPLE_DEADLINE,
        });
        // The first reads every file descriptor of the host: the watch begins when it is done.
        let _ = readings.send((kernel.sample(), 0));
        let began = Instant::now();
        let mut skipped = 0;
        for tick in plan.ticks() {
            let now = began.elapsed();
            if tick < now && tick < plan.duration {
                skipped += 1;
                continue;
            }
            match stopped.recv_timeout(tick.saturating_sub(now)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
            let _ = readings.send((kernel.sample(), skipped));
            skipped = 0;
        }
    };
    std::thread::Builder::new().name("sampler".to_owned()).spawn(run).map(drop)
}

/// Keeps in `failed` why a reading has no sample, and says whether later ones will not have one either.
fn note_failure(reading: &Reading, failed: &mut String) -> bool {
    if reading.sample.is_some() {
        return false;
    }
    let errors =
        || Source::ALL.into_iter().filter_map(|source| Some((source, reading.outcomes.first(source)?)));
    // Whatever else failed does not keep a sample from being complete.
    let decisive = [Source::SockDiag, Source::Owners, Source::Namespaces];
    let first = decisive.into_iter().find_map(|wanted| errors().find(|(source, _)| *source == wanted));
    let Some((source, error)) = first.or_else(|| errors().next()) else { return false };
    *failed = format!("the source {} failed: {error}; {}", source.label(), cure(source, error.reason()));
    source == Source::SockDiag && matches!(error.reason(), Reason::Denied | Reason::Missing)
}

/// What to do about a source without which there is no sample.
fn cure(source: Source, reason: Reason) -> &'static str {
    match (source, reason) {
        (_, Reason::Deadline) => "try again, or give the host some CPU",
        (Source::SockDiag, Reason::Denied | Reason::Missing) => {
            "the kernel needs inet_diag and tcp_diag (modprobe tcp_diag), and a sandbox must let AF_NETLINK through"
        }
        (Source::SockDiag, _) => "try again, or with --netns own",
        (Source::Namespaces, _) => "run as root, or with --netns own",
        (Source::Owners, _) => "run as root, on the host or in its pid namespace",
        _ => "try again with --log.level debug",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: &[f64]) -> Vec<Duration> {
        seconds.iter().map(|seconds| Duration::from_secs_f64(*seconds)).collect()
    }

    #[test]
    fn a_stall_fits_into_the_watch() {
        let plan = |duration, stall_after| {
            let plan = Plan::new(Duration::from_secs(duration), Duration::from_secs(stall_after));
            (plan.interval.as_secs_f64(), plan.stall_after.as_secs_f64())
        };
        assert_eq!(plan(10, 30), (1.0, 7.5));
        assert_eq!(plan(3, 30), (1.0, 2.25));
        assert_eq!(plan(10, 5), (1.0, 5.0));
        assert_eq!(plan(60, 30), (6.0, 30.0));
        assert_eq!(plan(3600, 30), (15.0, 30.0));
    }

    #[test]
    fn the_second_sample_comes_soon_and_the_last_at_the_end() {
        let ticks = |duration| -> Vec<Duration> {
            Plan::new(Duration::from_secs_f64(duration), Duration::from_secs(30)).ticks().collect()
        };
        assert_eq!(ticks(3.0), seconds(&[0.25, 1.0, 2.0, 3.0]));
        assert_eq!(ticks(3.5), seconds(&[0.25, 1.0, 2.0, 3.0, 3.5]));
        assert_eq!(ticks(20.0).len(), 11);
        assert_eq!(ticks(3600.0).len(), 241);
    }
}
