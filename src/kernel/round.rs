//! One round of dumps: sockets stream by, each is counted for its owner at once or, where the owner has to be looked
//! for, kept until it is found.

use std::time::{Duration, Instant};

use hashbrown::HashSet;

use super::diag::{Entry, Fate, Query, SockDiag};
use super::error::Error;
use super::owners::{Lookup, Owners, Sighting};
use crate::account::{Account, Owner, ProcessId};
use crate::cause::{History, Verdicts, judge};
use crate::follow::{Followed, Sighted, SocketKey};
use crate::sample::{Reason, SuspectCounts, TcpState};
use crate::socket::{Listeners, Route, Socket};

/// What a search for owners may cost beside the dump: a quarter, so that a host with many short
/// connections, whose owners are mostly gone before they can be found, does not pay for them.
const SEARCH_SHARE: u32 = 4;

/// Suspects asked in one namespace, those that hold most first. With starting a child that is some 10 ms; the others count
/// as active, and as skipped.
const SUSPECTS_MAX: usize = 1000;

/// Sockets looked up in a row. Each lookup misses the CPU's cache; a row of them misses together.
const BATCH: usize = 128;

/// A namespace with at most this many TCP sockets is asked for its listeners first: where it has nothing else, as most
/// pods do, that spares the walk over the host-wide hash (100 ns for each socket of other namespaces).
const LISTENERS_FIRST_MAX: u64 = 256;

/// When a round takes place, and from when on a socket counts as stalled.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Since any fixed moment.
    pub now: Duration,
    /// `--stall.after`
    pub stall_after: Duration,
}

/// The sums of a round in progress.
#[derive(Debug)]
pub struct Round<'a> {
    owners: &'a mut Owners,
    followed: &'a mut Followed,
    clock: Clock,
    mptcp: &'static [Query],
    namespace: u64,
    /// Sockets of that namespace that are bound and not hashed.
    bound: u64,
    counts: SuspectCounts,
    account: Account,
    listeners: Listeners,
    batch: Vec<(Entry, Route)>,
    /// Cookies of the namespace being dumped, as far as `owners` cannot tell by the inode whether a socket has come before:
    /// one can move between hash tables during a dump and be shown twice.
    cookies: HashSet<u64>,
    /// Sockets of the namespace being dumped that tcp_info is to be asked of.
    suspects: Vec<Suspect>,
    pending: Vec<Pending>,
}

/// A socket that holds something for longer than one sample.
#[derive(Debug)]
struct Suspect {
    entry: Entry,
    route: Route,
    history: History,
}

/// A socket whose holder must be found or confirmed first.
#[derive(Debug)]
struct Pending {
    socket: Socket,
    /// The file to look for: the socket's own, or its listener's.
    inode: u32,
    is_queued: bool,
    verdicts: Verdicts,
}

impl<'a> Round<'a> {
    /// A round that looks owners up in `owners` and histories in `followed`. `mptcp`: the queries that this kernel has for
    /// MPTCP connections.
    pub fn new(
        owners: &'a mut Owners,
        followed: &'a mut Followed,
        clock: Clock,
        mptcp: &'static [Query],
    ) -> Self {
        Self {
            owners,
            followed,
            clock,
            mptcp,
            namespace: 0,
            bound: 0,
            counts: SuspectCounts::default(),
            account: Account::default(),
            listeners: Listeners::default(),
            batch: Vec::with_capacity(BATCH),
            cookies: HashSet::new(),
            suspects: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Dumps the calling thread's namespace and asks tcp_info of its suspects. `inuse`: what its sockstats count, as far as
    /// that may spare a dump. Returns how many bound sockets that are not hashed it showed.
    pub fn dump_namespace(
        &mut self,
        diag: &mut impl SockDiag,
        namespace: u64,
        inuse: Option<u64>,
        asks_for_bound: bool,
        deadline: Instant,
    ) -> Result<u64, Error> {
        self.namespace = namespace;
        self.bound = 0;
        self.listeners.clear();
        self.cookies.clear();
        // A dump that failed has left these behind.
        self.suspects.clear();
        self.batch.clear();
        match inuse {
            Some(0) => return Ok(0),
            Some(inuse) if inuse <= LISTENERS_FIRST_MAX => {
                let mut listeners = 0;
                self.dump(diag, Query::Listeners, deadline, &mut listeners)?;
                if listeners >= inuse {
                    return Ok(0);
                }
            }
            _ => {}
        }
        let tcp = if asks_for_bound { Query::TcpAndBound } else { Query::Tcp };
        self.dump(diag, tcp, deadline, &mut 0)?;
        for &query in self.mptcp {
            match self.dump(diag, query, deadline, &mut 0) {
                // A kernel without MPTCP's diag module has none to show.
                Err(error) if error.reason() == Reason::Missing => {}
                result => result?,
            }
        }
        self.interrogate(diag, deadline);
        Ok(self.bound)
    }

    fn dump(
        &mut self,
        diag: &mut impl SockDiag,
        query: Query,
        deadline: Instant,
        sockets: &mut u64,
    ) -> Result<(), Error> {
        diag.dump(query, deadline, &mut |entry| {
            *sockets += 1;
            let route = self.listeners.route(&entry.socket, &entry.local);
            self.batch.push((*entry, route));
            if self.batch.len() == BATCH {
                self.take_batch();
            }
        })?;
        self.take_batch();
        Ok(())
    }

    fn take_batch(&mut self) {
        let Self { batch, owners, cookies, .. } = self;
        batch.retain(|(entry, route)| {
            let cookie = entry.socket.cookie;
            let sighting = match route {
                Route::Held(inode) | Route::Queued(inode) => owners.sight(*inode, cookie),
                Route::Orphan | Route::Nobody => Sighting::Unknown,
            };
            match sighting {
                Sighting::First => true,
                Sighting::Duplicate => false,
                Sighting::Unknown => cookies.insert(cookie),
            }
        });
        let mut batch = std::mem::take(&mut self.batch);
        for (entry, route) in batch.drain(..) {
            self.take(entry, route);
        }
        self.batch = batch;
    }

    fn take(&mut self, entry: Entry, route: Route) {
        let socket = &entry.socket;
        self.bound += u64::from(socket.state == TcpState::Close);
        let is_queued = matches!(route, Route::Queued(_));
        let key = SocketKey { namespace: self.namespace, cookie: socket.cookie };
        // An MPTCP connection cannot be asked for tcp_info by its cookie, and its queues are not known.
        let sighted =
            if socket.is_mptcp { None } else { self.followed.sight(key, socket, is_queued, self.clock.now) };
        let verdicts = match sighted {
            Some(Sighted { history, is_suspect: true }) => {
                self.suspects.push(Suspect { entry, route, history });
                return;
            }
            Some(Sighted { history, .. }) => judge(socket, is_queued, &history, self.clock.stall_after),
            None => Verdicts::ACTIVE,
        };
        self.count(*socket, route, verdicts);
    }

    /// Asks tcp_info of the suspects and counts them.
    fn interrogate(&mut self, diag: &mut impl SockDiag, deadline: Instant) {
        let mut suspects = std::mem::take(&mut self.suspects);
        // Whoever holds most is asked first: memory is what this is about.
        suspects.sort_unstable_by_key(|suspect| std::cmp::Reverse(suspect.entry.socket.memory()));
        let asked: Vec<Entry> = suspects.iter().take(SUSPECTS_MAX).map(|suspect| suspect.entry).collect();
        self.counts.skipped += (suspects.len() - asked.len()) as u64;
        let fates = if asked.is_empty() { Vec::new() } else { diag.ask(asked, deadline) };
        let fates = fates.into_iter().map(Some).chain(std::iter::repeat(None));
        for (Suspect { entry, route, mut history }, fate) in suspects.into_iter().zip(fates) {
            let key = SocketKey { namespace: self.namespace, cookie: entry.socket.cookie };
            match fate {
                Some(Fate::Answered(then, info)) => {
                    self.counts.answered += 1;
                    history.answer =
                        self.followed.answer(key, &then.socket, then.rcvbuf, info, self.clock.now);
                }
                Some(Fate::Vanished) => self.counts.vanished += 1,
                Some(Fate::TimedOut) => self.counts.timed_out += 1,
                Some(Fate::Skipped) => self.counts.skipped += 1,
                Some(Fate::Failed) => self.counts.failed += 1,
                None => {}
            }
            let is_queued = matches!(route, Route::Queued(_));
            let verdicts = judge(&entry.socket, is_queued, &history, self.clock.stall_after);
            self.count(entry.socket, route, verdicts);
        }
    }

    fn count(&mut self, socket: Socket, route: Route, verdicts: Verdicts) {
        match route {
            Route::Held(inode) => self.place(socket, inode, false, verdicts),
            Route::Queued(inode) => self.place(socket, inode, true, verdicts),
            Route::Orphan => self.account.add(&socket, Owner::Orphan, &verdicts),
            Route::Nobody => self.account.add(&socket, Owner::Unresolved, &verdicts),
        }
    }

    fn place(&mut self, socket: Socket, inode: u32, is_queued: bool, verdicts: Verdicts) {
        match self.owners.lookup(inode, socket.memory()) {
            Lookup::Known(process) => self.account.add(&socket, owner(process, is_queued), &verdicts),
            Lookup::Pending => self.pending.push(Pending { socket, inode, is_queued, verdicts }),
            Lookup::Nobody => self.account.add(&socket, Owner::Unresolved, &verdicts),
        }
    }

    /// Finds the owners still missing and returns the sums, and how the suspects fared. `dumped_in` is what the dumps took.
    pub fn finish(
        mut self,
        dumped_in: Duration,
        deadline: Instant,
    ) -> Result<(Account, SuspectCounts), Error> {
        self.owners.resolve(dumped_in / SEARCH_SHARE, deadline)?;
        for Pending { socket, inode, is_queued, verdicts } in &self.pending {
            let owner =
                self.owners.holder(*inode).map_or(Owner::Unresolved, |process| owner(process, *is_queued));
            self.account.add(socket, owner, verdicts);
        }
        Ok((self.account, self.counts))
    }
}

fn owner(process: ProcessId, is_queued: bool) -> Owner {
    if is_queued { Owner::AcceptQueue(process) } else { Owner::Process(process) }
}
