//! The netlink socket: one per dump, because a held one pins its network namespace.

use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, SocketFlags, SocketType, recvmsg,
    sendto, socket_with,
};

use super::super::error::Error;
use super::message::{Dump, Entry, Progress};
use super::suspects::{Answers, Interrogator};
use super::{Query, SockDiag};

/// Room for one datagram. The kernel fills up to 32 KiB however large the buffer is (`netlink_recvmsg`), and up to
/// one page where pages are 64 KiB; anything longer arrives flagged as truncated and fails the dump.
const DATAGRAM_MAX: usize = 64 * 1024;

/// The kernel's own sock_diag. By default it dumps, and asks nothing.
#[derive(Debug)]
pub struct Netlink {
    buffer: Vec<u8>,
    sequence: u32,
    interrogator: Interrogator,
}

impl Default for Netlink {
    fn default() -> Self {
        Self { buffer: vec![0; DATAGRAM_MAX], sequence: 0, interrogator: Interrogator::default() }
    }
}

impl Netlink {
    /// One that also asks, through children that run this program: its main has to hand over to [`super::run_asker`] where
    /// the first argument is [`super::ASKER`].
    pub fn asking() -> Self {
        Self { interrogator: Interrogator::asking(), ..Self::default() }
    }
}

impl SockDiag for Netlink {
    fn dump(&mut self, query: Query, deadline: Instant, each: &mut dyn FnMut(&Entry)) -> Result<(), Error> {
        // Here too, because there may never be a suspect again.
        self.interrogator.reap();
        self.sequence = self.sequence.wrapping_add(1);
        let dump = Dump::new(query, self.sequence);
        let socket = open()?;
        send(&socket, &query.request(self.sequence))?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Deadline { what: query.label() });
            }
            set_socket_timeout(&socket, Timeout::Recv, Some(left))
                .map_err(|errno| call("setsockopt(SO_RCVTIMEO)", errno))?;
            let datagram = match receive(&socket, &mut self.buffer) {
                Ok(Some(length)) => &self.buffer[..length],
                Ok(None) => continue,
                Err(Errno::AGAIN) => return Err(Error::Deadline { what: query.label() }),
                Err(Errno::OVERFLOW) => return Err(dump.incomplete("truncated datagram")),
                Err(errno) => return Err(call("recvmsg(NETLINK_SOCK_DIAG)", errno)),
            };
            if datagram.is_empty() {
                return Err(dump.incomplete("end of file"));
            }
            if dump.datagram(datagram, each)? == Progress::Done {
                return Ok(());
            }
        }
    }

    fn ask(&mut self, suspects: Vec<Entry>, deadline: Instant) -> Answers {
        self.interrogator.ask(&suspects, deadline)
    }
}

/// A sock_diag socket in the calling thread's network namespace.
pub fn open() -> Result<OwnedFd, Error> {
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))
        .map_err(|errno| call("socket(NETLINK_SOCK_DIAG)", errno))
}

/// Sends a request to the kernel, which handles it before this returns.
pub fn send(socket: &OwnedFd, request: &[u8]) -> Result<(), Error> {
    let kernel = SocketAddrNetlink::new(0, 0);
    loop {
        match sendto(socket, request, SendFlags::empty(), &kernel) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(call("sendto(NETLINK_SOCK_DIAG)", errno)),
        }
    }
}

/// Receives one datagram of the kernel's; `None` for one of another sender, which is not ours to read.
/// A truncated datagram is `EOVERFLOW`.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    let mut control = RecvAncillaryBuffer::default();
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::OVERFLOW);
    }
    let sender = received.address.and_then(|address| SocketAddrNetlink::try_from(address).ok());
    Ok(sender.is_some_and(|sender| sender.pid() == 0).then_some(received.bytes))
}

/// The error of a failed system call.
pub fn call(call: &'static str, errno: Errno) -> Error {
    Error::Call { call, source: io::Error::from(errno) }
}
