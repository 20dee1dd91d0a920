//! What the page says of a report, whatever is in it.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use skmem_exporter::finding::{Finding, Severity, Subject};
use skmem_exporter::human;
use skmem_exporter::page;
use skmem_exporter::report::{HostReport, Levels, ProcessReport, Report};
use skmem_exporter::series::{Attribution, OwnerPoint, Point};

use crate::report_fixture::{NOW, busy, process, unread};

fn render(report: &Report) -> String {
    page::render(report, "/metrics")
}

/// A host of which nothing is known yet.
pub fn nothing() -> Report {
    Report {
        timestamp: None,
        verdict: "Not known yet: there is no complete sample.".to_owned(),
        host: HostReport::default(),
        findings: Vec::new(),
        processes: Vec::new(),
        processes_truncated: 0,
        blind_spots: Vec::new(),
        history: Vec::new(),
        ..busy()
    }
}

/// A host with nothing wrong, seen once.
pub fn healthy() -> Report {
    let mut report = Report {
        timestamp: Some(NOW),
        is_healthy: true,
        verdict: "Healthy: TCP holds 169.5 MiB.".to_owned(),
        ..nothing()
    };
    report.history = busy().history.split_off(220);
    report.host.tcp_memory_bytes = Some(1 << 20);
    report
}

const HOSTILE: [&str; 6] = [
    "<script>x()</script>",
    "a\nb\tc\u{1b}[2J",
    "\u{202e}gpj.exe",
    "\"'><img src=x onerror=x()>",
    "&amp;",
    "",
];

/// Names and paths that mean harm.
pub fn hostile() -> Report {
    let mut report = busy();
    for (pid, name) in (5000..).zip(HOSTILE) {
        report.processes.push(ProcessReport {
            cgroup: format!("/{}", "x/<b>\u{2066}".repeat(512)),
            container_id: "c".repeat(4096),
            connections: vec![unread(1)],
            ..process(pid, name, 3 << 20)
        });
    }
    for point in &mut report.history {
        HOSTILE[0].clone_into(&mut point.owners[0].process);
    }
    let all = HOSTILE.join(" ");
    HOSTILE[3].clone_into(&mut report.hostname);
    report.verdict.clone_from(&all);
    report.findings[0].summary.clone_from(&all);
    report.findings[0].evidence[0].text.clone_from(&all);
    report.findings[0].advice[0].text.clone_from(&all);
    report.findings[0].advice[0].command = Some(all.clone());
    report.blind_spots[0].what.clone_from(&all);
    report.blind_spots[0].cure = Some(all);
    report
}

/// Everything at its limit: an hour of seconds, 50 processes with ten connections each, a finding for each.
pub fn large() -> Report {
    let mut report = busy();
    let worst = report.findings[0].clone();
    let pids = 1000..1050_u32;
    report.processes = pids
        .clone()
        .map(|pid| ProcessReport {
            connections: (0..10).map(unread).collect(),
            ..process(pid, &format!("worker-{pid}"), i64::from(1060 - pid) << 22)
        })
        .collect();
    report.findings = pids
        .clone()
        .map(|pid| Finding { subject: Subject::Process { pid, process: "w".to_owned() }, ..worst.clone() })
        .collect();
    let first = report.history[0].clone();
    let owners: Vec<_> = pids
        .take(8)
        .map(|pid| OwnerPoint { pid, process: "w".to_owned(), memory_bytes: 1 << 22, resident_bytes: None })
        .collect();
    report.history = (0..=3600)
        .map(|tick| Point {
            timestamp: first.timestamp + f64::from(tick),
            owners: owners.clone(),
            ..first.clone()
        })
        .collect();
    report.watch.interval_seconds = 1.0;
    report
}

/// What holds of every page.
fn check(html: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(html.matches("<script").count(), 1, "ours");
    prop_assert_eq!(html.matches("<style").count(), 1);
    prop_assert_eq!(html.matches("<img").count(), 0);
    let ours = html.split_once("<main").unwrap().1.split_once("<script>").unwrap().0;
    for forbidden in [" style=\"", " onclick=", " onload=", "=\"NaN", "=\"inf", "\"-inf", "javascript:"] {
        prop_assert!(!ours.contains(forbidden), "{}", forbidden);
    }
    let outside =
        ours.matches("href=\"").count() - ours.matches("href=\"/").count() - ours.matches("href=\"#").count();
    prop_assert_eq!(outside, 0, "no link leaves the server");
    let hidden = |one: char| {
        one.is_control()
            || ('\u{202a}'..='\u{202e}').contains(&one)
            || ('\u{2060}'..='\u{206f}').contains(&one)
    };
    prop_assert!(!ours.chars().any(|one| hidden(one) && one != '\n'), "everything can be seen");
    let ids: Vec<&str> = html.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    let different: BTreeSet<_> = ids.iter().collect();
    prop_assert_eq!(ids.len(), different.len(), "ids are unique");
    for name in
        html.split("aria-labelledby=\"").skip(1).flat_map(|rest| rest.split('"').next().unwrap().split(' '))
    {
        prop_assert!(ids.contains(&name), "nothing is called {}", name);
    }
    Ok(())
}

#[test]
fn every_page_is_sound() {
    for report in [busy(), busy().without_addresses(), nothing(), healthy(), hostile(), large()] {
        check(&render(&report)).unwrap();
    }
}

#[test]
fn says_everything_the_report_says() {
    let report = busy();
    let html = render(&report);
    let has = |text: &str| {
        let escaped =
            text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        assert!(html.contains(&escaped), "the page does not say {text:?}");
    };
    has(&report.hostname);
    has(&report.verdict);
    has("<title>Critical: db-3.example".trim_start_matches("<title>"));
    for finding in &report.findings {
        has(&finding.summary);
        has(finding.kind.label());
        finding.evidence.iter().for_each(|fact| has(&fact.text));
        for advice in &finding.advice {
            has(&advice.text);
            advice.command.iter().for_each(|command| has(command));
        }
    }
    for process in &report.processes {
        has(&human::signed_bytes(process.memory_bytes));
        has(&process.cgroup);
        for cause in &process.causes {
            has(cause.cause.label());
        }
        for connection in &process.connections {
            has(&connection.local.unwrap().to_string());
            has(&connection.remote.unwrap().to_string());
        }
        process.listeners.iter().for_each(|listener| has(&listener.local.to_string()));
        for group in process.activity.iter().flat_map(|activity| &activity.threads) {
            has(&group.wait_channel);
        }
    }
    for spot in &report.blind_spots {
        has(&spot.what);
        spot.cure.iter().for_each(|cure| has(cure));
    }
    for text in [
        "1.1 GiB",
        "1.5 GiB",
        "2.2 GiB",
        "No samples from 22:44:45 to 22:50:00 UTC",
        "full: the next is turned away",
    ] {
        has(text);
    }
    for link in ["/metrics", "/api/v1/report", "/-/healthy", "/-/ready"] {
        assert!(html.contains(&format!("href=\"{link}\"")), "{link}");
    }
    let newest = report.history.last().unwrap();
    assert!(html.contains(&format!("id=\"memory\" data-bytes=\"{}\"", newest.tcp_memory_bytes.unwrap())));
    assert!(html.contains("http-equiv=\"refresh\" content=\"15\""), "without a script it loads itself anew");
}

#[test]
fn hidden_addresses_are_not_there_and_it_says_why() {
    let html = render(&busy().without_addresses());
    assert!(!html.contains("198.51.100.7") && !html.contains("192.0.2.10"));
    assert!(html.contains("--web.config.file") && html.contains("loopback"));
    assert!(!render(&busy()).contains("addresses-hidden"));
}

#[test]
fn what_is_not_known_is_not_called_nothing() {
    let html = render(&nothing());
    assert!(html.contains("<title>Not known yet: "));
    assert!(!html.contains("0 B"), "no figure is made up");
    assert!(!html.contains("<svg class=\"picture\""));
    assert!(render(&healthy()).contains("<title>Healthy: "));
    let watching =
        Report { watch: skmem_exporter::report::Watch { seconds: 5.0, ..busy().watch }, ..healthy() };
    assert!(render(&watching).contains("data-state=\"watching\""));
}

#[test]
fn hostile_names_are_texts() {
    let html = render(&hostile());
    assert!(html.contains("&lt;script&gt;x()&lt;/script&gt;"));
    assert!(html.contains("a\\x0ab\\x09c\\x1b[2J"));
    assert!(html.contains("\\u{202e}gpj.exe"));
    assert!(html.contains("data-process=\"&quot;'&gt;&lt;img src=x onerror=x()&gt;\""));
    assert!(html.contains("(no name)"));
}

#[test]
fn a_level_is_in_the_picture_when_it_is_near() {
    let levels = |max: u64| Levels { min_bytes: max / 2, pressure_bytes: max / 3 * 2, max_bytes: max };
    let with = |max: u64| {
        let mut report = busy();
        report.host.tcp_memory_limit = Some(levels(max));
        render(&report)
    };
    assert!(!with(20 << 30).contains("<line class=\"level "), "far above");
    assert!(with(20 << 30).contains("above this scale"));
    let near = with(300 << 20);
    assert_eq!(near.matches("<line class=\"level").count(), 3);
    assert!(near.contains("levels of tcp_mem dashed"));
}

#[test]
fn the_policy_allows_just_this_style_and_script() {
    let html = render(&busy());
    let policy = page::policy();
    for tag in ["style", "script"] {
        let content =
            html.split_once(&format!("<{tag}>")).unwrap().1.split_once(&format!("</{tag}>")).unwrap().0;
        let hash = BASE64_STANDARD.encode(digest(&SHA256, content.as_bytes()));
        assert!(policy.contains(&format!("{tag}-src 'sha256-{hash}'")), "{policy}");
    }
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
}

/// What a page costs; prints, and only refuses what no machine should need.
#[test]
fn size_and_time() {
    for (name, report) in [("nothing", nothing()), ("busy", busy()), ("large", large())] {
        let mut fastest = Duration::MAX;
        let mut html = String::new();
        for _ in 0..5 {
            let begin = Instant::now();
            html = render(&report);
            fastest = fastest.min(begin.elapsed());
        }
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        zipped.write_all(html.as_bytes()).unwrap();
        println!("{name}: {} bytes, {} zipped, {fastest:?}", html.len(), zipped.finish().unwrap().len());
        assert!(html.len() < 2 << 20 && fastest < Duration::from_secs(1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_report_becomes_a_sound_page(
        names in proptest::collection::vec(any::<String>(), 1..4),
        samples in proptest::collection::vec((0.0..4000.0, 0..1_u64 << 40, -1_i64 << 30..1_i64 << 40), 0..50),
        limit in proptest::option::of(0..1_u64 << 42),
        interval in 0.1..300.0,
        severity in prop_oneof![Just(Severity::Critical), Just(Severity::Warning), Just(Severity::Notice)],
    ) {
        let mut report = busy();
        let mut at: Vec<f64> = samples.iter().map(|sample| NOW + sample.0).collect();
        at.sort_by(f64::total_cmp);
        report.history = at.into_iter().zip(&samples).map(|(timestamp, (_, memory, held))| Point {
            timestamp,
            tcp_memory_bytes: Some(*memory),
            held: Attribution {
                process_bytes: *held,
                unattributed_bytes: Some(-held),
                ..Attribution::default()
            },
            owners: names.iter().zip(1..).map(|(name, pid)| OwnerPoint {
                pid, process: name.clone(), memory_bytes: *held, resident_bytes: None,
            }).collect(),
            ..Point::default()
        }).collect();
        report.host.tcp_memory_limit =
            limit.map(|max| Levels { min_bytes: max / 2, pressure_bytes: max / 3 * 2, max_bytes: max });
        report.watch.interval_seconds = interval;
        report.findings[0].severity = severity;
        report.findings[0].summary = names.concat();
        report.processes = (1..).zip(&names).map(|(pid, name)| process(pid, name, -5)).collect();
        check(&render(&report))?;
    }
}
