//! Maps without room: who is left out, who is told, and what room that is made is good for.

use std::sync::Arc;

use fairlead_proxy::{
    delta::FullMap,
    maps::{Capacities, Maps as _, memory::MemoryMaps},
    sync::Synchroniser,
    text,
};
use fairlead_state::{
    Change, Kind, Object,
    model::{Endpoint, IpMode, LoadBalancerIp, LoadBalancing, Protocol, Service},
};

use crate::objects::{
    Cluster, NODE, delete, endpoint, endpoint_port, ip as address, many, node_view, port,
    put_service, put_slice, service, slice, with,
};

/// More than are written together.
const SEVERAL_GROUPS: usize = 5000;

/// A Service with one load balancer address, for two ranges of clients.
fn limited(name: &str, ip: &str) -> Change {
    put_service(with(service(name, ip), |extras| {
        extras.load_balancer_ips =
            Arc::new([LoadBalancerIp { ip: address(ip), mode: IpMode::Vip }]);
        let ranges = ["198.51.100.0/24", "203.0.113.0/24"];
        extras.load_balancer_source_ranges = ranges.iter().map(|r| r.parse().unwrap()).collect();
    }))
}

/// The slice of the Service `name` with so many endpoints.
fn endpoints(name: &str, count: usize) -> Change {
    let ips: Vec<String> = (0..count).map(|i| format!("10.7.{}.{}", i >> 8, i & 255)).collect();
    put_slice(slice(name, name, &ips.iter().map(String::as_str).collect::<Vec<_>>()))
}

#[test]
fn a_full_frontends_map_is_reported_and_deletions_make_room() {
    let mut cluster = Cluster::new();
    let capacities =
        Capacities { frontends: 6, backends: 100, maglev: 0, source_ranges: 1000, counters: 100 };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    let report = sync.reconcile(&cluster.apply(many(5)));
    assert_eq!((report.behind, report.error), (2, None));
    let full = sync.status().full;
    assert_eq!(
        full.iter().map(|f| (f.map, f.services)).collect::<Vec<_>>(),
        [(FullMap::Frontends, 2)]
    );
    assert_eq!(
        full[0].to_string(),
        "frontends holds 6 entries and is full; services not served in full: 2; raise \
         --frontends-max"
    );
    let change = put_slice(slice("s0", "s0", &["10.9.0.1"]));
    sync.reconcile(&cluster.apply([change]));
    assert!(text::image_text(sync.maps().image()).contains("10.9.0.1"), "others go on");
    assert!(!sync.is_retry_due(), "time makes no room");
    sync.reconcile(&cluster.apply([delete(Kind::Service, "s0"), delete(Kind::Service, "s1")]));
    assert_eq!((sync.is_behind(), sync.maps().image().frontends.len()), (false, 6), "at once");
    assert!(sync.status().full.is_empty());
}

#[test]
fn sets_that_fit_only_one_after_the_other_are_written_one_after_the_other() {
    let mut cluster = Cluster::new();
    // Six slots are in use and there is room for two more.
    let capacities =
        Capacities { frontends: 10, backends: 8, maglev: 0, source_ranges: 1000, counters: 10 };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    sync.reconcile(&cluster.apply(many(3)));
    let all_change: Vec<_> = (0..3)
        .map(|i| put_slice(slice(&format!("s{i}"), &format!("s{i}"), &["10.8.0.1", "10.8.0.2"])))
        .collect();
    let report = sync.reconcile(&cluster.apply(all_change));
    assert_eq!((report.behind, report.backends_put, report.backends_deleted), (0, 6, 6));
}

/// The Service whose new endpoints find no room goes on with the old ones; a new one is left out.
#[test]
fn a_full_map_of_backends_concerns_the_newcomer_alone() {
    let mut cluster = Cluster::new();
    let capacities =
        Capacities { frontends: 100, backends: 5, maglev: 0, source_ranges: 0, counters: 100 };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    let report = sync.reconcile(&cluster.apply(many(3)));
    assert_eq!((report.behind, report.error), (1, None));
    assert_eq!(
        sync.status().full[0].to_string(),
        "backends holds 5 entries and is full; services not served in full: 1; raise \
         --backends-max"
    );
    let held = text::image_text(sync.maps().image());
    assert!(held.contains("-> 10.1.0.0:8080, 10.2.0.0:8080"), "{held}");
    assert_eq!(sync.reconcile(&cluster.apply([endpoints("s0", 2)])).behind, 2);
    assert_eq!(text::image_text(sync.maps().image()), held, "s0 as before, s2 not at all");
    // There is room for the one, whose old endpoints then make some for the other.
    let report = sync.reconcile(&cluster.apply([endpoints("s1", 1)]));
    assert_eq!((report.behind, sync.maps().image().backends.len()), (0, 5));
}

/// Groups of Services are written one after the other. What a later one gives up serves those of an
/// earlier one in the same pass: nobody is called full who is not.
#[test]
fn room_that_later_groups_make_is_used_at_once() {
    let mut cluster = Cluster::new();
    let backends = 2 * SEVERAL_GROUPS + 40;
    let capacities = Capacities {
        frontends: 3 * SEVERAL_GROUPS,
        backends,
        maglev: 0,
        source_ranges: 2,
        counters: 2 * SEVERAL_GROUPS,
    };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    let all = many(SEVERAL_GROUPS).into_iter().chain([limited("z", "10.97.0.1")]);
    assert_eq!(sync.reconcile(&cluster.apply(all)).behind, 0);
    // The first two grow: one by endpoints, one by ranges. Everything after them makes room, the last
    // by leaving.
    let change = |i: usize| endpoints(&format!("s{i}"), if i == 0 { 3000 } else { 1 });
    let changes = (0..SEVERAL_GROUPS).map(change);
    let more = [limited("s1", "10.96.0.1"), delete(Kind::Service, "z")];
    let report = sync.reconcile(&cluster.apply(changes.chain(more)));
    assert_eq!((report.behind, report.error), (0, None));
    assert!(sync.status().full.is_empty());
    let image = sync.maps().image();
    assert_eq!((image.backends.len(), image.source_ranges.len()), (SEVERAL_GROUPS - 1 + 3000, 2));
}

/// The Service that finds no room for its table is left as it was, or out, if it is new.
#[test]
fn a_full_map_of_tables_concerns_the_newcomer_alone() {
    let mut cluster = Cluster::new();
    let capacities = Capacities {
        frontends: 100,
        backends: 100,
        maglev: 40,
        source_ranges: 1000,
        counters: 100,
    };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    let balanced = |change: Change| match change {
        Change::Upsert(Object::Service(service)) => {
            put_service(with(Service::clone(&service), |extras| {
                extras.load_balancing = LoadBalancing::Maglev;
            }))
        }
        other => other,
    };
    let report = sync.reconcile(&cluster.apply(many(3).into_iter().map(balanced)));
    assert_eq!((report.behind, report.error), (1, None));
    assert_eq!(
        sync.status().full[0].to_string(),
        "maglev holds 40 entries and is full; services not served in full: 1; raise \
         --maglev-max"
    );
    let change = put_slice(slice("s0", "s0", &["10.9.0.1"]));
    assert_eq!(sync.reconcile(&cluster.apply([change])).behind, 2, "beside the old one: no room");
    sync.reconcile(&cluster.apply([delete(Kind::Service, "s1")]));
    assert_eq!((sync.is_behind(), sync.status().maglev), (false, 32));
}

/// Of two Services that limit their clients the second finds no room: it is left out, since without
/// its ranges it would be open to all, and the others are served.
#[test]
fn a_full_map_of_source_ranges_concerns_the_newcomer_alone() {
    let mut cluster = Cluster::new();
    let capacities =
        Capacities { frontends: 100, backends: 100, maglev: 0, source_ranges: 3, counters: 100 };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    let all = [
        limited("s1", "10.96.0.1"),
        limited("s2", "10.96.0.2"),
        put_service(service("s3", "10.96.0.3")),
    ];
    let report = sync.reconcile(&cluster.apply(all));
    assert_eq!((report.behind, report.error), (1, None));
    assert_eq!(
        sync.status().full[0].to_string(),
        "source-ranges holds 3 entries and is full; services not served in full: 1; raise \
         --source-ranges-max"
    );
    let held = text::image_text(sync.maps().image());
    assert!(held.contains("10.96.0.1") && held.contains("10.96.0.3"), "{held}");
    assert!(!held.contains("10.96.0.2"), "{held}");
    sync.reconcile(&cluster.apply([delete(Kind::Service, "s1")]));
    assert!(!sync.is_behind() && sync.status().full.is_empty());
    assert!(text::image_text(sync.maps().image()).contains("10.96.0.2"));
}

/// A Service with the load balancer address that all of these ask for, and two endpoints of its own.
fn shares(name: &str, cluster_ip: &str, created_seconds: i64) -> [Change; 2] {
    let service = with(Service { created_seconds, ..service(name, cluster_ip) }, |extras| {
        let shared = LoadBalancerIp { ip: address("203.0.113.9"), mode: IpMode::Vip };
        extras.load_balancer_ips = Arc::new([shared]);
    });
    let own = ["1", "2"].map(|last| format!("10.{created_seconds}.0.{last}"));
    [put_service(service), put_slice(slice(name, name, &own.each_ref().map(String::as_str)))]
}

/// The address led to the endpoints of the Service that had it before, whose place the one that has it now waited for: for ever,
/// as nothing became free.
#[test]
fn bug_a_frontend_that_changes_hands_in_a_full_map_does_not_stay_with_endpoints_of_who_had_it() {
    let elder = shares("a", "10.96.0.1", 1).to_vec();
    let both = [elder.clone(), shares("b", "10.96.0.2", 2).to_vec()].concat();
    let gone = || vec![delete(Kind::Service, "a")];
    let in_its_place = [gone(), shares("b", "10.96.0.1", 2).to_vec()].concat();
    let eldest = shares("b", "10.96.0.2", 0).to_vec();
    for (what, begin, change, is_whole) in [
        ("who had it is gone", both.clone(), gone(), true),
        ("another comes as it goes", elder, in_its_place, true),
        // Its own address is still that one's, and so are the endpoints.
        ("who has it now is older", both, eldest, false),
    ] {
        let mut cluster = Cluster::new();
        let capacities = Capacities { backends: 2, ..MemoryMaps::default().capacities() };
        let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
        sync.reconcile(&cluster.apply(begin));
        assert!(text::image_text(sync.maps().image()).contains("203.0.113.9:80"), "{what}");
        let snapshot = cluster.apply(change);
        let report = sync.reconcile(&snapshot);
        assert_eq!((report.error, !sync.is_behind()), (None, is_whole), "{what}");
        let held = text::image_text(sync.maps().image());
        if is_whole {
            assert_eq!(held, text::plan_text(&snapshot, &node_view(&snapshot)), "{what}");
        } else {
            assert!(held.contains("10.96.0.1:80") && !held.contains("203.0.113.9"), "{held}");
        }
    }
}

/// A resolver's Service, with one endpoint that is ready and one that serves what it has: a port, every other
/// port, and beside the first what leads to both.
fn resolver(name: &str, ip: &str) -> [Change; 2] {
    let ports = Arc::new([port("", Protocol::Udp, 53, None)]);
    let draining = Endpoint { ready: false, terminating: true, ..endpoint(address("10.5.0.2")) };
    [
        put_service(Service { ports, ..service(name, ip) }),
        put_slice(fairlead_state::model::EndpointSlice {
            ports: Arc::new([endpoint_port("", Protocol::Udp, 53)]),
            endpoints: [endpoint(address("10.5.0.1")), draining].into(),
            ..slice(name, name, &["10.5.0.1"])
        }),
    ]
}

/// Frontends in the maps: those that are dialled, and those beside them.
fn dialled_and_beside(sync: &Synchroniser<MemoryMaps>) -> (usize, usize) {
    let frontends = &sync.maps().image().frontends;
    let beside = frontends.keys().filter(|key| key.is_serving_of().is_some()).count();
    (frontends.len() - beside, beside)
}

/// What keeps flows where they are had filled the map, and the next Service was refused.
#[test]
fn what_is_beside_frontends_makes_way_for_a_service_and_comes_back_when_one_has_gone() {
    let mut cluster = Cluster::new();
    let capacities = Capacities { frontends: 7, ..MemoryMaps::default().capacities() };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    let two = [resolver("a", "10.96.0.1"), resolver("b", "10.96.0.2")].concat();
    assert_eq!(sync.reconcile(&cluster.apply(two)).behind, 0);
    assert_eq!(dialled_and_beside(&sync), (4, 2));

    let report = sync.reconcile(&cluster.apply([put_service(service("c", "10.96.0.3"))]));
    assert_eq!((report.behind, report.error), (1, None));
    assert_eq!(dialled_and_beside(&sync), (6, 1));
    assert_eq!(
        sync.status().full[0].to_string(),
        "frontends holds 7 entries and is full; services not served in full: 1, of which 1 lack \
         only what keeps UDP flows where they are; raise --frontends-max"
    );
    // Both at once: what is dialled before what is beside.
    sync.reconcile(&cluster.apply(resolver("d", "10.96.0.4")));
    assert_eq!(dialled_and_beside(&sync), (7, 0));
    let full = sync.status().full;
    assert_eq!(full.iter().map(|f| (f.services, f.flows)).collect::<Vec<_>>(), [(3, 2)]);
    assert!(!sync.is_retry_due(), "time makes no room");

    sync.reconcile(&cluster.apply([delete(Kind::Service, "c")]));
    assert_eq!(dialled_and_beside(&sync), (6, 1));
    sync.reconcile(&cluster.apply([delete(Kind::Service, "d")]));
    assert_eq!(dialled_and_beside(&sync), (4, 2));
    assert!(!sync.is_behind() && sync.status().full.is_empty());
}

/// The same from the start, however many groups they are written in.
#[test]
fn services_have_room_before_what_is_beside_the_frontends_of_earlier_groups() {
    const RESOLVERS: usize = 100;
    let mut cluster = Cluster::new();
    let all = (0..RESOLVERS).flat_map(|i| resolver(&format!("r{i}"), &format!("10.98.0.{i}")));
    let all: Vec<Change> = all.chain(many(SEVERAL_GROUPS)).collect();
    let dialled = 2 * (RESOLVERS + SEVERAL_GROUPS);
    let capacities = Capacities { frontends: dialled + 10, ..MemoryMaps::default().capacities() };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    let report = sync.reconcile(&cluster.apply(all));
    assert_eq!((report.behind, report.error), (RESOLVERS - 10, None));
    assert_eq!(dialled_and_beside(&sync), (dialled, 10));
    let full = sync.status().full;
    let lacking = full.iter().map(|f| (f.services, f.flows)).collect::<Vec<_>>();
    assert_eq!(lacking, [(RESOLVERS - 10, RESOLVERS - 10)]);
}

/// A port of a Service that found no room was refused as one that it does not have.
#[test]
fn no_port_of_a_service_is_refused_for_want_of_room() {
    let mut cluster = Cluster::new();
    let capacities = Capacities { frontends: 4, ..MemoryMaps::default().capacities() };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    let with_ports = |numbers: &[u16]| {
        let ports = numbers.iter().map(|n| port(&format!("p{n}"), Protocol::Tcp, *n, None));
        put_service(Service { ports: ports.collect(), ..service("a", "10.96.0.1") })
    };
    for (numbers, held, is_whole) in [
        (&[80, 81][..], &["other", "80", "81"][..], true),
        (&[80, 81, 82], &["other", "80", "81", "82"], true),
        (&[80, 81, 82, 83], &["80", "81", "82", "83"], false),
        (&[80, 81, 82, 83, 84], &["80", "81", "82", "83"], false),
        (&[80, 82, 84], &["other", "80", "82", "84"], true),
    ] {
        let report = sync.reconcile(&cluster.apply([with_ports(numbers)]));
        assert_eq!(report.error, None);
        let keys = sync.maps().image().frontends.keys();
        let found: Vec<String> = keys
            .map(|key| match key.is_other_ports() {
                true => "other".to_owned(),
                false => u16::from_be_bytes(key.port).to_string(),
            })
            .collect();
        assert_eq!(
            (found, !sync.is_behind()),
            (held.iter().map(|s| (*s).to_owned()).collect(), is_whole)
        );
    }
}

/// Every change of a Service looked at all who wait, and wrote nothing: ten thousand who wait cost each change
/// as much as a start.
#[test]
fn who_waits_is_looked_at_only_when_there_is_room_to_be_had() {
    let mut cluster = Cluster::new();
    let capacities = Capacities { frontends: 20, ..MemoryMaps::default().capacities() };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    assert_eq!(sync.reconcile(&cluster.apply(many(10))).behind, 0);
    assert_eq!(sync.reconcile(&cluster.apply(many(100))).behind, 90);
    let served = sync.maps().image().frontends.clone();
    let change = put_slice(slice("s0", "s0", &["10.9.0.1", "10.9.0.2"]));
    let report = sync.reconcile(&cluster.apply([change]));
    assert_eq!((report.services, report.behind, report.frontends_put), (1, 90, 1));
    // One goes, and one of those who wait takes its place.
    let report = sync.reconcile(&cluster.apply([delete(Kind::Service, "s0")]));
    assert_eq!((report.behind, report.frontends_put, report.frontends_deleted), (89, 2, 2));
    let now = sync.maps().image().frontends.keys();
    assert_eq!(now.filter(|key| !served.contains_key(*key)).count(), 2);
}
