//! A server on a free port, and clients that speak bytes.

use skmem_exporter::config::ListenAddress;
use skmem_exporter::http::limits::{Limits, Refusals};
use skmem_exporter::http::{Health, Server, Settings, State, WebConfigFile, bind, router, serve};
use skmem_exporter::metrics::Format;
use skmem_exporter::report::{Context, Mode, Report, compose};
use skmem_exporter::sample::{Exposed, Sample};
use skmem_exporter::series::Series;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here should take, on a machine with other things to do.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often a body was rendered, by the `overruns` of what was rendered: the number of a test.
pub static RENDERED: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];

/// A stand-in for the metrics: says what it was given. `tcp_memory` is the size of the body, `max_fds` how
/// many milliseconds it takes.
pub fn render(exposed: &Exposed, format: Format) -> String {
    if let Some(count) = usize::try_from(exposed.exporter.overruns).ok().and_then(|test| RENDERED.get(test)) {
        count.fetch_add(1, SeqCst);
    }
    let slow = exposed.exporter.process.map_or(0, |process| process.max_fds);
    std::thread::sleep(Duration::from_millis(slow));
    let timestamp = exposed.sample.as_ref().map_or(0.0, |sample| sample.timestamp);
    let mut body = format!("{format:?} sample {timestamp}\n");
    let size = usize::try_from(exposed.host.tcp_memory.unwrap_or(0)).unwrap();
    while body.len() < size {
        body.push_str("skmem_process_tcp_memory_bytes{pid=\"1\",process=\"init\"} 1\n");
    }
    body
}

/// Figures with a sample taken at `timestamp`.
pub fn exposed(timestamp: f64) -> Exposed {
    let sample = Sample { timestamp, ..Sample::default() };
    Exposed { sample: Some(Arc::new(sample)), ..Exposed::default() }
}

/// A report without a sample.
pub fn report() -> Report {
    let context = Context {
        mode: Mode::Daemon,
        hostname: "host".to_owned(),
        interval: Duration::from_secs(15),
        stall_after: Duration::from_secs(30),
        missing: Vec::new(),
    };
    compose(&context, &Series::new(context.interval), &Exposed::default())
}

/// What to start a server with.
pub struct Setup {
    pub exposed: Exposed,
    pub report: Report,
    pub settings: Settings,
    pub limits: Limits,
    pub web_config: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            exposed: exposed(1.0),
            report: report(),
            settings: Settings::default(),
            limits: Limits::default(),
            web_config: None,
        }
    }
}

/// A running server.
pub struct Running {
    pub address: SocketAddr,
    pub publish: watch::Sender<Arc<Exposed>>,
    pub publish_report: watch::Sender<Arc<Report>>,
    pub health: Arc<Mutex<Health>>,
    pub refusals: Arc<Refusals>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Setup {
    pub async fn start(self) -> Running {
        let (publish, exposed) = watch::channel(Arc::new(self.exposed));
        let (publish_report, report) = watch::channel(Arc::new(self.report));
        let health = Arc::new(Mutex::new(Health::Healthy));
        let asked = Arc::clone(&health);
        let state =
            State { exposed, report, render, health: Arc::new(move || asked.lock().unwrap().clone()) };
        let refusals = Arc::new(Refusals::default());
        let router = router(&state, self.settings, Arc::clone(&refusals)).unwrap();
        let web_config = self.web_config.map(|path| WebConfigFile::load(path).unwrap());
        let server = Server { router, web_config, limits: self.limits, refusals: Arc::clone(&refusals) };
        let listeners = bind(&[ListenAddress::Socket(SocketAddr::from(([127, 0, 0, 1], 0)))]).await.unwrap();
        let address = listeners[0].local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or(()) };
            serve(listeners, server, stopped).await.unwrap();
        });
        Running { address, publish, publish_report, health, refusals, stop, task }
    }
}

impl Running {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// From another address of the loopback.
    pub async fn connect_from(&self, address: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// One request on a connection of its own.
    pub async fn request(&self, request: &str) -> Answer {
        exchange(self.connect().await, request).await
    }

    /// GET with these further header lines.
    pub async fn get(&self, path: &str, headers: &str) -> Answer {
        self.request(&get(path, headers)).await
    }

    /// Tells the server to stop and waits until it has; how long that took.
    pub async fn stop(self) -> Duration {
        let begin = std::time::Instant::now();
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
        begin.elapsed()
    }
}

/// A GET that ends its connection.
pub fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")
}

/// Writes a request, reads to the end.
pub async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    Answer::parse(&read_to_end(&mut stream).await)
}

/// Reads until the other side closes, however it does that.
pub async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection stays open");
    bytes
}

/// Reads one answer with a Content-Length from a connection that stays open.
pub async fn read_one(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    loop {
        let byte = timeout(PATIENCE, stream.read_u8()).await.expect("no answer").expect("no whole answer");
        bytes.push(byte);
        if bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let mut answer = Answer::parse(&bytes);
    answer.body = vec![0; answer.header("content-length").unwrap().parse().unwrap()];
    timeout(PATIENCE, stream.read_exact(&mut answer.body)).await.expect("no body").unwrap();
    answer
}

/// An answer, taken apart.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head, body: bytes[end..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
