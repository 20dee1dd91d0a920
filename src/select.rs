//! Which processes and cgroups get a row of their own. Pure; time is handed in.

use std::hash::Hash;
use std::time::Duration;

use hashbrown::HashMap;

/// A row goes only when its memory has stayed below this part of the threshold, so that one that hovers around the
/// threshold does not come and go: each change makes and ends a set of time series.
const WELL_BELOW_DIVISOR: i64 = 2;

/// How long it must have stayed there: long enough that a rate over the customary five minutes is complete.
const LINGER: Duration = Duration::from_mins(5);

/// Remembers which keys have a row.
#[derive(Debug)]
pub struct Selection<K> {
    threshold: i64,
    limit: usize,
    /// Rows of the sample before, and since when each has been well below the threshold.
    shown: HashMap<K, Option<Duration>>,
}

/// What may get a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<K> {
    /// Which.
    pub key: K,
    /// Bytes held.
    pub memory: i64,
    /// Whether it gets a row however little it holds, as far as there is place.
    pub must_show: bool,
}

/// The rows of one sample.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen<K> {
    /// Keys with a row, largest first; equals in key order.
    pub keys: Vec<K>,
    /// Keys that deserve a row and found no place within the limit.
    pub truncated: u64,
}

impl<K: Copy + Eq + Hash + Ord> Selection<K> {
    /// Rows for keys of at least `threshold` bytes, at most `limit` of them.
    pub fn new(threshold: u64, limit: usize) -> Self {
        Self { threshold: i64::try_from(threshold).unwrap_or(i64::MAX), limit, shown: HashMap::new() }
    }

    /// Keys that had a row in the sample before.
    pub fn shown(&self) -> impl Iterator<Item = K> + '_ {
        self.shown.keys().copied()
    }

    /// Chooses among `candidates`, each key once. A key that is no candidate is gone for good. `now` is any clock that only
    /// grows.
    pub fn choose(&mut self, candidates: impl IntoIterator<Item = Candidate<K>>, now: Duration) -> Chosen<K> {
        let well_below = self.threshold / WELL_BELOW_DIVISOR;
        let mut eligible: Vec<(bool, i64, K, Option<Duration>)> = Vec::new();
        for Candidate { key, memory, must_show } in candidates {
            let below_since = match self.shown.get(&key) {
                _ if must_show => None,
                Some(since) if memory < well_below => {
                    let since = since.unwrap_or(now);
                    if now.saturating_sub(since) >= LINGER {
                        continue;
                    }
                    Some(since)
                }
                Some(_) => None,
                None if memory >= self.threshold => None,
                None => continue,
            };
            eligible.push((must_show, memory, key, below_since));
        }
        // What is wrong may hold little, and has to be shown before what is merely large.
        eligible.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(b.1.cmp(&a.1)).then(a.2.cmp(&b.2)));
        let truncated = eligible.len().saturating_sub(self.limit) as u64;
        eligible.truncate(self.limit);
        eligible.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.2.cmp(&b.2)));
        self.shown = eligible.iter().map(|(_, _, key, below_since)| (*key, *below_since)).collect();
        Chosen { keys: eligible.into_iter().map(|(_, _, key, _)| key).collect(), truncated }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: i64 = 1 << 20;

    fn held<K>(pairs: impl IntoIterator<Item = (K, i64)>) -> Vec<Candidate<K>> {
        pairs.into_iter().map(|(key, memory)| Candidate { key, memory, must_show: false }).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn whoever_must_be_shown_is_while_there_is_place() {
        let mut selection = Selection::new(1 << 20, 2);
        let mut candidates = held([(1, 100), (2, 3 * MIB)]);
        candidates[0].must_show = true;
        assert_eq!(selection.choose(candidates.clone(), at(0)).keys, [2, 1]);
        let mut more = held([(2, 3 * MIB), (3, 2 * MIB)]);
        more.push(candidates[0]);
        assert_eq!(
            selection.choose(more, at(0)),
            Chosen { keys: vec![2, 1], truncated: 1 },
            "before the large"
        );
        candidates[0].must_show = false;
        assert_eq!(selection.choose(candidates.clone(), at(1)).keys, [2, 1], "it lingers as any other");
        candidates.extend(held([(3, 2 * MIB)]));
        assert_eq!(selection.choose(candidates, at(2)), Chosen { keys: vec![2, 3], truncated: 1 });
    }

    #[test]
    fn appears_at_the_threshold_largest_first() {
        let mut selection = Selection::new(1 << 20, 10);
        let chosen = selection.choose(held([(1, MIB - 1), (2, MIB), (3, 5 * MIB), (4, MIB)]), at(0));
        assert_eq!(chosen, Chosen { keys: vec![3, 2, 4], truncated: 0 });
    }

    #[test]
    fn lingers_while_it_hovers_and_goes_when_well_below_for_long() {
        let mut selection = Selection::new(1 << 20, 10);
        let mut shown = |memory, seconds| !selection.choose(held([(1, memory)]), at(seconds)).keys.is_empty();
        assert!(!shown(MIB - 1, 0));
        assert!(shown(MIB, 15));
        assert!(shown(MIB / 2, 10_000), "half is not well below");
        assert!(shown(0, 10_015));
        assert!(shown(0, 10_300));
        assert!(shown(MIB / 2, 10_310), "a recovery starts the wait anew");
        assert!(shown(0, 10_320));
        assert!(shown(0, 10_619));
        assert!(!shown(0, 10_620));
        assert!(!shown(MIB - 1, 10_635), "to come back it must reach the threshold");
    }

    #[test]
    fn whoever_is_gone_goes_at_once() {
        let mut selection = Selection::new(1 << 20, 10);
        selection.choose(held([(1, MIB), (2, MIB)]), at(0));
        assert_eq!(selection.choose(held([(2, MIB)]), at(15)).keys, [2]);
        assert_eq!(selection.choose(held([(1, MIB - 1), (2, MIB)]), at(30)).keys, [2]);
    }

    proptest! {
        #[test]
        fn the_limit_holds_and_is_counted(
            memory in proptest::collection::vec(0i64..4 * MIB, 0..40), limit in 1usize..10
        ) {
            let mut selection = Selection::new(1 << 20, limit);
            let chosen = selection.choose(held(memory.iter().copied().enumerate()), at(0));
            let deserving = memory.iter().filter(|memory| **memory >= MIB).count();
            prop_assert!(chosen.keys.len() <= limit);
            prop_assert_eq!(chosen.keys.len() as u64 + chosen.truncated, deserving as u64);
            let smallest = chosen.keys.iter().map(|key| memory[*key]).min().unwrap_or(0);
            let left_out = memory.iter().enumerate().filter(|(key, _)| !chosen.keys.contains(key));
            prop_assert!(left_out.into_iter().all(|(_, memory)| *memory < MIB || *memory <= smallest));
        }
    }
}
