//! The bars, and the report in Markdown.

use std::fmt::Write;
use std::time::Duration;

use crate::figures::{Memory, percentile};
use crate::run::{LONG_RUN_MARKS, Results, Size, Work};

/// The bars count from this many sockets on; the load rounds its sockets down a little.
const BINDING_FROM: u64 = 195_000;

const MIB: f64 = 1024.0 * 1024.0;

/// A figure with its limit.
#[derive(Debug)]
pub struct Bar {
    /// What is limited.
    pub name: &'static str,
    unit: &'static str,
    value: f64,
    limit: f64,
}

impl Bar {
    /// Whether the figure keeps within its limit.
    pub fn is_reached(&self) -> bool {
        self.value <= self.limit
    }
}

/// Whether the largest size is the one the bars are set for.
pub fn is_binding(results: &Results) -> bool {
    results.sizes.last().is_some_and(|size| size.sockets >= BINDING_FROM)
}

/// Every bar, at the largest size.
pub fn bars(results: &Results) -> Vec<Bar> {
    let (Some(smallest), Some(largest)) = (results.sizes.first(), results.sizes.last()) else {
        return Vec::new();
    };
    let median = |work| seconds(largest.runs(work).median());
    let dump = median(Work::BareDump);
    let peak = |work| largest.runs(work).peak_rss().map_or(f64::NAN, |bytes| bytes as f64);
    let each = |size: &Size| seconds(size.runs(Work::Steady).median()) / size.sockets as f64;
    vec![
        Bar {
            name: "cold sample / (bare dump + bare fd walk)",
            unit: "x",
            value: median(Work::Cold) / (dump + median(Work::FdWalk)),
            limit: 1.25,
        },
        Bar {
            name: "unchanged sample / bare dump",
            unit: "x",
            value: median(Work::Steady) / dump,
            limit: 1.5,
        },
        Bar {
            name: "sample with 1 % replaced / bare dump",
            unit: "x",
            value: median(Work::Replaced) / dump,
            limit: 2.0,
        },
        Bar {
            name: "unchanged sample's cost per socket, largest / smallest count",
            unit: "x",
            value: each(largest) / each(smallest),
            limit: 1.3,
        },
        Bar {
            name: "following 200,000 suspects / unchanged sample",
            unit: "x",
            value: median(Work::Following) / median(Work::Steady),
            limit: 0.15,
        },
        Bar {
            name: "memory of following 200,000 suspects",
            unit: " MiB",
            value: (peak(Work::Following) - peak(Work::ReceiveLoop)) / MIB,
            limit: 16.0,
        },
        Bar { name: "asking 1,000 suspects", unit: " ms", value: median(Work::Suspects) * 1e3, limit: 50.0 },
        Bar {
            name: "daemon's peak RSS at the largest count",
            unit: " MiB",
            value: largest.daemon.memory.peak as f64 / MIB,
            limit: 48.0,
        },
        Bar {
            name: "daemon's peak RSS on an idle host",
            unit: " MiB",
            value: results.idle.memory.peak as f64 / MIB,
            limit: 12.0,
        },
        Bar {
            name: "99th percentile of scrape latency",
            unit: " ms",
            value: largest.daemon.p99().as_secs_f64() * 1e3,
            limit: 10.0,
        },
    ]
}

fn seconds(time: Option<Duration>) -> f64 {
    time.map_or(f64::NAN, |time| time.as_secs_f64())
}

/// The whole report.
pub fn markdown(results: &Results, bars: &[Bar]) -> String {
    let mut out = String::from(INTRODUCTION);
    out.push_str(&results.machine);
    section(&mut out, "Bars", &bar_table(bars));
    out.push_str(BARS_NOTE);
    section(&mut out, "Time", &time_table(results));
    let _ = write!(
        out,
        "\nMedian (minimum) in ms of {} repetitions, twice as many for the bare dump, one for `ss -tminp`; `x` is the \
         median divided by the bare dump's.\n{TIME_NOTE}",
        results.repetitions
    );
    section(&mut out, "CPU time", &cpu_table(results));
    out.push_str(CPU_NOTE);
    section(&mut out, "Peak memory", &memory_table(results));
    out.push_str(MEMORY_NOTE);
    section(&mut out, "The daemon", &daemon_table(results));
    out.push_str(DAEMON_NOTE);
    section(&mut out, "Scrapes", &scrape_table(results));
    out.push_str(SCRAPE_NOTE);
    out
}

const INTRODUCTION: &str = "\
# Benchmark

Written by `cargo bench --bench sample -- --write docs/benchmark.md`; every number below was measured in that one run.

";

const BARS_NOTE: &str = "
All of them are ratios or limits of the largest count. The benchmark fails where one is not reached at 200,000 sockets.
";

const TIME_NOTE: &str = "\
The sockets are connected over loopback, both ends in the same process, in a network namespace of their own; one
connection in ten has 4 KiB of unread data. Everything runs inside that namespace, so our samples read it as the
exporter's own and the host's as another; the bare dump reads it alone. Its request is, byte for byte, the one the daemon
sends unless some sockets are bound and not connected.
Floor and samples are measured in turn, each in a process of its own. Every dump must show exactly the sockets that were
opened, and every sample must give each of the load's processes exactly its sockets, and together their memory as
netlink-packet-sock-diag adds it up; otherwise the run fails. The first walk over file descriptors that nobody has looked
at before makes the kernel create an entry for each; it stands in its own row. All others, bare walk and cold sample
alike, find these entries. A cold sample is the first of a new process. For \"1 % replaced\" every process closes and opens
1 % of its connections before each of three samples in a row, of which the last counts.
Following is measured with 200,000 sockets whatever the count: all of them hold something in every sample, and as many have
answered as are remembered. In the samples above, one socket in twenty holds something, and 1,000 of them are asked.
netlink-packet-sock-diag does not know the request for both address families at once, so its row has two dumps.
";

const CPU_NOTE: &str = "
User and system time in ms of the same runs, median. It tells work from waiting for a CPU that others use.
";

const MEMORY_NOTE: &str = "
`VmHWM` in MiB of the process that does the work: for the first ten rows one of this benchmark in which nothing else
runs. Those of `ss` are looked at every 5 ms while it runs. The plain receive loop holds one datagram at a time;
netlink-proto reads ahead into an unbounded queue, which its users cannot limit.
";

const DAEMON_NOTE: &str = "
The daemon as its users start it, but for `--sample.interval 1s`. The idle host has no TCP connection in the namespace;
its CPU time is user and system time over 30 s. The last row is a sampling process of the benchmark's own, with 1 % of the
sockets replaced before each sample: its map doubles once when the numbers of closed sockets have filled it, and then stays.
";

const SCRAPE_NOTE: &str = "
Latency in ms from the first byte of the request to the last of the body, over one connection that is kept alive, while
the daemon samples every second: 50th percentile / 99th percentile / slowest.
";

/// A table, row by row: the header first.
type Table = Vec<Vec<String>>;

fn section(out: &mut String, title: &str, table: &Table) {
    let _ = write!(out, "\n## {title}\n\n");
    for (index, row) in table.iter().enumerate() {
        let _ = writeln!(out, "| {} |", row.join(" | "));
        if index == 0 {
            let rules = std::iter::once("---").chain(row.iter().skip(1).map(|_| "---:"));
            let _ = writeln!(out, "| {} |", rules.collect::<Vec<_>>().join(" | "));
        }
    }
}

fn bar_table(bars: &[Bar]) -> Table {
    let mut table = vec![["Bar", "Measured", "Limit", "Reached"].map(str::to_owned).to_vec()];
    table.extend(bars.iter().map(|bar| {
        vec![
            bar.name.to_owned(),
            format!("{:.2}{}", bar.value, bar.unit),
            format!("{}{}", bar.limit, bar.unit),
            if bar.is_reached() { "yes" } else { "**no**" }.to_owned(),
        ]
    }));
    table
}

/// The header: what the rows are, and a column for each size.
fn header(first: &str, results: &Results) -> Vec<String> {
    let sizes = results.sizes.iter();
    let columns = sizes.map(|size| format!("{} sockets, {} processes", size.sockets, size.processes));
    std::iter::once(first.to_owned()).chain(columns).collect()
}

/// A row: its name, and a cell for each size.
fn row(name: &str, results: &Results, cell: impl Fn(&Size) -> String) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(results.sizes.iter().map(cell)).collect()
}

/// The work that has been measured at all.
fn measured(results: &Results) -> impl Iterator<Item = Work> + '_ {
    let is_measured = |work: &Work| results.sizes.iter().any(|size| size.runs(*work).median().is_some());
    Work::ALL.into_iter().filter(is_measured)
}

fn time_table(results: &Results) -> Table {
    let mut table = vec![header("Time, ms", results)];
    table.extend(measured(results).map(|work| {
        row(work.label(), results, |size| {
            let (runs, dump) = (size.runs(work), seconds(size.runs(Work::BareDump).median()));
            let ratio = seconds(runs.median()) / dump;
            format!("{} ({}) {ratio:.2}x", milliseconds(runs.median()), milliseconds(runs.min()))
        })
    }));
    table.push(row("first walk over all fds", results, |size| milliseconds(Some(size.first_walk))));
    table
}

/// CPU time is known of the benchmark's own processes.
fn cpu_table(results: &Results) -> Table {
    let mut table = vec![header("CPU time, ms", results)];
    let own = measured(results).take_while(|work| *work != Work::Ss);
    table.extend(
        own.map(|work| row(work.label(), results, |size| milliseconds(size.runs(work).median_cpu()))),
    );
    table
}

fn memory_table(results: &Results) -> Table {
    let mut table = vec![header("Peak RSS, MiB", results)];
    table.extend(measured(results).map(|work| {
        row(work.label(), results, |size| size.runs(work).peak_rss().map_or("-".to_owned(), mebibytes))
    }));
    table
}

fn daemon_table(results: &Results) -> Table {
    let mut header = header("Daemon", results);
    header.insert(1, "idle host".to_owned());
    let idle = &results.idle;
    let marks = LONG_RUN_MARKS.map(|mark| mark.to_string());
    let line = |name: &str, idle: String, cell: &dyn Fn(&Size) -> String| {
        let mut line = row(name, results, cell);
        line.insert(1, idle);
        line
    };
    let peak = |memory: Memory| mebibytes(memory.peak);
    let resident = |memory: Memory| mebibytes(memory.resident);
    vec![
        header,
        line("peak RSS, MiB", peak(idle.memory), &|size| peak(size.daemon.memory)),
        line("RSS, MiB", resident(idle.memory), &|size| resident(size.daemon.memory)),
        line("CPU time a sample, ms", milliseconds(Some(idle.cpu_per_sample)), &|_| "-".to_owned()),
        line(&format!("RSS after {} samples, MiB", marks.join(" / ")), "-".to_owned(), &|size| {
            size.long_run.iter().copied().map(mebibytes).collect::<Vec<_>>().join(" / ")
        }),
    ]
}

fn scrape_table(results: &Results) -> Table {
    let mut table = vec![header("Scrapes", results)];
    let Some(forms) = results.sizes.first().map(|size| &size.daemon.scrapes) else { return table };
    for (index, (form, _)) in forms.iter().enumerate() {
        table.push(row(form.name, results, |size| latencies(&size.daemon.scrapes[index].1)));
    }
    table.push(row("all", results, |size| latencies(&size.daemon.latencies())));
    table.push(row("scrapes / samples meanwhile", results, |size| {
        format!("{} / {}", size.daemon.latencies().len(), size.daemon.samples)
    }));
    table
}

fn latencies(sorted: &[Duration]) -> String {
    let slowest = sorted.last().copied().unwrap_or_default();
    [percentile(sorted, 0.5), percentile(sorted, 0.99), slowest]
        .map(|time| format!("{:.2}", time.as_secs_f64() * 1e3))
        .join(" / ")
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or("-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1e3))
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB)
}
