//! The catalog keeps the rules of metric names, says what it should, and hides nothing.

#[path = "support/metrics/mod.rs"]
#[allow(dead_code)]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use skmem_exporter::metrics::catalog::{self, Kind, Metric, Unit, Values};
use skmem_exporter::metrics::{Format, Number, families, render};
use skmem_exporter::sample::{DropReason, Exposed, ZERO_WINDOW_DIRECTIONS};
use support::{exposition, fixture, golden, reference};

/// What users hold on to: these are never renamed.
const CONTRACT: [&str; 58] = [
    "skmem_tcp_memory_bytes",
    "skmem_tcp_memory_limit_bytes",
    "skmem_tcp_memory_pressure",
    "skmem_tcp_sockets_allocated",
    "skmem_tcp_orphan_sockets",
    "skmem_tcp_orphan_sockets_limit",
    "skmem_tcp_sockets",
    "skmem_tcp_hidden_sockets",
    "skmem_tcp_segments_received_total",
    "skmem_tcp_segments_sent_total",
    "skmem_tcp_segments_retransmitted_total",
    "skmem_tcp_receive_drops_total",
    "skmem_tcp_receive_prunes_total",
    "skmem_tcp_receive_collapses_total",
    "skmem_tcp_memory_pressure_entries_total",
    "skmem_tcp_memory_pressure_seconds_total",
    "skmem_tcp_aborts_on_memory_total",
    "skmem_tcp_zero_window_transitions_total",
    "skmem_tcp_listen_overflows_total",
    "skmem_tcp_listen_drops_total",
    "skmem_tcp_receive_buffer_limit_bytes",
    "skmem_tcp_send_buffer_limit_bytes",
    "skmem_tcp_window_scaling_enabled",
    "skmem_tcp_receive_autotuning_enabled",
    "skmem_tcp_attributed_memory_bytes",
    "skmem_tcp_unattributed_memory_bytes",
    "skmem_tcp_unattributed_memory_bound_bytes",
    "skmem_process_tcp_memory_bytes",
    "skmem_process_tcp_receive_memory_bytes",
    "skmem_process_tcp_send_memory_bytes",
    "skmem_process_tcp_receive_queue_bytes",
    "skmem_process_tcp_send_queue_bytes",
    "skmem_process_tcp_receive_queue_max_bytes",
    "skmem_process_tcp_sockets",
    "skmem_process_tcp_accept_queue_connections",
    "skmem_process_tcp_accept_queue_memory_bytes",
    "skmem_process_resident_memory_bytes",
    "skmem_process_info",
    "skmem_cgroup_tcp_memory_bytes",
    "skmem_cgroup_tcp_receive_queue_bytes",
    "skmem_cgroup_sock_memory_bytes",
    "skmem_exporter_build_info",
    "skmem_exporter_capability",
    "skmem_sample_timestamp_seconds",
    "skmem_sample_duration_seconds",
    "skmem_sample_sockets",
    "skmem_source_success",
    "skmem_source_errors_total",
    "skmem_sample_overruns_total",
    "skmem_network_namespaces",
    "skmem_processes_truncated",
    "skmem_unreadable_processes",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

fn metric(name: &str) -> &'static Metric {
    catalog::all().find(|metric| metric.name == name).expect("a metric of the catalog")
}

fn snake_case(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.contains("__")
        && !name.ends_with('_')
}

#[test]
fn nothing_of_the_contract_is_missing() {
    let listed: BTreeSet<&str> = catalog::all().map(|metric| metric.name).collect();
    let missing: Vec<_> = CONTRACT.iter().filter(|name| !listed.contains(*name)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

#[test]
fn names_follow_the_rules() {
    let mut seen = BTreeSet::new();
    for Metric { name, kind, unit, .. } in catalog::all() {
        assert!(seen.insert(name), "{name} is listed twice");
        assert!(name.starts_with("skmem_") || name.starts_with("process_"), "{name}: prefix");
        assert!(snake_case(name), "{name}: snake_case");
        assert_eq!(
            name.ends_with("_total"),
            *kind == Kind::Counter,
            "{name}: _total is for counters, all of them"
        );
        assert_eq!(
            name.ends_with("_info"),
            *kind == Kind::Info,
            "{name}: _info is for info metrics, all of them"
        );
        let base = name.strip_suffix("_total").unwrap_or(name);
        assert!(base.ends_with(unit.suffix()), "{name}: its unit is the end of its name");
        if *unit == Unit::None {
            assert!(!base.contains("bytes") && !base.contains("seconds"), "{name}: it has a unit");
        }
        for reserved in ["_count", "_sum", "_bucket", "_created", "_total_total", "_gcount", "_gsum"] {
            assert!(!name.ends_with(reserved), "{name}: {reserved} is reserved");
        }
        for unit in
            ["_kb", "_mb", "_ms", "_pages", "_percent", "_ratio", "_gauge", "_counter", "_milliseconds"]
        {
            assert!(!name.contains(unit), "{name}: {unit}");
        }
    }
}

#[test]
fn no_family_can_be_taken_for_another() {
    // In OpenMetrics a counter's family has no `_total`: then it must not be the name of a gauge.
    let families: BTreeSet<String> =
        catalog::all().map(|metric| format!("{}{}", metric.stem(), metric.unit.suffix())).collect();
    assert_eq!(families.len(), catalog::all().count());
}

#[test]
fn help_is_one_plain_sentence_without_its_full_stop() {
    let mut seen = BTreeSet::new();
    for Metric { name, help, .. } in catalog::all() {
        assert!(!help.is_empty() && seen.insert(help), "{name}: its own help");
        assert!(!help.contains(['\\', '\n', '"']) && help.is_ascii(), "{name}: nothing to escape");
        assert!(!help.contains("  ") && help.trim() == *help, "{name}: spaces");
        assert!(
            !help.ends_with(['.', ';', ':', ',']) && !help.contains(". "),
            "{name}: one sentence, no full stop"
        );
    }
}

#[test]
fn help_names_the_kernels_fields() {
    let drops = metric("skmem_tcp_receive_drops_total").help;
    assert!(DropReason::ALL.iter().all(|(_, field)| drops.contains(field)), "{drops}");
    let windows = metric("skmem_tcp_zero_window_transitions_total").help;
    assert!(ZERO_WINDOW_DIRECTIONS.iter().all(|(_, field)| windows.contains(field)), "{windows}");

    let of_the_kernel = ["/proc/", "sock_diag", "memory.stat"];
    let of_the_exporter = ["skmem_exporter_", "skmem_sample_", "skmem_source_", "skmem_processes_truncated"];
    for Metric { name, help, .. } in catalog::all() {
        let own = of_the_exporter.iter().any(|prefix| name.starts_with(prefix));
        assert!(own || of_the_kernel.iter().any(|source| help.contains(source)), "{name}: where is it from");
    }
}

#[test]
fn labels_follow_the_rules() {
    let usual = ["type", "instance", "job", "le", "quantile", "region", "zone", "cluster", "service", "env"];
    for Metric { name, labels, .. } in catalog::all() {
        let names: BTreeSet<_> = labels.iter().map(|label| label.name).collect();
        assert_eq!(names.len(), labels.len(), "{name}: a label twice");
        for label in *labels {
            assert!(snake_case(label.name) && !usual.contains(&label.name), "{name}: {}", label.name);
            match label.values {
                Values::Open(description) => assert!(!description.is_empty(), "{name}: {}", label.name),
                Values::Closed(values) => {
                    let (all, distinct) = (values(), BTreeSet::from_iter(values()));
                    assert!(!all.is_empty() && all.len() == distinct.len(), "{name}: {}", label.name);
                    assert!(all.iter().all(|value| snake_case(value)), "{name}: {all:?}");
                }
            }
        }
    }
}

#[test]
fn a_host_that_has_everything_shows_everything() {
    let (exposed, numbers) = fixture::everything();
    let families = families(&exposed);
    let shown: Vec<_> = families.iter().map(|family| family.metric.name).collect();
    let listed: Vec<_> = catalog::all().map(|metric| metric.name).collect();
    assert_eq!(shown, listed, "these metrics, all of them, in this order");

    let mut found = BTreeMap::<u64, usize>::new();
    for point in families.iter().flat_map(|family| &family.points) {
        let number = match point.number {
            Number::Unsigned(number) => number,
            Number::Signed(number) => number.try_into().unwrap(),
            Number::Float(number) => format!("{number}").parse().unwrap(),
        };
        *found.entry(number).or_default() += 1;
    }
    for number in numbers.all() {
        assert_eq!(found.get(&number), Some(&1), "figure {number} is served once");
    }
}

#[test]
fn what_is_not_known_is_absent() {
    let listed: BTreeSet<_> = families(&fixture::nothing()).iter().map(|family| family.metric.name).collect();
    let always = [
        "skmem_exporter_build_info",
        "skmem_exporter_capability",
        "skmem_sample_duration_seconds",
        "skmem_source_success",
        "skmem_source_errors_total",
        "skmem_sample_overruns_total",
        "skmem_network_namespaces",
        "skmem_exporter_http_refused_total",
        "skmem_suspect_queries_total",
    ];
    assert_eq!(listed, BTreeSet::from(always));

    // A count that could not be read takes no other with it.
    let mut exposed = fixture::everything().0;
    exposed.host.time_wait_sockets = None;
    let families = families(&exposed);
    let sockets = families.iter().find(|family| family.metric.name == "skmem_tcp_sockets").unwrap();
    assert_eq!(sockets.points.len(), 10);
    assert!(sockets.points.iter().all(|point| point.labels[0] != "time_wait"));
}

#[test]
fn closed_labels_are_complete() {
    for exposed in [fixture::everything().0, fixture::busy(), fixture::nothing()] {
        for family in families(&exposed) {
            complete(&family);
        }
    }
}

/// For each row, every combination of the closed labels, once.
fn complete(family: &skmem_exporter::metrics::Family<'_>) {
    let mut combinations = vec![Vec::new()];
    let mut closed = Vec::new();
    for label in family.metric.labels {
        let values = match label.values {
            Values::Closed(values) => values(),
            Values::Open(_) => Vec::new(),
        };
        closed.push(!values.is_empty());
        if !values.is_empty() {
            combinations = combinations
                .iter()
                .flat_map(|start| values.iter().map(move |value| [start.as_slice(), &[*value]].concat()))
                .collect();
        }
    }
    let mut rows = BTreeMap::<Vec<&str>, Vec<Vec<&str>>>::new();
    for point in &family.points {
        let pick = |wanted: bool| {
            let labels = point.labels.iter().zip(&closed).filter(move |(_, closed)| **closed == wanted);
            labels.map(|(value, _)| value.as_ref()).collect::<Vec<&str>>()
        };
        rows.entry(pick(false)).or_default().push(pick(true));
    }
    for (row, found) in rows {
        assert_eq!(found, combinations, "{} {row:?}", family.metric.name);
    }
}

#[test]
fn the_rest_is_one_row() {
    let exposed: Exposed = fixture::everything().0;
    let text = render(&exposed, Format::Classic);
    let read = exposition::classic(&text).unwrap();
    let rows = |name: &str| -> Vec<Vec<String>> {
        let family = read.iter().find(|family| family.name == name).unwrap();
        let labels = family.series.iter().map(|series| &series.labels);
        labels.map(|labels| labels.iter().map(|(_, value)| value.clone()).collect()).collect()
    };
    assert_eq!(rows("skmem_process_tcp_memory_bytes"), [["1", "systemd"], ["other", "other"]]);
    assert_eq!(rows("skmem_process_resident_memory_bytes"), [["1", "systemd"]]);
    assert_eq!(rows("skmem_cgroup_tcp_memory_bytes"), [["/init.scope"], ["other"]]);
}

#[test]
fn no_metric_is_named_outside_the_catalog() {
    fn sources(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).expect("list the sources") {
            let path = entry.expect("list the sources").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&src, &mut found);
    let in_catalog = |path: &Path| path.starts_with(src.join("metrics/catalog"));
    assert!(found.iter().any(|path| in_catalog(path)));
    for path in found.iter().filter(|path| !in_catalog(path)) {
        let text = std::fs::read_to_string(path).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let named = catalog::all().find(|metric| line.contains(&format!("\"{}", metric.name)));
            assert!(named.is_none(), "{}: take the name from the catalog: {line}", path.display());
        }
    }
}

#[test]
fn the_reference_is_up_to_date() {
    golden::check("docs/metrics.md", &reference::page());
}
