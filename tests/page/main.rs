//! The status page: what it says, and how it behaves in a real browser, over reports of our own and over a real daemon
//! that watches a real culprit.
// Helpers of tests are tests too; and nothing outside this program can reach them.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../live/actor.rs"]
#[allow(dead_code)]
mod actor;
mod browser;
mod browsing;
#[path = "../live/daemon.rs"]
#[allow(dead_code)]
mod daemon;
#[path = "../live/host.rs"]
#[allow(dead_code)]
mod host;
mod real;
mod rendering;
#[path = "../support/report.rs"]
#[allow(dead_code)]
mod report_fixture;
#[path = "../live/scrape.rs"]
#[allow(dead_code)]
mod scrape;
mod server;
