//! The top of the page: the answer in one sentence, and the host's figures.

use maud::{Markup, html};

use super::state::State;
use super::text::{at, bytes, count, seconds, signed_bytes};
use crate::human::{self, printable};
use crate::report::{BufferSizes, HostReport, Levels, Report};

/// Host and verdict, coloured by the worst finding.
pub(super) fn banner(report: &Report, state: State) -> Markup {
    let watch = &report.watch;
    let worst = report.findings.len();
    html! {
        header #banner class={ "banner " (state.class()) } data-state=(state.class()) {
            (state.sign())
            div {
                p.state {
                    strong { (state.word()) }
                    " " bdi.host { (printable(&report.hostname)) }
                    @if worst > 0 { " \u{b7} " a href="#findings" { (human::count(worst as u64, "finding")) } }
                }
                h1 #verdict { (printable(&report.verdict)) }
                p.sampled {
                    @if let Some(timestamp) = report.timestamp {
                        "Sample of " (at(timestamp)) span #age {} ", one every " (seconds(watch.interval_seconds))
                        ", watched for " (seconds(watch.seconds)) "."
                    } @else {
                        "One sample every " (seconds(watch.interval_seconds)) "."
                    }
                }
            }
        }
    }
}

/// The host's memory against its levels, and whose it is.
pub(super) fn figures(report: &Report) -> Markup {
    let host = &report.host;
    // Without a sample the sums are not nothing, but not known.
    let sum = |bytes| if report.timestamp.is_some() { signed_bytes(bytes) } else { none() };
    html! {
        section.figures #host aria-label="The host's TCP memory" {
            (hero(host))
            dl.tiles {
                (tile("processes", "held by processes", &sum(host.held.process_bytes), "by their open sockets"))
                (tile("accept-queues", "in accept queues", &sum(host.held.accept_queue_bytes), "nobody has accepted these connections"))
                (tile("orphans", "orphans", &sum(host.held.orphan_bytes), &orphans(host)))
                (tile("unresolved", "unresolved", &sum(host.held.unresolved_bytes), "held by somebody who cannot be seen"))
                (tile("unattributed", "unattributed", &host.held.unattributed_bytes.map_or_else(none, signed_bytes), &bound(host)))
                (tile("sockets", "sockets", &host.sockets_allocated.map_or_else(none, count), &hidden(host)))
            }
            (more(host))
        }
    }
}

fn hero(host: &HostReport) -> Markup {
    let of_max = host
        .tcp_memory_limit
        .zip(host.tcp_memory_bytes)
        .and_then(|(levels, memory)| human::percent(memory, levels.max_bytes));
    html! {
        div.hero data-bytes=[host.tcp_memory_bytes] {
            p.label { "TCP memory of the host" }
            p.big {
                @match host.tcp_memory_bytes { Some(memory) => (bytes(memory)), None => (none()) }
                @if let Some(of_max) = of_max { span.of { " " (of_max) " of the maximum" } }
            }
            @match host.tcp_memory_limit {
                Some(levels) => (gauge(&levels, host.tcp_memory_bytes.unwrap_or(0))),
                None => p.quiet { "The levels of tcp_mem are not known; they can be read in the initial network namespace only." },
            }
            p.pressure {
                @match host.memory_pressure {
                    Some(true) => strong.in-pressure { "The kernel is in TCP memory pressure." },
                    Some(false) => "No memory pressure.",
                    None => "Whether there is memory pressure is not known.",
                }
            }
        }
    }
}

/// A bar up to the maximum with a mark at each level.
fn gauge(levels: &Levels, memory: u64) -> Markup {
    // Whatever is above the maximum fills the bar.
    let part =
        |bytes: u64| format!("{:.2}%", (bytes as f64 * 100.0 / levels.max_bytes.max(1) as f64).min(100.0));
    html! {
        svg.gauge height="14" aria-hidden="true" {
            rect.ground width="100%" height="14" rx="3" {}
            rect class={ "held" (if memory > levels.pressure_bytes { " over" } else { "" }) } width=(part(memory)) height="14" rx="3" {}
            @for level in [levels.min_bytes, levels.pressure_bytes] {
                line.mark x1=(part(level)) x2=(part(level)) y1="0" y2="14" {}
            }
        }
        dl.levels {
            @for (name, level, what) in [
                ("min", levels.min_bytes, "pressure ends below"),
                ("pressure", levels.pressure_bytes, "pressure begins above"),
                ("max", levels.max_bytes, "no more is given"),
            ] {
                div title=(what) { dt { (name) } dd { (bytes(level)) } }
            }
        }
    }
}

fn tile(id: &str, name: &str, value: &Markup, note: &str) -> Markup {
    html! {
        div id={ "figure-" (id) } {
            dt { (name) }
            dd { (value) }
            @if !note.is_empty() { dd.note { (note) } }
        }
    }
}

fn none() -> Markup {
    html! { span.none { "not known" } }
}

fn orphans(host: &HostReport) -> String {
    let Some(orphans) = host.orphan_sockets else { return "closed, not finished".to_owned() };
    let of = host.orphan_sockets_limit.and_then(|limit| human::percent(orphans, limit));
    let of = of.map_or(String::new(), |of| format!(", {of} of the limit"));
    format!("{}{of}", human::count(orphans, "socket"))
}

fn bound(host: &HostReport) -> String {
    let said = |bound| format!("the kernel's accounting explains \u{b1}{}", human::bytes(bound));
    host.held.unattributed_bound_bytes.map_or("no socket shows it".to_owned(), said)
}

fn hidden(host: &HostReport) -> String {
    match host.hidden_sockets {
        Some(0) => "all of them in tables that can be read".to_owned(),
        Some(hidden) => format!("{hidden} of them in no table that can be read"),
        None => String::new(),
    }
}

/// What is rarely asked for.
fn more(host: &HostReport) -> Markup {
    let known = |known: Option<bool>| known.map_or("not readable", |is_on| if is_on { "on" } else { "off" });
    let sizes = |sizes: Option<BufferSizes>| {
        html! {
            @match sizes {
                Some(sizes) => { "min " (bytes(sizes.min_bytes)) ", default " (bytes(sizes.default_bytes)) ", max " (bytes(sizes.max_bytes)) },
                None => "not readable",
            }
        }
    };
    html! {
        details #host-more {
            summary { "Sockets by state, and settings" }
            dl.facts {
                @if !host.sockets.is_empty() {
                    dt { "sockets" }
                    dd {
                        @for (at, (state, number)) in host.sockets.iter().filter(|(_, number)| **number > 0).enumerate() {
                            @if at > 0 { ", " }
                            (state) " " (count(*number))
                        }
                    }
                }
                dt { "tcp_rmem" } dd { (sizes(host.receive_buffer_limit)) }
                dt { "tcp_wmem" } dd { (sizes(host.send_buffer_limit)) }
                dt { "tcp_window_scaling" } dd { (known(host.window_scaling)) }
                dt { "tcp_moderate_rcvbuf" } dd { (known(host.receive_autotuning)) }
            }
        }
    }
}
