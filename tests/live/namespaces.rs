//! Network namespaces that come and go under the daemon.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::kit::actor::Actor;
use crate::kit::daemon::Daemon;
use crate::kit::host::{self, Netns, eventually, holds, run, unique};
use crate::kit::scrape::Scrape;

/// How long the kernel itself may take to tear a namespace down; one that is pinned stays for ever.
const TEAR_DOWN: Duration = Duration::from_secs(5);

const COUNTERS: [&str; 4] = [
    "skmem_tcp_segments_received_total",
    "skmem_tcp_segments_sent_total",
    "skmem_tcp_receive_prunes_total",
    "skmem_tcp_listen_drops_total",
];

fn counters(scrape: &Scrape) -> [i64; COUNTERS.len()] {
    COUNTERS.map(|name| scrape.int(name, &[]))
}

fn assert_not_fallen(now: &Scrape, before: &Scrape) {
    let (now, before) = (counters(now), counters(before));
    assert!(now.iter().zip(before).all(|(now, before)| *now >= before), "{now:?} after {before:?}");
}

/// A namespace lives while anything refers to it. The interface at the other end of a pair shows when it has gone.
#[test]
fn one_that_is_deleted_goes_at_once() {
    let _host = host::shared();
    let (kept, doomed) = (Netns::new(), Netns::new());
    let interface = unique("v");
    run(&format!("ip -n {} link add {interface} type veth peer name peer0 netns {}", kept.name, doomed.name));
    let daemon = Daemon::start();
    let mut actor = Actor::start_in(&doomed.name);
    actor.ask("pairs", json!({ "prefix": "a", "count": 20, "size": 1000 }));
    let before = eventually("its traffic", || {
        let scrape = daemon.next_sample();
        let memory = scrape.process("tcp_memory_bytes", actor.pid);
        holds(|| format!("{memory:?}"), memory > Some(0))?;
        Ok(scrape)
    });
    actor.kill();
    doomed.delete();
    let deleted = Instant::now();
    let is_there = || run(&format!("ip -n {} -o link", kept.name)).contains(&interface);
    while is_there() {
        assert!(deleted.elapsed() < TEAR_DOWN, "something keeps the deleted namespace");
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("gone after {:?}", deleted.elapsed());

    // What it has counted stays counted.
    for _ in 0..3 {
        let after = daemon.next_sample();
        assert_not_fallen(&after, &before);
        assert_eq!(after.failures(), Vec::<String>::new());
    }
}

#[test]
fn many_that_come_and_go_fail_no_sample() {
    let _host = host::shared();
    let daemon = Daemon::start();
    let mut before = daemon.next_sample();
    let end = Instant::now() + Duration::from_secs(6);
    let mut cycles = 0;
    while Instant::now() < end {
        let netns = Netns::new();
        if cycles % 4 == 0 {
            let mut actor = Actor::start_in(&netns.name);
            actor.ask("pairs", json!({ "prefix": "a", "count": 2, "size": 1000 }));
            netns.delete();
        }
        drop(netns);
        cycles += 1;
        let now = daemon.scrape();
        assert_eq!(now.failures(), Vec::<String>::new());
        assert_eq!(now.int("skmem_network_namespaces", &[("outcome", "failed")]), 0);
        assert_not_fallen(&now, &before);
        before = now;
    }
    println!("{cycles} namespaces");
    assert!(cycles >= 10, "{cycles}");
}
