//! skmem-exporter: who holds the host's TCP memory.
#![warn(missing_docs)]
pub mod sample;
