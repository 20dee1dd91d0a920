//! Numbers as people read them: in findings, in the terminal, on the page.

use std::borrow::Cow;
use std::fmt::Write as _;
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

/// A duration in its two largest units: `2d 3h`, `1h 5m`, `3m 20s`, `7s`; below a second in milliseconds.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (large, unit, small, smaller) = match seconds {
        0 if duration.is_zero() => return "0s".to_owned(),
        0 => return format!("{}ms", duration.subsec_millis()),
        1..60 => return format!("{seconds}s"),
        60..3600 => (seconds / 60, 'm', seconds % 60, 's'),
        3600..86_400 => (seconds / 3600, 'h', seconds / 60 % 60, 'm'),
        _ => (seconds / 86_400, 'd', seconds / 3600 % 24, 'h'),
    };
    if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit} {small}{smaller}") }
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

/// A text from somebody else, fit to be shown: what would steer a terminal, hide or reorder what stands beside it is
/// written as `\x1b` or `\u{202e}`. Process names, cgroups and hostnames are chosen by whoever runs them.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(misleads) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for one in text.chars() {
        // Writing to a string cannot fail.
        let _ = match u32::from(one) {
            _ if !misleads(one) => write!(shown, "{one}"),
            number @ 0..=0xff => write!(shown, "\\x{number:02x}"),
            number => write!(shown, "\\u{{{number:x}}}"),
        };
    }
    Cow::Owned(shown)
}

/// Characters that do something other than stand there: controls, line separators, those that change the direction of text,
/// join or vary their neighbours, and those that nobody sees. First and last of each range.
const MISLEADING: [(char, char); 22] = [
    ('\0', '\u{1f}'),
    ('\u{7f}', '\u{9f}'),
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Whether a character is one of those.
pub fn misleads(one: char) -> bool {
    MISLEADING.iter().any(|(first, last)| (*first..=*last).contains(&one))
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
        assert_eq!(said(93_600_000 + 61_000), "1d 2h");
        assert_eq!((said(60_000), said(86_400_000)), ("1m".to_owned(), "1d".to_owned()));
        assert_eq!(said(0), "0s");
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

    #[test]
    fn what_would_mislead_is_written_out() {
        assert!(matches!(printable("nginx: worker é 網"), Cow::Borrowed("nginx: worker é 網")));
        assert_eq!(printable("a\x1b[2Jb\r\n\t\u{9b}"), "a\\x1b[2Jb\\x0d\\x0a\\x09\\x9b");
        assert_eq!(printable("\u{202e}sh.exe\u{2066}\u{200b}"), "\\u{202e}sh.exe\\u{2066}\\u{200b}");
        assert_eq!(printable("\u{7f}\u{2028}\u{e0041}"), "\\x7f\\u{2028}\\u{e0041}");
        assert_eq!(printable(&printable("\x1b")), "\\x1b", "twice is once");
    }
}
