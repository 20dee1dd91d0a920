//! Every query of the dashboards, asked of the Prometheus that has seen every fault.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::kit::host::same;
use crate::kit::servers::escaped;
use crate::monitoring::Monitoring;

#[path = "../support/dashboards.rs"]
#[allow(dead_code)]
mod files;

use files::{Dashboard, Query, substitute};

/// Queries that may find nothing here, and why.
const MAY_BE_EMPTY: [(&str, &str); 4] = [
    ("skmem-host.json: Overruns and refused requests B", "nobody is turned away"),
    ("skmem-host.json: Socket memory charged to cgroups A", "needs the memory controller on cgroup2"),
    ("skmem-host.json: TCP memory by cgroup A", "needs cgroup2"),
    ("skmem-host.json: Unread data by cgroup A", "needs cgroup2"),
];

/// How many series a query finds between then and now.
fn series(monitoring: &Monitoring, query: &Query, since: Duration) -> usize {
    let range = format!("{}s", since.as_secs());
    let values = [
        ("__rate_interval", "4s"),
        ("__range", &*range),
        ("instance", ".+"),
        ("job", "skmem"),
        ("process", ".*"),
    ];
    let expr = escaped(&substitute(query, &values));
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (start, end) = (end.saturating_sub(since).as_secs_f64(), end.as_secs_f64());
    let path = format!("/api/v1/query_range?query={expr}&start={start}&end={end}&step=1");
    let data = monitoring.prometheus.ask(&path).unwrap_or_else(|error| panic!("{}: {error}", query.place));
    data["result"].as_array().map_or(0, Vec::len)
}

pub fn every_query_finds_something(monitoring: &Monitoring, since: Instant) {
    let queries: Vec<Query> = files::all().iter().flat_map(Dashboard::queries).collect();
    assert!(queries.len() > 100, "the search works");
    for (place, _) in MAY_BE_EMPTY {
        assert!(queries.iter().any(|query| query.place == place), "there is no {place}");
    }
    let is_expected = |query: &&Query| MAY_BE_EMPTY.iter().all(|(place, _)| *place != query.place);
    // Prometheus must take those that may be empty, too.
    let empty: Vec<_> = queries
        .iter()
        .filter(|query| series(monitoring, query, since.elapsed()) == 0)
        .filter(is_expected)
        .collect();
    let places: Vec<_> = empty.into_iter().map(|query| &query.place).collect();
    same("queries without an answer", &places, &Vec::new()).unwrap();
}
