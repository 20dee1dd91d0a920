//! Every metric there is: its name, its meaning and where its figures come from, in one table.
//!
//! Both text formats, the reference in `docs/metrics.md` and the tests read this table; no metric is named anywhere
//! else. An entry carries the function that reads its figures, so none can be listed without being served, and none
//! served without being listed.

mod exporter;
mod host;
mod owner;
mod process;

use super::families::Points;
use crate::sample::Exposed;

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up while the exporter runs.
    Counter,
    /// Always 1: a gauge whose labels are what it has to say.
    Info,
}

impl Kind {
    /// The type as it is exposed.
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Gauge | Self::Info => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// What a metric counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, never pages.
    Bytes,
    /// Seconds.
    Seconds,
    /// Things, or a yes or no.
    None,
}

impl Unit {
    /// How a name says it.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Bytes => "_bytes",
            Self::Seconds => "_seconds",
            Self::None => "",
        }
    }
}

/// What a label can say.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// These, all of them always present.
    Closed(fn() -> Vec<&'static str>),
    /// Whatever the host has; a description.
    Open(&'static str),
}

/// A label value that stands for one figure of several, and how to read it.
type Choice<T> = (&'static str, fn(&T) -> u64);

/// A label of a metric.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

impl Label {
    const fn closed(name: &'static str, values: fn() -> Vec<&'static str>) -> Self {
        Self { name, values: Values::Closed(values) }
    }

    const fn open(name: &'static str, description: &'static str) -> Self {
        Self { name, values: Values::Open(description) }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Full name as exposed, unit and `_total` included.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it counts in.
    pub unit: Unit,
    /// Its labels, in the order they are exposed.
    pub labels: &'static [Label],
    /// One sentence without its full stop: the kernel's file and field, and what to know when reading the figure.
    /// Plain text: nothing in it needs escaping in either format.
    pub help: &'static str,
    /// Reads its figures.
    pub(super) read: for<'a> fn(&'a Exposed, &mut Points<'a>),
}

impl Metric {
    /// The name without `_total` and unit, which prometheus-client appends itself.
    pub fn stem(&self) -> &'static str {
        let name = match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Info => self.name,
        };
        name.strip_suffix(self.unit.suffix()).unwrap_or(name)
    }
}

/// Metrics that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// Heading.
    pub title: &'static str,
    /// What holds for all of them; Markdown.
    pub about: &'static str,
    /// The metrics, in the order they are exposed.
    pub metrics: &'static [Metric],
}

/// The table.
pub static GROUPS: [Group; 5] =
    [host::GROUP, owner::GROUP, process::GROUP, owner::CGROUP_GROUP, exporter::GROUP];

/// Every metric, in the order they are exposed.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    GROUPS.iter().flat_map(|group| group.metrics)
}
