//! Logging to standard error, and saying a lasting fault once instead of every round.

use std::collections::BTreeMap;
use std::io;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::config::{LogConfig, LogFormat};

/// Starts logging, for the whole process and once.
pub fn init(config: LogConfig) -> Result<(), TryInitError> {
    subscriber(config, io::stderr).try_init()
}

/// The subscriber of [`init`], with its lines going to `writer`.
fn subscriber<W>(config: LogConfig, writer: W) -> impl Subscriber + Send + Sync + for<'a> LookupSpan<'a>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // The libraries' own steps help nobody who looks into the exporter.
    let libraries = LevelFilter::from_level(config.level.min(Level::WARN));
    let filter = Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), config.level)
        // It warns of what clients do, who could fill the disk with that; the web server counts it.
        .with_target("h2", LevelFilter::ERROR)
        .with_default(libraries);
    Registry::default().with(lines(config.format, writer)).with(filter)
}

fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // An error of the log itself would be printed to standard error, and panic where that is closed.
    match format {
        LogFormat::Logfmt => tracing_logfmt::builder()
            .with_target(false)
            .with_span_name(false)
            .with_span_path(false)
            .layer()
            .with_writer(writer)
            .with_ansi(false)
            .log_internal_errors(false)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_target(false)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(writer)
            .with_ansi(false)
            .log_internal_errors(false)
            .boxed(),
    }
}

/// Which faults last, so that each is said when it starts and when it ends. Says nothing itself.
#[derive(Debug, Clone)]
pub struct FaultLog<K, R> {
    lasting: BTreeMap<K, Lasting<R>>,
}

#[derive(Debug, Clone)]
struct Lasting<R> {
    reason: R,
    rounds: u64,
}

/// What is worth saying about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultEvent {
    /// It began, or goes on for another reason.
    Started,
    /// It is over.
    Ended {
        /// Rounds it lasted, whatever the reasons.
        rounds: u64,
    },
}

impl<K: Ord, R: PartialEq> FaultLog<K, R> {
    /// Nothing has failed yet.
    pub const fn new() -> Self {
        Self { lasting: BTreeMap::new() }
    }

    /// `key` failed this round. [`FaultEvent::Started`] unless it did so the round before, for the same reason.
    pub fn failed(&mut self, key: K, reason: R) -> Option<FaultEvent> {
        let Some(lasting) = self.lasting.get_mut(&key) else {
            self.lasting.insert(key, Lasting { reason, rounds: 1 });
            return Some(FaultEvent::Started);
        };
        lasting.rounds = lasting.rounds.saturating_add(1);
        if lasting.reason == reason {
            return None;
        }
        lasting.reason = reason;
        Some(FaultEvent::Started)
    }

    /// `key` worked this round. [`FaultEvent::Ended`] if it had failed.
    pub fn worked(&mut self, key: &K) -> Option<FaultEvent> {
        self.lasting.remove(key).map(|lasting| FaultEvent::Ended { rounds: lasting.rounds })
    }
}

impl<K: Ord, R: PartialEq> Default for FaultLog<K, R> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// What a subscriber wrote.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(level: Level, format: LogFormat, log: impl FnOnce()) -> String {
        let out = Written::default();
        let writer = out.clone();
        tracing::subscriber::with_default(
            subscriber(LogConfig { level, format }, move || writer.clone()),
            log,
        );
        let bytes = out.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn writes_logfmt() {
        let text = written(Level::INFO, LogFormat::Logfmt, || {
            let _span = tracing::info_span!("sample").entered();
            tracing::info!(source = "sock_diag", rounds = 3, "works again");
            tracing::warn!("two\nlines");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("ts=20"), "{text}");
        for part in [" level=info ", "\"works again\"", "source=sock_diag", "rounds=3"] {
            assert!(lines[0].contains(part), "{text}");
        }
        assert!(!text.contains('\u{1b}') && !text.contains("target"), "{text}");
    }

    #[test]
    fn writes_json() {
        let text = written(Level::INFO, LogFormat::Json, || {
            tracing::error!(source = "sock_diag", "a \"quoted\"\nline");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["message"], "a \"quoted\"\nline");
        assert_eq!(line["source"], "sock_diag");
        assert!(line["timestamp"].is_string() && line.get("target").is_none(), "{text}");
    }

    #[test]
    fn filters_by_level_and_keeps_libraries_quiet() {
        #[track_caller]
        fn check(level: Level, expect: &[&str]) {
            let text = written(level, LogFormat::Logfmt, || {
                tracing::trace!("trace");
                tracing::debug!("debug");
                tracing::info!("info");
                tracing::warn!("warn");
                tracing::error!("error");
                tracing::debug!(target: "hyper", "hyper-debug");
                tracing::warn!(target: "hyper", "hyper-warn");
                tracing::warn!(target: "h2::proto", "h2-warn");
            });
            let said: Vec<&str> =
                text.lines().filter_map(|line| line.rsplit_once(['=', ' ']).map(|(_, word)| word)).collect();
            assert_eq!(said, expect, "{level}");
        }
        check(Level::ERROR, &["error"]);
        check(Level::WARN, &["warn", "error", "hyper-warn"]);
        check(Level::INFO, &["info", "warn", "error", "hyper-warn"]);
        check(Level::TRACE, &["trace", "debug", "info", "warn", "error", "hyper-warn"]);
    }

    #[test]
    fn outlives_a_closed_standard_error() {
        #[derive(Clone, Copy)]
        struct Closed;
        impl io::Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        for format in [LogFormat::Logfmt, LogFormat::Json] {
            let closed = subscriber(LogConfig { level: Level::INFO, format }, || Closed);
            tracing::subscriber::with_default(closed, || tracing::error!("lost"));
        }
    }

    #[test]
    fn a_fault_is_said_when_it_starts_and_when_it_ends() {
        use FaultEvent::{Ended, Started};
        let mut log = FaultLog::new();
        assert_eq!(log.worked(&"snmp"), None);
        assert_eq!(log.failed("snmp", "denied"), Some(Started));
        assert_eq!(log.failed("snmp", "denied"), None);
        assert_eq!(log.failed("owners", "denied"), Some(Started));
        assert_eq!(log.failed("snmp", "denied"), None);
        assert_eq!(log.worked(&"snmp"), Some(Ended { rounds: 3 }));
        assert_eq!(log.worked(&"snmp"), None);
        assert_eq!(log.failed("owners", "denied"), None);
        assert_eq!(log.failed("snmp", "denied"), Some(Started));
        assert_eq!(log.worked(&"snmp"), Some(Ended { rounds: 1 }));
    }

    #[test]
    fn another_reason_is_said_and_the_rounds_go_on() {
        use FaultEvent::{Ended, Started};
        let mut log = FaultLog::default();
        assert_eq!(log.failed(1, "denied"), Some(Started));
        assert_eq!(log.failed(1, "missing"), Some(Started));
        assert_eq!(log.failed(1, "missing"), None);
        assert_eq!(log.worked(&1), Some(Ended { rounds: 3 }));
    }
}
