//! Text out of bytes, and pure parsers for the text files under `/proc/net` and `/proc/sys`. These go by field name: kernels
//! add, drop and reorder fields (UDPLITE is gone from the newest trees, which is also why the procfs crate's `Snmp`, which
//! demands every field, is not used here).

/// The TCP line of `/proc/net/sockstat` (`net/ipv4/proc.c`, `sockstat_seq_show`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sockstat {
    /// Hashed IPv4 sockets of this namespace.
    pub inuse: u64,
    /// Orphans, host-wide.
    pub orphan: u64,
    /// TIME_WAIT minisocks of this namespace, IPv6 included.
    pub time_wait: u64,
    /// TCP sockets allocated, host-wide.
    pub alloc: u64,
    /// `tcp_memory_allocated`, host-wide. Pages.
    pub mem_pages: u64,
}

/// Parses `/proc/net/sockstat`.
pub fn sockstat(text: &str) -> Result<Sockstat, String> {
    let line = prefixed_line(text, "TCP:")?;
    Ok(Sockstat {
        inuse: pair(line, "TCP", "inuse")?,
        orphan: pair(line, "TCP", "orphan")?,
        time_wait: pair(line, "TCP", "tw")?,
        alloc: pair(line, "TCP", "alloc")?,
        mem_pages: pair(line, "TCP", "mem")?,
    })
}

/// Parses `/proc/net/sockstat6`: the namespace's hashed IPv6 sockets.
pub fn sockstat6(text: &str) -> Result<u64, String> {
    pair(prefixed_line(text, "TCP6:")?, "TCP6", "inuse")
}

fn prefixed_line<'a>(text: &'a str, prefix: &str) -> Result<&'a str, String> {
    text.lines().find_map(|line| line.strip_prefix(prefix)).ok_or_else(|| format!("no line {prefix:?}"))
}

/// The number after `name` in a line of name-value pairs.
fn pair(line: &str, table: &str, name: &str) -> Result<u64, String> {
    let mut words = line.split_ascii_whitespace();
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        if key == name {
            return number(value).map_err(|error| format!("{table} {name}: {error}"));
        }
    }
    Err(format!("{table} has no field {name:?}"))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|error| format!("{word:?}: {error}"))
}

/// One table of `/proc/net/snmp` or `/proc/net/netstat`: a line of names, then a line of values.
#[derive(Debug)]
pub struct Table<'a> {
    name: &'a str,
    names: &'a str,
    values: &'a str,
}

impl<'a> Table<'a> {
    /// The table called `name`, e.g. `Tcp` or `TcpExt`.
    pub fn find(text: &'a str, name: &'a str) -> Result<Self, String> {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            return Err(format!("no table {name:?}"));
        };
        let (columns, cells) =
            (names.split_ascii_whitespace().count(), values.split_ascii_whitespace().count());
        if columns != cells {
            return Err(format!("table {name:?} has {columns} names and {cells} values"));
        }
        Ok(Self { name, names, values })
    }

    /// The counter `field`; one that this kernel does not have has counted nothing.
    pub fn counter(&self, field: &str) -> Result<u64, String> {
        let cells = self.names.split_ascii_whitespace().zip(self.values.split_ascii_whitespace());
        match cells.into_iter().find(|(name, _)| *name == field) {
            Some((_, value)) => number(value).map_err(|error| format!("{} {field}: {error}", self.name)),
            None => Ok(0),
        }
    }

    /// The counter `field`, which every kernel has: its absence means that we misread the file.
    pub fn required(&self, field: &str) -> Result<u64, String> {
        if self.names.split_ascii_whitespace().any(|name| name == field) {
            self.counter(field)
        } else {
            Err(format!("{} has no field {field:?}", self.name))
        }
    }
}

/// `press` of the TCP row of `/proc/net/protocols` (`net/core/sock.c`, `proto_seq_printf`).
pub fn tcp_memory_pressure(text: &str) -> Result<bool, String> {
    let mut lines = text.lines();
    let header = lines.next().ok_or("empty")?;
    let column =
        header.split_ascii_whitespace().position(|name| name == "press").ok_or("no column \"press\"")?;
    let row = lines
        .map(str::split_ascii_whitespace)
        .find_map(|mut words| (words.next()? == "TCP").then_some(words))
        .ok_or("no row \"TCP\"")?;
    // `find_map` has taken the name, so columns count from one.
    match column.checked_sub(1).and_then(|column| row.into_iter().nth(column)) {
        Some("yes") => Ok(true),
        Some("no") => Ok(false),
        other => Err(format!("TCP press is {other:?}, neither yes nor no")),
    }
}

/// Whether `/proc/net/protocols` has a row of this name: whether the kernel has the protocol.
pub fn has_protocol(text: &str, name: &str) -> bool {
    text.lines().any(|line| line.split_ascii_whitespace().next() == Some(name))
}

/// The three numbers of `tcp_mem`, `tcp_rmem` or `tcp_wmem`.
pub fn three_numbers(text: &str) -> Result<[u64; 3], String> {
    let mut words = text.split_ascii_whitespace();
    let mut next = || words.next().ok_or_else(|| "fewer than three numbers".to_owned()).and_then(number);
    Ok([next()?, next()?, next()?])
}

/// A sysctl of one number.
pub fn one_number(text: &str) -> Result<u64, String> {
    number(text.trim_ascii())
}

/// A sysctl that is on unless it is zero.
pub fn switch(text: &str) -> Result<bool, String> {
    Ok(one_number(text)? != 0)
}

/// Lines of `/proc/net/softnet_stat`: one per online CPU.
pub fn online_cpus(text: &str) -> Result<u64, String> {
    match text.lines().filter(|line| !line.is_empty()).count() {
        0 => Err("no line for any CPU".to_owned()),
        lines => Ok(lines as u64),
    }
}

/// `major.minor` of a kernel release such as `6.18.44-amd64`.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.trim_ascii().split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The inode in the target of a `/proc/PID/fd/N` or namespace link such as `socket:[12345]`.
pub fn link_inode(target: &[u8], kind: &str) -> Option<u64> {
    let digits = target.strip_prefix(kind.as_bytes())?.strip_prefix(b":[")?.strip_suffix(b"]")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Any bytes as text: those that are not UTF-8 become `\xNN`.
pub fn lossless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOCKSTAT: &str = "sockets: used 290\nTCP: inuse 12 orphan 3 tw 7 alloc 44 mem 1024\n\
        UDP: inuse 4 mem 1\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n";

    #[test]
    fn sockstat_is_read_by_name() {
        let want = Sockstat { inuse: 12, orphan: 3, time_wait: 7, alloc: 44, mem_pages: 1024 };
        assert_eq!(sockstat(SOCKSTAT), Ok(want));
        let shuffled = "UDP: mem 9\nTCP: mem 1024 alloc 44 new 5 tw 7 inuse 12 orphan 3\n";
        assert_eq!(sockstat(shuffled), Ok(want));
        assert_eq!(sockstat6("TCP6: inuse 5\nUDP6: inuse 1\n"), Ok(5));
    }

    #[test]
    fn sockstat_complaints_name_the_field() {
        assert_eq!(sockstat("UDP: inuse 1\n"), Err("no line \"TCP:\"".to_owned()));
        assert_eq!(sockstat("TCP: inuse 1 orphan 0 tw"), Err("TCP has no field \"tw\"".to_owned()));
        let huge = sockstat("TCP: inuse 99999999999999999999 orphan 0 tw 0 alloc 0 mem 0");
        assert!(huge.is_err_and(|error| error.starts_with("TCP inuse:")));
    }

    #[test]
    fn tables_are_read_by_name_and_missing_counters_are_zero() {
        let text = "TcpExt: A PruneCalled B\nTcpExt: 1 22 3\nIpExt: PruneCalled\nIpExt: 9\n";
        let table = Table::find(text, "TcpExt").unwrap();
        assert_eq!(table.counter("PruneCalled"), Ok(22));
        assert_eq!(table.counter("TCPZeroWindowDrop"), Ok(0));
        assert!(table.required("InSegs").is_err());
        let snmp = "Tcp: RtoMax MaxConn InSegs\nTcp: 120000 -1 77\nUdp: X\nUdp: 1\n";
        assert_eq!(Table::find(snmp, "Tcp").unwrap().required("InSegs"), Ok(77));
        assert!(Table::find(snmp, "Tcp").unwrap().counter("MaxConn").is_err(), "-1 is no counter");
        assert!(Table::find("Tcp: A B\nTcp: 1\n", "Tcp").is_err(), "short row");
        assert!(Table::find("Tcp: A B\n", "Tcp").is_err(), "cut file");
    }

    #[test]
    fn pressure_is_the_tcp_row_of_the_press_column() {
        let text = "protocol  size sockets  memory press maxhdr\n\
            TCPv6     2432      0      68   no     192\nTCP       2304      1      68   yes    192\n";
        assert_eq!(tcp_memory_pressure(text), Ok(true));
        assert_eq!(tcp_memory_pressure(&text.replace("yes", "no")), Ok(false));
        assert!(tcp_memory_pressure(&text.replace("yes", "NI")).is_err());
        assert!(tcp_memory_pressure("protocol size\nTCP 1\n").is_err());
    }

    #[test]
    fn small_files() {
        assert_eq!(three_numbers("287901\t383870\t575802\n"), Ok([287_901, 383_870, 575_802]));
        assert!(three_numbers("1 2").is_err());
        assert_eq!(switch("1\n"), Ok(true));
        assert_eq!(switch("0\n"), Ok(false));
        assert_eq!(online_cpus("0000 01\n0000 02\n"), Ok(2));
        assert!(online_cpus("").is_err());
        assert_eq!(kernel_version("6.18.44-fc\n"), Some((6, 18)));
        assert_eq!(kernel_version("5.4"), Some((5, 4)));
        assert_eq!(kernel_version("six"), None);
        assert_eq!(link_inode(b"socket:[123]", "socket"), Some(123));
        assert_eq!(link_inode(b"net:[4026531840]", "net"), Some(4_026_531_840));
        assert_eq!(link_inode(b"socket:[12", "socket"), None);
        assert_eq!(link_inode(b"/tmp/socket:[1]", "socket"), None);
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text in "[a-zA-Z0-9: \n\t-]{0,200}") {
            let _ = sockstat(&text);
            let _ = sockstat6(&text);
            let _ = tcp_memory_pressure(&text);
            let _ = three_numbers(&text);
            let _ = kernel_version(&text);
            let _ = link_inode(text.as_bytes(), "socket");
            if let Ok(table) = Table::find(&text, "Tcp") {
                let _ = table.required("InSegs");
            }
        }

        #[test]
        fn sockstat_field_order_does_not_matter(
            order in Just(["inuse 1", "orphan 2", "tw 3", "alloc 4", "mem 5", "x 6"]).prop_shuffle()
        ) {
            let want = Sockstat { inuse: 1, orphan: 2, time_wait: 3, alloc: 4, mem_pages: 5 };
            prop_assert_eq!(sockstat(&format!("TCP: {}", order.join(" "))), Ok(want));
        }
    }

    #[test]
    fn text_keeps_every_byte() {
        assert_eq!(lossless(b"plain"), "plain");
        assert_eq!(lossless("gr\u{fc}n\n\"".as_bytes()), "gr\u{fc}n\n\"");
        assert_eq!(lossless(b"a\xffb\xc3"), "a\\xffb\\xc3");
    }
}
