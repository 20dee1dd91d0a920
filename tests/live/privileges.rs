//! A daemon that may not look into other users' processes.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;

use crate::actor::Actor;
use crate::daemon::{Daemon, FLAGS, copy_binary, row_is};
use crate::host::{self, eventually, holds, same};

/// Ends in exec with no capabilities, and no way to get any.
const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all";

#[test]
fn without_privileges_it_says_what_it_cannot_see() {
    let _host = host::shared();
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = copy_binary(directory.path());
    let (mut foreign, mut own) = (Actor::start(), Actor::start_by(NOBODY));
    for actor in [&mut foreign, &mut own] {
        actor.ask("pairs", json!({ "prefix": "a", "count": 3, "size": 50_000 }));
    }
    let mut words = NOBODY.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let daemon = Daemon::start_command(command.args(words).arg(binary).args(FLAGS));
    let hello = daemon.log().join("\n");
    for part in ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "capabilities= "] {
        assert!(hello.contains(part), "no {part} in: {hello}");
    }
    eventually("what it may see", || {
        let (scrape, [hidden, seen]) = daemon.settled([&mut foreign, &mut own]);
        same("foreign", &scrape.process("tcp_memory_bytes", foreign.pid), &None)?;
        row_is(&scrape, &own, &seen)?;
        let unresolved = scrape.int("skmem_tcp_attributed_memory_bytes", &[("owner", "unresolved")]);
        holds(|| format!("{unresolved} without {}", hidden.memory), unresolved >= hidden.memory)?;
        let owners = [("source", "owners")];
        same("owners", &scrape.int("skmem_source_success", &owners), &0)?;
        let denied = scrape.int("skmem_source_errors_total", &[("source", "owners"), ("reason", "denied")]);
        holds(|| format!("{denied} denied"), denied > 0)?;
        holds(|| "all readable".to_owned(), scrape.int("skmem_unreadable_processes", &[]) > 0)?;
        for capability in ["cap_dac_read_search", "cap_sys_ptrace", "cap_sys_admin"] {
            same(capability, &scrape.int("skmem_exporter_capability", &[("capability", capability)]), &0)?;
        }
        for source in ["sockstat", "snmp", "netstat", "protocols", "sysctl", "sock_diag", "cgroups"] {
            same(source, &scrape.int("skmem_source_success", &[("source", source)]), &1)?;
        }
        for name in
            ["skmem_tcp_memory_bytes", "skmem_tcp_sockets_allocated", "skmem_tcp_segments_received_total"]
        {
            holds(|| format!("no {name}"), scrape.find(name, &[]).is_some())?;
        }
        same("sampled", &scrape.int("skmem_network_namespaces", &[("outcome", "sampled")]), &1)
    });
    // The cure is logged once, not in every sample.
    daemon.next_sample();
    let warnings = daemon.log().iter().filter(|line| line.contains("source=owners")).count();
    assert_eq!(warnings, 1, "{:#?}", daemon.log());
}
