//! The command line. Flags stay texts here: `config` checks them together with the other layers.

use std::sync::LazyLock;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Args, Command as Clap, FromArgMatches, Parser, Subcommand};

use crate::config::Allowed;
use crate::config::settings::{SETTINGS, Setting};
use crate::diagnose::{self, Format};
use crate::metrics::BUILD;

static VERSION_LINE: LazyLock<String> =
    LazyLock::new(|| format!("{} (revision {})", BUILD.version, BUILD.revision));

/// Prometheus exporter that says which process holds the host's TCP memory, and why.
#[derive(Debug, Parser)]
#[command(name = "skmem-exporter", version = VERSION_LINE.as_str())]
#[command(after_help = "Every flag is also a key of the TOML file and an environment variable. \
    A flag outranks the environment, which outranks the file.")]
pub struct Cli {
    /// Flags before the command.
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Command {
    /// Sample and serve until told to stop.
    #[default]
    Serve,
    /// Check every source of settings and print those in effect.
    CheckConfig,
    /// Ask the running daemon whether it is healthy.
    Healthcheck {
        /// Whether a web configuration file that cannot be used is forgiven.
        liveness: bool,
    },
    /// Say who holds the host's TCP memory, and why.
    Diagnose(diagnose::Options),
}

/// Each command takes the flags itself. Were they clap's global ones, those before the command would be dropped
/// without a word wherever the same flag follows it.
#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Say who holds the host's TCP memory, why, what shows it and what to do
    #[command(long_about = DIAGNOSE)]
    Diagnose(Diagnose),
    /// Sample the host's sockets and serve metrics until told to stop; what happens without a command
    Serve(Flags),
    /// Check every source of settings, print the settings in effect and where each comes from
    CheckConfig(Flags),
    /// Ask the daemon that runs with the same settings whether it is healthy
    Healthcheck(Healthcheck),
}

impl Cli {
    /// What to do, and the flags before and after it in the order given.
    pub fn into_parts(self) -> (Command, Vec<(&'static Setting, String)>) {
        let (command, after) = match self.command {
            None => (Command::default(), Flags::default()),
            Some(Subcommands::Serve(flags)) => (Command::Serve, flags),
            Some(Subcommands::CheckConfig(flags)) => (Command::CheckConfig, flags),
            Some(Subcommands::Healthcheck(Healthcheck { liveness, flags })) => {
                (Command::Healthcheck { liveness }, flags)
            }
            Some(Subcommands::Diagnose(Diagnose { duration, format, flags })) => {
                (Command::Diagnose(diagnose::Options { duration, format }), flags)
            }
        };
        (command, [self.flags.0, after.0].concat())
    }
}

const DIAGNOSE: &str = "\
Say who holds the host's TCP memory, why, what shows it and what to do.

Where the daemon runs with the same settings, it is asked: it answers at once, by its own settings, with what it has seen \
so far. Otherwise, and always with --duration, the host is watched for that long. A stall shows within the watch only, so \
--stall.after is shortened to three quarters of it.

Exit status: 0 nothing is wrong, 1 something is, 2 it could not look, 130 interrupted before anything was known.";

/// What `diagnose` takes.
#[derive(Debug, Args)]
struct Diagnose {
    /// Do not ask the daemon, watch the host for this long
    /// [a duration from 3s to 1h; default: ask the daemon, watch for 10s if it does not know]
    #[arg(long, value_parser = diagnose::parse_duration, verbatim_doc_comment)]
    duration: Option<Duration>,
    /// How to print the report; JSON is what the daemon serves under /api/v1/report
    #[arg(long, value_name = "text|json", value_enum, default_value_t, hide_possible_values = true)]
    format: Format,
    #[command(flatten, next_help_heading = "Settings")]
    flags: Flags,
}

/// What `healthcheck` takes.
#[derive(Debug, Args)]
struct Healthcheck {
    /// For whoever restarts what is not healthy: while the web configuration file cannot be used, it is enough that connections
    /// are taken, as a restart would not mend it
    #[arg(long)]
    liveness: bool,
    #[command(flatten, next_help_heading = "Settings")]
    flags: Flags,
}

/// One flag for each setting, built from the table.
#[derive(Debug, Clone, Default)]
struct Flags(Vec<(&'static Setting, String)>);

impl Args for Flags {
    fn augment_args(command: Clap) -> Clap {
        command.args(SETTINGS.iter().map(|setting| {
            let arg = Arg::new(setting.key)
                .long(setting.key)
                .help(setting.describe())
                .value_name(setting.allowed.placeholder())
                // A repeated flag is refused by the one parser that also knows which settings are lists.
                .action(ArgAction::Append)
                .allow_negative_numbers(true);
            if setting.allowed == Allowed::Switch {
                // With `=` only, or the command's name would be taken for the value.
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                arg
            }
        }))
    }

    fn augment_args_for_update(command: Clap) -> Clap {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in SETTINGS {
            let texts = matches.get_many::<String>(setting.key).into_iter().flatten();
            self.0.extend(texts.map(|text| (setting, text.clone())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    type Parsed = (Command, Vec<(&'static str, String)>);

    fn parse(line: &str) -> Result<Parsed, clap::Error> {
        let cli = Cli::try_parse_from(line.split(' '))?;
        let (command, flags) = cli.into_parts();
        Ok((command, flags.into_iter().map(|(setting, text)| (setting.key, text)).collect()))
    }

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn takes_flags_before_and_after_the_command() {
        #[track_caller]
        fn check(line: &str, command: Command, flags: &[(&str, &str)]) {
            let expect: Vec<_> = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
            assert_eq!(parse(line).unwrap(), (command, expect), "{line}");
        }
        check("x", Command::Serve, &[]);
        check("x serve", Command::Serve, &[]);
        check("x healthcheck", Command::Healthcheck { liveness: false }, &[]);
        check(
            "x healthcheck --liveness --netns own",
            Command::Healthcheck { liveness: true },
            &[("netns", "own")],
        );
        let diagnose = |duration: Option<u64>, format| {
            Command::Diagnose(diagnose::Options { duration: duration.map(Duration::from_secs), format })
        };
        check("x diagnose", diagnose(None, Format::Text), &[]);
        check(
            "x --netns own diagnose --duration 1m30s --format json --process.max 3",
            diagnose(Some(90), Format::Json),
            &[("netns", "own"), ("process.max", "3")],
        );
        check("x --netns own", Command::Serve, &[("netns", "own")]);
        check("x check-config --netns own", Command::CheckConfig, &[("netns", "own")]);
        check("x --netns own check-config", Command::CheckConfig, &[("netns", "own")]);
        check(
            "x --web.listen-address :1 --web.listen-address=:2 serve --web.listen-address :3",
            Command::Serve,
            &[("web.listen-address", ":1"), ("web.listen-address", ":2"), ("web.listen-address", ":3")],
        );
        check("x --web.systemd-socket serve", Command::Serve, &[("web.systemd-socket", "true")]);
        check("x --web.systemd-socket=no", Command::Serve, &[("web.systemd-socket", "no")]);
        check("x --process.max -1", Command::Serve, &[("process.max", "-1")]);
        check("x --sample.interval soon", Command::Serve, &[("sample.interval", "soon")]);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        #[track_caller]
        fn check(line: &str, expect: &str) {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(expect), "{line}: {error}");
        }
        check("x --sample.intervall 1s", "--sample.interval");
        check("x chek-config", "check-config");
        check("x --netns", "a value is required");
        check("x diagnos", "diagnose");
        check("x diagnose --duration 2s", "'--duration <DURATION>': is below the smallest allowed, 3s");
        check("x diagnose --duration 2h", "is above the largest allowed, 1h; use a duration from 3s to 1h");
        check("x diagnose --duration 10", "has no unit: 10s, 10m or 10h?");
        check("x diagnose --format yaml", "--format");
        check("x --duration 10s", "--duration");
    }

    #[test]
    fn every_command_describes_every_flag() {
        for name in ["", "serve", "check-config", "healthcheck", "diagnose"] {
            let mut command = Cli::command();
            let command =
                if name.is_empty() { &mut command } else { command.find_subcommand_mut(name).unwrap() };
            let help = command.render_long_help().to_string();
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            for setting in SETTINGS {
                assert!(help.contains(&setting.flag()), "{name} {}", setting.key);
                assert!(words(&help).contains(&words(&setting.describe())), "{name} {}", setting.key);
            }
        }
    }

    #[test]
    fn says_its_version_and_revision() {
        let version = Cli::command().render_version();
        assert!(version.contains(BUILD.version) && version.contains(BUILD.revision), "{version}");
    }
}
