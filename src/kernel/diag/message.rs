//! From datagrams to sockets: pure, by length, in the order the kernel sends.

use std::io;

use netlink_packet_core::{NLMSG_ALIGNTO, NetlinkBuffer, NlasIterator};
use netlink_packet_sock_diag::constants::{INET_DIAG_INFO, INET_DIAG_SKMEMINFO, SOCK_DIAG_BY_FAMILY};

use super::super::error::Error;
use super::Query;
use super::query::TCPDIAG_GETSOCK;
use crate::sample::TcpState;
use crate::socket::{LocalEnd, RemoteEnd, Socket};
use crate::tcp_info::TcpInfo;

/// Not in netlink-packet-sock-diag: cgroup2 id of the socket, u64, always sent (Linux 5.9 and later).
const INET_DIAG_CGROUP_ID: u16 = 21;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
/// `NLM_F_DUMP_INTR`: the table changed in a way that may have hidden entries.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `sizeof(struct inet_diag_msg)`
const INET_DIAG_MSG_LEN: usize = 72;

/// One socket of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its numbers.
    pub socket: Socket,
    /// Its local end.
    pub local: LocalEnd,
    /// Its remote end.
    pub remote: RemoteEnd,
    /// `sk_rcvbuf`: how far its receive memory may grow now. Bytes.
    pub rcvbuf: u32,
    /// `sk_uid`: the user who created it.
    pub uid: u32,
}

/// How far a dump is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// More to come.
    More,
    /// `NLMSG_DONE` has come.
    Done,
}

/// Decodes the answer to an exact query: one datagram of one message. `None`: the socket is gone.
pub fn exact(datagram: &[u8], sequence: u32) -> Result<Option<(Entry, TcpInfo)>, Error> {
    let query = "exact";
    let malformed = |what: String| Error::Message { query, what };
    let message = NetlinkBuffer::new_checked(datagram).map_err(|error| malformed(error.to_string()))?;
    if message.sequence_number() != sequence {
        return Err(malformed(format!("answer to request {}", message.sequence_number())));
    }
    match message.message_type() {
        SOCK_DIAG_BY_FAMILY => Ok(entry(message.payload())
            .map_err(malformed)?
            // LISTEN and CLOSE have no tcp_info: it has changed its state since the dump.
            .and_then(|(entry, info)| Some((entry, info?)))),
        NLMSG_ERROR => match status(message.payload()) {
            Some(status) if status == -libc::ENOENT || status == -libc::ESTALE => Ok(None),
            Some(status) => {
                Err(Error::Refused { query, source: io::Error::from_raw_os_error(status.saturating_neg()) })
            }
            None => Err(malformed("error message without an error".to_owned())),
        },
        other => Err(malformed(format!("message of type {other}"))),
    }
}

/// A dump in progress: feed it the kernel's datagrams until it is done.
#[derive(Debug)]
pub struct Dump {
    query: Query,
    sequence: u32,
}

impl Dump {
    /// The dump that was requested as `query` with `sequence`.
    pub fn new(query: Query, sequence: u32) -> Self {
        Self { query, sequence }
    }

    /// Decodes one datagram and hands its sockets to `each`.
    ///
    /// # Errors
    /// The dump as a whole has failed; what `each` saw must not be published.
    pub fn datagram(&self, datagram: &[u8], each: &mut dyn FnMut(&Entry)) -> Result<Progress, Error> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let message =
                NetlinkBuffer::new_checked(rest).map_err(|error| self.malformed(error.to_string()))?;
            if message.sequence_number() != self.sequence {
                return Err(self.malformed(format!(
                    "answer to request {} while waiting for {}",
                    message.sequence_number(),
                    self.sequence
                )));
            }
            if message.flags() & DUMP_INTERRUPTED != 0 {
                return Err(self.incomplete("NLM_F_DUMP_INTR"));
            }
            let payload = message.payload();
            match message.message_type() {
                SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => {
                    if let Some((mut entry, _)) = entry(payload).map_err(|what| self.malformed(what))? {
                        if self.query.is_mptcp() {
                            entry.socket.is_mptcp = true;
                            // Here they are memory, not payload (`mptcp_diag_get_info`).
                            (entry.socket.rqueue, entry.socket.wqueue) = (0, 0);
                        }
                        each(&entry);
                    }
                }
                NLMSG_DONE => return self.done(payload),
                NLMSG_ERROR => return Err(self.refused(payload)),
                NLMSG_OVERRUN => return Err(self.incomplete("NLMSG_OVERRUN")),
                NLMSG_NOOP => {}
                other => return Err(self.malformed(format!("message of unknown type {other}"))),
            }
            let length = (message.length() as usize).next_multiple_of(usize::from(NLMSG_ALIGNTO));
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(Progress::More)
    }

    /// The error of a dump that ended without `NLMSG_DONE`.
    pub fn incomplete(&self, what: &'static str) -> Error {
        Error::Incomplete { query: self.query.label(), what }
    }

    /// `NLMSG_DONE` carries the dump's result: an error that came up midway is only told here.
    fn done(&self, payload: &[u8]) -> Result<Progress, Error> {
        match status(payload) {
            Some(status) if status < 0 => Err(self.refused(payload)),
            _ => Ok(Progress::Done),
        }
    }

    fn refused(&self, payload: &[u8]) -> Error {
        match status(payload) {
            Some(status) => Error::Refused {
                query: self.query.label(),
                source: io::Error::from_raw_os_error(status.saturating_neg()),
            },
            None => self.malformed("error message without an error".to_owned()),
        }
    }

    fn malformed(&self, what: String) -> Error {
        Error::Message { query: self.query.label(), what }
    }
}

/// The leading int of `NLMSG_ERROR` and `NLMSG_DONE`: 0 or a negative errno.
fn status(payload: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(*payload.first_chunk()?))
}

/// Decodes `struct inet_diag_msg` and its attributes, tcp_info where it was asked for; `None` for a minisock, which
/// holds no buffers.
///
/// Fields at fixed offsets, ports in network byte order:
/// family, state, timer, retrans (u8 each), sport, dport (be16), src, dst (16 bytes each), if (u32), cookie
/// (2 x u32), expires, rqueue, wqueue, uid, inode (u32 each).
fn entry(payload: &[u8]) -> Result<Option<(Entry, Option<TcpInfo>)>, String> {
    let Some((fixed, attributes)) = payload.split_first_chunk::<INET_DIAG_MSG_LEN>() else {
        return Err(format!("inet_diag_msg of {} bytes, expected {INET_DIAG_MSG_LEN}", payload.len()));
    };
    let word = |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let state = TcpState::from_kernel(fixed[1]).ok_or_else(|| format!("unknown TCP state {}", fixed[1]))?;

    let mut memory = None;
    let mut cgroup = 0;
    let mut info = None;
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|error| error.to_string())?;
        match attribute.kind() {
            INET_DIAG_SKMEMINFO => memory = Some(skmeminfo(attribute.value())?),
            INET_DIAG_INFO => info = Some(TcpInfo::parse(attribute.value())?),
            INET_DIAG_CGROUP_ID => {
                let id = attribute.value().first_chunk().ok_or("short INET_DIAG_CGROUP_ID")?;
                cgroup = u64::from_ne_bytes(*id);
            }
            _ => {}
        }
    }
    let Some(SkMemory { rmem_alloc, rcvbuf, wmem_queued, forward_alloc }) = memory else {
        return match state {
            // FIN_WAIT2 after close() and half-open requests are minisocks: sockstat counts them, none has a buffer.
            TcpState::FinWait2 | TcpState::SynRecv | TcpState::TimeWait => Ok(None),
            _ => Err(format!("{} socket without SKMEMINFO", state.label())),
        };
    };

    let address = |at: usize| std::array::from_fn(|index| fixed[at + index]);
    let port = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
    let entry = Entry {
        socket: Socket {
            // inet_diag splits the cookie into two words, low one first.
            cookie: u64::from(word(44)) | u64::from(word(48)) << 32,
            cgroup,
            inode: word(68),
            rmem_alloc,
            wmem_queued,
            forward_alloc,
            rqueue: word(56),
            wqueue: word(60),
            state,
            is_mptcp: false,
        },
        local: LocalEnd { family: fixed[0], port: port(4), interface: word(40), address: address(8) },
        remote: RemoteEnd { port: port(6), address: address(24) },
        rcvbuf,
        uid: word(64),
    };
    Ok(Some((entry, info)))
}

struct SkMemory {
    rmem_alloc: u32,
    rcvbuf: u32,
    wmem_queued: u32,
    forward_alloc: i32,
}

/// The words we use of `SK_MEMINFO_*` (`sk_get_meminfo`): rmem_alloc, rcvbuf, wmem_alloc,
/// sndbuf, fwd_alloc, wmem_queued, optmem, and on newer kernels backlog and drops. Six words are enough.
fn skmeminfo(value: &[u8]) -> Result<SkMemory, String> {
    let word = |index: usize| {
        value
            .get(index * 4..)
            .and_then(<[u8]>::first_chunk)
            .map(|bytes| u32::from_ne_bytes(*bytes))
            .ok_or_else(|| format!("SKMEMINFO of {} bytes", value.len()))
    };
    Ok(SkMemory {
        rmem_alloc: word(0)?,
        rcvbuf: word(1)?,
        wmem_queued: word(5)?,
        forward_alloc: word(4)?.cast_signed(),
    })
}

#[cfg(test)]
mod tests;
