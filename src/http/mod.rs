//! The HTTP room: sockets, connections, routes, negotiation. It knows nothing of the kernel or of metric names;
//! it is handed the newest [`Exposed`] and a function that renders it.

mod activity;
mod client;
mod client_cert;
mod gate;
mod healthcheck;
pub mod limits;
mod listen;
mod logins;
mod negotiate;
mod places;
mod rate_limit;
mod reload;
mod rendering;
mod routes;
mod server;
mod tls;
mod web_config;

pub use client::{AskError, ask_daemon};
pub use healthcheck::{HealthcheckError, healthcheck, liveness};
pub use listen::{ListenError, bind, from_systemd};
pub use negotiate::{MediaType, accepts_gzip, media_type};
pub use reload::WebConfigFile;
pub use routes::{PathError, Settings, router};
pub use server::{ServeError, Server, serve};
pub use web_config::WebConfigError;

use crate::metrics::Format;
use crate::report::Report;
use crate::sample::Exposed;
use axum::http::{HeaderMap, HeaderName};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;

/// What the routes show.
#[derive(Clone)]
pub struct State {
    /// The newest published figures.
    pub exposed: watch::Receiver<Arc<Exposed>>,
    /// The newest published report.
    pub report: watch::Receiver<Arc<Report>>,
    /// Turns the figures into a body.
    pub render: fn(&Exposed, Format) -> String,
    /// Asked by `/-/healthy`.
    pub health: Arc<dyn Fn() -> Health + Send + Sync>,
}

/// Whether the exporter does its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The sampler ticks.
    Healthy,
    /// It does not, and why: one line.
    Unhealthy(String),
}

/// Who sent a request. Every request that comes through [`serve`] has one in its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The other end of the connection; an IPv4 address is never wrapped in an IPv6 one.
    pub peer: SocketAddr,
    /// It showed a client certificate that was verified, or a user and a password that are right.
    pub authenticated: bool,
    /// A proxy says that it speaks for somebody else, so `peer` tells nothing about who is asking.
    pub forwarded: bool,
}

impl Client {
    /// Whether it may see what only this host or somebody known may see: addresses of peers.
    pub fn trusted(&self) -> bool {
        self.authenticated || (self.peer.ip().is_loopback() && !self.forwarded)
    }

    fn new(peer: SocketAddr, authenticated: bool) -> Self {
        // A dual-stack listener reports 127.0.0.1 as ::ffff:127.0.0.1, which is not a loopback address.
        let ip: IpAddr = peer.ip().to_canonical();
        Self { peer: SocketAddr::new(ip, peer.port()), authenticated, forwarded: false }
    }

    fn with_headers(mut self, headers: &HeaderMap) -> Self {
        const FORWARDING: [HeaderName; 4] = [
            axum::http::header::FORWARDED,
            axum::http::header::VIA,
            HeaderName::from_static("x-forwarded-for"),
            HeaderName::from_static("x-real-ip"),
        ];
        self.forwarded = FORWARDING.iter().any(|name| headers.contains_key(name));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_trusted() {
        let client = |peer: &str| Client::new(peer.parse().unwrap(), false);
        assert!(client("127.0.0.1:1").trusted());
        assert!(client("[::1]:1").trusted());
        assert!(client("[::ffff:127.0.0.1]:1").trusted());
        assert!(!client("[::ffff:192.0.2.1]:1").trusted());
        assert!(!client("192.0.2.1:1").trusted());
        assert!(Client::new("192.0.2.1:1".parse().unwrap(), true).trusted());
        let mut headers = HeaderMap::new();
        assert!(client("127.0.0.1:1").with_headers(&headers).trusted());
        headers.insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
        assert!(!client("127.0.0.1:1").with_headers(&headers).trusted());
    }
}
