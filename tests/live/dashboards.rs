//! Every query of the dashboards, asked of a real Prometheus that scrapes the daemon while there is something to see.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::actor::Actor;
use crate::daemon::Daemon;
use crate::host::{self, eventually, same};
use crate::prometheus::Prometheus;

#[path = "../support/dashboards.rs"]
#[allow(dead_code)]
mod files;

use files::{Dashboard, Query, substitute};

/// Queries that may find nothing where nothing worse is wrong, and why.
const MAY_BE_EMPTY: [(&str, &str); 9] = [
    ("skmem-fleet.json: Hosts by capability that is missing A", "root has them all"),
    ("skmem-fleet.json: Hosts by source that fails A", "every source can be read"),
    ("skmem-fleet.json: Received and thrown away, the ten worst hosts A", "nothing is thrown away"),
    ("skmem-fleet.json: Reset for want of memory, the ten worst hosts A", "memory is not short"),
    ("skmem-host.json: Errors by source A", "every source can be read"),
    ("skmem-host.json: Overruns and refused requests B", "nobody is turned away"),
    ("skmem-host.json: Socket memory charged to cgroups A", "needs the memory controller on cgroup2"),
    ("skmem-host.json: TCP memory by cgroup A", "needs cgroup2"),
    ("skmem-host.json: Unread data by cgroup A", "needs cgroup2"),
];

/// Something to see of every kind that a program can make: connections that are not read, one that is not accepted, and
/// one that the peer has closed.
fn culprits() -> [Actor; 2] {
    let (mut culprit, mut sender) = (Actor::start(), Actor::start());
    let port = culprit.ask_port("listen", json!({ "name": "listener" }));
    let mut connect = |name: &str| {
        sender.ask("connect", json!({ "name": name, "port": port }));
    };
    for name in ["unread", "closed"] {
        connect(name);
        culprit.ask("accept", json!({ "name": name, "listener": "listener" }));
    }
    connect("waiting");
    sender.ask("fill", json!({ "name": "unread" }));
    sender.ask("send", json!({ "name": "waiting", "size": 20_000 }));
    sender.ask("send", json!({ "name": "closed", "size": 20_000 }));
    sender.ask("close", json!({ "name": "closed" }));
    [culprit, sender]
}

/// How many series a query finds over the last half minute.
fn series(prometheus: &Prometheus, query: &Query, instance: &str) -> Result<usize, String> {
    let values = [
        ("__rate_interval", "4s"),
        ("__range", "30s"),
        ("instance", instance),
        ("job", "skmem"),
        ("process", ".*"),
    ];
    let expr = substitute(query, &values);
    let escaped = expr.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let start = end.saturating_sub(Duration::from_secs(30));
    let (start, end) = (start.as_secs_f64(), end.as_secs_f64());
    let path = format!("/api/v1/query_range?query={escaped}&start={start}&end={end}&step=1");
    let data = prometheus.ask(&path).map_err(|error| format!("{}: {error}", query.place))?;
    Ok(data["result"].as_array().map_or(0, Vec::len))
}

#[test]
fn every_query_of_the_dashboards_finds_something() {
    let _host = host::shared();
    let _culprits = culprits();
    let daemon = Daemon::start_with(&["--stall.after=3s"]);
    let prometheus = Prometheus::start(daemon.address);
    let instance = daemon.address.to_string();
    let mut left: Vec<Query> = files::all().iter().flat_map(Dashboard::queries).collect();
    assert!(left.len() > 100, "the search works");
    let expected: Vec<&str> = MAY_BE_EMPTY.iter().map(|(place, _)| *place).collect();
    for place in &expected {
        assert!(left.iter().any(|query| query.place == *place), "there is no {place}");
    }
    eventually("something for every query", || {
        // A query that Prometheus refuses fails here too, also one that may be empty.
        let mut answered = Vec::new();
        for query in &left {
            if series(&prometheus, query, &instance)? > 0 {
                answered.push(query.place.clone());
            }
        }
        left.retain(|query| !answered.contains(&query.place));
        let places = left.iter().map(|query| query.place.as_str());
        let nothing: Vec<&str> = places.filter(|place| !expected.contains(place)).collect();
        same("queries without an answer", &nothing, &Vec::new())
    });
}
