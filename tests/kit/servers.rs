//! A real Prometheus and a real Alertmanager, as Debian packages them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::host::{free_port, same};
use super::scrape::http_get;

/// A program that serves HTTP, with its files in a directory of its own; killed when dropped.
pub struct Server {
    child: Child,
    program: &'static str,
    pub address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Server {
    /// Starts it with `files` by name in its directory, and with flags made from that directory's path.
    fn start(
        program: &'static str,
        files: &[(&str, &str)],
        flags: impl FnOnce(&Path) -> Vec<String>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = File::create(directory.path().join("log")).unwrap();
        let child = Command::new(program)
            // It writes times in that zone.
            .env("TZ", "UTC")
            .args(flags(directory.path()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, program, address, directory }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its file of this name is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The JSON that it answers.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        let (_, body) = http_get(self.address, path).map_err(|error| error.to_string())?;
        // Its answers come in one piece or in chunks; either way the JSON is between the outer brackets.
        let json = body.find(['{', '[']).zip(body.rfind(['}', ']']));
        let json = json.map_or("", |(first, last)| &body[first..=last]);
        serde_json::from_str(json).map_err(|error| format!("{error}: {body}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.file("log")).unwrap_or_default();
            eprintln!("{}'s log:\n{log}", self.program);
        }
    }
}

pub struct Prometheus {
    pub server: Server,
}

impl Prometheus {
    /// One with this `prometheus.yml` and other files next to it.
    pub fn start(config: &str, others: &[(&str, &str)]) -> Self {
        let files = [&[("prometheus.yml", config)], others].concat();
        Self::run(&files, |directory| directory.join("prometheus.yml"))
    }

    /// One with the configuration in this file, which its paths are relative to.
    pub fn start_at(config: &Path) -> Self {
        Self::run(&[], |_| config.to_owned())
    }

    fn run(files: &[(&str, &str)], config: impl FnOnce(&Path) -> PathBuf) -> Self {
        let server = Server::start("prometheus", files, |directory| {
            vec![
                format!("--config.file={}", config(directory).display()),
                format!("--storage.tsdb.path={}", directory.join("data").display()),
                // So that nobody waits longer to hear of an end than of a beginning.
                "--rules.alert.resend-delay=1s".to_owned(),
            ]
        });
        Self { server }
    }

    /// The data of its answer.
    pub fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = self.server.get(path)?;
        same("status", &answer["status"], &json!("success"))?;
        Ok(answer["data"].clone())
    }

    /// Labels and value of each series that a query finds.
    pub fn query(&self, query: &str) -> Result<Vec<(Value, String)>, String> {
        let data = self.ask(&format!("/api/v1/query?query={}", escaped(query)))?;
        let series = data["result"].as_array().cloned().unwrap_or_default();
        Ok(series
            .into_iter()
            .map(|one| (one["metric"].clone(), one["value"][1].as_str().unwrap_or_default().to_owned()))
            .collect())
    }
}

/// One that runs with this configuration, alone.
pub fn alertmanager(config: &str) -> Server {
    Server::start("prometheus-alertmanager", &[("alertmanager.yml", config)], |directory| {
        let path = |name: &str| directory.join(name).display().to_string();
        vec![
            format!("--config.file={}", path("alertmanager.yml")),
            format!("--storage.path={}", path("data")),
            "--cluster.listen-address=".to_owned(),
        ]
    })
}

/// A text as part of a URL.
pub fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
}
