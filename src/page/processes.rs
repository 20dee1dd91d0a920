//! Who holds it: a row for each process, which opens to its connections and what it is doing.
//!
//! A row is a `details`, because a row of a table could not be opened without a script. Each figure carries its name for
//! those who do not see the heads of the columns.

use maud::{Markup, html};

use super::connections::{self, stalled};
use super::findings::of_all;
use super::text::{bytes, count, signed_bytes, since};
use crate::finding::because;
use crate::human::{self, printable};
use crate::predicament::Activity;
use crate::report::{CauseReport, ProcessReport, Report};

pub(super) fn processes(report: &Report) -> Markup {
    // Bars of all rows have one scale.
    let most = report.processes.iter().map(|process| process.memory_bytes).max().unwrap_or(0).max(1);
    html! {
        section #processes aria-labelledby="processes-title" {
            h2 #processes-title { "Processes" }
            @if report.processes.is_empty() {
                p.quiet {
                    @if report.timestamp.is_some() { "No process holds TCP memory." } @else { "There is no sample yet." }
                }
            } @else {
                div.rows {
                    div.heads aria-hidden="true" {
                        span { "process" }
                        span.num { "TCP memory" }
                        span.num { "RSS" }
                        span.num { "unread" }
                        span.num { "unacked" }
                        span.num { "sockets" }
                        span { "why" }
                        span { "stalled since" }
                    }
                    @for process in &report.processes { (row(report, process, most)) }
                }
            }
            @if report.processes_truncated > 0 {
                p.quiet {
                    (human::count(report.processes_truncated, "more row")) " would deserve a place here; "
                    code { "--process.max" } " is reached."
                }
            }
        }
    }
}

fn row(report: &Report, process: &ProcessReport, most: i64) -> Markup {
    let id = process.pid.map_or("process-other".to_owned(), |pid| format!("process-{pid}"));
    let cell = |name: &str, value: Markup| html! { span.cell.num { span.head { (name) " " } (value) } };
    html! {
        details.row #(id) data-pid=[process.pid] data-process=(printable(&process.process)) data-memory=(process.memory_bytes)
            data-unread=(process.receive_queue_bytes) data-sockets=(process.sockets) {
            summary {
                span.cell.who {
                    @match process.pid {
                        Some(pid) => { bdi.name { @if process.process.is_empty() { "(no name)" } @else { (printable(&process.process)) } } " " span.pid { "pid " (pid) } },
                        None => span.name { "all other processes" },
                    }
                }
                (cell("TCP memory", signed_bytes(process.memory_bytes)))
                (cell("RSS", process.resident_bytes.map_or_else(dash, bytes)))
                (cell("unread", bytes(process.receive_queue_bytes)))
                (cell("unacked", bytes(process.send_queue_bytes)))
                (cell("sockets", count(process.sockets)))
                span.cell.why { span.head { "why " } (bar(process, most)) (causes(&process.causes)) }
                span.cell.since {
                    span.head { "stalled since " }
                    @match process.stalled_since { Some(began) => (since(began, report.timestamp)), None => (dash()) }
                }
            }
            div.body { (inside(process)) }
        }
    }
}

/// Its memory by cause, as long as its share of the largest row.
fn bar(process: &ProcessReport, most: i64) -> Markup {
    let part = |bytes: i64| bytes.max(0) as f64 * 100.0 / most as f64;
    let mut at = 0.0;
    let parts: Vec<_> = process
        .causes
        .iter()
        .filter(|cause| cause.memory_bytes > 0)
        .map(|cause| {
            let from = at;
            at += part(cause.memory_bytes);
            (cause, from, part(cause.memory_bytes))
        })
        .collect();
    html! {
        svg.bar height="8" aria-hidden="true" {
            rect.ground width="100%" height="8" rx="2" {}
            @for (cause, from, width) in parts {
                rect class=(cause.cause.label()) x=(format!("{from:.2}%")) width=(format!("{width:.2}%")) height="8" {}
            }
        }
    }
}

fn causes(causes: &[CauseReport]) -> Markup {
    html! {
        span.causes {
            @for (at, cause) in causes.iter().filter(|cause| cause.memory_bytes != 0).enumerate() {
                @if at > 0 { ", " }
                span class={ "cause " (cause.cause.label()) } { (cause.cause.label()) } " " (signed_bytes(cause.memory_bytes))
            }
        }
    }
}

fn inside(process: &ProcessReport) -> Markup {
    let named = |name: &str, value: &str| html! { @if !value.is_empty() { dt { (name) } dd.long { code { (printable(value)) } } } };
    html! {
        dl.facts {
            @if let Some(predicament) = process.predicament {
                dt { "predicament" }
                dd { strong { (predicament.label()) } @if let Some(because) = because(predicament) { ": " (because) "." } }
            }
            @if let Some(activity) = &process.activity { (doing(activity)) }
            @if !process.causes.is_empty() {
                dt { "causes" }
                dd {
                    ul.plain {
                        @for cause in &process.causes {
                            li {
                                span class={ "cause " (cause.cause.label()) } { (cause.cause.label()) }
                                " " (signed_bytes(cause.memory_bytes)) ", " (human::count(cause.sockets, "socket"))
                                @if let Some(stalled) = stalled(cause.stalled_seconds) { ", the oldest stalled for " (stalled) }
                            }
                        }
                    }
                }
            }
            dt { "memory" }
            dd {
                (bytes(process.receive_memory_bytes)) " received, " (bytes(process.send_memory_bytes)) " to be sent"
                @if process.accept_queue_connections > 0 {
                    ", " (human::count(process.accept_queue_connections, "connection")) " not accepted"
                }
            }
            (named("unit", &process.systemd_unit))
            (named("container", &process.container_id))
            (named("pod", &process.pod_uid))
            (named("cgroup", &process.cgroup))
        }
        @if !process.listeners.is_empty() {
            h3 { "Listeners with connections that wait" }
            (connections::listeners(&process.listeners, "Listeners of this process"))
        }
        @if !process.connections.is_empty() {
            h3 { (of_all(process.connections.len(), process.sockets, "socket")) }
            (connections::connections(&process.connections, "Connections of this process"))
        }
    }
}

fn doing(activity: &Activity) -> Markup {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    html! {
        dt { "threads" }
        dd {
            ul.plain {
                @for group in &activity.threads {
                    li {
                        (group.count) " " (group.state.label())
                        @if !group.wait_channel.is_empty() { " in " code { (printable(&group.wait_channel)) } }
                    }
                }
                @if activity.threads_not_read > 0 { li { (activity.threads_not_read) " not read" } }
            }
        }
        @if let Some(share) = activity.cpu_share {
            dt { "CPU" }
            dd {
                (percent(share)) " of one CPU"
                @if activity.spinning > 0 { ", " (human::count(activity.spinning.into(), "thread")) " spinning" }
                @if let Some(still) = activity.still_seconds.and_then(stalled) { ", no thread has run for " (still) }
            }
        }
        @if let Some(share) = activity.throttled_share.filter(|share| *share > 0.0) {
            dt { "throttled" } dd { (percent(share)) " of the time, by a CPU quota" }
        }
        @if activity.tracer_pid != 0 { dt { "traced by" } dd { "pid " (activity.tracer_pid) } }
        @if activity.frozen == Some(true) { dt { "frozen" } dd.long { "by " code { (printable(&activity.freezer)) } } }
        @if let Some(open) = activity.open_fds {
            dt { "file descriptors" }
            dd { (count(open)) @if let Some(limit) = activity.fd_limit { " of " (count(limit)) } }
        }
    }
}

fn dash() -> Markup {
    html! { span.quiet { "\u{2013}" } }
}
