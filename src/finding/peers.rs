//! Both ends on one host: whoever does not read also fills the buffers of those who send to him, and theirs are often the
//! larger. The finding about him says so, and theirs say where the cure is.

use std::fmt::Write;
use std::net::SocketAddr;

use hashbrown::HashMap;

use super::advice::consider;
use super::{Fact, Finding, Subject, Unit};
use crate::human;
use crate::sample::{Connection, FindingKind};

/// A connection as its two ends name it: local, then remote.
type Ends = (SocketAddr, SocketAddr);

/// What a finding's connections pin at somebody else's end.
struct Pinned {
    /// The finding about the one who does not read, and the one about who waits.
    reader: usize,
    sender: usize,
    connections: u64,
    /// What the sender's ends hold.
    memory: i64,
}

/// Links the findings about the two ends of connections within the host, as far as both ends are among the worst.
pub fn link(findings: &mut [Finding]) {
    let waits = |finding: &Finding| finding.kind == FindingKind::PeerNotReading;
    let mut readers: HashMap<Ends, Vec<(u64, usize)>> = HashMap::new();
    for (index, finding) in findings.iter().enumerate().filter(|(_, finding)| keeps_waiting(finding.kind)) {
        for connection in &finding.connections {
            if let Some(ends) = ends(connection) {
                readers.entry(ends).or_default().push((connection.namespace, index));
            }
        }
    }
    let mut pinned: Vec<Pinned> = Vec::new();
    for (sender, finding) in findings.iter().enumerate().filter(|(_, finding)| waits(finding)) {
        for connection in &finding.connections {
            let Some((local, remote)) = ends(connection) else { continue };
            let candidates = readers.get(&(remote, local)).map_or(&[][..], Vec::as_slice);
            let Some(reader) = other_end(connection.namespace, local, candidates) else { continue };
            let known = pinned.iter_mut().find(|pinned| (pinned.reader, pinned.sender) == (reader, sender));
            match known {
                Some(known) => {
                    known.connections += 1;
                    known.memory += connection.memory_bytes;
                }
                None => {
                    pinned.push(Pinned { reader, sender, connections: 1, memory: connection.memory_bytes });
                }
            }
        }
    }
    for Pinned { reader, sender, connections, memory } in pinned {
        let (Some(reader_name), Some(sender_name)) = (name(&findings[reader]), name(&findings[sender]))
        else {
            continue;
        };
        // Where the worst are all linked, so are the others of the same kind.
        let all = findings[sender].connections.len() as u64;
        let memory = if connections == all { findings[sender].memory_bytes } else { memory };
        let least = if connections == all { "" } else { "at least " };
        let held = human::signed_bytes(memory);
        let text = format!("{least}{held} more at {sender_name} on this host, which sends to it");
        findings[reader].pinned_bytes += memory;
        findings[reader].severity = findings[reader].severity.min(findings[sender].severity);
        let _ = write!(
            findings[reader].summary,
            " {sender_name}, which sends to it, holds {least}{held} for that."
        );
        findings[reader].evidence.insert(1, Fact::new("pinned_at_peer", memory as f64, Unit::Bytes, text));
        let text = format!("{connections} of the {all} worst connections lead to {reader_name} on this host");
        findings[sender].evidence.insert(1, Fact::new("local_peer", connections as f64, Unit::Count, text));
        findings[sender]
            .advice
            .insert(0, consider(format!("See to {reader_name} first: it is the one that does not read.")));
    }
}

/// Whether who is found to do so makes his senders wait. A hole in the path does too, and is not his doing.
fn keeps_waiting(kind: FindingKind) -> bool {
    matches!(
        kind,
        FindingKind::NotReading
            | FindingKind::SlowReading
            | FindingKind::AcceptQueue
            | FindingKind::CloseWait
            | FindingKind::HalfClosed
            | FindingKind::SmallSegments
    )
}

/// Whose of the candidates the other end is: the one of the same namespace, or the only one there is. Every namespace has a
/// loopback of its own, and so the same addresses.
fn other_end(namespace: u64, local: SocketAddr, candidates: &[(u64, usize)]) -> Option<usize> {
    let here = candidates.iter().find(|(theirs, _)| *theirs == namespace);
    let there = match candidates {
        [one] if !local.ip().is_loopback() => Some(one),
        _ => None,
    };
    here.or(there).map(|(_, reader)| *reader)
}

fn ends(connection: &Connection) -> Option<Ends> {
    connection.local.zip(connection.remote)
}

fn name(finding: &Finding) -> Option<String> {
    match &finding.subject {
        Subject::Process { pid, process } | Subject::Listener { pid, process, .. } => {
            Some(format!("{process} (pid {pid})"))
        }
        Subject::Unresolved | Subject::Orphans | Subject::Host => None,
    }
}
