//! What a Service says of its clients: whom it refuses, whom it keeps, where it answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use fairlead_ebpf::abi::{
    Backend, BackendKey, FRONTEND_DROPS, FRONTEND_EXTERNAL, FRONTEND_SOURCE_RANGES, FirstBackends,
    FrontendEntry, FrontendKey, FrontendValue, NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS, Reason,
    SourceRangeKey, TCP,
};
use fairlead_proxy::{
    Kernel, KernelOptions, MapSizes, NodePortAddresses,
    delta::Step,
    maps::{Maps as _, kernel::KernelMaps},
};

use super::{
    V4, V6, at, datagrams, ip, start,
    support::{
        services::{address, ask_tcp, frontend, node_port, put, serve, unspecified},
        world::world,
    },
};

/// Writes a frontend as it stands, with the backends of its set.
fn put_value(maps: &mut KernelMaps, key: FrontendKey, value: FrontendValue, at: &[SocketAddr]) {
    let slots = (0u32..).zip(at).map(|(slot, at)| {
        let (address, port) = (address(at.ip()), at.port().to_be_bytes());
        (BackendKey { set_id: value.set_id, slot }, Backend { address, port, flags: 0 })
    });
    let slots: Vec<_> = slots.collect();
    let first = FirstBackends::of(&key, slots.iter().map(|(_, backend)| *backend));
    maps.apply(&Step::PutBackends(slots)).unwrap();
    let backends = u16::try_from(at.len()).unwrap();
    let value = FrontendValue { backends, ..value };
    maps.apply(&Step::PutFrontends(vec![(key, FrontendEntry { value, first })])).unwrap();
}

fn value(set_id: u32, flags: u16) -> FrontendValue {
    FrontendValue { set_id, counter_id: set_id, flags, ..bytemuck::Zeroable::zeroed() }
}

/// l4 §4.2: REJECT, DROP and pass are three different answers. At a socket a drop is told at once,
/// where a packet would leave the caller waiting.
#[test]
fn refused_dropped_and_passed_are_three_errors() {
    world("policies::refused_dropped_and_passed_are_three_errors", |world| {
        let cidrs = ["10.96.0.0/16", "fd00:96::/112"].map(|cidr| cidr.parse().unwrap());
        let options = KernelOptions { service_cidrs: cidrs.into(), ..world.options() };
        let kernel = Kernel::open(&options).unwrap();
        kernel.attach().unwrap();
        let mut maps = kernel.maps().unwrap();
        let servers = [V4, V6].map(|local| serve(TCP, ip(local), "backend"));
        for (set, address, is_dropping) in [
            (1, "10.96.0.1", false),
            (2, "[fd00:96::1]", false),
            (3, "10.96.0.2", true),
            (4, "[fd00:96::2]", true),
        ] {
            let flags = if is_dropping { FRONTEND_DROPS } else { 0 };
            let key = frontend(&format!("{address}:80"), TCP);
            put_value(&mut maps, key, value(set, flags), &[]);
            let others = FrontendKey::other_ports(key.address);
            put_value(&mut maps, others, value(set, 0), &[]);
        }
        let served = [("10.96.0.3:80", "10.96.0.4:80"), ("[fd00:96::3]:80", "[fd00:96::4]:80")];
        for ((set, (open, limited)), server) in [5, 7].into_iter().zip(served).zip(servers) {
            put_value(&mut maps, frontend(open, TCP), value(set, 0), &[server]);
            // No client is in its ranges.
            let ranged = value(set + 1, FRONTEND_SOURCE_RANGES);
            put_value(&mut maps, frontend(limited, TCP), ranged, &[server]);
        }
        use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        let cases = [
            ("10.96.0.1:80", ConnectionRefused),
            ("[fd00:96::1]:80", ConnectionRefused),
            ("10.96.0.1:81", ConnectionRefused),
            ("[fd00:96::1]:81", ConnectionRefused),
            ("10.96.0.2:80", HostUnreachable),
            ("[fd00:96::2]:80", HostUnreachable),
            ("10.96.0.4:80", HostUnreachable),
            ("[fd00:96::4]:80", HostUnreachable),
            ("10.96.9.9:80", ConnectionRefused),
            ("[fd00:96::99]:80", ConnectionRefused),
            ("10.97.0.1:80", NetworkUnreachable),
            ("[fd00:97::1]:80", NetworkUnreachable),
        ];
        let ask = || {
            for (dialled, expected) in cases {
                let begun = Instant::now();
                let tcp = ask_tcp(at(dialled)).unwrap_err().kind();
                let datagram = datagrams(unspecified(at(dialled).ip()));
                let udp = datagram.send_to(b"?", at(dialled)).unwrap_err().kind();
                assert_eq!(tcp, expected, "TCP {dialled}");
                // UDP port 80 is one of the other ports, or of no Service.
                let is_dropped = expected == HostUnreachable;
                let udp_expected = if is_dropped { ConnectionRefused } else { expected };
                assert_eq!(udp, udp_expected, "UDP {dialled}");
                assert!(begun.elapsed() < Duration::from_secs(1), "{dialled} took its time");
            }
        };
        ask();
        for (open, _) in served {
            assert_eq!(ask_tcp(at(open)).unwrap().0, "backend");
        }
        let drops = kernel.drops().unwrap();
        let counts = [
            (Reason::UnusedPort, 8),
            (Reason::UnallocatedAddress, 6),
            (Reason::NoLocalBackends, 2),
            (Reason::SourceDenied, 2),
        ];
        assert_eq!(counts.map(|(reason, _)| (reason, drops[&reason])), counts);
        let refused = |maps: &KernelMaps| -> BTreeMap<u32, BTreeMap<Reason, u64>> {
            let counters = maps.counters().unwrap().into_iter();
            counters.map(|(id, service)| (id, service.refused)).collect()
        };
        // Each Service has its own. No Service has an address that is not allotted.
        let (none, unused) = (Reason::NoBackends, Reason::UnusedPort);
        let expected = [
            (1, [(none, 1), (unused, 3)].into()),
            (2, [(none, 1), (unused, 3)].into()),
            (3, [(unused, 1), (Reason::NoLocalBackends, 1)].into()),
            (4, [(unused, 1), (Reason::NoLocalBackends, 1)].into()),
            (5, BTreeMap::new()),
            (6, [(Reason::SourceDenied, 1)].into()),
            (7, BTreeMap::new()),
            (8, [(Reason::SourceDenied, 1)].into()),
        ];
        assert_eq!(refused(&maps), expected.into());
        // And for many at once.
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| ask()));
            }
        });
    });
}

#[test]
fn refusals_outlive_the_agent_end_with_their_service_and_are_bounded() {
    let test = "policies::refusals_outlive_the_agent_end_with_their_service_and_are_bounded";
    world(test, |world| {
        let sizes = MapSizes { refusals: 2, ..world.options().sizes };
        let options = KernelOptions { sizes, ..world.options() };
        let kernel = Kernel::open(&options).unwrap();
        kernel.attach().unwrap();
        let mut maps = kernel.maps().unwrap();
        for set in 1..=3 {
            put(&mut maps, frontend(&format!("10.96.0.{set}:80"), TCP), set, &[]);
        }
        let ask = |set: u32| {
            let error = ask_tcp(at(&format!("10.96.0.{set}:80"))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "counted or not");
        };
        let refused = |kernel: &Kernel| -> Vec<(u32, u64)> {
            let services = kernel.services(u32::MAX).unwrap().into_iter();
            services.map(|(id, service)| (id, service.refused[&Reason::NoBackends])).collect()
        };
        [1, 2, 2, 3].into_iter().for_each(ask);
        assert_eq!(refused(&kernel), [(1, 1), (2, 2)]);
        assert_eq!(kernel.drops().unwrap()[&Reason::NotCounted], 1);
        drop(kernel);
        ask(1);
        let next = Kernel::open(&options).unwrap();
        assert_eq!(refused(&next), [(1, 2), (2, 2)], "nobody looked on");
        maps.apply(&Step::ClearCounters(vec![1])).unwrap();
        ask(3);
        assert_eq!(refused(&next), [(2, 2), (3, 1)]);
        assert_eq!(next.services(2).unwrap().into_keys().collect::<Vec<_>>(), [2]);
    });
}

/// A Service's port by each way a socket may dial it: affinity is one for all of them.
struct Sticky {
    local: &'static str,
    service: &'static str,
    node_port: FrontendKey,
    dialled: &'static [&'static str],
}

fn sticky() -> [Sticky; 2] {
    [
        Sticky {
            local: V4,
            service: "10.96.0.1:80",
            node_port: node_port(true, 30080, TCP),
            // The last as a dual-stack client's IPv6 socket dials IPv4.
            dialled: &["10.96.0.1:80", "127.0.0.1:30080", "[::ffff:10.96.0.1]:80"],
        },
        Sticky {
            local: V6,
            service: "[fd00:96::1]:80",
            node_port: node_port(false, 30080, TCP),
            dialled: &["[fd00:96::1]:80", "[::1]:30080"],
        },
    ]
}

#[test]
fn affinity_keeps_a_client_until_it_times_out_or_its_backend_leaves() {
    world("policies::affinity_keeps_a_client_until_it_times_out_or_its_backend_leaves", |world| {
        let (_kernel, mut maps) = start(world);
        let pod = world.pod(1);
        for (counter_id, family) in (1..).zip(sticky()) {
            let Sticky { local, service: dialled, .. } = family;
            let mut servers: Vec<(SocketAddr, &str)> = ["a", "b", "c", "d", "e", "f"]
                .map(|name| (serve(TCP, ip(local), name), name))
                .into();
            servers.sort();
            let all: Vec<SocketAddr> = servers.iter().map(|(at, _)| *at).collect();
            let with = |set: u32, affinity_seconds| FrontendValue {
                affinity_seconds,
                counter_id,
                service_port: [0, 80],
                ..value(counter_id * 10 + set, 0)
            };
            let service = frontend(dialled, TCP);
            for key in [service, family.node_port] {
                put_value(&mut maps, key, with(1, 3600), &all);
            }
            let ask = |to: &str| ask_tcp(at(to)).unwrap().0;
            let first = ask(dialled);
            for to in family.dialled.iter().cycle().take(40) {
                assert_eq!(ask(to), first, "one Service, whatever was dialled: {to}");
            }
            // Another set with the same backend among others: the client stays.
            let stays = servers.iter().position(|(_, name)| *name == first).unwrap();
            let fewer: Vec<SocketAddr> =
                servers.iter().skip(stays.saturating_sub(1)).map(|(at, _)| *at).collect();
            put_value(&mut maps, service, with(2, 3600), &fewer);
            assert_eq!(ask(dialled), first, "a smaller set");
            // Without it (it terminates): the client moves once and stays there.
            let others: Vec<SocketAddr> =
                servers.iter().filter(|(_, name)| *name != first).map(|(at, _)| *at).collect();
            put_value(&mut maps, service, with(3, 3600), &others);
            let second = ask(dialled);
            assert_ne!(second, first, "{dialled}");
            assert!((0..20).all(|_| ask(dialled) == second), "{dialled}");
            // Another network namespace is another client.
            let node = pod.node_address(ip(local).is_ipv4());
            let mut pods: Vec<SocketAddr> =
                ["p", "q", "r", "s", "t", "u", "v", "w"].map(|name| serve(TCP, node, name)).into();
            pods.sort();
            put_value(&mut maps, service, with(4, 3600), &pods);
            let clients = [(); 6].map(|()| pod.inside(|| ask_tcp(at(dialled))));
            let names: BTreeSet<String> =
                clients.into_iter().map(|answer| answer.unwrap().0).collect();
            assert_eq!(names.len(), 1, "one pod, one backend: {names:?}");
            // One second of affinity is over when it is over.
            put_value(&mut maps, service, with(5, 1), &all);
            let begun = Instant::now();
            let mut seen = BTreeSet::new();
            while seen.len() < 2 && begun.elapsed() < Duration::from_secs(60) {
                seen.insert(ask(dialled));
                thread::park_timeout(Duration::from_millis(2100));
            }
            assert_eq!(seen.len(), 2, "the time-out never came");
        }
    });
}

#[test]
fn source_ranges_hold_for_the_node_and_leave_pods_to_their_packets() {
    world("policies::source_ranges_hold_for_the_node_and_leave_pods_to_their_packets", |world| {
        let (kernel, mut maps) = start(world);
        let nodes = ["192.168.0.2", "2001:db8::2"].map(|node| address(ip(node)));
        let [v4, v6] = nodes;
        kernel.set_node(&nodes.map(|node| (node, NODE_ADDRESS_OWN)).into(), v4, v6).unwrap();
        let pod = world.pod(1);
        // As long as a range, the prefix of an IPv4 address is as of one that is mapped.
        let families = [
            (V4, "5.6.7.8:80", "192.168.0.0", 96 + 24),
            (V6, "[2001:db8:5::8]:80", "2001:db8::", 64),
        ];
        for (counter_id, (local, balancer, range, bits)) in (1..).zip(families) {
            let server = serve(TCP, ip(local), "backend");
            let flags = FRONTEND_EXTERNAL | FRONTEND_SOURCE_RANGES;
            put_value(&mut maps, frontend(balancer, TCP), value(counter_id, flags), &[server]);
            let denied = ask_tcp(at(balancer)).unwrap_err();
            assert_eq!(denied.kind(), ErrorKind::HostUnreachable, "the node is in no range");
            let range =
                SourceRangeKey { prefix_len: 32 + bits, counter_id, address: address(ip(range)) };
            maps.apply(&Step::PutSourceRanges(vec![range])).unwrap();
            assert_eq!(ask_tcp(at(balancer)).unwrap().0, "backend", "node to balancer");
            let error = pod.inside(|| {
                TcpStream::connect_timeout(&at(balancer), Duration::from_millis(300)).unwrap_err()
            });
            assert_ne!(error.kind(), ErrorKind::ConnectionRefused, "its packet is not translated");
            maps.apply(&Step::DeleteSourceRanges(vec![range])).unwrap();
            assert!(ask_tcp(at(balancer)).is_err(), "{balancer}");
            let drops = kernel.drops().unwrap();
            assert_eq!(drops[&Reason::SourceDenied], u64::from(counter_id) * 2, "{balancer}");
        }
    });
}

/// In each of both families alone.
#[test]
fn node_ports_answer_only_where_they_are_told_to() {
    let families = [
        (
            ["127.0.0.0/8", "10.99.0.0/16", "2001:db8::/32"],
            true,
            "127.0.0.1:30080",
            &["[::1]:30080", "[::]:30080"][..],
        ),
        (
            ["::1/128", "fd99::/16", "192.0.2.0/24"],
            false,
            "[::1]:30080",
            &["127.0.0.1:30080", "0.0.0.0:30080"],
        ),
    ];
    world("policies::node_ports_answer_only_where_they_are_told_to", |world| {
        let pod = world.pod(1);
        let servers = [(true, serve(TCP, ip(V4), "v4")), (false, serve(TCP, ip(V6), "v6"))];
        for (words, is_ipv4, answers, refuse) in families {
            let options = KernelOptions {
                node_port_addresses: NodePortAddresses::from_words(words).unwrap(),
                ..world.options()
            };
            let kernel = Kernel::open(&options).unwrap();
            kernel.attach().unwrap();
            let mut maps = kernel.maps().unwrap();
            for (set, (is_ipv4, server)) in (1..).zip(servers) {
                put(&mut maps, node_port(is_ipv4, 30080, TCP), set, &[(server, 0)]);
            }
            let name = if is_ipv4 { "v4" } else { "v6" };
            assert_eq!(ask_tcp(at(answers)).unwrap().0, name);
            for dialled in refuse {
                let error = ask_tcp(at(dialled)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{dialled}");
            }
            let [own, other] = [is_ipv4, !is_ipv4].map(|is_ipv4| pod.node_address(is_ipv4));
            let flags = NODE_ADDRESS_OWN | NODE_ADDRESS_PORTS;
            let addresses = [(address(own), flags), (address(other), NODE_ADDRESS_OWN)];
            kernel.set_node(&addresses.into(), [0; 16], [0; 16]).unwrap();
            assert_eq!(ask_tcp(SocketAddr::new(own, 30080)).unwrap().0, name);
            let error = ask_tcp(SocketAddr::new(other, 30080)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "not among the addresses");
            drop(kernel);
            Kernel::cleanup(&world.bpffs).unwrap();
        }
    });
}
