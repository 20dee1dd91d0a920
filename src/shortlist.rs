//! Chooses whom to ask while candidates stream by, keeping only those chosen so far. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// What decides whether a candidate is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Bytes held.
    pub memory: i64,
    /// How long ago it was chosen; `None` if it never was.
    pub chosen_ago: Option<Duration>,
}

/// Half of the places go to whoever holds most, the other half to who has not been chosen for longest: memory is what
/// this is about, and everybody gets his turn.
#[derive(Debug)]
pub struct Shortlist<T> {
    places: usize,
    /// How many more may be there that never were chosen.
    room: usize,
    largest: BinaryHeap<Ranked<i64, T>>,
    waiting: BinaryHeap<Ranked<Duration, T>>,
}

/// The least of a heap is on top.
#[derive(Debug)]
struct Ranked<K, T> {
    rank: Reverse<K>,
    claim: Claim,
    item: T,
}

impl<T> Shortlist<T> {
    /// An empty one of `places`, of which `room` may be taken by candidates that never were chosen before.
    pub fn new(places: usize, room: usize) -> Self {
        Self { places, room, largest: BinaryHeap::new(), waiting: BinaryHeap::new() }
    }

    /// Takes a candidate in, and returns whoever is out for it: another one, itself, or nobody.
    pub fn offer(&mut self, claim: Claim, item: T) -> Option<T> {
        let is_new = claim.chosen_ago.is_none();
        if is_new && self.room == 0 {
            return Some(item);
        }
        self.room -= usize::from(is_new);
        let half = self.places / 2;
        let (claim, item) = keep(&mut self.largest, half, claim.memory, claim, item)?;
        let waited = claim.chosen_ago.unwrap_or(Duration::MAX);
        let (claim, item) = keep(&mut self.waiting, self.places - half, waited, claim, item)?;
        self.room += usize::from(claim.chosen_ago.is_none());
        Some(item)
    }

    /// Those chosen, in no order.
    pub fn into_chosen(self) -> Vec<T> {
        let waiting = self.waiting.into_iter().map(|ranked| ranked.item);
        self.largest.into_iter().map(|ranked| ranked.item).chain(waiting).collect()
    }
}

/// Puts an item into a heap of at most `places`, and returns the one that has none for it.
fn keep<K: Ord, T>(
    heap: &mut BinaryHeap<Ranked<K, T>>,
    places: usize,
    rank: K,
    claim: Claim,
    item: T,
) -> Option<(Claim, T)> {
    let ranked = Ranked { rank: Reverse(rank), claim, item };
    if heap.len() < places {
        heap.push(ranked);
        return None;
    }
    match heap.peek_mut() {
        Some(mut least) if ranked < *least => {
            let out = std::mem::replace(&mut *least, ranked);
            Some((out.claim, out.item))
        }
        _ => Some((ranked.claim, ranked.item)),
    }
}

impl<K: Ord, T> PartialEq for Ranked<K, T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<K: Ord, T> Eq for Ranked<K, T> {}

impl<K: Ord, T> PartialOrd for Ranked<K, T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord, T> Ord for Ranked<K, T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(memory: i64, ago: Option<u64>) -> Claim {
        Claim { memory, chosen_ago: ago.map(Duration::from_secs) }
    }

    proptest! {
        /// The stream's choice is what sorting everything gives; whoever is not chosen comes back exactly once.
        #[test]
        fn chooses_what_sorting_would(
            claims in proptest::collection::vec((0i64..50, proptest::option::of(0u64..50)), 0..60),
            places in 0usize..12,
        ) {
            let mut list = Shortlist::new(places, usize::MAX);
            let mut out = Vec::new();
            for (memory, ago) in &claims {
                out.extend(list.offer(claim(*memory, *ago), (*memory, *ago)));
            }
            let chosen = list.into_chosen();
            prop_assert_eq!(chosen.len(), claims.len().min(places));
            let mut all: Vec<_> = chosen.iter().chain(&out).copied().collect();
            let mut offered = claims.clone();
            all.sort_unstable();
            offered.sort_unstable();
            prop_assert_eq!(&all, &offered, "nobody is lost, nobody comes twice");

            offered.sort_unstable_by_key(|(memory, _)| Reverse(*memory));
            let half = (places / 2).min(offered.len());
            let mut largest: Vec<i64> = chosen[..half].iter().map(|(memory, _)| *memory).collect();
            largest.sort_unstable_by_key(|memory| Reverse(*memory));
            prop_assert_eq!(largest, offered[..half].iter().map(|(memory, _)| *memory).collect::<Vec<_>>());
            let waited = |(_, ago): &(i64, Option<u64>)| ago.unwrap_or(u64::MAX);
            let least = chosen[half..].iter().map(waited).min();
            prop_assert!(least >= out.iter().map(waited).max() || out.is_empty() || places == 0);
        }
    }

    #[test]
    fn newcomers_only_as_far_as_there_is_room() {
        let mut list = Shortlist::new(4, 1);
        assert_eq!(list.offer(claim(10, None), "first"), None);
        assert_eq!(list.offer(claim(99, None), "second"), Some("second"));
        for name in ["a", "b", "c"] {
            assert_eq!(list.offer(claim(20, Some(1)), name), None);
        }
        // Who has to leave makes room again.
        let out = list.offer(claim(30, Some(1)), "d");
        assert!(out.is_some_and(|name| name != "first"), "one that never was chosen waits longest");
    }
}
