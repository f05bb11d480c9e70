//! A start that breaks off: what its Services had before is theirs, though they have yet to claim it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fairlead_proxy::{
    delta::Step,
    maps::{Capacities, Entry, MapError, Maps, ServiceCounts, memory::MemoryMaps},
    sync::Synchroniser,
};
use fairlead_state::{
    Change,
    model::{IpMode, LoadBalancerIp, Protocol, Service},
};

use crate::objects::{Cluster, NODE, ip, port, put_service, put_slice, service, slice, with};

/// More than are written together.
const SEVERAL_GROUPS: usize = 5000;

/// Maps that cannot be written for a while.
struct Shut {
    maps: MemoryMaps,
    is_shut: bool,
}

impl Maps for Shut {
    fn each(&self, take: &mut dyn FnMut(Entry)) -> Result<(), MapError> {
        self.maps.each(take)
    }

    fn apply(&mut self, step: &Step) -> Result<(), MapError> {
        if self.is_shut { Err(MapError::Permission) } else { self.maps.apply(step) }
    }

    fn capacities(&self) -> Capacities {
        self.maps.capacities()
    }

    fn counters(&self) -> Result<BTreeMap<u32, ServiceCounts>, MapError> {
        self.maps.counters()
    }

    fn named_by_connections(&self) -> Result<BTreeSet<u32>, MapError> {
        self.maps.named_by_connections()
    }
}

/// A Service with a load balancer address for one range of clients.
fn limited(i: usize) -> Change {
    let [high, low] = [i >> 8, i & 255];
    let balancer = ip(&format!("203.1.{high}.{low}"));
    let service = service(&format!("s{i}"), &format!("10.96.{high}.{low}"));
    put_service(with(service, |extras| {
        extras.load_balancer_ips = Arc::new([LoadBalancerIp { ip: balancer, mode: IpMode::Vip }]);
        extras.load_balancer_source_ranges = Arc::new(["198.51.100.0/24".parse().unwrap()]);
    }))
}

fn endpoint(i: usize, address: &str) -> Change {
    let name = format!("s{i}");
    put_slice(slice(&name, &name, &[address]))
}

/// Their frontends were there and open to nobody until the next retry.
#[test]
fn source_ranges_of_services_that_have_yet_to_be_written_outlive_a_snapshot_between() {
    let mut cluster = Cluster::new();
    let all = (0..SEVERAL_GROUPS).flat_map(|i| [limited(i), endpoint(i, "10.9.0.1")]);
    let mut before = Synchroniser::new(MemoryMaps::default(), NODE);
    before.reconcile(&cluster.apply(all));
    let ranges = before.maps().image().source_ranges.clone();
    assert_eq!(ranges.len(), SEVERAL_GROUPS);

    // Whichever are written first, one of each group has changed.
    let changed = [0, SEVERAL_GROUPS - 1].map(|i| endpoint(i, "10.9.0.2"));
    let newest = cluster.apply(changed);
    let maps = Shut { maps: before.into_maps(), is_shut: true };
    let mut sync = Synchroniser::new(maps, NODE);
    assert!(sync.reconcile(&newest).behind > 0, "a start that cannot write");
    sync.maps_mut().is_shut = false;
    let report = sync.reconcile(&cluster.apply([endpoint(1, "10.9.0.3")]));
    assert_eq!(report.error, None);
    assert!(report.behind > 0, "the others wait");
    assert_eq!(sync.maps().maps.image().source_ranges, ranges, "they are limited as before");

    assert_eq!(sync.retry().behind, 0);
    assert_eq!(sync.maps().maps.image().source_ranges, ranges);
}

/// A NodePort that changed hands while no agent ran led the Service that has it now to the counters of the one that had it,
/// and that one to new ones.
#[test]
fn bug_who_inherits_a_node_port_while_no_agent_runs_does_not_take_the_counters_with_it() {
    let asks = |name: &str, ip: &str, created_seconds| {
        let ports = Arc::new([port("", Protocol::Tcp, 80, Some(30_080))]);
        put_service(Service { created_seconds, ports, ..service(name, ip) })
    };
    let mut cluster = Cluster::new();
    let mut before = Synchroniser::new(MemoryMaps::default(), NODE);
    let both = [asks("a", "10.96.0.1", 2), asks("b", "10.96.0.2", 1)];
    before.reconcile(&cluster.apply(both));
    let owners = before.status().counter_owners;
    assert_eq!(owners.len(), 2);
    let snapshot = cluster.apply([asks("a", "10.96.0.1", 0)]);
    let mut sync = Synchroniser::new(before.into_maps(), NODE);
    assert_eq!(sync.reconcile(&snapshot).error, None);
    assert_eq!(sync.status().counter_owners, owners);
}
