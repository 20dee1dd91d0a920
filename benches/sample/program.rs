//! Programs that are not ours to command: `ss`, node_exporter, and the daemon as its users start it.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use procfs::process::Process;
use rustix::process::{Signal, set_parent_process_death_signal};
use skmem_exporter::config::settings::ENV_PREFIX;

use crate::Result;
use crate::figures::{Measured, Memory, Seen};

/// How often the memory of a program is looked at that ends by itself.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The role: becomes `command`, which ends when this benchmark does. Returns only if that fails.
pub fn become_program(command: &[OsString]) -> Box<dyn std::error::Error> {
    let Some((program, arguments)) = command.split_first() else { return "no program given".into() };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    let error = Command::new(program).args(arguments).exec();
    format!("{}: {error}", program.display()).into()
}

/// A program that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Program(Child);

impl Program {
    /// Starts `command`, without any setting of the daemon that the environment has: cargo adds those of the build.
    pub fn start(command: &[&str], stderr: Stdio) -> Result<Self> {
        let mut program = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(ENV_PREFIX.as_bytes()) {
                program.env_remove(name);
            }
        }
        program.args(["program", "--"]).args(command);
        Ok(Self(program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn()?))
    }

    /// Runs `command` to its end.
    pub fn time(command: &[&str]) -> Result<Measured> {
        let clock = Instant::now();
        let mut program = Self::start(command, Stdio::null())?;
        let mut memory = Memory::default();
        let status = loop {
            if let Some(status) = program.0.try_wait()? {
                break status;
            }
            // The last look counts: the one before may still have seen the process that became the program.
            memory = program.memory().unwrap_or(memory);
            std::thread::sleep(LOOK_EVERY);
        };
        let wall = clock.elapsed();
        if !status.success() {
            return Err(format!("`{}`: {status}", command.join(" ")).into());
        }
        Ok(Measured {
            wall,
            cpu: Duration::ZERO,
            rss: memory.resident,
            peak_rss: memory.peak,
            seen: Seen::default(),
        })
    }

    /// Its memory; `None` once it has ended.
    pub fn memory(&self) -> Option<Memory> {
        Memory::of(self.0.id())
    }

    /// CPU time so far, as exact as a clock tick.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = Process::new(i32::try_from(self.0.id()).ok()?).and_then(|process| process.stat()).ok()?;
        let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        Some(Duration::from_secs_f64(seconds))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether `program` is in the search path.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(OsStr::new(program)).is_file())
}
