//! What is wrong with one process.

use std::time::Duration;

use super::advice::{self, Culprit, is_its_doing};
use super::{Fact, Finding, Seen, Severity, Subject, Unit, is_worth_a_finding};
use crate::human;
use crate::predicament::{Activity, Predicament, ThreadGroup};
use crate::sample::{
    Cause, CauseSums, Connection, FindingKind, ListenerQueue, ProcessName, ProcessRow, ProcessState,
    SocketSums, Unowned, Worst,
};
use crate::tcp_info::TcpInfo;

/// Memory held for one cause that somebody should see to. Bytes.
const WARNING_MEMORY: i64 = 1 << 20;
/// Sockets held for one cause that somebody should see to.
const WARNING_SOCKETS: u64 = 1000;
/// A cause that holds this part of the level at which the kernel comes under pressure is the host's trouble.
const CRITICAL_PART: u64 = 4;
/// Wait channels told of; the rest of a process's threads is in their sum.
const WAITS_TOLD: usize = 3;

/// Whose sockets a finding is about.
struct Holding<'a> {
    /// Pid and comm; `None` for somebody who cannot be seen.
    who: Option<(u32, &'a str)>,
    sums: &'a SocketSums,
    worst: &'a Worst,
    row: Option<&'a ProcessRow>,
}

/// The findings about one row.
pub fn find(seen: Seen<'_>, row: &ProcessRow) -> Vec<Finding> {
    let ProcessName::One { pid, comm } = &row.name else { return Vec::new() };
    let who = Some((*pid, comm.as_str()));
    Holding { who, sums: &row.sums, worst: &row.worst, row: Some(row) }.find(seen)
}

/// The findings about sockets that nobody we can see holds: somebody does, and may have stopped reading.
pub fn find_unresolved(seen: Seen<'_>) -> Vec<Finding> {
    let Unowned { unresolved, unresolved_sums, .. } = &seen.sample.unowned;
    Holding { who: None, sums: unresolved_sums, worst: unresolved, row: None }.find(seen)
}

impl Holding<'_> {
    fn find(&self, seen: Seen<'_>) -> Vec<Finding> {
        Cause::ALL
            .into_iter()
            .zip(&self.sums.by_cause)
            .filter(|(cause, sums)| is_worth_a_finding(*cause, sums, self.worst))
            .filter_map(|(cause, sums)| Some(self.one(seen, (cause, FindingKind::of_cause(cause)?), sums)))
            .collect()
    }

    /// Whether its peers do not read what it sends: a proxy then has to stop reading too.
    fn is_held_up(&self) -> bool {
        let cause = Cause::PeerNotReading;
        // Of those who cannot be seen, these are as likely others.
        self.who.is_some() && is_worth_a_finding(cause, &self.sums.by_cause[cause as usize], self.worst)
    }

    fn one(&self, seen: Seen<'_>, (cause, kind): (Cause, FindingKind), sums: &CauseSums) -> Finding {
        let connections: Vec<Connection> =
            self.worst.connections.iter().filter(|connection| connection.cause == cause).cloned().collect();
        let listeners = if cause == Cause::AcceptQueue { self.worst.listeners.clone() } else { Vec::new() };
        let is_held_up = is_its_doing(cause) && self.is_held_up();
        // What the process does explains its own doing only.
        let activity = self.row.and_then(|row| row.activity.as_ref()).filter(|_| is_its_doing(cause));
        let predicament = activity.map(Activity::predicament).unwrap_or_default();
        let because = if is_held_up && !predicament.is_certain() {
            Some("It may be held up by its own peers, which do not read what it sends")
        } else {
            because(predicament)
        };
        let (name, subject, advice) = match self.who {
            Some((pid, comm)) => {
                let process = comm.to_owned();
                let subject = match listeners.first() {
                    Some(longest) => Subject::Listener { pid, process, address: longest.local },
                    None => Subject::Process { pid, process },
                };
                let info = self.row.and_then(|row| row.info.as_ref());
                let culprit =
                    Culprit { pid, cause, info, activity, predicament, listeners: &listeners, is_held_up };
                (format!("{comm} (pid {pid})"), subject, advice::for_process(&culprit))
            }
            None => ("Somebody who cannot be seen".to_owned(), Subject::Unresolved, advice::for_unresolved()),
        };
        let at_the_latest = seen.may_have_begun_before(sums.stalled);
        Finding {
            kind,
            severity: severity(seen, cause, sums, &listeners),
            memory_bytes: sums.memory,
            pinned_bytes: 0,
            sockets: sums.sockets,
            since: Some(((seen.sample.timestamp - sums.stalled.as_secs_f64()) * 1e3).round() / 1e3),
            since_is_at_the_latest: at_the_latest,
            summary: summary(&name, cause, sums, &listeners, at_the_latest, because),
            evidence: self.evidence(activity, (cause, sums), &connections, &listeners),
            advice,
            subject,
            connections,
            listeners,
        }
    }
}

fn severity(seen: Seen<'_>, cause: Cause, sums: &CauseSums, listeners: &[ListenerQueue]) -> Severity {
    let pressure = seen.host.tcp_memory_limit.map(|levels| levels.pressure);
    let threatens = pressure.is_some_and(|level| sums.memory.cast_unsigned() >= level / CRITICAL_PART);
    // Nobody can connect any more.
    let turns_away = cause == Cause::AcceptQueue && listeners.iter().any(ListenerQueue::is_full);
    if sums.memory > 0 && threatens {
        Severity::Critical
    } else if sums.memory >= WARNING_MEMORY || sums.sockets >= WARNING_SOCKETS || turns_away {
        Severity::Warning
    } else {
        Severity::Notice
    }
}

fn summary(
    who: &str,
    cause: Cause,
    sums: &CauseSums,
    listeners: &[ListenerQueue],
    at_the_latest: bool,
    because: Option<&str>,
) -> String {
    let connections = human::count(sums.sockets, "connection");
    let what = match cause {
        Cause::NotReading => format!("has stopped reading {connections}"),
        Cause::SlowReading => format!("reads {connections} more slowly than data arrives"),
        Cause::AcceptQueue => match listeners {
            [] => format!("does not accept {connections}"),
            [one] => format!("does not accept {connections} on {}", one.local),
            [longest, ..] => {
                format!(
                    "does not accept {connections} on {} listeners, {} foremost",
                    listeners.len(),
                    longest.local
                )
            }
        },
        Cause::CloseWait => format!("does not close {connections} that the peers have closed"),
        Cause::HalfClosed => format!("has half closed {connections} and does not read what arrives"),
        Cause::OutOfOrder => format!("waits for segments that are missing on {connections}"),
        Cause::SmallSegments => format!("holds {connections} full of tiny segments"),
        Cause::PeerNotReading => format!("waits for the peers of {connections} to read"),
        Cause::PathStalled => format!("gets no acknowledgement on {connections}"),
        Cause::Active => format!("has {connections}"),
    };
    let age = human::duration(sums.stalled);
    let at_least = if at_the_latest { "at least " } else { "" };
    let held = match u64::try_from(sums.memory) {
        Ok(memory) if memory > 0 => format!(": {} of kernel memory", human::bytes(memory)),
        _ => String::new(),
    };
    let because = because.map_or(String::new(), |because| format!(". {because}"));
    format!("{who} {what}, for {at_least}{age}{held}{because}.")
}

/// What keeps a process from its sockets, as a sentence without its full stop; `None` where that is not known.
pub fn because(predicament: Predicament) -> Option<&'static str> {
    Some(match predicament {
        Predicament::Stopped => "It is stopped by a signal",
        Predicament::Traced => "A debugger holds it",
        Predicament::Frozen => "Its cgroup is frozen",
        Predicament::Uninterruptible => "It waits in the kernel for a device or a file system",
        Predicament::Deadlocked => "All its threads wait for locks, as in a deadlock",
        Predicament::OutOfFds => "It has no file descriptors left",
        Predicament::Spinning => "One of its threads uses a whole CPU",
        Predicament::Throttled => "Its cgroup's CPU quota holds it back",
        Predicament::WaitsElsewhere => "It waits for something that is not the network",
        Predicament::Idle => "It waits for events, but not for these sockets'",
        Predicament::Working => "It is busy",
        Predicament::Unknown => return None,
    })
}

impl Holding<'_> {
    fn evidence(
        &self,
        activity: Option<&Activity>,
        (cause, sums): (Cause, &CauseSums),
        connections: &[Connection],
        listeners: &[ListenerQueue],
    ) -> Vec<Fact> {
        let memory = self.sums.memory;
        let mut facts = vec![Fact::new(
            "cause_memory",
            sums.memory as f64,
            Unit::Bytes,
            format!(
                "{} of its {} of TCP memory",
                human::signed_bytes(sums.memory),
                human::signed_bytes(memory)
            ),
        )];
        facts.push(stalled(cause, sums.stalled));
        if let Some(resident) = self.row.and_then(|row| row.resident_memory) {
            let text = format!(
                "{} of resident memory (RSS), which these buffers are no part of",
                human::bytes(resident)
            );
            facts.push(Fact::new("resident_memory", resident as f64, Unit::Bytes, text));
        }
        let (queue, text) = match cause {
            Cause::PeerNotReading | Cause::PathStalled => {
                (self.sums.send_queue, "written and not acknowledged")
            }
            _ => (self.sums.receive_queue, "received and not read"),
        };
        // Each unread FIN counts one. What waits in an accept queue cannot be told from the rest of a process's unread data.
        if queue > self.sums.sockets[ProcessState::CloseWait as usize] && cause != Cause::AcceptQueue {
            let text = format!("{} {text}", human::bytes(queue));
            facts.push(Fact::new("queue", queue as f64, Unit::Bytes, text));
        }
        for listener in listeners {
            let text = format!(
                "{} of at most {} waiting on {}{}",
                listener.waiting,
                u64::from(listener.limit) + 1,
                listener.local,
                if listener.is_full() { ": full, new connections are turned away" } else { "" }
            );
            facts.push(Fact::new("accept_queue", listener.waiting.into(), Unit::Count, text));
        }
        facts.extend(windows(cause, connections));
        facts.extend(newest_unread(cause, connections));
        facts.extend(activity.into_iter().flat_map(doing));
        let worst = connections.iter().find_map(|connection| connection.tcp_info.as_ref());
        facts.extend(worst.map(|info| {
            let text = format!("tcp_info of the worst: {}", info.listing());
            Fact::new("rcv_space", info.receive_space.into(), Unit::Bytes, text)
        }));
        facts
    }
}

/// How long even the newest of what is unread has been there, which may be longer than anybody has watched.
fn newest_unread(cause: Cause, connections: &[Connection]) -> Option<Fact> {
    if !matches!(cause, Cause::NotReading | Cause::CloseWait | Cause::HalfClosed) {
        return None;
    }
    let unread = connections.iter().filter(|connection| connection.receive_queue_bytes > 1);
    let ages = unread.filter_map(|connection| Some(connection.tcp_info.as_ref()?.last_data_received_ms));
    let age = Duration::from_millis(ages.max()?.into());
    let text = format!("on one of them the newest unread data has been there for {}", human::duration(age));
    Some(Fact::new("newest_unread_data", age.as_secs_f64(), Unit::Seconds, text))
}

fn stalled(cause: Cause, stalled: Duration) -> Fact {
    let what = match cause {
        Cause::NotReading | Cause::CloseWait | Cause::HalfClosed => "nothing taken out of the queue",
        Cause::AcceptQueue => "not accepted",
        Cause::PeerNotReading | Cause::PathStalled => "nothing acknowledged",
        _ => "the queue never empty",
    };
    let text = format!("{what} for {}", human::duration(stalled));
    Fact::new("stalled", stalled.as_secs_f64(), Unit::Seconds, text)
}

/// What tcp_info adds, over the worst connections that have one.
fn windows(cause: Cause, connections: &[Connection]) -> Vec<Fact> {
    let infos: Vec<&TcpInfo> =
        connections.iter().filter_map(|connection| connection.tcp_info.as_ref()).collect();
    let asked = infos.len();
    let mut facts = Vec::new();
    let mut tell = |name: &str, is_so: &dyn Fn(&TcpInfo) -> bool, what: &str| {
        let count = infos.iter().filter(|info| is_so(info)).count();
        if count > 0 {
            let text = format!("{what} on {count} of the {asked} worst connections");
            facts.push(Fact::new(name, count as f64, Unit::Count, text));
        }
    };
    match cause {
        Cause::PeerNotReading => {
            tell("peer_window_closed", &|info| info.send_window == Some(0), "the peer's window is closed");
            tell("probing", &|info| info.probes > 0 || info.backoff > 0, "window probes are under way");
        }
        Cause::PathStalled => {
            tell("retransmitting", &|info| info.retransmits > 0, "retransmissions are under way");
        }
        Cause::OutOfOrder => {
            let has = |info: &TcpInfo| info.out_of_order_segments.is_some_and(|count| count > 0);
            tell("out_of_order", &has, "segments came out of order");
        }
        _ => {
            let closed = |info: &TcpInfo| info.receive_window.is_some_and(|window| window < info.receive_mss);
            tell("window_closed", &closed, "our window is closed, so the peer has to wait,");
            tell("no_window_scaling", &|info| !info.has_window_scaling(), "window scaling is off");
        }
    }
    facts
}

/// What the process does.
fn doing(activity: &Activity) -> Vec<Fact> {
    let mut facts = Vec::new();
    let threads = activity.threads_total;
    if threads > 0 {
        let told: Vec<String> = activity.threads.iter().take(WAITS_TOLD).map(group).collect();
        let text = format!("{}: {}", human::count(threads.into(), "thread"), told.join(", "));
        facts.push(Fact::new("threads", threads.into(), Unit::Count, text));
    }
    if activity.tracer_pid != 0 {
        let text = format!("traced by pid {}", activity.tracer_pid);
        facts.push(Fact::new("tracer_pid", activity.tracer_pid.into(), Unit::Count, text));
    }
    if let Some(share) = activity.cpu_share {
        let text = format!("{share:.2} CPUs used");
        facts.push(Fact::new("cpu_share", share, Unit::Ratio, text));
    }
    if activity.spinning > 0 {
        let text = format!("{} at a whole CPU", human::count(activity.spinning.into(), "thread"));
        facts.push(Fact::new("spinning_threads", activity.spinning.into(), Unit::Count, text));
    }
    if activity.frozen == Some(true) {
        let text = format!("the cgroup {} is frozen", activity.freezer);
        facts.push(Fact::new("frozen", 1.0, Unit::Count, text));
    }
    if let Some(share) = activity.throttled_share.filter(|share| *share > 0.0) {
        let text = format!("held back by its CPU quota {:.0} % of the time", share * 100.0);
        facts.push(Fact::new("throttled_share", share, Unit::Ratio, text));
    }
    if let Some((open, limit)) = activity.open_fds.zip(activity.fd_limit) {
        let text = format!("{open} of {limit} file descriptors open");
        facts.push(Fact::new("open_fds", open as f64, Unit::Count, text));
    }
    facts
}

fn group(group: &ThreadGroup) -> String {
    let ThreadGroup { state, wait_channel, count } = group;
    if wait_channel.is_empty() {
        format!("{count} {}", state.label())
    } else {
        format!("{count} {} in {wait_channel}", state.label())
    }
}
