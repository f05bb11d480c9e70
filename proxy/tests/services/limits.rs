//! The largest there is: one Service as large as an API server takes, and many at the sizes the maps
//! are made for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_proxy::{
    maps::memory::MemoryMaps,
    plan::{Problem, SET_BACKENDS_MAX},
    sync::Synchroniser,
};
use fairlead_state::{
    Change,
    model::{EndpointSlice, IpMode, LoadBalancerIp, Protocol, Service},
};

use crate::objects::{
    Cluster, NODE, endpoint, endpoint_port, ip, port, put_service, put_slice, service, slice, with,
};

/// What an object of 1.5 MiB, the most etcd takes, has room for.
const RANGES: usize = 50_000;
const PORTS: u16 = 20_000;
/// Many times what it takes; a cost of the square of these sizes would be minutes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A slice with so many endpoints from the address number `first` on.
fn wide(name: &str, of: &str, first: u32, count: u32) -> EndpointSlice {
    let endpoints =
        (first..first + count).map(|n| endpoint((0x0a80_0000 + n).to_be_bytes().into()));
    EndpointSlice { endpoints: endpoints.collect(), ..slice(name, of, &[]) }
}

#[test]
fn a_service_for_tens_of_thousands_of_ranges_of_clients_costs_what_it_is_long() {
    let started = Instant::now();
    let limited = |ranges: std::ops::Range<usize>| {
        put_service(with(service("a", "10.96.0.1"), |extras| {
            let mode = IpMode::Vip;
            extras.load_balancer_ips = Arc::new([LoadBalancerIp { ip: ip("192.0.2.1"), mode }]);
            // Of both families.
            let range = |n: usize| {
                if n < 32_768 {
                    format!("198.{}.{}.0/24", n / 256, n % 256)
                } else {
                    format!("2001:db8:{n:x}::/48")
                }
            };
            extras.load_balancer_source_ranges =
                ranges.map(|n| range(n).parse().unwrap()).collect();
        }))
    };
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    for (ranges, held) in [
        (0..RANGES, RANGES),
        // Some end, as many come.
        (5_000..RANGES + 5_000, RANGES),
        (0..0, 0),
    ] {
        let report = sync.reconcile(&cluster.apply([limited(ranges.clone())]));
        assert_eq!((report.behind, sync.status().source_ranges), (0, held), "{ranges:?}");
        assert_eq!(sync.maps().image().source_ranges.len(), held, "{ranges:?}");
    }
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

#[test]
fn a_service_with_tens_of_thousands_of_ports_costs_what_it_is_long() {
    let started = Instant::now();
    let names: Vec<String> = (0..PORTS).map(|n| format!("p{n}")).collect();
    let service_ports = names.iter().zip(1..).map(|(name, n)| port(name, Protocol::Tcp, n, None));
    let owner = Service { ports: service_ports.collect(), ..service("a", "10.96.0.1") };
    // Each port leads elsewhere, so that each has a set of its own.
    let leads_to = |first: u16| {
        let ports = names.iter().zip(first..);
        let ports = ports.map(|(name, n)| endpoint_port(name, Protocol::Tcp, n));
        let ports = ports.collect();
        put_slice(EndpointSlice { ports, ..slice("a", "a", &["10.1.0.1"]) })
    };
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    for changes in [vec![put_service(owner), leads_to(1)], vec![leads_to(30_000)]] {
        let report = sync.reconcile(&cluster.apply(changes));
        assert_eq!((report.behind, report.backends_put), (0, PORTS.into()));
        assert_eq!(sync.maps().image().frontends.len(), usize::from(PORTS) + 1);
    }
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

/// A set is counted in 16 bits: endpoints beyond get no connections, and the Service says so.
#[test]
fn endpoints_beyond_a_sets_limit_are_left_out_and_named() {
    let count = u32::try_from(SET_BACKENDS_MAX).unwrap();
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    let all = [put_service(service("a", "10.96.0.1")), put_slice(wide("a", "a", 0, count))];
    sync.reconcile(&cluster.apply(all));
    assert_eq!(sync.plans().warnings(), []);
    sync.reconcile(&cluster.apply([put_slice(wide("b", "a", count, 1))]));
    assert_eq!(sync.status().backends, SET_BACKENDS_MAX);
    let warnings = sync.plans().warnings();
    let expected = Problem::TooManyEndpoints { port: 80, endpoints: SET_BACKENDS_MAX + 1 };
    assert_eq!(warnings.iter().map(|w| &w.problem).collect::<Vec<_>>(), [&expected]);
    assert_eq!(
        warnings[0].to_string(),
        "Service default/a: port 80 has 65536 endpoints: only the first 65535 are used"
    );
}

/// 250,000 endpoints in all fill a quarter of the map; a change is that of its Service.
#[test]
fn a_quarter_of_a_million_endpoints_fit_and_a_change_is_its_own_size() {
    const SERVICES: u32 = 2_500;
    const EACH: u32 = 100;
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    let all = (0..SERVICES).flat_map(|n| {
        let [.., high, low] = n.to_be_bytes();
        let name = format!("s{n}");
        let address = format!("10.96.{high}.{low}");
        let slice = wide(&name, &name, n * EACH, EACH);
        [put_service(service(&name, &address)), put_slice(slice)]
    });
    let report = sync.reconcile(&cluster.apply(all.collect::<Vec<Change>>()));
    assert_eq!((report.behind, sync.status().backends), (0, 250_000));
    let report = sync.reconcile(&cluster.apply([put_slice(wide("s7", "s7", 0, EACH + 1))]));
    assert_eq!((report.services, report.entries()), (1, 101 + 1 + 100));
}

/// A NodePort is one entry for all of the node's addresses, however many it has.
#[test]
fn five_thousand_node_ports_are_an_entry_a_family_whatever_addresses_the_node_has() {
    const SERVICES: u16 = 5_000;
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    let all = (0..SERVICES).map(|n| {
        let [high, low] = n.to_be_bytes();
        let both = [format!("10.96.{high}.{low}"), format!("fd00::{n:x}")];
        put_service(Service {
            cluster_ips: both.iter().map(|address| ip(address)).collect(),
            ports: Arc::new([port("", Protocol::Tcp, 80, Some(25_000 + n))]),
            ..service(&format!("s{n}"), "10.96.0.1")
        })
    });
    assert_eq!(sync.reconcile(&cluster.apply(all.collect::<Vec<Change>>())).behind, 0);
    // The port, every other port of the address, and the NodePort; in each family.
    assert_eq!(sync.status().frontends, 2 * 3 * usize::from(SERVICES));
}
