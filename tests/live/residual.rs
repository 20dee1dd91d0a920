//! What the kernel counts against what has an owner.

use serde_json::json;

use crate::kit::actor::Actor;
use crate::kit::daemon::{Daemon, row_is};
use crate::kit::host::{self, eventually, holds};
use crate::kit::scrape::Scrape;

/// Attributed, unattributed, its bound; the identity holds in every scrape whose sample is complete.
fn residual(scrape: &Scrape) -> (i64, i64, i64) {
    let attributed = scrape.sum("skmem_tcp_attributed_memory_bytes", &[]);
    let unattributed = scrape.int("skmem_tcp_unattributed_memory_bytes", &[]);
    assert_eq!(attributed + unattributed, scrape.int("skmem_tcp_memory_bytes", &[]));
    let processes = scrape.sum("skmem_process_tcp_memory_bytes", &[]);
    let with_process = ["process", "accept_queue"]
        .map(|owner| scrape.int("skmem_tcp_attributed_memory_bytes", &[("owner", owner)]));
    assert_eq!(processes, with_process.iter().sum::<i64>());
    (attributed, unattributed, scrape.int("skmem_tcp_unattributed_memory_bound_bytes", &[]))
}

#[test]
fn is_within_its_bound_while_sockets_are_still() {
    let _host = host::alone();
    let mut actor = Actor::start();
    actor.ask("pairs", json!({ "prefix": "a", "count": 50, "size": 100_000 }));
    for index in 0..8 {
        actor.ask("fill", json!({ "name": format!("aclient{index}") }));
    }
    let daemon = Daemon::start();
    let (attributed, unattributed, bound) = eventually("a residual within its bound", || {
        let (scrape, [held]) = daemon.settled([&mut actor]);
        row_is(&scrape, &actor, &held)?;
        let (attributed, unattributed, bound) = residual(&scrape);
        assert!(attributed >= held.memory);
        holds(|| format!("{unattributed} of {bound}"), unattributed.abs() <= bound)?;
        Ok((attributed, unattributed, bound))
    });
    println!("still: attributed {attributed}, unattributed {unattributed}, bound {bound}");
}

#[test]
fn adds_up_under_load() {
    let _host = host::alone();
    let (mut reader, mut writer) = (Actor::start(), Actor::start());
    let port = reader.ask_port("listen", json!({ "name": "listener" }));
    for index in 0..4 {
        let [client, server] = ["client", "server"].map(|end| format!("{end}{index}"));
        writer.ask("connect", json!({ "name": client, "port": port }));
        reader.ask("accept", json!({ "name": server, "listener": "listener" }));
        reader.ask("drain", json!({ "name": server }));
        writer.ask("stream", json!({ "name": client }));
    }
    let daemon = Daemon::start();
    for _ in 0..20 {
        let scrape = daemon.next_sample();
        let (attributed, unattributed, bound) = residual(&scrape);
        println!("load: attributed {attributed}, unattributed {unattributed}, bound {bound}");
        assert_eq!(scrape.failures(), Vec::<String>::new());
        assert!(scrape.process("tcp_memory_bytes", writer.pid).is_some());
    }
}
