//! Settings from all layers together, as a user sees them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use skmem_exporter::config::settings::{CONFIG_FILE, SETTINGS, Setting, example_file};
use skmem_exporter::config::{
    Config, ListenAddress, Loaded, LogFormat, NetnsScope, Problems, effective, load,
};
use tempfile::TempDir;
use tracing::Level;

/// Everything a load reads, built up layer by layer.
#[derive(Default)]
struct Layers {
    flags: Vec<(&'static str, String)>,
    environment: Vec<(String, String)>,
    file: Option<(TempDir, PathBuf)>,
}

impl Layers {
    fn flag(mut self, key: &'static str, text: impl Into<String>) -> Self {
        self.flags.push((key, text.into()));
        self
    }

    fn env(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.environment.push((name.into(), text.into()));
        self
    }

    /// A file named by flag.
    fn file(mut self, text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        fs::write(&path, text).unwrap();
        self.flags.push((CONFIG_FILE, path.to_str().unwrap().to_owned()));
        self.file = Some((directory, path));
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        let flags = self.flags.iter().map(|(key, text)| (Setting::named(key).unwrap(), text.clone()));
        let environment =
            self.environment.iter().map(|(name, text)| (OsString::from(name), OsString::from(text)));
        load(flags, environment)
    }

    fn config(&self) -> Config {
        self.load().unwrap().config
    }

    /// Error text, with the name of the file shortened to FILE.
    fn errors(&self) -> Vec<String> {
        let mut text = self.load().unwrap_err().to_string();
        if let Some((_, path)) = &self.file {
            text = text.replace(path.to_str().unwrap(), "FILE");
        }
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn works_without_anything() {
    let config = Layers::default().config();
    assert_eq!(config.web.listen_addresses, [ListenAddress::AllInterfaces { port: 10477 }]);
    assert_eq!(config.web.telemetry_path, "/metrics");
    assert_eq!(config.web.config_file, None);
    assert_eq!(config.web.max_requests.get(), 40);
    assert!(!config.web.systemd_socket);
    assert_eq!(config.sample_interval, Duration::from_secs(15));
    assert_eq!(config.process_min_memory, 1 << 20);
    assert_eq!(config.process_max, 50);
    assert_eq!(config.stall_after, Duration::from_secs(30));
    assert_eq!(config.netns, NetnsScope::All);
    assert_eq!(config.procfs, Path::new("/proc"));
    assert_eq!(config.cgroupfs, Path::new("/sys/fs/cgroup"));
    assert_eq!((config.log.level, config.log.format), (Level::INFO, LogFormat::Logfmt));
}

#[test]
fn takes_every_setting() {
    let config = Layers::default()
        .file(
            r#"
            netns = "own"
            [web]
            listen-address = ["127.0.0.1:1", "localhost:2"]
            telemetry-path = "/m"
            max-requests = 5
            systemd-socket = true
            [web.config]
            file = "web.yml"
            [sample]
            interval = "1m30s"
            [process]
            min-memory = 4096
            max = 7
            [stall]
            after = "500s"
            [path]
            procfs = "/host/proc"
            cgroupfs = "/host/cgroup"
            [log]
            level = "debug"
            format = "json"
            "#,
        )
        .config();
    let loopback: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let named = ListenAddress::Name { host: "localhost".to_owned(), port: 2 };
    assert_eq!(config.web.listen_addresses, [ListenAddress::Socket(loopback), named]);
    assert_eq!(config.web.telemetry_path, "/m");
    assert_eq!(config.web.config_file.as_deref(), Some(Path::new("web.yml")));
    assert_eq!(config.web.max_requests.get(), 5);
    assert!(config.web.systemd_socket);
    assert_eq!(config.sample_interval, Duration::from_secs(90));
    assert_eq!(config.process_min_memory, 4096);
    assert_eq!(config.process_max, 7);
    assert_eq!(config.stall_after, Duration::from_secs(500));
    assert_eq!(config.netns, NetnsScope::Own);
    assert_eq!(config.procfs, Path::new("/host/proc"));
    assert_eq!(config.cgroupfs, Path::new("/host/cgroup"));
    assert_eq!((config.log.level, config.log.format), (Level::DEBUG, LogFormat::Json));
}

/// Key, and a value for file, environment and flag: as text and as TOML. Where only two exist, they repeat.
const VALUES: &[(&str, [&str; 3], [&str; 3])] = &[
    ("web.listen-address", [":1", ":2", ":3"], [r#"[":1"]"#, r#"[":2"]"#, r#"[":3"]"#]),
    ("web.telemetry-path", ["/a", "/b", "/c"], [r#""/a""#, r#""/b""#, r#""/c""#]),
    ("web.config.file", ["a", "b", "c"], [r#""a""#, r#""b""#, r#""c""#]),
    ("web.max-requests", ["1", "2", "3"], ["1", "2", "3"]),
    ("web.systemd-socket", ["true", "false", "true"], ["true", "false", "true"]),
    ("sample.interval", ["1s", "2s", "3s"], [r#""1s""#, r#""2s""#, r#""3s""#]),
    ("process.min-memory", ["1", "2", "3"], [r#""1""#, r#""2""#, r#""3""#]),
    ("process.max", ["1", "2", "3"], ["1", "2", "3"]),
    ("stall.after", ["1s", "2s", "3s"], [r#""1s""#, r#""2s""#, r#""3s""#]),
    ("netns", ["own", "all", "own"], [r#""own""#, r#""all""#, r#""own""#]),
    ("path.procfs", ["/a", "/b", "/c"], [r#""/a""#, r#""/b""#, r#""/c""#]),
    ("path.cgroupfs", ["/a", "/b", "/c"], [r#""/a""#, r#""/b""#, r#""/c""#]),
    ("log.level", ["warn", "debug", "trace"], [r#""warn""#, r#""debug""#, r#""trace""#]),
    ("log.format", ["json", "logfmt", "json"], [r#""json""#, r#""logfmt""#, r#""json""#]),
];

#[test]
fn the_later_layer_wins_for_every_key() {
    let keys: Vec<&str> = VALUES.iter().map(|(key, ..)| *key).collect();
    let all: Vec<&str> =
        SETTINGS.iter().map(|setting| setting.key).filter(|key| *key != CONFIG_FILE).collect();
    assert_eq!(keys, all);

    for (key, texts, toml) in VALUES {
        let setting = Setting::named(key).unwrap();
        for present in 0..8_u8 {
            let [file, env, flag] = [1, 2, 4].map(|bit| present & bit != 0);
            let mut layers = Layers::default();
            let mut expect = match setting.default {
                Some(_) => None,
                None => Some(format!("# {key} is not set # default")),
            };
            if file {
                layers = layers.file(&format!("{key} = {}", toml[0]));
                let path = layers.file.as_ref().unwrap().1.display().to_string();
                expect = Some(format!("{key} = {} # file {path}", toml[0]));
            }
            if env {
                layers = layers.env(setting.variable(), texts[1]);
                expect = Some(format!("{key} = {} # environment {}", toml[1], setting.variable()));
            }
            if flag {
                layers = layers.flag(key, texts[2]);
                expect = Some(format!("{key} = {} # flag --{key}", toml[2]));
            }
            let printed = effective(&layers.load().unwrap());
            let line =
                printed.lines().find(|line| line.trim_start_matches("# ").starts_with(&format!("{key} ")));
            let line = line.unwrap_or_else(|| panic!("{key}: {printed}"));
            match expect {
                Some(expect) => assert_eq!(line, expect),
                None => assert!(line.ends_with(" # default"), "{line}"),
            }
        }
    }
}

#[test]
fn the_flag_names_the_file_before_the_environment_does() {
    let layers = Layers::default().file("process.max = 3").env("SKMEM_CONFIG_FILE", "/does/not/exist");
    assert_eq!(layers.config().process_max, 3);
    let printed = effective(&layers.load().unwrap());
    assert!(
        printed.starts_with("# config.file = ") && printed.contains(" # flag --config.file\n"),
        "{printed}"
    );

    let path = layers.file.as_ref().unwrap().1.to_str().unwrap();
    let by_environment = Layers::default().env("SKMEM_CONFIG_FILE", path);
    assert_eq!(by_environment.config().process_max, 3);
}

#[test]
fn a_list_may_be_given_by_each_layer_in_its_own_way() {
    let expect = [ListenAddress::AllInterfaces { port: 1 }, ListenAddress::AllInterfaces { port: 2 }];
    let env = Layers::default().env("SKMEM_WEB_LISTEN_ADDRESS", ":1, :2");
    let flags = Layers::default().flag("web.listen-address", ":1").flag("web.listen-address", ":2");
    let file = Layers::default().file("web.listen-address = [':1', ':2']");
    for layers in [env, flags, file] {
        assert_eq!(layers.config().web.listen_addresses, expect);
    }
    let single = Layers::default().file("web.listen-address = ':1'");
    assert_eq!(single.config().web.listen_addresses, expect[..1]);
}

#[test]
fn says_what_is_wrong_where_and_how_to_mend_it() {
    #[track_caller]
    fn check(layers: &Layers, expect: &[&str]) {
        assert_eq!(layers.errors(), expect);
    }
    let none = Layers::default;
    check(
        &none().env("SKMEM_SAMPLE_INTERVAL", "0s"),
        &["sample.interval = \"0s\" (environment SKMEM_SAMPLE_INTERVAL): \
           is below the smallest allowed, 1s; use a duration from 1s to 5m"],
    );
    check(
        &none().flag("sample.interval", "15"),
        &["sample.interval = \"15\" (flag --sample.interval): \
           has no unit: 15s, 15m or 15h?; use a duration from 1s to 5m"],
    );
    check(
        &none().file("sample.interval = 15"),
        &[
            "sample.interval = \"15\" (file FILE): has no unit: 15s, 15m or 15h?; use a duration from 1s to 5m",
        ],
    );
    check(
        &none().env("SKMEM_SAMPLE_INTERVALL", "15s"),
        &["SKMEM_SAMPLE_INTERVALL (environment): \
           unknown variable; the nearest known is SKMEM_SAMPLE_INTERVAL"],
    );
    check(
        &none().file("[web]\nlisten-adress = [':1']"),
        &["web.listen-adress (file FILE): unknown key; the nearest known is web.listen-address"],
    );
    check(
        &none().file("[sampel]"),
        &["sampel (file FILE): unknown key; the nearest known is sample.interval"],
    );
    check(
        &none().file("web = 3"),
        &["web (file FILE): is a table, not a value; put its settings below [web]"],
    );
    check(
        &none().file("config.file = 'x'"),
        &["config.file (file FILE): cannot be set in a file; use --config.file or SKMEM_CONFIG_FILE"],
    );
    check(
        &none().file("netns.scope = 'own'"),
        &["netns (file FILE): is a table, a list or a date where one value belongs; use all or own"],
    );
    check(
        &none().file("'log.level' = 'info'\nlog.level = 'warn'"),
        &["log.level (file FILE): is set twice; set it once"],
    );
    check(
        &none().file("sample.interval = 12:00:15"),
        &["sample.interval (file FILE): is a table, a list or a date where one value belongs; \
           use a duration from 1s to 5m"],
    );
    check(
        &none().flag("config.file", "/does/not/exist"),
        &["config.file = \"/does/not/exist\" (flag --config.file): \
           cannot be read: No such file or directory (os error 2); name a readable TOML file, or none"],
    );
    check(
        &none().env("SKMEM_CONFIG_FILE", ""),
        &["config.file = \"\" (environment SKMEM_CONFIG_FILE): is empty; use a file path"],
    );
    check(
        &none().flag("process.max", "1").flag("process.max", "2"),
        &["process.max = \"1, 2\" (flag --process.max): is set 2 times; set it once"],
    );
    check(
        &none().env("SKMEM_WEB_LISTEN_ADDRESS", ":1,:1"),
        &["web.listen-address = \":1\" (environment SKMEM_WEB_LISTEN_ADDRESS): is there twice; drop one"],
    );
    check(
        &none().file("netns = \"own\"\nsample.interval = = 3\n"),
        &["line 2, column 19 (file FILE): not valid TOML: invalid string, \
           expected `\"`, `'`; mend the line"],
    );
}

#[test]
fn a_file_must_be_a_text_of_sensible_size() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let check = |bytes: &[u8], expect: &str| {
        fs::write(&path, bytes).unwrap();
        let errors = Layers::default().flag("config.file", path.to_str().unwrap()).errors();
        assert!(errors.len() == 1 && errors[0].contains(expect), "{errors:?}");
    };
    check(b"netns = '\xff'", "is not UTF-8");
    check(&vec![b'\n'; (1 << 20) + 1], "larger than 1MiB");
    let errors = Layers::default().flag("config.file", directory.path().to_str().unwrap()).errors();
    assert!(errors[0].contains("Is a directory"), "{errors:?}");
}

#[test]
fn reports_everything_at_once_even_what_is_outranked() {
    let layers = Layers::default()
        .file("sample.interval = '0s'\nsample.nothing = 1\nprocess.max = 0")
        .env("SKMEM_SAMPLE_INTERVAL", "1h")
        .env("SKMEM_NOTHING", "")
        .flag("sample.interval", "20s")
        .flag("netns", "none");
    let errors = layers.errors();
    assert_eq!(errors.len(), 6, "{errors:#?}");
    for origin in ["(file FILE)", "(environment SKMEM_SAMPLE_INTERVAL)", "(environment)", "(flag --netns)"] {
        assert!(errors.iter().any(|line| line.contains(origin)), "{errors:#?}");
    }
}

#[test]
fn minds_only_its_own_variables() {
    let config = Layers::default()
        .env("PATH", "/bin")
        .env("skmem_netns", "own")
        .env("SKMEM_REVISION", "abc")
        .env("SKMEM_EXPORTER_SERVICE_HOST", "10.0.0.1")
        .env("SKMEM_EXPORTER_PORT", "tcp://10.0.0.1:10477")
        .config();
    assert_eq!(config, Layers::default().config());
}

#[cfg(unix)]
#[test]
fn refuses_a_variable_that_is_not_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let environment = [(bytes(b"SKMEM_NETNS"), bytes(b"\xff")), (bytes(b"OTHER\xff"), bytes(b"\xff"))];
    let problems = load([], environment).unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems}");
    assert!(problems.to_string().contains("is not UTF-8; use all or own"), "{problems}");
}

#[test]
fn an_error_stays_on_one_line() {
    let layers = Layers::default()
        .file("\"a\\nb\" = 1\nnetns = \"x\\ny\"")
        .env("SKMEM_A\nB", "")
        .flag("log.level", "x\r\ny");
    assert_eq!(layers.load().unwrap_err().0.len(), 4);
    assert_eq!(layers.errors().len(), 4, "{:#?}", layers.errors());
}

/// What is printed as in effect, read back as a file.
fn reread(loaded: &Loaded) -> Config {
    Layers::default().file(&effective(loaded)).config()
}

#[test]
fn what_is_in_effect_is_a_file_with_the_same_effect() {
    let loaded = Layers::default().load().unwrap();
    assert_eq!(reread(&loaded), loaded.config);
    let printed = effective(&loaded);
    assert_eq!(printed.lines().count(), SETTINGS.len());
    assert!(printed.lines().all(|line| line.ends_with(" # default")), "{printed}");

    let strange = Layers::default()
        .file("path.procfs = '/a \"b\" \\c # d'")
        .env("SKMEM_WEB_LISTEN_ADDRESS", "[::1]:1,localhost:2")
        .flag("web.config.file", "new\nline\u{7f}")
        .flag("process.min-memory", "1.5MiB");
    let loaded = strange.load().unwrap();
    assert_eq!(loaded.config.process_min_memory, 3 << 19);
    assert_eq!(reread(&loaded), loaded.config);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_valid_settings_survive_being_printed(
        path in "/[^\0]{0,20}",
        millis in 1000..300_000_u64,
        bytes in any::<u64>(),
        ports in prop::collection::btree_set(any::<u16>(), 1..4),
    ) {
        let addresses: Vec<String> = ports.iter().map(|port| format!(":{port}")).collect();
        let loaded = Layers::default()
            .flag("path.procfs", path)
            .flag("sample.interval", format!("{millis}ms"))
            .flag("process.min-memory", bytes.to_string())
            .env("SKMEM_WEB_LISTEN_ADDRESS", addresses.join(","))
            .load()
            .unwrap();
        prop_assert_eq!(loaded.config.process_min_memory, bytes);
        prop_assert_eq!(reread(&loaded), loaded.config);
    }

    #[test]
    fn no_file_makes_it_panic(text in any::<String>(), key in 0..SETTINGS.len(), value in "\\PC{0,20}") {
        let _ = Layers::default().file(&text).load();
        let _ = Layers::default().file(&format!("{} = {value}", SETTINGS[key].key)).load();
    }
}

#[test]
fn the_example_file_is_fresh_and_shows_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/config.example.toml");
    let expect = example_file();
    if fs::read_to_string(&path).ok().as_ref() != Some(&expect) {
        assert!(
            std::env::var_os("BLESS").is_some(),
            "deploy/config.example.toml is out of date: run BLESS=1 cargo test --test config"
        );
        fs::write(&path, &expect).unwrap();
    }
    assert_eq!(Layers::default().file(&expect).config(), Layers::default().config());

    // Its comments hold settings, not only prose: with their marks removed they mean the defaults.
    let setting =
        |line: &&str| SETTINGS.iter().any(|setting| line.starts_with(&format!("# {} = ", setting.key)));
    let lines: Vec<&str> = expect.lines().filter(setting).map(|line| &line[2..]).collect();
    assert_eq!(lines.len(), SETTINGS.len() - 1);
    let mut config = Layers::default().file(&lines.join("\n")).config();
    assert!(config.web.config_file.take().is_some());
    assert_eq!(config, Layers::default().config());
}
