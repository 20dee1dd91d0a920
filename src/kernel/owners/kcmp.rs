//! kcmp(2), which no crate wraps safely.
#![allow(unsafe_code)]

use super::super::proc_root::ProcRoot;
use super::super::text::kernel_version;

/// Before Linux 5.7 kcmp waits for `cred_guard_mutex`, which an exec of a file that is never delivered (FUSE, NFS) holds
/// for ever. One release more, to be sure.
const SAFE_FROM: (u32, u32) = (5, 8);
/// `KCMP_FILES`
const FILES: libc::c_int = 2;

/// Whether kcmp may be asked about the pids of the procfs at `root`: it takes them for the same processes, and no
/// process can make it wait.
pub fn is_safe(root: &ProcRoot) -> bool {
    let version = root
        .parse("sys/kernel/osrelease", |text| kernel_version(text).ok_or_else(|| "no version".to_owned()));
    root.has_own_pids() && version.is_ok_and(|version| version >= SAFE_FROM)
}

/// Whether two tasks share one fd table; `None` where the kernel has no kcmp or does not let us ask.
pub fn same_files(a: u32, b: u32) -> Option<bool> {
    let (a, b) = (libc::pid_t::try_from(a).ok()?, libc::pid_t::try_from(b).ok()?);
    // SAFETY: KCMP_FILES takes two pids and ignores the last two arguments; it reads and writes no memory of ours.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, a, b, FILES, 0, 0) };
    (order >= 0).then_some(order == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_where_it_can_hang_are_not_asked() {
        let directory = tempfile::tempdir().unwrap();
        let root = ProcRoot::new(directory.path());
        std::os::unix::fs::symlink(std::process::id().to_string(), root.join("self")).unwrap();
        assert!(!is_safe(&root), "unknown");
        std::fs::create_dir_all(root.join("sys/kernel")).unwrap();
        for (release, want) in
            [("5.4.0-150-generic\n", false), ("5.7.19\n", false), ("5.8.0\n", true), ("6.18.44-fc\n", true)]
        {
            std::fs::write(root.join("sys/kernel/osrelease"), release).unwrap();
            assert_eq!(is_safe(&root), want, "{release}");
        }
        std::fs::remove_file(root.join("self")).unwrap();
        assert!(!is_safe(&root), "other pids");
    }

    #[test]
    fn threads_share_unless_they_unshare() {
        let own = std::process::id();
        assert_eq!(same_files(own, own), Some(true));
        assert_eq!(same_files(own, u32::MAX), None);
    }
}
