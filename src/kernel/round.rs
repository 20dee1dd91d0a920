//! One round of dumps: sockets stream by, each is counted for its owner at once or, where the owner has to be looked
//! for, kept until it is found.

use std::time::{Duration, Instant};

use hashbrown::HashSet;

use super::diag::{Query, SockDiag};
use super::error::Error;
use super::owners::{Lookup, Owners, Sighting};
use crate::account::{Account, Owner, ProcessId};
use crate::sample::Reason;
use crate::socket::{Listeners, Route, Socket};

/// What a search for owners may cost beside the dump: a quarter, so that a host with many short
/// connections, whose owners are mostly gone before they can be found, does not pay for them.
const SEARCH_SHARE: u32 = 4;

/// Sockets looked up in a row. Each lookup misses the CPU's cache; a row of them misses together.
const BATCH: usize = 128;

/// A namespace with at most this many TCP sockets is asked for its listeners first: where it has nothing else, as most
/// pods do, that spares the walk over the host-wide hash (100 ns for each socket of other namespaces).
const LISTENERS_FIRST_MAX: u64 = 256;

/// The sums of a round in progress.
#[derive(Debug)]
pub struct Round<'a> {
    owners: &'a mut Owners,
    asks_for_bound: bool,
    account: Account,
    listeners: Listeners,
    batch: Vec<(Socket, Route)>,
    /// Cookies of the namespace being dumped, as far as `owners` cannot tell by the inode whether a socket has come before:
    /// one can move between hash tables during a dump and be shown twice.
    cookies: HashSet<u64>,
    pending: Vec<Pending>,
}

/// A socket whose holder must be found or confirmed first.
#[derive(Debug)]
struct Pending {
    socket: Socket,
    /// The file to look for: the socket's own, or its listener's.
    inode: u32,
    is_queued: bool,
}

impl<'a> Round<'a> {
    /// A round that looks owners up in `owners`, and asks for bound but unconnected sockets if there may be any.
    pub fn new(owners: &'a mut Owners, asks_for_bound: bool) -> Self {
        Self {
            owners,
            asks_for_bound,
            account: Account::default(),
            listeners: Listeners::default(),
            batch: Vec::with_capacity(BATCH),
            cookies: HashSet::new(),
            pending: Vec::new(),
        }
    }

    /// Dumps the calling thread's namespace, whose sockstats say that it has `inuse` TCP sockets.
    pub fn dump_namespace(
        &mut self,
        diag: &mut impl SockDiag,
        inuse: Option<u64>,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.listeners.clear();
        self.cookies.clear();
        match inuse {
            Some(0) => return Ok(()),
            Some(inuse) if inuse <= LISTENERS_FIRST_MAX => {
                let mut listeners = 0;
                self.dump(diag, Query::Listeners, deadline, &mut listeners)?;
                if listeners >= inuse {
                    return Ok(());
                }
            }
            _ => {}
        }
        let tcp = if self.asks_for_bound { Query::TcpAndBound } else { Query::Tcp };
        self.dump(diag, tcp, deadline, &mut 0)?;
        for query in Query::MPTCP {
            match self.dump(diag, query, deadline, &mut 0) {
                // A kernel without MPTCP, or without its diag module: it has none to show.
                Err(error) if error.reason() == Reason::Missing => {}
                result => result?,
            }
        }
        Ok(())
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
            self.batch.push((entry.socket, route));
            if self.batch.len() == BATCH {
                self.take_batch();
            }
        })?;
        self.take_batch();
        Ok(())
    }

    fn take_batch(&mut self) {
        let Self { batch, owners, cookies, .. } = self;
        batch.retain(|(socket, route)| {
            let sighting = match route {
                Route::Held(inode) | Route::Queued(inode) => owners.sight(*inode, socket.cookie),
                Route::Orphan | Route::Nobody => Sighting::Unknown,
            };
            match sighting {
                Sighting::First => true,
                Sighting::Duplicate => false,
                Sighting::Unknown => cookies.insert(socket.cookie),
            }
        });
        let mut batch = std::mem::take(&mut self.batch);
        for (socket, route) in batch.drain(..) {
            match route {
                Route::Held(inode) => self.place(socket, inode, false),
                Route::Queued(inode) => self.place(socket, inode, true),
                Route::Orphan => self.account.add(&socket, Owner::Orphan),
                Route::Nobody => self.account.add(&socket, Owner::Unresolved),
            }
        }
        self.batch = batch;
    }

    fn place(&mut self, socket: Socket, inode: u32, is_queued: bool) {
        match self.owners.lookup(inode, socket.memory()) {
            Lookup::Known(process) => self.account.add(&socket, owner(process, is_queued)),
            Lookup::Pending => self.pending.push(Pending { socket, inode, is_queued }),
            Lookup::Nobody => self.account.add(&socket, Owner::Unresolved),
        }
    }

    /// Finds the owners still missing and returns the sums. `dumped_in` is what the dumps took.
    pub fn finish(mut self, dumped_in: Duration, deadline: Instant) -> Result<Account, Error> {
        self.owners.resolve(dumped_in / SEARCH_SHARE, deadline)?;
        for Pending { socket, inode, is_queued } in &self.pending {
            let owner =
                self.owners.holder(*inode).map_or(Owner::Unresolved, |process| owner(process, *is_queued));
            self.account.add(socket, owner);
        }
        Ok(self.account)
    }
}

fn owner(process: ProcessId, is_queued: bool) -> Owner {
    if is_queued { Owner::AcceptQueue(process) } else { Owner::Process(process) }
}
