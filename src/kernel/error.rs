//! What can go wrong between us and the kernel, by what one can do about it.

use std::io;
use std::path::PathBuf;

use crate::sample::Reason;

/// A reading that failed. Every variant says what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file said something unexpected.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A system call on a netlink socket or a namespace failed.
    #[error("{call}: {source}")]
    Call {
        /// What was tried.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A sock_diag dump was answered with an error.
    #[error("sock_diag {query}: {source}")]
    Refused {
        /// Which dump.
        query: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A sock_diag message could not be decoded.
    #[error("sock_diag {query}: {what}")]
    Message {
        /// Which dump.
        query: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A sock_diag dump ended, or was cut, before `NLMSG_DONE`.
    #[error("sock_diag {query}: incomplete dump: {what}")]
    Incomplete {
        /// Which dump.
        query: &'static str,
        /// How it was seen.
        what: &'static str,
    },
    /// Most processes do not let us look.
    #[error("{denied} processes do not let us see their {what}: {cure}")]
    Denied {
        /// Processes that refused.
        denied: u64,
        /// What we wanted to see.
        what: &'static str,
        /// What to do about it.
        cure: &'static str,
    },
    /// The sample's deadline passed.
    #[error("the sample's deadline passed while reading {what}")]
    Deadline {
        /// What was being read.
        what: &'static str,
    },
}

impl Error {
    /// The label that `skmem_source_errors_total` counts it under.
    pub fn reason(&self) -> Reason {
        match self {
            Self::File { source, .. } | Self::Call { source, .. } | Self::Refused { source, .. } => {
                match source.kind() {
                    io::ErrorKind::PermissionDenied => Reason::Denied,
                    io::ErrorKind::NotFound => Reason::Missing,
                    _ => Reason::Failed,
                }
            }
            Self::Malformed { .. } | Self::Message { .. } => Reason::Malformed,
            Self::Incomplete { .. } => Reason::Incomplete,
            Self::Denied { .. } => Reason::Denied,
            Self::Deadline { .. } => Reason::Deadline,
        }
    }
}
