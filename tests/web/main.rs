//! The web server of the real daemon, judged by clients that share no code with it: curl, OpenSSL, Prometheus, and for
//! abuse a generator in Python. Configurations and commands are those of docs/web.md.
// Helpers of tests are tests too; and nothing outside this program can reach them.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod abuse;
mod check_config;
mod curl;
mod descriptors;
mod document;
#[path = "../kit/mod.rs"]
mod kit;
mod openssl;
mod prometheus;
mod site;
