//! What telling causes costs: following sockets, and asking suspects.

use std::time::{Duration, Instant};

use skmem_exporter::cause::{Verdicts, judge};
use skmem_exporter::follow::Followed;
use skmem_exporter::kernel::diag::{Entry, Fate, Netlink, Query, SockDiag};
use skmem_exporter::sample::TcpState;
use skmem_exporter::socket::Socket;
use skmem_exporter::tcp_info::TcpInfo;

use crate::Result;
use crate::figures::Seen;

/// Sockets followed: as many as the bars are set for, every one of them holding something all the time.
pub const FOLLOWED: u64 = 200_000;
/// Suspects asked: as many as a sample asks.
pub const SUSPECTS: usize = 1000;
/// More than it takes.
const DEADLINE: Duration = Duration::from_secs(10);
const STALL_AFTER: Duration = Duration::from_secs(30);

/// Sockets that all are suspects, with as many answers remembered as there may be.
#[derive(Debug, Default)]
pub struct Following {
    followed: Followed,
    now: Duration,
}

impl Following {
    /// One sample's share: every socket is sighted, and judged as far as it has answered.
    pub fn round(&mut self) -> Seen {
        let mut seen = Seen::default();
        for cookie in 0..FOLLOWED {
            let socket = socket(cookie);
            let Some(sighted) = self.followed.sight(&socket, false, self.now) else { continue };
            seen.sockets += 1;
            let verdicts =
                sighted.standing.unwrap_or_else(|| judge(&socket, false, &sighted.history, STALL_AFTER));
            seen.memory += i64::from(verdicts != Verdicts::ACTIVE);
            if sighted.is_suspect && sighted.answered.is_none() && self.followed.room() > 0 {
                let info = TcpInfo { bytes_received: Some(5000), ..TcpInfo::default() };
                self.followed.answer(&socket, 131_072, info, self.now);
                self.followed.judged(&socket, &Verdicts::ACTIVE);
            }
        }
        self.followed.end();
        self.now += Duration::from_secs(15);
        seen
    }
}

fn socket(cookie: u64) -> Socket {
    Socket {
        // Cookies as the kernel gives them out are ascending, tables show them in any order.
        cookie: cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        cgroup: 1,
        inode: 1,
        rmem_alloc: 8192,
        wmem_queued: 0,
        forward_alloc: 0,
        rqueue: 5000,
        wqueue: 0,
        state: TcpState::Established,
        is_mptcp: false,
    }
}

/// Sockets of the load that hold something.
#[derive(Debug)]
pub struct Suspects {
    diag: Netlink,
    suspects: Vec<Entry>,
}

impl Suspects {
    /// Finds them.
    pub fn find() -> Result<Self> {
        let mut diag = Netlink::asking();
        let mut suspects = Vec::new();
        diag.dump(Query::Tcp, Instant::now() + DEADLINE, &mut |entry| {
            if entry.socket.rqueue > 0
                && entry.socket.state == TcpState::Established
                && suspects.len() < SUSPECTS
            {
                suspects.push(*entry);
            }
        })?;
        // The smallest load has about as many.
        if suspects.len() < SUSPECTS * 9 / 10 {
            return Err(format!("only {} sockets hold something", suspects.len()).into());
        }
        Ok(Self { diag, suspects })
    }

    /// Asks all of them, as a sample does.
    pub fn ask(&mut self) -> Result<Seen> {
        let fates = self.diag.ask(self.suspects.clone(), Instant::now() + DEADLINE);
        let answered = fates.iter().filter(|fate| matches!(fate, Fate::Answered(..))).count();
        if answered < self.suspects.len() {
            return Err(format!("only {answered} of {} suspects answered", self.suspects.len()).into());
        }
        Ok(Seen { sockets: answered as u64, ..Seen::default() })
    }
}
