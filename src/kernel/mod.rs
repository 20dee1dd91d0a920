//! The only room that touches the kernel. [`Kernel::sample`] reads the host once, from top to bottom:
//!
//! 1. sysctls and host counters, the list of processes, the network namespaces;
//! 2. owners: what came and went since the last round, everything in the first;
//! 3. a dump of every namespace's sockets, each counted for its owner as it streams by;
//! 4. owners of the few sockets that are new, and the rows.

pub mod cgroups;
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
pub mod text;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::account::Account;
use crate::follow::Followed;
use crate::sample::{
    HostFigures, NamespaceCounts, OwnerClass, Sample, Source, Stage, StageDurations, SuspectCounts, TcpState,
};
use cgroups::Cgroups;
use diag::{Netlink, SockDiag};
use error::Error;
use host::{HostCounters, NamespaceFigures};
use netns::{Found, Namespace, NotEntered};
use outcome::Outcomes;
use owners::Owners;
use proc_root::ProcRoot;
use round::{Clock, Round};
use rows::Rows;

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
    owners: Owners,
    followed: Followed,
    counters: HostCounters,
    rows: Rows,
    /// Whether sockets exist that are not hashed, as far as the sample before knows. Only then can a dump of bound sockets
    /// show any.
    has_unhashed: bool,
    started: Instant,
}

impl Kernel {
    /// The running kernel.
    pub fn new(scope: &Scope<'_>) -> Self {
        Self::with_diag(scope, Netlink::default())
    }
}

impl<D: SockDiag> Kernel<D> {
    /// A kernel whose sock_diag answers are `diag`'s.
    pub fn with_diag(scope: &Scope<'_>, diag: D) -> Self {
        let root = ProcRoot::new(scope.procfs);
        let page_size = rustix::param::page_size() as u64;
        Self {
            stall_after: scope.stall_after,
            owners: Owners::new(root.clone()),
            followed: Followed::default(),
            rows: Rows::new(
                root.clone(),
                Cgroups::new(scope.cgroupfs),
                page_size,
                scope.row_min_memory,
                scope.rows_max,
            ),
            root,
            all_namespaces: scope.all_namespaces,
            deadline: scope.deadline,
            page_size,
            diag,
            counters: HostCounters::default(),
            has_unhashed: true,
            started: Instant::now(),
        }
    }

    /// Reads the host once. Blocks; the calling thread stays in its network namespace.
    pub fn sample(&mut self) -> Reading {
        let mut watch = Stopwatch::start();
        let deadline = watch.started + self.deadline;
        let mut outcomes = Outcomes::default();

        let mut host = host::host_figures(&self.root, self.page_size, &mut outcomes);
        watch.stop(Stage::Host);

        let pids = self.root.pids();
        let found = self.find_namespaces(pids.as_deref().unwrap_or_default(), &mut outcomes);
        watch.stop(Stage::Namespaces);

        let began = pids.and_then(|pids| self.owners.begin(&pids, deadline));
        watch.stop(Stage::Owners);

        let timestamp = unix_seconds(SystemTime::now());
        let clock = Clock { now: self.started.elapsed(), stall_after: self.stall_after };
        let mut round = Round::new(&mut self.owners, &mut self.followed, clock, self.has_unhashed);
        let own_inode = found.namespaces.first().map_or(0, |own| own.inode);
        let own = Self::read_own(&self.root, &mut self.diag, own_inode, deadline, &mut round, &mut outcomes);
        let foreign =
            Self::read_foreign(&self.root, &mut self.diag, &found, deadline, &mut round, &mut outcomes);
        let sockets_took = watch.stop(Stage::Sockets);

        let owned = began.and_then(|()| round.finish(sockets_took, deadline));
        watch.stop(Stage::Owners);

        let mut figures = vec![(own_inode, own.figures)];
        figures.extend(foreign.figures);
        self.fill_host(&mut host, &figures, &found);
        let namespaces = NamespaceCounts {
            sampled: u64::from(own.complete) + foreign.sampled,
            failed: u64::from(!own.complete) + foreign.failed,
        };
        let owned = outcomes.note(Source::Owners, owned);
        let suspects = owned.as_ref().map_or_else(SuspectCounts::default, |(_, suspects)| *suspects);
        let account = owned.map(|(account, _)| account).filter(|_| own.complete && foreign.complete);
        self.note_unhashed(&host, account.as_ref());
        let sample = account.map(|account| {
            self.note_unreadable(&account, &mut outcomes);
            self.compose(timestamp, &mut host, &account, &mut outcomes)
        });
        watch.stop(Stage::Rows);
        if sample.is_some() {
            self.owners.end();
            self.followed.end();
        }
        Reading { host, sample, outcomes, stages: watch.finish(), namespaces, suspects }
    }

    fn find_namespaces(&self, pids: &[u32], outcomes: &mut Outcomes) -> Found {
        if !self.all_namespaces {
            return Found::own();
        }
        let found =
            outcomes.note(Source::Namespaces, Found::all(&self.root, pids)).unwrap_or_else(Found::own);
        // One refusal is a security module's; more refusals than answers is a missing capability.
        if found.denied > found.seen {
            let cure = "give CAP_SYS_PTRACE, or run with --netns own";
            let what = "network namespace";
            outcomes.failed(Source::Namespaces, Error::Denied { denied: found.denied, what, cure });
        }
        found
    }

    /// The exporter's own namespace, on the calling thread. The memory counter is read right before the dump that it
    /// is compared with.
    fn read_own(
        root: &ProcRoot,
        diag: &mut D,
        inode: u64,
        deadline: Instant,
        round: &mut Round<'_>,
        outcomes: &mut Outcomes,
    ) -> Own {
        let figures = NamespaceFigures::read(root, "self/net", outcomes);
        let dumped = round.dump_namespace(diag, inode, figures.inuse(), deadline);
        Own { figures, complete: outcomes.note(Source::SockDiag, dumped).is_some() }
    }

    /// All other namespaces, on a thread that ends with the round: it never has to find its way back, and nothing it
    /// opened outlives it.
    fn read_foreign(
        root: &ProcRoot,
        diag: &mut D,
        found: &Found,
        deadline: Instant,
        round: &mut Round<'_>,
        outcomes: &mut Outcomes,
    ) -> Foreign {
        let namespaces = found.namespaces.get(1..).unwrap_or_default();
        if namespaces.is_empty() {
            return Foreign { complete: true, ..Foreign::default() };
        }
        let read = || {
            let (mut foreign, mut outcomes) =
                (Foreign { complete: true, ..Foreign::default() }, Outcomes::default());
            for namespace in namespaces {
                Self::read_namespace(root, diag, namespace, deadline, round, &mut foreign, &mut outcomes);
            }
            (foreign, outcomes)
        };
        let (foreign, more) = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, read)
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
        .unwrap_or_else(|source| {
            let mut outcomes = Outcomes::default();
            outcomes.failed(Source::Namespaces, Error::Call { call: "clone(netns thread)", source });
            (Foreign { failed: namespaces.len() as u64, ..Foreign::default() }, outcomes)
        });
        outcomes.extend(more);
        foreign
    }

    fn read_namespace(
        root: &ProcRoot,
        diag: &mut D,
        namespace: &Namespace,
        deadline: Instant,
        round: &mut Round<'_>,
        foreign: &mut Foreign,
        outcomes: &mut Outcomes,
    ) {
        match netns::enter(root, namespace) {
            Ok(()) => {
                let figures = NamespaceFigures::read(root, "thread-self/net", outcomes);
                foreign.figures.push((namespace.inode, figures));
                let dumped = round.dump_namespace(diag, namespace.inode, figures.inuse(), deadline);
                if outcomes.note(Source::SockDiag, dumped).is_some() {
                    foreign.sampled += 1;
                } else {
                    foreign.complete = false;
                    foreign.failed += 1;
                }
            }
            Err(NotEntered::Vanished) => {}
            Err(NotEntered::Failed(error)) => {
                foreign.failed += 1;
                outcomes.failed(Source::Namespaces, error);
                // Its counters need no privilege where a process shows them.
                if let netns::Handle::Process(pid) = namespace.handle {
                    let mut unnoted = Outcomes::default();
                    let figures = NamespaceFigures::read(root, &format!("{pid}/net"), &mut unnoted);
                    foreign.figures.push((namespace.inode, figures));
                }
            }
        }
    }

    fn fill_host(&mut self, host: &mut HostFigures, figures: &[(u64, NamespaceFigures)], found: &Found) {
        if let Some(sockstat) = figures.first().and_then(|(_, own)| own.sockstat) {
            host::fill_from_sockstat(host, sockstat, self.page_size);
        }
        let exists = |inode| found.namespaces.iter().any(|namespace| namespace.inode == inode);
        self.counters.fill(host, figures, exists);
        let hashed: Option<u64> = figures.iter().map(|(_, namespace)| namespace.inuse()).sum();
        host.hidden_sockets =
            host.sockets_allocated.zip(hashed).map(|(all, hashed)| all.saturating_sub(hashed));
    }

    /// Whether the next round asks for bound sockets. The counters are not read in one instant, so sockets that were shown
    /// count as much as those missing from the tables: they must not come and go with the host's churn.
    fn note_unhashed(&mut self, host: &HostFigures, account: Option<&Account>) {
        let any_shown =
            account.map_or(self.has_unhashed, |account| account.states[TcpState::Close.index()] > 0);
        self.has_unhashed = any_shown || host.hidden_sockets != Some(0);
    }

    /// A single process that refuses us (a security module's doing) matters only while memory lacks an owner, which it
    /// may be. Where most refuse, a capability is missing.
    fn note_unreadable(&self, account: &Account, outcomes: &mut Outcomes) {
        let denied = self.owners.denied();
        let is_blind = denied > self.owners.processes() / 2;
        let lacks_owner = account.attributed[OwnerClass::Unresolved as usize] > 0;
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
        account: &Account,
        outcomes: &mut Outcomes,
    ) -> Sample {
        // Bound but unhashed sockets are hidden from sockstat's inuse, not from the dump.
        let shown = account.states[TcpState::Close.index()];
        host.hidden_sockets = host.hidden_sockets.map(|hidden| hidden.saturating_sub(shown));
        let attributed = account.attributed;
        let memory = host.tcp_memory.and_then(|memory| i64::try_from(memory).ok());
        let bound = host::unattributed_bound(&self.root, self.page_size);
        let (processes, processes_truncated) =
            self.rows.processes(account, &self.owners, self.started.elapsed(), timestamp);
        let cgroups = self.rows.cgroups(account, self.started.elapsed(), outcomes);
        Sample {
            timestamp,
            sockets: account.sockets,
            states: account.states,
            attributed,
            unattributed: memory.map(|memory| memory - attributed.iter().sum::<i64>()),
            unattributed_bound: outcomes.note(Source::Sysctl, bound),
            processes,
            processes_truncated,
            cgroups,
            unreadable_processes: self.owners.denied(),
        }
    }
}

/// The exporter's own namespace.
struct Own {
    figures: NamespaceFigures,
    complete: bool,
}

/// All other namespaces.
#[derive(Default)]
struct Foreign {
    figures: Vec<(u64, NamespaceFigures)>,
    sampled: u64,
    failed: u64,
    /// Whether every namespace that was entered has been dumped to its end.
    complete: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_sockets_are_asked_for_as_long_as_there_may_be_any() {
        let mut kernel = Kernel::new(&Scope {
            procfs: Path::new("/proc"),
            cgroupfs: Path::new("/sys/fs/cgroup"),
            all_namespaces: true,
            row_min_memory: 0,
            rows_max: 1,
            deadline: Duration::ZERO,
        });
        assert!(kernel.has_unhashed, "nothing is known yet");
        let host = |hidden_sockets| HostFigures { hidden_sockets, ..HostFigures::default() };
        let none_shown = Account::default();
        let mut one_shown = Account::default();
        one_shown.states[TcpState::Close.index()] = 1;
        let mut check = |hidden, account: Option<&Account>, want| {
            kernel.note_unhashed(&host(hidden), account);
            assert_eq!(kernel.has_unhashed, want, "{hidden:?} {account:?}");
        };
        check(Some(0), None, true);
        check(Some(0), Some(&one_shown), true);
        check(Some(0), Some(&none_shown), false);
        check(Some(0), None, false);
        check(Some(3), Some(&none_shown), true);
        check(None, Some(&none_shown), true);
    }
}
