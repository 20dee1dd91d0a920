//! Programs that misbehave, and how each is mended.

use std::time::Instant;

use serde_json::json;

use crate::kit::actor::Actor;
use crate::kit::host::{Netns, WIRED, eventually, holds, run, wire};
use crate::monitoring::Monitoring;
use crate::stage::{Stage, Times};
use crate::sysctl::Sysctl;
use std::net::SocketAddr;

#[path = "../support/workloads.rs"]
#[allow(dead_code)]
mod workloads;

use workloads::{INNOCENTS, Place};

/// A host with work to do, done by programs that somebody in a hurry might accuse.
pub struct Busy(#[allow(dead_code)] Vec<Actor>);

impl Busy {
    /// All of them that need nothing but a loopback.
    pub fn with_everything() -> Self {
        Self::with(|_| true)
    }

    /// Requests and new connections only, so that others can be heard.
    pub fn with_little() -> Self {
        Self::with(|name| ["serves_requests", "serves_new_connections"].contains(&name))
    }

    fn with(is_wanted: impl Fn(&str) -> bool) -> Self {
        let on_loopback = INNOCENTS.iter().filter(|one| one.place == Place::Loopback);
        let mut actors = Vec::new();
        for workload in on_loopback.filter(|one| is_wanted(one.name)) {
            let (mut program, mut peer) = (Actor::start(), Actor::start());
            let port = program.ask_port("serve", json!({ "workload": workload.name }));
            let visit = json!({ "workload": workload.name, "address": "127.0.0.1", "port": port });
            peer.ask("visit", visit);
            actors.extend([program, peer]);
        }
        assert!(actors.len() >= 4, "the search works");
        Self(actors)
    }
}

/// Two programs with connections to each other, each of them `name` and a number.
pub struct Pair {
    pub program: Actor,
    pub peer: Actor,
    pub names: Vec<String>,
    address: &'static str,
    port: u16,
    /// Removed after both have ended.
    namespaces: Vec<Netns>,
}

/// How large the buffers of a pair are, bytes as given to setsockopt; the kernel doubles them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Buffers {
    /// Of the program, which listens.
    pub receive: Option<u32>,
    /// Of the peer.
    pub send: Option<u32>,
}

/// Both ends hold little unless something else is asked for.
const SMALL: Option<u32> = Some(16_384);

impl Pair {
    /// With `count` connections on loopback.
    pub fn connected(count: usize, buffers: Buffers) -> Self {
        let mut pair = Self::over(Vec::new(), buffers);
        for _ in 0..count {
            pair.connect(buffers);
        }
        pair
    }

    /// With none yet; in the first and the last of the namespaces, if there are any.
    fn over(namespaces: Vec<Netns>, buffers: Buffers) -> Self {
        let start = |netns: Option<&Netns>| netns.map_or_else(Actor::start, |one| Actor::start_in(&one.name));
        let (mut program, peer) = (start(namespaces.first()), start(namespaces.last()));
        let address = if namespaces.is_empty() { "127.0.0.1" } else { WIRED };
        let mut listen = json!({ "name": "listener", "address": address });
        if let Some(receive) = buffers.receive {
            listen["receive"] = receive.into();
        }
        let port = program.ask_port("listen", listen);
        Self { program, peer, names: Vec::new(), address, port, namespaces }
    }

    /// One connection more.
    pub fn connect(&mut self, buffers: Buffers) -> String {
        let name = format!("c{}", self.names.len());
        let mut connect = json!({ "name": name, "address": self.address, "port": self.port });
        if let Some(send) = buffers.send {
            connect["send"] = send.into();
        }
        self.peer.ask("connect", connect);
        self.program.ask("accept", json!({ "name": name, "listener": "listener" }));
        self.names.push(name.clone());
        name
    }

    /// The peer does this on each.
    pub fn each_peer(&mut self, operation: &str) {
        each(&mut self.peer, &self.names, operation);
    }

    /// The program does this on each.
    pub fn each_program(&mut self, operation: &str) {
        each(&mut self.program, &self.names, operation);
    }

    /// The peer sends until nothing more goes.
    pub fn fill(&mut self) {
        self.peer.ask("fill_all", json!({ "names": self.names }));
    }
}

fn each(actor: &mut Actor, names: &[String], operation: &str) {
    for name in names {
        actor.ask(operation, json!({ "name": name }));
    }
}

/// A fault that can be mended.
struct Fault {
    /// In the table.
    name: &'static str,
    /// Whether the culprit is the peer, not the program.
    is_of_peer: bool,
    start: fn() -> Pair,
    mend: fn(&mut Pair),
}

impl Fault {
    fn begin(&self, stage: &mut Stage<'_>) -> Pair {
        let at = Instant::now();
        let pair = (self.start)();
        let (culprit, other) =
            if self.is_of_peer { (&pair.peer, &pair.program) } else { (&pair.program, &pair.peer) };
        stage.begun(self.name, at, Some(culprit), Some(other));
        pair
    }
}

/// What can go on at the same time.
const FAULTS: [Fault; 8] = [
    Fault {
        name: "never_reads",
        is_of_peer: false,
        start: never_reads,
        mend: |pair| pair.each_program("drain"),
    },
    Fault {
        name: "reads_slowly",
        is_of_peer: false,
        start: reads_slowly,
        mend: |pair| {
            pair.peer.kill();
            pair.each_program("drain");
        },
    },
    Fault {
        name: "never_accepts",
        is_of_peer: false,
        start: never_accepts,
        mend: |pair| {
            pair.peer.kill();
            pair.program.ask("accept_all", json!({ "prefix": "a", "listener": "queue" }));
        },
    },
    Fault { name: "leaks", is_of_peer: false, start: leaks, mend: |pair| pair.each_program("close") },
    Fault {
        name: "half_closes",
        is_of_peer: false,
        start: half_closes,
        mend: |pair| pair.each_program("close"),
    },
    Fault {
        name: "cannot_send",
        is_of_peer: true,
        start: cannot_send,
        mend: |pair| pair.each_program("drain"),
    },
    Fault {
        name: "loses_its_path",
        is_of_peer: true,
        start: loses_its_path,
        mend: |pair| {
            run(&format!("ip -n {} link set wire up", pair.namespaces[0].name));
            pair.each_program("drain");
        },
    },
    Fault { name: "is_reset", is_of_peer: false, start: is_reset, mend: |pair| pair.each_program("close") },
];

fn never_reads() -> Pair {
    let mut pair = Pair::connected(12, Buffers { receive: None, send: SMALL });
    pair.fill();
    pair
}

fn reads_slowly() -> Pair {
    let mut pair = Pair::connected(12, Buffers { receive: None, send: SMALL });
    for name in pair.names.clone() {
        // No part of a second: in step with the samples it could look the same in each of them.
        pair.program.ask("sip", json!({ "name": name, "size": 20_000, "pause": 0.23 }));
    }
    pair.each_peer("stream");
    pair
}

fn leaks() -> Pair {
    let mut pair = Pair::connected(120, Buffers::default());
    for name in pair.names.clone() {
        pair.peer.ask("send", json!({ "name": name, "size": 20_000 }));
    }
    pair.each_peer("close");
    pair
}

fn half_closes() -> Pair {
    let mut pair = Pair::connected(20, Buffers::default());
    pair.each_program("shutdown");
    for name in pair.names.clone() {
        pair.peer.ask("send", json!({ "name": name, "size": 60_000 }));
    }
    pair
}

fn cannot_send() -> Pair {
    let mut pair = Pair::connected(4, Buffers { receive: SMALL, send: Some(400_000) });
    pair.fill();
    pair
}

fn loses_its_path() -> Pair {
    let buffers = Buffers { receive: None, send: Some(212_992) };
    let mut pair = Pair::over(wire(), buffers);
    for _ in 0..8 {
        pair.connect(buffers);
    }
    run(&format!("ip -n {} link set wire down", pair.namespaces[0].name));
    pair.fill();
    pair
}

fn is_reset() -> Pair {
    let mut pair = Pair::connected(40, Buffers::default());
    for name in pair.names.clone() {
        pair.peer.ask("send", json!({ "name": name, "size": 100_000 }));
    }
    pair.each_peer("reset");
    pair
}

/// Not even a mebibyte is unread.
pub fn holds_a_little() -> Pair {
    let mut pair = Pair::connected(8, Buffers::default());
    for name in pair.names.clone() {
        pair.peer.ask("send", json!({ "name": name, "size": 80_000 }));
    }
    pair
}

/// A listener whose queue is full, and clients that knock for as long as the stage lasts.
fn never_accepts() -> Pair {
    let mut pair = Pair::connected(0, Buffers::default());
    let queue = json!({ "name": "queue", "backlog": 11 });
    let port = pair.program.ask_port("listen", queue);
    // The kernel lets in one more than the backlog, and the SYN of all others is sent again and again.
    pair.peer.ask("knock", json!({ "prefix": "k", "port": port, "count": 40 }));
    pair
}

/// 300 connections without an owner.
fn orphans() -> Pair {
    let mut pair = Pair::connected(300, Buffers { receive: Some(1), send: Some(1) });
    pair.fill();
    pair.each_peer("close");
    pair
}

/// All that can go on at the same time without being taken for each other.
pub fn side_by_side(monitoring: &Monitoring, exporter: SocketAddr, times: &mut Times) {
    let mut stage = monitoring.stage(exporter);
    let mut broken: Vec<(Fault, Pair)> = FAULTS
        .into_iter()
        .map(|fault| {
            let pair = fault.begin(&mut stage);
            (fault, pair)
        })
        .collect();
    // Whatever is closed beyond the limit is reset, and that is an alert: also what others, or the faults above, are closing.
    eventually("a host with hardly any orphans of its own", || {
        let sockstat = std::fs::read_to_string("/proc/net/sockstat").unwrap();
        let orphans: u32 =
            sockstat.split_once(" orphan ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        holds(|| format!("it has {orphans}"), orphans < 20)
    });
    let limit = Sysctl::remember("tcp_max_orphans");
    let at = Instant::now();
    let mut with_orphans = orphans();
    limit.set("560");
    stage.begun("orphans", at, None, None);

    stage.hears("orphans", "SkmemOrphansNearLimit", "warning");
    limit.set("330");
    stage.hears_all();

    for (fault, pair) in &mut broken {
        (fault.mend)(pair);
    }
    with_orphans.each_program("drain");
    stage.hears_the_end(times);
}
