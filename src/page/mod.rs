//! The status page: a report as HTML that needs nothing else. Pure.
//!
//! Everything is said without JavaScript; the script only renews the page and spares the reader a reload. Names and
//! paths come from whoever may start a process: every text of a report goes through [`printable`], and maud escapes it.

mod connections;
mod findings;
mod overview;
mod pictures;
mod processes;
mod scale;
mod state;
mod text;

use std::sync::LazyLock;

use base64::{Engine, prelude::BASE64_STANDARD};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ring::digest::{SHA256, digest};

use crate::human::printable;
use crate::report::Report;
use state::State;
use text::at;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Changes with what the page is made of, so that an open page of an older exporter loads itself anew.
static MAKE: LazyLock<String> =
    LazyLock::new(|| hash(&format!("{}{STYLE}{SCRIPT}", env!("CARGO_PKG_VERSION"))));

/// The Content-Security-Policy of the page: nothing but its own style and script, and asking for itself anew.
pub fn policy() -> String {
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

fn hash(text: &str) -> String {
    BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes()))
}

/// The page. `telemetry_path` is where the metrics are.
pub fn render(report: &Report, telemetry_path: &str) -> String {
    let state = State::of(report);
    let interval = report.watch.interval_seconds.max(1.0);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="make" content=(*MAKE);
                title { (state.word()) ": " (printable(&report.hostname)) " \u{2013} TCP memory" }
                // Or the browser asks for /favicon.ico.
                link rel="icon" href="data:,";
                noscript { meta http-equiv="refresh" content=(interval.ceil()); }
                style { (PreEscaped(STYLE)) }
            }
            body {
                p #notice role="status" hidden {}
                main #main data-timestamp=[report.timestamp] data-interval=(interval) {
                    (overview::banner(report, state))
                    (overview::figures(report))
                    (pictures::pictures(report))
                    (findings::findings(report))
                    (processes::processes(report))
                    (blind_spots(report))
                    (footer(report, telemetry_path))
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

fn blind_spots(report: &Report) -> Markup {
    html! {
        section #blind-spots aria-labelledby="blind-spots-title" {
            h2 #blind-spots-title { "What cannot be seen" }
            @if report.blind_spots.is_empty() {
                p.quiet { "Nothing is known to be missing." }
            } @else {
                ul.spots {
                    @for spot in &report.blind_spots {
                        li {
                            (printable(&spot.what))
                            @if let Some(cure) = &spot.cure { " " span.cure { "Cure: " (printable(cure)) "." } }
                        }
                    }
                }
            }
        }
    }
}

fn footer(report: &Report, telemetry_path: &str) -> Markup {
    html! {
        footer #footer {
            nav aria-label="Also here" {
                a href=(telemetry_path) { "Metrics" }
                a href="/api/v1/report" { "This report as JSON" }
                a href="/-/healthy" { "Health" }
                a href="/-/ready" { "Readiness" }
            }
            p {
                (printable(&report.generator.name)) " " (printable(&report.generator.version))
                @if let Some(timestamp) = report.timestamp { ", sample of " (at(timestamp)) }
            }
        }
    }
}
