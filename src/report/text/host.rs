//! The host against its limits.

use std::fmt::Write as _;

use super::page::{Page, Tint};
use super::utc;
use crate::human;
use crate::report::{HostReport, Report};

/// Columns of a bar.
const BAR: usize = 24;
/// Columns of the names before it.
const NAME: usize = 12;
/// Part of the maximum that is as good as all of it, in tenths.
const NEAR_MAX_TENTHS: u64 = 9;
/// Watched for less, a host has no history to speak of. Seconds.
const HISTORY_MIN: f64 = 60.0;

pub fn render(page: &mut Page, report: &Report) {
    let host = &report.host;
    let when = report.timestamp.map_or_else(String::new, |timestamp| format!(", {}", utc(timestamp)));
    page.heading(&format!("Host {}{when}", report.hostname));
    memory(page, host);
    orphans(page, host);
    line(page, "Sockets", &sockets(host));
    line(page, "Held by", &held(host));
    history(page, report);
}

fn line(page: &mut Page, name: &str, text: &str) {
    page.hang(2, (Tint::Plain, &format!("{name:NAME$}")), Tint::Plain, text);
}

/// A name, a bar in a colour and what it means; the bar is not wrapped.
fn bar_line(page: &mut Page, name: &str, (tint, part, whole): (Tint, u64, u64), text: &str) {
    let bar = bar(page, part, whole);
    page.hang_bar(2, &format!("{name:NAME$}"), (tint, &bar), text);
}

/// `part` of `whole` as a bar; what is more than nothing shows.
fn bar(page: &Page, part: u64, whole: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let all = (BAR as u128) * 8;
    let share = u128::from(part) * all / u128::from(whole.max(1));
    let share = share.clamp(u128::from(part > 0), all);
    let (full, rest) = (share / 8, share % 8);
    let cells = |count: u128, cell: &str| cell.repeat(usize::try_from(count).unwrap_or(0));
    let part_cell = match rest {
        0 => "",
        _ => page.glyph(EIGHTHS[usize::try_from(rest).unwrap_or(0)], "#"),
    };
    let empty = (BAR as u128) - full - u128::from(rest > 0);
    format!("{}{part_cell}{}", cells(full, page.glyph("█", "#")), cells(empty, page.glyph("·", ".")))
}

fn memory(page: &mut Page, host: &HostReport) {
    let Some(memory) = host.tcp_memory_bytes else {
        line(page, "TCP memory", "not readable here");
        return;
    };
    let is_under_pressure = host.memory_pressure == Some(true);
    let under_pressure = if is_under_pressure { ", UNDER PRESSURE" } else { "" };
    let held = human::bytes(memory);
    let Some(limit) = host.tcp_memory_limit else {
        line(page, "TCP memory", &format!("{held}, its limits are not readable here{under_pressure}"));
        return;
    };
    let tint = if memory >= limit.max_bytes / 10 * NEAR_MAX_TENTHS {
        Tint::Critical
    } else if memory >= limit.pressure_bytes || is_under_pressure {
        Tint::Warning
    } else {
        Tint::Good
    };
    let part = human::percent(memory, limit.max_bytes).map_or_else(String::new, |part| format!(" ({part})"));
    let (max, pressure) = (human::bytes(limit.max_bytes), human::bytes(limit.pressure_bytes));
    let level = if is_under_pressure { "UNDER PRESSURE, from" } else { "pressure at" };
    let text = format!("{held} of {max} max{part}, {level} {pressure}");
    bar_line(page, "TCP memory", (tint, memory, limit.max_bytes), &text);
}

fn orphans(page: &mut Page, host: &HostReport) {
    match (host.orphan_sockets, host.orphan_sockets_limit) {
        (None, _) => line(page, "Orphans", "not readable here"),
        (Some(orphans), None) => {
            line(page, "Orphans", &format!("{orphans}, their limit is not readable here"));
        }
        (Some(orphans), Some(limit)) => {
            // From here on the kernel may reset them early.
            let tint = if orphans >= limit / 2 { Tint::Warning } else { Tint::Good };
            bar_line(page, "Orphans", (tint, orphans, limit), &format!("{orphans} of {limit} max"));
        }
    }
}

fn sockets(host: &HostReport) -> String {
    let mut states: Vec<_> = host.sockets.iter().filter(|(_, count)| **count > 0).collect();
    states.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let states: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let mut text = if states.is_empty() { "none".to_owned() } else { states.join(", ") };
    if let Some(hidden) = host.hidden_sockets.filter(|hidden| *hidden > 0) {
        // Writing to a string cannot fail.
        let _ = write!(text, ", {hidden} in no table");
    }
    text
}

fn held(host: &HostReport) -> String {
    let parts = [
        ("processes", host.held.process_bytes),
        ("accept queues", host.held.accept_queue_bytes),
        ("orphans", host.held.orphan_bytes),
        ("nobody we can see", host.held.unresolved_bytes),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(who, bytes)| *bytes != 0 || *who == "processes")
        .map(|(who, bytes)| format!("{who} {}", human::signed_bytes(bytes)))
        .collect();
    let unattributed = match (host.held.unattributed_bytes, host.held.unattributed_bound_bytes) {
        (None, _) => "unattributed: not known".to_owned(),
        (Some(bytes), None) => format!("unattributed {}", human::signed_bytes(bytes)),
        (Some(bytes), Some(bound)) => {
            let is_normal = bytes.unsigned_abs() <= bound;
            let (bytes, bound) = (human::signed_bytes(bytes), human::bytes(bound));
            if is_normal {
                format!("unattributed {bytes} (normal: {bound})")
            } else {
                format!("unattributed {bytes} (MORE than the normal {bound})")
            }
        }
    };
    format!("{}; {unattributed}", parts.join(", "))
}

/// TCP memory over the time watched, each column the most in its share of the time.
fn history(page: &mut Page, report: &Report) {
    const LEVELS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
    let known = report.history.iter().filter_map(|point| Some((point.timestamp, point.tcp_memory_bytes?)));
    let points: Vec<(f64, u64)> = known.collect();
    let (Some((began, first)), Some((ended, last))) = (points.first(), points.last()) else { return };
    let span = ended - began;
    if span.is_nan() || span < HISTORY_MIN {
        return;
    }
    let most = points.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1);
    let columns = points.len().min(BAR);
    let mut levels = vec![None::<u64>; columns];
    for (timestamp, bytes) in &points {
        // Between 0 and the number of columns; whatever is not is cut off.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let column = ((timestamp - began) / span * columns as f64) as usize;
        let level = &mut levels[column.min(columns - 1)];
        *level = (*level).max(Some(*bytes));
    }
    let text = format!(
        "{} to {} in {}, at most {}",
        human::bytes(*first),
        human::bytes(*last),
        super::seconds(span),
        human::bytes(most)
    );
    let line: String = levels
        .into_iter()
        .map(|level| {
            let height = level.map_or(0, |bytes| u128::from(bytes) * 7 / u128::from(most));
            if level.is_none() { " " } else { LEVELS[usize::try_from(height).unwrap_or(0).min(7)] }
        })
        .collect();
    // ASCII has no such blocks.
    let shown = page.glyph("x", "");
    if shown.is_empty() {
        self::line(page, "History", &text);
    } else {
        page.hang_bar(2, &format!("{:NAME$}", "History"), (Tint::Plain, &line), &text);
    }
}
