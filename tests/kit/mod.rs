//! What tests of the running daemon share: the host, the daemon itself, programs that hold TCP memory, a reader of
//! scrapes, and the servers next to the daemon. Each test program uses a part of it.
#![allow(dead_code)]

pub mod actor;
pub mod daemon;
pub mod host;
pub mod scrape;
pub mod servers;
