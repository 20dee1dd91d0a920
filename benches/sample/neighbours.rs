//! What others take for the same sockets: `ss`, and node_exporter, which counts them without owners.

use std::process::Stdio;

use crate::Result;
use crate::figures::{Measured, Memory, Seen};
use crate::program::{Program, is_installed};
use crate::scrape::{CLASSIC, Scraper, free_address};

const SS: &str = "ss";
const NODE_EXPORTER: &str = "prometheus-node-exporter";
/// Programs and the Debian packages they come in.
const PACKAGES: [(&str, &str); 2] = [(SS, "iproute2"), (NODE_EXPORTER, "prometheus-node-exporter")];

/// Whether all of them are there.
pub fn check() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter_map(|(program, package)| (!is_installed(program)).then_some(*package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    Err(format!("install Debian packages: {packages}; or give --without-neighbours").into())
}

/// Sockets with memory.
pub fn ss() -> Result<Measured> {
    Program::time(&[SS, "-tmn"])
}

/// Sockets with memory, `tcp_info` and processes.
pub fn ss_with_processes() -> Result<Measured> {
    Program::time(&[SS, "-tminp"])
}

/// node_exporter with the one collector that reads the same sockets.
#[derive(Debug)]
pub struct NodeExporter {
    program: Program,
    scraper: Scraper,
}

impl NodeExporter {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let address = free_address()?;
        let listen = format!("--web.listen-address={address}");
        let command = [NODE_EXPORTER, "--collector.disable-defaults", "--collector.tcpstat", &listen];
        let program = Program::start(&command, Stdio::null())?;
        Ok(Self { program, scraper: Scraper::connect(address)? })
    }

    /// Scrapes it once.
    pub fn scrape(&mut self) -> Result<Measured> {
        let (body, wall) = self.scraper.scrape(CLASSIC)?;
        if !String::from_utf8_lossy(&body).contains("node_tcp_connection_states{") {
            return Err("node_exporter shows no TCP states".into());
        }
        let Memory { resident: rss, peak: peak_rss } =
            self.program.memory().ok_or("node_exporter has ended")?;
        Ok(Measured { wall, rss, peak_rss, cpu: std::time::Duration::ZERO, seen: Seen::default() })
    }
}
