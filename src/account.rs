//! Adds sockets up: per owner class, process, cgroup and state. Pure; every socket of a sample passes
//! [`Account::add`] exactly once, with its owner.

use std::time::Duration;

use hashbrown::HashMap;

use crate::cause::Verdicts;
use crate::sample::{Cause, CauseSums, OwnerClass, ProcessState, SocketSums, TcpState};
use crate::socket::Socket;

/// Names a process within one sample and, as long as it lives, across samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u32);

/// Who a socket is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A process holds it.
    Process(ProcessId),
    /// It waits in the accept queue of a listener that this process holds.
    AcceptQueue(ProcessId),
    /// Its application has closed it.
    Orphan,
    /// No process we can see holds it.
    Unresolved,
}

/// Whose sockets are looked at together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A process, the accept queues of its listeners included.
    Process(ProcessId),
    /// Nobody any more.
    Orphans,
    /// Nobody we can see.
    Unresolved,
}

impl Owner {
    /// Whose sockets this owner's are looked at with.
    pub fn holder(self) -> Holder {
        match self {
            Self::Process(process) | Self::AcceptQueue(process) => Holder::Process(process),
            Self::Orphan => Holder::Orphans,
            Self::Unresolved => Holder::Unresolved,
        }
    }

    fn class(self) -> OwnerClass {
        match self {
            Self::Process(_) => OwnerClass::Process,
            Self::AcceptQueue(_) => OwnerClass::AcceptQueue,
            Self::Orphan => OwnerClass::Orphan,
            Self::Unresolved => OwnerClass::Unresolved,
        }
    }
}

/// What the sockets of one cgroup hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupSums {
    /// r + w + f. Bytes.
    pub memory: i64,
    /// Unread payload. Bytes.
    pub receive_queue: u64,
}

/// The sums of one sample.
#[derive(Debug, Default, PartialEq)]
pub struct Account {
    /// Sockets added; an MPTCP connection is no socket beside its subflows, here and below.
    pub sockets: u64,
    /// Sockets by state.
    pub states: [u64; TcpState::ALL.len()],
    /// r + w + f by class. Bytes.
    pub attributed: [i64; OwnerClass::ALL.len()],
    /// Sockets by class.
    pub classes: [u64; OwnerClass::ALL.len()],
    /// Sums of each process that owns a socket, accept queues included.
    pub processes: HashMap<ProcessId, SocketSums>,
    /// Sums of what no process we can see owns.
    pub unresolved: SocketSums,
    /// Sums by cgroup id; sockets without one (old kernels) are in none.
    pub cgroups: HashMap<u64, CgroupSums>,
}

impl Account {
    /// Counts one socket for its owner, and its memory for the causes that hold it.
    pub fn add(&mut self, socket: &Socket, owner: Owner, verdicts: &Verdicts) {
        let memory = socket.memory();
        let counts = u64::from(!socket.is_mptcp);
        self.sockets += counts;
        self.states[socket.state.index()] += counts;
        self.attributed[owner.class() as usize] += memory;
        self.classes[owner.class() as usize] += counts;
        // A listener's queue figures count connections, not bytes.
        let is_listener = socket.state == TcpState::Listen;
        let receive_queue = if is_listener { 0 } else { u64::from(socket.rqueue) };
        let send_queue = if is_listener { 0 } else { u64::from(socket.wqueue) };
        if socket.cgroup != 0 {
            let cgroup = self.cgroups.entry(socket.cgroup).or_default();
            cgroup.memory += memory;
            cgroup.receive_queue += receive_queue;
        }
        let sums = match owner {
            Owner::Process(process) | Owner::AcceptQueue(process) => {
                self.processes.entry(process).or_default()
            }
            Owner::Unresolved => &mut self.unresolved,
            Owner::Orphan => return,
        };
        sums.memory += memory;
        sums.receive_memory += u64::from(socket.rmem_alloc);
        sums.send_memory += u64::from(socket.wmem_queued);
        sums.receive_queue += receive_queue;
        sums.send_queue += send_queue;
        sums.receive_queue_max = sums.receive_queue_max.max(receive_queue);
        sums.sockets[ProcessState::from(socket.state) as usize] += counts;
        if matches!(owner, Owner::AcceptQueue(_)) {
            sums.accept_queue_connections += counts;
            sums.accept_queue_memory += memory;
        }
        // What is reserved and not used yet goes with the larger part.
        let (receive, send) = (i64::from(socket.rmem_alloc), i64::from(socket.wmem_queued));
        let receive = if receive >= send { memory - send } else { receive };
        sums.by_cause[verdicts.receive.cause as usize].hold(receive, verdicts.receive.stalled);
        sums.by_cause[verdicts.send.cause as usize].hold(memory - receive, verdicts.send.stalled);
        // A socket counts once for each of its causes, and as active only where it has no other.
        let (receiving, sending) = (verdicts.receive.cause, verdicts.send.cause);
        if receiving != Cause::Active || sending == Cause::Active {
            sums.by_cause[receiving as usize].sockets += counts;
        }
        if sending != Cause::Active && sending != receiving {
            sums.by_cause[sending as usize].sockets += counts;
        }
    }
}

impl SocketSums {
    /// Adds another set of sockets to this one.
    pub fn merge(&mut self, other: &Self) {
        self.memory += other.memory;
        self.receive_memory += other.receive_memory;
        self.send_memory += other.send_memory;
        self.receive_queue += other.receive_queue;
        self.send_queue += other.send_queue;
        self.receive_queue_max = self.receive_queue_max.max(other.receive_queue_max);
        for (mine, theirs) in self.sockets.iter_mut().zip(other.sockets) {
            *mine += theirs;
        }
        self.accept_queue_connections += other.accept_queue_connections;
        self.accept_queue_memory += other.accept_queue_memory;
        for (mine, theirs) in self.by_cause.iter_mut().zip(other.by_cause) {
            mine.hold(theirs.memory, theirs.stalled);
            mine.sockets += theirs.sockets;
        }
    }
}

impl CauseSums {
    fn hold(&mut self, memory: i64, stalled: Duration) {
        self.memory += memory;
        self.stalled = self.stalled.max(stalled);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cause::Verdict;
    use crate::sample::Cause;

    fn socket() -> impl Strategy<Value = Socket> {
        let sizes = (any::<u32>(), any::<u32>(), any::<i32>(), any::<u32>(), any::<u32>());
        (sizes, 0..TcpState::ALL.len(), 0u64..4).prop_map(
            |((rmem_alloc, wmem_queued, forward_alloc, rqueue, wqueue), state, cgroup)| Socket {
                cookie: 0,
                cgroup,
                inode: 0,
                rmem_alloc,
                wmem_queued,
                forward_alloc,
                rqueue,
                wqueue,
                state: TcpState::ALL[state],
                is_mptcp: false,
            },
        )
    }

    fn owner() -> impl Strategy<Value = Owner> {
        prop_oneof![
            (0u32..5).prop_map(|id| Owner::Process(ProcessId(id))),
            (0u32..5).prop_map(|id| Owner::AcceptQueue(ProcessId(id))),
            Just(Owner::Orphan),
            Just(Owner::Unresolved),
        ]
    }

    fn verdicts() -> impl Strategy<Value = Verdicts> {
        let verdict = || {
            (0..Cause::ALL.len()).prop_map(|cause| Verdict { cause: Cause::ALL[cause], ..Verdict::ACTIVE })
        };
        (verdict(), verdict()).prop_map(|(receive, send)| Verdicts { receive, send })
    }

    proptest! {
        /// Classes sum to the sockets, process rows sum to the two classes that have a process, and the order of the
        /// sockets does not matter.
        #[test]
        fn sums_are_preserved(owned in proptest::collection::vec((socket(), owner(), verdicts()), 0..60)) {
            let mut account = Account::default();
            for (socket, owner, verdicts) in &owned {
                account.add(socket, *owner, verdicts);
            }
            let total: i64 = owned.iter().map(|(socket, ..)| socket.memory()).sum();
            prop_assert_eq!(account.attributed.iter().sum::<i64>(), total);
            prop_assert_eq!(account.states.iter().sum::<u64>(), owned.len() as u64);
            prop_assert_eq!(account.classes.iter().sum::<u64>(), owned.len() as u64);

            let mut rows = SocketSums::default();
            for sums in account.processes.values() {
                rows.merge(sums);
            }
            let [process, accept_queue, _, unresolved] = account.attributed;
            prop_assert_eq!(account.unresolved.memory, unresolved);
            prop_assert_eq!(rows.memory, process + accept_queue);
            prop_assert_eq!(rows.accept_queue_memory, accept_queue);
            prop_assert_eq!(rows.by_cause.iter().map(|sums| sums.memory).sum::<i64>(), rows.memory);
            let judged: u64 = rows.by_cause.iter().map(|sums| sums.sockets).sum();
            let sockets: u64 = rows.sockets.iter().sum();
            prop_assert!((sockets..=2 * sockets).contains(&judged), "each socket has one cause or two");

            let mut reversed = Account::default();
            for (socket, owner, verdicts) in owned.iter().rev() {
                reversed.add(socket, *owner, verdicts);
            }
            prop_assert_eq!(account, reversed);
        }
    }

    #[test]
    fn an_mptcp_connection_is_memory_beside_its_subflows() {
        let mut account = Account::default();
        let subflow = Socket {
            cookie: 0,
            cgroup: 0,
            inode: 0,
            rmem_alloc: 0,
            wmem_queued: 0,
            forward_alloc: 4096,
            rqueue: 0,
            wqueue: 0,
            state: TcpState::Established,
            is_mptcp: false,
        };
        let connection = Socket { rmem_alloc: 12_288, forward_alloc: 0, is_mptcp: true, ..subflow };
        account.add(&subflow, Owner::AcceptQueue(ProcessId(1)), &Verdicts::ACTIVE);
        account.add(&connection, Owner::AcceptQueue(ProcessId(1)), &Verdicts::ACTIVE);
        let sums = account.processes[&ProcessId(1)];
        assert_eq!((account.sockets, sums.accept_queue_connections), (1, 1));
        assert_eq!((sums.memory, sums.accept_queue_memory), (16_384, 16_384));
    }

    #[test]
    fn a_listeners_backlog_is_not_bytes() {
        let mut account = Account::default();
        let listener = Socket {
            cookie: 0,
            cgroup: 7,
            inode: 1,
            rmem_alloc: 0,
            wmem_queued: 0,
            forward_alloc: 0,
            rqueue: 128,
            wqueue: 4096,
            state: TcpState::Listen,
            is_mptcp: false,
        };
        account.add(&listener, Owner::Process(ProcessId(1)), &Verdicts::ACTIVE);
        let sums = account.processes[&ProcessId(1)];
        assert_eq!((sums.receive_queue, sums.send_queue, sums.receive_queue_max), (0, 0, 0));
        assert_eq!(sums.sockets[ProcessState::Listen as usize], 1);
        assert_eq!(account.cgroups[&7].receive_queue, 0);
    }
}
