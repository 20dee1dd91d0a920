//! The same dump through netlink-proto: what the plain receive loop is measured against.

use std::fmt::Debug;

use futures_util::StreamExt;
use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, INET_DIAG_SKMEMINFO, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_proto::new_connection;
use netlink_proto::sys::SocketAddr;
use netlink_proto::sys::protocols::NETLINK_SOCK_DIAG;
use skmem_exporter::kernel::diag::Query;
use tokio::runtime::Runtime;

use crate::Result;
use crate::figures::Seen;

/// `sizeof(struct nlmsghdr)`
const HEADER_LEN: usize = 16;
/// `TCPDIAG_GETSOCK`
const TCPDIAG_GETSOCK: u16 = 18;
/// `sizeof(struct inet_diag_msg)`
const INET_DIAG_MSG_LEN: usize = 72;

/// A runtime as small as can be.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_io().build()?)
}

/// Every message parsed whole by netlink-packet-sock-diag. That crate does not know the request that takes both
/// address families in one walk, so these are two dumps.
pub fn full(runtime: &Runtime) -> Result<Seen> {
    let mut seen = Seen::default();
    for (family, socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::SKMEMINFO,
            states: StateFlags::all() - StateFlags::TIME_WAIT,
            socket_id,
        });
        runtime.block_on(dump(request, &mut seen, |message| {
            let SockDiagMessage::InetResponse(response) = message else { return None };
            response.nlas.iter().find_map(|attribute| {
                let Nla::MemInfo(memory) = attribute else { return None };
                let forward = i64::from(memory.cache.cast_signed());
                Some(i64::from(memory.receive_queue) + i64::from(memory.send_queue) + forward)
            })
        }))?;
    }
    Ok(seen)
}

/// The daemon's own request, and a message type that takes nothing from an answer but its memory.
pub fn slim(runtime: &Runtime) -> Result<Seen> {
    let mut seen = Seen::default();
    let request = Slim::Request(Query::Tcp.request(0).split_off(HEADER_LEN));
    runtime.block_on(dump(request, &mut seen, |message| match message {
        Slim::Request(_) => None,
        Slim::Memory(memory) => Some(*memory),
    }))?;
    Ok(seen)
}

/// Sends one request and takes each answer's memory.
async fn dump<T>(request: T, seen: &mut Seen, memory: impl Fn(&T) -> Option<i64>) -> Result<()>
where
    T: NetlinkSerializable + NetlinkDeserializable + Debug + Unpin + Send + 'static,
{
    let (connection, handle, _) = new_connection::<T>(NETLINK_SOCK_DIAG)?;
    tokio::spawn(connection);
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    let mut answers = handle.request(message, SocketAddr::new(0, 0))?;
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => {
                seen.sockets += 1;
                seen.memory += memory(&message).ok_or("a socket without SKMEMINFO")?;
            }
            NetlinkPayload::Error(error) => return Err(error.to_io().into()),
            _ => {}
        }
    }
    Ok(())
}

/// What [`slim`] sends and receives.
#[derive(Debug)]
enum Slim {
    /// The body of a request.
    Request(Vec<u8>),
    /// r + w + f of a socket.
    Memory(i64),
}

impl NetlinkSerializable for Slim {
    fn message_type(&self) -> u16 {
        TCPDIAG_GETSOCK
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(body) => body.len(),
            Self::Memory(_) => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::Request(body) = self {
            buffer.copy_from_slice(body);
        }
    }
}

impl NetlinkDeserializable for Slim {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> std::result::Result<Self, DecodeError> {
        let attributes = payload.get(INET_DIAG_MSG_LEN..).ok_or("short inet_diag_msg")?;
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            if attribute.kind() == INET_DIAG_SKMEMINFO {
                let (words, _) = attribute.value().as_chunks();
                let [rmem, _, _, _, forward, wmem, ..] = words else { return Err("short SKMEMINFO".into()) };
                let [rmem, wmem] = [rmem, wmem].map(|bytes| i64::from(u32::from_ne_bytes(*bytes)));
                return Ok(Self::Memory(rmem + wmem + i64::from(i32::from_ne_bytes(*forward))));
            }
        }
        Err("a socket without SKMEMINFO".into())
    }
}
