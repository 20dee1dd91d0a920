//! Accepting connections, running them within their limits, and ending all of them in time.

use super::Client;
use super::WebConfigFile;
use super::activity::{Activity, Guarded, InFlight, Phase, Tracked};
use super::gate::{Gate, Rules};
use super::limits::{Limits, MAX_HEADER_BYTES, MAX_HEADERS, MAX_STREAMS, Refusals};
use super::places::{Permit, Place, Places, Room};
use crate::sample::Refusal;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

/// After a failed accept (too many open files, no memory): time for some to be closed. Without a pause the
/// loop would turn as fast as the processor allows.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What [`serve`] serves, and how.
pub struct Server {
    /// The routes.
    pub router: Router,
    /// TLS, passwords and the like (`--web.config.file`).
    pub web_config: Option<WebConfigFile>,
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
    /// The system has no random numbers.
    #[error("the system gives no random numbers, which checking passwords needs; is /dev/urandom there?")]
    Random,
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
    let core = Arc::new(Core::new(server)?);
    let result = accept_all(&listeners, &core, &mut connections, &stopped, shutdown).await;
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
    let (mut first, mut failing) = (0, false);
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
                if std::mem::take(&mut failing) {
                    tracing::info!("connections can be accepted again");
                }
                let activity = Activity::new(peer.ip(), core.limits);
                let mut leaving = 0;
                let crowded = |room| {
                    leaving += usize::from(room != Room::None);
                    core.crowded(peer, room);
                };
                let place = core.places.take(&activity, crowded);
                // Who has to leave, or somebody else, has left before another one comes in: this keeps the bound.
                for _ in 0..leaving {
                    connections.join_next().await;
                }
                let Some(place) = place else { continue };
                let accepted = Accepted { stream, peer, activity, _place: place };
                connections.spawn(Arc::clone(core).connection(accepted, stopped.clone()));
            }
            // The client has gone again.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(error) if broken(&error) => return Err(error.into()),
            Err(error) => {
                // accept() wants a descriptor before it looks whether anybody waits.
                if anybody_waits(listeners) && !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections until others end");
                    // Each open connection takes what is missing, descriptors or memory. One is worth a try: if that does
                    // not help, those that are open are better kept, because nobody could come back.
                    if core.places.make_room(None) != Room::None {
                        core.refusals.add(Refusal::OverMaxConnections);
                    }
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors of accept() that no waiting mends: the descriptor is not a listening TCP socket.
fn broken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP))
}

/// Whether a connection is there to be accepted.
fn anybody_waits(listeners: &[TcpListener]) -> bool {
    let mut polled: Vec<_> = listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)).collect();
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
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
    gate: Gate,
    limits: Limits,
    refusals: Arc<Refusals>,
    places: Arc<Places>,
}

/// A connection that has been let in.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    activity: Arc<Activity>,
    _place: Place,
}

impl Core {
    fn new(server: Server) -> Result<Self, ServeError> {
        let Server { router, web_config, limits, refusals } = server;
        let gate = Gate::new(web_config, Arc::clone(&refusals)).map_err(|_| ServeError::Random)?;
        Ok(Self { router, gate, limits, refusals, places: Places::new(limits.max_connections) })
    }

    /// There was no place for a connection from `peer`.
    fn crowded(&self, peer: SocketAddr, room: Room) {
        self.refusals.add(Refusal::OverMaxConnections);
        match room {
            Room::Made(origin, held) => tracing::debug!(%origin, held, "closed one to make room for {peer}"),
            Room::None => tracing::debug!(%peer, "closed: no place for it"),
        }
    }

    async fn connection(self: Arc<Self>, accepted: Accepted, stopped: watch::Receiver<()>) {
        let Accepted { stream, peer, activity, _place } = accepted;
        tokio::select! {
            () = self.converse(stream, peer, &activity, stopped) => {}
            () = activity.until_cut() => {}
        }
    }

    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        activity: &Arc<Activity>,
        stopped: watch::Receiver<()>,
    ) {
        // An answer is one write; waiting to fill a packet would only delay its end.
        let _ = stream.set_nodelay(true);
        let Some(file) = self.gate.file.as_ref().filter(|file| file.tls()) else {
            return self.speak(stream, Client::new(peer, false), false, activity, stopped).await;
        };
        let mut stopping = stopped.clone();
        let handshake = tokio::select! {
            handshake = timeout(self.limits.handshake_timeout, handshake(stream, file)) => handshake,
            _ = stopping.changed() => return,
        };
        match handshake.unwrap_or_else(|elapsed| Err(elapsed.into())) {
            Ok((stream, verified)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.speak(stream, Client::new(peer, verified), http2, activity, stopped).await;
            }
            Err(error) => {
                self.refusals.add(Refusal::TlsHandshake);
                tracing::debug!(%peer, %error, "TLS handshake failed");
            }
        }
    }

    /// Speaks HTTP until the client leaves, a limit is reached, or the server stops.
    async fn speak<I>(
        self: Arc<Self>,
        io: I,
        client: Client,
        http2: bool,
        activity: &Arc<Activity>,
        stopped: watch::Receiver<()>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        activity.speaks(http2);
        let io = TokioIo::new(Guarded::new(io, Arc::clone(activity)));
        let service = service_fn({
            let (core, activity) = (Arc::clone(&self), Arc::clone(activity));
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
            run(connection, http2::Connection::graceful_shutdown, activity, stopped).await
        } else {
            let mut builder = http1::Builder::new();
            // The deadlines of `activity` stand in for hyper's.
            builder.header_read_timeout(None).max_buf_size(MAX_HEADER_BYTES).max_headers(MAX_HEADERS);
            let connection = builder.serve_connection(io, service);
            run(connection, http1::Connection::graceful_shutdown, activity, stopped).await
        };
        let peer = client.peer;
        match (activity.expired(), result) {
            (Some(Phase::Head), _) => {
                self.refusals.add(Refusal::HeaderTimeout);
                tracing::debug!(%peer, "closed: the request did not come in time");
            }
            (Some(Phase::Busy), _) => {
                self.refusals.add(Refusal::ResponseTimeout);
                tracing::debug!(%peer, "closed: the answer was not read in time");
            }
            (None, Err(error)) => {
                if error.is_parse_too_large() {
                    self.refusals.add(Refusal::HeaderTooLarge);
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
        let client = client.with_headers(request.headers());
        let (rules, mut response) = match self.gate.rules().await {
            Some(rules) => {
                let response = self.pass(&rules, request, client, &in_flight).await;
                (rules, response)
            }
            None => (Rules::default(), self.gate.closed()),
        };
        rules.decorate(response.headers_mut());
        if let Some(permit) = response.extensions_mut().remove::<Permit>() {
            in_flight.hold(permit);
        }
        response.map(|body| Tracked::new(body, in_flight))
    }

    async fn pass(
        &self,
        rules: &Rules,
        request: Request<Incoming>,
        mut client: Client,
        in_flight: &InFlight,
    ) -> Response<Body> {
        let refused = self.gate.refuse(rules, request.uri().path(), request.headers(), &mut client);
        if let Some(response) = refused.await {
            return response;
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(in_flight.activity());
        let Ok(response) = self.router.clone().oneshot(request).await;
        response
    }
}

/// The TLS stream, and whether the client has shown a certificate that was verified.
async fn handshake(stream: TcpStream, file: &WebConfigFile) -> io::Result<(TlsStream<TcpStream>, bool)> {
    /// The type of a record that begins a handshake, the first byte of every TLS connection.
    const HANDSHAKE: u8 = 22;
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
        return Err(refuse_plain_http(stream).await);
    }
    let config = file.current().await;
    let tls = config.as_ref().and_then(|config| config.tls.as_ref());
    // The cause has been logged.
    let tls = tls.ok_or_else(|| io::Error::other("the web configuration file cannot be used"))?;
    let stream = TlsAcceptor::from(Arc::clone(&tls.config)).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().is_some();
    Ok((stream, shown && tls.identifies_clients))
}

/// A scraper with the wrong scheme should read why it gets nothing.
async fn refuse_plain_http(mut stream: TcpStream) -> io::Error {
    let answer = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
        this port speaks TLS (tls_server_config of the web configuration file); use https\n";
    // Its request is read first: closing with bytes unread would reset the connection before the answer.
    let mut request = [0; 4096];
    let refused = async {
        let _ = stream.read(&mut request).await?;
        stream.write_all(answer).await?;
        stream.shutdown().await
    };
    match refused.await {
        Ok(()) => io::Error::other("the client does not speak TLS"),
        Err(error) => error,
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
