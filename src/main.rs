//! The program: command line in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use skmem_exporter::cli::{Cli, Command};
use skmem_exporter::config::{self, Config, Loaded, WRONG_SETTING};
use skmem_exporter::http::WebConfigFile;
use skmem_exporter::kernel::diag;
use skmem_exporter::{daemon, diagnose, http, logging};

fn main() -> ExitCode {
    // Not a command: the program starts itself like this, and needs neither settings nor runtime there.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == diag::ASKER) {
        return diag::run_asker();
    }
    let (command, flags) = Cli::parse().into_parts();
    let loaded = match config::load(flags, std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(WRONG_SETTING);
        }
    };
    match command {
        Command::CheckConfig => check_config(&loaded),
        Command::Healthcheck { liveness } => healthcheck(&loaded.config, liveness),
        Command::Diagnose(options) => diagnose::run(&loaded, options),
        Command::Serve => match logging::init(loaded.config.log) {
            Ok(()) => daemon::run(&loaded.config),
            Err(error) => {
                eprintln!("cannot set up logging: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn check_config(loaded: &Loaded) -> ExitCode {
    if let Some(path) = &loaded.config.web.config_file
        && let Err(error) = WebConfigFile::load(path)
    {
        eprintln!("{error}");
        return ExitCode::from(WRONG_SETTING);
    }
    print!("{}", config::effective(loaded));
    ExitCode::SUCCESS
}

fn healthcheck(config: &Config, liveness: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (Some(listen), Ok(runtime)) = (config.web.listen_addresses.first(), runtime) else {
        eprintln!("nothing to ask: no --web.listen-address");
        return ExitCode::FAILURE;
    };
    let web_config = config.web.config_file.as_deref();
    let asked = if liveness {
        runtime.block_on(http::liveness(listen, web_config))
    } else {
        runtime.block_on(http::healthcheck(listen, web_config))
    };
    match asked {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
