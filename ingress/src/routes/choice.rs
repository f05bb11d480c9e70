//! Which endpoint of an upstream a request goes to.

use std::{cmp::Reverse, net::SocketAddr, sync::Arc};

use smallvec::SmallVec;

use super::upstream::Endpoint;

/// How one request's endpoint is chosen. Whoever could not be reached a moment ago comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// In rounds.
    Turn(usize),
    /// The one that ranks first for a key. On every replica the same, and few change when
    /// endpoints come and go (rendezvous hashing).
    Rank(u64),
    /// In rounds among those that rank first for a key.
    Subset { key: u64, size: usize, turn: usize },
    /// The faster one of two.
    Faster { a: usize, b: usize },
    /// The one with the fewest requests in flight; in rounds among several.
    Idlest { turn: usize },
    /// The one with this [`identity`], in rounds if there is none.
    Known { identity: u64, turn: usize },
}

impl Pick {
    pub(super) fn of(self, list: &[Arc<Endpoint>], tried: &[u64]) -> Option<Arc<Endpoint>> {
        let untried = || list.iter().filter(|endpoint| !tried.contains(&endpoint.id()));
        match self {
            Self::Turn(turn) => in_turn(list, turn, tried),
            Self::Rank(key) => {
                untried().min_by_key(|e| (e.is_avoided(), Reverse(rank(key, e.address())))).cloned()
            }
            Self::Subset { key, size, turn } => {
                let mut ranked: Vec<Arc<Endpoint>> = list.to_vec();
                ranked.sort_by_cached_key(|e| Reverse(rank(key, e.address())));
                ranked.truncate(size);
                in_turn(&ranked, turn, tried).or_else(|| in_turn(list, turn, tried))
            }
            Self::Faster { a, b } => {
                let (a, drawn) = (in_turn(list, a, tried)?, in_turn(list, b, tried)?);
                // Two, not one twice: it would win whatever it is.
                let b = match a.id() == drawn.id() {
                    true => in_turn(list, b.wrapping_add(1), tried)?,
                    false => drawn,
                };
                let is_b = match (a.latency(), b.latency()) {
                    (Some(a), Some(b)) => b < a,
                    _ => false,
                };
                Some(if is_b { b } else { a })
            }
            Self::Idlest { turn } => idlest(list, turn, tried),
            Self::Known { identity: known, turn } => {
                let found = untried().find(|e| identity(e.address()) == known);
                found.cloned().or_else(|| in_turn(list, turn, tried))
            }
        }
    }
}

/// In rounds, each once.
fn in_turn(list: &[Arc<Endpoint>], turn: usize, tried: &[u64]) -> Option<Arc<Endpoint>> {
    let first = list.get(turn.checked_rem(list.len())?)?;
    if tried.is_empty() && !first.is_avoided() {
        return Some(first.clone());
    }
    let in_turn = list.iter().cycle().skip(turn % list.len()).take(list.len());
    let untried = in_turn.filter(|endpoint| !tried.contains(&endpoint.id()));
    untried.min_by_key(|endpoint| endpoint.is_avoided()).cloned()
}

/// All are looked at: of two, as with latencies, one that is stuck would still get its share.
fn idlest(list: &[Arc<Endpoint>], turn: usize, tried: &[u64]) -> Option<Arc<Endpoint>> {
    let mut fewest = (true, usize::MAX);
    let mut idlest = SmallVec::<[&Arc<Endpoint>; 8]>::new();
    for endpoint in list.iter().filter(|endpoint| !tried.contains(&endpoint.id())) {
        let busy = (endpoint.is_avoided(), endpoint.in_flight());
        if busy < fewest {
            fewest = busy;
            idlest.clear();
        }
        if busy == fewest {
            idlest.push(endpoint);
        }
    }
    idlest.get(turn.checked_rem(idlest.len())?).copied().cloned()
}

/// Who ranks first for a key, reachable or not.
pub(crate) fn first(list: &[Arc<Endpoint>], key: u64) -> Option<&Arc<Endpoint>> {
    list.iter().max_by_key(|endpoint| rank(key, endpoint.address()))
}

/// Of an endpoint's address: the same on every replica, and no address to whoever reads it.
pub(crate) fn identity(address: SocketAddr) -> u64 {
    rank(0, address)
}

fn rank(key: u64, address: SocketAddr) -> u64 {
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        std::net::IpAddr::V6(ip) => ip,
    };
    let [high, low] = [ip.to_bits() >> 64, ip.to_bits() & u128::from(u64::MAX)]
        .map(|half| u64::try_from(half).unwrap_or(0));
    [high, low, u64::from(address.port())].into_iter().fold(mix(key), |hash, part| mix(hash ^ part))
}

/// FNV-1a, mixed: of a text, the same on every replica.
pub(crate) fn hash(text: &[u8]) -> u64 {
    mix(text.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, b| {
        (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    }))
}

/// SplitMix64's finish.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::{super::upstream::InFlight, *};

    fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
        (0..count)
            .map(|i| {
                let address = SocketAddr::from(([10, 0, 0, 1], 1000 + i));
                Arc::new(Endpoint::new(address, Default::default()))
            })
            .collect()
    }

    fn port(pick: Pick, list: &[Arc<Endpoint>], tried: &[u64]) -> Option<u16> {
        pick.of(list, tried).map(|endpoint| endpoint.address().port())
    }

    #[test]
    fn keys_spread_evenly_and_stay_when_an_endpoint_goes() {
        let list = endpoints(4);
        let chosen = |list: &[Arc<Endpoint>], key: u32| {
            port(Pick::Rank(hash(&key.to_be_bytes())), list, &[])
        };
        let mut counts = [0; 4];
        let mut moved = 0;
        for key in 0..4000 {
            let port = chosen(&list, key).unwrap();
            counts[usize::from(port - 1000)] += 1;
            let without = chosen(&list[..3], key).unwrap();
            moved += usize::from(without != port);
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        assert_eq!(moved, counts[3], "only who was with the one that went");
    }

    #[test]
    fn a_subset_is_shared_and_left_when_nobody_of_it_is_there() {
        let list = endpoints(6);
        let pick = |turn| Pick::Subset { key: 7, size: 2, turn };
        let ports: std::collections::BTreeSet<_> =
            (0..10).filter_map(|turn| port(pick(turn), &list, &[])).collect();
        assert_eq!(ports.len(), 2);
        let tried: Vec<u64> =
            list.iter().filter(|e| ports.contains(&e.address().port())).map(|e| e.id()).collect();
        let other = port(pick(0), &list, &tried).unwrap();
        assert!(!ports.contains(&other));
    }

    #[test]
    fn a_known_endpoint_is_found_until_it_goes_or_was_tried() {
        let list = endpoints(3);
        let known = identity(list[2].address());
        let pick = Pick::Known { identity: known, turn: 0 };
        assert_eq!(port(pick, &list, &[]), Some(1002));
        assert_eq!(port(pick, &list[..2], &[]), Some(1000));
        assert_eq!(port(pick, &list, &[list[2].id()]), Some(1000));
        assert_eq!(port(pick, &[], &[]), None);
    }

    #[test]
    fn of_two_the_faster_one_is_asked() {
        let list = endpoints(2);
        list[0].answered_in(std::time::Duration::from_millis(50));
        assert_eq!(port(Pick::Faster { a: 1, b: 0 }, &list, &[]), Some(1001), "not known yet");
        assert_eq!(port(Pick::Faster { a: 0, b: 1 }, &list, &[]), Some(1000), "not known yet");
        list[1].answered_in(std::time::Duration::from_millis(5));
        // Nobody is compared with himself.
        for (a, b) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
            assert_eq!(port(Pick::Faster { a, b }, &list, &[]), Some(1001));
        }
    }

    #[test]
    fn who_has_the_fewest_requests_in_flight_is_asked_and_several_in_rounds() {
        for (in_flight, failing, tried, expected) in [
            (&[0, 0, 0][..], &[][..], &[][..], &[1000, 1001, 1002][..]),
            (&[2, 1, 3], &[], &[], &[1001, 1001, 1001]),
            (&[1, 0, 0], &[], &[], &[1001, 1002, 1001]),
            // Who did not answer is not asked again, whoever else is busy.
            (&[0, 4, 5], &[], &[0], &[1001, 1001, 1001]),
            (&[0, 4, 4], &[], &[0], &[1001, 1002, 1001]),
            (&[0, 0, 0], &[], &[0, 1, 2], &[]),
            // Who cannot be reached is idle because of that.
            (&[0, 4, 5], &[0], &[], &[1001, 1001, 1001]),
            (&[3, 2, 4], &[0, 1, 2], &[], &[1001, 1001, 1001]),
            (&[], &[], &[], &[]),
        ] {
            let list = endpoints(u16::try_from(in_flight.len()).unwrap());
            let begin = |(endpoint, count): (&Arc<Endpoint>, &usize)| {
                (0..*count).map(|_| InFlight::at(endpoint)).collect::<Vec<_>>()
            };
            let begun: Vec<_> = list.iter().zip(in_flight).flat_map(begin).collect();
            failing.iter().for_each(|i: &usize| list[*i].failed());
            let tried: Vec<u64> = tried.iter().map(|i: &usize| list[*i].id()).collect();
            let chosen = |turn| port(Pick::Idlest { turn }, &list, &tried);
            let ports: Vec<u16> = (0..3).filter_map(chosen).collect();
            assert_eq!(ports, expected, "{in_flight:?}, failing {failing:?}, tried {tried:?}");
            drop(begun);
            assert!(list.iter().all(|endpoint| endpoint.in_flight() == 0), "they ended");
        }
    }
}
