//! Sockets on their way out: half closed, orphaned, reset.

use serde_json::json;

use crate::kit::actor::{Actor, Held};
use crate::kit::daemon::{Daemon, row_is};
use crate::kit::host::{self, Netns, eventually, holds, same, ss};
use crate::kit::scrape::Scrape;

fn sockets(scrape: &Scrape, actor: &Actor, state: &str) -> Option<i64> {
    scrape.find("skmem_process_tcp_sockets", &[("pid", &actor.pid.to_string()), ("state", state)])
}

#[test]
fn half_closed_connections_are_told_from_unclosed_ones() {
    let _host = host::shared();
    let (mut server, mut client) = (Actor::start(), Actor::start());
    let port = server.ask_port("listen", json!({ "name": "listener" }));
    for index in 0..3 {
        let [ours, theirs] = ["client", "server"].map(|end| format!("{end}{index}"));
        client.ask("connect", json!({ "name": ours, "port": port }));
        server.ask("accept", json!({ "name": theirs, "listener": "listener" }));
        server.ask("send", json!({ "name": theirs, "size": 20_000 }));
        client.ask("send", json!({ "name": ours, "size": 30_000 }));
        // Its own end is shut, the data that the other end sends still has to be read.
        client.ask("shutdown", json!({ "name": ours }));
    }
    let daemon = Daemon::start();
    eventually("FIN_WAIT2 and CLOSE_WAIT", || {
        let (scrape, [held, sent]) = daemon.settled([&mut server, &mut client]);
        // The kernel's figure for unread data counts the end of stream, FIONREAD does not.
        let with_ends = Held {
            receive_queue: held.receive_queue + 3,
            receive_queue_max: held.receive_queue_max + 1,
            ..held
        };
        row_is(&scrape, &server, &with_ends)?;
        row_is(&scrape, &client, &sent)?;
        same("server", &sockets(&scrape, &server, "close_wait"), &Some(3))?;
        same("listener", &sockets(&scrape, &server, "listen"), &Some(1))?;
        same("client", &sockets(&scrape, &client, "fin_wait2"), &Some(3))
    });
}

/// A namespace with nothing but a listener, whose backlog stands where other sockets have bytes.
#[test]
fn a_lonely_listener_holds_nothing() {
    let _host = host::shared();
    let netns = Netns::new();
    let mut server = Actor::start_in(&netns.name);
    server.ask("listen", json!({ "name": "listener", "backlog": 77 }));
    let daemon = Daemon::start();
    let scrape = daemon.next_sample();
    row_is(&scrape, &server, &Held { sockets: 1, ..Held::default() }).unwrap();
    assert_eq!(sockets(&scrape, &server, "listen"), Some(1));
}

#[test]
fn what_was_closed_unsent_is_an_orphan() {
    let _host = host::alone();
    let (mut reader, mut writer) = (Actor::start(), Actor::start());
    let port = reader.ask_port("listen", json!({ "name": "listener" }));
    writer.ask("connect", json!({ "name": "client", "port": port }));
    reader.ask("accept", json!({ "name": "server", "listener": "listener" }));
    writer.ask("fill", json!({ "name": "client" }));
    writer.ask("close", json!({ "name": "client" }));
    let orphans = || {
        let mut all = ss("-t", None);
        all.retain(|socket| ["FIN-WAIT-1", "CLOSING", "LAST-ACK"].contains(&socket.state.as_str()));
        all
    };
    let daemon = Daemon::start();
    let memory = eventually("the orphan", || {
        let before = orphans();
        let scrape = daemon.next_sample();
        same("ss", &orphans(), &before)?;
        holds(|| format!("{before:?}"), before.iter().any(|socket| socket.peer_port == port))?;
        let memory: i64 = before.iter().map(|socket| socket.memory).sum();
        same("orphans", &scrape.int("skmem_tcp_attributed_memory_bytes", &[("owner", "orphan")]), &memory)?;
        same("count", &scrape.int("skmem_tcp_orphan_sockets", &[]), &i64::try_from(before.len()).unwrap())?;
        same("row", &scrape.process("tcp_memory_bytes", writer.pid).unwrap_or(0), &0)?;
        Ok(memory)
    });
    assert!(memory > 1_000_000, "{memory}");
}

/// Reset while they held unread data and not closed: the kernel keeps the data and no table of it shows the socket.
#[test]
fn reset_connections_that_nobody_closes_are_counted_as_hidden() {
    const COUNT: i64 = 100;
    let _host = host::alone();
    let (mut server, mut client) = (Actor::start(), Actor::start());
    let port = server.ask_port("listen", json!({ "name": "listener" }));
    let daemon = Daemon::start();
    let before = daemon.next_sample();
    for index in 0..COUNT {
        client.ask("connect", json!({ "name": index.to_string(), "port": port }));
        server.ask("accept", json!({ "name": index.to_string(), "listener": "listener" }));
        client.ask("send", json!({ "name": index.to_string(), "size": 100_000 }));
        client.ask("reset", json!({ "name": index.to_string() }));
    }
    let held = server.held().memory;
    assert!(held > COUNT * 50_000, "{held}");
    let figures = |scrape: &Scrape| {
        let bound = scrape.int("skmem_tcp_unattributed_memory_bound_bytes", &[]);
        let unattributed = scrape.int("skmem_tcp_unattributed_memory_bytes", &[]);
        (scrape.int("skmem_tcp_hidden_sockets", &[]), unattributed, bound)
    };
    let (hidden_before, before, bound) = figures(&before);
    eventually("hidden sockets", || {
        let (scrape, [now]) = daemon.settled([&mut server]);
        same("memory", &now.memory, &held)?;
        let (hidden, after, _) = figures(&scrape);
        same("hidden", &(hidden - hidden_before), &COUNT)?;
        same("row", &scrape.process("tcp_memory_bytes", server.pid).unwrap_or(0), &0)?;
        let growth = after - before;
        holds(|| format!("{growth} for {held} +- 2 x {bound}"), (growth - held).abs() <= 2 * bound)?;
        println!("hidden: held {held}, unattributed grew by {growth}, bound {bound}");
        Ok(())
    });
}

/// The same with a port of its own choice: that one is shown, as a bound socket, even where its namespace has no
/// other left.
#[test]
fn a_reset_connection_that_was_bound_has_an_owner() {
    let _host = host::shared();
    let netns = Netns::new();
    let (mut server, mut client) = (Actor::start_in(&netns.name), Actor::start_in(&netns.name));
    let port = server.ask_port("listen", json!({ "name": "listener" }));
    let own = client.ask_port("free_port", json!({}));
    client.ask("connect", json!({ "name": "client", "port": port, "bind_port": own }));
    server.ask("accept", json!({ "name": "server", "listener": "listener" }));
    server.ask("send", json!({ "name": "server", "size": 50_000 }));
    server.ask("reset", json!({ "name": "server" }));
    let daemon = Daemon::start();
    let check = |client: &mut Actor| {
        eventually("a closed socket with memory", || {
            let (scrape, [held]) = daemon.settled([client]);
            assert!(held.memory >= 50_000, "{held:?}");
            same("row", &scrape.process("tcp_memory_bytes", client.pid), &Some(held.memory))?;
            same("other", &sockets(&scrape, client, "other"), &Some(1))?;
            let closed = scrape.int("skmem_tcp_sockets", &[("state", "close")]);
            holds(|| format!("{closed} closed"), closed >= 1)
        });
    };
    check(&mut client);
    server.ask("close", json!({ "name": "listener" }));
    check(&mut client);
}
