//! Settings, parsed once: flags over the environment over a TOML file over defaults.

mod hosts;
mod layers;
mod listen;
pub mod settings;
mod value;

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;
use tracing::Level;

pub use self::hosts::UnknownHost;
pub use self::layers::Problem;
pub use self::listen::ListenAddress;
use self::settings::{CONFIG_FILE, SETTINGS, Setting};
pub use self::value::Allowed;
use self::value::Value;

/// Exit status for wrong flags, settings or web configuration files. clap uses the same for what it knows of, and
/// `RestartPreventExitStatus=` of the systemd unit relies on it.
pub const WRONG_SETTING: u8 = 2;

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The web server.
    pub web: WebConfig,
    /// From one sample to the next.
    pub sample_interval: Duration,
    /// Bytes from which on a process or cgroup has a row.
    pub process_min_memory: u64,
    /// Rows of processes, and of cgroups; at least 1.
    pub process_max: usize,
    /// Without movement for this long, a socket is stalled.
    pub stall_after: Duration,
    /// Which network namespaces are read.
    pub netns: NetnsScope,
    /// Absolute path of the host's procfs.
    pub procfs: PathBuf,
    /// Absolute path of the host's cgroup filesystem.
    pub cgroupfs: PathBuf,
    /// Logging.
    pub log: LogConfig,
}

/// The web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebConfig {
    /// At least one, none twice.
    pub listen_addresses: Vec<ListenAddress>,
    /// Where metrics are served; none of the server's other paths.
    pub telemetry_path: String,
    /// The exporter-toolkit's web configuration; whoever reads it checks what it holds.
    pub config_file: Option<PathBuf>,
    /// Requests served at once.
    pub max_requests: NonZeroUsize,
    /// Serve on systemd's sockets instead of `listen_addresses`.
    pub systemd_socket: bool,
}

/// Which network namespaces are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetnsScope {
    /// Every one that can be found.
    All,
    /// The exporter's own.
    Own,
}

/// Logging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Least severe level to log.
    pub level: Level,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value`
    Logfmt,
    /// One JSON object.
    Json,
}

/// The settings in effect, and where each comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Every setting that has a value, in the order of the table.
    effective: Vec<Effective>,
}

impl Loaded {
    /// Whether anybody has set `key`, be it to its default.
    pub fn is_set(&self, key: &str) -> bool {
        let one = self.effective.iter().find(|one| one.setting.key == key);
        one.is_some_and(|one| one.origin != layers::DEFAULT)
    }
}

/// One setting in effect.
#[derive(Debug, Clone)]
struct Effective {
    setting: &'static Setting,
    value: Value,
    origin: String,
}

/// Everything wrong with the configuration, one problem per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Error for Problems {}

/// Reads and checks every layer. `flags` are the texts of the command line, `environment` is all of it.
///
/// A value is checked even where another layer outranks it: it would come into effect the day that one goes.
pub fn load(
    flags: impl IntoIterator<Item = (&'static Setting, String)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let flags = layers::flags(flags);
    let environment = layers::environment(environment, &mut problems);
    let file = match layers::named_file([&flags, &environment]) {
        Some((named, path)) => layers::file(named, &path, &mut problems),
        None => Vec::new(),
    };
    let layers = [layers::defaults(), file, environment, flags].concat();
    for given in &layers {
        given.check(&mut problems);
    }
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
    let effective: Vec<Effective> =
        SETTINGS.iter().filter_map(|setting| Effective::find(setting, &figment)).collect();
    Ok(Loaded { config: Config::from_effective(&effective), effective })
}

impl Effective {
    /// `None` where no layer has a value.
    fn find(setting: &'static Setting, figment: &Figment) -> Option<Self> {
        let texts: Vec<String> = figment.extract_inner(setting.key).ok()?;
        let origin = figment.find_metadata(setting.key)?.name.clone().into_owned();
        Some(Self { setting, value: setting.allowed.parse(&texts).ok()?, origin })
    }
}

impl Config {
    /// Takes each field from the setting of its name. All have been checked.
    fn from_effective(effective: &[Effective]) -> Self {
        fn optional<T: TryFrom<Value>>(effective: &[Effective], key: &str) -> Option<T> {
            let found = effective.iter().find(|one| one.setting.key == key)?;
            T::try_from(found.value.clone()).ok()
        }
        fn get<T: TryFrom<Value>>(effective: &[Effective], key: &str) -> T {
            optional(effective, key)
                .unwrap_or_else(|| unreachable!("{key} has no default of its type in the table of settings"))
        }
        let log_level: &str = get(effective, "log.level");
        Self {
            web: WebConfig {
                listen_addresses: get(effective, "web.listen-address"),
                telemetry_path: get(effective, "web.telemetry-path"),
                config_file: optional(effective, "web.config.file"),
                max_requests: NonZeroUsize::new(get(effective, "web.max-requests"))
                    .unwrap_or(NonZeroUsize::MIN),
                systemd_socket: get(effective, "web.systemd-socket"),
            },
            sample_interval: get(effective, "sample.interval"),
            process_min_memory: get(effective, "process.min-memory"),
            process_max: get(effective, "process.max"),
            stall_after: get(effective, "stall.after"),
            netns: match get(effective, "netns") {
                "own" => NetnsScope::Own,
                _ => NetnsScope::All,
            },
            procfs: get(effective, "path.procfs"),
            cgroupfs: get(effective, "path.cgroupfs"),
            log: LogConfig {
                level: log_level.parse().unwrap_or(Level::INFO),
                format: match get(effective, "log.format") {
                    "json" => LogFormat::Json,
                    _ => LogFormat::Logfmt,
                },
            },
        }
    }
}

/// The settings in effect as a TOML file with the same effect, each with where it comes from.
pub fn effective(loaded: &Loaded) -> String {
    let line = |setting: &Setting| match loaded.effective.iter().find(|one| one.setting.key == setting.key) {
        // A file cannot name itself.
        Some(Effective { value, origin, .. }) if setting.key == CONFIG_FILE => {
            format!("# {} = {} # {origin}\n", setting.key, value.to_toml())
        }
        Some(Effective { value, origin, .. }) => {
            format!("{} = {} # {origin}\n", setting.key, value.to_toml())
        }
        None => format!("# {} is not set # default\n", setting.key),
    };
    SETTINGS.iter().map(line).collect()
}
