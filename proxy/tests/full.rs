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
    services::{frontend, node_port, put, serve, unspecified},
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

/// Service number `n`, of two endpoints, with a table, a load balancer's address and two ranges of clients: three
/// frontends, two backends, sixteen parts, two ranges.
fn one_of_everything(is_ipv4: bool, name: &str, n: u8) -> [Change; 2] {
    let (cluster_ip, ranges, endpoints) = match is_ipv4 {
        true => (
            format!("10.96.0.{n}"),
            ["198.51.100.0/24", "203.0.113.0/24"],
            ["10.1.0.1", "10.1.0.2"],
        ),
        false => (
            format!("fd00:96::{n}"),
            ["2001:db8:1::/48", "2001:db8:2::/48"],
            ["fd01::1", "fd01::2"],
        ),
    };
    let service = with(service(name, &cluster_ip), |extras| {
        let balancer = LoadBalancerIp { ip: ip(&balancer_ip(is_ipv4, n)), mode: IpMode::Vip };
        extras.load_balancer_ips = Arc::new([balancer]);
        extras.load_balancer_source_ranges = ranges.iter().map(|r| r.parse().unwrap()).collect();
        extras.load_balancing = LoadBalancing::Maglev;
    });
    [put_service(service), put_slice(slice(name, name, &endpoints))]
}

fn balancer_ip(is_ipv4: bool, n: u8) -> String {
    if is_ipv4 { format!("192.0.2.{n}") } else { format!("2001:db8:5::{n}") }
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
    connected_peers: 512,
    datagram_peers: 512,
    connections: 2048,
    openings: 2048,
    fragments: 512,
    affinities: 512,
    source_ranges: 100,
};

#[test]
fn a_map_of_services_without_room_leaves_the_newcomer_out_until_there_is_some() {
    let cases = [
        (FullMap::Frontends, MapSizes { frontends: 3, ..ROOM }),
        (FullMap::Backends, MapSizes { backends: 3, ..ROOM }),
        (FullMap::Maglev, MapSizes { maglev: 31, ..ROOM }),
        (FullMap::SourceRanges, MapSizes { source_ranges: 3, ..ROOM }),
    ];
    for ((map, sizes), is_ipv4) in cases.into_iter().flat_map(|of| [true, false].map(|v4| (of, v4)))
    {
        let case = format!("{map}, IPv4: {is_ipv4}");
        let newcomers = balancer_ip(is_ipv4, 2);
        let mut cluster = Cluster::new();
        let mut sync = Synchroniser::new(KernelMaps::private(sizes).unwrap(), objects::NODE);
        let first = one_of_everything(is_ipv4, "a", 1);
        assert_eq!(sync.reconcile(&cluster.apply(first)).behind, 0, "{case}");
        let whole = text::image_text(&sync.maps().load().unwrap());

        let second = one_of_everything(is_ipv4, "b", 2);
        let report = sync.reconcile(&cluster.apply(second));
        assert_eq!((report.behind, report.error), (1, None), "{case}");
        let full = sync.status().full;
        assert_eq!(full.iter().map(|f| (f.map, f.services)).collect::<Vec<_>>(), [(map, 1)]);
        let held = text::image_text(&sync.maps().load().unwrap());
        assert!(whole.lines().all(|line| held.contains(line)), "{case}: {held}");
        assert!(!held.contains(&newcomers), "{case}: {held}");

        sync.reconcile(&cluster.apply([delete(Kind::Service, "a")]));
        assert!(!sync.is_behind() && sync.status().full.is_empty(), "{case}");
        let held = text::image_text(&sync.maps().load().unwrap());
        assert_eq!(held.lines().count(), whole.lines().count(), "{case}: {held}");
        assert!(held.contains(&newcomers), "{case}: {held}");
    }
}

/// Addresses of one family.
#[derive(Clone, Copy)]
struct Family {
    is_ipv4: bool,
    dialled: [&'static str; 2],
    backend: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        is_ipv4: true,
        dialled: ["192.168.0.2:30080", "192.168.0.2:30081"],
        backend: "10.244.1.5:8080",
    },
    Family {
        is_ipv4: false,
        dialled: ["[2001:db8::2]:30080", "[2001:db8::2]:30081"],
        backend: "[fd00:10::5]:8080",
    },
];

impl Family {
    fn client(&self, n: u16, port: u16) -> String {
        let [high, low] = n.to_be_bytes();
        match self.is_ipv4 {
            true => format!("198.18.{high}.{low}:{port}"),
            false => format!("[2001:2::{n:x}]:{port}"),
        }
    }

    /// Backends number 1 to 9.
    fn backends(&self) -> Vec<String> {
        let of = |n| match self.is_ipv4 {
            true => format!("10.244.1.{n}:8080"),
            false => format!("[fd00:10::{n}]:8080"),
        };
        (1..=9).map(of).collect()
    }
}

#[test]
fn without_room_for_counters_connections_are_served_and_only_not_counted() {
    world("without_room_for_counters_connections_are_served_and_only_not_counted", |world| {
        let sizes = MapSizes { counters: 1, ..ROOM };
        let mut uplink = Uplink::new(&KernelOptions { sizes, ..world.options() });
        for (family, not_counted) in FAMILIES.into_iter().zip(1..) {
            // There is a cache line of them, of which nobody has the first.
            for (set, port) in [(7, 30080), (8, 30081)] {
                let key = node_port(family.is_ipv4, port, TCP);
                uplink.put(key, set, &[family.backend], BACKEND_LOCAL);
            }
            for to in family.dialled {
                let first = Packet::first(TCP, &family.client(9, 40000), to);
                assert_eq!(uplink.pass(IN, &first).to, at(family.backend));
            }
            assert_eq!((uplink.services(7), uplink.services(8)), ((not_counted, 0), (0, 0)));
            assert_eq!(uplink.count(Reason::NotCounted), not_counted);
        }
    });
}

/// Each client is served, comes to its own backend again, and is answered
/// in the Service's name.
#[test]
fn newcomers_take_the_place_of_what_was_used_least_recently() {
    const CLIENTS: u16 = 4000;
    world("newcomers_take_the_place_of_what_was_used_least_recently", |world| {
        let mut uplink = Uplink::new(&KernelOptions { sizes: ROOM, ..world.options() });
        for (set, family) in [(1, &FAMILIES[0]), (3, &FAMILIES[1])] {
            let backends = family.backends();
            let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
            for (set, protocol) in (set..).zip([TCP, UDP]) {
                let key = node_port(family.is_ipv4, 30080, protocol);
                uplink.put(key, set, &backends, BACKEND_LOCAL);
                let held = uplink.maps.load().unwrap().frontends[&key];
                let value = FrontendValue { affinity_seconds: 3600, ..held.value };
                let sticky = FrontendEntry { value, ..held };
                uplink.maps.apply(&Step::PutFrontends(vec![(key, sticky)])).unwrap();
            }
        }
        for (n, family) in (0..CLIENTS).flat_map(|n| FAMILIES.map(|family| (n, family))) {
            let case = format!("client {n}, IPv4: {}", family.is_ipv4);
            let [to, _] = family.dialled;
            for protocol in [TCP, UDP] {
                let first = Packet::first(protocol, &family.client(n, 1024), to);
                let inside = uplink.pass(IN, &first);
                let back = uplink.pass(OUT, &inside.reply());
                assert_eq!((back.from, back.to), (first.to, first.from), "{case}");
                assert_eq!(uplink.pass(IN, &first.later()).to, inside.to, "{case}");
                let again = Packet::first(protocol, &family.client(n, 1025), to);
                assert_eq!(uplink.pass(IN, &again).to, inside.to, "{case}: affinity");
            }
            let mut datagram = Packet::first(UDP, &family.client(n, 1026), to);
            datagram.payload = (0..64).collect();
            let whole = datagram.frame();
            let destination = if family.is_ipv4 { 30..34 } else { 38..54 };
            let [first, second] = [fragment(&whole, 0, 24), fragment(&whole, 24, 48)].map(|part| {
                let run = uplink.kernel.run_on_packet(IN, &part, 1).unwrap();
                assert_eq!(run.verdict, NEXT, "{case}");
                assert_ne!(run.packet, part, "{case}: it is translated");
                run.packet[destination.clone()].to_vec()
            });
            assert_eq!(first, second, "{case}: both parts go to one backend");
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
        let families = [("127.0.0.1", "10.96.0.1:53"), ("::1", "[fd00:96::1]:53")];
        for (set, (local, service)) in (1..).zip(families) {
            let backend = serve(UDP, ip(local), "backend");
            put(&mut kernel.maps().unwrap(), frontend(service, UDP), set, &[(backend, 0)]);
        }
        let mut open = Vec::new();
        for (n, (local, service)) in (0..900).flat_map(|n| families.map(|family| (n, family))) {
            let socket = UdpSocket::bind((unspecified(ip(local)), 0)).unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.send_to(b"?", at(service)).unwrap();
            let (_, from) = socket.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(from, at(service), "socket {n}");
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
        let all = (1..=9).flat_map(|n| [true, false].map(|is_ipv4| ip(&balancer_ip(is_ipv4, n))));
        let all: Vec<IpAddr> = all.collect();
        for ip in &all {
            let bits = if ip.is_ipv4() { "32" } else { "128 nodad" };
            run(&format!("ip addr add {ip}/{bits} dev lo"));
        }
        let sizes = MapSizes { node_addresses: ROOM_FOR, ..ROOM };
        let cidrs = ["10.96.0.0/16", "fd00:96::/112"].map(|cidr| cidr.parse().unwrap());
        let options = KernelOptions { sizes, service_cidrs: cidrs.into(), ..world.options() };
        let kernel = Kernel::open(&options).unwrap();
        let (mut store, snapshots) = Store::new([]);
        // Again and again others: the map is full each time, and none that was is in the way.
        for n in [9, 8, 9] {
            let own = [true, false].map(|is_ipv4| ip(&balancer_ip(is_ipv4, n)));
            store.apply([Change::Upsert(Object::Node(Arc::new(Node {
                key: Key::new("", "node"),
                addresses: Arc::new(own),
                zone: None,
                pod_cidrs: Arc::new([]),
                deleting: false,
                taints: Arc::new([]),
            })))]);
            node::prepare(&kernel, &snapshots, "node").unwrap();
            let maps = LiveMaps::of(&kernel).unwrap();
            let known = all.iter().filter(|ip| maps.is_node_address(**ip)).count();
            let are_own = own.map(|ip| maps.is_node_address(ip));
            assert_eq!((known, are_own), (ROOM_FOR as usize, [true; 2]), "{own:?}");
        }
        for unallocated in ["10.96.9.9:80", "[fd00:96::99]:80"] {
            let maps = LiveMaps::of(&kernel).unwrap();
            let decided = decide(&maps, Client::Node, Protocol::Tcp, at(unallocated));
            let expected = Verdict::Reject(Why::Unallocated);
            assert_eq!(decided.unwrap().verdict, expected, "the ranges of Services are told");
        }
    });
}
