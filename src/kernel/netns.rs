//! Finding network namespaces and entering them. Nothing here outlives a round: a held descriptor or socket pins a
//! namespace and its interfaces after `ip netns del`.

use std::io;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use procfs::FromBufRead;
use procfs::process::MountInfos;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::Error;
use super::proc_root::ProcRoot;
use super::text::link_inode;

/// How to reach a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handle {
    /// The exporter's own.
    Own,
    /// That of this process.
    Process(u32),
    /// A bind mount of its nsfs file.
    Mount(PathBuf),
}

/// A network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its nsfs inode; 0 for the exporter's own where no other is looked for.
    pub inode: u64,
    /// How to reach it.
    pub handle: Handle,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// The exporter's own first.
    pub namespaces: Vec<Namespace>,
    /// Processes that let us see their namespace.
    pub seen: u64,
    /// Processes that did not (EACCES): CAP_SYS_PTRACE is missing, or a security module objects.
    pub denied: u64,
}

impl Found {
    /// The exporter's own namespace and no search.
    pub fn own() -> Self {
        Self { namespaces: vec![Namespace { inode: 0, handle: Handle::Own }], seen: 1, denied: 0 }
    }

    /// Searches the processes and the nsfs mounts.
    pub fn all(root: &ProcRoot, pids: &[u32]) -> Result<Self, Error> {
        let own_path = root.join("self/ns/net");
        let own = rustix::fs::stat(&own_path)
            .map_err(|errno| Error::File { path: own_path, source: errno.into() })?
            .st_ino;
        let mut handles: HashMap<u64, Handle> = HashMap::from([(own, Handle::Own)]);
        let mut found = Self::default();
        for pid in pids {
            match rustix::fs::stat(root.join(format!("{pid}/ns/net"))) {
                Ok(stat) => {
                    found.seen += 1;
                    handles.entry(stat.st_ino).or_insert(Handle::Process(*pid));
                }
                Err(Errno::ACCESS | Errno::PERM) => found.denied += 1,
                // It has exited meanwhile.
                Err(_) => {}
            }
        }
        for (inode, path) in mounted(root) {
            if let Entry::Vacant(entry) = handles.entry(inode) {
                entry.insert(Handle::Mount(path));
            }
        }
        found.namespaces = handles.into_iter().map(|(inode, handle)| Namespace { inode, handle }).collect();
        found.namespaces.sort_unstable_by_key(|namespace| (namespace.inode != own, namespace.inode));
        Ok(found)
    }
}

/// Namespaces kept by a bind mount (`ip netns add`, container engines), as our mount namespace and that of pid 1
/// show them.
fn mounted(root: &ProcRoot) -> Vec<(u64, PathBuf)> {
    let mut mounts = Vec::new();
    for (process, prefix) in [("self", None), ("1", Some(root.join("1/root")))] {
        // Not being allowed to read pid 1's is the rule without privileges; then its mounts could not be entered either.
        let Ok(text) = root.bytes(format!("{process}/mountinfo")) else { continue };
        for (inode, mount_point) in net_mounts(&text) {
            let path = match &prefix {
                None => mount_point,
                Some(prefix) => prefix.join(mount_point.strip_prefix("/").unwrap_or(&mount_point)),
            };
            mounts.push((inode, path));
        }
    }
    mounts
}

/// The nsfs lines of a mountinfo whose root is `net:[INODE]`.
fn net_mounts(mountinfo: &[u8]) -> Vec<(u64, PathBuf)> {
    let is_nsfs = |line: &&[u8]| line.windows(8).any(|word| word == b" - nsfs ");
    // Hosts with containers have thousands of mounts: only these few lines are worth a full parse.
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter(is_nsfs)
        .filter_map(|line| MountInfos::from_buf_read(line).ok())
        .flatten()
        .filter_map(|mount| Some((link_inode(mount.root.as_bytes(), "net")?, mount.mount_point)))
        .collect()
}

/// Why a namespace was not entered.
#[derive(Debug)]
pub enum NotEntered {
    /// It has gone since the search.
    Vanished,
    /// It is there, and this keeps us out.
    Failed(Error),
}

/// Moves the calling thread into `namespace`. The thread stays there: use one that ends soon.
pub fn enter(root: &ProcRoot, namespace: &Namespace) -> Result<(), NotEntered> {
    let path = match &namespace.handle {
        Handle::Own => return Ok(()),
        Handle::Process(pid) => root.join(format!("{pid}/ns/net")),
        Handle::Mount(path) => path.clone(),
    };
    let file = open(&path).map_err(|errno| not_entered(&path, errno))?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| not_entered(&path, errno))?;
    // The process may have exited and its pid, or the mount point, may now stand for something else.
    if stat.st_ino != namespace.inode {
        return Err(NotEntered::Vanished);
    }
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).map_err(
        |errno| match errno {
            // No longer a namespace file: it was unmounted.
            Errno::INVAL => NotEntered::Vanished,
            errno => NotEntered::Failed(Error::Call { call: "setns(CLONE_NEWNET)", source: errno.into() }),
        },
    )
}

fn open(path: &Path) -> Result<std::os::fd::OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn not_entered(path: &Path, errno: Errno) -> NotEntered {
    match errno {
        Errno::NOENT | Errno::SRCH => NotEntered::Vanished,
        errno => NotEntered::Failed(Error::File { path: path.to_owned(), source: io::Error::from(errno) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_net_mounts_of_nsfs_count() {
        let mountinfo = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            30 22 0:4 net:[4026532321] /run/netns/blue rw shared:9 - nsfs nsfs rw\n\
            31 22 0:4 mnt:[4026532400] /run/snapd/ns/x.mnt rw - nsfs nsfs rw\n\
            32 22 0:4 net:[4026532555] /run/docker/netns/a\\040b rw - nsfs nsfs rw\n\
            33 22 0:4 broken";
        let found = net_mounts(mountinfo);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], (4_026_532_321, PathBuf::from("/run/netns/blue")));
        assert_eq!(found[1].0, 4_026_532_555);
    }
}
