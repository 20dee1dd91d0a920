//! Threads whose sockets are not where one looks for a process's.

use serde_json::json;

use crate::kit::actor::{Actor, Held, sockets};
use crate::kit::daemon::Daemon;
use crate::kit::host::{self, eventually, same};

/// A thread with a descriptor table of its own has a connection that sends unread data to the peer, in a process
/// that has others.
fn check(daemon: &Daemon, threaded: &mut Actor, peer: &mut Actor) {
    let port = peer.ask_port("listen", json!({ "name": "listener" }));
    threaded.ask("pairs", json!({ "prefix": "a", "count": 1, "size": 1000 }));
    threaded.ask("private_connect", json!({ "port": port, "size": 10_000 }));
    peer.ask("accept", json!({ "name": "server", "listener": "listener" }));
    peer.ask("send", json!({ "name": "server", "size": 70_000 }));
    eventually("both tables in one row", || {
        let (scrape, [own, _]) = daemon.settled([threaded, peer]);
        let private = sockets(&threaded.ask("private_report", json!({})));
        let all = Held::sum([&own, &private["private"]]);
        assert!(all.memory > 70_000);
        same("memory", &scrape.process("tcp_memory_bytes", threaded.pid), &Some(all.memory))?;
        same("unread", &scrape.process("tcp_receive_queue_bytes", threaded.pid), &Some(all.receive_queue))?;
        same("sockets", &scrape.sum("skmem_process_tcp_sockets", &[("pid", &threaded.pid.to_string())]), &4)
    });
}

#[test]
fn a_private_table_is_its_processs() {
    let _host = host::shared();
    let (mut threaded, mut peer) = (Actor::start(), Actor::start());
    let daemon = Daemon::start();
    daemon.next_sample();
    check(&daemon, &mut threaded, &mut peer);
    // And to a daemon that finds it there when it starts.
    let later = Daemon::start();
    let memory = daemon.next_sample().process("tcp_memory_bytes", threaded.pid);
    eventually("the same from a cold start", || {
        same("memory", &later.next_sample().process("tcp_memory_bytes", threaded.pid), &memory)
    });
}
