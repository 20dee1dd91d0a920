//! The requests, as bytes.

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DIAG_BY_FAMILY};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};

use super::Entry;

/// `TCPDIAG_GETSOCK`: the request from before SOCK_DIAG_BY_FAMILY. It alone walks the hash once for both address
/// families; the walk is what a dump costs where most sockets belong to other namespaces.
pub const TCPDIAG_GETSOCK: u16 = 18;

/// `IPPROTO_MPTCP` does not fit the request's u8 protocol, so the kernel takes it from this attribute
/// (`INET_DIAG_REQ_PROTOCOL`) and wants 255 (`IPPROTO_RAW`) in the field.
const INET_DIAG_REQ_PROTOCOL: u16 = 3;
const IPPROTO_MPTCP: u32 = 262;
const PROTOCOL_IN_ATTRIBUTE: u8 = 255;

/// Bound but unconnected sockets (`TCPF_BOUND_INACTIVE`, Linux 6.8 and later; older kernels ignore the bit). A
/// reset connection that was bound explicitly keeps its unread data and shows up nowhere else.
const BOUND_INACTIVE: StateFlags = StateFlags::from_bits_retain(1 << 13);

/// What to dump. Always with SKMEMINFO and nothing else: INFO would take each socket's lock, and one process that
/// faults inside send() would stall the whole dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    /// TCP listeners over IPv4 and IPv6: a table of their own, which costs microseconds to walk.
    Listeners,
    /// TCP over IPv4 and IPv6, listeners first.
    Tcp,
    /// The same with bound but unconnected sockets, whose table costs a sixth more.
    TcpAndBound,
    /// MPTCP over IPv4: the connection, whose memory its TCP subflows do not show.
    MptcpV4,
    /// MPTCP over IPv6.
    MptcpV6,
}

impl Query {
    /// What MPTCP has beside its subflows, which are TCP sockets.
    pub const MPTCP: [Self; 2] = [Self::MptcpV4, Self::MptcpV6];

    /// Whether it shows MPTCP connections.
    pub fn is_mptcp(self) -> bool {
        Self::MPTCP.contains(&self)
    }

    /// Name in errors and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Listeners => "tcp listeners",
            Self::Tcp => "tcp",
            Self::TcpAndBound => "tcp with bound sockets",
            Self::MptcpV4 => "mptcp ipv4",
            Self::MptcpV6 => "mptcp ipv6",
        }
    }

    /// The message to send, header included. `sequence` comes back in every message of the answer.
    pub fn request(self, sequence: u32) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Listeners => (TCPDIAG_GETSOCK, legacy_body(&StateFlags::LISTEN)),
            Self::Tcp => (TCPDIAG_GETSOCK, legacy_body(&states())),
            Self::TcpAndBound => (TCPDIAG_GETSOCK, legacy_body(&(states() | BOUND_INACTIVE))),
            Self::MptcpV4 => (SOCK_DIAG_BY_FAMILY, mptcp_body(AF_INET, SocketId::new_v4())),
            Self::MptcpV6 => (SOCK_DIAG_BY_FAMILY, mptcp_body(AF_INET6, SocketId::new_v6())),
        };
        message(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, &body)
    }
}

/// The message that asks for tcp_info of one socket. It takes that socket's lock: never send it from a thread that must
/// go on.
pub fn exact_request(entry: &Entry, sequence: u32) -> Vec<u8> {
    let address = |bytes: [u8; 16]| match entry.local.family {
        AF_INET => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
        _ => IpAddr::from(bytes),
    };
    let request = InetRequest {
        family: entry.local.family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO | ExtensionFlags::SKMEMINFO,
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: entry.local.port,
            destination_port: entry.remote.port,
            source_address: address(entry.local.address),
            destination_address: address(entry.remote.address),
            interface_id: entry.local.interface,
            cookie: cookie_words(entry.socket.cookie),
        },
    };
    let mut body = vec![0; request.buffer_len()];
    request.emit(&mut body);
    message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, sequence, &body)
}

/// A cookie as two words in the machine's order, the low one first.
#[allow(clippy::cast_possible_truncation)] // each half is cut off on purpose
fn cookie_words(cookie: u64) -> [u8; 8] {
    let (low, high) = ((cookie as u32).to_ne_bytes(), ((cookie >> 32) as u32).to_ne_bytes());
    std::array::from_fn(|index| if index < 4 { low[index] } else { high[index - 4] })
}

fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0; HEADER_LEN];
    message.extend_from_slice(body);
    let length = u32::try_from(message.len()).expect("a request is under 100 bytes");
    let mut header = NetlinkBuffer::new(&mut message);
    header.set_length(length);
    header.set_message_type(kind);
    header.set_flags(flags);
    header.set_sequence_number(sequence);
    message
}

const HEADER_LEN: usize = 16;

/// Everything but TIME_WAIT minisocks, which hold no buffers and can be a hundred thousand (sockstat counts them).
/// The bit of `NEW_SYN_RECV` is not among the crate's states, so half-open requests stay out too.
fn states() -> StateFlags {
    StateFlags::all() - StateFlags::TIME_WAIT
}

/// `struct inet_diag_req`: family, source and destination length, ext, `inet_diag_sockid`, states, dbs.
fn legacy_body(states: &StateFlags) -> Vec<u8> {
    let mut body = vec![AF_INET, 0, 0, ExtensionFlags::SKMEMINFO.bits()];
    body.extend_from_slice(&[0; 48]);
    body.extend_from_slice(&states.bits().to_ne_bytes());
    body.extend_from_slice(&[0; 4]);
    body
}

fn mptcp_body(family: u8, socket_id: SocketId) -> Vec<u8> {
    let request = InetRequest {
        family,
        protocol: PROTOCOL_IN_ATTRIBUTE,
        extensions: ExtensionFlags::SKMEMINFO,
        states: states(),
        socket_id,
    };
    let protocol = DefaultNla::new(INET_DIAG_REQ_PROTOCOL, IPPROTO_MPTCP.to_ne_bytes().to_vec());
    let mut body = vec![0; request.buffer_len() + protocol.buffer_len()];
    let (fixed, attribute) = body.split_at_mut(request.buffer_len());
    request.emit(fixed);
    protocol.emit(attribute);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernels_layout() {
        let tcp = Query::Tcp.request(7);
        assert_eq!(tcp.len(), 16 + 60, "nlmsghdr + inet_diag_req");
        assert_eq!(tcp[0..4], 76u32.to_ne_bytes());
        assert_eq!(tcp[4..6], 18u16.to_ne_bytes(), "TCPDIAG_GETSOCK");
        assert_eq!(tcp[6..8], 0x301u16.to_ne_bytes(), "REQUEST | DUMP");
        assert_eq!(tcp[8..12], 7u32.to_ne_bytes());
        assert_eq!(tcp[16 + 3], 0x40, "SKMEMINFO and nothing else");
        assert_eq!(tcp[16 + 52..16 + 56], 0x0fbe_u32.to_ne_bytes());
        let with_bound = Query::TcpAndBound.request(7);
        assert_eq!(with_bound[16 + 52..16 + 56], 0x2fbe_u32.to_ne_bytes());
        assert_eq!(Query::Listeners.request(7)[16 + 52..16 + 56], 0x0400_u32.to_ne_bytes());

        let mptcp = Query::MptcpV6.request(1);
        assert_eq!(mptcp.len(), 16 + 56 + 8, "nlmsghdr + inet_diag_req_v2 + protocol attribute");
        assert_eq!(mptcp[16..20], [10, 255, 0x40, 0]);
        assert_eq!(mptcp[20..24], 0x0fbe_u32.to_ne_bytes());
        assert_eq!(mptcp[72..76], [8, 0, 3, 0]);
        assert_eq!(mptcp[76..80], 262u32.to_ne_bytes());
    }

    #[test]
    fn minisocks_are_masked_out() {
        let bits = states().bits();
        assert_eq!(bits & (1 << 6), 0, "TIME_WAIT");
        assert_eq!(bits & (1 << 12), 0, "NEW_SYN_RECV");
        assert_ne!(bits & (1 << 10), 0, "LISTEN");
    }
}
