//! Accept queues that nobody drains: their connections have no file, so they are their listener's.

use serde_json::json;

use crate::kit::actor::Actor;
use crate::kit::daemon::Daemon;
use crate::kit::host::{self, Judged, eventually, same, ss};

/// Connects `count` clients and sends each `size` bytes.
fn crowd(client: &mut Actor, port: u16, count: usize, size: usize) {
    for index in 0..count {
        let name = format!("{port}-{index}");
        client.ask("connect", json!({ "name": name, "port": port }));
        client.ask("send", json!({ "name": name, "size": size }));
    }
}

/// Connections at a port as `ss` shows them, listeners left out.
fn connections(port: u16) -> Vec<Judged> {
    let mut all = ss("-t", None);
    all.retain(|socket| socket.local_port == port && socket.state != "LISTEN");
    all.sort_by_key(|socket| socket.peer_port);
    all
}

/// The listener's process has what waits in its queue, and its backlog is not taken for bytes.
fn check_queue(listen: serde_json::Value) {
    let _host = host::shared();
    let (mut server, mut client) = (Actor::start(), Actor::start());
    let port = server.ask_port("listen", listen);
    crowd(&mut client, port, 3, 10_000);
    let daemon = Daemon::start();
    let waiting = eventually("a queue of three", || {
        let before = connections(port);
        let (scrape, _) = daemon.settled([&mut server, &mut client]);
        let waiting = connections(port);
        same("ss", &waiting, &before)?;
        let memory: i64 = waiting.iter().map(|socket| socket.memory).sum();
        let unread: i64 = waiting.iter().map(|socket| socket.receive_queue).sum();
        let row = |name: &str| scrape.process(name, server.pid);
        same("connections", &row("tcp_accept_queue_connections"), &Some(3))?;
        same("their memory", &row("tcp_accept_queue_memory_bytes"), &Some(memory))?;
        same("memory", &row("tcp_memory_bytes"), &Some(memory))?;
        same("unread", &row("tcp_receive_queue_bytes"), &Some(unread))?;
        same("fullest", &row("tcp_receive_queue_max_bytes"), &Some(10_000))?;
        same("failures", &scrape.failures(), &Vec::new())?;
        Ok(memory)
    });
    assert!(waiting >= 30_000);

    // Accepted, they are ordinary sockets of the process.
    assert_eq!(server.ask("accept_all", json!({ "prefix": "accepted", "listener": "listener" })), 3);
    eventually("an empty queue", || {
        let (scrape, [held, _]) = daemon.settled([&mut server, &mut client]);
        same("connections", &scrape.process("tcp_accept_queue_connections", server.pid), &Some(0))?;
        same("their memory", &scrape.process("tcp_accept_queue_memory_bytes", server.pid), &Some(0))?;
        same("memory", &scrape.process("tcp_memory_bytes", server.pid), &Some(held.memory))
    });
}

#[test]
fn belong_to_their_listener() {
    check_queue(json!({ "name": "listener", "backlog": 16 }));
}

#[test]
fn of_a_dual_stack_listener_hold_ipv4_clients_too() {
    check_queue(json!({ "name": "listener", "address": "::", "dual": true }));
}

#[test]
fn of_mptcp_belong_to_their_listener() {
    let _host = host::shared();
    let (mut server, mut client) = (Actor::start(), Actor::start());
    let port = server.ask_port("listen", json!({ "name": "listener", "mptcp": true }));
    for index in 0..3 {
        client.ask("connect", json!({ "name": format!("c{index}"), "port": port, "mptcp": true }));
        client.ask("send", json!({ "name": format!("c{index}"), "size": 10_000 }));
    }
    let daemon = Daemon::start();
    eventually("a queue of three", || {
        let (scrape, _) = daemon.settled([&mut server, &mut client]);
        let memory = ["-t", "-M"]
            .iter()
            .flat_map(|flag| ss(flag, None))
            .filter(|socket| socket.local_port == port)
            .map(|socket| socket.memory)
            .sum::<i64>();
        same("memory", &scrape.process("tcp_memory_bytes", server.pid), &Some(memory))?;
        same("queued", &scrape.process("tcp_accept_queue_memory_bytes", server.pid), &Some(memory))?;
        same("connections", &scrape.process("tcp_accept_queue_connections", server.pid), &Some(3))
    });
}

/// Two processes at one port: the kernel deals connections out by a hash, and the daemon sees only how many each has.
#[test]
fn of_two_processes_at_one_port_are_told_apart_by_their_backlogs() {
    let _host = host::shared();
    let (mut one, mut two, mut client) = (Actor::start(), Actor::start(), Actor::start());
    let port = one.ask_port("listen", json!({ "name": "listener", "reuseport": true, "backlog": 30 }));
    two.ask("listen", json!({ "name": "listener", "reuseport": true, "backlog": 40, "port": port }));
    crowd(&mut client, port, 20, 1000);
    let daemon = Daemon::start();
    let scrape = daemon.next_sample();
    let mut total = 0;
    for actor in [&mut one, &mut two] {
        let accepted = actor.ask("accept_all", json!({ "prefix": "accepted", "listener": "listener" }));
        let row = |name: &str| scrape.process(name, actor.pid);
        assert_eq!(row("tcp_accept_queue_connections"), accepted.as_i64());
        // All of them are equal, so which is whose makes no difference to the sums.
        assert_eq!(row("tcp_memory_bytes"), Some(actor.held().memory));
        total += accepted.as_i64().unwrap();
    }
    assert_eq!(total, 20);
}
