//! sock_diag netlink: what we ask, how the answer is decoded, and the socket it travels through.

mod asker;
mod dump;
mod frames;
mod message;
mod query;
mod suspects;

pub use asker::{ASKER, run as run_asker};
pub use dump::Netlink;
pub use message::{Dump, Entry, Progress};
pub use query::Query;
pub use suspects::{ASKED_SINCE, Answers, Fate};

use std::time::Instant;

use super::error::Error;

/// The users who listen on a TCP port of the calling thread's network namespace, in no order, one for each listener.
pub fn listening_users(port: u16, deadline: Instant) -> Result<Vec<u32>, Error> {
    let mut users = Vec::new();
    Netlink::default().dump(Query::Listeners, deadline, &mut |entry| {
        if entry.local.port == port {
            users.push(entry.uid);
        }
    })?;
    Ok(users)
}

/// Whoever answers a dump: the kernel, or a recording of it.
pub trait SockDiag: Send {
    /// Dumps the calling thread's network namespace and hands every socket to `each`.
    ///
    /// # Errors
    /// Any error means that the dump is incomplete and what `each` saw must not be published.
    fn dump(&mut self, query: Query, deadline: Instant, each: &mut dyn FnMut(&Entry)) -> Result<(), Error>;

    /// Asks tcp_info of these sockets of the calling thread's namespace, as far as that goes before `deadline`: one answer
    /// for each, in order.
    fn ask(&mut self, suspects: Vec<Entry>, deadline: Instant) -> Answers;
}
