//! A daemon that may not look into other users' processes.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;
use skmem_exporter::sample::Source;

use crate::kit::actor::{Actor, Held};
use crate::kit::daemon::{Daemon, FLAGS, copy_binary, row_is};
use crate::kit::host::{self, NOBODY, Netns, eventually, holds, same};
use crate::table::{ROWS, Row};

#[test]
fn without_privileges_it_says_what_it_cannot_see() {
    let _host = host::shared();
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = copy_binary(directory.path());
    let (mut foreign, mut own) = (Actor::start(), Actor::start_as_nobody());
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

/// A command that leaves a daemon just the privileges of a row.
fn command(row: &Row) -> Vec<String> {
    let Some(capabilities) = row.capabilities else { return Vec::new() };
    let mut words = vec!["setpriv".to_owned()];
    if row.is_root {
        // Root regains at exec what the bounding set has.
        words.extend(["--bounding-set=-all", "--inh-caps=-all"].map(str::to_owned));
        return words;
    }
    let listed = capabilities.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(",");
    let listed = if listed.is_empty() { "-all".to_owned() } else { listed };
    words.extend(["--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned));
    words.extend([format!("--inh-caps={listed}"), format!("--ambient-caps={listed}")]);
    words
}

/// The table of docs/privileges.md, row by row.
#[test]
fn each_privilege_buys_what_the_table_says() {
    let _host = host::shared();
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = copy_binary(directory.path());
    let (mounted, unmounted) = (Netns::new(), Netns::new());
    let (mut foreign, mut own) = (Actor::start(), Actor::start_as_nobody());
    let (mut apart, mut alone) = (Actor::start_in(&mounted.name), Actor::start_in(&unmounted.name));
    for actor in [&mut foreign, &mut own, &mut apart, &mut alone] {
        actor.ask("pairs", json!({ "prefix": "a", "count": 3, "size": 50_000 }));
    }
    // From now on its process alone keeps it.
    unmounted.delete();
    for row in ROWS {
        let mut words = command(row).into_iter().map(Into::into).chain([binary.clone()]);
        let mut command = Command::new(words.next().unwrap());
        let daemon = Daemon::start_command(command.args(words).args(FLAGS));
        eventually(row.has, || {
            let (scrape, [hidden, seen, in_mounted, in_unmounted]) =
                daemon.settled([&mut foreign, &mut own, &mut apart, &mut alone]);
            let memory = |pid| scrape.process("tcp_memory_bytes", pid);
            same("its own user's", &memory(own.pid), &row.own.then_some(seen.memory))?;
            same("others'", &memory(foreign.pid), &row.foreign.then_some(hidden.memory))?;
            let owned_there = |is_read: bool, held: Held| (is_read && row.foreign).then_some(held.memory);
            same("by its mount", &memory(apart.pid), &owned_there(row.mounted, in_mounted))?;
            same("by its process", &memory(alone.pid), &owned_there(row.unmounted, in_unmounted))?;

            let owned = |owner| scrape.int("skmem_tcp_attributed_memory_bytes", &[("owner", owner)]);
            let unresolved = if row.foreign { 0 } else { hidden.memory };
            holds(|| format!("{} unresolved", owned("unresolved")), owned("unresolved") >= unresolved)?;
            let sources = Source::ALL.map(Source::label).into_iter();
            let failing = sources.filter(|name| scrape.int("skmem_source_success", &[("source", name)]) == 0);
            same("failing", &failing.collect::<Vec<_>>(), &row.failing())?;
            let count = |outcome| scrape.int("skmem_network_namespaces", &[("outcome", outcome)]);
            let least = 1 + i64::from(row.mounted) + i64::from(row.unmounted);
            holds(|| format!("{} sampled", count("sampled")), count("sampled") >= least)?;
            holds(|| format!("{} sampled", count("sampled")), row.mounted || count("sampled") == 1)?;
            // The mount is found by everybody.
            holds(|| format!("{} not entered", count("failed")), (count("failed") > 0) != row.mounted)?;
            for name in ["dac_read_search", "sys_ptrace", "sys_admin"] {
                let label = format!("cap_{name}");
                let has = row.capabilities.is_none_or(|capabilities| capabilities.contains(&name));
                let said = scrape.int("skmem_exporter_capability", &[("capability", &label)]);
                same(&label, &said, &i64::from(has))?;
            }
            // Nobody needs a privilege for the host's own figures.
            let host =
                ["skmem_tcp_memory_bytes", "skmem_tcp_orphan_sockets", "skmem_tcp_segments_received_total"];
            holds(
                || "no figures of the host".to_owned(),
                host.iter().all(|name| scrape.find(name, &[]).is_some()),
            )
        });
    }
}
