//! The real daemon on the real kernel: programs that hold TCP memory in every way we know of, and what the daemon says
//! of them, compared with what the programs, sockstat and `ss` say themselves.
//!
//! They need root, for network namespaces and other processes' file descriptors, and a few of Debian's tools. Where
//! something is missing they fail and name it: a live test that is skipped proves nothing.
// Helpers of tests are tests too; and nothing outside this program can reach them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod churn;
mod diagnose;
mod findings;
mod holding;
#[path = "../kit/mod.rs"]
mod kit;
mod life_cycle;
mod locks;
mod namespaces;
mod ownership;
mod privileges;
mod processes;
mod prometheus;
mod queues;
mod residual;
mod states;
#[path = "../support/privileges.rs"]
mod table;
mod threads;
mod workloads;
