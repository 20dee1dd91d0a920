//! Finding network namespaces and entering them. Nothing here outlives a round: a held descriptor or socket pins a
//! namespace and its interfaces after `ip netns del`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
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
    /// How to reach it, the most lasting first.
    pub handles: Vec<Handle>,
}

/// Ways kept to one namespace. A process may exit before its turn comes, and with it one way.
const HANDLES_MAX: usize = 4;

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// The exporter's own first.
    pub namespaces: Vec<Namespace>,
    /// Processes that let us see their namespace.
    pub seen: u64,
    /// Whether there was a search at all, or none was wanted. Otherwise nothing is known of other namespaces.
    pub is_whole: bool,
    /// Processes that did not (EACCES): CAP_SYS_PTRACE is missing, or a security module objects.
    pub denied: u64,
}

impl Found {
    /// The exporter's own namespace, where no other is wanted.
    pub fn own() -> Self {
        let own = Namespace { inode: 0, handles: vec![Handle::Own] };
        Self { namespaces: vec![own], seen: 1, denied: 0, is_whole: true }
    }

    /// Searches the processes and the nsfs mounts.
    pub fn all(root: &ProcRoot, pids: &[u32]) -> Result<Self, Error> {
        let own_path = root.join("self/ns/net");
        let own = rustix::fs::stat(&own_path)
            .map_err(|errno| Error::File { path: own_path, source: errno.into() })?
            .st_ino;
        let mut handles: HashMap<u64, Vec<Handle>> = HashMap::from([(own, vec![Handle::Own])]);
        let mut found = Self { is_whole: true, ..Self::default() };
        let mut add = |inode, handle| {
            let known = handles.entry(inode).or_default();
            if inode != own && known.len() < HANDLES_MAX {
                known.push(handle);
            }
        };
        // A mount outlives any process.
        for (inode, path) in mounted(root) {
            add(inode, Handle::Mount(path));
        }
        for pid in pids {
            match of_process(root, *pid) {
                Ok(Some(inode)) => {
                    found.seen += 1;
                    add(inode, Handle::Process(*pid));
                }
                Err(Errno::ACCESS | Errno::PERM) => found.denied += 1,
                // It has exited meanwhile.
                Ok(None) | Err(_) => {}
            }
        }
        found.namespaces = handles.into_iter().map(|(inode, handles)| Namespace { inode, handles }).collect();
        found.namespaces.sort_unstable_by_key(|namespace| (namespace.inode != own, namespace.inode));
        Ok(found)
    }
}

/// Inode of the namespace that a process is in; `None` for one that is about to go.
fn of_process(root: &ProcRoot, pid: u32) -> Result<Option<u64>, Errno> {
    match rustix::fs::stat(root.join(format!("{pid}/ns/net"))) {
        Ok(stat) => Ok(Some(stat.st_ino)),
        // Its first thread has exited and others go on: they show it.
        Err(Errno::NOENT) => Ok(tasks(root, pid)
            .filter_map(|tid| rustix::fs::stat(root.join(format!("{pid}/task/{tid}/ns/net"))).ok())
            .map(|stat| stat.st_ino)
            .next()),
        Err(errno) => Err(errno),
    }
}

fn tasks(root: &ProcRoot, pid: u32) -> impl Iterator<Item = u32> {
    let tasks = std::fs::read_dir(root.join(format!("{pid}/task"))).into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok())
}

/// Namespaces kept by a bind mount (`ip netns add`, container engines), as our mount namespace and that of pid 1
/// show them.
fn mounted(root: &ProcRoot) -> Vec<(u64, PathBuf)> {
    let mut mounts = Vec::new();
    for (process, prefix) in [("self", None), ("1", Some(root.join("1/root")))] {
        // Not being allowed to read pid 1's is the rule without privileges; then its mounts could not be entered either.
        let Ok(text) = root.bytes(format!("{process}/mountinfo")) else { continue };
        for (inode, mount_point) in net_mounts(&text) {
            // In one mount namespace with pid 1, its mounts are ours, and ours need no leave to look into its root.
            if prefix.is_some() && mounts.iter().any(|(known, _)| *known == inode) {
                continue;
            }
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
        .filter_map(|mount| Some((link_inode(mount.root.as_bytes(), "net")?, unescaped(&mount.mount_point))))
        .collect()
}

/// A path of mountinfo with its octal escapes (space, tab, newline, backslash) undone; the procfs crate leaves them.
fn unescaped(path: &Path) -> PathBuf {
    let mut bytes = path.as_os_str().as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    while let Some((first, rest)) = bytes.split_first() {
        let octal = rest.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..b'8').contains(digit)));
        let byte = octal.filter(|_| *first == b'\\').and_then(|digits| {
            u8::try_from(digits.iter().fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'))).ok()
        });
        plain.push(byte.unwrap_or(*first));
        bytes = if byte.is_some() { &rest[3..] } else { rest };
    }
    PathBuf::from(OsString::from_vec(plain))
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
    let mut failure = None;
    for handle in &namespace.handles {
        match enter_by(root, namespace.inode, handle) {
            Ok(()) => return Ok(()),
            Err(NotEntered::Vanished) => {}
            Err(error @ NotEntered::Failed(_)) => failure = failure.or(Some(error)),
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    // Whoever showed it has gone; somebody else may be in it still.
    let pids = root.pids().map_err(NotEntered::Failed)?;
    let another = pids.into_iter().find(|pid| of_process(root, *pid) == Ok(Some(namespace.inode)));
    another.map_or(Err(NotEntered::Vanished), |pid| enter_by(root, namespace.inode, &Handle::Process(pid)))
}

fn enter_by(root: &ProcRoot, inode: u64, handle: &Handle) -> Result<(), NotEntered> {
    let paths = match handle {
        Handle::Own => return Ok(()),
        Handle::Mount(path) => vec![path.clone()],
        Handle::Process(pid) => {
            let tasks = tasks(root, *pid).map(|tid| root.join(format!("{pid}/task/{tid}/ns/net")));
            std::iter::once(root.join(format!("{pid}/ns/net"))).chain(tasks).collect()
        }
    };
    for path in paths {
        match enter_file(&path, inode) {
            Err(NotEntered::Vanished) => {}
            result => return result,
        }
    }
    Err(NotEntered::Vanished)
}

fn enter_file(path: &Path, inode: u64) -> Result<(), NotEntered> {
    let file = open(path).map_err(|errno| not_entered(path, errno))?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| not_entered(path, errno))?;
    // The process may have exited and its pid, or the mount point, may now stand for something else.
    if stat.st_ino != inode {
        return Err(NotEntered::Vanished);
    }
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(file.as_fd(), kind).map_err(|errno| match errno {
        // No longer a namespace file: it was unmounted.
        Errno::INVAL => NotEntered::Vanished,
        errno => NotEntered::Failed(Error::Call { call: "setns(CLONE_NEWNET)", source: errno.into() }),
    })
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
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
    fn octal_escapes_are_undone() {
        let check = |path: &str, want: &str| assert_eq!(unescaped(Path::new(path)), Path::new(want));
        check(r"/run/a\040b\134c\011", "/run/a b\\c\t");
        check(r"/run/plain", "/run/plain");
        check(r"/run/\9\04", r"/run/\9\04");
        check(r"/run/\777", r"/run/\777");
    }

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
        assert_eq!(found[1], (4_026_532_555, PathBuf::from("/run/docker/netns/a b")));
    }
}
