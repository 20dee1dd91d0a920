//! A recorded host: a procfs tree and the answers of sock_diag, read by the real code.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use skmem_exporter::kernel::diag::{Answers, Dump, Entry, Fate, Progress, Query, SockDiag};
use skmem_exporter::kernel::error::Error;
use skmem_exporter::kernel::{Kernel, Reading, Scope};
use skmem_exporter::report::{Context, Mode};
use skmem_exporter::sample::{Exposed, Sample};
use skmem_exporter::sampler::Publication;

const HOST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/host");

/// Plays back recorded answers.
#[derive(Debug)]
pub struct Recorded;

impl SockDiag for Recorded {
    fn dump(&mut self, query: Query, _: Instant, each: &mut dyn FnMut(&Entry)) -> Result<(), Error> {
        let file = match query {
            // The recording is of a namespace with connections: as it has more sockets than listeners, this changes nothing.
            Query::Listeners => return Ok(()),
            Query::Tcp | Query::TcpAndBound => "tcp.hex",
            Query::MptcpV4 => "mptcp_ipv4.hex",
            Query::MptcpV6 => "mptcp_ipv6.hex",
        };
        let dump = Dump::new(query, 1);
        match dump.datagram(&bytes(file), each)? {
            Progress::Done => Ok(()),
            Progress::More => Err(dump.incomplete("end of recording")),
        }
    }

    /// A recording answers no questions.
    fn ask(&mut self, suspects: Vec<Entry>, _: Instant) -> Answers {
        vec![Fate::Skipped; suspects.len()]
    }
}

/// Reads annotated hex: bytes, and from `#` on a comment.
fn bytes(file: &str) -> Vec<u8> {
    let text = fs::read_to_string(Path::new(HOST).join(file)).expect("a recording");
    text.lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_ascii_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte in hex"))
        .collect()
}

/// Two rounds over the recorded host; the second has nothing new to find.
pub fn readings() -> [Reading; 2] {
    let scope = Scope {
        procfs: &Path::new(HOST).join("proc"),
        cgroupfs: Path::new("/nonexistent"),
        all_namespaces: false,
        row_min_memory: 8192,
        rows_max: 50,
        stall_after: Duration::from_secs(30),
        reads_ahead: false,
        deadline: Duration::from_mins(1),
    };
    let mut kernel = Kernel::with_diag(&scope, Recorded);
    [kernel.sample(), kernel.sample()]
}

fn context() -> Context {
    Context {
        mode: Mode::Daemon,
        hostname: "recorded".to_owned(),
        interval: Duration::from_secs(15),
        stall_after: Duration::from_secs(30),
        missing: Vec::new(),
    }
}

/// What is exposed of it, with what differs from run to run held fast.
pub fn exposed() -> Exposed {
    let [first, _] = readings();
    let mut publication = Publication::new(context());
    publication.absorb(first, 0);
    let mut exposed = publication.exposed().clone();
    exposed.exporter.stages = Default::default();
    exposed.exporter.process = None;
    exposed.exporter.capabilities = Default::default();
    let sample = exposed.sample.take().expect("the recording is complete");
    exposed.sample = Some(std::sync::Arc::new(Sample { timestamp: 1_700_000_000.5, ..(*sample).clone() }));
    exposed
}
