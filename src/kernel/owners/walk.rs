//! The searches of [`Owners`]: which tables and fds are read, in which order.

use std::ops::Range;
use std::time::{Duration, Instant};

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

use super::fds::{FdDirectory, TableName, Target, Unreadable, shares_table};
use super::{
    Error, Holder, Owners, ProcessId, RETRY_ROUNDS_MAX, ROTATION_ROUNDS, SEARCH_FREELY_FROM, SEARCH_MIN,
    Unfound,
};

/// Numbers tried above a table's end before it counts as ended: new fds are contiguous but for a few races.
const MISSES_PAST_END: u32 = 2;
/// Fds the rotation passes each round at least: a small host is checked in one round.
const ROTATION_MIN: u64 = 512;
/// How many fds are read in a row, before a look at the clock and into the map. Taking note of each at once would have
/// the map and the kernel's tables push each other out of the CPU's cache.
const FDS_IN_A_ROW: usize = 1024;

/// Which fds a whole reading of a table may take as read: those of sockets that the dump of this round shows.
type KnownFds = HashSet<u32>;

impl Owners {
    /// The cold walk: every fd of every process, oldest process first, so that a shared socket goes to its oldest
    /// holder.
    pub(super) fn walk_everything(&mut self, deadline: Instant) -> Result<(), Error> {
        for table in self.tables_oldest_first(|_| true) {
            self.read_table(table, &KnownFds::new(), deadline, &|_| true)?;
        }
        // Threads with tables of their own came up on the way.
        for table in self.tables_oldest_first(|table| table.read_in == 0) {
            self.read_table(table, &KnownFds::new(), deadline, &|_| true)?;
        }
        // All of it is settled, and the dump will tell which of these sockets are TCP.
        self.holders.values_mut().for_each(|holder| (holder.found, holder.seen) = (0, 0));
        Ok(())
    }

    /// Finds or confirms the holders of all inodes that [`Owners::lookup`] left pending, and moves the rotation on.
    /// `budget` is what a search in whole tables may cost.
    pub fn resolve(&mut self, budget: Duration, deadline: Instant) -> Result<(), Error> {
        self.confirm();
        if !self.wanted.is_empty() {
            self.try_likely_fds();
        }
        for table in self.tables_oldest_first(|table| table.read_in == 0) {
            if self.wanted.is_empty() {
                break;
            }
            self.read_wanted(table, &KnownFds::new(), deadline)?;
        }
        if !self.wanted.is_empty() {
            self.search(budget.max(SEARCH_MIN), deadline)?;
        }
        self.give_up();
        // The cold walk has just read every fd.
        if self.round == 1 { Ok(()) } else { self.rotate(deadline) }
    }

    /// Asks the known holders of wanted inodes whether they still are.
    fn confirm(&mut self) {
        let mut known: Vec<(u32, u32, u32)> = self
            .wanted
            .keys()
            .filter_map(|inode| self.holders.get(inode).map(|holder| (holder.table, holder.fd, *inode)))
            .collect();
        known.sort_unstable();
        for same_table in known.chunk_by(|a, b| a.0 == b.0) {
            let directory = self.open(same_table[0].0);
            for (_, fd, inode) in same_table {
                let is_there = match &directory {
                    Ok(open) => open.socket(*fd) == Ok(Some(*inode)),
                    // Nothing speaks against it.
                    Err(error) => *error == Unreadable::Failed,
                };
                if is_there {
                    self.wanted.remove(inode);
                } else {
                    self.holders.remove(inode);
                }
            }
        }
    }

    /// Tries the fds that closed sockets have left and those just above each table's end, oldest process first.
    fn try_likely_fds(&mut self) {
        let mut candidates: HashMap<u32, Vec<u32>> = HashMap::new();
        let (round, is_any_gone) = (self.round, self.seen < self.holders.len());
        for holder in self.holders.values() {
            let fds = candidates.entry(holder.table).or_default();
            if is_any_gone && holder.seen != round {
                fds.push(holder.fd);
            }
        }
        for table in self.tables_oldest_first(|_| true) {
            let Some(mut fds) = candidates.remove(&table) else { continue };
            let Ok(directory) = self.open(table) else { continue };
            fds.sort_unstable();
            for fd in fds {
                if let Ok(Some(inode)) = directory.socket(fd) {
                    self.observe_wanted(table, fd, inode);
                }
            }
            let mut misses = 0;
            let mut fd = self.tables[&table].end;
            while misses < MISSES_PAST_END {
                match directory.socket(fd) {
                    Ok(Some(inode)) => {
                        misses = 0;
                        self.observe_wanted(table, fd, inode);
                    }
                    Ok(None) => misses += 1,
                    Err(_) => break,
                }
                fd += 1;
            }
        }
        self.forget_found();
    }

    /// Reads whole tables again, changed ones first, then those not read for longest.
    pub(super) fn search(&mut self, budget: Duration, deadline: Instant) -> Result<(), Error> {
        let now = Instant::now();
        let until = if self.may_search_freely() { deadline } else { deadline.min(now + budget) };
        let halfway = now + until.saturating_duration_since(now) / 2;
        let mut known: HashMap<u32, KnownFds> = HashMap::new();
        for holder in self.holders.values().filter(|holder| holder.seen == self.round) {
            known.entry(holder.table).or_default().insert(holder.fd);
        }
        let mut order: Vec<(bool, u32, u32)> = Vec::new();
        let round = self.round;
        let unread = self.tables.iter().filter(|(_, table)| table.read_in != round);
        let mut unread: Vec<(u32, u32)> = unread.map(|(id, table)| (table.read_in, *id)).collect();
        unread.sort_unstable();
        for (_, id) in unread {
            // On a host of many processes opening alone could use up the time, and nothing would ever be read.
            if Instant::now() >= halfway {
                break;
            }
            let Ok(count) = self.open(id).map(|open| open.count()) else { continue };
            let table = &self.tables[&id];
            order.push((count == table.count, table.read_in, id));
        }
        order.sort_unstable();
        for (_, _, table) in order {
            if self.wanted.is_empty() || Instant::now() >= until {
                break;
            }
            let known = known.remove(&table).unwrap_or_default();
            self.read_wanted(table, &known, deadline)?;
        }
        Ok(())
    }

    /// Whether enough memory lacks an owner to search without a budget. What came up in this round does not count: most
    /// of it are short connections that closed between the dump and now, and are in no table.
    pub(super) fn may_search_freely(&self) -> bool {
        let lasting = self.wanted.iter().filter(|(inode, _)| self.unfound.contains_key(*inode));
        lasting.map(|(_, memory)| memory).sum::<i64>() >= SEARCH_FREELY_FROM
    }

    /// Inodes that no table has are not looked for again at once, those without memory not at all: the rotation will
    /// meet them.
    fn give_up(&mut self) {
        let round = self.round;
        let oldest_reading = self.tables.values().map(|table| table.read_in).min().unwrap_or(round);
        for (inode, memory) in &self.wanted {
            let unfound = self.unfound.entry(*inode).or_insert(Unfound {
                since: round,
                retry_in: None,
                wait: 1,
                seen: round,
            });
            // Only when every table has been read since is the search over; until then it goes on next round.
            unfound.retry_in = Some(round + 1);
            if oldest_reading >= unfound.since {
                unfound.retry_in = (*memory > 0).then_some(round + unfound.wait);
                unfound.since = round + unfound.wait;
                unfound.wait = (unfound.wait * 2).min(RETRY_ROUNDS_MAX);
            }
        }
    }

    /// Reads the next slice of all fds again and mends what has changed: holders that are none any more, and older
    /// holders of a shared socket.
    fn rotate(&mut self, deadline: Instant) -> Result<(), Error> {
        let total: u64 = self.tables.values().map(|table| u64::from(table.end)).sum();
        let mut left = ROTATION_MIN.max(total / ROTATION_ROUNDS);
        let mut order: Vec<u32> = self.tables.keys().copied().collect();
        order.sort_unstable();
        // From the cursor on, then round to where it began.
        let start = order.partition_point(|table| *table < self.cursor.0);
        order.rotate_left(start);
        let mut checked: HashMap<u32, Range<u32>> = HashMap::new();
        let mut confirmed: HashSet<u32> = HashSet::new();
        for table in order {
            if left == 0 {
                break;
            }
            check_clock(deadline)?;
            let first = if table == self.cursor.0 { self.cursor.1 } else { 0 };
            let end = self.tables[&table].end;
            let last = end.min(first.saturating_add(u32::try_from(left).unwrap_or(u32::MAX)));
            if let Ok(directory) = self.open(table) {
                for fd in first..last {
                    if let Ok(Some(inode)) = directory.socket(fd)
                        && self.observe_in_passing(table, fd, inode)
                    {
                        confirmed.insert(inode);
                    }
                }
                checked.insert(table, first..last);
            }
            left -= u64::from(last.saturating_sub(first)).min(left);
            self.cursor = if last < end { (table, last) } else { (table + 1, 0) };
        }
        let stale = |inode: &u32, holder: &Holder| {
            checked.get(&holder.table).is_some_and(|fds| fds.contains(&holder.fd))
                && !confirmed.contains(inode)
        };
        self.holders.retain(|inode, holder| !stale(inode, holder));
        Ok(())
    }

    /// Reads a whole table for wanted inodes.
    fn read_wanted(&mut self, table: u32, known: &KnownFds, deadline: Instant) -> Result<(), Error> {
        let wanted = std::mem::take(&mut self.wanted);
        let result = self.read_table(table, known, deadline, &|inode| wanted.contains_key(&inode));
        self.wanted = wanted;
        self.forget_found();
        result
    }

    /// Drops from `wanted` what has a holder now.
    fn forget_found(&mut self) {
        let Self { wanted, holders, unfound, .. } = self;
        wanted.retain(|inode, _| {
            let is_found = holders.contains_key(inode);
            if is_found {
                unfound.remove(inode);
            }
            !is_found
        });
    }

    /// Reads every fd of a table but the `known` ones, and takes note of the sockets that `interesting` picks.
    fn read_table(
        &mut self,
        table: u32,
        known: &KnownFds,
        deadline: Instant,
        interesting: &dyn Fn(u32) -> bool,
    ) -> Result<(), Error> {
        let Some((name, id)) = self.tables.get(&table).map(|table| (table.name, table.process)) else {
            return Ok(());
        };
        // Whatever is read now must be the process's that we know, not of a later one with its pid.
        let stat = match self.stat(name.pid) {
            Ok(stat) if stat.start_time == self.processes[&id].start_time => stat,
            Ok(_) | Err(Unreadable::Vanished) => {
                self.forget(id);
                return Ok(());
            }
            Err(error) => {
                self.unreadable(table, error);
                return Ok(());
            }
        };
        if name.tid.is_none() && stat.threads > 1 {
            self.find_private_tables(name.pid, id);
        }
        let Ok(directory) = self.open(table) else { return Ok(()) };
        let (mut end, mut fds) = (0, 0);
        let mut sockets: Vec<(u32, u32)> = Vec::new();
        let mut is_late = false;
        let mut observe_all = |sockets: &mut Vec<(u32, u32)>| {
            for (fd, inode) in sockets.drain(..).filter(|(_, inode)| interesting(*inode)) {
                self.observe(table, fd, inode);
            }
        };
        let result = directory.for_each(|fd| {
            fds += 1;
            if fds % FDS_IN_A_ROW == 0 {
                observe_all(&mut sockets);
                if Instant::now() >= deadline {
                    is_late = true;
                    return Err(Unreadable::Failed);
                }
            }
            let target = if known.contains(&fd) { Target::Other } else { directory.target(fd)? };
            if target == Target::Closed {
                return Ok(false);
            }
            end = end.max(fd + 1);
            if let Target::Socket(inode) = target {
                sockets.push((fd, inode));
            }
            Ok(true)
        });
        observe_all(&mut sockets);
        if is_late {
            return Err(late());
        }
        match result {
            Ok(()) => {
                let (round, count) = (self.round, directory.count());
                if let Some(table) = self.tables.get_mut(&table) {
                    (table.end, table.read_in, table.count) = (end, round, count);
                }
                if let Some(process) = self.processes.get_mut(&id) {
                    process.denied = false;
                }
            }
            Err(error) => self.unreadable(table, error),
        }
        Ok(())
    }

    /// Adds the tables of threads that do not share their process's.
    fn find_private_tables(&mut self, pid: u32, id: ProcessId) {
        let Ok(tasks) = std::fs::read_dir(self.root.join(format!("{pid}/task"))) else { return };
        let known: HashSet<u32> = self
            .tables
            .values()
            .filter(|table| table.process == id)
            .filter_map(|table| table.name.tid)
            .collect();
        for task in tasks.flatten() {
            let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if tid != pid && !known.contains(&tid) && !shares_table(&self.root, self.has_kcmp, pid, tid) {
                self.add_table(TableName { pid, tid: Some(tid) }, id);
            }
        }
    }

    /// A socket seen in a table: its holder, unless an older process is.
    fn observe(&mut self, table: u32, fd: u32, inode: u32) {
        let round = self.round;
        if let Some(table) = self.tables.get_mut(&table) {
            table.end = table.end.max(fd + 1);
            table.holds = true;
        }
        let found = Holder { table, fd, seen: round, found: round, cookie: 0 };
        match self.holders.entry(inode) {
            Entry::Vacant(entry) => {
                entry.insert(found);
            }
            Entry::Occupied(entry) => {
                let known = entry.get().table;
                if self.is_older(table, known) {
                    self.holders.insert(inode, found);
                }
            }
        }
    }

    /// The same at an fd that was tried on a guess: it may be anything, a UNIX socket for one.
    fn observe_wanted(&mut self, table: u32, fd: u32, inode: u32) {
        if self.wanted.contains_key(&inode) {
            self.observe(table, fd, inode);
        } else if let Some(table) = self.tables.get_mut(&table) {
            table.end = table.end.max(fd + 1);
        }
    }

    /// The same for a socket that nobody asked about. Whether this table is its holder now.
    fn observe_in_passing(&mut self, table: u32, fd: u32, inode: u32) -> bool {
        match self.holders.get_mut(&inode) {
            Some(holder) if holder.table == table => holder.fd = fd,
            Some(holder) => {
                let known = holder.table;
                if !self.is_older(table, known) {
                    return false;
                }
                self.observe(table, fd, inode);
            }
            None if self.unfound.remove(&inode).is_some() => self.observe(table, fd, inode),
            // No TCP socket, or one too new for the dump.
            None => return false,
        }
        true
    }

    /// Whether the process of table `a` started before that of table `b`, or `b` is gone.
    fn is_older(&self, a: u32, b: u32) -> bool {
        let age = |table: u32| {
            let process = &self.processes[&self.tables.get(&table)?.process];
            Some((process.start_time, process.pid))
        };
        match (age(a), age(b)) {
            (Some(a), Some(b)) => a < b,
            (a, _) => a.is_some(),
        }
    }

    fn tables_oldest_first(&self, wanted: impl Fn(&super::Table) -> bool) -> Vec<u32> {
        let mut tables: Vec<((u64, u32), u32)> = self
            .tables
            .iter()
            .filter(|(_, table)| wanted(table))
            .map(|(id, table)| {
                let process = &self.processes[&table.process];
                ((process.start_time, process.pid), *id)
            })
            .collect();
        tables.sort_unstable();
        tables.into_iter().map(|(_, id)| id).collect()
    }

    /// Opens a table; where that fails, takes note of why.
    fn open(&mut self, table: u32) -> Result<FdDirectory, Unreadable> {
        let name = self.tables.get(&table).ok_or(Unreadable::Vanished)?.name;
        FdDirectory::open(&self.root, name).inspect_err(|error| self.unreadable(table, *error))
    }

    fn unreadable(&mut self, table: u32, error: Unreadable) {
        let round = self.round;
        match error {
            Unreadable::Vanished => self.forget_table(table),
            // As it was: whatever still has to be read of it will be tried again.
            Unreadable::Failed => {}
            Unreadable::Denied => {
                if let Some(table) = self.tables.get_mut(&table) {
                    // As read as it can be: there is nothing more to find in it.
                    table.read_in = round;
                    if let Some(process) = self.processes.get_mut(&table.process) {
                        process.denied = true;
                    }
                }
            }
        }
    }
}

fn check_clock(deadline: Instant) -> Result<(), Error> {
    if Instant::now() >= deadline { Err(late()) } else { Ok(()) }
}

fn late() -> Error {
    Error::Deadline { what: "file descriptors" }
}
