//! Any sequence of changes, planned one by one, equals one plan of the whole.

use fairlead_proxy::{maps::memory::MemoryMaps, sync::Synchroniser, text};
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use crate::{
    objects::{Cluster, NODE, node_view, plans},
    random,
};

/// Maps, text and warnings are what a full plan of the newest snapshot gives.
fn assert_as_planned(sync: &Synchroniser<MemoryMaps>, cluster: &Cluster) {
    let snapshot = cluster.newest();
    let image = sync.maps().image();
    assert_eq!(text::image_text(image), text::plan_text(&snapshot, &node_view(&snapshot)));
    assert_eq!(random::strays(image), Vec::<String>::new(), "nothing leads there");
    assert_eq!(sync.plans().warnings(), plans(&snapshot).warnings());
    let owners = sync.status().counter_owners;
    for (planned, lead) in sync.plans().leads() {
        let key = lead.frontend.key;
        let value = image.frontends.get(&key).unwrap();
        let counted_as = owners.get(&value.counter_id);
        assert_eq!(counted_as, Some(&planned.key), "{}", text::frontend(&key));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Each inner list becomes one snapshot; each number is the seed of one change.
    #[test]
    fn incremental_plans_equal_one_full_plan(
        batches in prop::collection::vec(prop::collection::vec(any::<u64>(), 1..6), 1..40),
    ) {
        let mut cluster = Cluster::new();
        let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
        for seeds in batches {
            let change = |seed: u64| random::change(&mut StdRng::seed_from_u64(seed));
            let snapshot = cluster.apply(seeds.into_iter().map(change));
            let report = sync.reconcile(&snapshot);
            prop_assert_eq!(report.error, None);
            assert_as_planned(&sync, &cluster);
        }
        let before = sync.maps().image().clone();

        let mut restarted = Synchroniser::new(sync.into_maps(), NODE);
        let report = restarted.reconcile(&cluster.newest());
        prop_assert_eq!(report.entries(), 0, "a restart writes nothing: {:?}", report);
        prop_assert_eq!(restarted.maps().image(), &before);
        assert_as_planned(&restarted, &cluster);

        let report = restarted.verify();
        prop_assert_eq!((report.drift, report.entries()), (0, 0));
    }
}
