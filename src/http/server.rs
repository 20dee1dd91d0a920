//! Accepting connections, running them within their limits, and ending all of them in time.

use super::Client;
use super::activity::{Activity, Guarded, InFlight, Phase, Tracked};
use super::limits::{Limits, MAX_HEADER_BYTES, MAX_HEADERS, MAX_STREAMS, Refusals};
use super::routes::ScrapePermit;
use axum::Router;
use axum::body::Body;
use axum::http::header::{HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

/// After a failed accept (too many open files, no memory): time for some to be closed. Without a pause the
/// loop would turn as fast as the processor allows.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What [`serve`] serves, and how.
pub struct Server {
    /// The routes.
    pub router: Router,
    /// How much clients may take.
    pub limits: Limits,
    /// Where it is counted when they wanted more.
    pub refusals: Arc<Refusals>,
}

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A listener broke.
    #[error("a listening socket can no longer be used: {0}; restart the exporter")]
    Listener(#[from] io::Error),
}

/// Serves until `shutdown`, then answers what has been asked, and returns within [`Limits::shutdown`].
pub async fn serve(
    listeners: Vec<TcpListener>,
    server: Server,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let limit = server.limits.shutdown;
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let result = {
        let core = Arc::new(Core::new(server));
        accept_all(&listeners, &core, &mut connections, &stopped, shutdown).await
    };
    drop(listeners);
    drop(stop);
    if timeout(limit, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        tracing::info!(connections = connections.len(), "cut connections that did not end in time");
        connections.shutdown().await;
    }
    result
}

/// Accepts until `shutdown`.
async fn accept_all(
    listeners: &[TcpListener],
    core: &Arc<Core>,
    connections: &mut JoinSet<()>,
    stopped: &watch::Receiver<()>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let mut shutdown = pin!(shutdown);
    let mut first = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => return Ok(()),
            // Ended connections are taken out here, or they would pile up.
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept_any(listeners, first) => accepted,
        };
        // Each listener comes first in turn, so that a busy one cannot shut out the others.
        first = first.wrapping_add(1);
        match accepted {
            Ok((stream, peer)) => {
                let Ok(place) = Arc::clone(&core.places).try_acquire_owned() else {
                    core.refusals.over_max_connections.add();
                    continue;
                };
                connections.spawn(Arc::clone(core).connection(stream, peer, stopped.clone(), place));
            }
            // The client has gone again.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(error) if broken(&error) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors of accept() that no waiting mends: the descriptor is not a listening TCP socket.
fn broken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP))
}

async fn accept_any(listeners: &[TcpListener], first: usize) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        for turn in 0..listeners.len() {
            if let Poll::Ready(accepted) =
                listeners[first.wrapping_add(turn) % listeners.len()].poll_accept(cx)
            {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// What all connections share.
struct Core {
    router: Router,
    limits: Limits,
    refusals: Arc<Refusals>,
    places: Arc<Semaphore>,
}

impl Core {
    fn new(server: Server) -> Self {
        let Server { router, limits, refusals } = server;
        Self { router, limits, refusals, places: Arc::new(Semaphore::new(limits.max_connections)) }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        stopped: watch::Receiver<()>,
        _place: OwnedSemaphorePermit,
    ) {
        // An answer is one write; waiting to fill a packet would only delay its end.
        let _ = stream.set_nodelay(true);
        let client = Client::new(peer, false);
        self.speak(stream, client, false, stopped).await;
    }

    /// Speaks HTTP until the client leaves, a limit is reached, or the server stops.
    async fn speak<I>(self: Arc<Self>, io: I, client: Client, http2: bool, stopped: watch::Receiver<()>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new(self.limits, http2);
        let io = TokioIo::new(Guarded::new(io, Arc::clone(&activity)));
        let service = service_fn({
            let (core, activity) = (Arc::clone(&self), Arc::clone(&activity));
            move |request| {
                let (core, in_flight) = (Arc::clone(&core), activity.begin());
                async move { Ok::<_, Infallible>(core.answer(request, client, in_flight).await) }
            }
        });
        let result = if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX));
            let connection = builder.serve_connection(io, service);
            run(connection, http2::Connection::graceful_shutdown, &activity, stopped).await
        } else {
            let mut builder = http1::Builder::new();
            // The deadlines of `activity` stand in for hyper's.
            builder.header_read_timeout(None).max_buf_size(MAX_HEADER_BYTES).max_headers(MAX_HEADERS);
            let connection = builder.serve_connection(io, service);
            run(connection, http1::Connection::graceful_shutdown, &activity, stopped).await
        };
        let peer = client.peer;
        match (activity.expired(), result) {
            (Some(Phase::Head), _) => {
                self.refusals.header_timeout.add();
                tracing::debug!(%peer, "closed: the request did not come in time");
            }
            (Some(Phase::Busy), _) => {
                self.refusals.response_timeout.add();
                tracing::debug!(%peer, "closed: the answer was not read in time");
            }
            (None, Err(error)) => {
                if error.is_parse_too_large() {
                    self.refusals.header_too_large.add();
                }
                tracing::debug!(%peer, %error, "connection ended");
            }
            (Some(Phase::Idle), _) | (None, Ok(())) => {}
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        client: Client,
        in_flight: InFlight,
    ) -> Response<Tracked> {
        let mut request = request.map(Body::new);
        let client = client.with_headers(request.headers());
        request.extensions_mut().insert(client);
        let Ok(mut response) = self.router.clone().oneshot(request).await;
        if let Some(permit) = response.extensions_mut().remove::<ScrapePermit>() {
            in_flight.hold(permit);
        }
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response.map(|body| Tracked::new(body, in_flight))
    }
}

/// Runs a connection to its end; when the server stops, no further request is taken from it.
async fn run<C>(
    connection: C,
    graceful_shutdown: fn(Pin<&mut C>),
    activity: &Activity,
    mut stopped: watch::Receiver<()>,
) -> C::Output
where
    C: Future,
{
    let mut connection = pin!(connection);
    tokio::select! {
        result = &mut connection => return result,
        // Nothing is ever sent: this resolves when the sender is dropped.
        _ = stopped.changed() => {}
    }
    activity.stop();
    graceful_shutdown(connection.as_mut());
    connection.await
}
