//! A sample's figures in the order and with the labels they are served with, whatever the format.

use std::borrow::Cow;

use super::catalog::{self, Metric};
use crate::sample::{CgroupRow, Exposed, OTHER, ProcessName, ProcessRow};

/// One metric and all that a sample says of it. Never without points: what is not known is absent, not zero.
#[derive(Debug, Clone)]
pub struct Family<'a> {
    /// Its entry in the catalog.
    pub metric: &'static Metric,
    /// Its series.
    pub points: Vec<Point<'a>>,
}

/// One series and its number.
#[derive(Debug, Clone, PartialEq)]
pub struct Point<'a> {
    /// Label values, by position in [`Metric::labels`]. Not escaped.
    pub labels: Vec<Cow<'a, str>>,
    /// The number.
    pub number: Number,
}

/// A number as it was counted: sums of bytes stay exact beyond 2^53 as far as the formats are concerned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A count, or bytes.
    Unsigned(u64),
    /// Bytes that may be below zero.
    Signed(i64),
    /// Seconds.
    Float(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Unsigned(value)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self::Signed(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Unsigned(value.into())
    }
}

/// What `exposed` says of every metric: metrics in the order of the catalog, series in the order of the sample's rows.
pub fn families(exposed: &Exposed) -> Vec<Family<'_>> {
    catalog::all()
        .filter_map(|metric| {
            let mut points = Points::default();
            (metric.read)(exposed, &mut points);
            (!points.0.is_empty()).then_some(Family { metric, points: points.0 })
        })
        .collect()
}

/// The series of one metric while they are gathered; what the readers in the catalog write to.
#[derive(Debug, Default)]
pub(super) struct Points<'a>(Vec<Point<'a>>);

impl<'a> Points<'a> {
    /// A series.
    pub(super) fn push<const N: usize>(&mut self, labels: [Cow<'a, str>; N], number: impl Into<Number>) {
        self.0.push(Point { labels: Vec::from(labels), number: number.into() });
    }

    /// The only series of a metric without labels, if there is a figure.
    pub(super) fn one(&mut self, number: Option<impl Into<Number>>) {
        if let Some(number) = number {
            self.push([], number);
        }
    }

    /// A series for each value of the metric's only label.
    pub(super) fn each<N: Into<Number>>(&mut self, figures: impl IntoIterator<Item = (&'a str, N)>) {
        for (value, number) in figures {
            self.push([value.into()], number);
        }
    }

    /// A series for each process row that has the figure.
    pub(super) fn each_process<N: Into<Number>>(
        &mut self,
        exposed: &'a Exposed,
        figure: impl Fn(&'a ProcessRow) -> Option<N>,
    ) {
        for row in exposed.sample.iter().flat_map(|sample| &sample.processes) {
            if let Some(number) = figure(row) {
                self.push(process_labels(&row.name), number);
            }
        }
    }

    /// A series for each cgroup row that has the figure.
    pub(super) fn each_cgroup<N: Into<Number>>(
        &mut self,
        exposed: &'a Exposed,
        figure: impl Fn(&'a CgroupRow) -> Option<N>,
    ) {
        for row in exposed.sample.iter().flat_map(|sample| &sample.cgroups) {
            if let Some(number) = figure(row) {
                self.push([row.path.as_str().into()], number);
            }
        }
    }
}

/// The `pid` and `process` of a row. No real pid is ever the word that stands for all the others.
pub(super) fn process_labels(name: &ProcessName) -> [Cow<'_, str>; 2] {
    match name {
        ProcessName::One { pid, comm } => [pid.to_string().into(), comm.as_str().into()],
        ProcessName::Other => [OTHER.into(), OTHER.into()],
    }
}
