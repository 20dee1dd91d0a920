//! skmem-exporter: who holds the host's TCP memory.

pub mod account;
pub mod cause;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod follow;
pub mod http;
pub mod identity;
pub mod kernel;
pub mod logging;
pub mod metrics;
pub mod monotonic;
pub mod sample;
pub mod sampler;
pub mod select;
pub mod socket;
pub mod tcp_info;
