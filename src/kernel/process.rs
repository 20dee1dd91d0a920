//! What a row says of one process, and what ownership needs to know of every process.

use procfs::process::{Stat, StatM};
use procfs::{FromBufRead, FromRead, ProcessCGroup, ProcessCGroups};

use super::cgroup_place::CgroupPlace;
use super::error::Error;
use super::proc_root::ProcRoot;
use super::text;
use crate::identity::Identity;
use crate::sample::ProcessInfo;

/// `PF_KTHREAD`: a kernel thread, which has no file descriptors.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// The part of `/proc/PID/stat` that ownership needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// Clock ticks since boot: tells a process from a later one with the same pid.
    pub start_time: u64,
    /// Threads, itself included.
    pub threads: i64,
    /// Whether it is a thread of the kernel.
    pub is_kernel_thread: bool,
}

/// Reads `/proc/PID/stat`.
pub fn stat(root: &ProcRoot, pid: u32) -> Result<ProcessStat, Error> {
    let relative = format!("{pid}/stat");
    let bytes = root.bytes(&relative)?;
    let stat = Stat::from_read(bytes.as_slice())
        .map_err(|error| Error::Malformed { path: root.join(relative), what: error.to_string() })?;
    Ok(ProcessStat {
        start_time: stat.starttime,
        threads: stat.num_threads,
        is_kernel_thread: stat.flags & KERNEL_THREAD != 0,
    })
}

/// `/proc/PID/comm` as text: bytes that are not UTF-8 become `\xNN`, so that nothing is lost. `None` once it has exited.
pub fn comm(root: &ProcRoot, pid: u32) -> Option<String> {
    let mut bytes = root.bytes(format!("{pid}/comm")).ok()?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Some(text::lossless(&bytes))
}

/// Resident set of `/proc/PID/statm`. Bytes; `None` once it has exited.
pub fn resident_memory(root: &ProcRoot, pid: u32, page_size: u64) -> Option<u64> {
    let bytes = root.bytes(format!("{pid}/statm")).ok()?;
    Some(StatM::from_read(bytes.as_slice()).ok()?.resident * page_size)
}

/// Labels of `skmem_process_info`; what cannot be read is empty.
pub fn info(root: &ProcRoot, place: &CgroupPlace, pid: u32) -> ProcessInfo {
    use std::os::unix::ffi::OsStrExt;
    let exe = std::fs::read_link(root.join(format!("{pid}/exe")))
        .map(|target| text::lossless(target.as_os_str().as_bytes()))
        .unwrap_or_default();
    let (cgroup, identity) = cgroup_of(&text::lossless(&place.cgroups(root, pid)));
    ProcessInfo {
        exe,
        cgroup,
        systemd_unit: identity.systemd_unit,
        container_id: identity.container_id,
        pod_uid: identity.pod_uid,
    }
}

/// The cgroup path to show, and what all hierarchies together say of who it is: on hybrid hosts the container stands
/// in the v1 paths only.
fn cgroup_of(text: &str) -> (String, Identity) {
    let Ok(cgroups) = ProcessCGroups::from_buf_read(text.as_bytes()) else { return Default::default() };
    let find = |wanted: &dyn Fn(&ProcessCGroup) -> bool| {
        cgroups.0.iter().find(|cgroup| wanted(cgroup)).map(|cgroup| cgroup.pathname.clone())
    };
    let unified = find(&|cgroup| cgroup.hierarchy == 0);
    let memory = find(&|cgroup| cgroup.controllers.iter().any(|name| name == "memory"));
    let mut identity = Identity::default();
    let systemd = find(&|cgroup| cgroup.controllers.iter().any(|name| name == "name=systemd"));
    for path in [&unified, &systemd, &memory].into_iter().flatten() {
        let here = Identity::of(path);
        for (known, said) in [
            (&mut identity.systemd_unit, here.systemd_unit),
            (&mut identity.container_id, here.container_id),
            (&mut identity.pod_uid, here.pod_uid),
        ] {
            if known.is_empty() {
                *known = said;
            }
        }
    }
    (unified.or(memory).unwrap_or_default(), identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hosts_name_the_container_in_v1_paths() {
        let id = "ab".repeat(32);
        let text =
            format!("4:memory:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/system.slice/x.service\n");
        let (cgroup, identity) = cgroup_of(&text);
        assert_eq!(cgroup, "/system.slice/x.service");
        assert_eq!(identity.container_id, id);
        assert_eq!(identity.systemd_unit, "x.service");
        assert_eq!(cgroup_of("3:cpu:/a\n2:cpu,memory:/b/c.service\n").0, "/b/c.service");
        assert_eq!(cgroup_of(""), Default::default());
    }
}
