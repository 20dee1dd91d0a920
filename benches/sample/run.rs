//! The run: what is measured, in which order, and what is checked of it.

use std::process::Command;
use std::time::Duration;

use crate::daemon::{self, Busy, Idle};
use crate::figures::{Measured, Runs};
use crate::load::Load;
use crate::neighbours::{self, NodeExporter};
use crate::probe::{Kind, Probe};
use crate::{Options, Result, machine, report};

/// Samples between the last replacement and the one that counts as unchanged: holders that are new are asked twice
/// whether they still hold, then it is quiet.
const SETTLING_SAMPLES: usize = 3;
/// Replacements before each sample that counts, a sample between each: churn never begins with this sample.
const REPLACEMENTS: usize = 3;
/// Samples over which memory is watched.
const LONG_RUN: usize = 200;
/// After which of them it is looked at.
pub const LONG_RUN_MARKS: [usize; 3] = [10, 100, LONG_RUN];

/// Work that is timed, in the order of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Work {
    /// Bare kernel dump.
    BareDump,
    /// Bare walk over all file descriptors.
    FdWalk,
    /// Sample of a fresh kernel.
    Cold,
    /// Sample when nothing has changed.
    Steady,
    /// Sample with 1 % of the sockets replaced since the one before.
    Replaced,
    /// Following every socket, as a part of a sample.
    Following,
    /// Asking 1,000 suspects, as a part of a sample.
    Suspects,
    /// Our receive loop and decoder alone.
    ReceiveLoop,
    /// netlink-proto, slim messages.
    ProtoSlim,
    /// netlink-proto, whole messages.
    ProtoFull,
    /// `ss -tmn`
    Ss,
    /// `ss -tminp`
    SsWithProcesses,
    /// node_exporter.
    NodeExporter,
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 13] = [
        Self::BareDump,
        Self::FdWalk,
        Self::Cold,
        Self::Steady,
        Self::Replaced,
        Self::Following,
        Self::Suspects,
        Self::ReceiveLoop,
        Self::ProtoSlim,
        Self::ProtoFull,
        Self::Ss,
        Self::SsWithProcesses,
        Self::NodeExporter,
    ];

    /// Name in the report.
    pub fn label(self) -> &'static str {
        match self {
            Self::BareDump => "floor: bare kernel dump",
            Self::FdWalk => "floor: bare walk over all fds",
            Self::Cold => "our sample, cold",
            Self::Steady => "our sample, nothing changed",
            Self::Replaced => "our sample, 1 % of the sockets replaced",
            Self::Following => "of it: following 200,000 suspects",
            Self::Suspects => "of it: asking 1,000 suspects",
            Self::ReceiveLoop => "our receive loop and decoder alone",
            Self::ProtoSlim => "netlink-proto, slim message type",
            Self::ProtoFull => "netlink-proto, netlink-packet-sock-diag",
            Self::Ss => "`ss -tmn`",
            Self::SsWithProcesses => "`ss -tminp`",
            Self::NodeExporter => "node_exporter scrape, tcpstat only",
        }
    }
}

/// What was measured with one number of sockets.
#[derive(Debug)]
pub struct Size {
    /// Sockets of the load.
    pub sockets: u64,
    /// Processes that hold them.
    pub processes: usize,
    runs: [Runs; Work::ALL.len()],
    /// The first walk over the load's file descriptors, which nobody had looked at.
    pub first_walk: Duration,
    /// Resident memory of a sampling process after as many samples as [`LONG_RUN_MARKS`] say.
    pub long_run: Vec<u64>,
    /// The daemon.
    pub daemon: Busy,
}

impl Size {
    /// All runs of some work.
    pub fn runs(&self, work: Work) -> &Runs {
        &self.runs[work as usize]
    }
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Results {
    /// The machine.
    pub machine: String,
    /// Repetitions at each size.
    pub repetitions: u16,
    /// The daemon before there was any load.
    pub idle: Idle,
    /// By number of sockets, ascending.
    pub sizes: Vec<Size>,
}

/// Measures, prints, and fails where a bar is not reached.
pub fn run(options: &Options) -> Result<()> {
    if !options.without_neighbours {
        neighbours::check()?;
    }
    bring_loopback_up()?;
    let mut sockets = options.sockets.clone();
    sockets.sort_unstable();
    let machine = machine::describe();
    eprintln!("idle host");
    let idle = daemon::idle()?;
    let sizes = sockets.iter().map(|sockets| measure(*sockets, options)).collect::<Result<Vec<_>>>()?;
    let results = Results { machine, repetitions: options.repetitions, idle, sizes };
    let bars = report::bars(&results);
    let text = report::markdown(&results, &bars);
    println!("{text}");
    if let Some(file) = &options.write {
        std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let failed: Vec<&str> = bars.iter().filter(|bar| !bar.is_reached()).map(|bar| bar.name).collect();
    if failed.is_empty() || !report::is_binding(&results) {
        Ok(())
    } else {
        Err(format!("not reached: {}", failed.join("; ")).into())
    }
}

fn bring_loopback_up() -> Result<()> {
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .map_err(|error| format!("ip: {error}; install Debian package iproute2"))?;
    if status.success() { Ok(()) } else { Err(format!("ip link set lo up: {status}").into()) }
}

fn measure(sockets: u64, options: &Options) -> Result<Size> {
    eprintln!("{sockets} sockets: opening");
    let mut load = Load::open(sockets)?;
    let mut bench = Bench::start(&mut load)?;
    // The first look at a process's file descriptors makes the kernel create an entry for each, which later looks
    // find: one walk goes first, so that floor and samples are measured under the same condition.
    let first_walk = bench.walk.measure()?;
    bench.load.check_walk(&first_walk)?;
    bench.steady.measure()?;
    for repetition in 1..=options.repetitions {
        eprintln!("{sockets} sockets: repetition {repetition} of {}", options.repetitions);
        bench.repetition()?;
    }
    eprintln!("{sockets} sockets: {LONG_RUN} samples");
    let long_run = bench.long_run()?;
    measure_causes(&mut bench.runs, options.repetitions)?;
    let mut runs = bench.runs;
    if !options.without_neighbours {
        eprintln!("{sockets} sockets: neighbours");
        measure_neighbours(&mut runs, options.repetitions)?;
    }
    eprintln!("{sockets} sockets: daemon");
    let daemon = daemon::busy()?;
    Ok(Size {
        sockets: load.sockets(),
        processes: load.processes(),
        runs,
        first_walk: first_walk.wall,
        long_run,
        daemon,
    })
}

/// The parts of a sample that tell causes, each in a process of its own, beside the same load.
fn measure_causes(runs: &mut [Runs], repetitions: u16) -> Result<()> {
    let mut following = Probe::start(Kind::Following)?;
    let mut suspects = Probe::start(Kind::Suspects)?;
    // The first makes tracks, the second remembers answers; from the third on it is as it stays.
    for _ in 0..2 {
        following.measure()?;
        suspects.measure()?;
    }
    for _ in 0..repetitions {
        runs[Work::Following as usize].push(following.measure()?);
        runs[Work::Suspects as usize].push(suspects.measure()?);
    }
    Ok(())
}

fn measure_neighbours(runs: &mut [Runs], repetitions: u16) -> Result<()> {
    let mut node_exporter = NodeExporter::start()?;
    for _ in 0..repetitions {
        runs[Work::Ss as usize].push(neighbours::ss()?);
        runs[Work::NodeExporter as usize].push(node_exporter.scrape()?);
    }
    // Once: it takes seconds, and nothing is compared with it to the percent.
    runs[Work::SsWithProcesses as usize].push(neighbours::ss_with_processes()?);
    Ok(())
}

/// The processes that measure, next to a load.
struct Bench<'a> {
    load: &'a mut Load,
    dump: Probe,
    walk: Probe,
    receive_loop: Probe,
    proto_full: Probe,
    proto_slim: Probe,
    steady: Probe,
    runs: [Runs; Work::ALL.len()],
}

impl<'a> Bench<'a> {
    fn start(load: &'a mut Load) -> Result<Self> {
        Ok(Self {
            load,
            dump: Probe::start(Kind::BareDump)?,
            walk: Probe::start(Kind::FdWalk)?,
            receive_loop: Probe::start(Kind::ReceiveLoop)?,
            proto_full: Probe::start(Kind::ProtoFull)?,
            proto_slim: Probe::start(Kind::ProtoSlim)?,
            steady: Probe::start(Kind::Sample)?,
            runs: Default::default(),
        })
    }

    /// Everything once, floor and samples in turn, so that whatever else the machine does meets all of them.
    fn repetition(&mut self) -> Result<()> {
        let dump = self.dump.measure()?;
        self.keep_dump(Work::BareDump, dump)?;

        let replaced = self.sample_replaced()?;
        let reference = self.proto_full.measure()?;
        self.keep_sample(Work::Replaced, replaced, &reference)?;

        for _ in 0..SETTLING_SAMPLES {
            self.steady.measure()?;
        }
        let steady = self.steady.measure()?;
        self.keep_sample(Work::Steady, steady, &reference)?;

        let dump = self.dump.measure()?;
        self.keep_dump(Work::BareDump, dump)?;
        let receive_loop = self.receive_loop.measure()?;
        self.keep_dump(Work::ReceiveLoop, receive_loop)?;
        let slim = self.proto_slim.measure()?;
        self.keep_dump(Work::ProtoSlim, slim)?;

        let walk = self.walk.measure()?;
        self.load.check_walk(&walk)?;
        self.runs[Work::FdWalk as usize].push(walk);
        // A process of its own each time: its memory is as untouched as that of a daemon that has just started.
        let cold = Probe::start(Kind::Sample)?.measure()?;
        self.keep_sample(Work::Cold, cold, &reference)?;
        self.keep_dump(Work::ProtoFull, reference)
    }

    fn sample_replaced(&mut self) -> Result<Measured> {
        for _ in 1..REPLACEMENTS {
            self.load.replace_hundredth()?;
            self.steady.measure()?;
        }
        self.load.replace_hundredth()?;
        self.steady.measure()
    }

    fn keep_dump(&mut self, work: Work, measured: Measured) -> Result<()> {
        self.load.check_dump(&measured).map_err(|error| format!("{}: {error}", work.label()))?;
        self.runs[work as usize].push(measured);
        Ok(())
    }

    fn keep_sample(&mut self, work: Work, measured: Measured, reference: &Measured) -> Result<()> {
        self.load.check_sample(&measured, reference).map_err(|error| format!("{}: {error}", work.label()))?;
        self.runs[work as usize].push(measured);
        Ok(())
    }

    /// Resident memory in the course of many samples under churn.
    fn long_run(&mut self) -> Result<Vec<u64>> {
        let mut probe = Probe::start(Kind::Sample)?;
        let mut marks = Vec::new();
        for count in 1..=LONG_RUN {
            self.load.replace_hundredth()?;
            let rss = probe.measure()?.rss;
            marks.extend(LONG_RUN_MARKS.contains(&count).then_some(rss));
        }
        Ok(marks)
    }
}
