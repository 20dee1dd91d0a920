//! The daemon as its users start it, under scrapes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Result;
use crate::figures::{Memory, percentile};
use crate::program::Program;
use crate::scrape::{CLASSIC, FORMS, Form, Scraper, free_address};

/// Scrapes of each form, so that the 99th percentile is no single one.
const SCRAPES: usize = 200;
/// Pause between two scrapes: all of them together cover several samples.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the idle daemon is watched: long enough for a clock tick to be little of a sample's CPU time.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// How long the first sample may take.
const FIRST_SAMPLE_IN: Duration = Duration::from_secs(30);
/// Samples that the scrapes must have come across at least.
const SAMPLES_MIN: usize = 3;

/// The daemon on an idle host.
#[derive(Debug)]
pub struct Idle {
    /// Memory after [`IDLE_FOR`].
    pub memory: Memory,
    /// CPU time a sample, scrapes of a Prometheus left out.
    pub cpu_per_sample: Duration,
}

/// The daemon with sockets to read.
#[derive(Debug)]
pub struct Busy {
    /// Memory after the last scrape.
    pub memory: Memory,
    /// Scrape latencies of each form, sorted.
    pub scrapes: Vec<(Form, Vec<Duration>)>,
    /// Samples that ended meanwhile.
    pub samples: usize,
}

impl Busy {
    /// All latencies together, sorted.
    pub fn latencies(&self) -> Vec<Duration> {
        let mut all: Vec<Duration> = self.scrapes.iter().flat_map(|(_, times)| times.clone()).collect();
        all.sort_unstable();
        all
    }

    /// The 99th percentile of all scrapes.
    pub fn p99(&self) -> Duration {
        percentile(&self.latencies(), 0.99)
    }
}

/// Watches the daemon where it has next to nothing to read.
pub fn idle() -> Result<Idle> {
    let (daemon, mut scraper) = start()?;
    let gone = "the daemon has ended";
    let (before, clock) = (daemon.cpu().ok_or(gone)?, Instant::now());
    std::thread::sleep(IDLE_FOR);
    let spent = daemon.cpu().ok_or(gone)?.saturating_sub(before);
    let samples = clock.elapsed().as_secs_f64();
    scraper.scrape(CLASSIC)?;
    let memory = daemon.memory().ok_or(gone)?;
    Ok(Idle { memory, cpu_per_sample: spent.div_f64(samples) })
}

/// Scrapes the daemon while it samples.
pub fn busy() -> Result<Busy> {
    let (daemon, mut scraper) = start()?;
    let mut latencies: Vec<_> = FORMS.iter().map(|form| (*form, Vec::with_capacity(SCRAPES))).collect();
    let mut timestamps = Vec::new();
    for _ in 0..SCRAPES {
        for (form, times) in &mut latencies {
            let (body, took) = scraper.scrape(*form)?;
            times.push(took);
            if *form == CLASSIC {
                timestamps.extend(timestamp(&body));
            }
            std::thread::sleep(PAUSE);
        }
    }
    for (_, times) in &mut latencies {
        times.sort_unstable();
    }
    timestamps.dedup();
    if timestamps.len() < SAMPLES_MIN {
        return Err(format!("only {} samples during the scrapes", timestamps.len()).into());
    }
    let memory = daemon.memory().ok_or("the daemon has ended")?;
    Ok(Busy { memory, scrapes: latencies, samples: timestamps.len() })
}

/// Starts the daemon and waits for its first sample.
fn start() -> Result<(Program, Scraper)> {
    let address = free_address()?;
    let command = [
        env!("CARGO_BIN_EXE_skmem-exporter"),
        "--web.listen-address",
        &address.to_string(),
        "--sample.interval",
        "1s",
        "--log.level",
        "warn",
    ];
    let daemon = Program::start(&command, Stdio::inherit())?;
    let mut scraper = Scraper::connect(address)?;
    let give_up = Instant::now() + FIRST_SAMPLE_IN;
    while timestamp(&scraper.scrape(CLASSIC)?.0).is_none() {
        if Instant::now() >= give_up {
            return Err("the daemon has no sample yet".into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok((daemon, scraper))
}

/// The time of the sample that a body shows.
fn timestamp(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("skmem_sample_timestamp_seconds "))?;
    Some(value.to_owned())
}
