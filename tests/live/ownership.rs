//! Whose a socket is when several processes, or none, hold it.

use serde_json::json;

use crate::kit::actor::Actor;
use crate::kit::daemon::{Daemon, row_is};
use crate::kit::host::{self, eventually, holds, same, unique};
use crate::kit::scrape::Scrape;

/// A server with two connections that hold unread data.
fn server_with_data() -> (Actor, Actor) {
    let (mut server, mut client) = (Actor::start(), Actor::start());
    let port = server.ask_port("listen", json!({ "name": "listener" }));
    for name in ["one", "two"] {
        client.ask("connect", json!({ "name": name, "port": port }));
        server.ask("accept", json!({ "name": name, "listener": "listener" }));
        client.ask("send", json!({ "name": name, "size": 50_000 }));
    }
    (server, client)
}

#[test]
fn what_pre_forked_workers_share_counts_once_for_the_oldest() {
    let _host = host::shared();
    let (mut server, mut client) = server_with_data();
    let workers = server.fork(3, "worker");
    let daemon = Daemon::start();
    // Several samples: the holder must not change from one to the next.
    for _ in 0..3 {
        eventually("the oldest holder's row", || {
            let (scrape, [held, sent]) = daemon.settled([&mut server, &mut client]);
            row_is(&scrape, &server, &held)?;
            row_is(&scrape, &client, &sent)?;
            for worker in &workers {
                same("worker", &scrape.process("tcp_memory_bytes", worker.pid), &None)?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_connection_handed_to_a_child_is_the_childs() {
    let _host = host::shared();
    let (mut server, _client) = server_with_data();
    let daemon = Daemon::start();
    eventually("the parent's row", || {
        let (scrape, [held]) = daemon.settled([&mut server]);
        row_is(&scrape, &server, &held)
    });
    let child = server.fork(1, "child").remove(0);
    let handed = server.sockets()["two"];
    server.ask("close", json!({ "name": "two" }));
    // At the latest when the daemon has been through all descriptors of the host again.
    eventually("the child's row", || {
        let (scrape, [left]) = daemon.settled([&mut server]);
        same("child", &scrape.process("tcp_memory_bytes", child.pid), &Some(handed.memory))?;
        row_is(&scrape, &server, &left)
    });

    // The listener and the first connection stay with whoever is left.
    let all = server.held().memory + handed.memory;
    server.kill();
    eventually("what the parent leaves", || {
        let scrape = daemon.next_sample();
        same("parent", &scrape.process("tcp_memory_bytes", server.pid), &None)?;
        same("child", &scrape.process("tcp_memory_bytes", child.pid), &Some(all))
    });
}

/// How far the memory of processes that refuse even root, which has no owner either, may change meanwhile.
const OTHERS_MAX: i64 = 512 * 1024;

/// Nobody has a file of a socket that is on its way in a message.
#[test]
fn a_socket_in_flight_is_unresolved_until_it_is_received() {
    let _host = host::alone();
    let (mut sender, mut receiver, mut peer) = (Actor::start(), Actor::start(), Actor::start());
    let path = unique("skmem-letters-");
    receiver.ask("letter_box", json!({ "path": path }));
    let port = peer.ask_port("listen", json!({ "name": "listener" }));
    sender.ask("connect", json!({ "name": "socket", "port": port }));
    peer.ask("accept", json!({ "name": "server", "listener": "listener" }));
    sender.ask("fill", json!({ "name": "socket" }));
    let daemon = Daemon::start();
    let unresolved =
        |scrape: &Scrape| scrape.int("skmem_tcp_attributed_memory_bytes", &[("owner", "unresolved")]);
    let (memory, before) = eventually("the sender's row", || {
        let (scrape, [held]) = daemon.settled([&mut sender]);
        row_is(&scrape, &sender, &held)?;
        Ok((held.memory, unresolved(&scrape)))
    });
    assert!(memory > 4 * OTHERS_MAX, "{memory}");

    sender.ask("post", json!({ "name": "socket", "path": path }));
    eventually("memory without an owner", || {
        let scrape = daemon.next_sample();
        same("sender", &scrape.process("tcp_memory_bytes", sender.pid).unwrap_or(0), &0)?;
        same("receiver", &scrape.process("tcp_memory_bytes", receiver.pid).unwrap_or(0), &0)?;
        let lost = unresolved(&scrape) - before;
        holds(|| format!("{lost} without an owner"), (lost - memory).abs() <= OTHERS_MAX)?;
        same("failures", &scrape.failures(), &Vec::new())
    });
    // It is no owner's for long enough that the daemon stops looking for one in every sample.
    for _ in 0..3 {
        daemon.next_sample();
    }

    receiver.ask("take", json!({ "name": "socket" }));
    let mut samples = 0;
    eventually("the receiver's row", || {
        samples += 1;
        let (scrape, [held]) = daemon.settled([&mut receiver]);
        row_is(&scrape, &receiver, &held)?;
        let lost = unresolved(&scrape) - before;
        holds(|| format!("{lost} without an owner"), lost.abs() <= OTHERS_MAX)
    });
    println!("received socket found after {samples} samples");
}
