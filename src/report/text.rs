//! The report in a terminal. Pure: the verdict first, then what it rests on.
//!
//! No line is wider than the style says, whatever names and addresses come; what does not fit is cut where `…` stands, and the
//! JSON has it whole. Only a command may be wider, where a single word of it is (see [`page`]). Every text of the report
//! is made printable first: names are chosen by those the report accuses.

mod findings;
mod host;
mod page;
mod tables;

use std::time::{Duration, SystemTime};

use super::{Mode, Report};
use crate::finding::Severity;
use crate::human;
use page::{Page, Tint};

/// Widest line: what fits beside another window, and into a mail.
pub const WIDTH_MAX: usize = 100;
/// Narrowest: below this the tables fall apart.
pub const WIDTH_MIN: usize = 60;

/// Processes shown of a host with nothing wrong.
const CALM_PROCESSES: usize = 5;
/// Processes shown otherwise; those with a finding come first.
const PROCESSES: usize = 15;
/// Connections shown.
const CONNECTIONS: usize = 8;

/// What the reader's terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// SGR colours. Nothing is said by colour alone.
    pub colour: bool,
    /// Characters beyond ASCII.
    pub unicode: bool,
    /// Columns, from [`WIDTH_MIN`] to [`WIDTH_MAX`].
    pub width: usize,
}

/// The report as text, ending in a newline.
pub fn render(report: &Report, style: Style) -> String {
    let mut page = Page::new(style);
    let (tint, word) = worst(report);
    // Where little is seen, little is found: calm must not be mistaken for knowledge.
    let is_partly_blind = report.findings.is_empty() && !report.blind_spots.is_empty();
    let but = if is_partly_blind { " Not everything could be seen: see below." } else { "" };
    page.hang(0, (tint, &format!("{word}  ")), Tint::Strong, &format!("{}{but}", report.verdict));
    if report.timestamp.is_some() {
        host::render(&mut page, report);
        findings::render(&mut page, report);
        let most = if report.findings.is_empty() { CALM_PROCESSES } else { PROCESSES };
        tables::processes(&mut page, report, most);
        if !report.findings.is_empty() {
            tables::connections(&mut page, report, CONNECTIONS);
        }
    }
    blind_spots(&mut page, report);
    footer(&mut page, report);
    page.finish()
}

/// The worst there is, as a word.
fn worst(report: &Report) -> (Tint, &'static str) {
    match report.findings.iter().map(|finding| finding.severity).min() {
        Some(severity) => severity_word(severity),
        None if report.timestamp.is_none() => (Tint::Warning, "UNKNOWN"),
        None => (Tint::Good, "OK"),
    }
}

fn severity_word(severity: Severity) -> (Tint, &'static str) {
    match severity {
        Severity::Critical => (Tint::Critical, "CRITICAL"),
        Severity::Warning => (Tint::Warning, "WARNING"),
        Severity::Notice => (Tint::Notice, "NOTICE"),
    }
}

fn blind_spots(page: &mut Page, report: &Report) {
    if report.blind_spots.is_empty() {
        return;
    }
    page.heading("Not seen");
    for spot in &report.blind_spots {
        let what = spot.what.trim_end_matches('.');
        let cure = spot.cure.as_ref().map(|cure| format!(": {cure}")).unwrap_or_default();
        page.bullet(2, &format!("{what}{cure}."));
    }
}

fn footer(page: &mut Page, report: &Report) {
    let watch = report.watch;
    let who = match report.generator.mode {
        Mode::Daemon => "Asked of the daemon on this host, which has watched it",
        Mode::Diagnose => "Watched this host",
    };
    let text = format!(
        "{who} for {} in {}, every {}; what has not moved for {} counts as stalled. {} {}.",
        seconds(watch.seconds),
        human::count(watch.samples, "sample"),
        seconds(watch.interval_seconds),
        seconds(watch.stall_after_seconds),
        report.generator.name,
        report.generator.version,
    );
    page.blank();
    page.hang(0, (Tint::Plain, ""), Tint::Quiet, &text);
    let mut notes = Vec::new();
    if report.are_addresses_hidden {
        notes.push("Addresses are hidden from this reader.");
    }
    if page.has_cut() {
        notes.push("What is cut short or left out here is whole with --format json.");
    }
    if !notes.is_empty() {
        page.hang(0, (Tint::Plain, ""), Tint::Quiet, &notes.join(" "));
    }
}

/// Seconds as people say them; tenths only where they are a good part of it.
fn seconds(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let tenths = (duration.as_millis() + 50) / 100;
    if (10..600).contains(&tenths) && !tenths.is_multiple_of(10) {
        return format!("{}.{}s", tenths / 10, tenths % 10);
    }
    // An hour by the clock may be a millisecond short.
    human::duration(Duration::try_from_secs_f64((seconds * 10.0).round() / 10.0).unwrap_or_default())
}

/// The first second of the year 10000, which no calendar here can write.
const END_OF_TIME: f64 = 253_402_300_800.0;

/// Seconds since the epoch as `2026-11-23 01:10:11 UTC`.
fn utc(timestamp: f64) -> String {
    let since = Duration::try_from_secs_f64(timestamp).ok().filter(|_| timestamp < END_OF_TIME);
    since.map_or_else(
        || "an unknown time".to_owned(),
        |since| {
            let text = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string();
            text.replace('T', " ").replace('Z', " UTC")
        },
    )
}
