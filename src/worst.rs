//! The few sockets of each owner that an engineer would look at first. Pure, and bounded whatever streams by.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use hashbrown::HashMap;

use crate::account::Holder;
use crate::cause::{Verdict, Verdicts};
use crate::sample::{Cause, Connection, ListenerQueue, Worst};
use crate::socket::Socket;

/// Connections of each cause, and listeners, kept of each owner: what one looks at before going to `ss` for the rest.
pub const KEPT_MAX: usize = 10;

/// An active socket with less memory says nothing that the sums do not. Half of a new socket's receive buffer.
const ACTIVE_FLOOR: i64 = 64 * 1024;

/// Of somebody of whom nothing was worth keeping.
const NONE: &Worst = &Worst { connections: Vec::new(), listeners: Vec::new() };

/// Order among the sockets of one owner: stalled before active, then by memory, then by how long. Among equals by their two
/// ends, whichever is ours: two owners with the ends of the same connections keep the same ones.
type Rank = (bool, i64, Duration, Reverse<[Option<SocketAddr>; 2]>);

/// What is kept of each owner.
#[derive(Debug, Default)]
pub struct WorstOf(HashMap<Holder, Worst>);

impl WorstOf {
    /// Keeps a connection, if it is among the worst of `holder` and of its cause so far.
    pub fn offer(&mut self, holder: Holder, connection: Connection) {
        let kept = &mut self.0.entry(holder).or_default().connections;
        let cause = connection.cause;
        kept.push(connection);
        let alike = || (0..kept.len()).filter(|index| kept[*index].cause == cause);
        if alike().count() > KEPT_MAX {
            let least = alike().min_by_key(|index| rank(&kept[*index])).unwrap_or_default();
            kept.swap_remove(least);
        }
    }

    /// Keeps a listener with connections in its queue, if that is among the longest of `holder` so far.
    pub fn offer_listener(&mut self, holder: Holder, queue: ListenerQueue) {
        let kept = &mut self.0.entry(holder).or_default().listeners;
        kept.push(queue);
        if kept.len() > KEPT_MAX {
            let least = (0..kept.len()).min_by_key(|index| kept[*index].waiting).unwrap_or_default();
            kept.swap_remove(least);
        }
    }

    /// What has been kept of `holder` so far, in no order.
    pub fn of(&self, holder: Holder) -> &Worst {
        self.0.get(&holder).unwrap_or(NONE)
    }

    /// What was kept of `holder`, worst first.
    pub fn take(&mut self, holder: Holder) -> Worst {
        let mut worst = self.0.remove(&holder).unwrap_or_default();
        worst.connections.sort_by_key(|one| Reverse(rank(one)));
        worst.listeners.sort_by_key(|listener| (Reverse(listener.waiting), listener.local));
        worst
    }
}

fn rank(connection: &Connection) -> Rank {
    let mut ends = [connection.local, connection.remote];
    ends.sort_unstable();
    (connection.cause != Cause::Active, connection.memory_bytes, connection.stalled, Reverse(ends))
}

/// Whether a socket can be among the worst at all.
pub fn is_worth_keeping(socket: &Socket, verdicts: &Verdicts) -> bool {
    leading(socket, verdicts).cause != Cause::Active || socket.memory() >= ACTIVE_FLOOR
}

/// The verdict on a socket as a whole: on the part that is stalled, and of two such parts on the larger one.
pub fn leading(socket: &Socket, verdicts: &Verdicts) -> Verdict {
    let Verdicts { receive, send } = *verdicts;
    match (receive.cause, send.cause) {
        (Cause::Active, _) => send,
        (_, Cause::Active) => receive,
        _ if socket.wmem_queued > socket.rmem_alloc => send,
        _ => receive,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::account::ProcessId;
    use crate::sample::TcpState;

    fn socket(memory: u32) -> Socket {
        Socket {
            cookie: 1,
            cgroup: 0,
            inode: 1,
            rmem_alloc: memory,
            wmem_queued: 0,
            forward_alloc: 0,
            rqueue: 0,
            wqueue: 0,
            state: TcpState::Established,
            is_mptcp: false,
        }
    }

    fn connection(socket: &Socket, verdicts: &Verdicts) -> Connection {
        let verdict = leading(socket, verdicts);
        Connection {
            namespace: 1,
            local: None,
            remote: None,
            state: socket.state,
            is_queued: false,
            memory_bytes: socket.memory(),
            receive_memory_bytes: socket.rmem_alloc,
            send_memory_bytes: 0,
            receive_queue_bytes: 0,
            send_queue_bytes: 0,
            receive_buffer_bytes: 0,
            cause: verdict.cause,
            stalled: verdict.stalled,
            tcp_info: None,
        }
    }

    const HOLDER: Holder = Holder::Process(ProcessId(1));

    fn stalled(cause: Cause, seconds: u64) -> Verdicts {
        let verdict = Verdict { cause, stalled: Duration::from_secs(seconds) };
        Verdicts { receive: verdict, ..Verdicts::ACTIVE }
    }

    proptest! {
        /// The bounded selection keeps what sorting everything would put first.
        #[test]
        fn keeps_the_worst(sockets in proptest::collection::vec((0u32..1_000_000, any::<bool>()), 0..60)) {
            let mut worst = WorstOf::default();
            let mut all = Vec::new();
            for (memory, is_stalled) in sockets {
                let socket = socket(memory);
                let verdicts = if is_stalled { stalled(Cause::NotReading, 9) } else { Verdicts::ACTIVE };
                if is_worth_keeping(&socket, &verdicts) {
                    worst.offer(HOLDER, connection(&socket, &verdicts));
                    all.push((is_stalled, socket.memory()));
                }
            }
            all.sort_unstable_by(|a, b| b.cmp(a));
            let (mut stalled, mut active): (Vec<_>, Vec<_>) = all.into_iter().partition(|(is_stalled, _)| *is_stalled);
            stalled.truncate(KEPT_MAX);
            active.truncate(KEPT_MAX);
            stalled.append(&mut active);
            let all = stalled;
            let kept = worst.take(HOLDER).connections;
            let kept: Vec<_> =
                kept.iter().map(|kept| (kept.cause != Cause::Active, kept.memory_bytes)).collect();
            prop_assert_eq!(kept, all);
            prop_assert_eq!(worst.take(HOLDER), Worst::default(), "taken once");
        }
    }

    #[test]
    fn the_stalled_part_speaks_for_the_socket() {
        let mut one = socket(5000);
        let verdicts = stalled(Cause::NotReading, 4);
        assert_eq!(leading(&one, &verdicts).cause, Cause::NotReading);
        let send = Verdict { cause: Cause::PeerNotReading, stalled: Duration::from_secs(5) };
        assert_eq!(leading(&one, &Verdicts { send, ..Verdicts::ACTIVE }).cause, Cause::PeerNotReading);
        one.wmem_queued = 6000;
        assert_eq!(leading(&one, &Verdicts { send, ..verdicts }).cause, Cause::PeerNotReading);
    }

    #[test]
    fn the_longest_queues_are_kept() {
        let mut worst = WorstOf::default();
        for waiting in 1..=25 {
            let queue =
                ListenerQueue { namespace: 1, local: ([127, 0, 0, 1], 80).into(), waiting, limit: 10 };
            worst.offer_listener(HOLDER, queue);
        }
        let kept = worst.take(HOLDER).listeners;
        assert_eq!(
            kept.iter().map(|queue| queue.waiting).collect::<Vec<_>>(),
            (16..=25).rev().collect::<Vec<_>>()
        );
    }
}
