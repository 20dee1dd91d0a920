//! Texts and numbers as the page shows them.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};

use crate::human;

/// Bytes with the exact number beside them.
pub(super) fn bytes(number: u64) -> Markup {
    html! { data.n value=(number) title={ (grouped(number)) " bytes" } { (human::bytes(number)) } }
}

/// The same with a sign where it is below zero.
pub(super) fn signed_bytes(number: i64) -> Markup {
    let sign = if number < 0 { "-" } else { "" };
    let title = format!("{sign}{} bytes", grouped(number.unsigned_abs()));
    html! { data.n value=(number) title=(title) { (human::signed_bytes(number)) } }
}

/// A count: `199,991`.
pub(super) fn count(number: u64) -> Markup {
    html! { data.n value=(number) { (grouped(number)) } }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds as [`human::duration`] says them.
pub(super) fn seconds(seconds: f64) -> String {
    human::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Seconds since the epoch as `2026-11-23T07:20:00Z`; empty for what is no time.
pub(super) fn rfc3339(timestamp: f64) -> String {
    // The last second of year 9999, after which the format ends.
    const LAST: f64 = 253_402_300_799.0;
    let since = Duration::try_from_secs_f64(timestamp.min(LAST)).unwrap_or_default();
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

/// The time of day, `07:20:00`, in UTC.
pub(super) fn clock(timestamp: f64) -> String {
    rfc3339(timestamp).get(11..19).unwrap_or_default().to_owned()
}

/// A moment: date and time of day.
pub(super) fn at(timestamp: f64) -> Markup {
    let machine = rfc3339(timestamp);
    html! { time datetime=(machine) { (machine.replace('T', " ").replace('Z', " UTC")) } }
}

/// Since when, and for how long that was at `now`.
pub(super) fn since(timestamp: f64, now: Option<f64>) -> Markup {
    let machine = rfc3339(timestamp);
    html! {
        time datetime=(machine) title=(machine) { (clock(timestamp)) " UTC" }
        @if let Some(now) = now { " (" (seconds(now - timestamp)) ")" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(rfc3339(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(clock(1_795_389_600.9), "23:20:00");
        for odd in [f64::NAN, f64::NEG_INFINITY, -1.0, f64::INFINITY] {
            assert!(rfc3339(odd).ends_with('Z'), "{odd}");
        }
        assert_eq!(seconds(-1.0), "0s");
    }

    #[test]
    fn figures_carry_their_exact_value() {
        let text = signed_bytes(-1536).into_string();
        assert_eq!(text, "<data class=\"n\" value=\"-1536\" title=\"-1,536 bytes\">-1.5 KiB</data>");
    }
}
