//! Addresses of host names, from `/etc/hosts` alone.
//!
//! Never by getaddrinfo(): in a static binary on a host with a C library of another make, the modules it loads
//! (`/etc/nsswitch.conf`) end the process.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::{fs, io};

const HOSTS: &str = "/etc/hosts";

/// A host name that has no address here.
#[derive(Debug, thiserror::Error)]
#[error(
    "the host name {name:?} {}, and is looked up nowhere else; \
     give an IP address, or :PORT for all interfaces, or put the name into {HOSTS}",
    why(error.as_ref())
)]
pub struct UnknownHost {
    name: String,
    /// Why the file could not be asked.
    error: Option<io::Error>,
}

fn why(error: Option<&io::Error>) -> String {
    match error {
        None => format!("is not in {HOSTS}"),
        Some(error) => format!("cannot be looked up in {HOSTS} ({error})"),
    }
}

/// All addresses of `name`, at least one.
pub fn look_up(name: &str) -> Result<Vec<IpAddr>, UnknownHost> {
    look_up_in(Path::new(HOSTS), name)
}

fn look_up_in(hosts: &Path, name: &str) -> Result<Vec<IpAddr>, UnknownHost> {
    // Whatever the file says (RFC 6761, 6.3).
    if same(name, "localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let unknown = |error| UnknownHost { name: name.to_owned(), error };
    // A comment may be in any encoding.
    let content = fs::read(hosts).map_err(|error| unknown(Some(error)))?;
    let found = addresses(&String::from_utf8_lossy(&content), name);
    if found.is_empty() { Err(unknown(None)) } else { Ok(found) }
}

/// What a file like `/etc/hosts` says of `name`, in its order. Lines without an address that can be read are passed over.
fn addresses(hosts: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|alias| same(alias, name)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Names are the same in either case, and with the dot of the root or without.
fn same(one: &str, other: &str) -> bool {
    let bare = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # node-9\n\
        # 192.0.2.9 node-1\n192.0.2.1   node-1.example  Node-1 # the first\r\n  2001:db8::1 node-1\n\
        192.0.2.1 node-1\nfe80::1%eth0 node-2\nnode-3 node-4\n192.0.2.3\n192.0.2.5 node-5#node-6\n\n192.0.2.7 last";

    #[test]
    fn reads_the_file_as_it_is_written() {
        #[track_caller]
        fn check(name: &str, expect: &[&str]) {
            let found: Vec<String> = addresses(FILE, name).iter().map(ToString::to_string).collect();
            assert_eq!(found, expect, "{name}");
        }
        check("node-1", &["192.0.2.1", "2001:db8::1"]);
        check("NODE-1.Example.", &["192.0.2.1"]);
        check("node-5", &["192.0.2.5"]);
        check("last", &["192.0.2.7"]);
        for name in ["node", "node-2", "node-3", "node-4", "node-6", "node-9", "192.0.2.3", "first", "#", ""]
        {
            check(name, &[]);
        }
    }

    #[test]
    fn localhost_needs_no_file() {
        for name in ["localhost", "LocalHost", "localhost."] {
            let found = look_up_in(Path::new("/nonexistent"), name).unwrap();
            assert_eq!(found, [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
        }
    }

    #[test]
    fn what_is_not_there_is_said_with_its_cure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        let error = |name| look_up_in(&path, name).unwrap_err().to_string();
        let missing = error("node-1");
        assert!(missing.contains("cannot be looked up in /etc/hosts (No such file"), "{missing}");
        fs::write(&path, [b"# caf\xe9\n", FILE.as_bytes()].concat()).unwrap();
        assert_eq!(look_up_in(&path, "node-5").unwrap(), [IpAddr::from([192, 0, 2, 5])]);
        assert_eq!(
            error("node-7"),
            "the host name \"node-7\" is not in /etc/hosts, and is looked up nowhere else; \
             give an IP address, or :PORT for all interfaces, or put the name into /etc/hosts"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "[\\PC\n\t#]{0,80}", name in "\\PC{0,9}") {
            let _ = addresses(&text, &name);
        }
    }
}
