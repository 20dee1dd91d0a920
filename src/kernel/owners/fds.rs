//! One file descriptor table of one process, read through procfs.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;

use super::super::error::Error;
use super::super::proc_root::ProcRoot;
use super::super::text::link_inode;

/// Room for directory entries: at 24 bytes each some 600 a call, so that the call itself no longer counts.
const ENTRIES_BUFFER: usize = 16 * 1024;
/// Room for a link target. Only `socket:[4294967295]` matters; a longer target is cut and is no socket.
const TARGET_MAX: usize = 32;

/// Gaps that a table may have to be read by counting up: one for so many open fds. A gap costs at most what reading an fd
/// does, and listing a quarter of that for each, so counting would pay up to one in four; half as many, because a table
/// that is given up on costs both.
const GAPS_SHARE: u64 = 8;

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
    /// Not this time: we have no fd or no memory left, say. It may be readable in the next round.
    Failed,
}

impl From<Errno> for Unreadable {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::SRCH => Self::Vanished,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            _ => Self::Failed,
        }
    }
}

impl From<Error> for Unreadable {
    fn from(error: Error) -> Self {
        match error {
            Error::File { source, .. } => Errno::from_io_error(&source).map_or(Self::Failed, Self::from),
            _ => Self::Failed,
        }
    }
}

/// What is behind an fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nothing: it is not open.
    Closed,
    /// The socket with this inode.
    Socket(u32),
    /// Anything else.
    Other,
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

    /// What is behind `fd`.
    pub fn target(&self, fd: u32) -> Result<Target, Unreadable> {
        let mut digits = [0; DECIMAL_MAX];
        let mut target = [0; TARGET_MAX];
        match readlinkat_raw(&self.0, decimal(fd, &mut digits), &mut target) {
            Ok(length) => {
                let inode = link_inode(&target[..length], "socket").and_then(|inode| inode.try_into().ok());
                Ok(inode.map_or(Target::Other, Target::Socket))
            }
            Err(Errno::NOENT) => Ok(Target::Closed),
            Err(errno @ (Errno::SRCH | Errno::ACCESS | Errno::PERM)) => Err(errno.into()),
            // Sockets have short names. What has none that fits, such as a directory deeper than PATH_MAX, is no socket.
            Err(_) => Ok(Target::Other),
        }
    }

    /// Inode of the socket behind `fd`; `None` where `fd` is closed or no socket.
    pub fn socket(&self, fd: u32) -> Result<Option<u32>, Unreadable> {
        match self.target(fd)? {
            Target::Socket(inode) => Ok(Some(inode)),
            Target::Closed | Target::Other => Ok(None),
        }
    }

    /// Every open fd, and in between some that are not. `each` says whether it is open.
    ///
    /// The lowest free number is the next to be handed out, so most tables have few gaps: counting up until all open
    /// fds have been met spares listing them, which costs a quarter of a cold walk. What is not met that way is listed.
    pub fn for_each(&self, mut each: impl FnMut(u32) -> Result<bool, Unreadable>) -> Result<(), Unreadable> {
        let count = self.count();
        let numbers_max = count + count / GAPS_SHARE;
        let (mut next, mut open) = (0, 0);
        while open < count && u64::from(next) < numbers_max {
            open += u64::from(each(next)?);
            next += 1;
        }
        // Fds that came or went meanwhile have spoiled the count.
        if open > 0 && open == self.count() { Ok(()) } else { self.list_from(next, each) }
    }

    /// Every open fd from `first` on, in no order.
    fn list_from(
        &self,
        first: u32,
        mut each: impl FnMut(u32) -> Result<bool, Unreadable>,
    ) -> Result<(), Unreadable> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); ENTRIES_BUFFER];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = std::str::from_utf8(entry.file_name().to_bytes());
            if let Some(fd) = name.ok().and_then(|name| name.parse().ok())
                && fd >= first
            {
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

/// Room for a u32 in decimal digits and the NUL after it.
const DECIMAL_MAX: usize = 11;

/// `number` as a path, without the allocation of `to_string` and without the copy that a path without a NUL costs: a
/// cold start does this for every fd of the host.
fn decimal(number: u32, digits: &mut [u8; DECIMAL_MAX]) -> &CStr {
    let mut rest = number;
    let mut start = DECIMAL_MAX - 1;
    digits[start] = 0;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return CStr::from_bytes_with_nul(&digits[start..]).unwrap_or_default();
        }
    }
}

/// Whether thread `tid` shares the fd table of its process. Where kcmp has no answer or may not be asked, equal counts
/// must do.
pub fn shares_table(root: &ProcRoot, has_kcmp: bool, pid: u32, tid: u32) -> bool {
    has_kcmp.then(|| super::kcmp::same_files(pid, tid)).flatten().unwrap_or_else(|| {
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
            assert_eq!(decimal(number, &mut [0; DECIMAL_MAX]).to_str(), Ok(number.to_string().as_str()));
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
                Ok(true)
            })
            .unwrap();
        assert!(seen.contains(&fd));
        assert_eq!(
            FdDirectory::open(&root, TableName { pid: u32::MAX, tid: None }).unwrap_err(),
            Unreadable::Vanished
        );
    }

    #[test]
    fn a_name_that_cannot_be_told_is_no_socket() {
        const LEVELS: usize = 20;
        let name = "x".repeat(250);
        let top = tempfile::tempdir().unwrap();
        let mut deep = OwnedFd::from(std::fs::File::open(top.path()).unwrap());
        for _ in 0..LEVELS {
            rustix::fs::mkdirat(&deep, &name, Mode::RWXU).unwrap();
            deep = openat(&deep, &name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .unwrap();
        }
        let fd = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&deep)).unwrap();
        let table =
            FdDirectory::open(&ProcRoot::new("/proc"), TableName { pid: std::process::id(), tid: None })
                .unwrap();
        assert_eq!(table.target(fd), Ok(Target::Other));
    }

    #[test]
    fn gaps_hide_nothing() {
        const FAR: u32 = 1000;
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let far = rustix::io::fcntl_dupfd_cloexec(&socket, FAR.cast_signed()).unwrap();
        let far = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&far)).unwrap();
        let table =
            FdDirectory::open(&ProcRoot::new("/proc"), TableName { pid: std::process::id(), tid: None })
                .unwrap();
        let mut open = Vec::new();
        table
            .for_each(|fd| {
                let is_open = table.target(fd)? != Target::Closed;
                open.extend(is_open.then_some(fd));
                Ok(is_open)
            })
            .unwrap();
        assert!(open.contains(&far), "{open:?}");
        assert_eq!(open.iter().filter(|fd| **fd == far).count(), 1, "each is met once");
    }
}
