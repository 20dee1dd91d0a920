//! A real Prometheus that scrapes the daemon.

use serde_json::json;

use crate::kit::actor::Actor;
use crate::kit::daemon::{Daemon, row_is};
use crate::kit::host::{self, eventually, same};
use crate::kit::servers::Prometheus;

#[test]
fn a_real_prometheus_scrapes_and_answers() {
    let _host = host::shared();
    let mut actor = Actor::start();
    actor.ask("pairs", json!({ "prefix": "a", "count": 2, "size": 60_000 }));
    actor.ask("rename", json!({ "name": b"q\"\xff" }));
    actor.comm = "q\"\\xff".to_owned();
    let daemon = Daemon::start();
    let config = format!(
        "scrape_configs:\n- job_name: skmem\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs:\n  \
         - targets: ['{}']\n",
        daemon.address
    );
    let prometheus = Prometheus::start(&config, &[]);
    eventually("a target that is up", || {
        let data = prometheus.ask("/api/v1/targets?state=active")?;
        let target = &data["activeTargets"][0];
        same("health", &target["health"], &json!("up")).map_err(|error| format!("{error}: {target}"))
    });
    eventually("series with the scraped values", || {
        let (scrape, [held]) = daemon.settled([&mut actor]);
        row_is(&scrape, &actor, &held)?;
        let found = prometheus.query(&format!("skmem_process_tcp_memory_bytes{{pid=\"{}\"}}", actor.pid))?;
        let [(labels, value)] = found.as_slice() else { return Err(format!("{found:?}")) };
        same("comm", &labels["process"], &json!(actor.comm))?;
        same("value", value, &held.memory.to_string())?;
        // A counter, whose name differs between the two formats' families.
        let counters = prometheus.query("skmem_tcp_segments_received_total > 0")?;
        same("counters", &counters.len(), &1)?;
        // The join of the reference.
        let joined = prometheus.query(&format!(
            "skmem_process_tcp_memory_bytes{{pid=\"{}\"}} * on (instance, pid, process) group_left (exe) \
             skmem_process_info",
            actor.pid
        ))?;
        let [(labels, _)] = joined.as_slice() else { return Err(format!("{joined:?}")) };
        let exe = std::fs::canonicalize(host::PYTHON).unwrap();
        same("exe", &labels["exe"], &json!(exe.to_str()))
    });
}
