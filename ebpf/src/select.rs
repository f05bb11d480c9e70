//! Where a connection goes: which set, and which backend of it.

use core::cmp::Ordering;

use crate::abi::{
    Address, BACKEND_LOCAL, Backend, BackendKey, FRONTEND_DROPS, FRONTEND_LOCAL, FrontendValue,
};

/// Where a client is, as far as traffic policies ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A pod, or a process of this node.
    Inside,
    /// Anybody else.
    Outside,
}

/// What becomes of a connection to a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// It gets one of the first so many backends of the set.
    Backends {
        /// The set.
        set_id: u32,
        /// How many of its slots count; never 0.
        count: u16,
    },
    /// Nobody serves it: the client is told so.
    Reject,
    /// Others are served, but not this client: silence.
    Drop,
}

/// Which backends a connection may get, by where it comes from.
#[inline(always)]
pub fn lead(frontend: &FrontendValue, origin: Origin) -> Lead {
    let FrontendValue { set_id, local_set_id, backends, local_backends, flags, .. } = *frontend;
    let is_local = flags & FRONTEND_LOCAL != 0 && matches!(origin, Origin::Outside);
    if is_local && local_backends > 0 {
        return Lead::Backends { set_id: local_set_id, count: local_backends };
    }
    if is_local && backends > 0 {
        return Lead::Drop;
    }
    if backends > 0 {
        return Lead::Backends { set_id, count: backends };
    }
    if flags & FRONTEND_DROPS != 0 { Lead::Drop } else { Lead::Reject }
}

/// The order of backends in a set: those of this node first, then by address and port.
#[inline(always)]
pub fn order(one: &Backend, other: &Backend) -> Ordering {
    let rank = |backend: &Backend| {
        let [high, low]: [u64; 2] = bytemuck::cast(backend.address);
        let place = (u64::from_be(high), u64::from_be(low), u16::from_be_bytes(backend.port));
        (backend.flags & BACKEND_LOCAL == 0, place)
    };
    rank(one).cmp(&rank(other))
}

/// A search for a backend among the first slots of a set, by halving.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    set_id: u32,
    /// The slots it may be in.
    from: u32,
    to: u32,
    /// It is in `from`, and in no other.
    is_found: bool,
    wanted: Backend,
}

impl Search {
    /// Steps until it is over: more than sets have bits in their length.
    pub const STEPS: u32 = 17;

    /// Looks for `wanted` among the first `count` slots of a set.
    #[inline(always)]
    pub fn new(set_id: u32, count: u16, wanted: &Backend) -> Self {
        Self { set_id, from: 0, to: count.into(), is_found: false, wanted: *wanted }
    }

    /// The slot to look at next; `None`: it is over.
    #[inline(always)]
    pub fn next(&self) -> Option<BackendKey> {
        let slot = self.from.wrapping_add(self.to) / 2;
        (!self.is_found && self.from < self.to).then_some(BackendKey { set_id: self.set_id, slot })
    }

    /// Takes into account what is there.
    #[inline(always)]
    pub fn step(&mut self, at: &BackendKey, found: &Backend) {
        match order(found, &self.wanted) {
            Ordering::Equal => (self.from, self.is_found) = (at.slot, true),
            Ordering::Less => self.from = at.slot.wrapping_add(1),
            Ordering::Greater => self.to = at.slot,
        }
    }

    /// Where it is, if it is there.
    #[inline(always)]
    pub fn slot(&self) -> Option<u32> {
        self.is_found.then_some(self.from)
    }
}

/// The slot of `wanted` among the first `count` of a set, read by `at`.
pub fn find(
    set_id: u32,
    count: u16,
    wanted: &Backend,
    at: impl Fn(&BackendKey) -> Option<Backend>,
) -> Option<u32> {
    let mut search = Search::new(set_id, count, wanted);
    while let Some(key) = search.next() {
        search.step(&key, &at(&key)?);
    }
    search.slot()
}

/// A slot below `backends`, evenly spread over `random`. `None` for an empty set.
#[inline(always)]
pub fn slot(random: u32, backends: u16) -> Option<u32> {
    if backends == 0 {
        return None;
    }
    Some(scale(random, u32::from(backends)))
}

/// A number below `bound`, evenly spread over `random`; 0 where `bound` is.
///
/// Multiply and shift instead of a remainder: no division on the data path, and no bias worth
/// naming (Lemire, "Fast Random Integer Generation in an Interval", 2019).
#[inline(always)]
pub fn scale(random: u32, bound: u32) -> u32 {
    high(u64::from(random) * u64::from(bound))
}

/// The upper half, which always fits.
#[inline(always)]
fn high(number: u64) -> u32 {
    u32::try_from(number >> 32).unwrap_or_default()
}

/// Spreads an identifier (a socket cookie counts up by one) over all 32 bits, the same every time.
#[inline(always)]
pub fn mix(identifier: u64) -> u32 {
    high(avalanche(identifier))
}

/// Spreads a number over all 64 bits, the same on every node and in every version: tables for
/// consistent hashing are made by it.
#[inline(always)]
pub fn avalanche(number: u64) -> u64 {
    // The finaliser of splitmix64: full avalanche in two multiplications.
    let mut x = number;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// By what a client's flow is told from others, the same on every node. Not by what it dialled:
/// NodePorts are dialled at another address on each.
#[inline(always)]
pub fn flow(client: &Address, port: [u8; 2], protocol: u8) -> u32 {
    let [high, low]: [u64; 2] = bytemuck::cast(*client);
    let end = u64::from(u16::from_be_bytes(port)) << 8 | u64::from(protocol);
    let client = avalanche(avalanche(u64::from_be(high)) ^ u64::from_be(low));
    mix(client ^ end)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::abi::FRONTEND_EXTERNAL;

    fn frontend(sets: (u32, u16), local: (u32, u16), flags: u16) -> FrontendValue {
        FrontendValue {
            set_id: sets.0,
            local_set_id: local.0,
            counter_id: 1,
            affinity_seconds: 0,
            backends: sets.1,
            local_backends: local.1,
            service_port: [0, 80],
            flags,
        }
    }

    /// The last rule of endpoint selection: which set a packet uses depends on where it came from.
    #[test]
    fn traffic_policies_by_origin() {
        use Lead::{Drop, Reject};
        use Origin::{Inside, Outside};
        let all = |set_id, count| Lead::Backends { set_id, count };
        let cases = [
            ("policy Cluster", frontend((5, 3), (0, 0), FRONTEND_EXTERNAL), all(5, 3), all(5, 3)),
            ("nobody", frontend((0, 0), (0, 0), 0), Reject, Reject),
            (
                "external Local: pods and node reach all, outside only the local ones",
                frontend((5, 3), (5, 1), FRONTEND_EXTERNAL | FRONTEND_LOCAL),
                all(5, 3),
                all(5, 1),
            ),
            (
                "external Local, local ones not preferred by hints: a set of their own",
                frontend((5, 3), (6, 2), FRONTEND_EXTERNAL | FRONTEND_LOCAL),
                all(5, 3),
                all(6, 2),
            ),
            (
                "external Local, none here",
                frontend((5, 3), (0, 0), FRONTEND_EXTERNAL | FRONTEND_LOCAL),
                all(5, 3),
                Drop,
            ),
            (
                "external Local, none anywhere",
                frontend((0, 0), (0, 0), FRONTEND_EXTERNAL | FRONTEND_LOCAL),
                Reject,
                Reject,
            ),
            ("internal Local, none here", frontend((0, 0), (0, 0), FRONTEND_DROPS), Drop, Drop),
        ];
        for (name, frontend, inside, outside) in cases {
            assert_eq!(lead(&frontend, Inside), inside, "{name}, from inside");
            assert_eq!(lead(&frontend, Outside), outside, "{name}, from outside");
        }
    }

    proptest! {
        #[test]
        fn every_backend_of_a_sorted_set_is_found_and_no_other(
            places in proptest::collection::btree_set((0u16..2, 0u8..9, 0u8..40), 0..300),
            absent in (0u16..2, 0u8..9, 40u8..44),
        ) {
            let backend = |(flags, address, port): (u16, u8, u8)| Backend {
                address: [address; 16],
                port: [0, port],
                flags,
            };
            let mut set: Vec<Backend> = places.iter().copied().map(backend).collect();
            set.sort_by(order);
            let at = |key: &BackendKey| set.get(key.slot as usize).copied();
            let count = u16::try_from(set.len()).unwrap();
            for (wanted, slot) in set.iter().zip(0u32..) {
                prop_assert_eq!(find(1, count, wanted, at), Some(slot));
                let shorter = u16::try_from(slot).unwrap();
                prop_assert_eq!(find(1, shorter, wanted, at), None, "not among the first");
            }
            prop_assert_eq!(find(1, count, &backend(absent), at), None);
        }
    }

    /// The programs take no more steps.
    #[test]
    fn a_search_in_the_largest_set_is_over_after_its_steps() {
        let backend = |slot: u32| Backend {
            address: bytemuck::cast([0u64, u64::from(slot).to_be()]),
            port: [0; 2],
            flags: 0,
        };
        for wanted in [0, 1, 32_767, 32_768, 65_533, 65_534, 65_535] {
            let mut search = Search::new(1, u16::MAX, &backend(wanted));
            for _ in 0..Search::STEPS {
                let Some(key) = search.next() else { break };
                search.step(&key, &backend(key.slot));
            }
            assert_eq!(search.next(), None, "{wanted}");
            assert_eq!(search.slot(), (wanted < 65_535).then_some(wanted));
        }
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(slot(0, 0), None);
        assert_eq!(slot(u32::MAX, 0), None);
        assert_eq!(slot(0, 7), Some(0));
        assert_eq!(slot(u32::MAX, 7), Some(6));
        assert_eq!(slot(u32::MAX, u16::MAX), Some(65534));
    }

    #[test]
    fn flows_spread_evenly_and_are_told_apart_by_address_port_and_protocol() {
        let client = |last: u8| crate::packet::mapped([203, 0, 113, last]);
        let mut hits = [0u32; 7];
        for port in 0..=u16::MAX {
            let flow = flow(&client(9), port.to_be_bytes(), 6);
            hits[scale(flow, 7) as usize] += 1;
        }
        assert!(hits.iter().all(|hits| (9_000..9_700).contains(hits)), "{hits:?}");
        let one = flow(&client(9), [1, 2], 6);
        for other in
            [flow(&client(8), [1, 2], 6), flow(&client(9), [2, 1], 6), flow(&client(9), [1, 2], 17)]
        {
            assert_ne!(one, other);
        }
        // Nodes of one cluster may run different versions.
        assert_eq!(one, 0x1a08_c3cf);
    }

    #[test]
    fn consecutive_cookies_spread_evenly() {
        let mut hits = [0u32; 7];
        for cookie in 1..=70_000u64 {
            hits[slot(mix(cookie), 7).unwrap() as usize] += 1;
        }
        assert!(hits.iter().all(|hits| (9_700..10_300).contains(hits)), "{hits:?}");
    }

    proptest! {
        #[test]
        fn always_inside_the_set(random: u32, backends in 1u16..) {
            prop_assert!(slot(random, backends).unwrap() < u32::from(backends));
        }
    }
}
