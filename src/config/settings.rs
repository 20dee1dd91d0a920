//! The table of settings: the one place that names them. Flags, environment variables, file keys, help and
//! the example file derive from it.

use std::fmt::Write as _;
use std::time::Duration;

use super::value::Allowed;

/// The setting that names the file; the only one a file cannot hold.
pub const CONFIG_FILE: &str = "config.file";

/// What every environment variable of the program begins with.
pub const ENV_PREFIX: &str = "SKMEM_";

/// A sample reads every socket of the host: more often than each second and it would watch mostly itself.
/// Less often than every five minutes and the usual ranges of rates and alerts hold no two samples.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// Below the shortest interval nothing can be seen to stand still; a socket that is stuck for an hour need not
/// wait longer to be called so.
const STALL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));

/// Each process has some thirty series. A thousand of them is what one target may reasonably bring a server.
const MOST_PROCESSES: usize = 1000;

/// Each request holds a file descriptor, of which a service has 1024 unless told otherwise.
const MOST_REQUESTS: usize = 1000;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Name of the flag and, table by table, of the file's key.
    pub key: &'static str,
    /// What it may be set to.
    pub allowed: Allowed,
    /// As one would write it; `None` where nothing stands for "not set".
    pub default: Option<&'static str>,
    /// What it does, a sentence without its full stop.
    pub help: &'static str,
}

/// Every setting, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: CONFIG_FILE,
        allowed: Allowed::Path,
        default: None,
        help: "TOML file with any of the other settings",
    },
    Setting {
        key: "web.listen-address",
        allowed: Allowed::Addresses,
        default: Some(":10477"),
        help: "Address to serve on; as a flag repeatable, in the environment separated by commas",
    },
    Setting {
        key: "web.telemetry-path",
        allowed: Allowed::Route,
        default: Some("/metrics"),
        help: "Path under which metrics are served",
    },
    Setting {
        key: "web.config.file",
        allowed: Allowed::Path,
        default: None,
        help: "YAML file that turns on TLS or authentication, in the format of Prometheus' exporter-toolkit",
    },
    Setting {
        key: "web.max-requests",
        allowed: Allowed::Count(1..=MOST_REQUESTS),
        default: Some("40"),
        help: "Requests served at once; what comes on top is answered 503",
    },
    Setting {
        key: "web.systemd-socket",
        allowed: Allowed::Switch,
        default: Some("false"),
        help: "Serve on the sockets that systemd passes, instead of the listen addresses",
    },
    Setting {
        key: "sample.interval",
        allowed: Allowed::Duration(INTERVAL.0..=INTERVAL.1),
        default: Some("15s"),
        help: "Time from one sample of the host's sockets to the next",
    },
    Setting {
        key: "process.min-memory",
        allowed: Allowed::Size,
        default: Some("1MiB"),
        help: "TCP memory from which on a process, or a cgroup, has series of its own",
    },
    Setting {
        key: "process.max",
        allowed: Allowed::Count(1..=MOST_PROCESSES),
        default: Some("50"),
        help: "Processes, and cgroups, with series of their own, largest first; all others are one row",
    },
    Setting {
        key: "stall.after",
        allowed: Allowed::Duration(STALL.0..=STALL.1),
        default: Some("30s"),
        help: "Time without movement after which a socket that holds data counts as stalled",
    },
    Setting {
        key: "netns",
        allowed: Allowed::Choice(&["all", "own"]),
        default: Some("all"),
        help: "Network namespaces to look into: all that can be found, or the exporter's own",
    },
    Setting {
        key: "path.procfs",
        allowed: Allowed::AbsolutePath,
        default: Some("/proc"),
        help: "Where the host's procfs is mounted",
    },
    Setting {
        key: "path.cgroupfs",
        allowed: Allowed::AbsolutePath,
        default: Some("/sys/fs/cgroup"),
        help: "Where the host's cgroup filesystem is mounted",
    },
    Setting {
        key: "log.level",
        allowed: Allowed::Choice(&["error", "warn", "info", "debug", "trace"]),
        default: Some("info"),
        help: "Least severe messages to log, on standard error",
    },
    Setting {
        key: "log.format",
        allowed: Allowed::Choice(&["logfmt", "json"]),
        default: Some("logfmt"),
        help: "Format of a log line",
    },
];

impl Setting {
    /// The setting called `key`.
    pub fn named(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The setting that the environment variable `name` sets.
    pub fn of_variable(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.variable() == name)
    }

    /// Name of its environment variable.
    pub fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace(['.', '-'], "_").to_ascii_uppercase())
    }

    /// Its flag.
    pub fn flag(&self) -> String {
        format!("--{}", self.key)
    }

    /// Whether several values may be given.
    pub fn is_list(&self) -> bool {
        self.allowed == Allowed::Addresses
    }

    /// Help text: what it does, what it may be, what it is unless set.
    pub fn describe(&self) -> String {
        let default = self.default.unwrap_or("none");
        format!("{}\n[{}; default {default}; env {}]", self.help, self.allowed, self.variable())
    }
}

/// The file of all settings at their defaults, each commented out: `deploy/config.example.toml`.
pub fn example_file() -> String {
    let mut out = String::from(
        "\
# Settings of skmem-exporter. Name this file with --config.file or SKMEM_CONFIG_FILE.
# Every line below shows a default: remove its # to change it. A flag outranks an environment variable, which
# outranks this file. `sample.interval = \"15s\"` may also be written `interval = \"15s\"` in a table [sample].
# `skmem-exporter check-config` checks the file and prints what is in effect.
",
    );
    for setting in SETTINGS.iter().filter(|setting| setting.key != CONFIG_FILE) {
        let default = setting.default.map(str::to_owned);
        let shown = default.clone().unwrap_or_else(|| "/etc/skmem-exporter/web.yml".to_owned());
        let value = setting.allowed.parse(&[shown]).map_or_else(|_| String::new(), |value| value.to_toml());
        let note = if default.is_none() { " Not set by default." } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "\n# {}.{note}\n# Takes {}.\n# Flag {}, environment {}.\n# {} = {value}\n",
            setting.help,
            setting.allowed,
            setting.flag(),
            setting.variable(),
            setting.key,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_distinct_and_derived() {
        #[track_caller]
        fn check(key: &str, variable: &str) {
            let setting = Setting::named(key).unwrap();
            assert_eq!(setting.variable(), variable);
            assert_eq!(Setting::of_variable(variable).unwrap().key, key);
            assert_eq!(setting.flag(), format!("--{key}"));
        }
        let keys: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        let variables: BTreeSet<_> = SETTINGS.iter().map(Setting::variable).collect();
        assert_eq!((keys.len(), variables.len()), (SETTINGS.len(), SETTINGS.len()));

        check("config.file", "SKMEM_CONFIG_FILE");
        check("web.config.file", "SKMEM_WEB_CONFIG_FILE");
        check("web.listen-address", "SKMEM_WEB_LISTEN_ADDRESS");
        check("netns", "SKMEM_NETNS");
        assert!(Setting::named("nothing").is_none());
        assert!(Setting::of_variable("SKMEM_").is_none());
    }

    #[test]
    fn no_key_is_a_table_of_another() {
        for one in SETTINGS {
            let table = format!("{}.", one.key);
            assert!(SETTINGS.iter().all(|other| !other.key.starts_with(&table)), "{}", one.key);
        }
    }

    #[test]
    fn every_default_is_valid_and_written_the_way_it_is_shown() {
        for setting in SETTINGS {
            let Some(default) = setting.default else { continue };
            let value = setting.allowed.parse(&[default.to_owned()]).unwrap();
            assert!(value.to_toml().contains(default), "{}: {}", setting.key, value.to_toml());
        }
    }

    #[test]
    fn help_says_what_where_and_how_much() {
        let help = Setting::named("sample.interval").unwrap().describe();
        for part in ["15s", "1s to 5m", "SKMEM_SAMPLE_INTERVAL"] {
            assert!(help.contains(part), "{help}");
        }
    }
}
