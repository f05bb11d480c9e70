//! What consistent hashing promises.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_ebpf::{
    abi::{Address, BACKEND_LOCAL},
    packet::mapped,
};
use proptest::prelude::*;

use super::*;

/// Endpoints of pods, by number.
fn backend(number: u16) -> Backend {
    let [high, low] = number.to_be_bytes();
    Backend { address: mapped([10, 244, high, low]), port: 8080u16.to_be_bytes(), flags: 0 }
}

fn size(places: u32) -> TableSize {
    TableSize::with(places).unwrap()
}

/// Who has each place.
fn owners(set: &[Backend], size: TableSize) -> Vec<(Address, [u8; 2])> {
    let slots = parts(set, size).into_iter().flat_map(|part| part.slots);
    let owners = slots.take(size.places() as usize).map(|slot| &set[usize::from(slot)]);
    owners.map(|backend| (backend.address, backend.port)).collect()
}

/// Places that two tables give to different backends, where the backend of the first is in both.
fn moved(before: &[Backend], after: &[Backend], size: TableSize) -> usize {
    let stays: BTreeSet<_> = after.iter().map(|b| (b.address, b.port)).collect();
    let pairs = owners(before, size).into_iter().zip(owners(after, size));
    pairs.filter(|(old, new)| old != new && stays.contains(old)).count()
}

#[test]
fn a_size_is_known_by_its_parts() {
    assert_eq!(parts(&[backend(1), backend(2)], size(1024)).len(), 16);
    assert_eq!(size_of(16), Some(size(1024)));
    assert_eq!(size_of(5), None);
}

/// Nodes of one cluster may run different versions: whoever changes this moves every flow.
#[test]
fn tables_are_the_same_in_every_version() {
    let set: Vec<Backend> = (1..4).map(backend).collect();
    let slots: Vec<u16> = table(&set, size(256)).into_iter().take(24).collect();
    assert_eq!(slots, [2, 1, 2, 0, 2, 2, 0, 0, 1, 2, 2, 0, 0, 1, 2, 1, 2, 0, 1, 0, 1, 0, 2, 1]);
}

#[test]
fn one_backend_of_a_hundredth_of_the_places_moves_at_most_one_per_cent_when_it_leaves() {
    for (places, most) in [(256, 2), (1024, 10), (2048, 20), (4096, 40)] {
        let size = size(places);
        for count in 2..=most {
            let all: Vec<Backend> = (0..count).map(|n| backend(n * 7 + count)).collect();
            for leaver in 0..count {
                let mut rest = all.clone();
                rest.remove(usize::from(leaver));
                let moved = moved(&all, &rest, size);
                let limit = places as usize / 100;
                assert!(moved <= limit, "{moved} of {places} places: {leaver} of {count} left");
            }
        }
    }
}

#[test]
fn more_backends_than_places_have_one_each_at_most() {
    let set: Vec<Backend> = (0..600).map(backend).collect();
    let met: BTreeSet<_> = owners(&set, size(256)).into_iter().collect();
    assert_eq!(met.len(), 256);
}

proptest! {
    #[test]
    fn nobody_has_more_than_a_tenth_above_its_share(
        numbers in prop::collection::btree_set(any::<u16>(), 1..40),
    ) {
        let set: Vec<Backend> = numbers.into_iter().map(backend).collect();
        let mut shares = BTreeMap::new();
        for owner in owners(&set, size(4096)) {
            *shares.entry(owner).or_insert(0usize) += 1;
        }
        let most = (4096 * 11usize).div_ceil(10 * set.len());
        prop_assert!(shares.values().all(|share| *share <= most), "{:?}", shares);
        prop_assert_eq!(shares.len(), set.len());
    }

    /// Each node has its own endpoints first.
    #[test]
    fn nodes_with_other_endpoints_of_their_own_agree(
        numbers in prop::collection::btree_map(any::<u16>(), any::<bool>(), 1..40),
    ) {
        let on_node = |is_first: bool| -> Vec<Backend> {
            let flags = |local: bool| if local == is_first { BACKEND_LOCAL } else { 0 };
            let all = numbers.iter();
            let mut set: Vec<_> =
                all.map(|(n, local)| Backend { flags: flags(*local), ..backend(*n) }).collect();
            set.sort_by(fairlead_ebpf::select::order);
            set
        };
        prop_assert_eq!(owners(&on_node(true), size(512)), owners(&on_node(false), size(512)));
    }
}
