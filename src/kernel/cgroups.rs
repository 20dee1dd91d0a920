//! cgroup2 ids to paths, and `sock` of memory.stat.

use std::fs;
use std::path::{Path, PathBuf};

use hashbrown::{HashMap, HashSet};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};

use super::error::Error;
use super::text;
use crate::sample::Reason;

/// Where systemd mounts cgroup2 on hybrid hosts, below the cgroup root.
const HYBRID_MOUNT: &str = "unified";
/// Every cgroup2 root has this file, and no cgroup v1 hierarchy has it.
const CGROUP2_MARK: &str = "cgroup.controllers";
/// Directories one search may visit: more than any host has that still works, and a bound on a pathological tree.
pub(super) const DIRECTORIES_MAX: usize = 200_000;

/// The cgroup2 tree.
#[derive(Debug)]
pub struct Cgroups {
    mount: Option<PathBuf>,
    paths: HashMap<u64, String>,
    /// Ids that a search of the whole tree did not find: removed, or outside the exporter's cgroup namespace. A socket's
    /// cgroup is older than the socket, so they will not turn up later.
    gone: HashSet<u64>,
}

impl Cgroups {
    /// The cgroup2 hierarchy at `root` (`/sys/fs/cgroup`), or below it on hybrid hosts.
    pub fn new(root: &Path) -> Self {
        let mount = [root.to_owned(), root.join(HYBRID_MOUNT)]
            .into_iter()
            .find(|directory| directory.join(CGROUP2_MARK).exists());
        Self { mount, paths: HashMap::new(), gone: HashSet::new() }
    }

    /// Where cgroup2 is mounted, if it is.
    pub fn mount(&self) -> Option<&Path> {
        self.mount.as_deref()
    }

    /// Makes sure that the paths of `wanted` are known, as far as these cgroups still exist.
    pub fn resolve(&mut self, wanted: &[u64]) -> Result<(), Error> {
        self.paths.retain(|id, _| wanted.contains(id));
        self.gone.retain(|id| wanted.contains(id));
        let is_unknown = |id: &u64| !self.paths.contains_key(id) && !self.gone.contains(id);
        let mut missing: HashSet<u64> = wanted.iter().copied().filter(is_unknown).collect();
        let Some(mount) = &self.mount else { return Ok(()) };
        if missing.is_empty() {
            return Ok(());
        }
        let file = |path: &Path, errno: rustix::io::Errno| Error::File {
            path: path.to_owned(),
            source: errno.into(),
        };
        let root = rustix::fs::stat(mount).map_err(|errno| file(mount, errno))?.st_ino;
        if missing.remove(&root) {
            self.paths.insert(root, "/".to_owned());
        }
        let mut pending = vec![PathBuf::new()];
        let mut visited = 0;
        while let Some(relative) = pending.pop() {
            visited += 1;
            if missing.is_empty() || visited > DIRECTORIES_MAX {
                break;
            }
            let path = mount.join(&relative);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            // A cgroup removed meanwhile is no failure, but the root must be there.
            let directory = match rustix::fs::openat(CWD, &path, flags, Mode::empty()).and_then(Dir::new) {
                Ok(directory) => directory,
                Err(_) if visited > 1 => continue,
                Err(errno) => return Err(file(&path, errno)),
            };
            for entry in directory {
                let Ok(entry) = entry else { break };
                let name = entry.file_name().to_bytes();
                if entry.file_type() != FileType::Directory || name == b"." || name == b".." {
                    continue;
                }
                let child = relative.join(std::ffi::OsStr::from_bytes(name));
                if missing.remove(&entry.ino()) {
                    let path = format!("/{}", text::lossless(child.as_os_str().as_bytes()));
                    self.paths.insert(entry.ino(), path);
                }
                pending.push(child);
            }
        }
        self.gone.extend(missing);
        Ok(())
    }

    /// The path of a cgroup. One that was removed while its sockets live on is named by its id.
    pub fn path(&self, id: u64) -> String {
        self.paths.get(&id).cloned().unwrap_or_else(|| format!("removed:{id}"))
    }

    /// `sock` of a cgroup's memory.stat, bytes, its descendants included. `None` where the memory controller is not on
    /// cgroup2 or the cgroup is gone.
    pub fn sock_memory(&self, id: u64) -> Result<Option<u64>, Error> {
        let (Some(mount), Some(path)) = (&self.mount, self.paths.get(&id)) else { return Ok(None) };
        let path = mount.join(path.trim_start_matches('/')).join("memory.stat");
        match fs::read_to_string(&path) {
            Ok(text) => sock(&text).map_err(|what| Error::Malformed { path, what }),
            Err(source) => {
                let error = Error::File { path, source };
                if error.reason() == Reason::Missing { Ok(None) } else { Err(error) }
            }
        }
    }
}

use std::os::unix::ffi::OsStrExt;

/// `sock` of a memory.stat; `None` in the root's, which has none on some kernels.
fn sock(text: &str) -> Result<Option<u64>, String> {
    text.lines()
        .find_map(|line| line.strip_prefix("sock "))
        .map(|value| value.trim().parse().map_err(|error| format!("sock {value:?}: {error}")))
        .transpose()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn tree(below: &str) -> (tempfile::TempDir, Cgroups) {
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path().join(below);
        fs::create_dir_all(mount.join("system.slice/nginx.service")).unwrap();
        fs::write(mount.join(CGROUP2_MARK), "").unwrap();
        fs::write(mount.join("system.slice/memory.stat"), "anon 5\nsock 4096\nslab 1\n").unwrap();
        let cgroups = Cgroups::new(directory.path());
        (directory, cgroups)
    }

    fn inode(directory: &tempfile::TempDir, path: &str) -> u64 {
        fs::metadata(directory.path().join(path)).unwrap().ino()
    }

    #[test]
    fn ids_are_directory_inodes() {
        for below in ["", HYBRID_MOUNT] {
            let (directory, mut cgroups) = tree(below);
            let at = |path: &str| inode(&directory, Path::new(below).join(path).to_str().unwrap());
            let (root, slice, service) = (at(""), at("system.slice"), at("system.slice/nginx.service"));
            cgroups.resolve(&[root, slice, service, 999_999]).unwrap();
            assert_eq!(cgroups.path(root), "/");
            assert_eq!(cgroups.path(service), "/system.slice/nginx.service");
            assert_eq!(cgroups.path(999_999), "removed:999999");
            assert_eq!(cgroups.sock_memory(slice).unwrap(), Some(4096));
            assert_eq!(cgroups.sock_memory(service).unwrap(), None, "no memory controller");
        }
    }

    #[test]
    fn without_cgroup2_there_is_nothing_to_resolve() {
        let directory = tempfile::tempdir().unwrap();
        let mut cgroups = Cgroups::new(directory.path());
        assert_eq!(cgroups.mount(), None);
        cgroups.resolve(&[1]).unwrap();
        assert_eq!(cgroups.sock_memory(1).unwrap(), None);
    }

    #[test]
    fn memory_stat() {
        assert_eq!(sock("anon 1\nsock 12\n"), Ok(Some(12)));
        assert_eq!(sock("anon 1\n"), Ok(None));
        assert!(sock("sock many\n").is_err());
    }
}
