//! The daemon: everything put together, from settings to the end of the last scrape.

use std::io;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};

use crate::cli::REVISION;
use crate::config::{Config, ListenAddress, NetnsScope};
use crate::http::{self, Health, Listen, ListenError, PathError, ServeError};
use crate::kernel::error::Error as KernelError;
use crate::kernel::facts::Facts;
use crate::kernel::proc_root::ProcRoot;
use crate::kernel::{Kernel, Scope, text};
use crate::metrics;
use crate::sample::{Capability, Exposed};
use crate::sampler::{self, Heartbeat, SAMPLE_DEADLINE};

/// Threads that answer scrapes. A scrape is a copy of a finished body, so two are plenty; each costs stack and arena.
const WORKER_THREADS: usize = 2;

/// Why the daemon did not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// procfs does not show TCP figures.
    #[error("cannot read TCP figures below --path.procfs: {0}; it must be a mounted procfs (default /proc)")]
    Procfs(#[source] KernelError),
    /// No socket to serve on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The telemetry path cannot be served.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A listener broke.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The system refused a thread or a signal handler.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT, and says why it ended if that was not it.
pub fn run(config: &Config) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(Failure::from);
    match runtime.and_then(|runtime| runtime.block_on(serve(config))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = %failure, "ended");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: &Config) -> Result<(), Failure> {
    let root = ProcRoot::new(&config.procfs);
    root.parse("self/net/sockstat", text::sockstat).map_err(Failure::Procfs)?;
    let listeners = listen(config).await?;

    let (publish, exposed) = watch::channel(Arc::new(Exposed::default()));
    let heartbeat = Heartbeat::new(config.sample_interval);
    let refusals = Arc::default();
    let settings = http::Settings {
        telemetry_path: config.web.telemetry_path.clone(),
        max_requests: config.web.max_requests.get(),
    };
    let state = http::State { exposed, render, health: health(&heartbeat) };
    let router = http::router(&state, settings, Arc::clone(&refusals))?;

    say_hello(config, &root, &listeners)?;
    let mut kernel = Kernel::new(&Scope {
        procfs: &config.procfs,
        cgroupfs: &config.cgroupfs,
        all_namespaces: config.netns == NetnsScope::All,
        row_min_memory: config.process_min_memory,
        rows_max: config.process_max,
        deadline: SAMPLE_DEADLINE,
    });
    // Dropping `stop` ends the loop; it is not waited for, because a sample may take longer than we may take to end.
    let (_stop, stopped) = mpsc::channel();
    sampler::start(move || kernel.sample(), config.sample_interval, publish, heartbeat, stopped)?;

    let server = http::Server { router, limits: http::limits::Limits::default(), refusals };
    http::serve(listeners, server, shutdown()?).await?;
    info!("ended by signal");
    Ok(())
}

async fn listen(config: &Config) -> Result<Vec<TcpListener>, ListenError> {
    if config.web.systemd_socket {
        return http::from_systemd();
    }
    let addresses: Vec<Listen> = config.web.listen_addresses.iter().map(to_listen).collect();
    http::bind(&addresses).await
}

/// An address as the http room takes it.
pub fn to_listen(address: &ListenAddress) -> Listen {
    match address {
        ListenAddress::AllInterfaces { port } => Listen::AllInterfaces(*port),
        ListenAddress::Socket(address) => Listen::Host(address.ip().to_string(), address.port()),
        ListenAddress::Name { host, port } => Listen::Host(host.clone(), *port),
    }
}

fn render(exposed: &Exposed, format: http::Format) -> String {
    let format = match format {
        http::Format::OpenMetrics => metrics::Format::OpenMetrics,
        http::Format::Classic => metrics::Format::Classic,
    };
    metrics::render(exposed, format)
}

fn health(heartbeat: &Heartbeat) -> Arc<dyn Fn() -> Health + Send + Sync> {
    let heartbeat = heartbeat.clone();
    Arc::new(move || match heartbeat.silent_for() {
        None => Health::Healthy,
        Some(silent) => Health::Unhealthy(format!("no sample has ended for {} s", silent.as_secs())),
    })
}

/// One line with what this host allows, and what is missing with its cure.
fn say_hello(config: &Config, root: &ProcRoot, listeners: &[TcpListener]) -> Result<(), Failure> {
    let facts = Facts::gather(root, &config.cgroupfs);
    let capabilities: Vec<&str> = Capability::ALL
        .iter()
        .zip(facts.capabilities)
        .filter_map(|(capability, is_effective)| is_effective.then_some(capability.label()))
        .collect();
    let mut urls = Vec::new();
    for listener in listeners {
        let address = listener.local_addr()?;
        let host =
            if address.ip().is_unspecified() { "localhost".to_owned() } else { address.ip().to_string() };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        urls.push(format!("http://{host}:{}{}", address.port(), config.web.telemetry_path));
    }
    let missing = facts.missing();
    info!(
        url = urls.join(" "),
        version = env!("CARGO_PKG_VERSION"),
        revision = REVISION,
        interval = %humantime::format_duration(config.sample_interval),
        kernel = facts.kernel,
        cgroups = facts.cgroups,
        mptcp = facts.mptcp,
        namespaces = facts.namespaces,
        capabilities = capabilities.join(","),
        missing = if missing.is_empty() { "nothing".to_owned() } else { missing.join("; ") },
        "serving"
    );
    Ok(())
}

fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
