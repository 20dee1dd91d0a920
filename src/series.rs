//! What the samples of the last hour have shown of the host: one point each, in bounded memory. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sample::{DropReason, HostFigures, OwnerClass, ProcessName, Sample};

/// How far back points are kept: long enough to see a leak grow, short enough to draw each sample.
pub const SPAN: Duration = Duration::from_hours(1);

/// Owners kept of each point: as many as a picture can show apart. What others hold is the rest of the sum.
pub const OWNERS_MAX: usize = 8;

/// Who holds the host's TCP memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attribution {
    /// What processes hold, bytes; their accept queues are not in it.
    pub process_bytes: i64,
    /// What waits in accept queues, bytes.
    pub accept_queue_bytes: i64,
    /// What nobody holds any more, bytes.
    pub orphan_bytes: i64,
    /// What is held by somebody we cannot name, bytes.
    pub unresolved_bytes: i64,
    /// sockstat `mem` less the four above, bytes.
    pub unattributed_bytes: Option<i64>,
    /// How far that may be from zero by the kernel's accounting alone, bytes.
    pub unattributed_bound_bytes: Option<u64>,
}

impl Attribution {
    /// What a sample says of it.
    pub fn of(sample: &Sample) -> Self {
        let class = |class: OwnerClass| sample.attributed[class as usize];
        Self {
            process_bytes: class(OwnerClass::Process),
            accept_queue_bytes: class(OwnerClass::AcceptQueue),
            orphan_bytes: class(OwnerClass::Orphan),
            unresolved_bytes: class(OwnerClass::Unresolved),
            unattributed_bytes: sample.unattributed,
            unattributed_bound_bytes: sample.unattributed_bound,
        }
    }
}

/// The host at one sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// Seconds since the epoch.
    pub timestamp: f64,
    /// sockstat `mem`, bytes.
    pub tcp_memory_bytes: Option<u64>,
    /// Whether the kernel was in TCP memory pressure.
    pub memory_pressure: Option<bool>,
    /// Who held it.
    #[serde(flatten)]
    pub held: Attribution,
    /// Orphans.
    pub orphan_sockets: Option<u64>,
    /// Sockets in no table that sock_diag can show.
    pub hidden_sockets: Option<u64>,
    /// InSegs since the exporter started.
    pub segments_received: Option<u64>,
    /// Segments thrown away since the exporter started, for each reason in the order of the metric's labels.
    pub receive_drops: Option<[u64; DropReason::ALL.len()]>,
    /// PruneCalled since the exporter started.
    pub receive_prunes: Option<u64>,
    /// TCPAbortOnMemory since the exporter started.
    pub aborts_on_memory: Option<u64>,
    /// Those who held most, largest first, accept queues included; at most eight.
    pub owners: Vec<OwnerPoint>,
}

/// What one process held at one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerPoint {
    /// Process id.
    pub pid: u32,
    /// Its comm.
    pub process: String,
    /// r + w + f of its sockets, accept queues included, bytes.
    pub memory_bytes: i64,
    /// Its RSS, bytes.
    pub resident_bytes: Option<u64>,
}

impl Point {
    /// The point of one sample.
    pub fn of(host: &HostFigures, sample: &Sample) -> Self {
        let counters = host.memory_counters;
        let owners = sample.processes.iter().filter_map(|row| match &row.name {
            ProcessName::One { pid, comm } => Some(OwnerPoint {
                pid: *pid,
                process: comm.clone(),
                memory_bytes: row.sums.memory,
                resident_bytes: row.resident_memory,
            }),
            ProcessName::Other => None,
        });
        Self {
            timestamp: sample.timestamp,
            tcp_memory_bytes: host.tcp_memory,
            memory_pressure: host.memory_pressure,
            held: Attribution::of(sample),
            orphan_sockets: host.orphan_sockets,
            hidden_sockets: host.hidden_sockets,
            segments_received: host.segments.map(|segments| segments.received),
            receive_drops: counters.map(|counters| counters.receive_drops),
            receive_prunes: counters.map(|counters| counters.receive_prunes),
            aborts_on_memory: counters.map(|counters| counters.aborts_on_memory),
            owners: owners.take(OWNERS_MAX).collect(),
        }
    }
}

/// Points of the last hour, oldest first.
#[derive(Debug, Clone)]
pub struct Series {
    points: VecDeque<Point>,
    limit: usize,
    began: Option<f64>,
    samples: u64,
}

impl Series {
    /// An empty one for samples that come every `interval`.
    pub fn new(interval: Duration) -> Self {
        // One more than fits between the ends.
        let limit = SPAN.as_nanos() / interval.as_nanos().max(1) + 1;
        Self {
            points: VecDeque::new(),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            began: None,
            samples: 0,
        }
    }

    /// Adds the newest point. After a step of the clock the older points mean nothing and are dropped; forwards, one that is
    /// longer than all that is kept.
    pub fn push(&mut self, point: Point) {
        let steps = |last: &Point| {
            last.timestamp >= point.timestamp || point.timestamp - last.timestamp > SPAN.as_secs_f64()
        };
        if self.points.back().is_some_and(steps) {
            self.points.clear();
            self.began = None;
        }
        self.began.get_or_insert(point.timestamp);
        self.samples += 1;
        let oldest = point.timestamp - SPAN.as_secs_f64();
        while self.points.len() >= self.limit
            || self.points.front().is_some_and(|first| first.timestamp < oldest)
        {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// Oldest first.
    pub fn points(&self) -> impl DoubleEndedIterator<Item = &Point> + ExactSizeIterator + Clone {
        self.points.iter()
    }

    /// Points of the last `span` before the newest, oldest first.
    pub fn recent(&self, span: Duration) -> impl DoubleEndedIterator<Item = &Point> + Clone {
        let newest = self.points.back().map_or(0.0, |point| point.timestamp);
        self.points.iter().filter(move |point| newest - point.timestamp <= span.as_secs_f64())
    }

    /// Samples since the start; more than there are points after an hour.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// For how long this exporter has watched the host: from its first sample to its newest.
    pub fn watched(&self) -> Duration {
        let span = self.points.back().zip(self.began).map_or(0.0, |(last, began)| last.timestamp - began);
        Duration::try_from_secs_f64(span).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timestamp: f64) -> Point {
        Point { timestamp, ..Point::default() }
    }

    #[test]
    fn keeps_an_hour_of_points() {
        let mut series = Series::new(Duration::from_secs(15));
        for tick in 0..1000 {
            series.push(at(f64::from(tick) * 15.0));
        }
        assert_eq!(series.points().len(), 241);
        assert_eq!(series.samples(), 1000);
        assert_eq!(series.watched(), Duration::from_secs(999 * 15));
        let ends: Vec<f64> = [series.points().next(), series.points().next_back()]
            .into_iter()
            .flatten()
            .map(|point| point.timestamp)
            .collect();
        assert_eq!(ends, [759.0 * 15.0, 999.0 * 15.0]);
        assert_eq!(series.recent(Duration::from_mins(1)).count(), 5);
    }

    #[test]
    fn faster_samples_than_agreed_take_no_more_room() {
        let mut series = Series::new(Duration::from_secs(15));
        (0..1000).for_each(|tick| series.push(at(f64::from(tick))));
        assert_eq!(series.points().len(), 241);
    }

    #[test]
    fn a_clock_that_steps_begins_anew() {
        for step in [30.0, 1.7e9] {
            let mut series = Series::new(Duration::from_secs(15));
            for timestamp in [100.0, 115.0, step, step + 15.0] {
                series.push(at(timestamp));
            }
            assert_eq!(series.points().len(), 2);
            assert_eq!(series.watched(), Duration::from_secs(15));
        }
    }

    #[test]
    fn nothing_is_known_of_an_empty_one() {
        let series = Series::new(Duration::from_secs(1));
        assert_eq!((series.watched(), series.recent(SPAN).count()), (Duration::ZERO, 0));
    }
}
