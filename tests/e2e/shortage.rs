//! A host that runs out of TCP memory: it grows for a minute, and then tcp_mem is less than what is held.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::faults::{Buffers, Pair};
use crate::monitoring::Monitoring;
use crate::stage::{Stage, Times};
use crate::sysctl::Sysctl;

/// The largest that any host allows without privileges, so a receiver holds twice as much.
const RECEIVE: Buffers = Buffers { receive: Some(212_992), send: None };

/// Connections that the hoarder opens, one a second.
const GROWTH: usize = 60;

const MIB: u64 = 1 << 20;

/// Plenty, with a quarter of the maximum crossed while it grows.
const AMPLE: [u64; 3] = [300, 350, 400];

/// Less than what is held then, so that the kernel is in pressure and beyond its maximum; a quarter of its pressure is held
/// by whoever is to be critical.
const SHORT: [u64; 3] = [60, 72, 80];

/// tcp_mem in MiB.
fn set(sysctl: &Sysctl, [min, pressure, max]: [u64; 3]) {
    let page = rustix::param::page_size() as u64;
    let pages = |mib: u64| mib * MIB / page;
    sysctl.set(&format!("{} {} {}", pages(min), pages(pressure), pages(max)));
}

pub fn run(monitoring: &Monitoring, exporter: SocketAddr, times: &mut Times) {
    let mut stage = monitoring.stage(exporter);
    let tcp_mem = Sysctl::remember("tcp_mem");
    set(&tcp_mem, AMPLE);

    let mut quitter = Pair::connected(4, Buffers { receive: Some(16_384), send: Some(100_000) });
    quitter.fill();
    let mut dripping = Pair::connected(40, Buffers::default());
    let leaking = leaks_much(&mut stage);
    let hoard = hoards(&mut stage);
    stage.hears("hoards", "SkmemHostMemoryPredicted", "warning");
    stage.hears("hoards", "SkmemHostMemoryGrowsWithoutTraffic", "warning");

    set(&tcp_mem, SHORT);
    stage.begun("shortage", Instant::now(), None, None);
    stage.begun("short_leak", Instant::now(), Some(&leaking.program), None);
    stage.begun("short_hoard", Instant::now(), Some(&hoard.program), None);
    stage.begun("drips", Instant::now(), None, None);
    let names = dripping.names.clone();
    dripping.peer.ask("drip", json!({ "names": names, "size": 500, "pause": 0.1 }));
    stage.begun("gives_up", Instant::now(), None, None);
    quitter.each_peer("close");
    stage.hears_all();

    drop(tcp_mem);
    for mut pair in [hoard, leaking, dripping, quitter] {
        pair.peer.kill();
        pair.each_program("close");
    }
    stage.hears_the_end(times);
}

/// A client fills 120 connections and closes them, and nobody reads what is in them.
fn leaks_much(stage: &mut Stage<'_>) -> Pair {
    let at = Instant::now();
    let mut pair = Pair::connected(120, RECEIVE);
    for name in pair.names.clone() {
        pair.peer.ask("send", json!({ "name": name, "size": 200_000 }));
    }
    pair.each_peer("close");
    stage.begun("leaks_much", at, Some(&pair.program), None);
    pair
}

/// The peer opens one connection after the other and fills it.
fn hoards(stage: &mut Stage<'_>) -> Pair {
    let at = Instant::now();
    let mut pair = Pair::connected(0, RECEIVE);
    stage.begun("hoards", at, Some(&pair.peer), Some(&pair.program));
    for turn in 1..=GROWTH {
        let name = pair.connect(RECEIVE);
        pair.peer.ask("fill", json!({ "name": name }));
        let next = at + Duration::from_secs(1) * u32::try_from(turn).unwrap();
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    pair
}
