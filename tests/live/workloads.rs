//! The proof of the causes: programs that misbehave in every way there is a cause for, programs that only look like it,
//! and what the daemon says of all of them from their first sample on.

use std::time::{Duration, Instant};

use serde_json::json;
use skmem_exporter::sample::Cause;

use crate::kit::actor::Actor;
use crate::kit::daemon::Daemon;
use crate::kit::host::{self, Netns, PATIENCE, WIRED, holds, run, same, wire};
use crate::kit::scrape::Scrape;

#[path = "../support/workloads.rs"]
mod table;

use table::{CULPRITS, End, INNOCENTS, Place, Workload};

/// Three samples.
const STALL_AFTER: &str = "--stall.after=3s";

/// Innocents are watched for more than three times as long, and culprits for some samples after they were recognised.
const INNOCENT_FOR: Duration = Duration::from_secs(10);
const CULPRIT_SAMPLES: usize = 3;

/// A workload whose programs run.
struct Running {
    workload: &'static Workload,
    program: Judged,
    peer: Judged,
    /// Of the program first, removed after both have ended.
    namespaces: Vec<Netns>,
}

/// A program and the most it has held in any sample, bytes.
struct Judged {
    actor: Actor,
    end: &'static End,
    most: i64,
}

impl Judged {
    fn start(netns: &str, end: &'static End) -> Self {
        Self { actor: Actor::start_in(netns), end, most: 0 }
    }

    fn memory(&self, scrape: &Scrape, cause: Cause) -> Option<i64> {
        let labels = [("pid", &*self.actor.pid.to_string()), ("cause", cause.label())];
        scrape.find("skmem_process_tcp_memory_by_cause_bytes", &labels)
    }

    /// Whether nothing but data on its way and what is expected is said of it, and that with its memory in full.
    fn is_not_misjudged(&mut self, scrape: &Scrape) -> Result<(), String> {
        holds(|| "it has ended".to_owned(), self.actor.is_running())?;
        let Some(said) = self.end.said else { return Ok(()) };
        // Who has nothing but short connections may have none at this moment.
        let memory = scrape.process("tcp_memory_bytes", self.actor.pid).unwrap_or(0);
        self.most = self.most.max(memory);
        let of = |cause| self.memory(scrape, cause).unwrap_or(0);
        same("sum", &Cause::ALL.into_iter().map(of).sum(), &memory)?;
        let wrong: Vec<_> = Cause::ALL
            .into_iter()
            .filter(|cause| ![said, self.end.before, Cause::Active].contains(cause) && of(*cause) != 0)
            .map(|cause| (cause.label(), of(cause)))
            .collect();
        same("wrong", &wrong, &Vec::new())?;
        let is_stalled = scrape.process_stall_start(self.actor.pid).is_some();
        holds(|| "a stall".to_owned(), said != Cause::Active || !is_stalled)
    }

    /// Whether all of its memory has the cause that it must have.
    fn is_recognised(&self, scrape: &Scrape) -> Result<(), String> {
        let Some(said) = self.end.said else { return Ok(()) };
        let memory = scrape.process("tcp_memory_bytes", self.actor.pid).unwrap_or(0);
        same(said.label(), &self.memory(scrape, said).unwrap_or(0), &memory)?;
        let is_stalled = scrape.process_stall_start(self.actor.pid).is_some();
        same("stalled", &is_stalled, &(said != Cause::Active))?;
        holds(|| format!("held at most {} bytes", self.most), self.most >= self.end.holds)
    }
}

impl Running {
    /// Starts both programs; `netns`: for those that need nothing but a loopback.
    fn start(workload: &'static Workload, netns: &Netns) -> Self {
        let namespaces: Vec<_> = match workload.place {
            Place::Loopback => Vec::new(),
            Place::Tun => vec![Netns::new()],
            Place::CutWire | Place::SlowWire => wire(),
        };
        let of = |index: usize| namespaces.get(index).unwrap_or(netns).name.clone();
        let mut program = Judged::start(&of(0), &workload.program);
        let mut peer = Judged::start(&of(namespaces.len().saturating_sub(1)), &workload.peer);
        let address = if workload.place == Place::Loopback { "127.0.0.1" } else { WIRED };
        let port = program.actor.ask_port("serve", json!({ "workload": workload.name }));
        let visit = json!({ "workload": workload.name, "address": address, "port": port });
        peer.actor.ask("visit", visit);
        if workload.place == Place::SlowWire {
            run(&format!("tc -n {} qdisc add dev wire root tbf rate 2mbit burst 16k limit 256k", of(0)));
        }
        Self { workload, program, peer, namespaces }
    }

    fn ends(&mut self) -> [&mut Judged; 2] {
        [&mut self.program, &mut self.peer]
    }

    /// Takes the path away, where that belongs to the workload.
    fn cut(&self) {
        if self.workload.place == Place::CutWire {
            run(&format!("ip -n {} link set wire down", self.namespaces[1].name));
        }
    }
}

/// What is wrong in this sample, by workload.
fn complaints(
    running: &mut [Running],
    mut check: impl FnMut(&mut Judged) -> Result<(), String>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for one in running {
        let name = one.workload.name;
        for judged in one.ends() {
            if let Err(complaint) = check(judged) {
                complaints.push(format!("{name}, which {}: {complaint}", judged.end.does));
            }
        }
    }
    complaints
}

/// Starts the workloads and a daemon, and watches until it is enough: of samples in a row in which all were recognised, and
/// of time. In no sample may anybody be misjudged.
fn prove(workloads: &'static [Workload], is_enough: impl Fn(usize, Duration) -> bool) {
    let _host = host::shared();
    let netns = Netns::new();
    let mut running: Vec<_> = workloads.iter().map(|workload| Running::start(workload, &netns)).collect();
    let daemon = Daemon::start_with(&[STALL_AFTER]);
    daemon.next_sample();
    running.iter().for_each(Running::cut);
    let begin = Instant::now();
    let mut recognised = 0;
    while !is_enough(recognised, begin.elapsed()) {
        let scrape = daemon.next_sample();
        let misjudged = complaints(&mut running, |judged| judged.is_not_misjudged(&scrape));
        assert!(misjudged.is_empty(), "after {:?}: {misjudged:#?}", begin.elapsed());
        let missing = complaints(&mut running, |judged| judged.is_recognised(&scrape));
        recognised = if missing.is_empty() { recognised + 1 } else { 0 };
        assert!(begin.elapsed() < PATIENCE, "never recognised: {missing:#?}");
    }
}

#[test]
fn culprits_are_recognised() {
    prove(CULPRITS, |recognised, _| recognised >= CULPRIT_SAMPLES);
}

#[test]
fn innocents_are_not_accused() {
    prove(INNOCENTS, |recognised, elapsed| recognised > 0 && elapsed > INNOCENT_FOR);
}

/// A program that is in no table would be one of which nothing is proven.
#[test]
fn every_program_is_in_a_table() {
    let _host = host::shared();
    let names = Actor::start().ask("workload_names", json!({}));
    let names: Vec<_> = names.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let tables: Vec<_> = CULPRITS.iter().chain(INNOCENTS).map(|workload| workload.name).collect();
    assert_eq!(names, tables);
}
