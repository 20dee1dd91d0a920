//! The alerts, their runbooks and their document fit each other and the metrics there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use skmem_exporter::metrics::catalog::{self, Values};

#[path = "support/proven.rs"]
mod proven;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const RULES: &str = "alerts/skmem.rules.yml";
const RUNBOOKS: &str = "https://example.com/skmem-exporter/docs/runbooks/";
const DASHBOARD: &str = "https://example.com/grafana/d/skmem";
/// Labels that Prometheus adds to whatever it scrapes, and the alerts' own.
const TARGET_LABELS: [&str; 2] = ["instance", "job"];

#[derive(Deserialize)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: Option<String>,
    record: Option<String>,
    expr: String,
    #[serde(rename = "for")]
    lasting: Option<String>,
    keep_firing_for: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rules() -> Vec<Rule> {
    let file: File = serde_saphyr::from_str(&read(RULES)).expect("rules");
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// Alerts with their names.
fn alerts() -> Vec<(String, Rule)> {
    let alerts: Vec<_> = rules().into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule))).collect();
    assert!(alerts.len() > 20, "the search works");
    alerts
}

fn thresholds() -> Vec<String> {
    let names = rules().into_iter().filter_map(|rule| rule.record);
    names.filter(|name| name.starts_with("skmem:threshold:")).collect()
}

#[test]
fn every_alert_says_what_it_has_to() {
    for (name, rule) in alerts() {
        assert!(name.starts_with("Skmem"), "{name}");
        let labels: Vec<_> =
            rule.labels.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
        assert!(matches!(labels[..], [("severity", "warning" | "critical")]), "{name}: {labels:?}");
        let keys: Vec<_> = rule.annotations.keys().map(String::as_str).collect();
        assert_eq!(keys, ["dashboard_url", "description", "runbook_url", "summary"], "{name}");
        let summary = &rule.annotations["summary"];
        assert!(summary.starts_with(|first: char| first.is_ascii_uppercase()), "{name}: {summary}");
        assert!(summary.ends_with('.') && !summary.contains("{{"), "{name}: {summary}");
        assert_eq!(summary.matches(". ").count(), 0, "{name}: one sentence");
        assert_eq!(rule.annotations["runbook_url"], format!("{RUNBOOKS}{name}.md"));
        assert!(rule.annotations["dashboard_url"].starts_with(DASHBOARD), "{name}");
    }
}

#[test]
fn alerts_of_one_name_differ_in_severity_only() {
    let mut seen: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for (name, rule) in alerts() {
        let both = (rule.labels["severity"].clone(), rule.annotations["summary"].clone());
        seen.entry(name).or_default().push(both);
    }
    for (name, rules) in seen {
        let severities: BTreeSet<_> = rules.iter().map(|(severity, _)| severity).collect();
        let summaries: BTreeSet<_> = rules.iter().map(|(_, summary)| summary).collect();
        assert_eq!((severities.len(), summaries.len()), (rules.len(), 1), "{name}");
    }
}

#[test]
fn alerts_and_runbooks_are_the_same() {
    let named: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    let mut written = BTreeSet::new();
    for entry in fs::read_dir(Path::new(ROOT).join("docs/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let mut is_code = false;
        let headings: Vec<_> = text
            .lines()
            .filter(|line| {
                is_code ^= line.trim_start().starts_with("```");
                !is_code && line.starts_with('#')
            })
            .collect();
        let expected = [&format!("# {name}"), "## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];
        assert_eq!(headings, expected, "{name}");
        assert!(text.lines().count() <= 80, "{name} is short enough to be read at night");
        written.insert(name);
    }
    assert_eq!(named, written);
}

/// The words of a query: names of metrics, labels, functions.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_ascii_alphanumeric() || "_:".contains(letter)))
        .map(|word| word.trim_end_matches(':'))
        .filter(|word| !word.is_empty())
}

/// Label, operator and value of each matcher between braces.
fn matchers(text: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    text.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()).map(|matcher| {
        let start = matcher.find(['=', '!']).unwrap_or_else(|| panic!("a matcher: {matcher}"));
        let (label, rest) = matcher.split_at(start);
        let operator = &rest[..rest.find(['"', '\'', '%']).expect("a value")];
        (label.trim(), operator.trim(), rest[operator.len()..].trim().trim_matches(['"', '\'']))
    })
}

#[test]
fn rules_use_what_there_is() {
    let recorded: BTreeSet<String> = rules().into_iter().filter_map(|rule| rule.record).collect();
    let every_label: BTreeSet<&str> = catalog::all()
        .flat_map(|metric| metric.labels.iter().map(|label| label.name))
        .chain(TARGET_LABELS)
        .collect();
    let (mut names_seen, mut matchers_seen) = (0, 0);
    for rule in rules() {
        for text in std::iter::once(&rule.expr).chain(rule.annotations.get("description")) {
            for word in words(text) {
                if word.contains(':') && word.contains("skmem") {
                    assert!(recorded.contains(word), "{word} is recorded nowhere");
                } else if word.starts_with("skmem_") || word.starts_with("process_") {
                    names_seen += 1;
                    let metric = catalog::all().find(|metric| metric.name == word);
                    let metric = metric.unwrap_or_else(|| panic!("{word} is no metric"));
                    for after in text.split(word).skip(1).filter_map(|after| after.strip_prefix('{')) {
                        let Some((selector, _)) = after.split_once('}') else { continue };
                        for (label, operator, value) in matchers(selector) {
                            matchers_seen += 1;
                            check_matcher(metric, label, operator, value);
                        }
                    }
                }
            }
        }
        for grouping in ["without (", "ignoring (", "by (", "on (", "group_left ("] {
            for after in rule.expr.split(grouping).skip(1) {
                for label in words(after.split_once(')').unwrap().0) {
                    assert!(every_label.contains(label), "{label} in {}", rule.expr);
                }
            }
        }
    }
    assert!(names_seen > 100 && matchers_seen > 60, "the search works: {names_seen}, {matchers_seen}");
}

fn check_matcher(metric: &catalog::Metric, label: &str, operator: &str, value: &str) {
    if TARGET_LABELS.contains(&label) {
        return;
    }
    let known = metric.labels.iter().find(|known| known.name == label);
    let known = known.unwrap_or_else(|| panic!("{} has no label {label}", metric.name));
    if let Values::Closed(values) = known.values
        && !value.starts_with("%q")
    {
        for value in value.split(|letter| operator.contains('~') && letter == '|') {
            assert!(values().contains(&value), "{}: {label} is never {value}", metric.name);
        }
    }
}

/// Each alert with its severity and its time stands in the table once, and nothing else does; so do the thresholds.
#[test]
fn the_document_lists_every_alert_and_threshold() {
    let text = read("docs/alerts.md");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let told: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("| Skmem"))
        .map(|line| (cells(line)[1].clone(), cells(line)[2].clone(), cells(line)[3].clone()))
        .collect();
    let there: Vec<_> = alerts()
        .into_iter()
        .map(|(name, rule)| {
            (name, rule.labels["severity"][..1].to_owned(), rule.lasting.unwrap_or("0m".to_owned()))
        })
        .collect();
    assert_eq!(told, there);

    let told: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("| `skmem:threshold:"))
        .map(|line| (cells(line)[1].trim_matches('`').to_owned(), format!("vector({})", cells(line)[2])))
        .collect();
    let there: Vec<_> = rules().into_iter().filter_map(|rule| Some((rule.record?, rule.expr))).collect();
    let there: Vec<_> = there.into_iter().filter(|(name, _)| name.starts_with("skmem:threshold:")).collect();
    assert_eq!(told, there);
}

#[test]
fn every_threshold_is_used() {
    let alerts = alerts();
    for threshold in thresholds() {
        let uses = alerts.iter().filter(|(name, rule)| {
            name != "SkmemThresholdMissing" && words(&rule.expr).any(|word| word == threshold)
        });
        assert!(uses.count() > 0, "{threshold}");
    }
}

fn promtool(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("promtool").args(arguments).output().expect("promtool");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// An alert that compares with nothing is silent for ever: that must be told.
#[test]
fn a_threshold_that_is_lost_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let text = read(RULES);
    let mut tests = Vec::new();
    for (index, threshold) in thresholds().iter().enumerate() {
        let without: Vec<_> =
            text.lines().filter(|line| !line.contains(&format!("record: {threshold},"))).collect();
        assert_eq!(without.len() + 1, text.lines().count(), "{threshold}");
        let rules = format!("{index}.rules.yml");
        fs::write(directory.path().join(&rules), without.join("\n")).unwrap();
        let annotations = &alerts().into_iter().find(|(name, _)| name == "SkmemThresholdMissing").unwrap().1;
        let case = serde_json::json!({
            "rule_files": [rules],
            "evaluation_interval": "1m",
            "tests": [{ "interval": "1m", "input_series": [], "alert_rule_test": [
                { "eval_time": "9m", "alertname": "SkmemThresholdMissing", "exp_alerts": [] },
                { "eval_time": "11m", "alertname": "SkmemThresholdMissing", "exp_alerts": [{
                    "exp_labels": { "severity": "warning" },
                    "exp_annotations": annotations.annotations,
                }] },
            ] }],
        });
        let path = directory.path().join(format!("{index}.test.yml"));
        fs::write(&path, case.to_string()).unwrap();
        tests.push(path.to_str().unwrap().to_owned());
    }
    let arguments: Vec<&str> =
        ["test", "rules"].into_iter().chain(tests.iter().map(String::as_str)).collect();
    let (is_well, output) = promtool(&arguments);
    assert!(is_well, "{output}");
}

/// The document says that a trial may turn minutes into seconds.
#[test]
fn all_times_are_in_minutes() {
    for rule in rules() {
        let ranges =
            rule.expr.split('[').skip(1).filter_map(|rest| rest.split_once(']')).map(|(range, _)| range);
        let offsets =
            rule.expr.split("offset ").skip(1).filter_map(|rest| rest.split([')', '\n', ' ']).next());
        let times =
            ranges.chain(offsets).chain(rule.lasting.as_deref()).chain(rule.keep_firing_for.as_deref());
        for time in times {
            let number = time.strip_suffix('m').unwrap_or_else(|| panic!("{time} in {}", rule.expr));
            assert!(number.parse::<u32>().is_ok(), "{time} in {}", rule.expr);
        }
    }
}

#[test]
fn every_alert_is_provoked() {
    let tried = proven::PROVEN.iter().map(|proof| (proof.alert.to_owned(), proof.severity.to_owned()));
    let alerts = alerts().into_iter().map(|(name, rule)| (name, rule.labels["severity"].clone()));
    assert_eq!(alerts.collect::<BTreeSet<_>>(), tried.collect());
    let document = read("docs/alerts.md");
    let missing: Vec<_> = proven::PROVEN.iter().filter(|proof| !document.contains(&proof.row())).collect();
    assert!(missing.is_empty(), "docs/alerts.md lacks {missing:#?}");
}
