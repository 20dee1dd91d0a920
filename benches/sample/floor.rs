//! The least any reader of the kernel must do, with nothing done about the answer.

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use skmem_exporter::kernel::diag::Query;

use crate::Result;
use crate::figures::Seen;

/// The kernel fills at most 32 KiB of it.
const DATAGRAM_MAX: usize = 64 * 1024;
/// `sizeof(struct nlmsghdr)`: length (u32), type (u16), flags (u16), sequence and port (u32 each).
const HEADER_LEN: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Room for directory entries, as large as ours.
const ENTRIES_BUFFER: usize = 16 * 1024;

/// Asks for the sockets as the daemon does, and walks the headers of the answer to its end.
pub fn dump(buffer: &mut Vec<u8>) -> Result<Seen> {
    buffer.resize(DATAGRAM_MAX, 0);
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    sendto(&socket, &Query::Tcp.request(1), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut sockets = 0;
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some(header) = rest.first_chunk::<HEADER_LEN>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            match u16::from_ne_bytes([header[4], header[5]]) {
                NLMSG_DONE => return Ok(Seen { sockets, ..Seen::default() }),
                NLMSG_ERROR => return Err("the kernel refused the dump".into()),
                _ => sockets += 1,
            }
            let next = (length as usize).max(HEADER_LEN).next_multiple_of(4);
            rest = rest.get(next..).unwrap_or_default();
        }
    }
}

/// Reads the link behind every file descriptor of every process, and counts the sockets.
pub fn fd_walk() -> Result<Seen> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut buffer = [std::mem::MaybeUninit::uninit(); ENTRIES_BUFFER];
    let mut target = [std::mem::MaybeUninit::uninit(); 64];
    let mut sockets = 0;
    for process in std::fs::read_dir("/proc")? {
        let name = process?.file_name();
        if !name.as_encoded_bytes()[0].is_ascii_digit() {
            continue;
        }
        let path = std::path::Path::new("/proc").join(name).join("fd");
        // It may have ended meanwhile.
        let Ok(directory) = openat(CWD, path, flags, Mode::empty()) else { continue };
        let mut entries = RawDir::new(&directory, &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            if entry.file_name().to_bytes()[0] != b'.'
                && let Ok((link, _)) = readlinkat_raw(&directory, entry.file_name(), &mut target)
            {
                sockets += u64::from(link.starts_with(b"socket:"));
            }
        }
    }
    Ok(Seen { sockets, ..Seen::default() })
}
