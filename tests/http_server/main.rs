//! The HTTP room over real sockets.
// Helpers of tests are tests too; and nothing outside this program can reach them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod limits;
mod listening;
mod scraping;
mod stopping;
mod support;
