//! A real Prometheus that scrapes the daemon.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::actor::Actor;
use crate::daemon::{Daemon, row_is};
use crate::host::{self, eventually, free_port, same};
use crate::scrape::http_get;

/// A server with its data in a directory of its own; killed when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Prometheus {
    /// One that scrapes this address each second, as the job skmem.
    pub fn start(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "scrape_configs:\n- job_name: skmem\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs:\n  \
             - targets: ['{target}']\n"
        );
        std::fs::write(&config, text).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = File::create(directory.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, address, directory }
    }

    /// The data of its answer.
    pub fn ask(&self, path: &str) -> Result<Value, String> {
        let (_, body) = http_get(self.address, path).map_err(|error| error.to_string())?;
        // Its answers come in one piece or in chunks; either way the JSON is between the outer braces.
        let json = body.find('{').zip(body.rfind('}')).map_or("", |(first, last)| &body[first..=last]);
        let answer: Value = serde_json::from_str(json).map_err(|error| format!("{error}: {body}"))?;
        same("status", &answer["status"], &json!("success"))?;
        Ok(answer["data"].clone())
    }

    /// Labels and value of each series that a query finds.
    fn query(&self, query: &str) -> Result<Vec<(Value, String)>, String> {
        let escaped = query.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        let data = self.ask(&format!("/api/v1/query?query={escaped}"))?;
        let series = data["result"].as_array().cloned().unwrap_or_default();
        Ok(series
            .into_iter()
            .map(|one| (one["metric"].clone(), one["value"][1].as_str().unwrap_or_default().to_owned()))
            .collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            eprintln!("Prometheus's log:\n{log}");
        }
    }
}

#[test]
fn a_real_prometheus_scrapes_and_answers() {
    let _host = host::shared();
    let mut actor = Actor::start();
    actor.ask("pairs", json!({ "prefix": "a", "count": 2, "size": 60_000 }));
    actor.ask("rename", json!({ "name": b"q\"\xff" }));
    actor.comm = "q\"\\xff".to_owned();
    let daemon = Daemon::start();
    let prometheus = Prometheus::start(daemon.address);
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
