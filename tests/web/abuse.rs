//! Clients that want too much, against the real daemon: who behaves is served all the same, and what they took comes back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use skmem_exporter::http::limits::{HEADER_TIMEOUT, MAX_CONNECTIONS};

use crate::descriptors;
use crate::kit::daemon::Daemon;
use crate::kit::host::{self, PYTHON, alone, eventually, holds};
use crate::kit::scrape::Scrape;
use crate::site::Site;

/// How far the daemon's memory may grow over what it was before the attack: for each of the connections there may be, TLS
/// buffers, a header of 16 KiB, and what the allocator makes of that. Each of the thousands of sockets on this host costs the
/// samples some bytes, too. A leak, or a queue without a bound, grows far beyond.
const GROWTH_KIB: u64 = MAX_CONNECTIONS as u64 * 128;

/// How far it may grow further when the same attack comes again: what the first took is there to be used again. Some of it
/// lies between what is still used, so not all can be.
const AGAIN_KIB: u64 = GROWTH_KIB / 8;

/// Honest scrapes during each attack, at least.
const SCRAPES: usize = 8;

/// Lines in the log of all attacks together: fewer than there are attacks.
const LINES: usize = 10;

/// One attack.
struct Attack {
    name: &'static str,
    /// Whether over TLS, and then also without.
    tls: &'static [bool],
    connections: usize,
    addresses: usize,
    seconds: u64,
    /// For which reasons somebody is turned away; one of them at least.
    refused: &'static [&'static str],
    /// What the attackers must have met, or theirs was no such attack.
    happened: &'static [&'static str],
}

const LONGER_THAN_HEADERS: u64 = HEADER_TIMEOUT.as_secs() + 3;
const CROWD: &[&str] = &["over_max_connections"];

const ATTACKS: [Attack; 14] = [
    // Thousands that idle, of one peer and of many.
    Attack {
        name: "idle",
        tls: &[false, true],
        connections: 2000,
        addresses: 1,
        seconds: 6,
        refused: CROWD,
        happened: &["status 200"],
    },
    Attack {
        name: "idle",
        tls: &[false],
        connections: 3000,
        addresses: 100,
        seconds: 6,
        refused: CROWD,
        happened: &["status 200"],
    },
    Attack {
        name: "silent",
        tls: &[false, true],
        connections: 2000,
        addresses: 8,
        seconds: 6,
        refused: CROWD,
        happened: &["held to the end"],
    },
    Attack {
        name: "silent",
        tls: &[false],
        connections: 100,
        addresses: 8,
        seconds: LONGER_THAN_HEADERS,
        refused: &["header_timeout"],
        happened: &["held to the end"],
    },
    Attack {
        name: "half_hello",
        tls: &[true],
        connections: 100,
        addresses: 8,
        seconds: LONGER_THAN_HEADERS,
        refused: &["tls_handshake"],
        happened: &["held to the end"],
    },
    Attack {
        name: "half_hello",
        tls: &[true],
        connections: 1000,
        addresses: 8,
        seconds: 5,
        refused: CROWD,
        happened: &["held to the end"],
    },
    Attack {
        name: "slow_headers",
        tls: &[false, true],
        connections: 200,
        addresses: 8,
        seconds: LONGER_THAN_HEADERS,
        refused: &["header_timeout"],
        happened: &["ended"],
    },
    Attack {
        name: "huge_headers",
        tls: &[false, true],
        connections: 50,
        addresses: 2,
        seconds: 4,
        refused: &["header_too_large"],
        happened: &["connected"],
    },
    Attack {
        name: "flood",
        tls: &[false, true],
        connections: 400,
        addresses: 4,
        seconds: 5,
        refused: CROWD,
        happened: &["status 200"],
    },
    Attack {
        name: "pipeline",
        tls: &[false, true],
        connections: 50,
        addresses: 2,
        seconds: 4,
        refused: &[],
        happened: &["status 200"],
    },
    Attack {
        name: "deaf",
        tls: &[false, true],
        connections: 200,
        addresses: 4,
        seconds: 6,
        refused: &["over_max_requests"],
        happened: &["held to the end"],
    },
    Attack {
        name: "handshakes",
        tls: &[true],
        connections: 50,
        addresses: 4,
        seconds: 4,
        refused: &[],
        happened: &["ended"],
    },
    Attack {
        name: "h2_streams",
        tls: &[true],
        connections: 50,
        addresses: 4,
        seconds: 5,
        refused: &["over_max_requests"],
        happened: &["h2 HEADERS", "h2 GOAWAY"],
    },
    Attack {
        name: "h2_resets",
        tls: &[true],
        connections: 20,
        addresses: 4,
        seconds: 5,
        refused: &[],
        happened: &["h2 GOAWAY"],
    },
];

/// The generator; killed when dropped.
struct Attackers(Child, BufReader<std::process::ChildStdout>);

impl Attackers {
    fn start(attack: &Attack, tls: bool, daemon: &Daemon) -> Self {
        let numbers = [
            daemon.address.port().into(),
            attack.seconds,
            attack.connections as u64,
            attack.addresses as u64,
        ];
        let mut command = Command::new(PYTHON);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/web/abuse.py")).arg(attack.name);
        command.args(numbers.map(|number| number.to_string())).args(tls.then_some("tls"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "attacking");
        Self(child, out)
    }

    fn are_attacking(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// What came of it.
    fn end(mut self) -> BTreeMap<String, u64> {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A figure of /proc/PID/status in KiB.
fn memory(daemon: &Daemon, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The daemon, and who scrapes it as one should: from 127.0.0.1, where no attacker is.
struct Scene {
    site: Site,
    daemon: Daemon,
    tls: bool,
}

impl Scene {
    fn new(tls: bool) -> Self {
        let site = Site::new();
        if tls {
            site.configure("TLS");
        } else {
            site.write("web.yml", "");
        }
        let daemon = site.start();
        let scene = Self { site, daemon, tls };
        eventually("a sample", || holds(|| "none yet".to_owned(), scene.scrape().timestamp() > 0.0));
        scene
    }

    fn scrape(&self) -> Scrape {
        self.site.scrape(&self.daemon, if self.tls { "TLS/metrics" } else { "PLAIN/metrics" })
    }

    fn refused(&self, reasons: &[&str]) -> i64 {
        let scrape = self.scrape();
        reasons
            .iter()
            .map(|reason| scrape.int("skmem_exporter_http_refused_total", &[("reason", reason)]))
            .sum()
    }

    /// Attacks, and sees that everything is as it should be; what the daemon's memory rose to.
    fn endures(&self, attack: &Attack) -> u64 {
        let what = format!("{} over {}", attack.name, if self.tls { "TLS" } else { "TCP" });
        let (descriptors_before, refused_before) =
            (descriptors::open(self.daemon.pid()), self.refused(attack.refused));
        let before = memory(&self.daemon, "VmRSS");
        // 5: forget the peak.
        std::fs::write(format!("/proc/{}/clear_refs", self.daemon.pid()), "5").unwrap();
        let mut attackers = Attackers::start(attack, self.tls, &self.daemon);
        let (mut scrapes, mut most) = (0, 0);
        // Each on a new connection, and each must be answered at once with 200.
        while attackers.are_attacking() || scrapes < SCRAPES {
            self.scrape();
            scrapes += 1;
            most = most.max(descriptors::open(self.daemon.pid()));
            std::thread::sleep(Duration::from_millis(50));
        }
        let told = attackers.end();
        let peak = memory(&self.daemon, "VmHWM");
        assert!(most <= descriptors_before + MAX_CONNECTIONS + 16, "{what}: {most} descriptors");
        assert!(peak <= before + GROWTH_KIB, "{what}: from {before} to {peak} KiB");
        for happened in attack.happened {
            assert!(told.contains_key(*happened), "{what}: no {happened}: {told:?}");
        }
        if !attack.refused.is_empty() {
            eventually("refusals are counted", || {
                let more = self.refused(attack.refused) - refused_before;
                holds(|| format!("{what}: {:?} {more}, {told:?}", attack.refused), more > 0)
            });
        }
        eventually("descriptors are released", || {
            let now = descriptors::open(self.daemon.pid());
            holds(|| format!("{what}: {now}, {descriptors_before} before"), now <= descriptors_before + 4)
        });
        let after = memory(&self.daemon, "VmRSS");
        println!(
            "{what}: {scrapes} scrapes, {most} descriptors, {before} to {peak} KiB, {after} after; {told:?}"
        );
        peak
    }
}

#[test]
fn who_behaves_is_served_whatever_others_do() {
    for tls in [false, true] {
        let _host = alone();
        let scene = Scene::new(tls);
        let idle = memory(&scene.daemon, "VmRSS");
        for attack in ATTACKS.iter().filter(|attack| attack.tls.contains(&tls)) {
            let peak = scene.endures(attack);
            // Over all attacks together: nothing adds up.
            assert!(peak <= idle + GROWTH_KIB, "{}: from {idle} to {peak} KiB", attack.name);
        }
        let log = scene.daemon.log();
        assert!(log.iter().all(|line| !line.contains("panic") && !line.contains("level=error")), "{log:?}");
        // Nor can they fill the disk with it. What samples say is not theirs.
        let lines: Vec<_> = log.iter().filter(|line| !line.contains("source=")).collect();
        assert!(lines.len() < LINES, "{} lines: {:?}", lines.len(), &lines[..LINES]);
    }
}

#[test]
fn memory_is_used_again() {
    let _host = alone();
    let scene = Scene::new(true);
    let attack = ATTACKS.iter().find(|attack| attack.name == "deaf").unwrap();
    let first = scene.endures(attack);
    for _ in 0..2 {
        let peak = scene.endures(attack);
        assert!(peak <= first + AGAIN_KIB, "from {first} to {peak} KiB");
    }
}

/// Who guesses passwords uses up the turns to check one, but not those of who has shown the right one.
#[test]
fn guesses_do_not_lock_out() {
    let _host = host::alone();
    let (site, daemon) = Site::serving("passwords");
    let right = format!("--user prometheus:{} PLAIN/metrics", site.password);
    site.scrape(&daemon, &right);
    let attack = Attack {
        name: "guesses",
        tls: &[],
        connections: 100,
        addresses: 4,
        seconds: 5,
        refused: &[],
        happened: &["status 401", "status 503"],
    };
    let mut attackers = Attackers::start(&attack, false, &daemon);
    while attackers.are_attacking() {
        site.scrape(&daemon, &right);
    }
    let told = attackers.end();
    assert!(told.contains_key("status 401") && told.contains_key("status 503"), "{told:?}");
    for reason in ["unauthorized", "over_waiting_logins"] {
        eventually(reason, || {
            let count =
                site.scrape(&daemon, &right).int("skmem_exporter_http_refused_total", &[("reason", reason)]);
            holds(|| format!("{count}"), count > 0)
        });
    }
}
