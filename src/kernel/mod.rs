//! The only room that touches the kernel. [`Kernel::sample`] reads the host once, from top to bottom:
//!
//! 1. sysctls and host counters, the list of processes, the network namespaces;
//! 2. owners: what came and went since the last round, everything in the first;
//! 3. a dump of every namespace's sockets, each counted for its owner as it streams by;
//! 4. owners of the few sockets that are new, and the rows.

pub mod activity;
pub mod cgroup_place;
pub mod cgroups;
pub mod confine;
pub mod diag;
pub mod error;
pub mod facts;
pub mod host;
pub mod myself;
pub mod netns;
pub mod outcome;
pub mod owners;
pub mod proc_root;
pub mod process;
mod round;
mod rows;
mod sweep;
pub mod text;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use hashbrown::HashSet;

use crate::account::{Account, Holder};
use crate::follow::Followed;
use crate::sample::{
    HostFigures, NamespaceCounts, OwnerClass, Sample, Source, Stage, StageDurations, SuspectCounts, TcpState,
    Unowned,
};
use diag::{Netlink, Query, SockDiag};
use error::Error;
use host::{HostCounters, NamespaceFigures};
use netns::Found;
use outcome::Outcomes;
use owners::Owners;
use proc_root::ProcRoot;
use round::{Clock, Finished, Round};
use rows::Rows;
use sweep::{BoundSearch, Sweep};

/// What to read and how much of it to show.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    /// Where procfs is.
    pub procfs: &'a Path,
    /// Where cgroup hierarchies are mounted.
    pub cgroupfs: &'a Path,
    /// Whether to read every network namespace, or the exporter's own only.
    pub all_namespaces: bool,
    /// A process or cgroup with less TCP memory has no row. Bytes.
    pub row_min_memory: u64,
    /// Rows of processes, and of cgroups, at most.
    pub rows_max: usize,
    /// From when on a socket that does not move counts as stalled.
    pub stall_after: Duration,
    /// Whether to read what processes do before their sockets have stood still for that long: for a watch that is too
    /// short to read it twice afterwards.
    pub reads_ahead: bool,
    /// How long a sample may take before it is given up.
    pub deadline: Duration,
}

/// What one attempt has read.
#[derive(Debug)]
pub struct Reading {
    /// The host's own figures, as far as they could be read.
    pub host: HostFigures,
    /// Every socket with its owner, or nothing if any of them may be missing.
    pub sample: Option<Sample>,
    /// What could not be read.
    pub outcomes: Outcomes,
    /// How long each stage took.
    pub stages: StageDurations,
    /// Namespaces found.
    pub namespaces: NamespaceCounts,
    /// Suspects asked.
    pub suspects: SuspectCounts,
}

/// The kernel of this host, with what is remembered of it between samples.
#[derive(Debug)]
pub struct Kernel<D = Netlink> {
    root: ProcRoot,
    all_namespaces: bool,
    deadline: Duration,
    page_size: u64,
    diag: D,
    stall_after: Duration,
    mptcp: &'static [Query],
    owners: Owners,
    followed: Followed,
    counters: HostCounters,
    rows: Rows,
    bound_search: BoundSearch,
    showed_bound: HashSet<u64>,
    turn: u64,
    started: Instant,
}

impl Kernel {
    /// The running kernel. It starts this program again to ask it: see [`Netlink::asking`].
    pub fn new(scope: &Scope<'_>) -> Self {
        Self::with_diag(scope, Netlink::asking())
    }
}

impl<D: SockDiag> Kernel<D> {
    /// A kernel whose sock_diag answers are `diag`'s.
    pub fn with_diag(scope: &Scope<'_>, diag: D) -> Self {
        let root = ProcRoot::new(scope.procfs);
        let page_size = rustix::param::page_size() as u64;
        Self {
            stall_after: scope.stall_after,
            mptcp: mptcp_queries(&root),
            owners: Owners::new(root.clone()),
            followed: Followed::default(),
            rows: Rows::new(root.clone(), page_size, scope),
            root,
            all_namespaces: scope.all_namespaces,
            deadline: scope.deadline,
            page_size,
            diag,
            counters: HostCounters::default(),
            // The first sample, dear enough, tells whether there is anything to look for.
            bound_search: BoundSearch::Nowhere,
            showed_bound: HashSet::new(),
            turn: 0,
            started: Instant::now(),
        }
    }

    /// Reads the host once. Blocks; the calling thread stays in its network namespace.
    pub fn sample(&mut self) -> Reading {
        let mut watch = Stopwatch::start();
        let deadline = watch.started + self.deadline;
        let mut outcomes = Outcomes::default();
        self.turn += 1;

        let mut host = host::host_figures(&self.root, self.page_size, &mut outcomes);
        watch.stop(Stage::Host);

        let pids = self.root.pids();
        let found = self.find_namespaces(pids.as_deref().unwrap_or_default(), &mut outcomes);
        watch.stop(Stage::Namespaces);

        let began = pids.and_then(|pids| self.owners.begin(&pids, deadline));
        watch.stop(Stage::Owners);

        let timestamp = unix_seconds(SystemTime::now());
        let clock = Clock { now: self.started.elapsed(), stall_after: self.stall_after };
        let mut round = Round::new(&mut self.owners, &mut self.followed, clock, self.mptcp);
        let mut sweep = Sweep {
            root: &self.root,
            diag: &mut self.diag,
            round: &mut round,
            search: self.bound_search,
            showed_bound: &self.showed_bound,
            turn: self.turn,
            deadline,
        };
        let swept = sweep.all(&found, &mut outcomes);
        let sockets_took = watch.stop(Stage::Sockets);

        let owned = began.and_then(|()| round.finish(sockets_took, deadline));
        watch.stop(Stage::Owners);

        self.fill_host(&mut host, &swept.figures, &found);
        let owned = outcomes.note(Source::Owners, owned);
        let suspects = owned.as_ref().map_or_else(SuspectCounts::default, |finished| finished.suspects);
        let sample = owned.filter(|_| swept.is_complete).map(|finished| {
            self.note_unreadable(&finished.account, &mut outcomes);
            let unhashed = host.hidden_sockets;
            let mut sample = self.compose(timestamp, &mut host, finished, &mut outcomes);
            sample.is_of_whole_host = self.all_namespaces && found.is_whole && swept.namespaces.failed == 0;
            self.bound_search = BoundSearch::after(unhashed, &sample);
            self.showed_bound = swept.showed_bound;
            sample
        });
        watch.stop(Stage::Rows);
        if sample.is_some() {
            self.owners.end();
            self.followed.end();
        }
        Reading { host, sample, outcomes, stages: watch.finish(), namespaces: swept.namespaces, suspects }
    }

    fn find_namespaces(&self, pids: &[u32], outcomes: &mut Outcomes) -> Found {
        if !self.all_namespaces {
            return Found::own();
        }
        let found = outcomes
            .note(Source::Namespaces, Found::all(&self.root, pids))
            .unwrap_or_else(|| Found { is_whole: false, ..Found::own() });
        // One refusal is a security module's; more refusals than answers is a missing capability.
        if found.denied > found.seen {
            let cure = "give CAP_SYS_PTRACE, or run with --netns own";
            let what = "network namespace";
            outcomes.failed(Source::Namespaces, Error::Denied { denied: found.denied, what, cure });
        }
        found
    }

    fn fill_host(&mut self, host: &mut HostFigures, figures: &[(u64, NamespaceFigures)], found: &Found) {
        if let Some(sockstat) = figures.first().and_then(|(_, own)| own.sockstat) {
            host::fill_from_sockstat(host, sockstat, self.page_size);
        }
        let exists = |inode| found.namespaces.iter().any(|namespace| namespace.inode == inode);
        if found.is_whole {
            self.counters.fill(host, figures, exists);
        }
        let hashed: Option<u64> = figures.iter().map(|(_, namespace)| namespace.inuse()).sum();
        host.hidden_sockets =
            host.sockets_allocated.zip(hashed).map(|(all, hashed)| all.saturating_sub(hashed));
    }

    /// A single process that refuses us (a security module's doing) matters only while much memory lacks an owner, which it
    /// may be. Where most refuse, a capability is missing.
    fn note_unreadable(&self, account: &Account, outcomes: &mut Outcomes) {
        let denied = self.owners.denied();
        let is_blind = denied > self.owners.processes() / 2;
        let lacks_owner = account.attributed[OwnerClass::Unresolved as usize] >= UNOWNED_MUCH;
        if denied > 0 && (is_blind || lacks_owner) {
            let cure = "give CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE";
            let what = "file descriptors";
            outcomes.failed(Source::Owners, Error::Denied { denied, what, cure });
        }
    }

    fn compose(
        &mut self,
        timestamp: f64,
        host: &mut HostFigures,
        finished: Finished,
        outcomes: &mut Outcomes,
    ) -> Sample {
        let Finished { account, mut worst, unasked, .. } = finished;
        // Bound but unhashed sockets are hidden from sockstat's inuse, not from the dump.
        let shown = account.states[TcpState::Close.index()];
        host.hidden_sockets = host.hidden_sockets.map(|hidden| hidden.saturating_sub(shown));
        let attributed = account.attributed;
        let memory = host.tcp_memory.and_then(|memory| i64::try_from(memory).ok());
        let bound = host::unattributed_bound(&self.root, self.page_size);
        let (processes, processes_truncated) =
            self.rows.processes(&account, &mut worst, &self.owners, self.started.elapsed(), timestamp);
        let cgroups = self.rows.cgroups(&account, self.started.elapsed(), outcomes);
        Sample {
            timestamp,
            is_of_whole_host: false,
            sockets: account.sockets,
            states: account.states,
            attributed,
            classes: account.classes,
            unowned: Unowned {
                orphans: worst.take(Holder::Orphans),
                unresolved: worst.take(Holder::Unresolved),
                unresolved_sums: account.unresolved,
            },
            unattributed: memory.map(|memory| memory - attributed.iter().sum::<i64>()),
            unattributed_bound: outcomes.note(Source::Sysctl, bound),
            processes,
            processes_truncated,
            cgroups,
            unreadable_processes: self.owners.denied(),
            unasked,
        }
    }
}

/// Memory without an owner that is worth an alarm: less than that is always on its way between processes somewhere.
const UNOWNED_MUCH: i64 = 1 << 20;

/// The first kernel that takes a dump's protocol from an attribute, which MPTCP's needs. Older ones either refuse the
/// attribute or ignore it and show raw sockets instead.
const MPTCP_DIAG_SINCE: (u32, u32) = (5, 9);

/// What to ask for MPTCP connections on this kernel.
fn mptcp_queries(root: &ProcRoot) -> &'static [Query] {
    let version = root.parse("sys/kernel/osrelease", |release| Ok(text::kernel_version(release)));
    let is_known = root.parse("self/net/protocols", |text| Ok(text::has_protocol(text, "MPTCP")));
    let is_new = version.ok().flatten().is_some_and(|version| version >= MPTCP_DIAG_SINCE);
    if is_new && is_known.unwrap_or(false) { &Query::MPTCP } else { &[] }
}

/// Times stages; a stage that is stopped twice gets both spans.
struct Stopwatch {
    started: Instant,
    lap: Instant,
    stages: StageDurations,
}

impl Stopwatch {
    fn start() -> Self {
        let now = Instant::now();
        Self { started: now, lap: now, stages: StageDurations::default() }
    }

    fn stop(&mut self, stage: Stage) -> Duration {
        let now = Instant::now();
        let span = now - self.lap;
        self.stages[stage as usize] += span;
        self.lap = now;
        span
    }

    fn finish(mut self) -> StageDurations {
        self.stages[Stage::Total as usize] = self.started.elapsed();
        self.stages
    }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
