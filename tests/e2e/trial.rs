//! The shipped rules and routes, changed for a trial as docs/alerts.md says.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the document and the rules themselves advise, to make a second of each minute.
const MINUTES_TO_SECONDS: &str = r"s/\b([0-9]+)m\b/\1s/g";

/// Thresholds that are times: a sixtieth, as of the rest; but the samples here come each second, not four times a minute.
const THRESHOLDS: [(&str, &str); 2] = [("prediction_seconds", "240"), ("sample_age_seconds", "8")];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rules.
pub fn rules() -> String {
    assert!(read("docs/alerts.md").contains(MINUTES_TO_SECONDS), "the document advises another way");
    let mut rules = sed(MINUTES_TO_SECONDS, &read("alerts/skmem.rules.yml"));
    for (name, value) in THRESHOLDS {
        let (before, after) =
            rules.split_once(&format!("record: skmem:threshold:{name}, expr: vector(")).unwrap();
        let after = after.split_once(')').unwrap().1;
        rules = format!("{before}record: skmem:threshold:{name}, expr: vector({value}){after}");
    }
    rules
}

/// The same without one threshold.
pub fn rules_without(threshold: &str) -> String {
    let record = format!("record: skmem:threshold:{threshold},");
    let rules = rules();
    let kept: Vec<&str> = rules.lines().filter(|line| !line.contains(&record)).collect();
    assert_eq!(kept.len(), rules.lines().count() - 1, "one line has it");
    kept.join("\n") + "\n"
}

/// The routes of the example, to receivers at this address, without waiting for more of the same.
pub fn routes(webhook: SocketAddr) -> String {
    let example = read("alerts/alertmanager.example.yml");
    let with_receivers = example.replace("https://example.com/", &format!("http://{webhook}/"));
    assert_ne!(with_receivers, example);
    sed("s/(group_wait|group_interval): .*/\\1: 1s/", &with_receivers)
}

fn sed(script: &str, text: &str) -> String {
    let mut sed = Command::new("sed")
        .args(["-E", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = sed.stdin.take().unwrap();
    let input = text.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = sed.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let changed = String::from_utf8(output.stdout).unwrap();
    assert_ne!(changed, text, "sed -E '{script}' changes nothing");
    changed
}
