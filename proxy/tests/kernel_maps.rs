//! The maps in the kernel: batches, gaps, limits.

use fairlead_ebpf::abi::{
    Backend, BackendKey, FirstBackends, FrontendEntry, FrontendKey, FrontendValue,
};
use fairlead_proxy::{
    attach::MapSizes,
    delta::Step,
    image::Image,
    maps::{MapError, Maps as _, kernel::KernelMaps},
};

/// Many batches: more than the kernel keeps memory in reserve for.
const MANY: u32 = 60_000;

fn sizes() -> MapSizes {
    MapSizes {
        frontends: 70_000,
        backends: 70_000,
        maglev: 70_000,
        counters: 70_000,
        bytes: 16,
        refusals: 16,
        node_addresses: 16,
        connected_peers: 16,
        datagram_peers: 16,
        connections: 16,
        openings: 16,
        fragments: 16,
        affinities: 16,
        source_ranges: 16,
    }
}

fn key(number: u32) -> BackendKey {
    BackendKey { set_id: number, slot: 0 }
}

fn backend(number: u32) -> (BackendKey, Backend) {
    let [a, b, ..] = number.to_be_bytes();
    (key(number), Backend { address: [7; 16], port: [a, b], flags: 1 })
}

fn frontend(number: u32) -> (FrontendKey, FrontendEntry) {
    let mut address = [0; 16];
    address[12..].copy_from_slice(&number.to_be_bytes());
    let key = FrontendKey { address, port: [0, 80], protocol: 6, zero: 0 };
    let value = FrontendValue {
        set_id: number,
        counter_id: number,
        backends: 1,
        ..bytemuck::Zeroable::zeroed()
    };
    let first = FirstBackends::of(&key, [backend(number).1]);
    (key, FrontendEntry { value, first })
}

#[test]
fn what_is_put_is_loaded_and_what_is_deleted_is_gone() {
    let mut maps = KernelMaps::private(sizes()).unwrap();
    assert_eq!(maps.load().unwrap(), Image::default());
    let backends: Vec<_> = (0..MANY).map(backend).collect();
    let frontends: Vec<_> = (0..MANY).map(frontend).collect();
    maps.apply(&Step::PutBackends(backends.clone())).unwrap();
    maps.apply(&Step::PutFrontends(frontends.clone())).unwrap();
    let image = Image {
        frontends: frontends.into_iter().collect(),
        backends: backends.into_iter().collect(),
        ..Image::default()
    };
    assert_eq!(maps.load().unwrap(), image);
    // Replacing is no second entry.
    let other = Backend { address: [8; 16], port: [0, 1], flags: 0 };
    maps.apply(&Step::PutBackends(vec![(key(3), other)])).unwrap();
    assert_eq!(maps.load().unwrap().backends[&key(3)], other);
    // Every third is not there any more when all are deleted.
    maps.apply(&Step::DeleteBackends((0..MANY).step_by(3).map(key).collect())).unwrap();
    maps.apply(&Step::DeleteBackends((0..MANY).map(key).collect())).unwrap();
    let frontends = (0..MANY).map(|number| frontend(number).0).collect();
    maps.apply(&Step::DeleteFrontends(frontends)).unwrap();
    assert_eq!(maps.load().unwrap(), Image::default());
    for step in
        [Step::PutBackends(vec![]), Step::DeleteBackends(vec![]), Step::ClearCounters(vec![])]
    {
        maps.apply(&step).unwrap();
    }
}

#[test]
fn counters_are_there_from_the_start_and_an_id_beyond_them_is_no_error() {
    let mut maps = KernelMaps::private(MapSizes { counters: 5, ..sizes() }).unwrap();
    assert_eq!(maps.capacities().counters, 8, "whole cache lines");
    assert_eq!(maps.counters().unwrap(), std::collections::BTreeMap::new());
    maps.apply(&Step::ClearCounters(vec![1, 7, 8, u32::MAX])).unwrap();
    assert_eq!(maps.counters().unwrap(), std::collections::BTreeMap::new());
}

#[test]
fn full_map_says_which_and_how_large() {
    let mut maps = KernelMaps::private(MapSizes { backends: 4, ..sizes() }).unwrap();
    assert_eq!((maps.capacities().backends, maps.capacities().frontends), (4, 70_000));
    let error = maps.apply(&Step::PutBackends((0..64).map(backend).collect())).unwrap_err();
    assert!(matches!(error, MapError::Full { map: "backends", capacity: 4 }), "{error}");
    let held = maps.load().unwrap().backends.len();
    assert!(held >= 4, "as much as there was room for: {held}");
    assert!(error.to_string().contains("backends holds 4 entries and is full"), "{error}");
}
