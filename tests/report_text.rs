//! The report in a terminal: what it looks like, and what it never does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/metrics/golden.rs"]
mod golden;
#[path = "support/reports.rs"]
mod reports;

use std::process::Command;

use proptest::prelude::*;
use skmem_exporter::human::misleads;
use skmem_exporter::report::Report;
use skmem_exporter::report::text::{Style, WIDTH_MAX, WIDTH_MIN, render};
use unicode_width::UnicodeWidthStr;

const PLAIN: Style = Style { colour: false, unicode: true, width: 100 };
const COLOURED: Style = Style { colour: true, ..PLAIN };
const NARROW: Style = Style { unicode: false, width: 72, ..PLAIN };

const REPORTS: [fn() -> Report; 7] = [
    reports::healthy,
    reports::not_reading,
    reports::pressure,
    reports::hostile,
    reports::many,
    reports::nothing,
    reports::unreadable,
];

#[test]
fn looks_as_it_did() {
    let check = |name: &str, report: &Report, style: Style| {
        golden::check(&format!("tests/golden/report_{name}.txt"), &render(report, style));
    };
    check("healthy", &reports::healthy(), PLAIN);
    check("not_reading", &reports::not_reading(), PLAIN);
    check("not_reading_coloured", &reports::not_reading(), COLOURED);
    check("pressure", &reports::pressure(), PLAIN);
    check("pressure_narrow", &reports::pressure(), NARROW);
    check("hostile", &reports::hostile(), PLAIN);
    check("many", &reports::many(), PLAIN);
    check("nothing", &reports::nothing(), PLAIN);
    check("unreadable", &reports::unreadable(), PLAIN);
}

/// The text without SGR sequences, which are the only ones there may be.
fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut parts = text.split("\x1b[");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|one: char| !one.is_ascii_digit() && one != ';').unwrap_or(part.len());
        plain.push_str(part[end..].strip_prefix('m').unwrap_or("\x1b"));
    }
    plain
}

/// A single word of a command may be wider than a line: it stands alone on its own.
fn is_one_word(line: &str) -> bool {
    let word = line.trim_start().trim_end_matches(" \\");
    !word.contains(' ') || word.contains(['\'', '"', '\\'])
}

fn check(report: &Report, style: Style) -> Result<(), String> {
    let text = render(report, style);
    let plain = without_colours(&text);
    if !style.colour && plain != text {
        return Err("a colour".to_owned());
    }
    if let Some(one) = plain.chars().find(|one| *one != '\n' && misleads(*one)) {
        return Err(format!("{one:?} in {plain}"));
    }
    if !style.unicode && !plain.is_ascii() {
        return Err(format!("not ASCII: {plain}"));
    }
    if !plain.ends_with('\n') || plain.lines().any(|line| line.ends_with(' ')) {
        return Err(format!("white space: {plain}"));
    }
    match plain.lines().find(|line| line.width() > style.width && !is_one_word(line)) {
        Some(line) => Err(format!("{} columns: {line}", line.width())),
        None => Ok(()),
    }
}

#[test]
fn fits_and_is_clean_in_every_terminal() {
    for report in REPORTS {
        for width in WIDTH_MIN..=WIDTH_MAX {
            for (colour, unicode) in [(true, true), (true, false), (false, true), (false, false)] {
                check(&report(), Style { colour, unicode, width }).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn fits_and_is_clean_whatever_the_names(
        which in 0..REPORTS.len(),
        text in prop_oneof!["\\PC{0,40}", any::<String>(), "[ -~]{0,200}", "[\\x00-\\xff]{0,40}"],
        width in WIDTH_MIN..=WIDTH_MAX,
        colour in any::<bool>(),
        unicode in any::<bool>(),
    ) {
        let report = reports::defile(REPORTS[which](), &text);
        prop_assert_eq!(check(&report, Style { colour, unicode, width }), Ok(()));
    }

    #[test]
    fn no_number_makes_it_panic(
        seconds in any::<f64>(),
        bytes in any::<i64>(),
        count in any::<u64>(),
    ) {
        let mut report = reports::pressure();
        report.timestamp = Some(seconds);
        report.watch.seconds = seconds;
        report.watch.stall_after_seconds = seconds;
        report.host.tcp_memory_bytes = Some(count);
        report.host.orphan_sockets_limit = Some(count);
        report.host.held.unattributed_bytes = Some(bytes);
        report.history = reports::healthy().history;
        report.history[3].timestamp = seconds;
        report.history[60].timestamp = seconds;
        for finding in &mut report.findings {
            finding.since = Some(seconds);
            finding.memory_bytes = bytes;
        }
        for process in &mut report.processes {
            process.memory_bytes = bytes;
            process.stalled_since = Some(-seconds);
        }
        prop_assert_eq!(check(&report, PLAIN), Ok(()));
    }
}

/// The lines of the command that begins so, as they would be copied.
fn copied(text: &str, beginning: &str) -> String {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with(beginning));
    let mut command = String::new();
    for line in lines.by_ref() {
        command.push_str(line);
        command.push('\n');
        if !line.ends_with('\\') {
            break;
        }
    }
    command
}

#[test]
fn a_broken_command_is_the_same_to_the_shell() {
    let mut report = reports::not_reading();
    let words = "'one  two' \"three \\\" four\" five\\ six $(printf '%s ' seven eight) nine";
    let command = format!("printf '%s|' {}", [words; 4].join(" "));
    report.findings[0].advice[0].command = Some(command.clone());
    let shown = render(&report, PLAIN);
    let copied = copied(&shown, "printf");
    assert!(copied.lines().count() > 2, "{copied}");
    let run = |script: &str| Command::new("sh").args(["-c", script]).output().unwrap().stdout;
    assert_eq!(run(&copied), run(&command), "{copied}");
    assert!(
        String::from_utf8(run(&command))
            .unwrap()
            .starts_with("one  two|three \" four|five six|seven|eight|nine|")
    );
}

#[test]
fn the_verdict_comes_first_and_once() {
    for report in [reports::not_reading(), reports::pressure(), reports::many()] {
        let text = without_colours(&render(&report, COLOURED));
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (text, verdict) = (words(&text), words(&report.verdict));
        assert!(text.split_once(' ').unwrap().1.starts_with(&verdict), "{text}");
        assert_eq!(text.matches(&verdict).count(), 1, "{text}");
    }
}

#[test]
fn calm_where_nothing_is_wrong() {
    let lines = render(&reports::healthy(), PLAIN).lines().count();
    assert!(lines <= 22, "{lines} lines");
}
