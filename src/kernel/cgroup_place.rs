//! Cgroup paths as the host has them, where the exporter is in a cgroup namespace of its own.
//!
//! The kernel writes `/proc/PID/cgroup` as seen from the reader's cgroup namespace (`cgroup_path_ns`, `kernel/cgroup/cgroup.c`): from
//! inside a container, everything but its own processes begins with `/..`. With the host's cgroup2 tree mounted, our own place in
//! it is found once, and such paths are turned into those of the tree, in which quotas and freezers can be read.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::cgroups::DIRECTORIES_MAX;
use super::proc_root::ProcRoot;

/// How lines about cgroup2 begin.
const UNIFIED: &[u8] = b"0::";
/// The processes of one cgroup.
const PROCESSES: &str = "cgroup.procs";

/// The root of our cgroup namespace in the mounted cgroup2 tree.
#[derive(Debug, Clone, Default)]
pub struct CgroupPlace {
    /// `None` where paths need no change, or where we are not in the tree that is mounted.
    root: Option<PathBuf>,
}

impl CgroupPlace {
    /// Looks for this process in the cgroup2 tree at `mount`.
    pub fn find(procfs: &ProcRoot, mount: Option<&Path>) -> Self {
        Self { root: mount.and_then(|mount| namespace_root(procfs, mount)) }
    }

    /// `/proc/PID/cgroup`, its line about cgroup2 with the path in the mounted tree. Empty where it cannot be read.
    pub fn cgroups(&self, procfs: &ProcRoot, pid: u32) -> Vec<u8> {
        let text = procfs.bytes(format!("{pid}/cgroup")).unwrap_or_default();
        let Some(root) = &self.root else { return text };
        let lines: Vec<_> = text.split(|byte| *byte == b'\n').map(|line| translated(root, line)).collect();
        lines.join(&b'\n')
    }
}

/// A line with the path in the tree. One that leads above the tree's root, or is about another hierarchy, stays as it is.
fn translated<'a>(root: &Path, line: &'a [u8]) -> Cow<'a, [u8]> {
    let Some(path) = line.strip_prefix(UNIFIED) else { return Cow::Borrowed(line) };
    let mut absolute = root.to_owned();
    for part in Path::new(OsStr::from_bytes(path)).components() {
        match part {
            Component::Normal(name) => absolute.push(name),
            Component::ParentDir if absolute.pop() => {}
            Component::ParentDir => return Cow::Borrowed(line),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Cow::Owned([UNIFIED, absolute.as_os_str().as_bytes()].concat())
}

fn namespace_root(procfs: &ProcRoot, mount: &Path) -> Option<PathBuf> {
    let pid = fs::read_link(procfs.join("self")).ok()?;
    let pid = pid.to_str()?;
    let text = procfs.bytes("self/cgroup").ok()?;
    let path = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(UNIFIED))?;
    let own = Path::new(OsStr::from_bytes(path)).strip_prefix("/").ok()?;
    if own.components().any(|part| part == Component::ParentDir) {
        // Moved out of the namespace's root after the start: then paths say less than is needed.
        return None;
    }
    if holds(&mount.join(own), pid) {
        return None;
    }
    let leaf = search(mount, pid)?;
    // The namespace's root is as far above us as our own path is long.
    let root = leaf.ancestors().nth(own.components().count())?;
    leaf.ends_with(own).then(|| Path::new("/").join(root))
}

/// The cgroup of this process, relative to the mount.
fn search(mount: &Path, pid: &str) -> Option<PathBuf> {
    let mut pending = vec![PathBuf::new()];
    let mut visited = 0;
    while let Some(relative) = pending.pop() {
        visited += 1;
        if visited > DIRECTORIES_MAX {
            return None;
        }
        let path = mount.join(&relative);
        if holds(&path, pid) {
            return Some(relative);
        }
        // A cgroup that was removed meanwhile was not ours.
        let children = fs::read_dir(&path).into_iter().flatten().flatten();
        let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        pending.extend(children.filter(is_directory).map(|entry| relative.join(entry.file_name())));
    }
    None
}

fn holds(cgroup: &Path, pid: &str) -> bool {
    fs::read_to_string(cgroup.join(PROCESSES)).is_ok_and(|pids| pids.lines().any(|line| line == pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A procfs in which we are 7 and see ourselves at `own`, and a tree in which we are at `place`.
    fn host(own: &str, place: &str) -> (tempfile::TempDir, ProcRoot, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (proc, mount) = (directory.path().join("proc"), directory.path().join("cgroup"));
        for pid in ["7", "8"] {
            fs::create_dir_all(proc.join(pid)).unwrap();
        }
        std::os::unix::fs::symlink("7", proc.join("self")).unwrap();
        fs::write(proc.join("7/cgroup"), format!("4:memory:/x\n0::{own}\n")).unwrap();
        for cgroup in
            ["", "system.slice/a.service", "kubepods/pod1/c1", "kubepods/pod1/c1/inner", "kubepods/pod2/c2"]
        {
            fs::create_dir_all(mount.join(cgroup)).unwrap();
            fs::write(mount.join(cgroup).join(PROCESSES), "1\n70\n77\n").unwrap();
        }
        fs::write(mount.join(place).join(PROCESSES), "70\n7\n").unwrap();
        let root = ProcRoot::new(proc);
        (directory, root, mount)
    }

    #[track_caller]
    fn check(own: &str, place: &str, shown: &str, wanted: &str) {
        let (_directory, procfs, mount) = host(own, place);
        fs::write(procfs.join("8/cgroup"), format!("4:memory:/../y\n0::{shown}\n")).unwrap();
        let text = CgroupPlace::find(&procfs, Some(&mount)).cgroups(&procfs, 8);
        assert_eq!(String::from_utf8(text).unwrap(), format!("4:memory:/../y\n0::{wanted}\n"));
    }

    #[test]
    fn paths_from_a_container_are_those_of_the_host() {
        check("/", "kubepods/pod1/c1", "/../../pod2/c2", "/kubepods/pod2/c2");
        check("/", "kubepods/pod1/c1", "/../../../system.slice/a.service", "/system.slice/a.service");
        check("/", "kubepods/pod1/c1", "/../../..", "/");
        check("/", "kubepods/pod1/c1", "/../c9", "/kubepods/pod1/c9");
        check("/", "kubepods/pod1/c1", "/", "/kubepods/pod1/c1");
        check("/", "kubepods/pod1/c1", "/../../../x (deleted)", "/x (deleted)");
        // Our own path leads further down than the namespace's root.
        check("/inner", "kubepods/pod1/c1/inner", "/../../pod2/c2", "/kubepods/pod2/c2");
    }

    #[test]
    fn paths_that_need_no_change_or_cannot_have_one_stay() {
        // The host's cgroup namespace: we are where we see ourselves.
        check("/system.slice/a.service", "system.slice/a.service", "/kubepods/pod2/c2", "/kubepods/pod2/c2");
        // Only the container's own tree is mounted: what is outside of it has no path there.
        check("/", "", "/../../pod2/c2", "/../../pod2/c2");
        // Above the tree's root.
        check("/", "kubepods/pod1/c1", "/../../../../x", "/../../../../x");
        // Moved out of the namespace's root.
        check("/../c9", "kubepods/pod1/c1", "/../c2", "/../c2");
        // Elsewhere than our own path ends.
        check("/outer", "kubepods/pod1/c1/inner", "/../c2", "/../c2");
    }

    #[test]
    fn without_cgroup2_nothing_changes() {
        let (_directory, procfs, mount) = host("/", "kubepods/pod1/c1");
        let shown = b"4:memory:/x\n0::/\n";
        assert_eq!(CgroupPlace::find(&procfs, None).cgroups(&procfs, 7), shown);
        assert_ne!(CgroupPlace::find(&procfs, Some(&mount)).cgroups(&procfs, 7), shown);
        assert_eq!(CgroupPlace::default().cgroups(&procfs, 9), b"", "it has ended");
    }
}
