//! The HTTP room over real sockets.
// Helpers of tests are tests too; and nothing outside this program can reach them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod asking;
mod bad_files;
mod certificates;
mod client_certs;
mod limits;
mod listening;
mod passwords;
mod reloading;
#[path = "../support/report.rs"]
#[allow(dead_code)]
mod report_fixture;
mod reports;
mod scraping;
mod stopping;
mod support;
mod tls;
