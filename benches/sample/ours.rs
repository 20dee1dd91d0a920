//! Our own way, as the daemon goes it.

use std::time::{Duration, Instant};

use skmem_exporter::config::{self, Config, NetnsScope};
use skmem_exporter::kernel::diag::{Netlink, Query, SockDiag};
use skmem_exporter::kernel::{Kernel, Scope};
use skmem_exporter::sample::{ProcessName, ProcessRow, Source};
use skmem_exporter::sampler::SAMPLE_DEADLINE;

use crate::Result;
use crate::figures::{Row, Seen};

/// More than any dump takes.
const DUMP_DEADLINE: Duration = Duration::from_mins(1);

/// The receive loop alone: the same dump as the bare one, decoded, with its memory added up.
pub fn receive_loop(diag: &mut Netlink) -> Result<Seen> {
    let mut seen = Seen::default();
    diag.dump(Query::Tcp, Instant::now() + DUMP_DEADLINE, &mut |entry| {
        seen.sockets += 1;
        seen.memory += entry.socket.memory();
    })?;
    Ok(seen)
}

/// A kernel with the settings that the daemon has by default; it knows nothing yet.
pub fn kernel() -> Result<Kernel> {
    let Config { procfs, cgroupfs, netns, process_min_memory, process_max, .. } =
        config::load(Vec::new(), std::iter::empty()).map_err(|problems| problems.to_string())?.config;
    Ok(Kernel::new(&Scope {
        procfs: &procfs,
        cgroupfs: &cgroupfs,
        all_namespaces: netns == NetnsScope::All,
        row_min_memory: process_min_memory,
        rows_max: process_max,
        stall_after: Duration::from_secs(30),
        reads_ahead: false,
        deadline: SAMPLE_DEADLINE,
    }))
}

/// One sample.
pub fn sample(kernel: &mut Kernel) -> Result<Seen> {
    let reading = kernel.sample();
    let Some(sample) = reading.sample else {
        let errors = Source::ALL.iter().filter_map(|source| reading.outcomes.first(*source));
        let errors: Vec<String> = errors.map(ToString::to_string).collect();
        return Err(format!("no complete sample: {}", errors.join("; ")).into());
    };
    Ok(Seen {
        sockets: sample.sockets,
        memory: sample.attributed.iter().sum(),
        rows: sample.processes.iter().filter_map(row).collect(),
    })
}

fn row(row: &ProcessRow) -> Option<Row> {
    let ProcessName::One { pid, .. } = &row.name else { return None };
    Some(Row { pid: *pid, sockets: row.sums.sockets.iter().sum(), memory: row.sums.memory })
}
