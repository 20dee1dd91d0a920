//! Numbers as people read them: in findings, in the terminal, on the page.

use std::time::Duration;

use bytesize::ByteSize;

/// Bytes in powers of 1024: `12.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// The same with a sign where it is below zero.
pub fn signed_bytes(number: i64) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, bytes(number.unsigned_abs()))
}

/// A duration in its two largest units: `1h 5m`, `3m 20s`, `7s`; below a second in milliseconds.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let rounded = match seconds {
        0 => Duration::from_millis(duration.subsec_millis().into()),
        1..3600 => Duration::from_secs(seconds),
        3600..86_400 => Duration::from_secs(seconds / 60 * 60),
        _ => Duration::from_secs(seconds / 3600 * 3600),
    };
    humantime::format_duration(rounded).to_string()
}

/// A count and its noun: `1 connection`, `3 connections`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A part of a whole as a percentage; `None` of nothing. A part above nothing never shows as 0 %.
pub fn percent(part: u64, whole: u64) -> Option<String> {
    if whole == 0 {
        return None;
    }
    let percent = part as f64 * 100.0 / whole as f64;
    Some(match percent {
        0.0 => "0 %".to_owned(),
        ..0.1 => "< 0.1 %".to_owned(),
        ..10.0 => format!("{percent:.1} %"),
        _ => format!("{percent:.0} %"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_in_powers_of_1024() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(signed_bytes(-(3 << 20)), "-3.0 MiB");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let said = |millis| duration(Duration::from_millis(millis));
        assert_eq!(said(250), "250ms");
        assert_eq!(said(7_900), "7s");
        assert_eq!(said(200_000), "3m 20s");
        assert_eq!(said(3_907_000), "1h 5m");
        assert_eq!(said(93_600_000 + 61_000), "1day 2h");
    }

    #[test]
    fn parts() {
        assert_eq!(percent(1, 0), None);
        assert_eq!(percent(0, 9).unwrap(), "0 %");
        assert_eq!(percent(1, 1_000_000).unwrap(), "< 0.1 %");
        assert_eq!(percent(1, 64).unwrap(), "1.6 %");
        assert_eq!(percent(3, 4).unwrap(), "75 %");
        assert_eq!((count(1, "socket"), count(0, "socket")), ("1 socket".to_owned(), "0 sockets".to_owned()));
    }
}
