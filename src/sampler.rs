//! The sampling loop: a thread of its own, one sample after another, and what is published of each.
//!
//! Sampling on our own clock departs from the custom that an exporter reads when it is scraped: a stall shows only
//! between evenly spaced samples, and what a sample costs must not grow with the number of scrapers. `run` takes any
//! function that reads the host, so a scrape-driven loop would call the same function.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::kernel::outcome::Outcomes;
use crate::kernel::{Reading, myself};
use crate::logging::{FaultEvent, FaultLog};
use crate::report::{Context, Report, compose};
use crate::sample::{BlindSpot, Exposed, FindingKind, Reason, Refusal, Source, Stage};
use crate::series::{Point, Series};

/// How long a sample may take. A cold walk reads ten million fds in this time; whatever takes longer hangs.
pub const SAMPLE_DEADLINE: Duration = Duration::from_secs(30);
/// How many intervals beyond that the loop may be silent before it counts as hung.
const SILENT_INTERVALS: u32 = 2;

/// When the loop last ended an attempt.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    last: Arc<Mutex<Instant>>,
    patience: Duration,
}

impl Heartbeat {
    /// A loop that has just started and ticks every `interval`.
    pub fn new(interval: Duration) -> Self {
        Self {
            last: Arc::new(Mutex::new(Instant::now())),
            patience: SAMPLE_DEADLINE + interval * SILENT_INTERVALS,
        }
    }

    fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long the loop has been silent, if that is too long.
    pub fn silent_for(&self) -> Option<Duration> {
        let silent = self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        (silent > self.patience).then_some(silent)
    }
}

/// Where the loop publishes what it has seen.
#[derive(Debug)]
pub struct Publish {
    /// For scrapes.
    pub exposed: watch::Sender<Arc<Exposed>>,
    /// For people.
    pub report: watch::Sender<Arc<Report>>,
}

/// Starts the loop on a thread: samples at once and then every `context.interval`, until `stop` gets a message or its
/// sender is dropped. A tick that comes while a sample still runs is skipped and counted. `refusals` says what the web server has
/// turned away.
pub fn start(
    mut read: impl FnMut() -> Reading + Send + 'static,
    refusals: impl Fn() -> [u64; Refusal::ALL.len()] + Send + 'static,
    context: Context,
    publish: Publish,
    heartbeat: Heartbeat,
    stop: Receiver<()>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("sampler".to_owned()).spawn(move || {
        let interval = context.interval;
        let mut publication = Publication::new(context);
        let mut tick = Instant::now();
        loop {
            let reading = read();
            let (next, skipped) = next_tick(tick, interval, Instant::now());
            publication.absorb(reading, skipped);
            publication.exposed.exporter.refusals = refusals();
            publish.exposed.send_replace(Arc::new(publication.exposed().clone()));
            publish.report.send_replace(publication.report());
            heartbeat.beat();
            tick = next;
            match stop.recv_timeout(tick.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    })
}

/// The first tick after `now`, and how many have passed unused since `tick`.
fn next_tick(tick: Instant, interval: Duration, now: Instant) -> (Instant, u64) {
    let mut next = tick + interval;
    let mut skipped = 0;
    while next <= now {
        next += interval;
        skipped += 1;
    }
    (next, skipped)
}

/// What is exposed, carried from sample to sample.
pub struct Publication {
    context: Context,
    series: Series,
    exposed: Exposed,
    report: Arc<Report>,
    faults: FaultLog<Source, Reason>,
    start_time: Option<f64>,
}

impl Publication {
    /// Nothing yet.
    pub fn new(context: Context) -> Self {
        let (series, exposed) = (Series::new(context.interval), Exposed::default());
        Self {
            report: Arc::new(compose(&context, &series, &exposed)),
            context,
            series,
            exposed,
            faults: FaultLog::default(),
            start_time: myself::start_time(),
        }
    }

    /// What to expose now.
    pub fn exposed(&self) -> &Exposed {
        &self.exposed
    }

    /// What to tell people now.
    pub fn report(&self) -> Arc<Report> {
        Arc::clone(&self.report)
    }

    /// Takes in an attempt, at which `skipped` ticks were due already. An incomplete one leaves the newest complete sample,
    /// with its time, as it is.
    pub fn absorb(&mut self, reading: Reading, skipped: u64) {
        let Reading { host, sample, outcomes, stages, namespaces, suspects } = reading;
        self.note_faults(&outcomes);
        let Exposed { exporter, faults, .. } = &mut self.exposed;
        faults.clear();
        for source in Source::ALL {
            let state = &mut exporter.sources[source as usize];
            let error = outcomes.first(source);
            state.success = error.is_none();
            if let Some(error) = error {
                state.errors[error.reason() as usize] += 1;
                let what = format!("{} could not be read: {error}", source.label());
                faults.push(BlindSpot { what, cure: None });
            }
        }
        if skipped > 0 {
            debug!(skipped, "sample overran its interval");
        }
        exporter.overruns += skipped;
        exporter.stages = stages;
        exporter.namespaces = namespaces;
        exporter.suspects.add(&suspects);
        exporter.capabilities = myself::capabilities();
        exporter.process = self.start_time.and_then(myself::figures);
        debug!(complete = sample.is_some(), total = ?stages[Stage::Total as usize], "sampled");
        self.exposed.host = host;
        if let Some(sample) = sample {
            self.series.push(Point::of(&self.exposed.host, &sample));
            self.exposed.sample = Some(Arc::new(sample));
        }
        self.report = Arc::new(compose(&self.context, &self.series, &self.exposed));
        self.exposed.findings = self.exposed.sample.is_some().then(|| {
            let mut counts = [0; FindingKind::ALL.len()];
            self.report.findings.iter().for_each(|finding| counts[finding.kind as usize] += 1);
            counts
        });
    }

    /// A lasting fault is logged when it starts and when it ends.
    fn note_faults(&mut self, outcomes: &Outcomes) {
        let errors: BTreeMap<Source, _> =
            Source::ALL.iter().filter_map(|source| Some((*source, outcomes.first(*source)?))).collect();
        for source in Source::ALL {
            match errors.get(&source) {
                Some(error) => {
                    if self.faults.failed(source, error.reason()).is_some() {
                        warn!(source = source.label(), reason = error.reason().label(), %error, "source failed");
                    }
                }
                None => {
                    if let Some(FaultEvent::Ended { rounds }) = self.faults.worked(&source) {
                        info!(source = source.label(), rounds, "source works again");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::kernel::error::Error;
    use crate::report::Mode;
    use crate::sample::{HostFigures, NamespaceCounts, Sample, StageDurations, SuspectCounts};

    fn sample(timestamp: f64) -> Sample {
        Sample { timestamp, ..Sample::default() }
    }

    fn reading(memory: u64, sample: Option<Sample>) -> Reading {
        let mut outcomes = Outcomes::default();
        if sample.is_none() {
            outcomes.failed(Source::SockDiag, Error::Incomplete { query: "tcp", what: "end of file" });
        }
        Reading {
            host: HostFigures { tcp_memory: Some(memory), ..HostFigures::default() },
            sample,
            outcomes,
            stages: StageDurations::default(),
            namespaces: NamespaceCounts { sampled: 1, failed: 0 },
            suspects: SuspectCounts { answered: 2, ..SuspectCounts::default() },
        }
    }

    fn context(interval: Duration) -> Context {
        let stall_after = Duration::from_secs(30);
        Context {
            mode: Mode::Daemon,
            hostname: "host".to_owned(),
            interval,
            stall_after,
            missing: Vec::new(),
        }
    }

    fn publication() -> Publication {
        Publication::new(context(Duration::from_secs(15)))
    }

    #[test]
    fn an_incomplete_attempt_leaves_the_sample_and_counts_why() {
        let mut publication = publication();
        publication.absorb(reading(1, Some(sample(100.0))), 0);
        let exposed = &publication.exposed;
        assert!(exposed.exporter.sources.iter().all(|source| source.success));

        publication.absorb(reading(2, None), 3);
        publication.absorb(reading(3, None), 0);
        let exposed = &publication.exposed;
        assert_eq!(exposed.sample.as_ref().unwrap().timestamp.to_bits(), 100f64.to_bits(), "its true time");
        assert_eq!(exposed.host.tcp_memory, Some(3), "other sources are not hidden");
        let state = exposed.exporter.sources[Source::SockDiag as usize];
        assert!(!state.success);
        assert_eq!(state.errors[Reason::Incomplete as usize], 2);
        assert_eq!(exposed.exporter.overruns, 3);
        assert_eq!(exposed.exporter.suspects.answered, 6, "counted since start");
        let failed = exposed.exporter.sources.iter().filter(|source| !source.success).count();
        assert_eq!(failed, 1);

        publication.absorb(reading(4, Some(sample(160.0))), 0);
        let state = publication.exposed.exporter.sources[Source::SockDiag as usize];
        assert!(state.success);
        assert_eq!(state.errors[Reason::Incomplete as usize], 2, "history stays");
    }

    #[test]
    fn ticks_keep_their_grid() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let interval = Duration::from_secs(15);
        assert_eq!(next_tick(start, interval, after(1)), (after(15), 0));
        assert_eq!(next_tick(start, interval, after(15)), (after(30), 1));
        assert_eq!(next_tick(start, interval, after(50)), (after(60), 3));
    }

    #[test]
    fn the_loop_samples_one_after_another_until_it_is_stopped() {
        let (publish, mut exposed) = watch::channel(Arc::new(Exposed::default()));
        let (publish_report, report) = watch::channel(publication().report());
        let publish = Publish { exposed: publish, report: publish_report };
        let (stop, stopped) = mpsc::channel();
        let heartbeat = Heartbeat::new(Duration::from_millis(5));
        let mut count = 0;
        let read = move || {
            count += 1;
            // Longer than an interval: the ticks it covers are skipped, never made up for at once.
            std::thread::sleep(Duration::from_millis(12));
            reading(count, None)
        };
        let thread = start(
            read,
            Default::default,
            context(Duration::from_millis(5)),
            publish,
            heartbeat.clone(),
            stopped,
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(exposed.wait_for(|exposed| exposed.host.tcp_memory >= Some(3))).unwrap();
        drop(stop);
        thread.join().unwrap();
        assert!(exposed.borrow().exporter.overruns >= 4);
        assert_eq!(report.borrow().timestamp, None, "published with each attempt, here without a sample");
        assert_eq!(heartbeat.silent_for(), None);
    }
}
