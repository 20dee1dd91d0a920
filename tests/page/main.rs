//! The status page: what it says, and how it behaves in a real browser.
// Helpers of tests are tests too; and nothing outside this program can reach them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod rendering;
#[path = "../support/report.rs"]
#[allow(dead_code)]
mod report_fixture;
