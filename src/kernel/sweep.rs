//! One round through all network namespaces: counters and dumps.

use std::time::Instant;

use hashbrown::HashSet;

use super::diag::SockDiag;
use super::error::Error;
use super::host::NamespaceFigures;
use super::netns::{self, Found, Handle, Namespace, NotEntered};
use super::outcome::Outcomes;
use super::proc_root::ProcRoot;
use super::round::Round;
use crate::sample::{NamespaceCounts, Sample, Source, TcpState};

/// Where to ask for sockets that are bound and not hashed. Asking costs a sixth of a dump, and a whole dump where a
/// namespace would need none otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundSearch {
    /// Nowhere: by the sockstats there are no such sockets.
    Nowhere,
    /// In the exporter's own namespace, in those that showed one in the round before, wherever a dump is made anyway, and
    /// in a few of the others by turns.
    Cheaply,
    /// In every namespace: memory is missing that such sockets may hold.
    Everywhere,
}

impl BoundSearch {
    /// What to do in the round after `sample`, when sockstat counted `unhashed` sockets. The counters are not read in one
    /// instant, so sockets that were shown count as much as those counted: the search must not come and go with the
    /// host's churn.
    pub fn after(unhashed: Option<u64>, sample: &Sample) -> Self {
        let any_shown = sample.states[TcpState::Close.index()] > 0;
        let bound = sample.unattributed_bound.and_then(|bound| i64::try_from(bound).ok());
        if unhashed == Some(0) && !any_shown {
            Self::Nowhere
        } else if sample.unattributed.zip(bound).is_none_or(|(missing, bound)| missing > bound) {
            Self::Everywhere
        } else {
            Self::Cheaply
        }
    }
}

/// Rounds in which every quiet namespace has its turn once: eight minutes at the default interval.
const QUIET_TURNS: u64 = 32;

/// What a sweep has read.
#[derive(Debug, Default)]
pub struct Swept {
    /// Counters by namespace inode, the exporter's own first.
    pub figures: Vec<(u64, NamespaceFigures)>,
    /// How the namespaces fared.
    pub namespaces: NamespaceCounts,
    /// Whether every namespace that was entered has been dumped to its end.
    pub is_complete: bool,
    /// Namespaces that showed bound sockets that are not hashed.
    pub showed_bound: HashSet<u64>,
}

/// The means of a sweep.
pub struct Sweep<'a, 'r, D> {
    /// Where procfs is.
    pub root: &'a ProcRoot,
    /// Who answers dumps.
    pub diag: &'a mut D,
    /// Where sockets are counted.
    pub round: &'a mut Round<'r>,
    /// Where to ask for bound sockets.
    pub search: BoundSearch,
    /// Namespaces that showed some in the round before.
    pub showed_bound: &'a HashSet<u64>,
    /// Counts rounds: whose turn it is to be searched though it seems quiet.
    pub turn: u64,
    /// When the sample must be over.
    pub deadline: Instant,
}

impl<D: SockDiag> Sweep<'_, '_, D> {
    /// Reads every namespace that was found.
    pub fn all(&mut self, found: &Found, outcomes: &mut Outcomes) -> Swept {
        let mut swept = Swept { is_complete: true, ..Swept::default() };
        let Some((own, foreign)) = found.namespaces.split_first() else { return swept };
        self.one(own, "self/net", self.search != BoundSearch::Nowhere, &mut swept, outcomes);
        if !foreign.is_empty() {
            self.foreign(foreign, &mut swept, outcomes);
        }
        swept
    }

    /// All other namespaces, on a thread that ends with the round: it never has to find its way back, and nothing it
    /// opened outlives it.
    fn foreign(&mut self, namespaces: &[Namespace], swept: &mut Swept, outcomes: &mut Outcomes) {
        let read = || {
            for namespace in namespaces {
                self.enter_and_read(namespace, swept, outcomes);
            }
        };
        let spawned = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netns".to_owned());
            thread.spawn_scoped(scope, read).map(|_| ())
        });
        if let Err(source) = spawned {
            swept.is_complete = false;
            swept.namespaces.failed += namespaces.len() as u64;
            outcomes.failed(Source::Namespaces, Error::Call { call: "clone(netns thread)", source });
        }
    }

    fn enter_and_read(&mut self, namespace: &Namespace, swept: &mut Swept, outcomes: &mut Outcomes) {
        match netns::enter(self.root, namespace) {
            Ok(()) => {
                let has_turn = (namespace.inode + self.turn).is_multiple_of(QUIET_TURNS);
                let spares_nothing = match self.search {
                    BoundSearch::Nowhere => false,
                    BoundSearch::Cheaply => has_turn || self.showed_bound.contains(&namespace.inode),
                    BoundSearch::Everywhere => true,
                };
                self.one(namespace, "thread-self/net", spares_nothing, swept, outcomes);
            }
            Err(NotEntered::Vanished) => {}
            Err(NotEntered::Failed(error)) => {
                swept.namespaces.failed += 1;
                outcomes.failed(Source::Namespaces, error);
                // Its counters need no privilege where a process shows them.
                let process = namespace.handles.iter().find_map(|handle| match handle {
                    Handle::Process(pid) => Some(pid),
                    Handle::Own | Handle::Mount(_) => None,
                });
                if let Some(pid) = process {
                    let mut unnoted = Outcomes::default();
                    let figures = NamespaceFigures::read(self.root, &format!("{pid}/net"), &mut unnoted);
                    swept.figures.push((namespace.inode, figures));
                }
            }
        }
    }

    /// The namespace that the calling thread is in. The memory counter is read right before the dump that it is compared
    /// with.
    fn one(
        &mut self,
        namespace: &Namespace,
        net: &str,
        spares_nothing: bool,
        swept: &mut Swept,
        outcomes: &mut Outcomes,
    ) {
        let figures = NamespaceFigures::read(self.root, net, outcomes);
        swept.figures.push((namespace.inode, figures));
        // What the counters say spares dumps; bound sockets are in no counter.
        let inuse = if spares_nothing { None } else { figures.inuse() };
        let asks_for_bound = spares_nothing || self.search != BoundSearch::Nowhere;
        let dumped =
            self.round.dump_namespace(self.diag, namespace.inode, inuse, asks_for_bound, self.deadline);
        if let Some(bound) = outcomes.note(Source::SockDiag, dumped) {
            swept.namespaces.sampled += 1;
            if bound > 0 {
                swept.showed_bound.insert(namespace.inode);
            }
        } else {
            swept.namespaces.failed += 1;
            swept.is_complete = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_sockets_are_looked_for_as_far_as_there_may_be_any() {
        let sample = |closed, unattributed| {
            let mut sample = Sample { unattributed, unattributed_bound: Some(100), ..Sample::default() };
            sample.states[TcpState::Close.index()] = closed;
            sample
        };
        let check = |unhashed, closed, unattributed, want| {
            assert_eq!(BoundSearch::after(unhashed, &sample(closed, unattributed)), want);
        };
        check(Some(0), 0, Some(5000), BoundSearch::Nowhere);
        check(Some(3), 0, Some(50), BoundSearch::Cheaply);
        check(Some(3), 0, Some(-5000), BoundSearch::Cheaply);
        check(Some(3), 0, Some(5000), BoundSearch::Everywhere);
        check(Some(0), 1, Some(0), BoundSearch::Cheaply);
        check(None, 0, None, BoundSearch::Everywhere);
    }
}
