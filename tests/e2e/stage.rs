//! One part of the trial: faults begin, and everything that is told of them is what must be told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::kit::actor::Actor;
use crate::monitoring::{Labels, Monitoring};
use crate::proven::{PROVEN, Proof, Whom};
use crate::webhook::Told;

/// Longer than any fault takes to be told, or its end.
const PATIENCE: Duration = Duration::from_mins(3);

/// How long nothing else may come after all that must.
const LINGER: Duration = Duration::from_secs(4);

const PAUSE: Duration = Duration::from_millis(250);

/// Who is at fault.
#[derive(Debug, Clone)]
pub struct Accused {
    pid: u32,
    comm: String,
}

impl Accused {
    pub fn of(actor: &Actor) -> Self {
        Self { pid: actor.pid, comm: actor.comm.clone() }
    }
}

/// An alert that must come.
#[derive(Debug)]
struct Expected {
    proof: &'static Proof,
    since: Instant,
    accused: Option<Accused>,
    instance: String,
    /// How long it took to come.
    took: Option<Duration>,
    has_ended: bool,
}

impl Expected {
    /// Whether these are its labels.
    fn is(&self, labels: &Labels) -> bool {
        let label = |name: &str| labels.get(name).map(String::as_str);
        label("alertname") == Some(self.proof.alert)
            && label("severity") == Some(self.proof.severity)
            && label("pid") == self.accused.as_ref().map(|accused| accused.pid.to_string()).as_deref()
            && label("process") == self.accused.as_ref().map(|accused| accused.comm.as_str())
            && (self.proof.whom == Whom::Nobody || label("instance") == Some(&self.instance))
    }

    /// Whether this one, while it is critical, silences it, so that nobody may hear of its end.
    fn is_silenced_by(&self, other: &Self) -> bool {
        let pid = |one: &Self| one.accused.as_ref().map(|accused| accused.pid);
        let severities = (self.proof.severity, other.proof.severity);
        severities == ("warning", "critical")
            && self.proof.alert == other.proof.alert
            && pid(self) == pid(other)
    }

    /// What is told, and to whom.
    fn check(&self, told: &Told) {
        let annotation = |name: &str| {
            told.alert.annotations.get(name).unwrap_or_else(|| panic!("no {name}: {told:#?}")).as_str()
        };
        for name in ["summary", "description", "runbook_url", "dashboard_url"] {
            assert!(!annotation(name).is_empty(), "an empty {name}: {told:#?}");
        }
        let description = annotation("description");
        assert!(!description.contains("<no value>") && !description.contains("error"), "{told:#?}");
        if let Some(Accused { pid, comm }) = &self.accused {
            assert!(description.contains(&format!("{comm} (pid {pid})")), "nobody is named: {told:#?}");
        }
        if self.proof.whom == Whom::Instance {
            assert!(description.contains(&self.instance), "no host is named: {told:#?}");
        }
        let is_about_exporters =
            ["Exporter", "Sample", "Source", "Partial", "Truncated", "LimitMiss", "Threshold"]
                .iter()
                .any(|word| self.proof.alert.contains(word));
        let receiver = match self.proof.severity {
            "critical" => "pager",
            _ if is_about_exporters => "monitoring",
            _ => "tickets",
        };
        assert_eq!(told.receiver, receiver, "{told:#?}");
    }
}

/// Begins with no fault, and ends with none.
pub struct Stage<'a> {
    monitoring: &'a Monitoring,
    exporter: SocketAddr,
    /// How much had been told before.
    heard: usize,
    expected: Vec<Expected>,
}

impl<'a> Stage<'a> {
    pub fn new(monitoring: &'a Monitoring, exporter: SocketAddr) -> Self {
        Self { monitoring, exporter, heard: monitoring.webhook.told().len(), expected: Vec::new() }
    }

    /// Expects what the table says of this fault.
    pub fn begun(&mut self, fault: &'static str, at: Instant, culprit: Option<&Actor>, peer: Option<&Actor>) {
        self.begun_at(fault, at, self.exporter, culprit, peer);
    }

    /// The same of another exporter.
    pub fn begun_at(
        &mut self,
        fault: &'static str,
        at: Instant,
        instance: SocketAddr,
        culprit: Option<&Actor>,
        peer: Option<&Actor>,
    ) {
        let of_fault: Vec<&Proof> = PROVEN.iter().filter(|proof| proof.fault == fault).collect();
        assert!(!of_fault.is_empty(), "the table has no {fault}");
        self.expected.extend(of_fault.into_iter().map(|proof| {
            let accused = match proof.whom {
                Whom::Culprit => Some(Accused::of(culprit.expect("a culprit"))),
                Whom::Peer => Some(Accused::of(peer.expect("a peer"))),
                Whom::Instance | Whom::Nobody => None,
            };
            let instance = instance.to_string();
            Expected { proof, since: at, accused, instance, took: None, has_ended: false }
        }));
    }

    /// Nothing fires for so long.
    pub fn says_nothing_for(mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.listen();
            std::thread::sleep(PAUSE);
        }
    }

    /// Listens until one alert of a fault has come.
    pub fn hears(&mut self, fault: &str, alert: &str, severity: &str) {
        let is_it = |proof: &Proof| (proof.fault, proof.alert, proof.severity) == (fault, alert, severity);
        assert!(self.expected.iter().any(|one| is_it(one.proof)), "the table has no {fault} {severity}");
        self.until("told", |one, _| !is_it(one.proof) || one.took.is_some());
    }

    /// Listens until everything that is expected has come, and a little longer. Whatever else comes is a failure.
    pub fn hears_all(&mut self) {
        self.until("told", |one, _| one.took.is_some());
        let end = Instant::now() + LINGER;
        while Instant::now() < end {
            self.listen();
            std::thread::sleep(PAUSE);
        }
    }

    /// Listens until nothing fires any more and everybody who was told of a fault has been told of its end.
    pub fn hears_the_end(mut self, times: &mut Times) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.listen();
            let firing = self.monitoring.firing();
            if firing.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "does not end: {firing:#?}");
            std::thread::sleep(PAUSE);
        }
        self.until("told as ended", |one, all| {
            one.has_ended || one.proof.is_silenced || all.iter().any(|other| one.is_silenced_by(other))
        });
        times.add(&self.expected);
    }

    fn until(&mut self, what: &str, is_done: impl Fn(&Expected, &[Expected]) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.listen();
            let left: Vec<_> = self.expected.iter().filter(|one| !is_done(one, &self.expected)).collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "never {what}: {left:#?}; firing: {:#?}", self.monitoring.firing());
            std::thread::sleep(PAUSE);
        }
    }

    fn expects(&self, told: &Told) -> bool {
        self.expected.iter().any(|one| one.is(&told.alert.labels))
    }

    /// Takes note of what has come since.
    fn listen(&mut self) {
        let all = self.monitoring.webhook.told();
        let (before, new) = all.split_at(self.heard);
        for told in new {
            // A message about a group has those again that ended some time ago.
            let is_same = |earlier: &Told| earlier.alert.labels == told.alert.labels;
            if told.alert.status == "resolved" && before.iter().any(is_same) && !self.expects(told) {
                continue;
            }
            let Some(expected) = self.expected.iter_mut().find(|one| one.is(&told.alert.labels)) else {
                panic!("nobody did that: {told:#?}\nexpected: {:#?}", self.expected);
            };
            if told.alert.status == "resolved" {
                expected.has_ended = true;
            } else if !expected.proof.is_silenced {
                expected.check(told);
                expected.has_ended = false;
                expected.took.get_or_insert(told.at - expected.since);
            }
        }
        self.heard = all.len();
        let silenced = self.monitoring.silenced();
        for labels in self.monitoring.firing() {
            let Some(expected) = self.expected.iter_mut().find(|one| one.is(&labels)) else {
                panic!("nobody did that: {labels:#?}\nexpected: {:#?}", self.expected);
            };
            if expected.proof.is_silenced && silenced.contains(&labels) {
                expected.took.get_or_insert(expected.since.elapsed());
            }
        }
    }
}

/// How long everything took.
#[derive(Debug, Default)]
pub struct Times(BTreeMap<(&'static str, &'static str, &'static str), Duration>);

/// The lines of the document around the table.
const MARKS: [&str; 2] = ["<!-- proven: begin -->", "<!-- proven: end -->"];

impl Times {
    fn add(&mut self, expected: &[Expected]) {
        for Expected { proof, took, .. } in expected {
            let took = took.expect("all were heard");
            println!("{:6.1} s  {} {} {}", took.as_secs_f64(), proof.fault, proof.alert, proof.severity);
            self.0.insert((proof.fault, proof.alert, proof.severity), took);
        }
    }

    /// The table says what was proven; its times are of one run, and rewritten when BLESS is set.
    pub fn compare_with_the_document(&self) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (before, rest) = document.split_once(MARKS[0]).unwrap();
        let (table, after) = rest.split_once(MARKS[1]).unwrap();
        let rows = PROVEN.iter().map(|proof| {
            let key = (proof.fault, proof.alert, proof.severity);
            let took = self.0.get(&key).unwrap_or_else(|| panic!("{key:?} was not tried"));
            (proof.row(), took.as_secs())
        });
        if std::env::var_os("BLESS").is_some() {
            let rows: Vec<_> = rows.map(|(row, took)| format!("{row} {took} |\n")).collect();
            let rows = rows.concat();
            let new = format!("{before}{}\n{}{rows}{}{after}", MARKS[0], crate::proven::HEAD, MARKS[1]);
            std::fs::write(path, new).unwrap();
            return;
        }
        for (row, _) in rows {
            assert!(table.contains(&row), "{path} lacks: {row}");
        }
    }
}
