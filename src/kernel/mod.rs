//! The only room that touches the kernel.
pub mod cgroups;
pub mod diag;
pub mod error;
pub mod host;
pub mod netns;
pub mod outcome;
pub mod owners;
pub mod proc_root;
pub mod process;
pub mod text;
