//! Keeping up with changes of the web configuration file and of the files it names, without a restart.

use super::web_config::{self, WebConfig, WebConfigError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Two changes of a file within one tick of the kernel's clock look alike (4 ms, 10 ms on old kernels). A file
/// that was changed this short a time before it was read is therefore read again.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// How long a request waits for the files to be looked at, which takes milliseconds unless their file system hangs. Less than a
/// health check waits, so that it hears what is wrong.
const PATIENCE: Duration = Duration::from_secs(2);

/// The web configuration file (`--web.config.file`), checked and kept up to date.
///
/// It is looked at on every request and every handshake: a few stat() calls, which read the files only when
/// one has changed. A file that cannot be used any more closes the server rather than opening it.
#[derive(Debug)]
pub struct WebConfigFile {
    file: Arc<File>,
    /// The thread that looks at it, if there is one: see [`WebConfigFile::on_a_thread`].
    thread: Option<WebFilesThread>,
}

/// What there is to go by; `None`: nothing that can be used.
type Current = Option<Arc<WebConfig>>;

/// How to ask the thread. Workers never block on it: they answer all other requests, and tell the service manager that we live.
#[derive(Debug)]
struct WebFilesThread {
    ask: Sender<oneshot::Sender<Current>>,
    work: Arc<Mutex<Work>>,
}

/// What the thread is at.
#[derive(Debug, Default)]
struct Work {
    since: Option<Instant>,
    /// Whether it has been said that it is late.
    late: bool,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    tls: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seen: Seen,
    result: Result<Arc<WebConfig>, WebConfigError>,
}

/// What the files looked like when they were read.
#[derive(Debug)]
struct Seen {
    files: Vec<(PathBuf, Option<Stamp>)>,
    settled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        // A mounted secret is changed by swapping a symbolic link, so links are followed.
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn settled(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return false;
        };
        // Also not if it changed in the future: then two clocks are at work, and nothing is known.
        let changed = UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds));
        let age = changed.and_then(|changed| now.duration_since(changed).ok());
        age.is_some_and(|age| age > SETTLED_AFTER)
    }
}

impl Seen {
    fn unchanged(&self) -> bool {
        self.settled && self.files.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }
}

impl WebConfigFile {
    /// Reads the file; an error says what is wrong where, and how to mend it.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, WebConfigError> {
        let path = path.into();
        let (seen, result) = read(&path);
        let config = result?;
        if config.tls.as_ref().is_some_and(|tls| tls.takes_host_authorities) {
            tracing::warn!(
                file = %path.display(),
                "client certificates of every authority this host trusts are taken; \
                 name the right ones with client_ca_file"
            );
        }
        let tls = config.tls.is_some();
        let file = File { path, tls, state: Mutex::new(State { seen, result: Ok(config) }) };
        Ok(Self { file: Arc::new(file), thread: None })
    }

    /// Whether the server speaks TLS. Decided at start, because the listeners are known by it.
    pub fn tls(&self) -> bool {
        self.file.tls
    }

    /// Has it looked at by a thread of its own from now on. That thread keeps the privileges that it takes to read a private key
    /// when whoever talks to clients gives them up. It begins with `prepare`, whose result is returned.
    pub fn on_a_thread<T: Send + 'static>(
        self,
        prepare: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<(Self, T)> {
        let file = Arc::clone(&self.file);
        let (ask, asked) = channel::<oneshot::Sender<Current>>();
        let work = Arc::<Mutex<Work>>::default();
        let thread = WebFilesThread { ask, work: Arc::clone(&work) };
        let (say, prepared) = channel();
        std::thread::Builder::new().name("web-files".to_owned()).spawn(move || {
            let _ = say.send(prepare());
            for answer in asked {
                // Whoever asked has gone, or has waited long enough.
                if answer.is_closed() {
                    continue;
                }
                lock(&work).since = Some(Instant::now());
                let current = file.current();
                lock(&work).since = None;
                if answer.send(current).is_ok() && std::mem::take(&mut lock(&work).late) {
                    tracing::info!(file = %file.path.display(), "the web configuration file can be looked at again");
                }
            }
        })?;
        let prepared = prepared.recv().map_err(io::Error::other)?;
        Ok((Self { file: self.file, thread: Some(thread) }, prepared))
    }

    /// The file as it is now; `None` if it cannot be used, which has been logged.
    pub(super) async fn current(&self) -> Current {
        let Some(thread) = &self.thread else { return self.file.current() };
        // What nobody will answer in time is not asked: it would pile up.
        if !thread.hangs() {
            let (answer, answered) = oneshot::channel();
            thread.ask.send(answer).ok()?;
            if let Ok(answered) = timeout(PATIENCE, answered).await {
                return answered.ok()?;
            }
        }
        // Said once, not for each request.
        if !std::mem::replace(&mut lock(&thread.work).late, true) {
            tracing::error!(
                file = %self.file.path.display(),
                "the web configuration file or a file it names cannot be looked at: its file system has not answered for {} s; \
                 no request is served until it does",
                PATIENCE.as_secs()
            );
        }
        None
    }
}

impl WebFilesThread {
    fn hangs(&self) -> bool {
        lock(&self.work).since.is_some_and(|since| since.elapsed() >= PATIENCE)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl File {
    fn current(&self) -> Current {
        let mut state = lock(&self.state);
        if state.result.is_err() || !state.seen.unchanged() {
            let (seen, result) = read(&self.path);
            let result = result.and_then(|config| self.same_transport(config));
            match &result {
                Err(error) if state.result.as_ref().err() != Some(error) => {
                    tracing::error!(%error, "no request is served until the web configuration file is mended");
                }
                Ok(_) if state.result.is_err() => {
                    tracing::info!(file = %self.path.display(), "the web configuration file is usable again");
                }
                _ => tracing::debug!(file = %self.path.display(), "web configuration file read"),
            }
            *state = State { seen, result };
        }
        state.result.as_ref().ok().cloned()
    }

    fn same_transport(&self, config: Arc<WebConfig>) -> Result<Arc<WebConfig>, WebConfigError> {
        if config.tls.is_some() == self.tls {
            return Ok(config);
        }
        let problem = if self.tls {
            "TLS was on when the exporter started and is not asked for any more; restart it to serve without"
        } else {
            "TLS was off when the exporter started and is asked for now; restart it to serve with TLS"
        };
        Err(web_config::fault(&self.path, "tls_server_config", problem))
    }
}

fn read(path: &Path) -> (Seen, Result<Arc<WebConfig>, WebConfigError>) {
    let now = SystemTime::now();
    // Looked at before reading: a change in between is then seen the next time.
    let mut files = vec![(path.to_owned(), Stamp::of(path))];
    let mut named = Vec::new();
    let mut result = web_config::read(path, &mut named);
    if !named.is_empty() {
        // Which files are named is known only now, so they are looked at and read again.
        files.extend(named.iter().map(|path| (path.clone(), Stamp::of(path))));
        result = web_config::read(path, &mut Vec::new());
    }
    let settled = files.iter().all(|(_, stamp)| stamp.is_some_and(|stamp| stamp.settled(now)));
    (Seen { files, settled }, result.map(Arc::new))
}
