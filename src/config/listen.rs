//! Where the web server listens.

use super::hosts::{UnknownHost, look_up};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

/// Longest host name DNS allows.
const LONGEST_NAME: usize = 253;

/// One address to listen on, as configured; names are looked up only when it is bound or asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `:10477`: every interface, IPv6 and IPv4 on one socket; IPv4 alone where the host has no IPv6.
    AllInterfaces {
        /// TCP port; 0 lets the kernel choose one.
        port: u16,
    },
    /// `127.0.0.1:10477`, `[::1]:10477`
    Socket(SocketAddr),
    /// `localhost:10477`, or another name in `/etc/hosts`
    Name {
        /// Kept as written, so that a name that moves is found again.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl ListenAddress {
    /// TCP port as configured.
    pub fn port(&self) -> u16 {
        match self {
            Self::AllInterfaces { port } | Self::Name { port, .. } => *port,
            Self::Socket(address) => address.port(),
        }
    }

    /// Where a client on this host reaches the listener, at least one: a wildcard is no address to connect to.
    pub fn local(&self) -> Result<Vec<SocketAddr>, UnknownHost> {
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, self.port()));
        match self {
            Self::AllInterfaces { .. } => Ok(vec![v4, v6]),
            Self::Socket(address) if address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ok(vec![v4]),
            Self::Socket(address) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ok(vec![v6]),
            Self::Socket(address) => Ok(vec![*address]),
            Self::Name { host, port } => {
                Ok(look_up(host)?.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect())
            }
        }
    }

    /// Whether both cannot be bound at once, as far as that shows without looking up names.
    pub fn overlaps(&self, other: &Self) -> bool {
        let one_port = self.port() == other.port() && self.port() != 0;
        self == other || one_port && (self.covers(other) || other.covers(self))
    }

    /// Whether this takes `other`'s address too, given the same port. Port 0 is a different one each time.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AllInterfaces { .. }, _) => true,
            (Self::Socket(one), Self::Socket(other)) => {
                one.ip().is_unspecified() && one.is_ipv4() == other.is_ipv4()
            }
            _ => false,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllInterfaces { port } => write!(f, ":{port}"),
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for ListenAddress {
    /// What is wrong, without the text itself.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err("has no port".to_owned());
        };
        if text.contains(',') {
            return Err("is more than one address".to_owned());
        }
        if host.contains(':') && !host.starts_with('[') {
            return Err("is an IPv6 address without brackets, or has too many colons".to_owned());
        }
        if port.is_empty() || text.ends_with(']') {
            return Err("has no port".to_owned());
        }
        // `parse` alone would take a sign.
        let port = match port.parse() {
            Ok(number) if port.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => return Err(format!("has the port {port:?}, not a number from 0 to 65535")),
        };
        if host.is_empty() {
            return Ok(Self::AllInterfaces { port });
        }
        if host.starts_with('[') {
            return format!("{host}:{port}")
                .parse::<SocketAddrV6>()
                .map(|address| Self::Socket(address.into()))
                .map_err(|_| format!("has no IPv6 address in {host:?}"));
        }
        if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return host
                .parse::<Ipv4Addr>()
                .map(|ip| Self::Socket(SocketAddr::from((ip, port))))
                .map_err(|_| format!("has {host:?}, which is not an IPv4 address"));
        }
        if host.len() <= LONGEST_NAME
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        {
            Ok(Self::Name { host: host.to_owned(), port })
        } else {
            Err(format!("has {host:?}, which is not a host name"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_addresses_as_people_write_them() {
        #[track_caller]
        fn check(input: &str, expect: Result<&str, &str>) {
            match (input.parse::<ListenAddress>(), expect) {
                (Ok(address), Ok(expect)) => assert_eq!(format!("{address:?}"), expect, "{input}"),
                (Err(why), Err(expect)) => assert!(why.contains(expect), "{input}: {why}"),
                (got, _) => panic!("{input}: {got:?}, expected {expect:?}"),
            }
        }
        check(":10477", Ok("AllInterfaces { port: 10477 }"));
        check("127.0.0.1:10477", Ok("Socket(127.0.0.1:10477)"));
        check("[::1]:10477", Ok("Socket([::1]:10477)"));
        check("[fe80::1%2]:1", Ok("Socket([fe80::1%2]:1)"));
        check("127.0.0.1:0", Ok("Socket(127.0.0.1:0)"));
        check("localhost:65535", Ok(r#"Name { host: "localhost", port: 65535 }"#));
        check("node-1.example:80", Ok(r#"Name { host: "node-1.example", port: 80 }"#));

        check("", Err("no port"));
        check("10477", Err("no port"));
        check("localhost", Err("no port"));
        check("localhost:", Err("no port"));
        check("[::1]", Err("no port"));
        check(":65536", Err("65536"));
        check(":-1", Err("-1"));
        check(":+80", Err("+80"));
        check(":http", Err("http"));
        check("::1", Err("brackets"));
        check("::1:80", Err("brackets"));
        check("[::1:80", Err("no IPv6 address"));
        check("[fe80::1%eth0]:80", Err("no IPv6 address"));
        check("[127.0.0.1]:80", Err("no IPv6 address"));
        check("256.0.0.1:80", Err("not an IPv4 address"));
        check("1.2.3:80", Err("not an IPv4 address"));
        check("*:80", Err("not a host name"));
        check("a b:80", Err("not a host name"));
        check("http://x:80", Err("colons"));
        check("vsock://:80", Err("colons"));
        check(":80,:81", Err("more than one"));
        check(&format!("{}:80", "a".repeat(254)), Err("not a host name"));
    }

    #[test]
    fn knows_where_to_call() {
        fn check(input: &str, call: &[&str]) {
            let address: ListenAddress = input.parse().unwrap();
            let local: Vec<String> = address.local().unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(local, call, "{input}");
        }
        check(":10477", &["127.0.0.1:10477", "[::1]:10477"]);
        check("0.0.0.0:1", &["127.0.0.1:1"]);
        check("[::]:1", &["[::1]:1"]);
        check("192.0.2.1:1", &["192.0.2.1:1"]);
        check("localhost:1", &["127.0.0.1:1", "[::1]:1"]);
        let unknown: ListenAddress = "no-such-host.invalid:1".parse().unwrap();
        let error = unknown.local().unwrap_err().to_string();
        assert!(error.contains("no-such-host.invalid"), "{error}");
    }

    #[test]
    fn sees_which_two_cannot_be_bound_at_once() {
        fn check(one: &str, other: &str, expect: bool) {
            let (one, other): (ListenAddress, ListenAddress) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.overlaps(&other), expect, "{one} {other}");
            assert_eq!(other.overlaps(&one), expect, "{other} {one}");
        }
        check(":1", ":1", true);
        check(":1", "127.0.0.1:1", true);
        check("localhost:1", "localhost:1", true);
        check("0.0.0.0:1", "127.0.0.1:1", true);
        check("0.0.0.0:1", "[::1]:1", false);
        check(":1", ":2", false);
        check("127.0.0.1:1", "[::1]:1", false);
        check(":0", "127.0.0.1:0", false);
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<ListenAddress>();
        }

        #[test]
        fn is_read_back_as_written(text in r"(\[[0-9a-f:%]{2,12}\]|[a-z0-9.-]{0,12}):[0-9]{1,5}") {
            if let Ok(address) = text.parse::<ListenAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
