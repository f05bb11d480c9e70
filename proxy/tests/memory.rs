//! What Services cost the proxy in memory, as the allocator counts it: exact, and the same on every
//! machine. What the kernel holds is not part of it. One test, since all of a process are counted
//! together.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fairlead_proxy::{
    delta::Step,
    image::Image,
    maps::{Capacities, Entry, MapError, Maps, ServiceCounts, memory::MemoryMaps},
    plan::{Planned, PlannedFrontend, Plans, ServicePlan},
    sync::Synchroniser,
};
use fairlead_state::Snapshot;
use peak_alloc::PeakAlloc;

use crate::objects::{Cluster, NODE, many, node_view};

#[allow(dead_code, reason = "shared with the tests of Services")]
#[path = "services/objects.rs"]
mod objects;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// A quarter of 50,000: tables are as full as with all of them.
const SERVICES: usize = 12_500;
/// A plan: of a ClusterIP with one port, one set of two endpoints, and every other port.
const PLAN_BYTES_MAX: usize = 280;
/// The plan, and what is known of the maps.
const BYTES_MAX: usize = 510;
/// What a start over maps that hold all of it takes for a moment beside that.
const START_BYTES_MAX: usize = 120;

/// Maps that are somebody else's memory, as the kernel's are.
struct Elsewhere {
    held: Arc<Image>,
    capacities: Capacities,
}

impl Maps for Elsewhere {
    fn each(&self, take: &mut dyn FnMut(Entry)) -> Result<(), MapError> {
        self.held.entries().for_each(take);
        Ok(())
    }

    fn apply(&mut self, _: &Step) -> Result<(), MapError> {
        Ok(())
    }

    fn capacities(&self) -> Capacities {
        self.capacities
    }

    fn counters(&self) -> Result<BTreeMap<u32, ServiceCounts>, MapError> {
        Ok(BTreeMap::new())
    }

    fn named_by_connections(&self) -> Result<BTreeSet<u32>, MapError> {
        Ok(BTreeSet::new())
    }
}

/// Bytes a Service that `make` makes and keeps, and the most there were meanwhile.
fn cost<T>(make: impl FnOnce() -> T) -> (usize, usize) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let made = make();
    let bytes = [ALLOCATOR.current_usage(), ALLOCATOR.peak_usage()];
    drop(made);
    assert_eq!(ALLOCATOR.current_usage(), before, "all of it is given back");
    let [kept, peak] = bytes.map(|bytes| (bytes - before) / SERVICES);
    (kept, peak)
}

fn started(snapshot: &Snapshot, held: &Arc<Image>) -> Synchroniser<Elsewhere> {
    let capacities = MemoryMaps::default().capacities();
    let mut sync = Synchroniser::new(Elsewhere { held: held.clone(), capacities }, NODE);
    let report = sync.reconcile(snapshot);
    assert_eq!((report.behind, report.error), (0, None));
    sync
}

#[test]
fn a_service_costs_so_much_and_no_more_after_a_restart() {
    // On 64 bits; each is a place in a table, and the first is there twice for each Service.
    let sizes = [
        ("PlannedFrontend", size_of::<PlannedFrontend>(), 36),
        ("ServicePlan", size_of::<ServicePlan>(), 48),
        ("Planned", size_of::<Planned>(), 72),
    ];
    for (name, size, expected) in sizes {
        assert_eq!(size, expected, "{name}");
    }

    let snapshot = Cluster::new().apply(many(SERVICES));
    let node = node_view(&snapshot);
    let (plan, _) = cost(|| Plans::of(&snapshot, &node));
    assert!(plan <= PLAN_BYTES_MAX, "{plan} bytes for the plan of a Service");

    let empty = Arc::new(Image::default());
    let (fresh, _) = cost(|| started(&snapshot, &empty));
    assert!(fresh <= BYTES_MAX, "{fresh} bytes a Service, {plan} of them its plan");

    let mut written = Synchroniser::new(MemoryMaps::default(), NODE);
    written.reconcile(&snapshot);
    let image = Arc::new(written.into_maps().image().clone());
    let (again, peak) = cost(|| started(&snapshot, &image));
    println!("a Service: {fresh} bytes, {plan} of them its plan; {peak} while maps are read");
    // Tables that were read are as long as they must be; those that grew are not.
    assert!(again <= fresh, "{again} bytes a Service after a restart, {fresh} before it");
    assert!(peak - again <= START_BYTES_MAX, "{peak} bytes a Service while maps are read");
}
