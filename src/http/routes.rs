//! Which path answers what.

use super::activity::Activity;
use super::limits::Refusals;
use super::negotiate::{accepts_gzip, media_type};
use super::places::{Permit, Places};
use super::rendering::Rendering;
use super::{Client, Health, State};
use crate::metrics::Format;
use crate::page;
use crate::report::Report;
use crate::sample::{Exposed, Refusal};
use axum::body::Body;
use axum::extract;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, AsHeaderName, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, VARY,
};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use std::sync::Arc;
use tokio::sync::watch;

pub(super) const HEALTHY: &str = "/-/healthy";
const READY: &str = "/-/ready";
const REPORT: &str = "/api/v1/report";

/// What the user may choose about the routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `--web.telemetry-path`
    pub telemetry_path: String,
    /// `--web.max-requests`: scrapes, reports and pages answered at once.
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

struct App {
    open_metrics: Rendering<Exposed>,
    classic: Rendering<Exposed>,
    report: ByTrust,
    page: ByTrust,
    /// The page's Content-Security-Policy.
    policy: HeaderValue,
    exposed: watch::Receiver<Arc<Exposed>>,
    health: Arc<dyn Fn() -> Health + Send + Sync>,
    requests: Arc<Places>,
    settings: Settings,
    refusals: Arc<Refusals>,
}

/// What is made of a report, for those who may see addresses of connections and for all others.
struct ByTrust {
    trusted: Rendering<Report>,
    others: Rendering<Report>,
}

impl ByTrust {
    fn new(state: &State, render: impl Fn(&Report) -> String + Clone + Send + Sync + 'static) -> Self {
        let trusted = Rendering::new(&state.report, render.clone());
        let others = Rendering::new(&state.report, move |report| render(&report.without_addresses()));
        Self { trusted, others }
    }

    fn of(&self, client: Option<Extension<Client>>) -> &Rendering<Report> {
        if client.is_some_and(|Extension(client)| client.trusted()) { &self.trusted } else { &self.others }
    }
}

type Shared = extract::State<Arc<App>>;

/// The routes of the daemon; everything else is 404, and every method but GET and HEAD 405.
pub fn router(state: &State, settings: Settings, refusals: Arc<Refusals>) -> Result<Router, PathError> {
    check_path(&settings.telemetry_path)?;
    let mut router = Router::new()
        .route(&settings.telemetry_path, get(scrape))
        .route(REPORT, get(report))
        .route(HEALTHY, get(healthy))
        .route(READY, get(ready));
    if settings.telemetry_path != "/" {
        router = router.route("/", get(status_page));
    }
    let metrics = |format| {
        let render = state.render;
        Rendering::new(&state.exposed, move |exposed| render(exposed, format))
    };
    let telemetry_path = settings.telemetry_path.clone();
    let app = App {
        open_metrics: metrics(Format::OpenMetrics),
        classic: metrics(Format::Classic),
        report: ByTrust::new(state, json),
        page: ByTrust::new(state, move |report| page::render(report, &telemetry_path)),
        // Hashes and words in ASCII.
        policy: HeaderValue::try_from(page::policy())
            .unwrap_or(HeaderValue::from_static("default-src 'none'")),
        exposed: state.exposed.clone(),
        health: Arc::clone(&state.health),
        requests: Places::new(settings.max_requests),
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

async fn scrape(
    extract::State(app): Shared,
    Extension(activity): Extension<Arc<Activity>>,
    headers: HeaderMap,
) -> Response<Body> {
    let media = media_type(values(&headers, ACCEPT));
    let rendering = match media.format() {
        Format::OpenMetrics => &app.open_metrics,
        Format::Classic => &app.classic,
    };
    let content = Content { of: "metrics", media: media.content_type(), vary: "Accept, Accept-Encoding" };
    app.serve(rendering, &content, &activity, &headers).await
}

async fn report(
    extract::State(app): Shared,
    client: Option<Extension<Client>>,
    Extension(activity): Extension<Arc<Activity>>,
    headers: HeaderMap,
) -> Response<Body> {
    let media = "application/json; charset=utf-8";
    let content = Content { of: "report", media, vary: "Accept-Encoding" };
    app.serve(app.report.of(client), &content, &activity, &headers).await
}

async fn status_page(
    extract::State(app): Shared,
    client: Option<Extension<Client>>,
    Extension(activity): Extension<Arc<Activity>>,
    headers: HeaderMap,
) -> Response<Body> {
    let content = Content { of: "page", media: "text/html; charset=utf-8", vary: "Accept-Encoding" };
    let mut response = app.serve(app.page.of(client), &content, &activity, &headers).await;
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, app.policy.clone());
    response
}

fn json(report: &Report) -> String {
    // Writing a report can only fail in a map with keys that are no strings, and it has none.
    let mut json = serde_json::to_string(report).unwrap_or_default();
    json.push('\n');
    json
}

/// What the headers say of a body.
struct Content {
    /// What it is, for the log.
    of: &'static str,
    media: &'static str,
    vary: &'static str,
}

impl App {
    /// The newest body, if there is a place among those that may be answered at once.
    async fn serve<T: Send + Sync + 'static>(
        &self,
        rendering: &Rendering<T>,
        content: &Content,
        activity: &Arc<Activity>,
        headers: &HeaderMap,
    ) -> Response<Body> {
        let crowded = |room| {
            self.refusals.add(Refusal::OverMaxRequests);
            tracing::debug!(peer = %activity.peer(), ?room, "more requests than --web.max-requests");
        };
        let Some(place) = self.requests.take(activity, crowded) else {
            return self.full();
        };
        let gzip = accepts_gzip(values(headers, ACCEPT_ENCODING));
        let body = match rendering.body(gzip).await {
            Ok(body) => body,
            Err(error) => {
                let of = content.of;
                tracing::error!(%error, "rendering the {of} failed");
                let body = format!("rendering the {of} failed; the log says more\n");
                return text(StatusCode::INTERNAL_SERVER_ERROR, body);
            }
        };
        let mut response = Response::new(Body::from(body));
        let out = response.headers_mut();
        out.insert(CONTENT_TYPE, HeaderValue::from_static(content.media));
        if gzip {
            out.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        out.insert(VARY, HeaderValue::from_static(content.vary));
        out.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.extensions_mut().insert(Permit::new(place));
        response
    }

    fn full(&self) -> Response<Body> {
        let most = self.settings.max_requests;
        let body = format!(
            "{most} requests are being answered and --web.max-requests allows no more; \
             scrape from fewer places or raise it\n"
        );
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, body);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }
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
