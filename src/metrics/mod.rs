//! The metrics: what they are called ([`catalog`]), what a sample says of each ([`families()`]), and the two text
//! formats they are served in ([`render`]).
//!
//! Everything here is pure: an [`Exposed`] goes in, text comes out, and the same `Exposed` always gives the same text.

pub mod catalog;
mod classic;
mod families;
mod openmetrics;

pub use families::{Family, Number, Point, families};

use crate::sample::Exposed;

/// A text format a scrape can be answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4: for every scraper that does not ask for OpenMetrics, and for people with curl.
    Classic,
}

/// The whole exposition of `exposed` in `format`.
pub fn render(exposed: &Exposed, format: Format) -> String {
    match format {
        Format::OpenMetrics => openmetrics::encode(exposed),
        Format::Classic => classic::encode(&families(exposed)),
    }
}

/// What this binary was built from: the labels of the build info metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// Version of the crate.
    pub version: &'static str,
    /// Commit of the sources, `unknown` where neither git nor the packager named it.
    pub revision: &'static str,
    /// Version of the compiler.
    pub rustc: &'static str,
}

/// What this binary was built from.
pub const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    revision: or_unknown(option_env!("SKMEM_REVISION")),
    rustc: or_unknown(option_env!("BUILT_WITH_RUSTC")),
};

/// A variable that is set to nothing says as little as one that is not set.
const fn or_unknown(value: Option<&'static str>) -> &'static str {
    match value {
        Some(value) if !value.is_empty() => value,
        _ => "unknown",
    }
}
