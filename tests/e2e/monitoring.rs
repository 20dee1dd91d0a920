//! Prometheus and Alertmanager with what is shipped.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use crate::kit::host::eventually;
use crate::kit::servers::{Prometheus, Server, alertmanager};
use crate::stage::Stage;
use crate::trial;
use crate::webhook::Webhook;
use rustix::process::{Pid, Signal, kill_process};

const TARGETS: &str = "targets.json";
const RULES: &str = "skmem.rules.yml";

/// All that stands between an exporter and whoever is told.
pub struct Monitoring {
    pub prometheus: Prometheus,
    alertmanager: Server,
    pub webhook: Webhook,
}

pub type Labels = BTreeMap<String, String>;

impl Monitoring {
    pub fn start() -> Self {
        let webhook = Webhook::start();
        let alertmanager = alertmanager(&trial::routes(webhook.address));
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{RULES}]\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n\
             scrape_configs:\n- job_name: skmem\n  file_sd_configs: [{{files: [{TARGETS}], refresh_interval: 1s}}]\n",
            alertmanager.address
        );
        let prometheus = Prometheus::start(&config, &[(RULES, &trial::rules()), (TARGETS, "[]")]);
        Self { prometheus, alertmanager, webhook }
    }

    /// Scrapes these and no others, and waits until it has.
    pub fn scrape(&self, targets: impl IntoIterator<Item = SocketAddr>) {
        let targets: Vec<String> = targets.into_iter().map(|target| target.to_string()).collect();
        let text = serde_json::json!([{ "targets": targets }]).to_string();
        // In one step, because it is read at any time.
        let path = self.prometheus.server.file(TARGETS);
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
        eventually("the targets", || {
            let data = self.prometheus.ask("/api/v1/targets?state=active")?;
            let active = data["activeTargets"].as_array().cloned().unwrap_or_default();
            let is_up = |target: &&String| {
                active.iter().any(|one| one["labels"]["instance"] == **target && one["health"] == "up")
            };
            let missing: Vec<&String> = targets.iter().filter(|target| !is_up(target)).collect();
            if missing.is_empty() && active.len() == targets.len() {
                return Ok(());
            }
            Err(format!("without {missing:?}: {active:#?}"))
        });
    }

    /// Replaces the rules in a running Prometheus.
    pub fn replace_rules(&self, rules: &str) {
        std::fs::write(self.prometheus.server.file(RULES), rules).unwrap();
        let pid = Pid::from_raw(i32::try_from(self.prometheus.server.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    }

    /// A part of the trial, whose alerts are of this exporter unless they say otherwise.
    pub fn stage(&self, exporter: SocketAddr) -> Stage<'_> {
        Stage::new(self, exporter)
    }

    /// The labels of all that fires in Prometheus.
    pub fn firing(&self) -> Vec<Labels> {
        // Where memory is short the kernel resets whatever is closed with data still to go: answers, too.
        let data = eventually("what fires", || self.prometheus.ask("/api/v1/alerts"));
        let alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| labels(&alert["labels"])).collect()
    }

    /// The labels of all that Alertmanager keeps to itself because of another alert.
    pub fn silenced(&self) -> Vec<Labels> {
        let alerts = eventually("what is silenced", || self.alertmanager.get("/api/v2/alerts"));
        let alerts = alerts.as_array().cloned().unwrap_or_default();
        let is_inhibited =
            |alert: &&Value| alert["status"]["inhibitedBy"].as_array().is_some_and(|by| !by.is_empty());
        alerts.iter().filter(is_inhibited).map(|alert| labels(&alert["labels"])).collect()
    }
}

fn labels(value: &Value) -> Labels {
    serde_json::from_value(value.clone()).unwrap()
}
