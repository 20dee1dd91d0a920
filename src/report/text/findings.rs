//! What is wrong, what shows it, what to do.

use super::page::{Page, Tint};
use super::{severity_word, utc};
use crate::finding::{Finding, Subject};
use crate::human;
use crate::report::{ProcessReport, Report};

/// Findings told in full. Whoever has more begins with these.
const TOLD: usize = 5;
/// Findings named below them.
const NAMED: usize = 15;

pub fn render(page: &mut Page, report: &Report) {
    let findings = &report.findings;
    if findings.is_empty() {
        return;
    }
    let (told, others) = findings.split_at(findings.len().min(TOLD));
    page.heading(&format!("What is wrong ({})", human::count(findings.len() as u64, "finding")));
    for (index, finding) in told.iter().enumerate() {
        if index > 0 {
            page.blank();
        }
        one(page, report, index + 1, finding);
    }
    if others.is_empty() {
        return;
    }
    page.cut();
    page.blank();
    let (named, left_out) = others.split_at(others.len().min(NAMED));
    for (index, finding) in named.iter().enumerate() {
        headline(page, told.len() + index + 1, finding, &format!(", {}", held(finding)));
    }
    if !left_out.is_empty() {
        page.hang(0, (Tint::Plain, ""), Tint::Plain, &format!("and {} more", left_out.len()));
    }
}

/// Columns of what stands below a headline.
const INDENT: usize = 3;

fn one(page: &mut Page, report: &Report, number: usize, finding: &Finding) {
    headline(page, number, finding, &since(report, finding));
    // The verdict has said it already where it is about this.
    if !report.verdict.contains(&finding.summary) {
        page.hang(INDENT, (Tint::Plain, ""), Tint::Plain, &finding.summary);
    }
    let pid = finding.subject.pid();
    let process = report.processes.iter().find(|process| pid.is_some() && process.pid == pid);
    if let Some(home) = process.and_then(|process| home(page, process)) {
        page.hang(INDENT, (Tint::Quiet, "in "), Tint::Plain, &home);
    }
    for fact in &finding.evidence {
        page.bullet(INDENT, &fact.text);
    }
    if finding.advice.is_empty() {
        return;
    }
    page.hang(INDENT, (Tint::Plain, ""), Tint::Strong, "What to do");
    for advice in &finding.advice {
        let arrow = page.glyph("→ ", "> ");
        page.hang(INDENT, (Tint::Plain, arrow), Tint::Plain, &advice.text);
        if let Some(command) = &advice.command {
            page.command(INDENT + 4, command);
        }
    }
}

fn headline(page: &mut Page, number: usize, finding: &Finding, more: &str) {
    // Those told in full have one digit, those named below them stand in line.
    let digits = if number > TOLD { 2 } else { 1 };
    let (tint, word) = severity_word(finding.severity);
    let who = match &finding.subject {
        Subject::Process { pid, process } => format!("{process} (pid {pid})"),
        Subject::Listener { pid, process, address } => format!("{process} (pid {pid}), listener {address}"),
        Subject::Unresolved => "somebody who cannot be seen".to_owned(),
        Subject::Orphans => "orphans".to_owned(),
        Subject::Host => "the host".to_owned(),
    };
    let text = format!("{}: {who}{more}", finding.kind.label());
    page.hang(0, (tint, &format!("{number:>digits$}. {word}  ")), Tint::Strong, &text);
}

fn since(report: &Report, finding: &Finding) -> String {
    let Some(since) = finding.since else { return String::new() };
    let (since, now) = (utc(since), utc(report.timestamp.unwrap_or_default()));
    // The day stands above where it is today.
    let since = match (since.split_once(' '), now.split_once(' ')) {
        (Some((day, time)), Some((today, _))) if day == today => time,
        _ => &since,
    };
    let or_before = if finding.since_is_at_the_latest { " or before" } else { "" };
    format!(", since {since}{or_before}")
}

fn held(finding: &Finding) -> String {
    let sockets = human::count(finding.sockets, "socket");
    format!("{}, {sockets}", human::signed_bytes(finding.memory_bytes))
}

/// Where whoever runs it will find it.
fn home(page: &mut Page, process: &ProcessReport) -> Option<String> {
    let mut parts = Vec::new();
    if !process.systemd_unit.is_empty() {
        parts.push(process.systemd_unit.clone());
    }
    if !process.container_id.is_empty() {
        parts.push(format!("container {}", page.fit(&process.container_id, 13)));
    }
    if !process.pod_uid.is_empty() {
        parts.push(format!("pod {}", process.pod_uid));
    }
    if parts.is_empty() && process.cgroup.len() > 1 {
        let room = page.width() - INDENT - 12;
        parts.push(format!("cgroup {}", page.fit_middle(&process.cgroup, room)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}
