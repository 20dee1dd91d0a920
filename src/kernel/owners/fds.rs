//! One file descriptor table of one process, read through procfs.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;

use super::super::proc_root::ProcRoot;
use super::super::text::link_inode;

/// Room for directory entries: at 24 bytes each some 600 a call, so that the call itself no longer counts.
const ENTRIES_BUFFER: usize = 16 * 1024;
/// Room for a link target. Only `socket:[4294967295]` matters; a longer target is cut and is no socket.
const TARGET_MAX: usize = 32;

/// Whose table: a process, or a thread that does not share its process's table (`unshare(CLONE_FILES)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableName {
    /// Process.
    pub pid: u32,
    /// Thread, where the table is a thread's own.
    pub tid: Option<u32>,
}

/// Why a table could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// The process has exited.
    Vanished,
    /// We may not look: CAP_DAC_READ_SEARCH or CAP_SYS_PTRACE is missing, or a security module objects.
    Denied,
}

impl From<Errno> for Unreadable {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ACCESS | Errno::PERM => Self::Denied,
            _ => Self::Vanished,
        }
    }
}

/// An open `/proc/PID/fd`.
#[derive(Debug)]
pub struct FdDirectory(OwnedFd);

impl FdDirectory {
    /// Opens the table.
    pub fn open(root: &ProcRoot, name: TableName) -> Result<Self, Unreadable> {
        let path = match name {
            TableName { pid, tid: None } => root.join(format!("{pid}/fd")),
            TableName { pid, tid: Some(tid) } => root.join(format!("{pid}/task/{tid}/fd")),
        };
        Ok(Self(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Inode of the socket behind `fd`; `None` where `fd` is closed or no socket.
    pub fn socket(&self, fd: u32) -> Result<Option<u32>, Unreadable> {
        let mut digits = [0; 11];
        let mut target = [0; TARGET_MAX];
        match readlinkat_raw(&self.0, decimal(fd, &mut digits), &mut target) {
            Ok(length) => Ok(link_inode(&target[..length], "socket").and_then(|inode| inode.try_into().ok())),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Every open fd, in no order. `each` says whether to go on.
    pub fn for_each(&self, mut each: impl FnMut(u32) -> Result<(), Unreadable>) -> Result<(), Unreadable> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); ENTRIES_BUFFER];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        while let Some(entry) = entries.next() {
            let name = entry?.file_name().to_bytes().to_owned();
            if let Some(fd) = std::str::from_utf8(&name).ok().and_then(|name| name.parse().ok()) {
                each(fd)?;
            }
        }
        Ok(())
    }

    /// Open fds, which st_size tells since Linux 6.2; 0 before.
    pub fn count(&self) -> u64 {
        rustix::fs::fstat(&self.0).map_or(0, |stat| stat.st_size.try_into().unwrap_or(0))
    }
}

/// `number` in decimal digits, without the allocation of `to_string`: a cold start does this for every fd of the host.
fn decimal(number: u32, digits: &mut [u8; 11]) -> &[u8] {
    let mut rest = number;
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &digits[start..];
        }
    }
}

/// Whether thread `tid` shares the fd table of its process. Where the kernel has no kcmp, or takes other pids than
/// procfs shows (`has_own_pids`), equal counts must do.
pub fn shares_table(root: &ProcRoot, has_own_pids: bool, pid: u32, tid: u32) -> bool {
    has_own_pids.then(|| super::kcmp::same_files(pid, tid)).flatten().unwrap_or_else(|| {
        let count = |tid| FdDirectory::open(root, TableName { pid, tid }).map(|table| table.count());
        count(Some(tid)) == count(None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_digits() {
        for number in [0, 7, 10, 4096, u32::MAX] {
            assert_eq!(decimal(number, &mut [0; 11]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn our_own_table_shows_our_own_socket() {
        use std::os::fd::AsRawFd;
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = u32::try_from(socket.as_raw_fd()).unwrap();
        let want = rustix::fs::fstat(&socket).unwrap().st_ino;
        let root = ProcRoot::new("/proc");
        let table = FdDirectory::open(&root, TableName { pid: std::process::id(), tid: None }).unwrap();
        assert_eq!(table.socket(fd).unwrap().map(u64::from), Some(want));
        assert_eq!(table.socket(999_999), Ok(None));
        let mut seen = Vec::new();
        table
            .for_each(|fd| {
                seen.push(fd);
                Ok(())
            })
            .unwrap();
        assert!(seen.contains(&fd));
        assert_eq!(
            FdDirectory::open(&root, TableName { pid: u32::MAX, tid: None }).unwrap_err(),
            Unreadable::Vanished
        );
    }
}
