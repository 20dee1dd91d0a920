//! Which path answers what.

use super::exposition::Exposition;
use super::limits::Refusals;
use super::negotiate::{accepts_gzip, media_type};
use super::{Health, State};
use crate::sample::Refusal;
use axum::Router;
use axum::body::Body;
use axum::extract;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, AsHeaderName, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, VARY,
};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

const HEALTHY: &str = "/-/healthy";
const READY: &str = "/-/ready";

/// What the user may choose about the routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `--web.telemetry-path`
    pub telemetry_path: String,
    /// `--web.max-requests`: scrapes answered at once.
    pub max_requests: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { telemetry_path: "/metrics".to_owned(), max_requests: 40 }
    }
}

/// A telemetry path that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--web.telemetry-path {path:?} {problem}; use a path like /metrics")]
pub struct PathError {
    path: String,
    problem: &'static str,
}

/// One of the scrapes that may be answered at once. It travels in the extensions of a response, so that the
/// connection gives it back when the last byte is out.
#[derive(Clone)]
pub(super) struct ScrapePermit {
    _permit: Arc<OwnedSemaphorePermit>,
}

struct App {
    exposition: Exposition,
    exposed: watch::Receiver<Arc<crate::sample::Exposed>>,
    health: Arc<dyn Fn() -> Health + Send + Sync>,
    scrapes: Arc<Semaphore>,
    settings: Settings,
    refusals: Arc<Refusals>,
}

type Shared = extract::State<Arc<App>>;

/// The routes of the daemon; everything else is 404, and every method but GET and HEAD 405.
pub fn router(state: &State, settings: Settings, refusals: Arc<Refusals>) -> Result<Router, PathError> {
    check_path(&settings.telemetry_path)?;
    let mut router = Router::new()
        .route(&settings.telemetry_path, get(scrape))
        .route(HEALTHY, get(healthy))
        .route(READY, get(ready));
    if settings.telemetry_path != "/" {
        router = router.route("/", get(landing_page));
    }
    let app = App {
        exposition: Exposition::new(state),
        exposed: state.exposed.clone(),
        health: Arc::clone(&state.health),
        scrapes: Arc::new(Semaphore::new(settings.max_requests)),
        settings,
        refusals,
    };
    Ok(router
        .fallback(async || text(StatusCode::NOT_FOUND, "not found; / says what is here\n"))
        .method_not_allowed_fallback(async || {
            text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n")
        })
        .with_state(Arc::new(app)))
}

fn check_path(path: &str) -> Result<(), PathError> {
    // What a URL path may hold unescaped, less the characters that mean something to the router.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'(),;=@%+".contains(&byte);
    let problem = if !path.starts_with('/') {
        "does not start with a slash"
    } else if !path.bytes().all(plain) {
        "has a character that does not belong into a path"
    } else if [HEALTHY, READY].contains(&path) || path.starts_with("/api/") {
        "is taken"
    } else {
        return Ok(());
    };
    Err(PathError { path: path.to_owned(), problem })
}

async fn scrape(extract::State(app): Shared, headers: HeaderMap) -> Response<Body> {
    let Ok(permit) = Arc::clone(&app.scrapes).try_acquire_owned() else {
        app.refusals.add(Refusal::OverMaxRequests);
        let most = app.settings.max_requests;
        let body = format!(
            "{most} scrapes are being answered and --web.max-requests allows no more; \
             scrape from fewer places or raise it\n"
        );
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, body);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    };
    let media = media_type(values(&headers, ACCEPT));
    let gzip = accepts_gzip(values(&headers, ACCEPT_ENCODING));
    let body = match app.exposition.body(media.format(), gzip).await {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, "rendering the metrics failed");
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "rendering the metrics failed; the log says more\n",
            );
        }
    };
    let mut response = Response::new(Body::from(body));
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(media.content_type()));
    if gzip {
        out.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    out.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    out.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(ScrapePermit { _permit: Arc::new(permit) });
    response
}

fn values<K: AsHeaderName>(headers: &HeaderMap, name: K) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).into_iter().map(HeaderValue::as_bytes)
}

async fn healthy(extract::State(app): Shared) -> Response<Body> {
    match (app.health)() {
        Health::Healthy => text(StatusCode::OK, "healthy\n"),
        Health::Unhealthy(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("unhealthy: {reason}\n")),
    }
}

async fn ready(extract::State(app): Shared) -> Response<Body> {
    if app.exposed.borrow().sample.is_some() {
        text(StatusCode::OK, "ready\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "not ready: there is no complete sample yet\n")
    }
}

async fn landing_page(extract::State(app): Shared) -> Response<Body> {
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let description = env!("CARGO_PKG_DESCRIPTION");
    // The path holds no character that HTML would read as anything but text, except for these two.
    let metrics = app.settings.telemetry_path.replace('&', "&amp;").replace('\'', "&#39;");
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{name}</title></head>\n\
         <body>\n<h1>{name} {version}</h1>\n<p>{description}</p>\n\
         <ul>\n<li><a href=\"{metrics}\">Metrics</a></li>\n\
         <li><a href=\"{HEALTHY}\">Health</a></li>\n<li><a href=\"{READY}\">Readiness</a></li>\n</ul>\n\
         </body>\n</html>\n"
    );
    let mut response = text(StatusCode::OK, page);
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let policy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    out.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

/// A short plain answer that nobody may keep.
pub(super) fn text(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body.into()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telemetry_paths() {
        for good in ["/", "/metrics", "/a/b", "/a-b_c.d~e", "/metrics/", "/%7Bx"] {
            assert_eq!(check_path(good), Ok(()), "{good}");
        }
        for bad in
            ["", "metrics", "/{x}", "/a b", "/a?b", "/a#b", "/ä", "/*", "/-/healthy", "/-/ready", "/api/x"]
        {
            let error = check_path(bad).unwrap_err().to_string();
            assert!(error.contains("--web.telemetry-path") && error.contains("/metrics"), "{error}");
        }
    }
}
