//! The exporter itself.

use super::super::BUILD;
use super::{Choice, Group, Kind, Label, Metric, Unit};
use crate::sample::{Capability, NamespaceCounts, Reason, Refusal, Source, Stage, SuspectCounts};

/// The label values of the namespaces' counts, and the figure each stands for.
const NAMESPACE_OUTCOMES: [Choice<NamespaceCounts>; 2] =
    [("sampled", |counts| counts.sampled), ("failed", |counts| counts.failed)];

/// The label values of the suspects' counts, and the figure each stands for.
const SUSPECT_OUTCOMES: [Choice<SuspectCounts>; 5] = [
    ("answered", |counts| counts.answered),
    ("vanished", |counts| counts.vanished),
    ("timed_out", |counts| counts.timed_out),
    ("skipped", |counts| counts.skipped),
    ("failed", |counts| counts.failed),
];

const SOURCE: Label = Label::closed("source", || Source::ALL.map(Source::label).to_vec());

pub(super) const GROUP: Group = Group {
    title: "The exporter itself",
    about: "How old the sample is, whether it is whole, and what it costs.",
    metrics: &[
        Metric {
            name: "skmem_exporter_build_info",
            kind: Kind::Info,
            unit: Unit::None,
            labels: &[
                Label::open("version", "version of the exporter"),
                Label::open("revision", "commit it was built from, or `unknown`"),
                Label::open("rustc", "compiler it was built with, or `unknown`"),
            ],
            help: "What this exporter was built from; always 1",
            read: |_, out| {
                out.push([BUILD.version.into(), BUILD.revision.into(), BUILD.rustc.into()], 1_u64);
            },
        },
        Metric {
            name: "skmem_exporter_capability",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[Label::closed("capability", || Capability::ALL.map(Capability::label).to_vec())],
            help: "CapEff of /proc/self/status: 1 if the exporter has the capability; without one it sees less of \
                   the host",
            read: |exposed, out| {
                let names = Capability::ALL.map(Capability::label);
                out.each(names.into_iter().zip(exposed.exporter.capabilities));
            },
        },
        Metric {
            name: "skmem_sample_timestamp_seconds",
            kind: Kind::Gauge,
            unit: Unit::Seconds,
            labels: &[],
            help: "When the sockets of the newest complete sample were read, seconds since the epoch; taken on the \
                   daemon's own interval, not when scraped",
            read: |exposed, out| out.one(exposed.sample.as_ref().map(|sample| sample.timestamp)),
        },
        Metric {
            name: "skmem_sample_duration_seconds",
            kind: Kind::Gauge,
            unit: Unit::Seconds,
            labels: &[Label::closed("stage", || Stage::ALL.map(Stage::label).to_vec())],
            help: "How long each stage of the newest attempt took; total is the whole of it and not to be summed with \
                   the others",
            read: |exposed, out| {
                let seconds = exposed.exporter.stages.map(|duration| duration.as_secs_f64());
                out.each(Stage::ALL.map(Stage::label).into_iter().zip(seconds));
            },
        },
        Metric {
            name: "skmem_sample_sockets",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "Sockets that sock_diag showed for the newest complete sample, in all sampled network namespaces",
            read: |exposed, out| out.one(exposed.sample.as_ref().map(|sample| sample.sockets)),
        },
        Metric {
            name: "skmem_source_success",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[SOURCE],
            help: "1 if the newest attempt read all of the source",
            read: |exposed, out| {
                let success = exposed.exporter.sources.map(|state| state.success);
                out.each(Source::ALL.map(Source::label).into_iter().zip(success));
            },
        },
        Metric {
            name: "skmem_source_errors_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[SOURCE, Label::closed("reason", || Reason::ALL.map(Reason::label).to_vec())],
            help: "Times a source could not be read, or not all of it, by what one can do about it",
            read: |exposed, out| {
                for (source, state) in Source::ALL.into_iter().zip(exposed.exporter.sources) {
                    for (reason, count) in Reason::ALL.into_iter().zip(state.errors) {
                        out.push([source.label().into(), reason.label().into()], count);
                    }
                }
            },
        },
        Metric {
            name: "skmem_suspect_queries_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[Label::closed("outcome", || SUSPECT_OUTCOMES.map(|(label, _)| label).to_vec())],
            help: "Sockets that held something for longer than one sample and were to be asked for tcp_info through \
                   sock_diag; one that did not answer counts as active",
            read: |exposed, out| {
                out.each(SUSPECT_OUTCOMES.map(|(label, read)| (label, read(&exposed.exporter.suspects))));
            },
        },
        Metric {
            name: "skmem_exporter_http_refused_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[Label::closed("reason", || Refusal::ALL.map(Refusal::label).to_vec())],
            help: "Connections and requests that the web server turned away, as of the newest attempt",
            read: |exposed, out| {
                out.each(Refusal::ALL.map(Refusal::label).into_iter().zip(exposed.exporter.refusals));
            },
        },
        Metric {
            name: "skmem_sample_overruns_total",
            kind: Kind::Counter,
            unit: Unit::None,
            labels: &[],
            help: "Times a sample was due while the one before was still running",
            read: |exposed, out| out.one(Some(exposed.exporter.overruns)),
        },
        Metric {
            name: "skmem_network_namespaces",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[Label::closed("outcome", || {
                NAMESPACE_OUTCOMES.iter().map(|(value, _)| *value).collect()
            })],
            help: "Network namespaces that the newest attempt found under /proc/PID/ns/net and among mounts, by \
                   whether they could be sampled",
            read: |exposed, out| {
                let counts = &exposed.exporter.namespaces;
                out.each(NAMESPACE_OUTCOMES.map(|(value, figure)| (value, figure(counts))));
            },
        },
        Metric {
            name: "skmem_processes_truncated",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "Processes that reached the threshold and have no row of their own because of the limit on rows",
            read: |exposed, out| out.one(exposed.sample.as_ref().map(|sample| sample.processes_truncated)),
        },
        Metric {
            name: "skmem_unreadable_processes",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "Processes whose /proc/PID/fd the exporter may not list; their sockets' owner is unresolved",
            read: |exposed, out| out.one(exposed.sample.as_ref().map(|sample| sample.unreadable_processes)),
        },
        Metric {
            name: "process_cpu_seconds_total",
            kind: Kind::Counter,
            unit: Unit::Seconds,
            labels: &[],
            help: "utime plus stime of /proc/self/stat: processor time of the exporter",
            read: |exposed, out| out.one(exposed.exporter.process.map(|process| process.cpu_seconds)),
        },
        Metric {
            name: "process_resident_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[],
            help: "rss of /proc/self/stat times the page size: resident memory of the exporter",
            read: |exposed, out| out.one(exposed.exporter.process.map(|process| process.resident_memory)),
        },
        Metric {
            name: "process_virtual_memory_bytes",
            kind: Kind::Gauge,
            unit: Unit::Bytes,
            labels: &[],
            help: "vsize of /proc/self/stat: virtual memory of the exporter",
            read: |exposed, out| out.one(exposed.exporter.process.map(|process| process.virtual_memory)),
        },
        Metric {
            name: "process_open_fds",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "Entries of /proc/self/fd: open file descriptors of the exporter",
            read: |exposed, out| out.one(exposed.exporter.process.map(|process| process.open_fds)),
        },
        Metric {
            name: "process_max_fds",
            kind: Kind::Gauge,
            unit: Unit::None,
            labels: &[],
            help: "Soft limit of open files in /proc/self/limits: how many file descriptors the exporter may open",
            read: |exposed, out| out.one(exposed.exporter.process.map(|process| process.max_fds)),
        },
        Metric {
            name: "process_start_time_seconds",
            kind: Kind::Gauge,
            unit: Unit::Seconds,
            labels: &[],
            help: "starttime of /proc/self/stat plus btime of /proc/stat: when the exporter started, seconds since \
                   the epoch",
            read: |exposed, out| out.one(exposed.exporter.process.map(|process| process.start_time)),
        },
    ],
};
