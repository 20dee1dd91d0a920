//! Which fault is told by which alert: the table from which `tests/e2e` runs, and which docs/alerts.md shows.

/// Of whom an alert must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The program at fault.
    Culprit,
    /// The program at the other end of its connections.
    Peer,
    /// No process: the host or an exporter.
    Instance,
    /// Not even that: Prometheus itself.
    Nobody,
}

/// A fault, and one alert that tells of it. Not all who read the table need all of it.
#[allow(dead_code)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proof {
    /// Its name in the tests.
    pub(crate) fault: &'static str,
    /// In words.
    pub(crate) happens: &'static str,
    pub(crate) alert: &'static str,
    pub(crate) severity: &'static str,
    pub(crate) whom: Whom,
    /// Whether Alertmanager silences it because of another one, by the routes of the example.
    pub(crate) is_silenced: bool,
}

const fn proof(
    (fault, happens): (&'static str, &'static str),
    alert: &'static str,
    severity: &'static str,
    whom: Whom,
) -> Proof {
    Proof { fault, happens, alert, severity, whom, is_silenced: false }
}

const fn silenced(proof: Proof) -> Proof {
    Proof { is_silenced: true, ..proof }
}

type Fault = (&'static str, &'static str);

const NEVER_READS: Fault = ("never_reads", "a program accepts connections and never calls recv()");
const READS_SLOWLY: Fault = ("reads_slowly", "a program reads 20 kB every 230 ms on each connection");
const NEVER_ACCEPTS: Fault = ("never_accepts", "a program stops calling accept(), and clients keep coming");
const LEAKS: Fault = ("leaks", "a program forgets connections that its clients have closed");
const HALF_CLOSES: Fault = ("half_closes", "a program calls shutdown(SHUT_WR) and forgets the connections");
const CANNOT_SEND: Fault = ("cannot_send", "a program sends to peers that do not read");
const LOSES_ITS_PATH: Fault = ("loses_its_path", "the cable between a program and its peer is cut");
const IS_RESET: Fault = ("is_reset", "peers reset connections with unread data, and nobody closes them");
const ORPHANS: Fault =
    ("orphans", "300 connections are closed whose peers take no more; tcp_max_orphans is 560, then 330");
const HOARDS: Fault = ("hoards", "a program sends megabytes a second to another one that does not read");
const LEAKS_MUCH: Fault =
    ("leaks_much", "a program forgets 120 full connections that its clients have closed");
const SHORTAGE: Fault = ("shortage", "tcp_mem is less than what is held");
const SHORT_LEAK: Fault =
    ("short_leak", "in that shortage, one program has a quarter of pressure in CLOSE_WAIT");
const SHORT_HOARD: Fault =
    ("short_hoard", "in that shortage, one program has not read a quarter of pressure");
const DRIPS: Fault =
    ("drips", "in that shortage, small messages go on coming to a program that does not read");
const GIVES_UP: Fault = ("gives_up", "in that shortage, a program closes connections with unsent data");
const BLIND: Fault = ("blind", "the exporter runs without any capability");
const ELSEWHERE: Fault = ("elsewhere", "the exporter runs in another network namespace");
const CRAMPED: Fault = ("cramped", "the exporter runs with `--process.max 1`");
const OUT_OF_FDS: Fault = ("out_of_fds", "the exporter has no file descriptor left");
const KILLED: Fault = ("killed", "one exporter is killed");
const ALL_GONE: Fault = ("all_gone", "all exporters are stopped and taken out of the scrape configuration");
const LOST_THRESHOLD: Fault = ("lost_threshold", "a threshold is deleted from the rules");

use Whom::{Culprit, Instance, Nobody, Peer};

/// Every alert of every severity.
pub(crate) const PROVEN: &[Proof] = &[
    proof(NEVER_READS, "SkmemProcessNotReading", "warning", Culprit),
    proof(READS_SLOWLY, "SkmemProcessReadingSlowly", "warning", Culprit),
    proof(NEVER_ACCEPTS, "SkmemAcceptQueueStalled", "warning", Culprit),
    proof(NEVER_ACCEPTS, "SkmemAcceptQueueStalled", "critical", Culprit),
    proof(LEAKS, "SkmemCloseWaitLeak", "warning", Culprit),
    proof(HALF_CLOSES, "SkmemHalfClosedLeak", "warning", Culprit),
    proof(CANNOT_SEND, "SkmemPeerNotReading", "warning", Culprit),
    proof(LOSES_ITS_PATH, "SkmemPathStalled", "warning", Culprit),
    proof(IS_RESET, "SkmemMemoryUnattributed", "warning", Instance),
    proof(ORPHANS, "SkmemOrphansNearLimit", "warning", Instance),
    proof(ORPHANS, "SkmemOrphansNearLimit", "critical", Instance),
    proof(HOARDS, "SkmemProcessMemoryAboveRss", "warning", Culprit),
    proof(HOARDS, "SkmemPeerNotReading", "warning", Culprit),
    proof(HOARDS, "SkmemPeerNotReading", "critical", Culprit),
    proof(HOARDS, "SkmemProcessNotReading", "warning", Peer),
    proof(HOARDS, "SkmemHostMemoryGrowsWithoutTraffic", "warning", Instance),
    proof(HOARDS, "SkmemHostMemoryPredicted", "warning", Instance),
    proof(LEAKS_MUCH, "SkmemCloseWaitLeak", "warning", Culprit),
    silenced(proof(SHORTAGE, "SkmemHostMemoryHigh", "warning", Instance)),
    proof(SHORTAGE, "SkmemHostMemoryHigh", "critical", Instance),
    proof(SHORTAGE, "SkmemHostMemoryPressure", "warning", Instance),
    proof(SHORTAGE, "SkmemHostMemoryPressure", "critical", Instance),
    proof(SHORT_LEAK, "SkmemCloseWaitLeak", "critical", Culprit),
    proof(SHORT_HOARD, "SkmemProcessNotReading", "critical", Culprit),
    silenced(proof(DRIPS, "SkmemReceiveDrops", "warning", Instance)),
    proof(GIVES_UP, "SkmemAbortsOnMemory", "critical", Instance),
    proof(BLIND, "SkmemPartialView", "warning", Instance),
    proof(BLIND, "SkmemSourceFailing", "warning", Instance),
    proof(ELSEWHERE, "SkmemLimitMissing", "warning", Instance),
    proof(CRAMPED, "SkmemProcessesTruncated", "warning", Instance),
    proof(OUT_OF_FDS, "SkmemSampleStale", "warning", Instance),
    proof(OUT_OF_FDS, "SkmemPartialView", "warning", Instance),
    proof(OUT_OF_FDS, "SkmemSourceFailing", "warning", Instance),
    proof(KILLED, "SkmemExporterDown", "warning", Instance),
    proof(ALL_GONE, "SkmemExporterAbsent", "critical", Nobody),
    proof(LOST_THRESHOLD, "SkmemThresholdMissing", "warning", Nobody),
];

/// The head of the document's table.
#[allow(dead_code)]
pub(crate) const HEAD: &str = "| fault | alert | severity | told after, s |\n|---|---|---|---:|\n";

impl Proof {
    /// Its row in the document, up to the time.
    #[allow(dead_code)]
    pub(crate) fn row(&self) -> String {
        let silenced = if self.is_silenced { ", silenced" } else { "" };
        format!("| {} | {} | {}{silenced} |", self.happens, self.alert, self.severity)
    }
}
