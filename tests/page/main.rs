//! The status page: what it says, and how it behaves in a real browser, over reports of our own and over a real daemon
//! that watches a real culprit.
// Helpers of tests are tests too; and nothing outside this program can reach them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod browser;
mod browsing;
#[path = "../kit/mod.rs"]
mod kit;
mod real;
mod rendering;
#[path = "../support/report.rs"]
#[allow(dead_code)]
mod report_fixture;
mod server;
