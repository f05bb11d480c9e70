//! Every map of the kernel, full in turn: a newcomer is left out and the map named, or what was used
//! least recently gives way. What is served goes on.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    net::{IpAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use fairlead_ebpf::abi::{BACKEND_LOCAL, FrontendEntry, FrontendValue, Reason, TCP, UDP};
use fairlead_proxy::{
    Kernel, KernelOptions, MapSizes,
    delta::{FullMap, Step},
    explain::{Client, LiveMaps, Lookup as _, Verdict, Why, decide},
    maps::{Maps as _, kernel::KernelMaps},
    node,
    sync::Synchroniser,
    text,
};
use fairlead_state::{
    Change, Key, Kind, Object, Store,
    model::{IpMode, LoadBalancerIp, LoadBalancing, Node, Protocol},
};
use support::{
    frames::{Packet, fragment},
    services::{frontend, node_port, put, serve},
    uplink::{IN, NEXT, OUT, Uplink, at},
    world::{run, world},
};

use crate::objects::{Cluster, delete, ip, put_service, put_slice, service, slice, with};

#[allow(dead_code, reason = "shared with the tests of Services")]
#[path = "services/objects.rs"]
mod objects;
mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

const DEADLINE: Duration = Duration::from_secs(10);

/// Of two endpoints, with a table, a load balancer's address and two ranges of clients: three
/// frontends, two backends, sixteen parts, two ranges.
fn one_of_everything(name: &str, cluster_ip: &str, balancer_ip: &str) -> [Change; 2] {
    let service = with(service(name, cluster_ip), |extras| {
        let mode = IpMode::Vip;
        extras.load_balancer_ips = Arc::new([LoadBalancerIp { ip: ip(balancer_ip), mode }]);
        let ranges = ["198.51.100.0/24", "203.0.113.0/24"];
        extras.load_balancer_source_ranges = ranges.iter().map(|r| r.parse().unwrap()).collect();
        extras.load_balancing = LoadBalancing::Maglev;
    });
    [put_service(service), put_slice(slice(name, name, &["10.1.0.1", "10.1.0.2"]))]
}

/// Small where nothing is asked of them.
const ROOM: MapSizes = MapSizes {
    frontends: 100,
    backends: 100,
    maglev: 100,
    counters: 100,
    bytes: 0,
    refusals: 100,
    node_addresses: 100,
    datagram_peers: 512,
    connections: 2048,
    openings: 2048,
    fragments: 512,
    affinities: 512,
    source_ranges: 100,
};

#[test]
fn a_map_of_services_without_room_leaves_the_newcomer_out_until_there_is_some() {
    for (map, sizes) in [
        (FullMap::Frontends, MapSizes { frontends: 5, ..ROOM }),
        (FullMap::Backends, MapSizes { backends: 3, ..ROOM }),
        (FullMap::Maglev, MapSizes { maglev: 31, ..ROOM }),
        (FullMap::SourceRanges, MapSizes { source_ranges: 3, ..ROOM }),
    ] {
        let mut cluster = Cluster::new();
        let mut sync = Synchroniser::new(KernelMaps::private(sizes).unwrap(), objects::NODE);
        let first = one_of_everything("a", "10.96.0.1", "192.0.2.1");
        assert_eq!(sync.reconcile(&cluster.apply(first)).behind, 0, "{map}");
        let whole = text::image_text(&sync.maps().load().unwrap());

        let second = one_of_everything("b", "10.96.0.2", "192.0.2.2");
        let report = sync.reconcile(&cluster.apply(second));
        assert_eq!((report.behind, report.error), (1, None), "{map}");
        let full = sync.status().full;
        assert_eq!(full.iter().map(|f| (f.map, f.services)).collect::<Vec<_>>(), [(map, 1)]);
        let held = text::image_text(&sync.maps().load().unwrap());
        assert!(whole.lines().all(|line| held.contains(line)), "{map}: {held}");
        assert!(!held.contains("192.0.2.2"), "{map}: {held}");

        sync.reconcile(&cluster.apply([delete(Kind::Service, "a")]));
        sync.retry();
        assert!(!sync.is_behind() && sync.status().full.is_empty(), "{map}");
        let held = text::image_text(&sync.maps().load().unwrap());
        assert_eq!(held.lines().count(), whole.lines().count(), "{map}: {held}");
        assert!(held.contains("192.0.2.2"), "{map}: {held}");
    }
}

#[test]
fn without_room_for_counters_connections_are_served_and_only_not_counted() {
    world("without_room_for_counters_connections_are_served_and_only_not_counted", |world| {
        let sizes = MapSizes { counters: 1, ..ROOM };
        let mut uplink = Uplink::new(&KernelOptions { sizes, ..world.options() });
        // There is a cache line of them, of which nobody has the first.
        for (set, port) in [(7, 30080), (8, 30081)] {
            uplink.put(node_port(true, port, TCP), set, &["10.244.1.5:8080"], BACKEND_LOCAL);
        }
        for to in ["192.168.0.2:30080", "192.168.0.2:30081"] {
            let first = Packet::first(TCP, "203.0.113.9:40000", to);
            assert_eq!(uplink.pass(IN, &first).to, at("10.244.1.5:8080"));
        }
        assert_eq!((uplink.services(7), uplink.services(8)), ((1, 0), (0, 0)));
        assert_eq!(uplink.count(Reason::NotCounted), 1);
    });
}

/// Each client is served, comes to its own backend again, and is answered
/// in the Service's name.
#[test]
fn newcomers_take_the_place_of_what_was_used_least_recently() {
    const CLIENTS: u16 = 4000;
    world("newcomers_take_the_place_of_what_was_used_least_recently", |world| {
        let mut uplink = Uplink::new(&KernelOptions { sizes: ROOM, ..world.options() });
        let backends: Vec<String> = (1..=9).map(|n| format!("10.244.1.{n}:8080")).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        for protocol in [TCP, UDP] {
            let key = node_port(true, 30080, protocol);
            uplink.put(key, protocol.into(), &backends, BACKEND_LOCAL);
            let held = uplink.maps.load().unwrap().frontends[&key];
            let value = FrontendValue { affinity_seconds: 3600, ..held.value };
            let sticky = FrontendEntry { value, ..held };
            uplink.maps.apply(&Step::PutFrontends(vec![(key, sticky)])).unwrap();
        }
        for n in 0..CLIENTS {
            let [high, low] = n.to_be_bytes();
            let from = |port: u16| format!("198.18.{high}.{low}:{port}");
            for protocol in [TCP, UDP] {
                let first = Packet::first(protocol, &from(1024), "192.168.0.2:30080");
                let inside = uplink.pass(IN, &first);
                let back = uplink.pass(OUT, &inside.reply());
                assert_eq!((back.from, back.to), (first.to, first.from), "client {n}");
                assert_eq!(uplink.pass(IN, &first.later()).to, inside.to, "client {n}");
                let again = Packet::first(protocol, &from(1025), "192.168.0.2:30080");
                assert_eq!(uplink.pass(IN, &again).to, inside.to, "client {n}: affinity");
            }
            let mut datagram = Packet::first(UDP, &from(1026), "192.168.0.2:30080");
            datagram.payload = (0..64).collect();
            let whole = datagram.frame();
            let [first, second] = [fragment(&whole, 0, 24), fragment(&whole, 24, 48)].map(|part| {
                let run = uplink.kernel.run_on_packet(IN, &part, 1).unwrap();
                assert_eq!(run.verdict, NEXT, "client {n}");
                run.packet[30..34].to_vec()
            });
            assert_eq!(first, second, "client {n}: both parts go to one backend");
        }
        for reason in [Reason::Fragment, Reason::AffinityNotStored, Reason::PortsExhausted] {
            assert_eq!(uplink.count(reason), 0, "{reason:?}");
        }
    });
}

#[test]
fn datagram_sockets_beyond_the_maps_room_are_answered_in_the_services_name() {
    world("datagram_sockets_beyond_the_maps_room_are_answered_in_the_services_name", |world| {
        let kernel = Kernel::open(&KernelOptions { sizes: ROOM, ..world.options() }).unwrap();
        kernel.attach().unwrap();
        let backend = serve(UDP, "127.0.0.1".parse().unwrap(), "backend");
        put(&mut kernel.maps().unwrap(), frontend("10.96.0.1:53", UDP), 1, &[(backend, 0)]);
        let to = at("10.96.0.1:53");
        let mut open = Vec::new();
        for n in 0..900 {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.send_to(b"?", to).unwrap();
            let (_, from) = socket.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(from, to, "socket {n}");
            open.push(socket);
        }
    });
}

/// With more addresses than there is room for, those of the Node object have NodePorts, and what else
/// the programs must know of the node is told.
#[test]
fn addresses_beyond_the_maps_room_are_left_out_and_the_nodes_own_are_not() {
    world("addresses_beyond_the_maps_room_are_left_out_and_the_nodes_own_are_not", |world| {
        const ROOM_FOR: u32 = 4;
        for n in 1..=9 {
            run(&format!("ip addr add 192.0.2.{n}/32 dev lo"));
        }
        let sizes = MapSizes { node_addresses: ROOM_FOR, ..ROOM };
        let cidr = "10.96.0.0/16".parse().unwrap();
        let options = KernelOptions { sizes, service_cidrs: vec![cidr], ..world.options() };
        let kernel = Kernel::open(&options).unwrap();
        let (mut store, snapshots) = Store::new([]);
        // Again and again others: the map is full each time, and none that was is in the way.
        for own in ["192.0.2.9", "192.0.2.8", "192.0.2.9"] {
            let own = ip(own);
            store.apply([Change::Upsert(Object::Node(Arc::new(Node {
                key: Key::new("", "node"),
                addresses: Arc::new([own]),
                zone: None,
                pod_cidrs: Arc::new([]),
                deleting: false,
                taints: Arc::new([]),
            })))]);
            node::prepare(&kernel, &snapshots, "node").unwrap();
            let maps = LiveMaps::of(&kernel).unwrap();
            let all = (1..=9).map(|n| IpAddr::from([192, 0, 2, n]));
            let known = all.filter(|ip| maps.is_node_address(*ip)).count();
            assert_eq!((known, maps.is_node_address(own)), (ROOM_FOR as usize, true), "{own}");
        }
        let unallocated = decide(
            &LiveMaps::of(&kernel).unwrap(),
            Client::Node,
            Protocol::Tcp,
            at("10.96.9.9:80"),
        );
        let expected = Verdict::Reject(Why::Unallocated);
        assert_eq!(unallocated.unwrap().verdict, expected, "the ranges of Services are told");
    });
}
