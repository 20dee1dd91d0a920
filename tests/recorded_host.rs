//! The whole way from a recorded host to rows, figure by figure.

#[path = "support/host.rs"]
#[allow(dead_code)]
mod host;

use skmem_exporter::sample::{OwnerClass, ProcessName, ProcessRow, Sample, Source, TcpState};

fn row<'a>(sample: &'a Sample, wanted: &ProcessName) -> &'a ProcessRow {
    sample.processes.iter().find(|row| row.name == *wanted).expect("its row")
}

#[test]
fn every_source_reads_the_tree() {
    let [reading, _] = host::readings();
    for source in Source::ALL {
        assert!(reading.outcomes.first(source).is_none(), "{:?}", reading.outcomes.first(source));
    }
}

#[test]
fn owners_of_the_recorded_host() {
    let [reading, _] = host::readings();
    let sample = reading.sample.unwrap();
    assert_eq!(
        sample.sockets, 11,
        "one of the twelve TCP messages is a repetition, the MPTCP one no socket of its own"
    );
    assert_eq!(sample.states[TcpState::Established.index()], 6);
    assert_eq!(sample.attributed[OwnerClass::AcceptQueue as usize], 32_768 + 4096);
    assert_eq!(sample.attributed[OwnerClass::Orphan as usize], 24_576);
    assert_eq!(sample.attributed[OwnerClass::Unresolved as usize], 4096);
    assert_eq!(sample.unattributed, Some(5 * 4096), "mem is 45 pages, sockets hold 40");
    assert_eq!(sample.unattributed_bound, Some(2 * 256 * 4096), "two CPUs");
    assert_eq!(reading.host.hidden_sockets, Some(3), "alloc 14, hashed 9 and 2");

    let nginx = row(&sample, &ProcessName::One { pid: 100, comm: "nginx".to_owned() });
    assert_eq!(nginx.sums.memory, 65_536 + 32_768 + 4096, "with its accept queue, without its worker's");
    assert_eq!(nginx.sums.accept_queue_connections, 2);
    assert_eq!(nginx.sums.receive_queue, 90_001);
    assert_eq!(nginx.sums.receive_queue_max, 60_000);
    assert_eq!(nginx.resident_memory, Some(2000 * 4096));
    assert_eq!(nginx.info.as_ref().unwrap().systemd_unit, "nginx.service");

    let hostile = row(&sample, &ProcessName::One { pid: 200, comm: "ev\"il\n\\xff} 1\\".to_owned() });
    assert_eq!(hostile.sums.memory, 4096 + 8192 + 12_288, "an MPTCP connection and its subflow");
    assert_eq!(hostile.info.as_ref().unwrap().pod_uid, "0b9f4a1e-7c3d-4e2f-8a1b-2c3d4e5f6a7b");

    let others = row(&sample, &ProcessName::Other);
    assert_eq!(others.sums.memory, 4096 + 4096, "a worker and a small process");
    let rows: i64 = sample.processes.iter().map(|row| row.sums.memory).sum();
    let [process, accept_queue, ..] = sample.attributed;
    assert_eq!(rows, process + accept_queue);
}

#[test]
fn a_second_round_says_the_same() {
    let [first, second] = host::readings();
    let first = first.sample.unwrap();
    let second = second.sample.unwrap();
    assert_eq!(Sample { timestamp: first.timestamp, ..second }, first);
}
