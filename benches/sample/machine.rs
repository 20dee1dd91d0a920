//! What it was measured on.

use std::fmt::Write;
use std::fs;
use std::process::Command;

/// The machine, one Markdown list item a line.
pub fn describe() -> String {
    let mut out = String::new();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&cpus, "model name").unwrap_or("unknown model");
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = field(&memory, "MemTotal").unwrap_or("unknown");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    let lines = [
        ("Date", line_of("date", &["--utc", "+%F %R UTC"])),
        ("Revision", revision()),
        ("Compiler", line_of("rustc", &["--version"])),
        ("Kernel", format!("Linux {} {}", kernel.trim(), std::env::consts::ARCH)),
        ("CPU", format!("{count} x {model}")),
        ("Memory", format!("{memory}, pages of {} bytes", rustix::param::page_size())),
        ("Load average over the minute before", load.to_owned()),
    ];
    for (name, value) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "- {name}: {value}");
    }
    out
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn revision() -> String {
    let commit = line_of("git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = line_of("git", &["status", "--porcelain", "--untracked-files=no", "--", "src", "benches"]);
    if changed.is_empty() { commit } else { format!("{commit} with changes") }
}

/// What a command prints on its first line.
fn line_of(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .and_then(|output| Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned()))
        .unwrap_or_default()
}
