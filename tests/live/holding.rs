//! Programs that hold memory in open connections: one does not read, the other has more to send.

use serde_json::json;

use crate::kit::actor::{Actor, Held};
use crate::kit::daemon::{Daemon, row_is};
use crate::kit::host::{self, Netns, eventually, holds, same, ss};

/// A reader that never reads and a writer that fills its connection, both at `address`.
fn never_reads(mut reader: Actor, mut writer: Actor, address: &str, mptcp: bool) -> (Actor, Actor, u16) {
    let port = reader.ask_port("listen", json!({ "name": "listener", "address": address, "mptcp": mptcp }));
    writer.ask("connect", json!({ "name": "client", "address": address, "port": port, "mptcp": mptcp }));
    reader.ask("accept", json!({ "name": "server", "listener": "listener" }));
    writer.ask("fill", json!({ "name": "client" }));
    (reader, writer, port)
}

/// Both rows say to the byte what the processes say.
fn rows_agree(daemon: &Daemon, reader: &mut Actor, writer: &mut Actor) -> Result<(Held, Held), String> {
    let (scrape, [held, sent]) = daemon.settled([reader, writer]);
    row_is(&scrape, reader, &held)?;
    row_is(&scrape, writer, &sent)?;
    same("failures", &scrape.failures(), &Vec::new())?;
    Ok((held, sent))
}

/// Enough to be sure that the test has made the state it is about.
fn assert_full((held, sent): (Held, Held)) {
    assert!(held.receive_queue > 50_000 && held.receive_memory >= held.receive_queue, "{held:?}");
    assert!(sent.send_queue > 1_000_000 && sent.send_memory >= sent.send_queue, "{sent:?}");
    assert_eq!((held.sockets, sent.sockets), (2, 1));
}

#[test]
fn a_reader_that_does_not_read_and_its_writer() {
    let _host = host::shared();
    let (mut reader, mut writer, _) = never_reads(Actor::start(), Actor::start(), "127.0.0.1", false);
    let daemon = Daemon::start();
    let agreed = eventually("equal figures", || rows_agree(&daemon, &mut reader, &mut writer));
    assert_full(agreed);

    // What it then reads it no longer holds.
    reader.ask("receive", json!({ "name": "server", "size": agreed.0.receive_queue }));
    let now = eventually("equal figures after a read", || rows_agree(&daemon, &mut reader, &mut writer));
    assert_ne!(now, agreed);
}

#[test]
fn over_ipv6() {
    let _host = host::shared();
    let (mut reader, mut writer, _) = never_reads(Actor::start(), Actor::start(), "::1", false);
    let daemon = Daemon::start();
    assert_full(eventually("equal figures", || rows_agree(&daemon, &mut reader, &mut writer)));
}

#[test]
fn found_while_the_daemon_already_runs() {
    let _host = host::shared();
    let daemon = Daemon::start();
    daemon.next_sample();
    let (mut reader, mut writer, _) = never_reads(Actor::start(), Actor::start(), "127.0.0.1", false);
    assert_full(eventually("equal figures", || rows_agree(&daemon, &mut reader, &mut writer)));
}

#[test]
fn in_another_network_namespace_unless_told_to_stay_in_its_own() {
    let _host = host::shared();
    let netns = Netns::new();
    let (reader, writer) = (Actor::start_in(&netns.name), Actor::start_in(&netns.name));
    let (mut reader, mut writer, _) = never_reads(reader, writer, "127.0.0.1", false);
    let (all, own) = (Daemon::start(), Daemon::start_with(&["--netns=own"]));
    assert_full(eventually("equal figures", || rows_agree(&all, &mut reader, &mut writer)));
    assert!(all.scrape().int("skmem_network_namespaces", &[("outcome", "sampled")]) >= 2);

    let scrape = own.next_sample();
    for actor in [&reader, &writer] {
        assert_eq!(scrape.process("tcp_memory_bytes", actor.pid), None);
    }
    assert_eq!(scrape.int("skmem_network_namespaces", &[("outcome", "sampled")]), 1);
    assert_eq!(scrape.failures(), Vec::<String>::new());
}

/// Bytes of the sockets at a local port: those of TCP, then those of MPTCP.
fn judged(port: u16) -> [i64; 2] {
    ["-t", "-M"].map(|flag| {
        let all = ss(flag, None);
        all.iter().filter(|socket| socket.local_port == port).map(|socket| socket.memory).sum()
    })
}

/// An MPTCP connection's data is held by a socket that a dump of TCP does not show; its subflows, which that dump
/// shows, have the same inode.
#[test]
fn over_mptcp_the_connection_counts_once_beside_its_subflow() {
    let _host = host::shared();
    let (mut reader, mut writer, port) = never_reads(Actor::start(), Actor::start(), "127.0.0.1", true);
    let client_port = ss("-M", None)
        .iter()
        .find_map(|socket| {
            (socket.peer_port == port && socket.local_port != port).then_some(socket.local_port)
        })
        .unwrap();
    let daemon = Daemon::start();
    let [subflow, connection] = eventually("equal figures", || {
        let before = (judged(port), judged(client_port));
        let (scrape, [held, _]) = daemon.settled([&mut reader, &mut writer]);
        same("ss", &(judged(port), judged(client_port)), &before)?;
        for (actor, [tcp, mptcp]) in [(&reader, before.0), (&writer, before.1)] {
            same("memory", &scrape.process("tcp_memory_bytes", actor.pid), &Some(tcp + mptcp))?;
        }
        let unread = scrape.process("tcp_receive_memory_bytes", reader.pid);
        holds(|| format!("{unread:?}, {held:?}"), unread >= Some(held.receive_memory))?;
        same("failures", &scrape.failures(), &Vec::new())?;
        Ok(before.0)
    });
    assert!(
        connection > 10 * subflow.abs(),
        "{subflow} {connection}: the subflow hides what the connection holds"
    );
    assert_eq!((subflow + connection) % i64::try_from(rustix::param::page_size()).unwrap(), 0);
}
