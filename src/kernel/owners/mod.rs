//! Which process holds a socket: from inode to process through `/proc/PID/fd`, reading as little as correctness
//! allows.
//!
//! A cold walk reads every fd of the host (2.8 us each) and so dominates a sample. After it, the map from inode to
//! holder is kept, and a round reads only what the dump calls for:
//!
//! 1. An inode that the map knows costs nothing. Where it matters more, the holder is asked again first: sockets
//!    that hold much memory ([`BIG`]) every round, and holders found lately ([`YOUNG_ROUNDS`]), because a parent often
//!    hands a connection to a child just after accepting it.
//! 2. An inode that it does not know has appeared since. New fds take the lowest free numbers: the ones that closed
//!    sockets have left, and the ones just above a table's end. Those are tried first.
//! 3. What is still missing is looked for in processes never read, then in whole tables again, changed ones first,
//!    within a budget of time unless much memory has been without an owner for a while.
//! 4. Independently, a slice of all tables is read again each round, so that every fd is checked once in
//!    [`ROTATION_ROUNDS`]: a hand-over that none of the above noticed shows up then.
//!
//! An inode needs no cookie beside it: inode numbers come from a 32-bit counter, and one that is missing from a complete
//! dump is dropped from the map in that round, four billion numbers before it can come again.

mod fds;
mod kcmp;
mod walk;

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use super::error::Error;
use super::proc_root::ProcRoot;
use super::process::{self, ProcessStat};
use crate::account::ProcessId;
use fds::{TableName, Unreadable};

/// A socket with this much memory has its holder confirmed every round. At most tcp_mem divided by it exist; on a
/// host with 2 GiB of TCP memory that is 8,192.
const BIG: i64 = 256 * 1024;
/// Confirmations of big sockets a round, which bounds their cost on hosts with hundreds of GiB of TCP memory. The
/// others wait for the rotation like small ones.
const BIG_CONFIRMATIONS_MAX: usize = 8192;
/// Rounds in which a holder found after the cold walk is confirmed before it counts as settled.
const YOUNG_ROUNDS: u32 = 2;
/// Rounds in which the rotation passes every fd of the host once: eight minutes at the default interval, at about a
/// tenth of a dump's cost a round.
const ROTATION_ROUNDS: u64 = 32;
/// A looking-for-nothing walk is repeated after 1, 2, 4 rounds and so on up to this many: sockets in flight in an
/// SCM_RIGHTS message, of the kernel, or of processes we may not look into are in no table.
const RETRY_ROUNDS_MAX: u32 = 16;
/// What the search in whole tables may cost at least, however fast the dump was.
const SEARCH_MIN: Duration = Duration::from_millis(20);
/// Memory without an owner since an earlier round from which the search has no budget but the sample's deadline.
const SEARCH_FREELY_FROM: i64 = 1 << 20;

/// While no dump is complete nothing says what has closed; what none has shown for this many rounds is forgotten, so
/// that the map stays bounded. As long as the rotation takes.
const UNSEEN_ROUNDS_MAX: u32 = 32;

/// A process whose fds count.
#[derive(Debug)]
struct Process {
    pid: u32,
    start_time: u64,
    denied: bool,
    /// Tables known of it: without any it is forgotten, and met anew in the next round if it is still there.
    tables: u32,
}

/// One fd table.
#[derive(Debug)]
struct Table {
    name: TableName,
    process: ProcessId,
    /// Round of the last whole reading; 0 for never.
    read_in: u32,
    /// Open fds then.
    count: u64,
    /// One past its highest fd seen.
    end: u32,
    /// Whether it may hold a TCP socket that a dump has shown.
    holds: bool,
}

/// Where a socket's file was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    table: u32,
    fd: u32,
    /// Round in which the dump last showed the socket.
    seen: u32,
    /// Round in which this holder was found; 0 for the cold walk.
    found: u32,
    /// Low half of the cookie of the socket that the dump showed first with this inode.
    cookie: u32,
}

/// A socket that no table has.
#[derive(Debug, Clone, Copy)]
struct Unfound {
    /// Round from which every table must have been read before the search is over.
    since: u32,
    /// Round of the next search; `None` for a socket without memory, which is left to the rotation.
    retry_in: Option<u32>,
    /// Rounds between this search and the next.
    wait: u32,
    seen: u32,
}

/// How much of this round's dump there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dump {
    Nothing,
    Part,
    Complete,
}

/// Whether a socket has been seen before in this round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// It has not.
    First,
    /// It has: the dump shows it twice.
    Duplicate,
    /// The map cannot tell: the inode is new to it, or several sockets share it (an MPTCP connection and its subflows, a
    /// listener and its queue).
    Unknown,
}

/// What the map says of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// This process holds it.
    Known(ProcessId),
    /// Ask again after [`Owners::resolve`].
    Pending,
    /// Looked for lately, in vain.
    Nobody,
}

/// The map from socket inode to holder.
#[derive(Debug)]
pub struct Owners {
    root: ProcRoot,
    /// Whether kcmp may be asked about the pids there.
    has_kcmp: bool,
    round: u32,
    next_process: u32,
    processes: HashMap<ProcessId, Process>,
    pids: HashMap<u32, ProcessId>,
    /// Pids that hide even their stat from us, and whether they count as processes.
    hidden: HashMap<u32, bool>,
    tables: HashMap<u32, Table>,
    next_table: u32,
    holders: HashMap<u32, Holder>,
    unfound: HashMap<u32, Unfound>,
    /// Inodes of this round's dump whose holder must be found or confirmed, with the memory at stake.
    wanted: HashMap<u32, i64>,
    big_confirmations: usize,
    seen: usize,
    dump: Dump,
    /// Where the rotation goes on: table and fd.
    cursor: (u32, u32),
}

impl Owners {
    /// Owners by the procfs at `root`. Knows nothing yet: the first round walks every table.
    pub fn new(root: ProcRoot) -> Self {
        Self {
            has_kcmp: kcmp::is_safe(&root),
            root,
            round: 0,
            next_process: 0,
            processes: HashMap::new(),
            pids: HashMap::new(),
            hidden: HashMap::new(),
            tables: HashMap::new(),
            next_table: 0,
            holders: HashMap::new(),
            unfound: HashMap::new(),
            wanted: HashMap::new(),
            big_confirmations: 0,
            seen: 0,
            dump: Dump::Nothing,
            cursor: (0, 0),
        }
    }

    /// Begins a round: takes note of processes that came and went, and walks every table in the first round.
    pub fn begin(&mut self, pids: &[u32], deadline: Instant) -> Result<(), Error> {
        // A dump that has shown nothing has added nothing, and says of no socket that it has closed.
        if std::mem::replace(&mut self.dump, Dump::Nothing) == Dump::Part {
            self.forget_unseen();
        }
        self.round += 1;
        self.wanted.clear();
        self.big_confirmations = 0;
        self.seen = 0;
        self.forget_exited(pids);
        let is_new = |pid: &u32| {
            let is_turn = (self.round + pid).is_multiple_of(RETRY_ROUNDS_MAX);
            !self.pids.contains_key(pid) && (is_turn || !self.hidden.contains_key(pid))
        };
        let new: Vec<u32> = pids.iter().copied().filter(is_new).collect();
        for pid in new {
            self.admit(pid);
        }
        if self.round == 1 { self.walk_everything(deadline) } else { Ok(()) }
    }

    /// After a dump that was not complete: drops what has not been shown for long.
    fn forget_unseen(&mut self) {
        let oldest = self.round.saturating_sub(UNSEEN_ROUNDS_MAX);
        self.holders.retain(|_, holder| holder.seen >= oldest);
        self.unfound.retain(|_, unfound| unfound.seen >= oldest);
    }

    /// Drops processes that are not listed any more, or whose pid another has taken.
    fn forget_exited(&mut self, pids: &[u32]) {
        let listed: HashSet<u32> = pids.iter().copied().collect();
        let holding: HashSet<ProcessId> =
            self.tables.values().filter(|table| table.holds).map(|table| table.process).collect();
        let exited: Vec<ProcessId> = self
            .processes
            .iter()
            .filter(|(id, process)| {
                !listed.contains(&process.pid)
                    // A pid is only asked again where something is known by it; reading a table asks too.
                    || (holding.contains(*id) && !self.is_same_process(process))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in exited {
            self.forget(id);
        }
        self.hidden.retain(|pid, _| listed.contains(pid));
    }

    /// Whether its pid is still that process's. Where this cannot be told now, it is taken to be.
    fn is_same_process(&self, known: &Process) -> bool {
        match self.stat(known.pid) {
            Ok(stat) => stat.start_time == known.start_time,
            Err(error) => error != Unreadable::Vanished,
        }
    }

    fn stat(&self, pid: u32) -> Result<ProcessStat, Unreadable> {
        Ok(process::stat(&self.root, pid)?)
    }

    fn forget(&mut self, id: ProcessId) {
        if let Some(process) = self.processes.remove(&id) {
            self.pids.remove(&process.pid);
            self.tables.retain(|_, table| table.process != id);
        }
    }

    /// Forgets a table that is gone, and its process if it has no other.
    fn forget_table(&mut self, table: u32) {
        let Some(id) = self.tables.remove(&table).map(|table| table.process) else { return };
        let Some(process) = self.processes.get_mut(&id) else { return };
        process.tables -= 1;
        if process.tables == 0 {
            self.pids.remove(&process.pid);
            self.processes.remove(&id);
        }
    }

    /// Takes note of a process, unless it is a kernel thread or gone.
    fn admit(&mut self, pid: u32) {
        self.hidden.remove(&pid);
        let stat = match self.stat(pid) {
            Ok(stat) => stat,
            Err(Unreadable::Denied) => {
                self.hidden.insert(pid, self.is_surely_a_process(pid));
                return;
            }
            Err(Unreadable::Vanished | Unreadable::Failed) => return,
        };
        if stat.is_kernel_thread {
            return;
        }
        let id = ProcessId(self.next_process);
        self.next_process += 1;
        let start_time = stat.start_time;
        self.processes.insert(id, Process { pid, start_time, denied: false, tables: 0 });
        self.pids.insert(pid, id);
        self.add_table(TableName { pid, tid: None }, id);
    }

    /// Whether a pid whose stat is hidden (`hidepid=1`) is no kernel thread. Those belong to the owner of procfs itself,
    /// and so do daemons of root, which are not told from them; the first pid is never one.
    fn is_surely_a_process(&self, pid: u32) -> bool {
        let owner = |relative: &str| std::fs::metadata(self.root.join(relative)).map(|of| of.uid()).ok();
        pid == 1 || owner(&pid.to_string()) != owner("")
    }

    fn add_table(&mut self, name: TableName, process: ProcessId) -> u32 {
        let id = self.next_table;
        self.next_table += 1;
        if let Some(process) = self.processes.get_mut(&process) {
            process.tables += 1;
        }
        self.tables.insert(id, Table { name, process, read_in: 0, count: 0, end: 0, holds: false });
        id
    }

    /// Takes note that the dump shows a socket with this inode, or with this inode of its listener.
    pub fn sight(&mut self, inode: u32, cookie: u64) -> Sighting {
        self.dump = Dump::Part;
        let Some(holder) = self.holders.get_mut(&inode) else { return Sighting::Unknown };
        // Cutting off the high half is meant: it differs for no two sockets that share an inode.
        #[allow(clippy::cast_possible_truncation)]
        let cookie = cookie as u32;
        if holder.seen != self.round {
            (holder.seen, holder.cookie) = (self.round, cookie);
            self.seen += 1;
            Sighting::First
        } else if holder.cookie == cookie {
            Sighting::Duplicate
        } else {
            Sighting::Unknown
        }
    }

    /// Looks up the holder of an inode whose socket, just sighted, has `memory` bytes.
    pub fn lookup(&mut self, inode: u32, memory: i64) -> Lookup {
        let round = self.round;
        if let Some(holder) = self.holders.get(&inode) {
            if let Some(table) = self.tables.get(&holder.table) {
                let is_young = holder.found != 0 && round - holder.found <= YOUNG_ROUNDS;
                let is_big = memory >= BIG && self.big_confirmations < BIG_CONFIRMATIONS_MAX;
                // The cold walk is this very round: there is nothing to confirm yet.
                if round == 1 || !(is_young || is_big) {
                    return Lookup::Known(table.process);
                }
                self.big_confirmations += usize::from(is_big);
            }
        } else if let Some(unfound) = self.unfound.get_mut(&inode) {
            unfound.seen = round;
            let retry_in = unfound.retry_in.unwrap_or(if memory > 0 { round } else { u32::MAX });
            if retry_in > round {
                return Lookup::Nobody;
            }
        }
        *self.wanted.entry(inode).or_default() += memory;
        Lookup::Pending
    }

    /// The holder of an inode, after [`Owners::resolve`].
    pub fn holder(&self, inode: u32) -> Option<ProcessId> {
        let holder = self.holders.get(&inode)?;
        Some(self.tables.get(&holder.table)?.process)
    }

    /// The pid of a process.
    pub fn pid(&self, id: ProcessId) -> Option<u32> {
        self.processes.get(&id).map(|process| process.pid)
    }

    /// Whether the process that has this pid now is the one that is known by it.
    pub fn is_alive(&self, id: ProcessId) -> bool {
        self.processes.get(&id).is_some_and(|process| self.is_same_process(process))
    }

    /// Processes whose tables we may not read.
    pub fn denied(&self) -> u64 {
        self.processes.values().filter(|process| process.denied).count() as u64 + self.hidden()
    }

    /// Processes known.
    pub fn processes(&self) -> u64 {
        self.processes.len() as u64 + self.hidden()
    }

    fn hidden(&self) -> u64 {
        self.hidden.values().filter(|is_process| **is_process).count() as u64
    }

    /// Ends a round after a complete dump: drops what it did not show, and notes which tables hold what it did.
    pub fn end(&mut self) {
        let round = self.round;
        self.dump = Dump::Complete;
        let Self { holders, tables, .. } = self;
        tables.values_mut().for_each(|table| table.holds = false);
        holders.retain(|_, holder| {
            let is_shown = holder.seen == round;
            if is_shown && let Some(table) = tables.get_mut(&holder.table) {
                table.holds = true;
            }
            is_shown
        });
        self.unfound.retain(|_, unfound| unfound.seen == round);
    }
}

#[cfg(test)]
mod tests;
