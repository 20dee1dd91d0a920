//! The only room that touches the kernel.
pub mod diag;
pub mod error;
pub mod proc_root;
pub mod text;
