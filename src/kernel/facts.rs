//! What this host allows, for the one line at start.

use super::cgroups::Cgroups;
use super::diag::ASKED_SINCE;
use super::myself;
use super::netns::Found;
use super::proc_root::ProcRoot;
use super::text;
use crate::sample::{BlindSpot, Capability};

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
    /// Permitted capabilities, by position in [`Capability::ALL`].
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
            capabilities: myself::permitted_capabilities(),
        }
    }

    /// What is missing, what is lost by it and the cure; empty where nothing is. `all_namespaces` as in
    /// [`Self::blind_spots`].
    pub fn missing(&self, all_namespaces: bool) -> Vec<String> {
        self.blind_spots(all_namespaces)
            .into_iter()
            .map(|BlindSpot { what, cure }| match cure {
                Some(cure) => format!("{what}: {cure}"),
                None => what,
            })
            .collect()
    }

    /// What cannot be seen here. `all_namespaces`: whether other network namespaces are wanted at all.
    pub fn blind_spots(&self, all_namespaces: bool) -> Vec<BlindSpot> {
        let [dac_read_search, sys_ptrace, sys_admin] = self.capabilities;
        let spot = |what: &str, cure: Option<&str>| BlindSpot {
            what: what.to_owned(),
            cure: cure.map(str::to_owned),
        };
        let mut spots = Vec::new();
        if !dac_read_search || !sys_ptrace {
            let cure = "give CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE, or run as root";
            spots.push(spot("other users' sockets stay unresolved", Some(cure)));
        }
        let unseen = match (all_namespaces, sys_admin) {
            (true, true) => None,
            (true, false) => Some((
                "other network namespaces are not sampled",
                "give CAP_SYS_ADMIN (under systemd with the drop-in netns.conf), or accept it with --netns own",
            )),
            (false, true) => Some(("other network namespaces are not looked at", "run with --netns all")),
            (false, false) => Some((
                "other network namespaces are not looked at",
                "run with --netns all and CAP_SYS_ADMIN (under systemd with the drop-in netns.conf)",
            )),
        };
        spots.extend(unseen.map(|(what, cure)| spot(what, Some(cure))));
        if self.cgroups == "none" {
            spots.push(spot("no cgroup rows", Some("there is no cgroup2 below --path.cgroupfs")));
        }
        if text::kernel_version(&self.kernel).is_some_and(|version| version < ASKED_SINCE) {
            let cure = "Linux 6.9 or later answers without holding up others";
            spots.push(spot("why sockets hold memory is not asked of this kernel", Some(cure)));
        }
        spots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unseen_namespaces_have_the_cure_that_fits() {
        #[track_caller]
        fn check(all_namespaces: bool, sys_admin: bool, expect: &[&str]) {
            let facts = Facts {
                kernel: "6.18.0".to_owned(),
                cgroups: "cgroup2",
                mptcp: true,
                namespaces: 2,
                capabilities: [true, true, sys_admin],
            };
            assert_eq!(facts.missing(all_namespaces), expect);
        }
        check(true, true, &[]);
        check(
            true,
            false,
            &[
                "other network namespaces are not sampled: give CAP_SYS_ADMIN (under systemd with the drop-in \
               netns.conf), or accept it with --netns own",
            ],
        );
        check(false, true, &["other network namespaces are not looked at: run with --netns all"]);
        check(
            false,
            false,
            &[
                "other network namespaces are not looked at: run with --netns all and CAP_SYS_ADMIN (under systemd \
               with the drop-in netns.conf)",
            ],
        );
    }
}
