//! `docs/metrics.md`, from the catalog.

use std::fmt::Write;

use skmem_exporter::metrics::catalog::{GROUPS, Group, Metric, Unit, Values};

const INTRO: &str = "\
# Metrics

<!-- Written from the catalog of metrics. To change it: change the catalog (src/metrics/catalog) or this page's frame
     (tests/support/metrics/reference.rs), then run: BLESS=1 cargo test --test metrics_catalog -->

All of them, in the order they are served, each with its type, its unit if it has one, and its labels: with their values
where these are known, else as described at the head of the group. The names are stable.

## How to read them

**Sampled on the daemon's own interval** (`--sample.interval`), not when scraped: a stall can only be seen between
evenly spaced samples, and the cost must not grow with the number of scrapers. Every scrape gets the newest complete
sample. `time() - skmem_sample_timestamp_seconds` is its age. The host's own figures are those of the newest attempt,
even if its sockets could not be read; then `skmem_source_success` says what failed and the timestamp stands still.

**Absent is not zero.** What cannot be read here has no series. Of what can be read, every known label value is present
from the start, at zero where nothing was counted.

**These sums hold** in every sample:

- `sum(skmem_tcp_attributed_memory_bytes) + skmem_tcp_unattributed_memory_bytes` is the `skmem_tcp_memory_bytes` of that
  sample. The unattributed part may be below zero: the kernel keeps up to
  `skmem_tcp_unattributed_memory_bound_bytes` in shares of its CPUs, and sockets change while they are read.
- `sum(skmem_process_tcp_memory_bytes)` is
  `sum(skmem_tcp_attributed_memory_bytes{owner=~\"process|accept_queue\"})`: the row `pid=\"other\"` holds all that has no
  row of its own.
- `skmem_process_tcp_memory_bytes` contains `skmem_process_tcp_accept_queue_memory_bytes`. It differs from receive plus
  send memory by what the kernel has set aside for the sockets and not used (fwd_alloc).

They hold within one sample only; while attempts fail, `skmem_tcp_memory_bytes` is newer than the rest.

**Join on the info metric** rather than carrying its labels everywhere:

```promql
skmem_process_tcp_memory_bytes
  * on (instance, pid, process) group_left (systemd_unit, container_id) skmem_process_info
```

The row `pid=\"other\"` has no info and drops out of the join.
";

/// The page.
pub(crate) fn page() -> String {
    let mut page = INTRO.to_owned();
    for group in &GROUPS {
        write_group(&mut page, group).expect("write to a String");
    }
    page
}

fn write_group(page: &mut String, group: &Group) -> std::fmt::Result {
    write!(page, "\n## {}\n\n{}\n", group.title, wrapped(group.about))?;
    let mut described = Vec::new();
    for label in group.metrics.iter().flat_map(|metric| metric.labels) {
        if let Values::Open(description) = label.values
            && !described.contains(&label.name)
        {
            if described.is_empty() {
                page.push_str("\n| label | value |\n|---|---|\n");
            }
            writeln!(page, "| `{}` | {description} |", label.name)?;
            described.push(label.name);
        }
    }
    group.metrics.iter().try_for_each(|metric| write_metric(page, metric))
}

fn write_metric(page: &mut String, metric: &Metric) -> std::fmt::Result {
    let mut facts = vec![metric.kind.type_name().to_owned()];
    match metric.unit {
        Unit::Bytes => facts.push("bytes".to_owned()),
        Unit::Seconds => facts.push("seconds".to_owned()),
        Unit::None => {}
    }
    for label in metric.labels {
        facts.push(match label.values {
            Values::Open(_) => format!("`{}`", label.name),
            Values::Closed(values) => {
                let values: Vec<_> = values().iter().map(|value| format!("`{value}`")).collect();
                format!("`{}`: {}", label.name, values.join(" "))
            }
        });
    }
    let facts = wrapped(&facts.join(" · "));
    write!(page, "\n### `{}`\n\n{facts}\n\n{}\n", metric.name, wrapped(&format!("{}.", metric.help)))
}

/// Filled to the width of the page.
fn wrapped(text: &str) -> String {
    let (mut page, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > 0 {
            let fits = column + 1 + width <= 120;
            page.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        page.push_str(word);
        column += width;
    }
    page
}
