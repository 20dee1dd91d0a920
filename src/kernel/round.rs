//! One round of dumps: sockets stream by, each is counted for its owner at once or, where the owner has to be looked
//! for, kept until it is found.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use hashbrown::HashSet;

use super::diag::{Entry, Fate, Query, SockDiag};
use super::error::Error;
use super::owners::{Lookup, Owners, Sighting};
use crate::account::{Account, Owner, ProcessId};
use crate::cause::{Verdicts, judge};
use crate::follow::{Followed, Sighted};
use crate::sample::{Connection, ListenerQueue, Reason, SuspectCounts, TcpState};
use crate::socket::{Listeners, Route, Socket};
use crate::tcp_info::TcpInfo;
use crate::worst::{WorstOf, is_worth_keeping, leading};

/// What a search for owners may cost beside the dump: a quarter, so that a host with many short
/// connections, whose owners are mostly gone before they can be found, does not pay for them.
const SEARCH_SHARE: u32 = 4;

/// Suspects asked in one namespace and sample: with starting a child that is some 20 ms. One half goes to those that hold
/// most, the other to those that have not answered for longest, so that everybody has his turn. Who is not asked is
/// skipped, and keeps his verdict while it stands.
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
    suspects: Vec<Suspect>,
    pending: Vec<Pending>,
}

/// A socket that holds something for longer than one sample.
#[derive(Debug)]
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
        self.followed.enter(namespace);
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
        // An MPTCP connection cannot be asked for tcp_info by its cookie, and its queues are not known.
        let sighted =
            if socket.is_mptcp { None } else { self.followed.sight(socket, is_queued, self.clock.now) };
        let verdicts = match sighted {
            Some(sighted @ Sighted { is_suspect: true, .. }) => {
                self.suspects.push(Suspect { entry, route, sighted });
                return;
            }
            Some(Sighted { history, .. }) => judge(socket, is_queued, &history, self.clock.stall_after),
            None => Verdicts::ACTIVE,
        };
        self.count(&entry, route, verdicts, None);
    }

    /// Asks tcp_info of the suspects and counts them.
    fn interrogate(&mut self, diag: &mut impl SockDiag, deadline: Instant) {
        let suspects = std::mem::take(&mut self.suspects);
        let (asked, skipped) = choose(suspects, self.followed.room());
        self.counts.skipped += skipped.len() as u64;
        let entries: Vec<Entry> = asked.iter().map(|suspect| suspect.entry).collect();
        let fates = if entries.is_empty() { Vec::new() } else { diag.ask(entries, deadline) };
        let fates = fates.into_iter().map(Some).chain(std::iter::repeat(None));
        for (Suspect { entry, route, sighted }, fate) in asked.into_iter().chain(skipped).zip(fates) {
            let mut history = sighted.history;
            match fate {
                Some(Fate::Answered(then, info)) => {
                    self.counts.answered += 1;
                    let answer = self.followed.answer(&then.socket, then.rcvbuf, info, self.clock.now);
                    history.answer = Some(answer);
                }
                Some(Fate::Vanished) => self.counts.vanished += 1,
                Some(Fate::TimedOut) => self.counts.timed_out += 1,
                Some(Fate::Skipped) => self.counts.skipped += 1,
                Some(Fate::Failed) => self.counts.failed += 1,
                None => {}
            }
            let is_queued = matches!(route, Route::Queued(_));
            let judged = judge(&entry.socket, is_queued, &history, self.clock.stall_after);
            let verdicts = match history.answer {
                Some(_) => {
                    self.followed.judged(&entry.socket, &judged);
                    judged
                }
                None => sighted.standing.unwrap_or(judged),
            };
            let has_lasted = history.receiving.max(history.sending) >= self.clock.stall_after;
            if history.answer.is_none() && sighted.answered.is_none() && has_lasted {
                self.unasked += 1;
            }
            self.count(&entry, route, verdicts, history.answer.map(|answer| answer.info));
        }
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
        let Entry { socket, local, remote, rcvbuf } = entry;
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

/// Who is asked and who is not. At most `room` of them may be new.
fn choose(mut suspects: Vec<Suspect>, mut room: usize) -> (Vec<Suspect>, Vec<Suspect>) {
    if suspects.len() > SUSPECTS_MAX {
        // Memory is what this is about.
        suspects.sort_unstable_by_key(|suspect| Reverse(suspect.entry.socket.memory()));
        let rest = &mut suspects[SUSPECTS_MAX / 2..];
        rest.sort_by_key(|suspect| Reverse(suspect.sighted.answered.unwrap_or(Duration::MAX)));
    }
    let mut places = SUSPECTS_MAX;
    suspects.into_iter().partition(|suspect| {
        let is_new = usize::from(suspect.sighted.answered.is_none());
        let is_asked = places > 0 && room >= is_new;
        if is_asked {
            (places, room) = (places - 1, room - is_new);
        }
        is_asked
    })
}

fn owner(process: ProcessId, is_queued: bool) -> Owner {
    if is_queued { Owner::AcceptQueue(process) } else { Owner::Process(process) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::History;
    use crate::socket::{LocalEnd, RemoteEnd};

    fn suspect(cookie: u64, rmem_alloc: u32, answered: Option<u64>) -> Suspect {
        let socket = Socket {
            cookie,
            cgroup: 0,
            inode: 1,
            rmem_alloc,
            wmem_queued: 0,
            forward_alloc: 0,
            rqueue: 1,
            wqueue: 0,
            state: TcpState::Established,
            is_mptcp: false,
        };
        let local = LocalEnd { family: 2, port: 80, interface: 0, address: [0; 16] };
        let entry = Entry { socket, local, remote: RemoteEnd::default(), rcvbuf: 0 };
        let answered = answered.map(Duration::from_secs);
        let sighted = Sighted { history: History::default(), is_suspect: true, answered, standing: None };
        Suspect { entry, route: Route::Orphan, sighted }
    }

    #[test]
    fn the_largest_are_asked_always_and_the_others_by_turns() {
        let suspects = || -> Vec<Suspect> {
            (0..3000_u32)
                .map(|index| {
                    suspect(index.into(), 4096 + index, (index >= 100).then_some(u64::from(index % 7)))
                })
                .collect()
        };
        let cookies = |suspects: &[Suspect]| -> Vec<u64> {
            let mut cookies: Vec<u64> = suspects.iter().map(|suspect| suspect.entry.socket.cookie).collect();
            cookies.sort_unstable();
            cookies
        };
        let (asked, skipped) = choose(suspects(), 100);
        assert_eq!((asked.len(), skipped.len()), (SUSPECTS_MAX, 3000 - SUSPECTS_MAX));
        let (always, by_turns) = asked.split_at(SUSPECTS_MAX / 2);
        assert_eq!(cookies(always), (2500..3000).collect::<Vec<_>>());
        assert_eq!(cookies(&by_turns[..100]), (0..100).collect::<Vec<_>>(), "who never answered comes first");
        let waits = |suspect: &Suspect| suspect.sighted.answered.unwrap();
        let left = skipped.iter().map(waits).max().unwrap();
        assert!(by_turns[100..].iter().all(|suspect| waits(suspect) >= left));

        let (asked, _) = choose(suspects(), 30);
        let new = asked.iter().filter(|suspect| suspect.sighted.answered.is_none()).count();
        assert_eq!((asked.len(), new), (SUSPECTS_MAX, 30), "no more than can be remembered");
    }
}
