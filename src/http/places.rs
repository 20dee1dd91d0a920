//! Bounded places, shared fairly: when all are taken, who takes most of them gives one up.
//!
//! A plain bound lets one peer with as many idle connections as there are places lock out everybody else. A bound
//! for each peer would have to be small to help against a few of them, and then hits the proxy that many scrapers
//! come through. So nobody is bounded while there is room, and what makes room is what costs the fewest least.

use super::activity::Activity;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::time::Instant;

/// Of an IPv6 address, the bits that tell one peer from another: whoever has a network has all addresses of a /64.
const IPV6_PREFIX: u32 = 64;

/// So many places.
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    holders: Vec<Holder>,
}

struct Holder {
    id: u64,
    origin: IpAddr,
    /// Weak, because a connection keeps the places of its requests.
    activity: Weak<Activity>,
}

/// A place, free again when this is dropped.
pub(super) struct Place {
    id: u64,
    places: Arc<Places>,
}

/// The place of a request that is being answered. It travels in the extensions of a response, so that the
/// connection gives it back when the last byte is out.
#[derive(Clone)]
pub(super) struct Permit {
    _place: Arc<Place>,
}

impl Permit {
    pub(super) fn new(place: Place) -> Self {
        Self { _place: Arc::new(place) }
    }
}

/// What came of asking for a place when there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Somebody has been told to leave: from this origin, which had so many places.
    Made(IpAddr, usize),
    /// Nobody takes more than the one who asks would.
    None,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A place for `activity`. If all are taken, it gets that of somebody who has to leave, or none; `crowded` is told
    /// which. Who has to leave does so a moment later.
    pub(super) fn take(
        self: &Arc<Self>,
        activity: &Arc<Activity>,
        mut crowded: impl FnMut(Room),
    ) -> Option<Place> {
        let origin = origin(activity.peer());
        loop {
            let mut taken = self.lock();
            if taken.holders.len() < self.most {
                taken.next += 1;
                let id = taken.next;
                taken.holders.push(Holder { id, origin, activity: Arc::downgrade(activity) });
                return Some(Place { id, places: Arc::clone(self) });
            }
            drop(taken);
            let room = self.make_room(Some(origin));
            crowded(room);
            if room == Room::None {
                return None;
            }
            // Somebody else may have been faster; then there is another one who has to leave.
        }
    }

    /// Makes somebody leave for one from `origin`, or one who idles if that is not known.
    pub(super) fn make_room(&self, origin: Option<IpAddr>) -> Room {
        loop {
            let claims = self.claims();
            let mut counts: HashMap<IpAddr, usize> = HashMap::new();
            for claim in &claims {
                *counts.entry(claim.origin).or_default() += 1;
            }
            let own = origin.map(|origin| counts.get(&origin).copied().unwrap_or(0));
            let weighed = claims.iter().map(|claim| claim.weigh(counts[&claim.origin]));
            let Some(at) = weakest(own, weighed) else { return Room::None };
            let loser = &claims[at];
            let mut taken = self.lock();
            let Some(found) = taken.holders.iter().position(|holder| holder.id == loser.id) else {
                // It has left meanwhile.
                continue;
            };
            taken.holders.swap_remove(found);
            drop(taken);
            if let Some(activity) = &loser.activity {
                activity.cut();
            }
            return Room::Made(loser.origin, counts[&loser.origin]);
        }
    }

    /// What all holders are doing. Looked at without the lock on the places: a connection that ends here, or an answer that
    /// ends elsewhere, gives its places back, which takes that lock.
    fn claims(&self) -> Vec<Claim> {
        let taken = self.lock();
        let claim = |holder: &Holder| Claim {
            id: holder.id,
            origin: holder.origin,
            activity: holder.activity.upgrade(),
        };
        taken.holders.iter().map(claim).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().holders.retain(|holder| holder.id != self.id);
    }
}

/// A holder, kept from ending.
struct Claim {
    id: u64,
    origin: IpAddr,
    activity: Option<Arc<Activity>>,
}

impl Claim {
    fn weigh(&self, origin_holds: usize) -> Weight {
        let (is_busy, since) = self.activity.as_ref().map(|held| held.occupied()).unzip();
        Weight { origin_holds, is_busy: is_busy.unwrap_or(false), since }
    }
}

/// What speaks for leaving a place to its holder.
#[derive(Debug, Clone, Copy)]
struct Weight {
    /// Places that its origin holds.
    origin_holds: usize,
    /// A request is being answered.
    is_busy: bool,
    /// Since when it has been so; `None` of a connection that has ended.
    since: Option<Instant>,
}

/// Which claim yields to one from an origin that holds `own` places, if that is known. Of the origin with most places the one that has
/// idled longest, else the one that has been answered longest. Never one of an origin that holds less than the one that asks;
/// and an answer is cut only if that origin is left with as many places.
fn weakest(own: Option<usize>, claims: impl Iterator<Item = Weight>) -> Option<usize> {
    claims
        .enumerate()
        .filter(|(_, claim)| match own {
            Some(own) => claim.origin_holds >= own + if claim.is_busy { 2 } else { 0 },
            None => !claim.is_busy,
        })
        .max_by_key(|(_, claim)| (claim.origin_holds, !claim.is_busy, Reverse(claim.since)))
        .map(|(at, _)| at)
}

/// Addresses that count as one peer.
fn origin(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - IPV6_PREFIX))).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::Limits;
    use std::time::Duration;

    #[test]
    fn who_yields() {
        let now = Instant::now() + Duration::from_hours(1);
        let claim = |origin_holds, is_busy, age| Weight {
            origin_holds,
            is_busy,
            since: Some(now - Duration::from_secs(age)),
        };
        let weakest = |own: usize, claims: &[Weight]| super::weakest(Some(own), claims.iter().copied());
        assert_eq!(weakest(0, &[]), None);
        // Of the greediest, the longest idle.
        let claims = [claim(1, false, 900), claim(3, false, 5), claim(3, false, 7), claim(3, true, 800)];
        assert_eq!(weakest(0, &claims), Some(2));
        assert_eq!(weakest(3, &claims), Some(2), "its own, if no other has as many");
        assert_eq!(weakest(4, &claims), None, "nobody yields to the greediest");
        // An answer only where one more place goes around.
        let busy = [claim(3, true, 1), claim(3, true, 2), claim(1, true, 9)];
        assert_eq!(weakest(1, &busy), Some(1));
        assert_eq!(weakest(2, &busy), None);
        // All have one: the longest idle, and nobody who is being answered.
        let single = [claim(1, true, 9), claim(1, false, 2), claim(1, false, 3)];
        assert_eq!(weakest(0, &single), Some(2));
        assert_eq!(weakest(1, &single), Some(2));
        assert_eq!(weakest(0, &single[..1]), None);
        // The answers of the greedy go before the idle of the modest.
        let both = [claim(1, false, 900), claim(9, true, 1)];
        assert_eq!(weakest(0, &both), Some(1));
        // For nobody in particular, only who idles.
        assert_eq!(super::weakest(None, both.into_iter()), Some(0));
        assert_eq!(super::weakest(None, busy.into_iter()), None);
    }

    #[test]
    fn one_peer() {
        let origin = |address: &str| origin(address.parse().unwrap()).to_string();
        assert_eq!(origin("192.0.2.1"), "192.0.2.1");
        assert_eq!(origin("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(origin("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
    }

    #[tokio::test]
    async fn places_change_hands_and_come_back() {
        let places = Places::new(2);
        let (greedy, modest): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let [first, second, newcomer] =
            [greedy, greedy, modest].map(|peer| Activity::new(peer, Limits::default()));
        let crowded = |_| panic!("there is room");
        let one = places.take(&first, crowded).unwrap();
        let two = places.take(&second, crowded).unwrap();
        let three = places.take(&newcomer, |room| assert_eq!(room, Room::Made(greedy, 2))).unwrap();
        first.until_cut().await;
        // A place that has been lost is not given back.
        drop(one);
        assert_eq!(places.lock().holders.len(), 2);
        drop((two, three));
        assert_eq!(places.lock().holders.len(), 0);
    }

    /// A connection ends while another one looks for room, and is the last to be seen there.
    #[test]
    fn ending_meanwhile_waits_for_nobody() {
        let places = Places::new(1);
        std::thread::scope(|scope| {
            for peer in 0..4u8 {
                let places = &places;
                scope.spawn(move || {
                    for _ in 0..2000 {
                        let activity = Activity::new([192, 0, 2, peer].into(), Limits::default());
                        let in_flight = activity.begin();
                        if let Some(place) = places.take(&activity, |_| {}) {
                            in_flight.hold(Permit::new(place));
                        }
                    }
                });
            }
        });
        assert_eq!(places.lock().holders.len(), 0);
    }
}
