use netlink_packet_core::NetlinkMessage;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::nlas::Nla;
use proptest::prelude::*;

use super::*;
use crate::sample::Reason;

const SEQUENCE: u32 = 77;

/// An established IPv4 socket, 127.0.0.1:5000 to 127.0.0.1:40000, as Linux 6.18 sends it.
struct Wire {
    state: u8,
    inode: u32,
    rqueue: u32,
    cookie: [u32; 2],
    skmem: Option<Vec<u32>>,
    cgroup: Option<u64>,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            state: 1,
            inode: 4242,
            rqueue: 1000,
            cookie: [0x31e56, 1],
            // rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog, drops
            skmem: Some(vec![2304, 131_072, 9, 2_626_560, 0u32.wrapping_sub(1208), 3000, 7, 6, 5]),
            cgroup: Some(443),
        }
    }
}

impl Wire {
    fn payload(&self) -> Vec<u8> {
        let mut bytes = vec![2, self.state, 0, 0]; // AF_INET, state, timer, retrans
        bytes.extend(5000u16.to_be_bytes());
        bytes.extend(40_000u16.to_be_bytes());
        bytes.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // source
        bytes.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // destination
        bytes.extend(3u32.to_ne_bytes()); // interface
        bytes.extend(self.cookie.iter().flat_map(|word| word.to_ne_bytes()));
        for word in [0, self.rqueue, 55, 1007, self.inode] {
            bytes.extend(word.to_ne_bytes()); // expires, rqueue, wqueue, uid, inode
        }
        attribute(&mut bytes, 8, &[0]); // SHUTDOWN: one byte, padded to four
        if let Some(words) = &self.skmem {
            attribute(&mut bytes, 7, &words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>());
        }
        if let Some(cgroup) = self.cgroup {
            attribute(&mut bytes, 21, &cgroup.to_ne_bytes());
        }
        attribute(&mut bytes, 9999, &[1, 2, 3, 4, 5]); // a newer kernel's attribute
        bytes
    }
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len() + 16).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(4711u32.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn socket_message(wire: &Wire) -> Vec<u8> {
    message(TCPDIAG_GETSOCK, 2, SEQUENCE, &wire.payload())
}

fn feed(datagram: &[u8]) -> (Result<Progress, Error>, Vec<Entry>) {
    let mut seen = Vec::new();
    let result = Dump::new(Query::Tcp, SEQUENCE).datagram(datagram, &mut |entry| seen.push(*entry));
    (result, seen)
}

fn failure(datagram: &[u8]) -> (Reason, String) {
    let error = feed(datagram).0.unwrap_err();
    (error.reason(), error.to_string())
}

#[test]
fn a_socket_is_decoded_field_by_field() {
    let (progress, seen) = feed(&socket_message(&Wire::default()));
    assert_eq!(progress.unwrap(), Progress::More);
    assert_eq!(
        seen,
        [Entry {
            socket: Socket {
                cookie: 0x1_0003_1e56,
                cgroup: 443,
                inode: 4242,
                rmem_alloc: 2304,
                wmem_queued: 3000,
                forward_alloc: -1208,
                rqueue: 1000,
                wqueue: 55,
                state: TcpState::Established,
                is_mptcp: false,
            },
            local: LocalEnd {
                family: 2,
                port: 5000,
                interface: 3,
                address: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            },
            remote: RemoteEnd { port: 40_000, address: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] },
            rcvbuf: 131_072,
            uid: 1007,
        }]
    );
    assert_eq!(seen[0].socket.memory(), 4096, "forward_alloc below zero");
}

#[test]
fn fewer_and_more_skmem_words_are_read_alike() {
    for words in [6, 7, 9, 12] {
        let mut wire = Wire::default();
        wire.skmem.as_mut().unwrap().resize(words, 0);
        let (_, seen) = feed(&socket_message(&wire));
        assert_eq!(seen[0].socket.memory(), 4096, "{words} words");
    }
    let mut short = Wire::default();
    short.skmem.as_mut().unwrap().truncate(5);
    let (reason, text) = failure(&socket_message(&short));
    assert_eq!(reason, Reason::Malformed);
    assert!(text.contains("SKMEMINFO of 20 bytes"), "{text}");
}

#[test]
fn attributes_may_be_missing() {
    let (_, seen) = feed(&socket_message(&Wire { cgroup: None, ..Wire::default() }));
    assert_eq!(seen[0].socket.cgroup, 0);
    for minisock in [3, 5, 6] {
        let (progress, seen) =
            feed(&socket_message(&Wire { state: minisock, skmem: None, ..Wire::default() }));
        assert_eq!((progress.unwrap(), seen.len()), (Progress::More, 0), "minisock in state {minisock}");
    }
    let (reason, _) = failure(&socket_message(&Wire { skmem: None, ..Wire::default() }));
    assert_eq!(reason, Reason::Malformed, "an established socket always has SKMEMINFO");
}

#[test]
fn only_done_ends_a_dump() {
    let mut datagram = socket_message(&Wire::default());
    datagram.extend(socket_message(&Wire { inode: 1, ..Wire::default() }));
    let (progress, seen) = feed(&datagram);
    assert_eq!((progress.unwrap(), seen.len()), (Progress::More, 2));
    datagram.extend(message(NLMSG_DONE, 2, SEQUENCE, &0i32.to_ne_bytes()));
    let (progress, seen) = feed(&datagram);
    assert_eq!((progress.unwrap(), seen.len()), (Progress::Done, 2));
}

#[test]
fn every_failed_dump_says_why() {
    let eperm = (-1i32).to_ne_bytes();
    let enoent = (-2i32).to_ne_bytes();
    let good = socket_message(&Wire::default());
    let interrupted = message(TCPDIAG_GETSOCK, 2 | DUMP_INTERRUPTED, SEQUENCE, &Wire::default().payload());
    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        ("error", message(NLMSG_ERROR, 0, SEQUENCE, &eperm), Reason::Denied),
        ("no such protocol", message(NLMSG_ERROR, 0, SEQUENCE, &enoent), Reason::Missing),
        ("error told by DONE", message(NLMSG_DONE, 2, SEQUENCE, &eperm), Reason::Denied),
        ("empty error", message(NLMSG_ERROR, 0, SEQUENCE, &[]), Reason::Malformed),
        ("overrun", message(NLMSG_OVERRUN, 0, SEQUENCE, &[]), Reason::Incomplete),
        ("interrupted", interrupted, Reason::Incomplete),
        ("another request's", message(TCPDIAG_GETSOCK, 2, 1, &Wire::default().payload()), Reason::Malformed),
        ("unknown type", message(99, 2, SEQUENCE, &[]), Reason::Malformed),
        ("cut message", good[..good.len() - 8].to_vec(), Reason::Malformed),
        ("cut header", good[..10].to_vec(), Reason::Malformed),
        ("short inet_diag_msg", message(TCPDIAG_GETSOCK, 2, SEQUENCE, &[2, 1, 0, 0]), Reason::Malformed),
        ("state 13", socket_message(&Wire { state: 13, ..Wire::default() }), Reason::Malformed),
    ];
    for (name, datagram, want) in cases {
        let (reason, text) = failure(&datagram);
        assert_eq!(reason, want, "{name}: {text}");
        assert!(text.starts_with("sock_diag tcp"), "{name}: {text}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = feed(&bytes);
        let _ = feed(&message(TCPDIAG_GETSOCK, 2, SEQUENCE, &bytes));
    }

    #[test]
    fn cutting_or_flipping_never_panics(at in 0usize..180, flip in any::<u8>()) {
        let mut bytes = socket_message(&Wire::default());
        let _ = feed(&bytes[..at.min(bytes.len())]);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let _ = feed(&bytes);
    }

    /// netlink-packet-sock-diag decodes the same bytes to the same numbers.
    #[test]
    fn agrees_with_an_independent_decoder(
        rmem in any::<u32>(), wmem in any::<u32>(), forward in any::<i32>(), inode in any::<u32>(),
        rqueue in any::<u32>(),
    ) {
        let skmem = vec![rmem, 1, 2, 3, forward.cast_unsigned(), wmem, 4, 5, 6];
        let bytes = message(
            SOCK_DIAG_BY_FAMILY, 2, SEQUENCE,
            &Wire { inode, rqueue, skmem: Some(skmem), ..Wire::default() }.payload(),
        );
        let (_, seen) = feed(&bytes);
        let theirs = NetlinkMessage::<SockDiagMessage>::deserialize(&bytes).unwrap();
        let netlink_packet_core::NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(theirs)) =
            theirs.payload else { panic!("no inet response") };
        let memory = theirs.nlas.iter().find_map(|nla| match nla {
            Nla::MemInfo(memory) => Some(memory),
            _ => None,
        }).unwrap();
        let ours = seen[0].socket;
        prop_assert_eq!(ours.inode, theirs.header.inode);
        prop_assert_eq!(ours.rqueue, theirs.header.recv_queue);
        prop_assert_eq!(ours.rmem_alloc, memory.receive_queue);
        prop_assert_eq!(ours.wmem_queued, memory.send_queue);
        prop_assert_eq!(ours.forward_alloc.cast_unsigned(), memory.cache, "their cache is unsigned");
    }
}
