//! One scrape, by names and labels.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::host::PATIENCE;

/// The reader of the metrics' own tests, which shares nothing with the writers.
#[path = "../support/metrics/exposition.rs"]
#[allow(dead_code)]
mod exposition;

/// The series of one scrape in text format 0.0.4.
#[derive(Debug, Clone)]
pub struct Scrape {
    pub text: String,
    series: Vec<Series>,
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Series {
    fn is(&self, name: &str, labels: Labels<'_>) -> bool {
        let has = |(key, value): &(&str, &str)| self.label(key) == Some(value);
        self.name == name && labels.iter().all(has)
    }

    fn label(&self, wanted: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str())
    }
}

/// Labels to look for: a series may have more.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Scrape {
    pub fn parse(text: String) -> Self {
        let series = exposition::classic(&text)
            .unwrap()
            .into_iter()
            .flat_map(|family| family.series)
            .map(|series| Series {
                name: series.name,
                labels: series.labels,
                value: exposition::number(&series.value).unwrap(),
            })
            .collect();
        Self { text, series }
    }

    fn matching(&self, name: &str, labels: Labels<'_>) -> impl Iterator<Item = f64> {
        self.series.iter().filter(move |series| series.is(name, labels)).map(|series| series.value)
    }

    /// The value of the one series with these labels, if there is one.
    #[track_caller]
    pub fn get(&self, name: &str, labels: Labels<'_>) -> Option<f64> {
        let mut values = self.matching(name, labels);
        let value = values.next();
        assert!(values.next().is_none(), "several series {name} {labels:?}");
        value
    }

    /// The same as a whole number, which bytes and sockets are.
    #[track_caller]
    pub fn find(&self, name: &str, labels: Labels<'_>) -> Option<i64> {
        self.get(name, labels).map(|value| whole(name, value))
    }

    /// The same where it must be there.
    #[track_caller]
    pub fn int(&self, name: &str, labels: Labels<'_>) -> i64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no series {name} {labels:?}"))
    }

    /// The sum of all series with these labels.
    #[track_caller]
    pub fn sum(&self, name: &str, labels: Labels<'_>) -> i64 {
        self.matching(name, labels).map(|value| whole(name, value)).sum()
    }

    /// A value of the process row with this pid, whatever its comm.
    #[track_caller]
    pub fn process(&self, name: &str, pid: u32) -> Option<i64> {
        self.find(&format!("skmem_process_{name}"), &[("pid", &pid.to_string())])
    }

    /// Since when the process with this pid has a stalled socket, if it has one.
    #[track_caller]
    pub fn process_stall_start(&self, pid: u32) -> Option<f64> {
        self.get("skmem_process_tcp_stall_start_timestamp_seconds", &[("pid", &pid.to_string())])
    }

    /// The label `wanted` of the one series with these labels.
    pub fn label(&self, name: &str, labels: Labels<'_>, wanted: &str) -> Option<String> {
        let series = self.series.iter().find(|series| series.is(name, labels))?;
        series.label(wanted).map(str::to_owned)
    }

    /// When its sockets were read; 0 before the first sample.
    pub fn timestamp(&self) -> f64 {
        self.get("skmem_sample_timestamp_seconds", &[]).unwrap_or(0.0)
    }

    /// Sources that failed in this sample or ever before, in words; empty if none has. Where a process refuses even root,
    /// as a security module may have it, whatever has no owner for a moment is put down to it: that is no failure here.
    pub fn failures(&self) -> Vec<String> {
        let failed = |name: &str, is_failure: fn(f64) -> bool| {
            self.series
                .iter()
                .filter(|series| series.name == name && is_failure(series.value))
                .map(|series| format!("{} {:?} {}", series.name, series.labels, series.value))
                .collect::<Vec<_>>()
        };
        let mut failures = failed("skmem_source_success", |value| value < 1.0);
        failures.extend(failed("skmem_source_errors_total", |value| value > 0.0));
        if self.int("skmem_unreadable_processes", &[]) > 0 {
            failures.retain(|failure| !failure.contains("\"owners\""));
        }
        failures
    }
}

#[track_caller]
fn whole(name: &str, value: f64) -> i64 {
    assert!(value.fract().abs() < f64::EPSILON && value.abs() < 2f64.powi(53), "{name} {value}");
    // Whole, and exactly representable.
    #[allow(clippy::cast_possible_truncation)]
    let whole = value as i64;
    whole
}

/// Sends a GET on a connection of its own and reads the answer: head and body.
pub fn http_get(address: SocketAddr, path: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).map_err(std::io::Error::other)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((head.to_owned(), body.to_owned()))
}
