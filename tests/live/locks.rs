//! A process that keeps a socket's lock: it faults inside send() on a page that nobody provides.

use serde_json::json;

use crate::kit::actor::{Actor, Held, sockets};
use crate::kit::daemon::Daemon;
use crate::kit::host::{self, eventually, same};

#[test]
fn a_held_socket_lock_does_not_stop_samples() {
    let _host = host::shared();
    let mut actor = Actor::start();
    actor.ask("pairs", json!({ "prefix": "a", "count": 2, "size": 10_000 }));
    let daemon = Daemon::start();
    daemon.next_sample();
    let is_held = actor.ask("hold_lock", json!({ "name": "aclient1" }));
    assert_eq!(is_held, true, "the lock is not held, so this proves nothing");

    // Each of these begins and ends while the lock is held: one that waited for it would never come.
    for _ in 0..4 {
        eventually("figures of a locked socket", || {
            let scrape = daemon.next_sample();
            // Without the queues, because asking for those takes the lock.
            let own = sockets(&actor.ask("report", json!({ "queues": false })));
            let own = Held::sum(own.values());
            same("memory", &scrape.process("tcp_memory_bytes", actor.pid), &Some(own.memory))?;
            same(
                "sockets",
                &scrape.sum("skmem_process_tcp_sockets", &[("pid", &actor.pid.to_string())]),
                &5,
            )?;
            same("failures", &scrape.failures(), &Vec::new())
        });
    }
    actor.ask("release_lock", json!({}));
}
