//! A process that does one kind of work and nothing else, so that its memory is that work's.

use clap::ValueEnum;
use skmem_exporter::kernel::diag::Netlink;

use crate::Result;
use crate::child::{self, Child};
use crate::figures::{Measured, Seen, measure};
use crate::follow::{Following, Suspects};
use crate::{floor, ours, proto};

/// Kinds of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Bare kernel dump.
    BareDump,
    /// Bare walk over all file descriptors.
    FdWalk,
    /// Our receive loop and decoder.
    ReceiveLoop,
    /// netlink-proto, every message parsed whole by netlink-packet-sock-diag.
    ProtoFull,
    /// netlink-proto with a message type that takes only what we need.
    ProtoSlim,
    /// Whole samples, one after another.
    Sample,
    /// Following sockets and nothing else.
    Following,
    /// Asking suspects and nothing else.
    Suspects,
}

/// The role: does the work once for every order.
pub fn serve(kind: Kind) -> Result<()> {
    let mut work: Box<dyn FnMut() -> Result<Seen>> = match kind {
        Kind::BareDump => {
            let mut buffer = Vec::new();
            Box::new(move || floor::dump(&mut buffer))
        }
        Kind::FdWalk => Box::new(floor::fd_walk),
        Kind::ReceiveLoop => {
            let mut diag = Netlink::default();
            Box::new(move || ours::receive_loop(&mut diag))
        }
        Kind::ProtoFull => {
            let runtime = proto::runtime()?;
            Box::new(move || proto::full(&runtime))
        }
        Kind::ProtoSlim => {
            let runtime = proto::runtime()?;
            Box::new(move || proto::slim(&runtime))
        }
        Kind::Sample => {
            let mut kernel = ours::kernel()?;
            Box::new(move || ours::sample(&mut kernel))
        }
        Kind::Following => {
            let mut following = Following::default();
            Box::new(move || Ok(following.round()))
        }
        Kind::Suspects => {
            let mut suspects = Suspects::find()?;
            Box::new(move || suspects.ask())
        }
    };
    child::serve(|_| measure(&mut work))
}

/// The process, as seen by the one that wants the work done.
#[derive(Debug)]
pub struct Probe(Child);

impl Probe {
    /// Starts one.
    pub fn start(kind: Kind) -> Result<Self> {
        let name = kind.to_possible_value().ok_or("a kind without a name")?;
        Ok(Self(Child::start(&["probe", name.get_name()])?))
    }

    /// Has the work done once.
    pub fn measure(&mut self) -> Result<Measured> {
        self.0.ask("go")
    }
}
