//! The daemon: everything put together, from settings to the end of the last scrape.

use std::io;
use std::net::{IpAddr, TcpListener as StdTcpListener};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info};

use crate::config::{Config, NetnsScope, WRONG_SETTING};
use crate::http::limits::{Limits, Refusals};
use crate::http::{self, Health, ListenError, PathError, ServeError, WebConfigError, WebConfigFile};
use crate::kernel::confine::{Remains, Role, confine};
use crate::kernel::error::Error as KernelError;
use crate::kernel::facts::Facts;
use crate::kernel::proc_root::ProcRoot;
use crate::kernel::{Kernel, Scope, myself, text};
use crate::metrics::{self, BUILD};
use crate::notify;
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
    match prepare(config).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = %failure, "ended");
            match failure {
                Failure::Path(_) | Failure::WebConfig(_) => ExitCode::from(WRONG_SETTING),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// All that it takes to serve.
struct Prepared {
    listeners: Vec<StdTcpListener>,
    server: http::Server,
    told: notify::Told,
    /// Dropping it ends the loop; it is not waited for, because a sample may take longer than we may take to end.
    stop: mpsc::Sender<()>,
}

/// Everything up to serving, on one thread, which at the end has started the sampler and given up all privileges.
fn prepare(config: &Config) -> Result<Prepared, Failure> {
    let root = ProcRoot::new(&config.procfs);
    root.parse("self/net/sockstat", text::sockstat).map_err(Failure::Procfs)?;
    let web_config = config.web.config_file.clone().map(WebConfigFile::load).transpose()?;
    let listeners = listen(config)?;

    let all_namespaces = config.netns == NetnsScope::All;
    let facts = Facts::gather(&root, &config.cgroupfs);
    // Now that a port below 1024 is bound.
    let mut remains = confine(Role::Sampler { all_namespaces });
    let kept = myself::capabilities();
    let context = Context {
        mode: Mode::Daemon,
        hostname: root.parse("sys/kernel/hostname", |name| Ok(name.trim().to_owned())).unwrap_or_default(),
        interval: config.sample_interval,
        stall_after: config.stall_after,
        missing: facts.blind_spots(all_namespaces),
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
    let told =
        notify::Told { exposed: exposed.clone(), report: report.clone(), heartbeat: heartbeat.clone() };
    let state = http::State { exposed, report, render: metrics::render, health: health(&heartbeat) };
    let router = http::router(&state, settings, Arc::clone(&refusals))?;

    let mut kernel = Kernel::new(&Scope {
        procfs: &config.procfs,
        cgroupfs: &config.cgroupfs,
        all_namespaces,
        row_min_memory: config.process_min_memory,
        rows_max: config.process_max,
        stall_after: config.stall_after,
        reads_ahead: false,
        deadline: SAMPLE_DEADLINE,
    });
    let (stop, stopped) = mpsc::channel();
    // Until it is dropped. The first line of the log says what is confined, and how is known only at the end.
    let (hold, go) = mpsc::channel::<()>();
    let turned_away = Arc::clone(&refusals);
    let read = move || {
        let _ = go.recv();
        kernel.sample()
    };
    sampler::start(read, move || turned_away.counts(), context, publish, heartbeat, stopped)?;
    let web_config = match web_config {
        None => None,
        Some(file) => {
            let (file, remaining) = file.on_a_thread(|| confine(Role::Files))?;
            remains.extend(remaining);
            Some(file)
        }
    };
    remains.extend(confine(Role::Server));

    let scheme = if web_config.as_ref().is_some_and(WebConfigFile::tls) { "https" } else { "http" };
    let urls = urls(&listeners, scheme, &config.web.telemetry_path)?;
    // What remains to one thread mostly remains to all.
    remains.sort_unstable();
    remains.dedup();
    say_hello(config, &facts, &urls, kept, &remains);
    drop(hold);
    let limits = Limits::with_descriptors(getrlimit(Resource::Nofile).current);
    let server = http::Server { router, web_config, limits, refusals };
    Ok(Prepared { listeners, server, told, stop })
}

/// Serves until the end. All threads of this runtime are started by the calling one and have no more privileges than it.
fn serve(prepared: Prepared) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
    let result = runtime.block_on(async {
        let Prepared { listeners, server, told, stop: _stop } = prepared;
        let listeners = listeners.into_iter().map(TcpListener::from_std).collect::<Result<_, _>>()?;
        tokio::spawn(outlive_hangups()?);
        let told = notify::is_wanted().then(|| tokio::spawn(notify::keep_telling(told)));
        let shutdown = shutdown()?;
        let shutdown = async {
            shutdown.await;
            // Nothing may be told after the end has been.
            if let Some(told) = told {
                told.abort();
            }
            notify::say_stopping().await;
        };
        http::serve(listeners, server, shutdown).await?;
        info!("ended by signal");
        Ok(())
    });
    // A body that is still being rendered on the blocking pool has nobody left to read it.
    runtime.shutdown_background();
    result
}

/// Sockets that listen. They take a runtime, whose threads would keep the privileges they were started with: this one has ended
/// when the sockets are returned.
fn listen(config: &Config) -> Result<Vec<StdTcpListener>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listeners = if config.web.systemd_socket {
            http::from_systemd()?
        } else {
            http::bind(&config.web.listen_addresses).await?
        };
        Ok(listeners.into_iter().map(TcpListener::into_std).collect::<Result<_, _>>()?)
    })
}

fn health(heartbeat: &Heartbeat) -> Arc<dyn Fn() -> Health + Send + Sync> {
    let heartbeat = heartbeat.clone();
    Arc::new(move || match heartbeat.silent_for() {
        None => Health::Healthy,
        Some(silent) => Health::Unhealthy(format!("no sample has ended for {} s", silent.as_secs())),
    })
}

/// Where to point a scraper, for the line at start.
fn urls(listeners: &[StdTcpListener], scheme: &str, path: &str) -> io::Result<String> {
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
fn say_hello(
    config: &Config,
    facts: &Facts,
    urls: &str,
    kept: [bool; Capability::ALL.len()],
    remains: &Remains,
) {
    let capabilities: Vec<&str> = Capability::ALL
        .iter()
        .zip(kept)
        .filter_map(|(capability, is_kept)| is_kept.then_some(capability.label()))
        .collect();
    let missing = facts.missing(config.netns == NetnsScope::All);
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
        confined = if remains.is_empty() { "yes".to_owned() } else { format!("but for {}", remains.join("; ")) },
        missing = if missing.is_empty() { "nothing".to_owned() } else { missing.join("; ") },
        "serving"
    );
}

/// Takes SIGHUP, by which many daemons are told to read their settings again and by default all end: a service manager would count
/// that as a clean end and not start us again.
fn outlive_hangups() -> io::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            info!(
                "SIGHUP changes nothing: the web configuration file is read again whenever it changes, \
                 all other settings take a restart"
            );
        }
    })
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
