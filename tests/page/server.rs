//! The real routes over a report of our own.

use std::net::SocketAddr;
use std::sync::Arc;

use skmem_exporter::config::ListenAddress;
use skmem_exporter::http::limits::{Limits, Refusals};
use skmem_exporter::http::{Health, Server, Settings, State, bind, router, serve};
use skmem_exporter::report::Report;
use skmem_exporter::sample::Exposed;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// A running server; gone when dropped.
pub struct Served {
    pub url: String,
    pub publish: watch::Sender<Arc<Report>>,
    _runtime: Runtime,
}

/// Serves a report on a free port of the loopback.
pub fn serve_report(report: Report) -> Served {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (publish, report) = watch::channel(Arc::new(report));
    let (_, exposed) = watch::channel(Arc::new(Exposed::default()));
    let state = State { exposed, report, render: |_, _| String::new(), health: Arc::new(|| Health::Healthy) };
    let refusals = Arc::<Refusals>::default();
    let router = router(&state, Settings::default(), Arc::clone(&refusals)).unwrap();
    let server = Server { router, web_config: None, limits: Limits::default(), refusals };
    let address = ListenAddress::Socket(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listeners = runtime.block_on(bind(&[address])).unwrap();
    let url = format!("http://{}/", listeners[0].local_addr().unwrap());
    runtime.spawn(serve(listeners, server, std::future::pending()));
    Served { url, publish, _runtime: runtime }
}
