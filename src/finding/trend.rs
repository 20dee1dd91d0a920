//! What is wrong with the host over time: what falls, rises, or will.

use std::time::Duration;

use super::advice::{consider, run};
use super::host::{about, lasting, memory_fact, relieve, signed};
use super::{Fact, Finding, Seen, Severity, Unit};
use crate::human;
use crate::sample::{DropReason, FindingKind};
use crate::series::Point;

/// Segments thrown away each second that are more than the odd full backlog.
const DROPS_PER_SECOND: f64 = 1.0;
/// For how long memory must have risen until that is a trend and not a burst.
const TREND_SPAN: Duration = Duration::from_mins(2);
/// For how long until it may be projected.
const PROJECTION_SPAN: Duration = Duration::from_mins(5);
/// How far ahead a projection is worth telling.
const HORIZON: Duration = Duration::from_hours(4);
/// Memory by which it must have risen: less comes and goes with traffic. Bytes.
const RISE: u64 = 16 << 20;
/// And by which part of what it was, in tenths: of gigabytes, traffic moves more than that floor.
const RISE_TENTHS: u64 = 1;
/// Segments received may have risen by this factor and still count as flat.
const FLAT: f64 = 1.25;

/// The findings about how the host develops.
pub fn find(seen: Seen<'_>) -> Vec<Finding> {
    [aborts(seen), drops(seen), without_traffic(seen), projected(seen)].into_iter().flatten().collect()
}

fn aborts(seen: Seen<'_>) -> Option<Finding> {
    let points = lasting(seen, seen.stall_after)?;
    let aborted = rise(&points, |point| point.aborts_on_memory)?.0;
    let summary =
        format!("The kernel has reset {} for lack of TCP memory.", human::count(aborted, "connection"));
    let text = format!("{aborted} aborted (TCPAbortOnMemory)");
    (aborted > 0).then(|| Finding {
        sockets: aborted,
        evidence: vec![Fact::new("aborts_on_memory", aborted as f64, Unit::Count, text)],
        advice: relieve(),
        ..about(FindingKind::MemoryAborts, Severity::Critical, summary)
    })
}

fn drops(seen: Seen<'_>) -> Option<Finding> {
    let points = lasting(seen, seen.stall_after)?;
    let mut evidence = Vec::new();
    let mut all = 0.0;
    for (reason, field) in DropReason::ALL {
        let dropped = rise(&points, |point| Some(point.receive_drops?[reason as usize]));
        let Some((count, seconds)) = dropped.filter(|(count, _)| *count > 0) else { continue };
        let rate = count as f64 / seconds;
        all += rate;
        let text = format!("{rate:.1} segments thrown away each second ({field})");
        evidence.push(Fact::new(reason.label(), rate, Unit::PerSecond, text));
    }
    if all < DROPS_PER_SECOND {
        return None;
    }
    if let Some((prunes, seconds)) = rise(&points, |point| point.receive_prunes) {
        let rate = prunes as f64 / seconds;
        let text = format!("{rate:.1} receive queues pruned each second (PruneCalled)");
        evidence.push(Fact::new("receive_prunes", rate, Unit::PerSecond, text));
    }
    let summary = format!("The kernel throws away {all:.1} received segments each second for lack of room.");
    Some(Finding {
        evidence,
        advice: vec![
            run("See which counters rise.", "nstat -n; sleep 5; nstat 'TcpExt*Drop*' 'TcpExt*Prune*'"),
            consider(
                "Sockets that are full drop what their peers still send: deal with whoever does not read, below.",
            ),
        ],
        ..about(FindingKind::ReceiveDrops, Severity::Warning, summary)
    })
}

/// How far a counter has risen from the first point to the last, and over how many seconds.
fn rise(points: &[&Point], counter: impl Fn(&Point) -> Option<u64>) -> Option<(u64, f64)> {
    let (first, last) = (points.first()?, points.last()?);
    let seconds = last.timestamp - first.timestamp;
    let rise = counter(last)?.saturating_sub(counter(first)?);
    (seconds > 0.0).then_some((rise, seconds))
}

/// TCP memory at some points, ascending.
fn sorted_memory(points: &[&Point]) -> Vec<u64> {
    let mut memory: Vec<u64> = points.iter().filter_map(|point| point.tcp_memory_bytes).collect();
    memory.sort_unstable();
    memory
}

/// The medians of TCP memory over the first and the last third of some points, if it has risen from third to third, the last
/// wholly above the first, and by so much that it is worth telling.
fn steady_rise(points: &[&Point]) -> Option<(u64, u64)> {
    let thirds: Vec<Vec<u64>> = points.chunks(points.len().div_ceil(3)).map(sorted_memory).collect();
    let [first, middle, last] = thirds.as_slice() else { return None };
    let median = |memory: &[u64]| memory.get(memory.len() / 2).copied();
    let (before, between, after) = (median(first)?, median(middle)?, median(last)?);
    let is_steady = before < between && between < after && first.last() < last.first();
    let enough = RISE.max(before / 10 * RISE_TENTHS);
    (is_steady && after - before >= enough).then_some((before, after))
}

fn without_traffic(seen: Seen<'_>) -> Option<Finding> {
    let points = lasting(seen, TREND_SPAN)?;
    let (before, now) = steady_rise(&points)?;
    let third = points.len() / 3;
    let rate = |points: &[&Point]| {
        rise(points, |point| point.segments_received).map(|(count, seconds)| count as f64 / seconds)
    };
    let (first, last) = (rate(points.get(..=third)?)?, rate(points.get(points.len() - 1 - third..)?)?);
    if last > first * FLAT {
        return None;
    }
    let span = human::duration(TREND_SPAN);
    let summary = format!(
        "TCP memory has risen from {} to {} within {span} while segments received have not: data stays, traffic would pass.",
        human::bytes(before),
        human::bytes(now)
    );
    Some(Finding {
        memory_bytes: signed(now - before),
        evidence: vec![
            Fact::new(
                "rise",
                (now - before) as f64,
                Unit::Bytes,
                format!("{} more than before", human::bytes(now - before)),
            ),
            Fact::new(
                "segments_before",
                first,
                Unit::PerSecond,
                format!("{first:.0} segments a second at first (InSegs)"),
            ),
            Fact::new("segments_now", last, Unit::PerSecond, format!("{last:.0} segments a second at last")),
        ],
        advice: vec![consider(
            "See who holds it, below: somebody has stopped reading, or reads less than arrives.",
        )],
        ..about(FindingKind::MemoryWithoutTraffic, Severity::Warning, summary)
    })
}

fn projected(seen: Seen<'_>) -> Option<Finding> {
    let max = seen.host.tcp_memory_limit?.max;
    let now = seen.host.tcp_memory?;
    let all: Vec<&Point> = seen.series.points().collect();
    if seen.series.watched() < PROJECTION_SPAN || now >= max {
        return None;
    }
    let (before, after) = steady_rise(&all)?;
    // The medians are of the middles of the outer thirds: two thirds of the span apart.
    let span =
        Duration::try_from_secs_f64((all.last()?.timestamp - all.first()?.timestamp) * 2.0 / 3.0).ok()?;
    let left = span.mul_f64((max - now) as f64 / (after - before) as f64);
    if left > HORIZON {
        return None;
    }
    let a_minute = (after - before) * 60 / span.as_secs().max(1);
    let summary = format!(
        "TCP memory rises by {} a minute and reaches its maximum of {} in about {} if that goes on.",
        human::bytes(a_minute),
        human::bytes(max),
        human::duration(left)
    );
    Some(Finding {
        memory_bytes: signed(now),
        evidence: vec![
            memory_fact(now),
            Fact::new(
                "slope",
                a_minute as f64 / 60.0,
                Unit::PerSecond,
                format!("{} more each minute", human::bytes(a_minute)),
            ),
            Fact::new(
                "seconds_left",
                left.as_secs_f64(),
                Unit::Seconds,
                format!("{} left", human::duration(left)),
            ),
        ],
        advice: relieve(),
        ..about(FindingKind::MemoryProjected, Severity::Warning, summary)
    })
}
