//! The report on standard output.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};

use super::Format;
use crate::human;
use crate::report::Report;
use crate::report::text::{self, Style, WIDTH_MAX, WIDTH_MIN};

/// Writes the report to standard output.
pub fn print(report: &Report, format: Format) -> io::Result<()> {
    let text = match format {
        Format::Text => text::render(report, style()),
        Format::Json => json(report)?,
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What this terminal shows.
fn style() -> Style {
    let out = io::stdout();
    Style {
        // NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM have their say.
        colour: AutoStream::choice(&out) != ColorChoice::Never,
        unicode: is_utf8(),
        width: width(&out),
    }
}

/// Whether the locale's characters are UTF-8, by the variables that decide it (setlocale(3)).
pub fn is_utf8() -> bool {
    let names = ["LC_ALL", "LC_CTYPE", "LANG"];
    let locale = names.into_iter().filter_map(std::env::var_os).find(|value| !value.is_empty());
    let charset = locale.unwrap_or_default().to_string_lossy().to_ascii_lowercase().replace('-', "");
    charset.contains("utf8")
}

fn width(out: &io::Stdout) -> usize {
    let columns = if out.is_terminal() { rustix::termios::tcgetwinsize(out).ok() } else { None };
    // Terminals without a size say 0.
    let columns = columns.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    columns.unwrap_or(WIDTH_MAX).clamp(WIDTH_MIN, WIDTH_MAX)
}

/// The report with a line for each field. What would steer a terminal is escaped as JSON allows, so it means the same.
fn json(report: &Report) -> io::Result<String> {
    let plain = serde_json::to_string_pretty(report)?;
    let mut json = String::with_capacity(plain.len() + 1);
    for one in plain.chars() {
        if one != '\n' && human::misleads(one) {
            for unit in one.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(json, "\\u{unit:04x}");
            }
        } else {
            json.push(one);
        }
    }
    json.push('\n');
    Ok(json)
}

/// A duration in whole seconds, as it would be given: `1m30s`.
pub fn short(duration: Duration) -> String {
    human::duration(duration).replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Context, Mode, compose};
    use crate::sample::Exposed;
    use crate::series::Series;

    #[test]
    fn json_steers_no_terminal_and_means_the_same() {
        let hostname = "a\u{9b}31m\u{202e}b\u{e0041}\u{7f}\n\"\\".to_owned();
        let context = Context {
            mode: Mode::Diagnose,
            hostname: hostname.clone(),
            interval: Duration::from_secs(1),
            stall_after: Duration::from_secs(1),
            missing: Vec::new(),
        };
        let report = compose(&context, &Series::new(context.interval), &Exposed::default());
        let json = json(&report).unwrap();
        assert!(
            json.ends_with("}\n") && json.chars().all(|one| one == '\n' || !human::misleads(one)),
            "{json}"
        );
        let read: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(read.hostname, hostname);
    }
}
