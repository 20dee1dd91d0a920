//! Writes man pages and shell completions into a directory, from the definition of the command line that the program itself
//! uses: `cargo run --example manual -- DIRECTORY`. An example, so that nothing of it is in the program.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, CommandFactory};
use clap_complete::Shell;
use skmem_exporter::cli::Cli;
use skmem_exporter::config::settings::{CONFIG_FILE, SETTINGS};

const NAME: &str = "skmem-exporter";
/// What a page is about goes into its own section; the command line has no room for it.
const SECTIONS: &str = include_str!("manual.roff");

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: cargo run --example manual -- DIRECTORY");
        return ExitCode::from(2);
    };
    match write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write below {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    // Without the revision: a page is of a version.
    let cli = Cli::command().version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    page(directory, &cli, NAME)?;
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("{NAME}-{}", command.get_name());
        let command = command.clone().version(env!("CARGO_PKG_VERSION")).disable_version_flag(true);
        page(directory, &command, &name)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut for_completion(cli.clone()), NAME, directory)?;
    }
    Ok(())
}

/// A man page, with what only the main one has room for before its last section.
fn page(directory: &Path, command: &Command, name: &str) -> io::Result<()> {
    // Owned by clap for as long as the program runs, which is not long.
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let man =
        clap_mangen::Man::new(command.clone().name(name).bin_name(name)).manual("User Commands").date("");
    let mut text = Vec::new();
    man.render(&mut text)?;
    if name == NAME {
        let rendered = String::from_utf8(text).map_err(io::Error::other)?;
        let (before, version) =
            rendered.split_once(".SH VERSION").ok_or_else(|| io::Error::other("the page has no version"))?;
        text = format!("{before}{}{SECTIONS}.SH VERSION{version}", environment()).into_bytes();
    }
    fs::write(directory.join(format!("{name}.1")), text)
}

/// The section that names each environment variable.
fn environment() -> String {
    let mut out =
        ".SH ENVIRONMENT\nEvery setting may be given in the environment; a flag outranks it.\n".to_owned();
    for setting in SETTINGS {
        let help = setting.help.replace('-', "\\-").replace('\'', "\\(aq");
        // Writing to a string cannot fail.
        let _ = write!(out, ".TP\n\\fB{}\\fR\n{help}.\n", setting.variable());
    }
    out
}

/// Shells complete the paths of files and the words of a choice.
fn for_completion(mut cli: Command) -> Command {
    fn hint(arg: Arg) -> Arg {
        let key = arg.get_id().as_str().to_owned();
        if key == CONFIG_FILE || key == "web.config.file" {
            return arg.value_hint(clap::ValueHint::FilePath);
        }
        if key.starts_with("path.") {
            return arg.value_hint(clap::ValueHint::DirPath);
        }
        match SETTINGS.iter().find(|setting| setting.key == key).map(|setting| &setting.allowed) {
            Some(skmem_exporter::config::Allowed::Choice(words)) => arg.value_parser(words.to_vec()),
            _ => arg,
        }
    }
    let names: Vec<String> = cli.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    cli = cli.mut_args(|arg| if matches!(arg.get_action(), ArgAction::Append) { hint(arg) } else { arg });
    for name in names {
        cli = cli.mut_subcommand(name, |command| {
            command
                .mut_args(|arg| if matches!(arg.get_action(), ArgAction::Append) { hint(arg) } else { arg })
        });
    }
    cli
}
