//! Keeping up with changes of the web configuration file and of the files it names, without a restart.

use super::web_config::{self, WebConfig, WebConfigError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Two changes of a file within one tick of the kernel's clock look alike (4 ms, 10 ms on old kernels). A file
/// that was changed this short a time before it was read is therefore read again.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// The web configuration file (`--web.config.file`), checked and kept up to date.
///
/// It is looked at on every request and every handshake: a few stat() calls, which read the files only when
/// one has changed. A file that cannot be used any more closes the server rather than opening it.
#[derive(Debug)]
pub struct WebConfigFile {
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
        Ok(Self { path, tls, state: Mutex::new(State { seen, result: Ok(config) }) })
    }

    /// Whether the server speaks TLS. Decided at start, because the listeners are known by it.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The file as it is now; `None` if it cannot be used, which has been logged.
    pub(super) fn current(&self) -> Option<Arc<WebConfig>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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
