//! The state of the host in one word, one colour and one sign.

use maud::{Markup, PreEscaped};

use crate::finding::Severity;
use crate::report::Report;

/// What the banner says, the page's title too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There is a finding, the worst of this severity.
    Found(Severity),
    /// No finding, after watching for long enough.
    Healthy,
    /// No finding yet; a stall would not have shown.
    Watching,
    /// No complete sample.
    Unknown,
}

impl State {
    pub(super) fn of(report: &Report) -> Self {
        let watch = &report.watch;
        match report.findings.iter().map(|finding| finding.severity).min() {
            Some(severity) => Self::Found(severity),
            None if report.timestamp.is_none() => Self::Unknown,
            None if watch.seconds < watch.stall_after_seconds => Self::Watching,
            None => Self::Healthy,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Found(Severity::Critical) => "Critical",
            Self::Found(Severity::Warning) => "Warning",
            Self::Found(Severity::Notice) => "Notice",
            Self::Healthy => "Healthy",
            Self::Watching => "Nothing so far",
            Self::Unknown => "Not known yet",
        }
    }

    /// Class in the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Found(severity) => severity.label(),
            Self::Healthy => "healthy",
            Self::Watching => "watching",
            Self::Unknown => "unknown",
        }
    }

    /// A sign whose shape tells the states apart without colour.
    pub(super) fn sign(self) -> Markup {
        let drawn = match self {
            Self::Found(Severity::Critical) => {
                r#"<path class="shape" d="M7.5 1h9L23 7.5v9L16.5 23h-9L1 16.5v-9z"/><path class="mark" d="M8 8l8 8M16 8l-8 8"/>"#
            }
            Self::Found(Severity::Warning) => {
                r#"<path class="shape" d="M12 1.5L23.5 22H.5z"/><path class="mark" d="M12 8.5v6.5M12 18.5v.1"/>"#
            }
            Self::Found(Severity::Notice) => {
                r#"<circle class="shape" cx="12" cy="12" r="11"/><path class="mark" d="M12 6.5v.1M12 11v6.5"/>"#
            }
            Self::Healthy => {
                r#"<circle class="shape" cx="12" cy="12" r="11"/><path class="mark" d="M7 12.5l3.5 3.5 6.5-7.5"/>"#
            }
            Self::Watching | Self::Unknown => {
                r#"<circle class="shape" cx="12" cy="12" r="11"/><path class="mark" d="M12 6v6.5l4 2.5"/>"#
            }
        };
        PreEscaped(format!(r#"<svg class="sign" viewBox="0 0 24 24" aria-hidden="true">{drawn}</svg>"#))
    }
}
