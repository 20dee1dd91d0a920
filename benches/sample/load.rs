//! The load: connections over loopback in several processes, some with unread data, that can be replaced.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use clap::Args;
use rustix::net::sockopt::set_socket_linger;

use crate::Result;
use crate::child::{self, Child};
use crate::figures::Measured;

/// Sockets of one process: what fits below 20,000 file descriptors, a common hard limit.
const SOCKETS_PER_PROCESS: u64 = 19_800;
/// One connection in so many has unread data.
const UNREAD_EVERY: usize = 10;
/// How much: a small request that nobody has read. At 200,000 sockets that holds tens of MiB of TCP memory, far from
/// any default limit.
const UNREAD: [u8; 4096] = [1; 4096];
/// Any port: the namespace is ours.
const PORT: u16 = 5000;

/// What one process of the load holds.
#[derive(Debug, Clone, Copy, Args)]
pub struct Connections {
    /// Which process: it gives each a loopback address and so a range of ports of its own
    #[arg(long)]
    index: u16,
    /// How many, two sockets each
    #[arg(long)]
    count: usize,
}

/// The role: opens the connections, then replaces as many as each order says.
pub fn serve(connections: &Connections) -> Result<()> {
    let mut holding = Holding::open(connections)?;
    println!("{}", serde_json::to_string(&holding.sockets())?);
    child::serve(|order| {
        holding.replace(order.parse()?)?;
        Ok(holding.sockets())
    })
}

struct Holding {
    listener: TcpListener,
    address: SocketAddr,
    connections: Vec<Option<(TcpStream, TcpStream)>>,
    /// The connection after the one replaced last.
    next: usize,
}

impl Holding {
    fn open(connections: &Connections) -> Result<Self> {
        let [high, low] = connections.index.to_be_bytes();
        let address = SocketAddrV4::new(Ipv4Addr::new(127, 1 + high, low, 1), PORT).into();
        let listener = TcpListener::bind(address)?;
        let mut holding = Self { listener, address, connections: Vec::new(), next: 0 };
        for index in 0..connections.count {
            let pair = holding.connect(index)?;
            holding.connections.push(Some(pair));
        }
        Ok(holding)
    }

    fn sockets(&self) -> u64 {
        1 + 2 * self.connections.len() as u64
    }

    fn connect(&self, index: usize) -> Result<(TcpStream, TcpStream)> {
        let mut client = TcpStream::connect(self.address)?;
        let (server, _) = self.listener.accept()?;
        if index.is_multiple_of(UNREAD_EVERY) {
            client.write_all(&UNREAD)?;
        }
        // Replaced connections are reset: no TIME_WAIT is left behind to make later dumps longer than earlier ones.
        set_socket_linger(&client, Some(Duration::ZERO))?;
        set_socket_linger(&server, Some(Duration::ZERO))?;
        Ok((client, server))
    }

    /// Closes connections spread over the whole table, then opens as many.
    fn replace(&mut self, count: usize) -> Result<()> {
        let total = self.connections.len();
        let stride = total.checked_div(count).unwrap_or(0);
        let indices: Vec<usize> = (0..count).map(|nth| (self.next + nth * stride) % total).collect();
        for index in &indices {
            self.connections[*index] = None;
        }
        for index in indices {
            self.connections[index] = Some(self.connect(index)?);
        }
        self.next = (self.next + 1) % total;
        Ok(())
    }
}

/// All processes of the load.
#[derive(Debug)]
pub struct Load {
    processes: Vec<LoadProcess>,
}

#[derive(Debug)]
struct LoadProcess {
    child: Child,
    sockets: u64,
    /// Connections it replaces when 1 % of all are.
    hundredth: usize,
}

impl Load {
    /// Opens about `sockets` sockets and waits until they are open.
    pub fn open(sockets: u64) -> Result<Self> {
        let processes = sockets.div_ceil(SOCKETS_PER_PROCESS);
        let count = usize::try_from(sockets / 2 / processes)?;
        let mut children = (0..processes)
            .map(|index| {
                Child::start(&["load", "--index", &index.to_string(), "--count", &count.to_string()])
            })
            .collect::<Result<Vec<_>>>()?;
        let opened = children.iter_mut().map(Child::answer).collect::<Result<Vec<u64>>>()?;
        let processes = children
            .into_iter()
            .zip(opened)
            .map(|(child, sockets)| LoadProcess { child, sockets, hundredth: count.div_ceil(100) })
            .collect();
        Ok(Self { processes })
    }

    /// Sockets that are open.
    pub fn sockets(&self) -> u64 {
        self.processes.iter().map(|process| process.sockets).sum()
    }

    /// Processes that hold them.
    pub fn processes(&self) -> usize {
        self.processes.len()
    }

    /// Closes 1 % of the sockets and opens as many.
    pub fn replace_hundredth(&mut self) -> Result<()> {
        for process in &mut self.processes {
            process.child.order(&process.hundredth.to_string())?;
        }
        for process in &mut self.processes {
            let sockets: u64 = process.child.answer()?;
            if sockets != process.sockets {
                return Err(format!("{sockets} sockets instead of {}", process.sockets).into());
            }
        }
        Ok(())
    }

    /// Whether a dump has seen every socket, as no other is in the namespace.
    pub fn check_dump(&self, measured: &Measured) -> Result<()> {
        let (seen, open) = (measured.seen.sockets, self.sockets());
        if seen == open { Ok(()) } else { Err(format!("a dump showed {seen} of {open} sockets").into()) }
    }

    /// Whether a walk over all file descriptors has seen at least the load's sockets.
    pub fn check_walk(&self, measured: &Measured) -> Result<()> {
        let (seen, open) = (measured.seen.sockets, self.sockets());
        if seen >= open { Ok(()) } else { Err(format!("a walk met {seen} of {open} sockets").into()) }
    }

    /// Whether a sample counts every socket for the process that holds it, and all their memory, which is what
    /// `reference` says by another way.
    pub fn check_sample(&self, sample: &Measured, reference: &Measured) -> Result<()> {
        let mut memory = 0;
        for process in &self.processes {
            let pid = process.child.pid();
            let row = sample.seen.rows.iter().find(|row| row.pid == pid);
            let Some(row) = row.filter(|row| row.sockets == process.sockets) else {
                return Err(
                    format!("pid {pid} has {} sockets, the sample says {row:?}", process.sockets).into()
                );
            };
            memory += row.memory;
        }
        if memory == reference.seen.memory {
            Ok(())
        } else {
            Err(format!("{} bytes of TCP memory, the sample says {memory}", reference.seen.memory).into())
        }
    }
}
