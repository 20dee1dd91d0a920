//! The line that says how far the watch is, on standard error and only where that is a terminal.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::print;
use crate::human;

/// The line; nothing where nobody looks at a terminal.
pub struct Progress {
    bar: ProgressBar,
    began: Instant,
    duration: Duration,
    samples: u64,
}

impl Progress {
    /// For a watch of `duration` that begins now.
    pub fn new(duration: Duration) -> Self {
        // Control sequences are all that would be left of it in a dumb terminal.
        let is_shown = stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let length = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let bar = ProgressBar::with_draw_target(Some(length), target);
        // A template that is wrong would be seen by every test in a terminal.
        if let Ok(style) = ProgressStyle::with_template("watching TCP sockets {bar:24} {msg}") {
            bar.set_style(style.progress_chars(if print::is_utf8() { "█·" } else { "#." }));
        }
        Self { bar, began: Instant::now(), duration, samples: 0 }
    }

    /// One more sample.
    pub fn sampled(&mut self) {
        self.samples += 1;
        self.draw();
    }

    /// Draws it as it is now.
    pub fn draw(&self) {
        let elapsed = self.began.elapsed().min(self.duration);
        let elapsed_seconds = Duration::from_secs(elapsed.as_secs());
        self.bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_message(format!(
            "{} of {}, {} left, {}",
            print::short(elapsed_seconds),
            print::short(self.duration),
            print::short(self.duration.saturating_sub(elapsed_seconds)),
            human::count(self.samples, "sample")
        ));
    }

    /// Takes it away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
