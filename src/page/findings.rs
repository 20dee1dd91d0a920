//! What is wrong, worst first, with what shows it and what to do.

use maud::{Markup, html};

use super::connections;
use super::state::State;
use super::text::{signed_bytes, since};
use crate::finding::{Advice, Finding, Severity};
use crate::human::{self, printable};
use crate::report::Report;

/// Findings that are open from the start.
const OPEN_MAX: usize = 3;

pub(super) fn findings(report: &Report) -> Markup {
    html! {
        section #findings aria-labelledby="findings-title" {
            h2 #findings-title { "Findings" }
            @if report.are_addresses_hidden { (connections::why_hidden()) }
            @if report.findings.is_empty() {
                p.quiet {
                    @if report.timestamp.is_some() { "Nothing is found to be wrong." } @else { "There is no sample to judge yet." }
                }
            }
            @for (place, finding) in report.findings.iter().enumerate() { (one(report, finding, place)) }
        }
    }
}

fn one(report: &Report, finding: &Finding, place: usize) -> Markup {
    let severity = finding.severity;
    let state = State::Found(severity);
    // One process has one finding of a kind, and so has the host.
    let id = match finding.subject.pid() {
        Some(pid) => format!("finding-{}-{pid}", finding.kind.label()),
        None => format!("finding-{}", finding.kind.label()),
    };
    html! {
        details #(id) class={ "finding " (severity.label()) } data-kind=(finding.kind.label()) data-memory=(finding.memory_bytes)
            open[place < OPEN_MAX && severity != Severity::Notice] {
            summary {
                (state.sign())
                span.what {
                    strong.severity { (state.word()) } " " code.kind { (finding.kind.label()) }
                    span.summary { (printable(&finding.summary)) }
                }
            }
            div.body {
                @if finding.memory_bytes != 0 || finding.sockets > 0 || finding.since.is_some() {
                    p.facts-line {
                        @if finding.memory_bytes != 0 { span { (signed_bytes(finding.memory_bytes)) } }
                        @if finding.sockets > 0 { span { (human::count(finding.sockets, "socket")) } }
                        @if let Some(began) = finding.since {
                            span {
                                "since " (since(began, report.timestamp))
                                @if finding.since_is_at_the_latest { " or earlier" }
                            }
                        }
                    }
                }
                @if !finding.evidence.is_empty() {
                    h3 { "What shows it" }
                    ul.evidence { @for fact in &finding.evidence { li data-name=(fact.name) data-value=(fact.value) { (printable(&fact.text)) } } }
                }
                @if !finding.advice.is_empty() {
                    h3 { "What to do" }
                    ol.advice { @for advice in &finding.advice { (advise(advice)) } }
                }
                @if !finding.connections.is_empty() {
                    details #{ (id) "-connections" } {
                        summary { (of_all(finding.connections.len(), finding.sockets, "connection")) }
                        (connections::connections(&finding.connections, "Connections of this finding"))
                    }
                }
                @if !finding.listeners.is_empty() {
                    details #{ (id) "-listeners" } {
                        summary { (human::count(finding.listeners.len() as u64, "listener")) }
                        (connections::listeners(&finding.listeners, "Listeners of this finding"))
                    }
                }
            }
        }
    }
}

fn advise(advice: &Advice) -> Markup {
    html! {
        li {
            (printable(&advice.text))
            @if let Some(command) = &advice.command { div.command { code { (printable(command)) } } }
        }
    }
}

/// `The worst 10 of 19 connections`, or all there are.
pub(super) fn of_all(shown: usize, all: u64, noun: &str) -> String {
    let shown = shown as u64;
    if shown < all {
        format!("The worst {shown} of {}", human::count(all, noun))
    } else {
        human::count(shown, noun)
    }
}
