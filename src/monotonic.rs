//! Host-wide counters from per-namespace ones. Pure.

use hashbrown::HashMap;

/// The sum of `N` counters over network namespaces, which never falls: what a namespace counted before it went stays
/// counted.
#[derive(Debug)]
pub struct Monotonic<const N: usize> {
    total: [u64; N],
    last: HashMap<u64, [u64; N]>,
}

impl<const N: usize> Default for Monotonic<N> {
    fn default() -> Self {
        Self { total: [0; N], last: HashMap::new() }
    }
}

impl<const N: usize> Monotonic<N> {
    /// Takes in the counters of one namespace, named by its inode.
    pub fn update(&mut self, namespace: u64, now: [u64; N]) {
        let last = self.last.insert(namespace, now).unwrap_or([0; N]);
        // The kernel reuses a removed namespace's inode at once: a counter that fell is a new namespace's.
        let is_another = now.iter().zip(last).any(|(now, last)| *now < last);
        let base = if is_another { [0; N] } else { last };
        for ((total, now), base) in self.total.iter_mut().zip(now).zip(base) {
            *total = total.wrapping_add(now - base);
        }
    }

    /// Forgets namespaces that are gone, so that the next one with such an inode starts from nothing. One that exists
    /// but could not be read this time is kept, or its whole past would count again.
    pub fn retain(&mut self, exists: impl Fn(u64) -> bool) {
        self.last.retain(|namespace, _| exists(*namespace));
    }

    /// The sums.
    pub fn total(&self) -> [u64; N] {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sums_survive_their_namespaces() {
        let mut counters = Monotonic::<2>::default();
        counters.update(1, [100, 5]);
        counters.update(2, [10, 0]);
        assert_eq!(counters.total(), [110, 5]);
        counters.retain(|namespace| namespace == 1);
        counters.update(1, [130, 5]);
        assert_eq!(counters.total(), [140, 5], "2 is gone, its 10 stay");
        counters.update(2, [3, 0]);
        assert_eq!(counters.total(), [143, 5], "a new namespace with a reused inode");
        counters.update(2, [1, 1]);
        assert_eq!(counters.total(), [144, 6], "reused between two readings");
    }

    #[test]
    fn an_unread_namespace_does_not_count_twice() {
        let mut counters = Monotonic::<1>::default();
        counters.update(1, [100]);
        counters.retain(|_| true);
        counters.update(1, [101]);
        assert_eq!(counters.total(), [101]);
    }

    proptest! {
        #[test]
        fn never_falls(events in proptest::collection::vec((0u64..4, 0u64..1000, any::<bool>()), 0..50)) {
            let mut counters = Monotonic::<1>::default();
            let mut before = 0;
            for (namespace, now, gone) in events {
                if gone {
                    counters.retain(|other| other != namespace);
                } else {
                    counters.update(namespace, [now]);
                }
                prop_assert!(counters.total()[0] >= before);
                before = counters.total()[0];
            }
        }
    }
}
