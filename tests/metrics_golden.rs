//! What is served, byte by byte, and what tools that are not ours read in it.

#[path = "support/metrics/mod.rs"]
#[allow(dead_code)]
mod support;

#[path = "support/host.rs"]
#[allow(dead_code)]
mod host;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use skmem_exporter::metrics::{BUILD, Format, Number, families, render};
use skmem_exporter::sample::Exposed;
use support::{fixture, golden};

/// The text with what differs from build to build replaced.
fn stable(exposed: &Exposed, format: Format) -> String {
    let build = |version, revision, rustc| {
        format!("{{version=\"{version}\",revision=\"{revision}\",rustc=\"{rustc}\"}}")
    };
    let text = render(exposed, format);
    let actual = build(BUILD.version, BUILD.revision, BUILD.rustc);
    assert_eq!(text.matches(&actual).count(), 1, "build info is there once");
    text.replace(&actual, &build("VERSION", "REVISION", "RUSTC"))
}

#[test]
fn a_busy_host_in_openmetrics() {
    golden::check(
        "tests/golden/metrics_busy.openmetrics.txt",
        &stable(&fixture::busy(), Format::OpenMetrics),
    );
}

#[test]
fn a_busy_host_in_classic_text() {
    golden::check("tests/golden/metrics_busy.classic.txt", &stable(&fixture::busy(), Format::Classic));
}

#[test]
fn before_the_first_sample_in_openmetrics() {
    golden::check(
        "tests/golden/metrics_nothing.openmetrics.txt",
        &stable(&fixture::nothing(), Format::OpenMetrics),
    );
}

#[test]
fn before_the_first_sample_in_classic_text() {
    golden::check("tests/golden/metrics_nothing.classic.txt", &stable(&fixture::nothing(), Format::Classic));
}

#[test]
fn a_recorded_host_in_openmetrics() {
    golden::check(
        "tests/golden/metrics_recorded.openmetrics.txt",
        &stable(&host::exposed(), Format::OpenMetrics),
    );
}

#[test]
fn a_recorded_host_in_classic_text() {
    golden::check("tests/golden/metrics_recorded.classic.txt", &stable(&host::exposed(), Format::Classic));
}

/// The hosts that other tools judge.
fn hosts() -> [(&'static str, Exposed); 4] {
    [
        ("busy", fixture::busy()),
        ("everything", fixture::everything().0),
        ("nothing", fixture::nothing()),
        ("recorded", host::exposed()),
    ]
}

/// Runs a tool that the test cannot do without.
fn run(command: &mut Command, package: &str) -> Output {
    let program = command.get_program().to_owned();
    command.output().unwrap_or_else(|error| {
        panic!("cannot run {}: {error}; install Debian's package {package}", program.display())
    })
}

/// The text as a file.
fn written(directory: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("write the exposition");
    path
}

#[test]
fn promtool_has_nothing_to_say() {
    let directory = tempfile::tempdir().unwrap();
    for (name, exposed) in hosts() {
        let path = written(directory.path(), name, &render(&exposed, Format::Classic));
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(File::open(path).unwrap());
        let output = run(&mut promtool, "prometheus");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && said.iter().all(String::is_empty), "{name}: {}", said.concat());
    }
}

#[test]
fn the_reference_client_reads_what_was_meant() {
    let directory = tempfile::tempdir().unwrap();
    let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/metrics/judge.py");
    for (name, exposed) in hosts() {
        // Debian's interpreter by its path: another one first in PATH does not see Debian's packages.
        let mut python = Command::new("/usr/bin/python3");
        python.arg(&judge);
        python.arg(written(directory.path(), "openmetrics", &render(&exposed, Format::OpenMetrics)));
        python.arg(written(directory.path(), "classic", &render(&exposed, Format::Classic)));
        let output = run(&mut python, "python3");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));

        let read: Vec<(String, BTreeMap<String, String>, f64)> =
            serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(read, meant(&exposed), "{name}");
    }
}

/// The series as the judge lists them.
fn meant(exposed: &Exposed) -> Vec<(String, BTreeMap<String, String>, f64)> {
    let mut meant = Vec::new();
    for family in families(exposed) {
        for point in family.points {
            let names = family.metric.labels.iter().map(|label| label.name.to_owned());
            let labels = names.zip(point.labels.into_iter().map(String::from)).collect();
            let number = match point.number {
                Number::Unsigned(value) => value as f64,
                Number::Signed(value) => value as f64,
                Number::Float(value) => value,
            };
            meant.push((family.metric.name.to_owned(), labels, number));
        }
    }
    meant
}

#[test]
fn what_is_served_adds_up() {
    let series = meant(&fixture::busy());
    let sum = |name: &str, owners: &[&str]| -> f64 {
        let wanted = series.iter().filter(|(series, labels, _)| {
            let owner = labels.get("owner").map(String::as_str);
            series == name && (owners.is_empty() || owner.is_some_and(|owner| owners.contains(&owner)))
        });
        wanted.map(|(_, _, value)| value).sum()
    };
    let close = |one: f64, other: f64| assert!((one - other).abs() < 0.5, "{one} is not {other}");
    close(
        sum("skmem_tcp_attributed_memory_bytes", &[]) + sum("skmem_tcp_unattributed_memory_bytes", &[]),
        sum("skmem_tcp_memory_bytes", &[]),
    );
    close(
        sum("skmem_process_tcp_memory_bytes", &[]),
        sum("skmem_tcp_attributed_memory_bytes", &["process", "accept_queue"]),
    );
}
