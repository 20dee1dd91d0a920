//! Whatever a host's names and numbers are, both formats say the same, and what was meant.

#[path = "support/metrics/mod.rs"]
#[allow(dead_code)]
mod support;

use std::sync::Arc;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use skmem_exporter::metrics::catalog::Kind;
use skmem_exporter::metrics::{self, Format, Number, families, render};
use skmem_exporter::sample::{
    CauseSums, CgroupRow, Exposed, OTHER, ProcessInfo, ProcessName, ProcessRow, Sample, SocketSums, Worst,
};
use support::exposition::{self, Family, Series};
use support::fixture;

/// Names a process or a path can have: anything but NUL, and often what the formats give a meaning to.
fn name() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        3 => prop::sample::select(vec!['"', '\\', '\n', 'n', '{', '}', ',', '=', '#', ' ', '\r', '\t', '1', '\u{85}', '\u{2028}']),
        1 => any::<char>().prop_filter("no file or process name has a NUL", |c| *c != '\0'),
    ];
    vec(character, 0..24).prop_map(String::from_iter)
}

prop_compose! {
    fn info()(exe in name(), cgroup in name(), systemd_unit in name(), container_id in name(), pod_uid in name())
        -> ProcessInfo
    {
        ProcessInfo { exe, cgroup, systemd_unit, container_id, pod_uid }
    }
}

prop_compose! {
    fn sums()(
        (memory, accept_queue_memory) in any::<(i64, i64)>(),
        (receive_memory, send_memory, receive_queue, send_queue) in any::<(u64, u64, u64, u64)>(),
        (receive_queue_max, accept_queue_connections, sockets) in any::<(u64, u64, [u64; 5])>(),
        by_cause in any::<[i64; 10]>(),
    ) -> SocketSums {
        SocketSums {
            memory, receive_memory, send_memory, receive_queue, send_queue, receive_queue_max, sockets,
            accept_queue_connections, accept_queue_memory,
            by_cause: by_cause.map(|memory| CauseSums { memory, ..CauseSums::default() }),
        }
    }
}

prop_compose! {
    fn process(pid: u32)(
        comm in name(),
        sums in sums(),
        (stall_start, resident_memory) in (option::of(proptest::num::f64::ANY), any::<Option<u64>>()),
        info in option::of(info()),
    ) -> ProcessRow {
        ProcessRow {
            name: ProcessName::One { pid, comm },
            sums,
            stall_start,
            resident_memory,
            info,
            worst: Worst::default(),
            activity: None,
        }
    }
}

prop_compose! {
    fn cgroup(path: String)(memory in any::<i64>(), receive_queue in any::<u64>(), sock_memory in any::<Option<u64>>())
        -> CgroupRow
    {
        CgroupRow { path: format!("/{path}"), memory, receive_queue, sock_memory }
    }
}

prop_compose! {
    fn sample()(
        processes in btree_set(any::<u32>(), 0..6).prop_flat_map(|pids| pids.into_iter().map(process).collect::<Vec<_>>()),
        other in sums(),
        cgroups in btree_set(name(), 0..6).prop_flat_map(|paths| paths.into_iter().map(cgroup).collect::<Vec<_>>()),
        other_cgroup in cgroup(String::new()),
        (unattributed, unattributed_bound) in any::<(Option<i64>, Option<u64>)>(),
        (timestamp, attributed) in (proptest::num::f64::ANY, any::<[i64; 4]>()),
        (sockets, states) in any::<(u64, [u64; 11])>(),
    ) -> Sample {
        let other =
            ProcessRow {
                name: ProcessName::Other,
                sums: other,
                stall_start: None,
                resident_memory: None,
                info: None,
                worst: Worst::default(),
                activity: None,
            };
        let other_cgroup = CgroupRow { path: OTHER.into(), ..other_cgroup };
        Sample {
            timestamp,
            sockets,
            states,
            attributed,
            unattributed,
            unattributed_bound,
            processes: processes.into_iter().chain([other]).collect(),
            processes_truncated: sockets,
            cgroups: cgroups.into_iter().chain([other_cgroup]).collect(),
            unreadable_processes: sockets,
            ..Sample::default()
        }
    }
}

prop_compose! {
    fn exposed()(
        sample in option::weighted(0.9, sample()),
        cpu in proptest::num::f64::ANY,
        (tcp_memory, time_wait, scaling, overruns) in any::<(Option<u64>, Option<u64>, Option<bool>, u64)>(),
    ) -> Exposed {
        let mut exposed = fixture::everything().0;
        exposed.host.tcp_memory = tcp_memory;
        exposed.host.time_wait_sockets = time_wait;
        exposed.host.window_scaling = scaling;
        exposed.exporter.overruns = overruns;
        if let Some(process) = &mut exposed.exporter.process {
            process.cpu_seconds = cpu;
        }
        exposed.sample = sample.map(Arc::new);
        exposed
    }
}

/// Whether `value` says `number`: integers to the last digit, others to the last bit.
fn says(value: &str, number: Number) -> bool {
    match number {
        Number::Unsigned(number) => value == number.to_string(),
        Number::Signed(number) => value == number.to_string(),
        Number::Float(number) => exposition::number(value)
            .is_some_and(|read| read.to_bits() == number.to_bits() || (read.is_nan() && number.is_nan())),
    }
}

/// Whether `read` is what was meant.
fn agree(read: &[Series], meant: &metrics::Family<'_>) -> bool {
    read.len() == meant.points.len()
        && read.iter().zip(&meant.points).all(|(read, meant_point)| {
            let names = meant.metric.labels.iter().map(|label| label.name);
            read.name == meant.metric.name
                && meant_point.labels.len() == meant.metric.labels.len()
                && read
                    .labels
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .eq(names.zip(meant_point.labels.iter().map(AsRef::as_ref)))
                && says(&read.value, meant_point.number)
        })
}

fn check(exposed: &Exposed) -> Result<(), TestCaseError> {
    let meant = families(exposed);
    let classic = render(exposed, Format::Classic);
    let openmetrics = render(exposed, Format::OpenMetrics);
    prop_assert_eq!(&openmetrics, &render(exposed, Format::OpenMetrics), "not always the same");
    prop_assert_eq!(&classic, &render(exposed, Format::Classic), "not always the same");

    let classic = exposition::classic(&classic).map_err(TestCaseError::fail)?;
    let openmetrics = exposition::openmetrics(&openmetrics).map_err(TestCaseError::fail)?;
    prop_assert_eq!(classic.len(), meant.len());
    prop_assert_eq!(openmetrics.len(), meant.len());
    for ((classic, openmetrics), meant) in classic.iter().zip(&openmetrics).zip(&meant) {
        let metric = meant.metric;
        prop_assert_eq!(described(classic), (metric.name, metric.help, metric.kind.type_name(), None));
        let family = match metric.kind {
            Kind::Counter => metric.name.strip_suffix("_total").unwrap_or_default(),
            Kind::Gauge | Kind::Info => metric.name,
        };
        let unit = metric.unit.suffix().strip_prefix('_');
        prop_assert_eq!(described(openmetrics), (family, metric.help, metric.kind.type_name(), unit));
        prop_assert!(agree(&classic.series, meant), "classic: {:?}\nmeant: {:?}", classic, meant);
        prop_assert!(agree(&openmetrics.series, meant), "openmetrics: {:?}\nmeant: {:?}", openmetrics, meant);
    }
    Ok(())
}

fn described(family: &Family) -> (&str, &str, &str, Option<&str>) {
    (&family.name, &family.help, &family.kind, family.unit.as_deref())
}

proptest! {
    #[test]
    fn both_formats_say_what_was_meant(exposed in exposed()) {
        check(&exposed)?;
    }

    #[test]
    fn names_come_back_as_they_were(exposed in exposed()) {
        let Some(sample) = &exposed.sample else { return Ok(()) };
        let meant: Vec<(String, String)> = sample.processes.iter().map(|row| match &row.name {
            ProcessName::One { pid, comm } => (pid.to_string(), comm.clone()),
            ProcessName::Other => ("other".to_owned(), "other".to_owned()),
        }).collect();
        let read = exposition::classic(&render(&exposed, Format::Classic)).map_err(TestCaseError::fail)?;
        let family = read.iter().find(|family| family.name == "skmem_process_tcp_memory_bytes");
        let read: Vec<(String, String)> = family.into_iter().flat_map(|family| &family.series).map(|series| {
            (series.labels[0].1.clone(), series.labels[1].1.clone())
        }).collect();
        prop_assert_eq!(read, meant);
    }
}

#[test]
fn the_fixtures_as_well() {
    for exposed in [fixture::busy(), fixture::everything().0, fixture::nothing()] {
        check(&exposed).unwrap();
    }
}
