//! The daemon: everything put together, from settings to the end of the last scrape.

use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};

use crate::config::{Config, NetnsScope};
use crate::http::limits::{Limits, Refusals};
use crate::http::{self, Health, ListenError, PathError, ServeError, WebConfigError, WebConfigFile};
use crate::kernel::error::Error as KernelError;
use crate::kernel::facts::Facts;
use crate::kernel::proc_root::ProcRoot;
use crate::kernel::{Kernel, Scope, text};
use crate::metrics::{self, BUILD};
use crate::report::{Context, Mode};
use crate::sample::{Capability, Exposed};
use crate::sampler::{self, Heartbeat, Publication, Publish, SAMPLE_DEADLINE};

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
    /// The web configuration file asks for something that cannot be done.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
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
    let result = runtime.and_then(|runtime| {
        let result = runtime.block_on(serve(config));
        // A body that is still being rendered on the blocking pool has nobody left to read it.
        runtime.shutdown_background();
        result
    });
    match result {
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
    let web_config = config.web.config_file.clone().map(WebConfigFile::load).transpose()?;
    let listeners = listen(config).await?;

    let facts = Facts::gather(&root, &config.cgroupfs);
    let context = Context {
        mode: Mode::Daemon,
        hostname: root.parse("sys/kernel/hostname", |name| Ok(name.trim().to_owned())).unwrap_or_default(),
        interval: config.sample_interval,
        stall_after: config.stall_after,
        missing: facts.blind_spots(config.netns == NetnsScope::All),
    };
    let (publish_exposed, exposed) = watch::channel(Arc::new(Exposed::default()));
    let (publish_report, report) = watch::channel(Publication::new(context.clone()).report());
    let publish = Publish { exposed: publish_exposed, report: publish_report };
    let heartbeat = Heartbeat::new(config.sample_interval);
    let refusals = Arc::<Refusals>::default();
    let settings = http::Settings {
        telemetry_path: config.web.telemetry_path.clone(),
        max_requests: config.web.max_requests.get(),
    };
    let state = http::State { exposed, report, render: metrics::render, health: health(&heartbeat) };
    let router = http::router(&state, settings, Arc::clone(&refusals))?;

    let scheme = if web_config.as_ref().is_some_and(WebConfigFile::tls) { "https" } else { "http" };
    say_hello(config, &facts, &urls(&listeners, scheme, &config.web.telemetry_path)?);
    let mut kernel = Kernel::new(&Scope {
        procfs: &config.procfs,
        cgroupfs: &config.cgroupfs,
        all_namespaces: config.netns == NetnsScope::All,
        row_min_memory: config.process_min_memory,
        rows_max: config.process_max,
        stall_after: config.stall_after,
        reads_ahead: false,
        deadline: SAMPLE_DEADLINE,
    });
    // Dropping `stop` ends the loop; it is not waited for, because a sample may take longer than we may take to end.
    let (_stop, stopped) = mpsc::channel();
    let turned_away = Arc::clone(&refusals);
    sampler::start(
        move || kernel.sample(),
        move || turned_away.counts(),
        context,
        publish,
        heartbeat,
        stopped,
    )?;

    let server = http::Server { router, web_config, limits: Limits::default(), refusals };
    http::serve(listeners, server, shutdown()?).await?;
    info!("ended by signal");
    Ok(())
}

async fn listen(config: &Config) -> Result<Vec<TcpListener>, ListenError> {
    if config.web.systemd_socket {
        return http::from_systemd();
    }
    http::bind(&config.web.listen_addresses).await
}

fn health(heartbeat: &Heartbeat) -> Arc<dyn Fn() -> Health + Send + Sync> {
    let heartbeat = heartbeat.clone();
    Arc::new(move || match heartbeat.silent_for() {
        None => Health::Healthy,
        Some(silent) => Health::Unhealthy(format!("no sample has ended for {} s", silent.as_secs())),
    })
}

/// Where to point a scraper, for the line at start.
fn urls(listeners: &[TcpListener], scheme: &str, path: &str) -> io::Result<String> {
    let mut urls = Vec::new();
    for listener in listeners {
        let address = listener.local_addr()?;
        let host = match address.ip() {
            ip if ip.is_unspecified() => "localhost".to_owned(),
            IpAddr::V6(ip) => format!("[{ip}]"),
            IpAddr::V4(ip) => ip.to_string(),
        };
        urls.push(format!("{scheme}://{host}:{}{path}", address.port()));
    }
    Ok(urls.join(" "))
}

/// One line with what this host allows, and what is missing with its cure.
fn say_hello(config: &Config, facts: &Facts, urls: &str) {
    let capabilities: Vec<&str> = Capability::ALL
        .iter()
        .zip(facts.capabilities)
        .filter_map(|(capability, is_effective)| is_effective.then_some(capability.label()))
        .collect();
    let missing = facts.missing();
    info!(
        url = urls,
        version = BUILD.version,
        revision = BUILD.revision,
        interval = %humantime::format_duration(config.sample_interval),
        kernel = facts.kernel,
        cgroups = facts.cgroups,
        mptcp = facts.mptcp,
        namespaces = facts.namespaces,
        capabilities = capabilities.join(","),
        missing = if missing.is_empty() { "nothing".to_owned() } else { missing.join("; ") },
        "serving"
    );
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
