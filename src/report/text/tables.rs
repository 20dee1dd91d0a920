//! Who holds how much, and in which connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::page::{Column, Page, Tint};
use crate::human;
use crate::report::{ProcessReport, Report};
use crate::sample::{Cause, Connection};

/// A comm's 15 bytes, and some that had to be written out.
const NAME: usize = 18;
/// Causes told of one process.
const CAUSES: usize = 3;
/// Connections told of one process and cause: the third is like the first, and others want to be seen.
const ALIKE: usize = 3;
/// An IPv4 address and port with its arrow.
const ADDRESS: usize = 23;
/// What is left of one in the narrowest terminal.
const ADDRESS_MIN: usize = 8;

/// Those who hold most, those with a finding before all others.
pub fn processes(page: &mut Page, report: &Report, most: usize) {
    let has_finding = |process: &ProcessReport| {
        report.findings.iter().any(|finding| process.pid.is_some() && finding.subject.pid() == process.pid)
    };
    let (others, named): (Vec<_>, Vec<_>) =
        report.processes.iter().partition::<Vec<_>, _>(|process| process.pid.is_none());
    let mut order: Vec<usize> = (0..named.len()).collect();
    order.sort_by_key(|index| !has_finding(named[*index]));
    order.truncate(most);
    order.sort_unstable();
    let left_out = named.len() - order.len();
    let mut shown: Vec<&ProcessReport> = order.into_iter().map(|index| named[index]).collect();
    shown.extend(others.into_iter().filter(|process| process.memory_bytes != 0));
    if shown.is_empty() {
        return;
    }
    page.heading("Who holds it");
    let cells =
        |of: &mut dyn FnMut(&ProcessReport) -> String| shown.iter().map(|process| of(process)).collect();
    let timestamp = report.timestamp.unwrap_or_default();
    let columns = vec![
        Column::new("PID", true, 0, cells(&mut |p| p.pid.map_or_else(String::new, |pid| pid.to_string()))),
        Column::new("PROCESS", false, 0, cells(&mut |p| page.fit(&p.process, NAME))),
        Column::new("TCP MEM", true, 0, cells(&mut |p| human::signed_bytes(p.memory_bytes))),
        Column::new("RSS", true, 0, cells(&mut |p| p.resident_bytes.map_or("-".to_owned(), human::bytes))),
        Column::new("UNREAD", true, 1, cells(&mut |p| human::bytes(p.receive_queue_bytes))),
        Column::new("UNACKED", true, 2, cells(&mut |p| human::bytes(p.send_queue_bytes))),
        Column::new("SOCKETS", true, 3, cells(&mut |p| p.sockets.to_string())),
        Column::new(
            "STALLED",
            true,
            0,
            cells(&mut |p| stalled(p.stalled_since.map(|since| timestamp - since))),
        ),
        Column::new("CAUSE", false, 0, cells(&mut causes)),
    ];
    page.table(2, columns);
    if left_out > 0 {
        page.hang(2, (Tint::Plain, ""), Tint::Plain, &format!("and {left_out} more"));
    }
}

fn stalled(seconds: Option<f64>) -> String {
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.map_or("-".to_owned(), human::duration)
}

/// A process's causes, one a line, with their shares where there are several.
fn causes(process: &ProcessReport) -> String {
    let mut causes: Vec<_> = process.causes.iter().collect();
    // What is active is no news beside what is not.
    causes.sort_by_key(|cause| (cause.cause == Cause::Active, std::cmp::Reverse(cause.memory_bytes)));
    if causes.len() > 1 {
        causes.retain(|cause| cause.cause != Cause::Active || cause.memory_bytes > 0);
    }
    let whole = u64::try_from(process.memory_bytes).unwrap_or(0);
    let is_one = causes.len() == 1;
    let lines = causes.iter().take(CAUSES).map(|cause| {
        let part = human::percent(u64::try_from(cause.memory_bytes).unwrap_or(0), whole);
        match part.filter(|_| !is_one) {
            Some(part) => format!("{} {}", cause.cause.label(), part.replace(' ', "")),
            None => cause.cause.label().to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The connections that say most.
pub fn connections(page: &mut Page, report: &Report, most: usize) {
    let (rows, are_all) = worst(report);
    if rows.is_empty() {
        return;
    }
    if !are_all || rows.len() > most {
        page.cut();
    }
    let rows = &rows[..rows.len().min(most)];
    page.heading("Worst connections");
    let two = |above: String, below: String| format!("{above}\n{below}");
    let cells = |of: &mut dyn FnMut(&Row<'_>) -> String| rows.iter().map(of).collect::<Vec<_>>();
    let mut columns = vec![
        Column::new(
            "PROCESS\nPID",
            false,
            0,
            cells(&mut |row| {
                two(page.fit(row.process, NAME), row.pid.map_or_else(String::new, |pid| pid.to_string()))
            }),
        ),
        Column::new("LOCAL\nREMOTE", false, 0, Vec::new()),
        Column::new(
            "STATE\nCAUSE",
            false,
            0,
            cells(&mut |row| {
                two(row.connection.state.label().to_owned(), row.connection.cause.label().to_owned())
            }),
        ),
        Column::new(
            "UNREAD\nUNACKED",
            true,
            0,
            cells(&mut |row| {
                let connection = row.connection;
                let queue = |bytes: u32| human::bytes(bytes.into());
                two(queue(connection.receive_queue_bytes), queue(connection.send_queue_bytes))
            }),
        ),
        Column::new(
            "MEMORY\nRCV_WND",
            true,
            2,
            cells(&mut |row| {
                let window = row.connection.tcp_info.and_then(|info| info.receive_window);
                let window = window.map_or("-".to_owned(), |window| human::bytes(window.into()));
                two(human::signed_bytes(row.connection.memory_bytes), window)
            }),
        ),
        Column::new(
            "STALLED",
            true,
            1,
            cells(&mut |row| {
                let stalled = row.connection.stalled;
                if stalled.is_zero() { "-".to_owned() } else { human::duration(stalled) }
            }),
        ),
    ];
    let room = |columns: &[Column]| {
        let others: usize = columns.iter().map(|column| column.width() + 1).sum();
        page.width().saturating_sub(2 + others)
    };
    // As a table does with columns that do not fit, only that addresses can be cut and should not be.
    for expendable in [2, 1] {
        if room(&columns) < ADDRESS {
            columns.retain(|column| column.expendable != expendable);
        }
    }
    let room = room(&columns).max(ADDRESS_MIN);
    let arrow = page.glyph("→ ", "> ");
    columns[1].cells = cells(&mut |row| {
        let local = page.fit_middle(&address(row.connection.local), room);
        let remote = page.fit_middle(&address(row.connection.remote), room - 2);
        two(local, format!("{arrow}{remote}"))
    });
    page.table(2, columns);
}

fn address(address: Option<SocketAddr>) -> String {
    address.map_or("(hidden)".to_owned(), |address| address.to_string())
}

/// A connection and whose it is.
struct Row<'a> {
    process: &'a str,
    pid: Option<u32>,
    connection: &'a Connection,
}

/// Worst first, no more than a few of one kind, and whether that is all of them. Those that no process holds come from the findings about them.
fn worst(report: &Report) -> (Vec<Row<'_>>, bool) {
    let held = report.worst_connections(usize::MAX).into_iter().map(|(process, connection)| Row {
        process: &process.process,
        pid: process.pid,
        connection,
    });
    let unheld = report.findings.iter().filter(|finding| finding.subject.pid().is_none());
    let unheld = unheld.flat_map(|finding| &finding.connections);
    let unheld = unheld.map(|connection| Row { process: "(orphan)", pid: None, connection });
    let mut alike: BTreeMap<(Option<u32>, Cause), usize> = BTreeMap::new();
    let mut rows: Vec<_> = held
        .filter(|row| row.connection.cause != Cause::Active)
        .chain(unheld)
        .filter(|row| {
            let count = alike.entry((row.pid, row.connection.cause)).or_default();
            *count += 1;
            *count <= ALIKE
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.connection.memory_bytes));
    (rows, alike.values().all(|count| *count <= ALIKE))
}
