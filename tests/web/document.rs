//! docs/web.md: its examples, and its numbers.

use std::time::Duration;

use skmem_exporter::http::limits;
use skmem_exporter::sample::Refusal;

const DOCUMENT: &str = include_str!("../../docs/web.md");

/// The example that begins with the comment `title`.
#[track_caller]
pub fn example(title: &str) -> String {
    let first = format!("# {title}");
    let mut blocks = DOCUMENT.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let found = blocks.find(|(_, block)| block.lines().next() == Some(&first));
    format!("{}\n", found.unwrap_or_else(|| panic!("no example {title}")).1)
}

/// The first lines of all examples of a language.
fn titles(language: &str) -> Vec<&'static str> {
    let blocks = DOCUMENT.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    blocks.filter(|(of, _)| *of == language).filter_map(|(_, block)| block.lines().next()).collect()
}

#[test]
fn limits_are_those_of_the_code() {
    let seconds = |time: Duration| format!("{} s", time.as_secs());
    let kibibytes = limits::MAX_HEADER_BYTES / 1024;
    assert_eq!(limits::DESCRIPTOR_SHARE, 2, "the document says half");
    for (what, number, reason) in [
        ("open connections", limits::MAX_CONNECTIONS.to_string(), "over_max_connections"),
        ("scrapes, reports and pages at once", "40".to_owned(), "over_max_requests"),
        ("time for the TLS handshake", seconds(limits::HANDSHAKE_TIMEOUT), "tls_handshake"),
        ("time for a request's headers", seconds(limits::HEADER_TIMEOUT), "header_timeout"),
        ("time for the whole answer", seconds(limits::RESPONSE_TIMEOUT), "response_timeout"),
        ("time between requests", seconds(limits::IDLE_TIMEOUT), "not: "),
        ("size of a request's headers", format!("{kibibytes} KiB"), "header_too_large"),
        ("headers in a request", limits::MAX_HEADERS.to_string(), "header_too_large"),
        ("streams at once on an HTTP/2 connection", limits::MAX_STREAMS.to_string(), "not: "),
        ("passwords waiting to be checked", limits::MAX_WAITING_LOGINS.to_string(), "over_waiting_logins"),
    ] {
        let start = format!("| {what} | {number} | ");
        let row = DOCUMENT.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start}"));
        let counted = row.trim_end_matches(" |").rsplit("| ").next().unwrap().trim_matches('`');
        assert!(counted.starts_with(reason), "{row}");
    }
    for reason in Refusal::ALL.map(Refusal::label) {
        assert!(DOCUMENT.contains(&format!("`{reason}`")), "{reason} is not explained");
    }
    let default = skmem_exporter::http::Settings::default().max_requests;
    assert_eq!(default, 40);
}

#[test]
fn every_example_is_known_to_a_test() {
    // Whoever adds one adds a test that uses it.
    let mut known: Vec<String> = crate::site::CONFIGS.map(|title| format!("# web.yml: {title}")).to_vec();
    known.push("# prometheus.yml".to_owned());
    assert_eq!(titles("yaml"), known);
    let scripts = titles("sh");
    assert_eq!(scripts.len(), 5, "{scripts:?}");
}
