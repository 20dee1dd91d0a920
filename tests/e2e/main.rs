//! The alerts from end to end: real programs that misbehave, the real exporter, Prometheus and Alertmanager with the rules
//! and routes as they are shipped, and whoever is told in the end. A minute of the rules is a second here.
//!
//! Wants root and the host to itself: it lowers tcp_mem and tcp_max_orphans for a while.
// Helpers of tests are tests too; and nothing outside this program can reach them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod dashboards;
mod exporters;
mod faults;
#[path = "../kit/mod.rs"]
mod kit;
mod monitoring;
#[path = "../support/proven.rs"]
mod proven;
mod shortage;
mod stage;
mod sysctl;
mod trial;
mod webhook;

use std::time::{Duration, Instant};

use kit::host;
use monitoring::Monitoring;
use stage::Times;

/// An hour and a quarter in the time of the rules, so that those that look back an hour have seen one.
const HEALTHY_FOR: Duration = Duration::from_secs(75);

#[test]
fn every_fault_is_told_and_nothing_else() {
    let _host = host::alone();
    let begin = Instant::now();
    let monitoring = Monitoring::start();
    let exporter = exporters::healthy();
    monitoring.scrape([exporter.address]);
    let mut times = Times::default();

    let busy = faults::Busy::with_everything();
    monitoring.stage(exporter.address).says_nothing_for(HEALTHY_FOR);
    drop(busy);
    let _busy = faults::Busy::with_little();
    faults::side_by_side(&monitoring, exporter.address, &mut times);
    shortage::run(&monitoring, exporter.address, &mut times);
    exporters::run(&monitoring, exporter, &mut times);

    dashboards::every_query_finds_something(&monitoring, begin);
    times.compare_with_the_document();
}
