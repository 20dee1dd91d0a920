//! What this host allows, for the one line at start.

use super::cgroups::Cgroups;
use super::myself;
use super::netns::Found;
use super::proc_root::ProcRoot;
use super::text;
use crate::sample::Capability;

/// What the exporter finds when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Kernel release.
    pub kernel: String,
    /// `cgroup2`, `hybrid` or `none`.
    pub cgroups: &'static str,
    /// Whether the kernel has MPTCP switched on.
    pub mptcp: bool,
    /// Network namespaces in sight.
    pub namespaces: usize,
    /// Effective capabilities, by position in [`Capability::ALL`].
    pub capabilities: [bool; Capability::ALL.len()],
}

impl Facts {
    /// Looks around.
    pub fn gather(root: &ProcRoot, cgroupfs: &std::path::Path) -> Self {
        let pids = root.pids().unwrap_or_default();
        let mount = Cgroups::new(cgroupfs);
        Self {
            kernel: root
                .parse("sys/kernel/osrelease", |text| Ok(text.trim().to_owned()))
                .unwrap_or_else(|_| "unknown".to_owned()),
            cgroups: match mount.mount() {
                None => "none",
                Some(path) if path == cgroupfs => "cgroup2",
                Some(_) => "hybrid",
            },
            mptcp: root.parse("sys/net/mptcp/enabled", text::switch).unwrap_or(false),
            namespaces: Found::all(root, &pids).map_or(1, |found| found.namespaces.len()),
            capabilities: myself::capabilities(),
        }
    }

    /// What is missing, what is lost by it and the cure; empty where nothing is.
    pub fn missing(&self) -> Vec<&'static str> {
        let [dac_read_search, sys_ptrace, sys_admin] = self.capabilities;
        let mut missing = Vec::new();
        if !dac_read_search || !sys_ptrace {
            missing.push(
                "other users' sockets stay unresolved: give CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE, or run as root",
            );
        }
        if !sys_admin {
            missing.push(
                "other network namespaces are not sampled: give CAP_SYS_ADMIN, or accept it with --netns own",
            );
        }
        if self.cgroups == "none" {
            missing.push("no cgroup rows: no cgroup2 below --path.cgroupfs");
        }
        missing
    }
}
