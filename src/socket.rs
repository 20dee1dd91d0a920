//! One TCP or MPTCP socket as a sock_diag dump shows it, and whose it can be. No I/O.

use std::net::{IpAddr, SocketAddr};

use hashbrown::HashMap;

use crate::sample::TcpState;

/// The numbers of one socket that a sample needs. Small, because a cold start keeps many for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// `sock_gen_cookie`: unique per boot (per namespace before Linux 5.10), never reused.
    pub cookie: u64,
    /// cgroup2 id of the socket (`INET_DIAG_CGROUP_ID`); inherited from the listener on accept. 0 where absent.
    pub cgroup: u64,
    /// Inode of the socket's file; 0 where it has none (orphans, accept queues).
    pub inode: u32,
    /// `sk_rmem_alloc`: bytes held by the receive queue, truesize.
    pub rmem_alloc: u32,
    /// `sk_wmem_queued`: bytes held by the send queue, truesize.
    pub wmem_queued: u32,
    /// `sk_forward_alloc`: bytes reserved and not used yet. The kernel's own int: may be negative for a moment.
    pub forward_alloc: i32,
    /// Unread payload; for a listener the connections that wait in its accept queue. 0 for an MPTCP connection, whose
    /// unread payload the kernel does not tell (its idiag_rqueue is memory).
    pub rqueue: u32,
    /// Unacknowledged payload; for a listener the limit of its accept queue. 0 for an MPTCP connection, likewise.
    pub wqueue: u32,
    /// State.
    pub state: TcpState,
    /// Whether it is an MPTCP connection. Its subflows are TCP sockets beside it: they count as sockets, it only as memory.
    pub is_mptcp: bool,
}

impl Socket {
    /// What `tcp_memory_allocated` counts for it: r + w + f. Bytes.
    pub fn memory(&self) -> i64 {
        i64::from(self.rmem_alloc) + i64::from(self.wmem_queued) + i64::from(self.forward_alloc)
    }
}

/// The local end of a socket, to find the listener of a connection that nobody has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalEnd {
    /// `AF_INET` or `AF_INET6`; a child has its listener's.
    pub family: u8,
    /// Local port.
    pub port: u16,
    /// Bound interface, 0 for none.
    pub interface: u32,
    /// Local address, network byte order, IPv4 in the first four bytes.
    pub address: [u8; 16],
}

impl LocalEnd {
    /// Address and port to show.
    pub fn socket_addr(&self) -> SocketAddr {
        socket_addr(self.family, self.address, self.port)
    }
}

impl RemoteEnd {
    /// Address and port to show, of a socket with a local end of `family`.
    pub fn socket_addr(&self, family: u8) -> SocketAddr {
        socket_addr(family, self.address, self.port)
    }
}

/// `AF_INET`
const IPV4: u8 = 2;

/// An IPv4 connection of an IPv6 socket is shown as what it is.
fn socket_addr(family: u8, address: [u8; 16], port: u16) -> SocketAddr {
    let [a, b, c, d, ..] = address;
    let ip = if family == IPV4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(address) };
    SocketAddr::new(ip.to_canonical(), port)
}

/// The remote end of a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoteEnd {
    /// Remote port.
    pub port: u16,
    /// Remote address, as in [`LocalEnd`].
    pub address: [u8; 16],
}

/// Where to look for a socket's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Whoever holds the file with this inode.
    Held(u32),
    /// Waits to be accepted: whoever holds the listener with this inode.
    Queued(u32),
    /// Nobody: closed by its application.
    Orphan,
    /// Nobody we can name: a connection without a file and without a listener.
    Nobody,
}

/// The listeners of one namespace. sock_diag shows them before any connection.
#[derive(Debug, Default)]
pub struct Listeners(HashMap<LocalEnd, Group>);

/// Listeners on one local end: several only with SO_REUSEPORT.
#[derive(Debug, Default)]
struct Group {
    /// Inode, and connections of its accept queue not met yet in this dump.
    listeners: Vec<(u32, u32)>,
    /// The first that may still lack connections: whoever has many listeners and many connections must not make each
    /// search start over.
    next: usize,
}

/// `INADDR_ANY`, `in6addr_any`.
const ANY: [u8; 16] = [0; 16];

impl Listeners {
    /// Forgets all, for the next namespace.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Where to look for the owner of `socket`; remembers it when it is a listener.
    pub fn route(&mut self, socket: &Socket, local: &LocalEnd) -> Route {
        if socket.inode != 0 {
            // An MPTCP listener shows among the TCP listeners too.
            if socket.state == TcpState::Listen && !socket.is_mptcp {
                self.0.entry(*local).or_default().listeners.push((socket.inode, socket.rqueue));
            }
            return Route::Held(socket.inode);
        }
        match socket.state {
            // Only an accept queue holds open connections without a file: close() leaves these states at once.
            TcpState::Established | TcpState::CloseWait | TcpState::SynRecv => {
                self.accepting(local).map_or(Route::Nobody, Route::Queued)
            }
            TcpState::Listen => Route::Nobody,
            _ => Route::Orphan,
        }
    }

    /// The listener whose queue a connection to `local` waits in: the most specific match, and among equals one that
    /// still lacks connections of its backlog.
    fn accepting(&mut self, local: &LocalEnd) -> Option<u32> {
        let LocalEnd { address, interface, .. } = *local;
        let candidates = [(interface, address), (0, address), (interface, ANY), (0, ANY)];
        let ends = candidates.map(|(interface, address)| LocalEnd { interface, address, ..*local });
        let end = ends.iter().find(|end| self.0.contains_key(*end))?;
        let group = self.0.get_mut(end)?;
        while group.listeners.get(group.next).is_some_and(|(_, expected)| *expected == 0) {
            group.next += 1;
        }
        // One that came after its listener was dumped belongs to any of them.
        let at = if group.next < group.listeners.len() { group.next } else { 0 };
        let (inode, expected) = group.listeners.get_mut(at)?;
        *expected = expected.saturating_sub(1);
        Some(*inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: u8 = 2;
    const V6: u8 = 10;

    fn socket(state: TcpState, inode: u32, rqueue: u32) -> Socket {
        Socket {
            cookie: 1,
            cgroup: 0,
            inode,
            rmem_alloc: 0,
            wmem_queued: 0,
            forward_alloc: 0,
            rqueue,
            wqueue: 0,
            state,
            is_mptcp: false,
        }
    }

    fn local(family: u8, last: u8, port: u16) -> LocalEnd {
        let mut address = ANY;
        if last != 0 {
            address[0] = 127;
            address[3] = last;
        }
        LocalEnd { family, port, interface: 0, address }
    }

    fn listen(listeners: &mut Listeners, inode: u32, at: LocalEnd, backlog: u32) {
        assert_eq!(
            listeners.route(&socket(TcpState::Listen, inode, backlog), &at),
            Route::Held(inode),
            "a listener has a file"
        );
    }

    #[test]
    fn memory_reads_forward_alloc_as_signed() {
        let mut one = socket(TcpState::Established, 1, 0);
        (one.rmem_alloc, one.wmem_queued, one.forward_alloc) = (5000, 300, -1204);
        assert_eq!(one.memory(), 4096);
    }

    #[test]
    fn a_child_belongs_to_the_most_specific_listener() {
        let mut listeners = Listeners::default();
        listen(&mut listeners, 10, local(V4, 0, 80), 9);
        listen(&mut listeners, 11, local(V4, 1, 80), 9);
        listen(&mut listeners, 12, local(V6, 0, 80), 9);
        listen(&mut listeners, 13, local(V4, 1, 81), 9);
        let mut route =
            |state, family, last, port| listeners.route(&socket(state, 0, 5), &local(family, last, port));
        assert_eq!(route(TcpState::Established, V4, 1, 80), Route::Queued(11));
        assert_eq!(route(TcpState::CloseWait, V4, 2, 80), Route::Queued(10));
        assert_eq!(route(TcpState::SynRecv, V6, 1, 80), Route::Queued(12));
        assert_eq!(route(TcpState::Established, V4, 1, 82), Route::Nobody);
        assert_eq!(route(TcpState::FinWait1, V4, 1, 80), Route::Orphan);
        assert_eq!(route(TcpState::LastAck, V4, 1, 80), Route::Orphan);
    }

    #[test]
    fn reuseport_listeners_share_by_their_backlogs() {
        let mut listeners = Listeners::default();
        listen(&mut listeners, 20, local(V4, 0, 80), 1);
        listen(&mut listeners, 21, local(V4, 0, 80), 2);
        let child = socket(TcpState::Established, 0, 5);
        let mut met: Vec<Route> = (0..3).map(|_| listeners.route(&child, &local(V4, 7, 80))).collect();
        met.sort_by_key(|route| format!("{route:?}"));
        assert_eq!(met, [Route::Queued(20), Route::Queued(21), Route::Queued(21)]);
        // A connection that came after the listener was dumped still has a home.
        assert_eq!(listeners.route(&child, &local(V4, 7, 80)), Route::Queued(20));
    }

    #[test]
    fn a_bound_interface_must_match() {
        let mut listeners = Listeners::default();
        listen(&mut listeners, 30, LocalEnd { interface: 3, ..local(V4, 0, 80) }, 1);
        let child = socket(TcpState::Established, 0, 0);
        assert_eq!(listeners.route(&child, &local(V4, 1, 80)), Route::Nobody);
        let on_three = LocalEnd { interface: 3, ..local(V4, 1, 80) };
        assert_eq!(listeners.route(&child, &on_three), Route::Queued(30));
    }
}
