//! Getting sockets to listen on: bound by address, or handed over by systemd.

use crate::config::{ListenAddress, UnknownHost};
use listenfd::ListenFd;
use rustix::net::sockopt::{set_ipv6_v6only, socket_acceptconn};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket};

/// Connections the kernel holds until they are accepted. Accepting takes microseconds, so this is only ever
/// used by a burst of clients; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 128;

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {error}; {}", bind_cure(address, error))]
    Bind {
        /// The address as it was given.
        address: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The host name means nothing here.
    #[error("cannot listen on {address} (--web.listen-address): {error}")]
    Name {
        /// The address as it was given.
        address: String,
        /// What is wrong with the name.
        error: UnknownHost,
    },
    /// There is nothing to listen on.
    #[error("no address to listen on; give one with --web.listen-address, for example :10477")]
    None,
    /// systemd handed nothing over.
    #[error(
        "--web.systemd-socket is set, but systemd passed no socket (LISTEN_FDS); start the .socket unit \
         instead of the service, or leave the flag out to listen on --web.listen-address"
    )]
    NoSystemdSocket,
    /// systemd handed over something else.
    #[error(
        "socket {number} passed by systemd is no TCP listener ({error}); \
         use ListenStream= with a port or address in the .socket unit"
    )]
    SystemdSocket {
        /// Its position in the unit, from 1.
        number: usize,
        /// What is wrong with it.
        error: io::Error,
    },
}

/// What to do about a failed bind.
fn bind_cure(address: &str, error: &io::Error) -> String {
    let port = address.rsplit(':').next().unwrap_or_default();
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "stop the program that holds the port (ss -ltnp 'sport = :{port}' names it), \
             or choose another with --web.listen-address"
        ),
        ErrorKind::PermissionDenied => {
            "choose a port from 1024 up with --web.listen-address, or give CAP_NET_BIND_SERVICE".to_owned()
        }
        ErrorKind::AddrNotAvailable => {
            "no interface of this host has that address; use one of its own, or :PORT for all of them, \
             with --web.listen-address"
                .to_owned()
        }
        _ => "choose another with --web.listen-address".to_owned(),
    }
}

/// Binds every address, or none. The sockets belong to the runtime that runs this.
pub async fn bind(addresses: &[ListenAddress]) -> Result<Vec<TcpListener>, ListenError> {
    if addresses.is_empty() {
        return Err(ListenError::None);
    }
    let mut listeners = Vec::with_capacity(addresses.len());
    for listen in addresses {
        let failed = |error| ListenError::Bind { address: listen.to_string(), error };
        listeners.push(match listen {
            ListenAddress::AllInterfaces { port } => bind_all_interfaces(*port, bind_one).map_err(failed)?,
            ListenAddress::Socket(address) => bind_one(*address).map_err(failed)?,
            ListenAddress::Name { .. } => bind_one(resolve(listen)?).map_err(failed)?,
        });
    }
    Ok(listeners)
}

/// One address of a host name: its first IPv4 address if it has any, as other exporters choose it.
fn resolve(listen: &ListenAddress) -> Result<SocketAddr, ListenError> {
    let failed = |error| ListenError::Name { address: listen.to_string(), error };
    let mut found = listen.local().map_err(failed)?;
    // Sorting is stable; there is at least one.
    found.sort_by_key(SocketAddr::is_ipv6);
    Ok(found[0])
}

/// `[::]`, which takes IPv4 as well, or `0.0.0.0` where the host has no IPv6.
fn bind_all_interfaces(
    port: u16,
    bind: impl Fn(SocketAddr) -> io::Result<TcpListener>,
) -> io::Result<TcpListener> {
    let without_ipv6 = |error: &io::Error| {
        // EAFNOSUPPORT has no kind of its own: IPv6 is not in the kernel, or off since boot.
        error.raw_os_error() == Some(libc::EAFNOSUPPORT) || error.kind() == ErrorKind::AddrNotAvailable
    };
    match bind((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if without_ipv6(&error) => bind((Ipv4Addr::UNSPECIFIED, port).into()),
        other => other,
    }
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // Whatever net.ipv6.bindv6only says: all interfaces means IPv4 too.
        set_ipv6_v6only(&socket, false)?;
    }
    // A restart must not wait for the old connections to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The sockets systemd passed to this process (`LISTEN_FDS`).
pub fn from_systemd() -> Result<Vec<TcpListener>, ListenError> {
    let mut passed = ListenFd::from_env();
    if passed.len() == 0 {
        return Err(ListenError::NoSystemdSocket);
    }
    let mut listeners = Vec::with_capacity(passed.len());
    for index in 0..passed.len() {
        let failed = |error| ListenError::SystemdSocket { number: index + 1, error };
        // `None` stands for a socket that has been taken already, which this loop cannot meet.
        let Some(listener) = passed.take_tcp_listener(index).map_err(failed)? else { continue };
        // With Accept=yes systemd passes a connection, and accepting from that fails for ever.
        if !socket_acceptconn(&listener).map_err(|errno| failed(errno.into()))? {
            return Err(failed(io::Error::new(ErrorKind::InvalidInput, "it does not listen")));
        }
        listener.set_nonblocking(true).map_err(failed)?;
        listeners.push(TcpListener::from_std(listener).map_err(failed)?);
    }
    Ok(listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn falls_back_to_ipv4() {
        for errno in [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL] {
            let listener = bind_all_interfaces(0, |address| match address {
                SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(errno)),
                SocketAddr::V4(_) => bind_one(address),
            });
            assert_eq!(listener.unwrap().local_addr().unwrap().ip(), Ipv4Addr::UNSPECIFIED);
        }
        let in_use = bind_all_interfaces(0, |_| Err(io::Error::from_raw_os_error(libc::EADDRINUSE)));
        assert_eq!(in_use.unwrap_err().kind(), ErrorKind::AddrInUse);
    }
}
