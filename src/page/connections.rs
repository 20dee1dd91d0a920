//! Tables of single sockets.

use std::net::SocketAddr;

use maud::{Markup, html};

use super::text::{bytes, seconds, signed_bytes};
use crate::human;
use crate::sample::{Connection, ListenerQueue};

/// Connections, each a row. `label` says whose they are.
pub(super) fn connections(connections: &[Connection], label: &str) -> Markup {
    html! {
        div.scroll role="region" aria-label=(label) tabindex="0" {
            table.sockets {
                thead {
                    tr {
                        th scope="col" { "local" }
                        th scope="col" { "remote" }
                        th scope="col" { "state" }
                        th.num scope="col" { "unread" }
                        th.num scope="col" { "unacked" }
                        th.num scope="col" { "memory" }
                        th scope="col" { "cause" }
                        th.num scope="col" { "stalled for" }
                        th.num scope="col" { abbr title="our receive window, as the peer knows it" { "rcv_wnd" } }
                        th scope="col" { "tcp_info" }
                        th.num scope="col" { abbr title="inode of its network namespace" { "netns" } }
                    }
                }
                tbody { @for connection in connections { (row(connection)) } }
            }
        }
    }
}

fn row(connection: &Connection) -> Markup {
    let info = connection.tcp_info.as_ref();
    let address = |address: Option<SocketAddr>| {
        html! {
            @if let Some(address) = address { code { (address) } } @else { span.quiet { "hidden" } }
        }
    };
    html! {
        tr {
            td { (address(connection.local)) }
            td { (address(connection.remote)) }
            td { (connection.state.label()) @if connection.is_queued { ", not accepted" } }
            td.num { (bytes(connection.receive_queue_bytes.into())) }
            td.num { (bytes(connection.send_queue_bytes.into())) }
            td.num { (signed_bytes(connection.memory_bytes)) }
            td { span class={ "cause " (connection.cause.label()) } { (connection.cause.label()) } }
            td.num { @if connection.stalled.is_zero() { (none()) } @else { (human::duration(connection.stalled)) } }
            td.num { @match info.and_then(|info| info.receive_window) { Some(window) => (bytes(window.into())), None => (none()) } }
            td { @match info { Some(info) => code { (info.listing()) }, None => (none()) } }
            td.num { (connection.namespace) }
        }
    }
}

/// Listeners with connections that wait, each a row.
pub(super) fn listeners(listeners: &[ListenerQueue], label: &str) -> Markup {
    html! {
        div.scroll role="region" aria-label=(label) tabindex="0" {
            table.sockets {
                thead {
                    tr {
                        th scope="col" { "listens at" }
                        th.num scope="col" { "waiting" }
                        th.num scope="col" { "limit" }
                        th scope="col" { "queue" }
                        th.num scope="col" { abbr title="inode of its network namespace" { "netns" } }
                    }
                }
                tbody {
                    @for listener in listeners {
                        tr {
                            td { code { (listener.local) } }
                            td.num { (listener.waiting) }
                            td.num { (listener.limit) }
                            td { @if listener.is_full() { strong { "full: the next is turned away" } } @else { "has room" } }
                            td.num { (listener.namespace) }
                        }
                    }
                }
            }
        }
    }
}

fn none() -> Markup {
    html! { span.quiet { "\u{2013}" } }
}

/// Why addresses are missing, and how to see them.
pub(super) fn why_hidden() -> Markup {
    html! {
        p.hidden-note #addresses-hidden {
            strong { "Addresses of connections are hidden" }
            " because this request came from another host, or through a proxy, and was not authenticated. To see who \
             talks to whom, open this page over the host's loopback ("
            code { "ssh -L PORT:localhost:PORT HOST" }
            "), or turn on passwords or client certificates in the file of "
            code { "--web.config.file" }
            " and log in."
        }
    }
}

/// A cause's share in seconds, for texts.
pub(super) fn stalled(stalled: f64) -> Option<String> {
    (stalled > 0.0).then(|| seconds(stalled))
}
