//! What the tests need of the host, and its independent judges.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// Longer than anything here should take, on a machine with other things to do.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Programs that must be there, and the Debian package of each.
const TOOLS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("tc", "iproute2"),
    ("promtool", "prometheus"),
    ("prometheus", "prometheus"),
    ("setpriv", "util-linux"),
    ("tmux", "tmux"),
];
/// Debian's interpreter by its path: another one first in PATH may be an older one.
pub const PYTHON: &str = "/usr/bin/python3";

/// Ends in exec with no capabilities, and no way to get any.
pub const NOBODY: &str =
    "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all";

static HOST: RwLock<()> = RwLock::new(());

/// The host, shared with other tests: for tests that look at their own processes and sockets only.
pub fn shared() -> RwLockReadGuard<'static, ()> {
    require();
    HOST.read().unwrap_or_else(PoisonError::into_inner)
}

/// The host without any other test on it: for tests of host-wide figures.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    require();
    HOST.write().unwrap_or_else(PoisonError::into_inner)
}

/// Fails unless everything is there, and names what is not.
fn require() {
    static MISSING: OnceLock<Vec<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        let mut missing = Vec::new();
        if !rustix::process::geteuid().is_root() {
            missing.push("root: run the tests with sudo -E".to_owned());
        }
        let path = std::env::var("PATH").unwrap_or_default();
        for (tool, package) in TOOLS {
            if !path.split(':').any(|directory| Path::new(directory).join(tool).exists()) {
                missing.push(format!("{tool}: install Debian's package {package}"));
            }
        }
        if !Path::new(PYTHON).exists() {
            missing.push(format!("{PYTHON}: install Debian's package python3"));
        }
        missing
    });
    assert!(missing.is_empty(), "the live tests need {}", missing.join("; "));
}

/// A name that nothing else on the host has, short enough for a comm or an interface.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed))
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks again until there is an answer, and fails with the newest complaint when patience ends.
#[track_caller]
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(answer) => return answer,
            Err(complaint) => assert!(Instant::now() < end, "never: {what}: {complaint}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ok if the two are equal.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, want: &T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: {got:?} instead of {want:?}")) }
}

/// Ok if it is so.
pub fn holds(what: impl FnOnce() -> String, is_so: bool) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(what()) }
}

/// Runs a command line (no quoting) and returns what it printed.
#[track_caller]
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {}: {err}", output.status);
    out.into_owned()
}

/// One socket as `ss` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub state: String,
    pub local_port: u16,
    pub peer_port: u16,
    pub receive_queue: i64,
    pub memory: i64,
}

/// The sockets that `ss` shows with these flags (`-t` or `-M`), in the network namespace `netns` if one is given.
pub fn ss(flags: &str, netns: Option<&str>) -> Vec<Judged> {
    let prefix = netns.map_or_else(String::new, |name| format!("ip netns exec {name} "));
    run(&format!("{prefix}ss {flags} -manOH"))
        .lines()
        .filter_map(|line| judged(&line.split_whitespace().collect::<Vec<_>>()))
        .collect()
}

/// State, Recv-Q, Send-Q, local and peer address, timer and skmem.
fn judged(words: &[&str]) -> Option<Judged> {
    // With several protocols ss puts their name in front.
    let at = usize::from(words.first()?.chars().next()?.is_lowercase());
    let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
    let skmem = words.iter().find_map(|word| word.strip_prefix("skmem:("))?.trim_end_matches(')');
    let word = |key: &str| {
        let value =
            skmem.split(',').find_map(|word| word.strip_prefix(key).and_then(|value| value.parse().ok()));
        // ss prints fwd_alloc, an int, as if it had no sign.
        i64::from(value.unwrap_or(0u32).cast_signed())
    };
    Some(Judged {
        state: (*words.get(at)?).to_owned(),
        local_port: port(words.get(at + 3)?),
        peer_port: port(words.get(at + 4)?),
        receive_queue: words.get(at + 1)?.parse().ok()?,
        memory: word("r") + word("w") + word("f"),
    })
}

/// A network namespace with its loopback up, removed when dropped.
#[derive(Debug)]
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new() -> Self {
        let netns = Self { name: unique("skm") };
        run(&format!("ip netns add {}", netns.name));
        run(&format!("ip -n {} link set lo up", netns.name));
        netns
    }

    /// Removes its name; what lives in it is left alone.
    pub fn delete(&self) {
        run(&format!("ip netns del {}", self.name));
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to do.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

/// Where one end of a wire is; the other is 10.9.0.2.
pub const WIRED: &str = "10.9.0.1";

/// Two namespaces with a cable between their devices `wire`, which `ip link set wire down` in one of them cuts.
pub fn wire() -> Vec<Netns> {
    let [here, there] = [Netns::new(), Netns::new()];
    run(&format!("ip -n {} link add name wire type veth peer name wire netns {}", here.name, there.name));
    for (netns, address) in [(&here, WIRED), (&there, "10.9.0.2")] {
        run(&format!("ip -n {} addr add {address}/24 dev wire", netns.name));
        run(&format!("ip -n {} link set wire up", netns.name));
    }
    vec![here, there]
}
