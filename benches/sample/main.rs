//! What a sample costs, measured side by side with the least it could cost and with what others do.
//!
//! `cargo bench --bench sample` opens loopback connections by the ten thousand in a network namespace of its own and
//! measures in one run: the bare kernel work (floor), our samples, the same dump through netlink-proto, `ss`,
//! node_exporter, and the daemon itself under scrapes. It prints a Markdown report, checks what every measured run has
//! seen, and fails where a bar is not reached.
//!
//! Everything happens in processes of this program in other roles. They end with the one that started them, and the
//! namespace, which has no name, with the last of them.

mod child;
mod daemon;
mod figures;
mod floor;
mod follow;
mod load;
mod machine;
mod neighbours;
mod ours;
mod probe;
mod program;
mod proto;
mod report;
mod run;
mod scrape;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use skmem_exporter::kernel::diag;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Socket counts of a full run. The largest is the one the bars are set for.
const SIZES: &str = "20k,100k,200k";
/// Repetitions at each count: an odd number, so that the median is a measured one.
const REPETITIONS: &str = "9";

/// Measures what a sample costs.
#[derive(Debug, Parser)]
#[command(name = "sample")]
struct Options {
    /// Sockets to measure with
    #[arg(long, value_delimiter = ',', value_parser = parse_count, default_value = SIZES)]
    sockets: Vec<u64>,
    /// Repetitions at each count
    #[arg(long, default_value = REPETITIONS, value_parser = clap::value_parser!(u16).range(1..))]
    repetitions: u16,
    /// Do without ss and node_exporter
    #[arg(long)]
    without_neighbours: bool,
    /// Write the report to this file too
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Given by `cargo bench`, and not by `cargo test`, which must not run it
    #[arg(long, hide = true)]
    bench: bool,
    /// Already in a namespace of its own
    #[arg(long, hide = true)]
    inside: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What a process of this program is there for.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
enum Role {
    /// Holds connections
    Load(load::Connections),
    /// Measures one kind of work whenever it is told to
    Probe {
        /// Which
        kind: probe::Kind,
    },
    /// Becomes another program that ends with this benchmark
    Program {
        /// It and its arguments
        command: Vec<OsString>,
    },
}

/// `200000` or `200k`.
fn parse_count(text: &str) -> std::result::Result<u64, String> {
    let (digits, unit) = text.strip_suffix('k').map_or((text, 1), |digits| (digits, 1000));
    let count = digits.parse::<u64>().map_err(|error| format!("{error}; write 20000 or 20k"))? * unit;
    if count == 0 { Err("needs some sockets".to_owned()) } else { Ok(count) }
}

fn main() -> ExitCode {
    // What a sample in this process starts, as it does in the daemon.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == diag::ASKER) {
        return diag::run_asker();
    }
    let options = Options::parse();
    let result = match &options.role {
        Some(Role::Load(connections)) => load::serve(connections),
        Some(Role::Probe { kind }) => probe::serve(*kind),
        Some(Role::Program { command }) => Err(program::become_program(command)),
        None if !options.bench => {
            println!("not run: only `cargo bench --bench sample` takes the minutes this needs");
            return ExitCode::SUCCESS;
        }
        None if !options.inside => Err(enter_namespace()),
        None => run::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again in a network namespace without a name; returns only if that fails.
fn enter_namespace() -> Box<dyn std::error::Error> {
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return error.into(),
    };
    let error = Command::new("unshare")
        .arg("--net")
        .arg(own)
        .arg("--inside")
        .args(std::env::args_os().skip(1))
        .exec();
    match error.kind() {
        io::ErrorKind::NotFound => "no program unshare: install Debian package util-linux".into(),
        _ => format!("unshare: {error}").into(),
    }
}
