//! From an hour of samples to lines: time and byte axes, gaps, and no more points than can be seen. Pure.

use std::fmt::Write as _;

use crate::series::Point;

/// Width of a picture's plane in its own units; the browser stretches it to whatever room there is.
pub(super) const WIDTH: f64 = 1000.0;
/// Height of the plane, pixels.
pub(super) const HEIGHT: f64 = 180.0;
/// Columns that samples are put into: more than a screen shows apart.
const COLUMNS: f64 = 300.0;
/// Lines across the plane at most.
const LINES_MAX: f64 = 5.0;
/// A sample this many intervals after the one before it has none missing between them.
const MISSING: f64 = 2.5;

/// Time from left to right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TimeAxis {
    pub(super) begin: f64,
    pub(super) end: f64,
}

impl TimeAxis {
    /// The span of these points, at least ten intervals, so that a young exporter's first samples are told apart.
    pub(super) fn of(points: &[Point], interval: f64) -> Option<Self> {
        let (first, last) = (points.first()?.timestamp, points.last()?.timestamp);
        let begin = first.min(last - 10.0 * interval);
        (begin.is_finite() && last > begin).then_some(Self { begin, end: last })
    }

    /// Position in the plane, 0 to [`WIDTH`].
    pub(super) fn x(&self, timestamp: f64) -> f64 {
        ((timestamp - self.begin) / (self.end - self.begin)).clamp(0.0, 1.0) * WIDTH
    }

    /// Whether moments have to be named to the second.
    pub(super) fn is_short(&self) -> bool {
        self.end - self.begin < 240.0
    }

    /// Moments to name: round times of day, as many as have room on a phone.
    pub(super) fn ticks(&self) -> Vec<f64> {
        const STEPS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0];
        let span = self.end - self.begin;
        let most = if self.is_short() { 3.0 } else { 4.0 };
        let step = STEPS.into_iter().find(|step| span / step <= most).unwrap_or(3600.0);
        let mut ticks = Vec::new();
        let mut tick = (self.begin / step).ceil() * step;
        while tick <= self.end && ticks.len() < 8 {
            ticks.push(tick);
            tick += step;
        }
        ticks
    }
}

/// Bytes from the bottom up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ByteAxis {
    pub(super) top: f64,
    step: f64,
    unit: usize,
}

impl ByteAxis {
    /// From nothing to a little above `most`.
    pub(super) fn to(most: f64) -> Self {
        const STEPS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
        let top = (most * 1.1).max(4096.0);
        let mut unit = 0;
        let mut scale = 1.0;
        while unit < 5 && top / scale > LINES_MAX * 500.0 {
            scale *= 1024.0;
            unit += 1;
        }
        let step = STEPS.into_iter().find(|step| top / (step * scale) <= LINES_MAX).unwrap_or(1000.0);
        Self { top, step: step * scale, unit }
    }

    /// Position in the plane, [`HEIGHT`] at the bottom.
    pub(super) fn y(&self, bytes: f64) -> f64 {
        HEIGHT - (bytes / self.top).clamp(0.0, 1.0) * HEIGHT
    }

    /// Where lines go across, and what they are called.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let scale = 1024f64.powi(i32::try_from(self.unit).unwrap_or(0));
        let mut ticks = Vec::new();
        let mut bytes = 0.0;
        while bytes <= self.top {
            let number = bytes / scale;
            ticks.push((
                bytes,
                if bytes == 0.0 { "0".to_owned() } else { format!("{number} {}", UNITS[self.unit]) },
            ));
            bytes += self.step;
        }
        ticks
    }
}

/// Points without a missing sample between them.
pub(super) type Run<'a> = Vec<&'a Point>;

/// The points in unbroken runs; of each column the one that holds most, so that no peak is lost, and always the newest.
pub(super) fn runs<'a>(points: &'a [Point], axis: &TimeAxis, interval: f64) -> Vec<Run<'a>> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    let mut before: Option<(f64, f64)> = None;
    for (index, point) in points.iter().enumerate() {
        let column = (axis.x(point.timestamp) / WIDTH * COLUMNS).floor();
        let is_newest = index + 1 == points.len();
        match (before, runs.last_mut()) {
            (Some((timestamp, last)), Some(run)) if point.timestamp - timestamp <= MISSING * interval => {
                let same = last.total_cmp(&column).is_eq() && !is_newest && run.len() > 1;
                match run.last_mut() {
                    Some(kept) if same => {
                        if held(point) > held(kept) {
                            *kept = point;
                        }
                    }
                    _ => run.push(point),
                }
            }
            _ => runs.push(vec![point]),
        }
        before = Some((point.timestamp, column));
    }
    runs
}

/// What counts as most: the kernel's sum, or without it the sockets'.
fn held(point: &Point) -> u64 {
    point.tcp_memory_bytes.unwrap_or_else(|| {
        let sum = point.held.process_bytes
            + point.held.accept_queue_bytes
            + point.held.orphan_bytes
            + point.held.unresolved_bytes;
        u64::try_from(sum).unwrap_or(0)
    })
}

/// Time spans without samples: from the end of each run to the begin of the next.
pub(super) fn gaps(runs: &[Run<'_>]) -> Vec<(f64, f64)> {
    runs.windows(2).filter_map(|pair| Some((pair[0].last()?.timestamp, pair[1].first()?.timestamp))).collect()
}

/// A line through these places: whatever follows an `M` without a letter is drawn to.
pub(super) fn line(places: &[(f64, f64)]) -> String {
    let mut path = String::with_capacity(places.len() * 12);
    for (at, (x, y)) in places.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(path, "{}{} {}", if at == 0 { 'M' } else { ' ' }, short(*x), short(*y));
    }
    path
}

/// The area between two lines from left to right.
pub(super) fn area(upper: &[(f64, f64)], lower: &[(f64, f64)]) -> String {
    let around: Vec<_> = upper.iter().chain(lower.iter().rev()).copied().collect();
    line(&around) + "z"
}

/// A tenth of a unit is a tenth of a pixel.
fn short(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(timestamp: f64, memory: u64) -> Point {
        Point { timestamp, tcp_memory_bytes: Some(memory), ..Point::default() }
    }

    #[test]
    fn bytes_have_round_lines() {
        let names =
            |most: f64| ByteAxis::to(most).ticks().into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names(0.0), ["0", "1 KiB", "2 KiB", "3 KiB", "4 KiB"]);
        assert_eq!(names(90.0 * 1_048_576.0), ["0", "20 MiB", "40 MiB", "60 MiB", "80 MiB"]);
        assert_eq!(names(3e9).last().unwrap(), "3 GiB");
        for power in 0..60 {
            let most = 1.7f64 * f64::from(power).exp2();
            let axis = ByteAxis::to(most);
            assert!((2..=6).contains(&axis.ticks().len()), "{most}: {:?}", axis.ticks());
            assert!(axis.y(most) > 0.0 && axis.y(0.0).total_cmp(&HEIGHT).is_eq());
        }
    }

    #[test]
    fn times_have_round_ticks() {
        let axis = TimeAxis { begin: 1_000_000_001.0, end: 1_000_003_601.0 };
        let ticks = axis.ticks();
        assert_eq!(ticks.len(), 4);
        assert!(ticks.iter().all(|tick| (tick / 900.0).fract().abs() < 1e-9));
        assert!(TimeAxis::of(&[], 15.0).is_none());
        let young = TimeAxis::of(&[point(100.0, 1)], 15.0).unwrap();
        assert_eq!((young.begin, young.end), (-50.0, 100.0));
        assert!(!young.ticks().is_empty());
    }

    #[test]
    fn missing_samples_break_the_line() {
        let points: Vec<_> = [0.0, 15.0, 31.0, 75.0, 90.0].into_iter().map(|at| point(at, 1)).collect();
        let axis = TimeAxis::of(&points, 15.0).unwrap();
        let runs = runs(&points, &axis, 15.0);
        assert_eq!(runs.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(gaps(&runs), [(31.0, 75.0)]);
    }

    #[test]
    fn many_samples_keep_their_peak_and_the_newest() {
        let points: Vec<_> =
            (0..=3600).map(|at| point(f64::from(at), if at == 1801 { 900 } else { 1 })).collect();
        let axis = TimeAxis::of(&points, 1.0).unwrap();
        let runs = runs(&points, &axis, 1.0);
        assert_eq!(runs.len(), 1);
        assert!(runs[0].len() <= 304, "{}", runs[0].len());
        assert!(runs[0].iter().any(|point| point.tcp_memory_bytes == Some(900)));
        assert_eq!(runs[0].last().unwrap().timestamp.to_bits(), 3600f64.to_bits());
        assert_eq!(runs[0][0].timestamp.to_bits(), 0f64.to_bits());
    }
}
