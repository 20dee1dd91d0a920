//! skmem-exporter: who holds the host's TCP memory.

pub mod account;
pub mod cause;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod diagnose;
pub mod finding;
pub mod follow;
pub mod http;
pub mod human;
pub mod identity;
pub mod kernel;
pub mod logging;
pub mod metrics;
pub mod monotonic;
pub mod page;
pub mod predicament;
pub mod report;
pub mod sample;
pub mod sampler;
pub mod select;
pub mod series;
pub mod shortlist;
pub mod socket;
pub mod tcp_info;
pub mod worst;
