//! One round of dumps: sockets stream by, each is counted for its owner at once or, where the owner has to be looked
//! for, kept until it is found.

use std::time::{Duration, Instant};

use hashbrown::HashSet;

use super::diag::{Entry, Fate, Query, SockDiag};
use super::error::Error;
use super::owners::{Lookup, Owners, Sighting};
use crate::account::{Account, Owner, ProcessId};
use crate::cause::{Answer, History, Verdicts, judge};
use crate::follow::{Followed, Sighted};
use crate::sample::{Connection, ListenerQueue, Reason, SuspectCounts, TcpState};
use crate::shortlist::{Claim, Shortlist};
use crate::socket::{Listeners, Route, Socket};
use crate::tcp_info::TcpInfo;
use crate::worst::{WorstOf, is_worth_keeping, leading};

/// What a search for owners may cost beside the dump: a quarter, so that a host with many short
/// connections, whose owners are mostly gone before they can be found, does not pay for them.
const SEARCH_SHARE: u32 = 4;

/// Suspects asked in one namespace and sample: with starting a child that is some 20 ms. Who is not asked is skipped, and
/// keeps his verdict while it stands.
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
    /// Suspects that have held something for long enough and never answered.
    unasked: u64,
    account: Account,
    worst: WorstOf,
    listeners: Listeners,
    batch: Vec<(Entry, Route)>,
    /// Cookies of the namespace being dumped, as far as `owners` cannot tell by the inode whether a socket has come before:
    /// one can move between hash tables during a dump and be shown twice.
    cookies: HashSet<u64>,
    /// Sockets of the namespace being dumped that tcp_info is to be asked of.
    suspects: Shortlist<Suspect>,
    pending: Vec<Pending>,
}

/// A socket that holds something for longer than one sample.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    entry: Entry,
    route: Route,
    sighted: Sighted,
}

/// A socket and what was found out about it.
#[derive(Debug)]
struct Judged {
    socket: Socket,
    verdicts: Verdicts,
    /// What to show of it, if that may be worth it. Boxed: few sockets have one, and a cold start keeps many for a moment.
    details: Option<Box<Details>>,
}

/// What may be shown of a socket.
#[derive(Debug)]
enum Details {
    Connection(Connection),
    Listener(ListenerQueue),
}

/// A socket whose holder must be found or confirmed first.
#[derive(Debug)]
struct Pending {
    judged: Judged,
    /// The file to look for: the socket's own, or its listener's.
    inode: u32,
    is_queued: bool,
}

/// What a round has found out.
#[derive(Debug)]
pub struct Finished {
    /// The sums.
    pub account: Account,
    /// The sockets that say most.
    pub worst: WorstOf,
    /// How the suspects fared.
    pub suspects: SuspectCounts,
    /// Suspects that have held something for `--stall.after` and never answered.
    pub unasked: u64,
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
            unasked: 0,
            account: Account::default(),
            worst: WorstOf::default(),
            listeners: Listeners::default(),
            batch: Vec::with_capacity(BATCH),
            cookies: HashSet::new(),
            suspects: Shortlist::new(0, 0),
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
        self.followed.enter(namespace);
        self.bound = 0;
        self.listeners.clear();
        self.cookies.clear();
        // A dump that failed has left these behind.
        self.suspects = Shortlist::new(SUSPECTS_MAX, self.followed.room());
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
        // An MPTCP connection cannot be asked for tcp_info by its cookie, and its queues are not known.
        let sighted =
            if socket.is_mptcp { None } else { self.followed.sight(socket, is_queued, self.clock.now) };
        let verdicts = match sighted {
            Some(sighted @ Sighted { is_suspect: true, .. }) => {
                let claim = Claim { memory: socket.memory(), chosen_ago: sighted.answered };
                if let Some(out) = self.suspects.offer(claim, Suspect { entry, route, sighted }) {
                    self.counts.skipped += 1;
                    self.conclude(&out, None);
                }
                return;
            }
            Some(Sighted { history, .. }) => judge(socket, is_queued, &history, self.clock.stall_after),
            None => Verdicts::ACTIVE,
        };
        self.count(&entry, route, verdicts, None);
    }

    /// Asks tcp_info of the suspects and counts them.
    fn interrogate(&mut self, diag: &mut impl SockDiag, deadline: Instant) {
        let suspects = std::mem::replace(&mut self.suspects, Shortlist::new(0, 0)).into_chosen();
        if suspects.is_empty() {
            return;
        }
        let entries: Vec<Entry> = suspects.iter().map(|suspect| suspect.entry).collect();
        // Whoever has no fate was not asked either: none must get lost.
        let fates = diag.ask(entries, deadline).into_iter().chain(std::iter::repeat(Fate::Failed));
        for (suspect, fate) in suspects.into_iter().zip(fates) {
            let (count, answer) = match fate {
                Fate::Answered(then, info) => {
                    let answer = self.followed.answer(&then.socket, then.rcvbuf, info, self.clock.now);
                    (&mut self.counts.answered, Some(answer))
                }
                Fate::Vanished => (&mut self.counts.vanished, None),
                Fate::TimedOut => (&mut self.counts.timed_out, None),
                Fate::Skipped => (&mut self.counts.skipped, None),
                Fate::Failed => (&mut self.counts.failed, None),
            };
            *count += 1;
            self.conclude(&suspect, answer);
        }
    }

    /// Judges a suspect by its answer, or by what stands of earlier ones, and counts it.
    fn conclude(&mut self, suspect: &Suspect, answer: Option<Answer>) {
        let Suspect { entry, route, sighted } = *suspect;
        let history = History { answer, ..sighted.history };
        let is_queued = matches!(route, Route::Queued(_));
        let judged = judge(&entry.socket, is_queued, &history, self.clock.stall_after);
        let verdicts = if answer.is_some() {
            self.followed.judged(&entry.socket, &judged);
            judged
        } else {
            let has_lasted = history.receiving.max(history.sending) >= self.clock.stall_after;
            self.unasked += u64::from(sighted.answered.is_none() && has_lasted);
            sighted.standing.unwrap_or(judged)
        };
        self.count(&entry, route, verdicts, answer.map(|answer| answer.info));
    }

    fn count(&mut self, entry: &Entry, route: Route, verdicts: Verdicts, info: Option<TcpInfo>) {
        let details = self.details(entry, route, &verdicts, info).map(Box::new);
        let judged = Judged { socket: entry.socket, verdicts, details };
        match route {
            Route::Held(inode) => self.place(judged, inode, false),
            Route::Queued(inode) => self.place(judged, inode, true),
            Route::Orphan => self.add(judged, Owner::Orphan),
            Route::Nobody => self.add(judged, Owner::Unresolved),
        }
    }

    fn details(
        &self,
        entry: &Entry,
        route: Route,
        verdicts: &Verdicts,
        tcp_info: Option<TcpInfo>,
    ) -> Option<Details> {
        let Entry { socket, local, remote, rcvbuf, .. } = entry;
        if socket.state == TcpState::Listen {
            let queue = ListenerQueue {
                namespace: self.namespace,
                local: local.socket_addr(),
                waiting: socket.rqueue,
                limit: socket.wqueue,
            };
            return (queue.waiting > 0 && !socket.is_mptcp).then_some(Details::Listener(queue));
        }
        let verdict = leading(socket, verdicts);
        is_worth_keeping(socket, verdicts).then(|| {
            Details::Connection(Connection {
                namespace: self.namespace,
                local: Some(local.socket_addr()),
                remote: Some(remote.socket_addr(local.family)),
                state: socket.state,
                is_queued: matches!(route, Route::Queued(_)),
                memory_bytes: socket.memory(),
                receive_memory_bytes: socket.rmem_alloc,
                send_memory_bytes: socket.wmem_queued,
                receive_queue_bytes: socket.rqueue,
                send_queue_bytes: socket.wqueue,
                receive_buffer_bytes: *rcvbuf,
                cause: verdict.cause,
                stalled: verdict.stalled,
                tcp_info,
            })
        })
    }

    fn place(&mut self, judged: Judged, inode: u32, is_queued: bool) {
        match self.owners.lookup(inode, judged.socket.memory()) {
            Lookup::Known(process) => self.add(judged, owner(process, is_queued)),
            Lookup::Pending => self.pending.push(Pending { judged, inode, is_queued }),
            Lookup::Nobody => self.add(judged, Owner::Unresolved),
        }
    }

    fn add(&mut self, judged: Judged, owner: Owner) {
        let Judged { socket, verdicts, details } = judged;
        self.account.add(&socket, owner, &verdicts);
        match details.map(|details| *details) {
            Some(Details::Connection(connection)) => self.worst.offer(owner.holder(), connection),
            Some(Details::Listener(queue)) => self.worst.offer_listener(owner.holder(), queue),
            None => {}
        }
    }

    /// Finds the owners still missing. `dumped_in` is what the dumps took.
    pub fn finish(mut self, dumped_in: Duration, deadline: Instant) -> Result<Finished, Error> {
        self.owners.resolve(dumped_in / SEARCH_SHARE, deadline)?;
        for Pending { judged, inode, is_queued } in std::mem::take(&mut self.pending) {
            let owner =
                self.owners.holder(inode).map_or(Owner::Unresolved, |process| owner(process, is_queued));
            self.add(judged, owner);
        }
        let Self { account, worst, counts, unasked, .. } = self;
        Ok(Finished { account, worst, suspects: counts, unasked })
    }
}

fn owner(process: ProcessId, is_queued: bool) -> Owner {
    if is_queued { Owner::AcceptQueue(process) } else { Owner::Process(process) }
}
