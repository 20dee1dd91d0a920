//! `diagnose`: the report once, for somebody who has a terminal and a question. The daemon is asked if it runs; otherwise the
//! host is watched for a while, by the same code.

mod ask;
mod print;
mod progress;
mod watch;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tracing::debug;

use crate::config::{Allowed, Loaded, NetnsScope};
use crate::kernel::confine::{Role, confine};
use crate::kernel::error::Error as KernelError;
use crate::kernel::myself;
use crate::logging;
use crate::report::Report;
use crate::sample::Capability;
use watch::Plan;

/// Something is wrong with the host.
const FOUND: u8 = 1;
/// It could not look; clap and `main` use the same for bad usage.
const CANNOT_LOOK: u8 = 2;

/// Four samples at least: a socket that stands still is asked at the second, and has to stand still from then on.
const SHORTEST: Duration = Duration::from_secs(3);
/// As far back as a report's history goes. Whoever wants to watch for longer runs the daemon.
const LONGEST: Duration = Duration::from_hours(1);
/// Long enough to tell a stall from a pause, short enough to wait for.
const USUAL: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// For how long to watch; `None`: ask the daemon first.
    pub duration: Option<Duration>,
    /// How to print the report.
    pub format: Format,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// As under `/api/v1/report`.
    Json,
}

/// Why there is no report. One line each.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// procfs does not show TCP figures.
    #[error("cannot read TCP figures below --path.procfs: {0}; it must be a mounted procfs (default /proc)")]
    Procfs(#[source] KernelError),
    /// No sample was complete.
    #[error("cannot say who holds TCP memory: {0}")]
    NoSample(String),
    /// The system refused a thread or a signal handler.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    /// Told to end before anything was known.
    #[error("interrupted before anything was known")]
    Interrupted {
        /// By which signal.
        signal: u8,
    },
}

impl Failure {
    /// As shells number it where a signal was the end.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted { signal } => 128 + signal,
            _ => CANNOT_LOOK,
        }
    }
}

/// Reads `--duration`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    Allowed::parse_duration(SHORTEST..=LONGEST, text)
}

/// Prints a report, and says by its exit code whether anything is wrong.
pub fn run(loaded: &Loaded, options: Options) -> ExitCode {
    // What fails is told as a blind spot; the log is for whoever asks for it.
    if loaded.is_set("log.level") && logging::init(loaded.config.log).is_err() {
        complain("cannot set up logging");
        return ExitCode::from(CANNOT_LOOK);
    }
    // Before there is a second thread. Whoever asks a daemon or watches the host needs the same, and changes nothing.
    let all_namespaces = loaded.config.netns == NetnsScope::All;
    let given = myself::permitted_capabilities();
    for remains in confine(Role::Sampler { all_namespaces }) {
        debug!(remains, "could not be given up");
    }
    let report = match find_out(loaded, options.duration, given) {
        Ok(report) => report,
        Err(failure) => {
            complain(&failure.to_string());
            return ExitCode::from(failure.exit_code());
        }
    };
    match print::print(&report, options.format) {
        // Whoever reads us has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write the report: {error}"));
            ExitCode::from(CANNOT_LOOK)
        }
        _ if report.findings.is_empty() => ExitCode::SUCCESS,
        _ => ExitCode::from(FOUND),
    }
}

/// One line on standard error; where that is closed there is nobody to tell.
fn complain(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(io::stderr(), "{line}");
}

/// `given`: the capabilities that we were started with.
fn find_out(
    loaded: &Loaded,
    duration: Option<Duration>,
    given: [bool; Capability::ALL.len()],
) -> Result<Arc<Report>, Failure> {
    let config = &loaded.config;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if duration.is_none()
        && let Some(report) = ask(&runtime, loaded)
    {
        return Ok(Arc::new(report));
    }
    let plan = Plan::new(duration.unwrap_or(USUAL), config.stall_after);
    runtime.block_on(watch::watch(config, plan, given))
}

/// The daemon's report, if there is a daemon that knows. Says in a line why not, unless there is none.
fn ask(runtime: &Runtime, loaded: &Loaded) -> Option<Report> {
    let web = &loaded.config.web;
    let listen = web.listen_addresses.first()?;
    // Nobody can be asked where the kernel chooses the port.
    if listen.port() == 0 {
        return None;
    }
    match runtime.block_on(ask::daemon(listen, web.config_file.as_deref())) {
        Ok(report) => Some(report),
        Err(ask::No::Nobody) => None,
        Err(ask::No::Because(why)) => {
            complain(&format!(
                "No answer from the daemon: {why}. Watching for {} instead.",
                print::short(USUAL)
            ));
            None
        }
    }
}
