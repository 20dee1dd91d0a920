//! What packages carry beside the program is made from the program's own tables, and is whole.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/metrics/golden.rs"]
mod golden;
#[path = "../examples/manual.rs"]
#[expect(dead_code, reason = "its main is not called here")]
mod manual;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use skmem_exporter::cli::Cli;
use skmem_exporter::config::settings::{ENV_PREFIX, SETTINGS};
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

fn manual() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    manual::write(directory.path()).unwrap();
    directory
}

/// `/etc/default/skmem-exporter`, with every setting at its default.
#[test]
fn the_environment_file_has_every_setting() {
    let mut out = "\
# Settings of skmem-exporter.service. Every line below shows a default: remove its # to change it, then run
#   systemctl restart skmem-exporter
# A setting that is wrong keeps the service from starting, and `systemctl status skmem-exporter` says what is wrong with it.
"
    .to_owned();
    for setting in SETTINGS {
        let note = match setting.key {
            "netns" => {
                "\n# The unit sets own, as other namespaces need a capability that it does not give;\n# /usr/share/skmem-exporter/systemd/netns.conf sets all and gives it; a line here outranks it."
            }
            "web.systemd-socket" => {
                "\n# /usr/share/skmem-exporter/systemd/socket.conf sets it; a line here outranks it."
            }
            _ => "",
        };
        let value = match setting.key {
            "config.file" => "/etc/skmem-exporter/config.toml",
            "web.config.file" => "/etc/skmem-exporter/web.yml",
            "netns" => "own",
            _ => setting.default.unwrap(),
        };
        let (unset, name) =
            (if setting.default.is_none() { " Not set by default." } else { "" }, setting.variable());
        write!(out, "\n# {}.{unset}{note}\n#{name}={value}\n", setting.help).unwrap();
    }
    golden::check("deploy/systemd/skmem-exporter.default", &out);
}

/// The defaults that the environment file shows beside the program's own are the unit's.
#[test]
fn the_unit_sets_what_the_environment_file_says() {
    let unit = read("deploy/systemd/skmem-exporter.service");
    assert!(unit.contains("\nEnvironment=SKMEM_NETNS=own\n"));
    assert!(unit.contains("\nEnvironmentFile=-/etc/default/skmem-exporter\n"));
    let examples =
        ["netns", "socket", "netns-socket"].map(|name| read(&format!("deploy/systemd/examples/{name}.conf")));
    assert!(examples[0].contains("\nEnvironment=SKMEM_NETNS=all\n"));
    assert!(examples[1].contains("\nEnvironment=SKMEM_WEB_SYSTEMD_SOCKET=true\n"));
    let filter = |text: &str| {
        text.lines().filter(|line| line.starts_with("IPAddress")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(filter(&examples[0]).len(), 2);
    assert_eq!(filter(&examples[0]), filter(&examples[2]), "systemd applies the one of who opened the port");
    for text in examples.iter().chain([&unit]) {
        for named in text.split(ENV_PREFIX).skip(1) {
            let name =
                named.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_').next().unwrap();
            let name = format!("{ENV_PREFIX}{name}");
            assert!(SETTINGS.iter().any(|setting| setting.variable() == name), "{name} is no setting");
        }
    }
}

#[test]
fn man_pages_have_every_command_flag_and_variable() {
    let directory = manual();
    let page = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap().replace("\\-", "-");
    let main = page("skmem-exporter.1");
    for setting in SETTINGS {
        assert!(main.contains(&setting.flag()), "{}", setting.key);
        assert!(main.contains(&format!("\\fB{}\\fR", setting.variable())), "{}", setting.key);
    }
    assert!(main.contains(".SH EXIT STATUS") && main.contains(".SH FILES"), "{main}");
    for command in Cli::command().get_subcommands() {
        let name = format!("skmem-exporter-{}", command.get_name());
        assert!(main.contains(&format!("{name}(1)")), "{name}");
        let page = page(&format!("{name}.1"));
        for argument in command.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(page.contains(&format!("--{argument}")), "{name}: --{argument}");
        }
    }
}

/// Asked as bash asks when TAB is pressed.
#[test]
fn bash_completes_commands_flags_and_values() {
    #[track_caller]
    fn check(directory: &Path, words: &[&str], expect: &[&str]) {
        let script = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=();
            function=$(complete -p \"$1\" | sed 's/.* -F \\([^ ]*\\) .*/\\1/');
            $function \"$1\" \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\";
            printf '%s\\n' \"${COMPREPLY[@]}\"";
        let script_file = directory.join("skmem-exporter.bash");
        let output =
            Command::new("bash").args(["-c", script, "bash"]).arg(script_file).args(words).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let said: Vec<_> = said.lines().collect();
        for word in expect {
            assert!(said.contains(word), "{words:?}: {said:?} {:?}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let directory = manual();
    let path = directory.path();
    check(path, &["skmem-exporter", "di"], &["diagnose"]);
    check(path, &["skmem-exporter", "--sample"], &["--sample.interval"]);
    check(path, &["skmem-exporter", "--netns", ""], &["all", "own"]);
    check(path, &["skmem-exporter", "diagnose", "--log"], &["--log.level", "--log.format"]);
    for (shell, file) in [("zsh", "_skmem-exporter"), ("fish", "skmem-exporter.fish")] {
        let text = fs::read_to_string(path.join(file)).unwrap();
        for setting in SETTINGS {
            assert!(text.contains(setting.key), "{shell}: {}", setting.key);
        }
    }
}
