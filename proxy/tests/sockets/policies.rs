//! What a Service says of its clients: whom it refuses, whom it keeps, where it answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::SocketAddr,
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
        let server = serve(TCP, ip(V4), "backend");
        for (set, address, is_dropping) in
            [(1, "10.96.0.1", false), (2, "[fd00:96::1]", false), (3, "10.96.0.2", true)]
        {
            let flags = if is_dropping { FRONTEND_DROPS } else { 0 };
            let key = frontend(&format!("{address}:80"), TCP);
            put_value(&mut maps, key, value(set, flags), &[]);
            let others = FrontendKey::other_ports(key.address);
            put_value(&mut maps, others, value(set, 0), &[]);
        }
        put_value(&mut maps, frontend("10.96.0.3:80", TCP), value(4, 0), &[server]);
        // No client is in its ranges.
        let limited = value(5, FRONTEND_SOURCE_RANGES);
        put_value(&mut maps, frontend("10.96.0.4:80", TCP), limited, &[server]);
        use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        let cases = [
            ("10.96.0.1:80", ConnectionRefused),
            ("[fd00:96::1]:80", ConnectionRefused),
            ("10.96.0.1:81", ConnectionRefused),
            ("[fd00:96::1]:81", ConnectionRefused),
            ("10.96.0.2:80", HostUnreachable),
            ("10.96.0.4:80", HostUnreachable),
            ("10.96.9.9:80", ConnectionRefused),
            ("[fd00:96::99]:80", ConnectionRefused),
            ("10.97.0.1:80", NetworkUnreachable),
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
        assert_eq!(ask_tcp(at("10.96.0.3:80")).unwrap().0, "backend");
        let drops = kernel.drops().unwrap();
        let counts = [
            (Reason::UnusedPort, 7),
            (Reason::UnallocatedAddress, 5),
            (Reason::NoLocalBackends, 1),
            (Reason::SourceDenied, 1),
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
            (4, BTreeMap::new()),
            (5, [(Reason::SourceDenied, 1)].into()),
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

#[test]
fn affinity_keeps_a_client_until_it_times_out_or_its_backend_leaves() {
    world("policies::affinity_keeps_a_client_until_it_times_out_or_its_backend_leaves", |world| {
        let (_kernel, mut maps) = start(world);
        let mut servers: Vec<(SocketAddr, &str)> =
            ["a", "b", "c", "d", "e", "f"].map(|name| (serve(TCP, ip(V4), name), name)).into();
        servers.sort();
        let all: Vec<SocketAddr> = servers.iter().map(|(at, _)| *at).collect();
        let with = |set_id, affinity_seconds| FrontendValue {
            affinity_seconds,
            counter_id: 1,
            service_port: [0, 80],
            ..value(set_id, 0)
        };
        let (service, node_port) = (frontend("10.96.0.1:80", TCP), node_port(true, 30080, TCP));
        for key in [service, node_port] {
            put_value(&mut maps, key, with(1, 3600), &all);
        }
        let ask = |to: &str| ask_tcp(at(to)).unwrap().0;
        let first = ask("10.96.0.1:80");
        for _ in 0..20 {
            assert_eq!(ask("10.96.0.1:80"), first);
            assert_eq!(ask("127.0.0.1:30080"), first, "one Service, whatever was dialled");
        }
        // Another set with the same backend among others: the client stays.
        let stays = servers.iter().position(|(_, name)| *name == first).unwrap();
        let fewer: Vec<SocketAddr> =
            servers.iter().skip(stays.saturating_sub(1)).map(|(at, _)| *at).collect();
        put_value(&mut maps, service, with(2, 3600), &fewer);
        assert_eq!(ask("10.96.0.1:80"), first, "a smaller set");
        // Without it (it terminates): the client moves once and stays there.
        let others: Vec<SocketAddr> =
            servers.iter().filter(|(_, name)| *name != first).map(|(at, _)| *at).collect();
        put_value(&mut maps, service, with(3, 3600), &others);
        let second = ask("10.96.0.1:80");
        assert_ne!(second, first);
        assert!((0..20).all(|_| ask("10.96.0.1:80") == second));
        // Another network namespace is another client.
        let pod = world.pod(1);
        let pods: Vec<SocketAddr> = ["p", "q", "r", "s", "t", "u", "v", "w"]
            .map(|name| serve(TCP, pod.node_address(true), name))
            .into();
        let mut pods = pods;
        pods.sort();
        put_value(&mut maps, service, with(4, 3600), &pods);
        let clients = [1, 2, 3, 4, 5, 6].map(|_| pod.inside(|| ask_tcp(at("10.96.0.1:80"))));
        let names: BTreeSet<String> = clients.into_iter().map(|answer| answer.unwrap().0).collect();
        assert_eq!(names.len(), 1, "one pod, one backend: {names:?}");
        // One second of affinity is over when it is over.
        put_value(&mut maps, service, with(5, 1), &all);
        let begun = Instant::now();
        let mut seen = BTreeSet::new();
        while seen.len() < 2 && begun.elapsed() < Duration::from_secs(60) {
            seen.insert(ask("10.96.0.1:80"));
            thread::park_timeout(Duration::from_millis(2100));
        }
        assert_eq!(seen.len(), 2, "the time-out never came");
    });
}

#[test]
fn source_ranges_hold_for_the_node_and_leave_pods_to_their_packets() {
    world("policies::source_ranges_hold_for_the_node_and_leave_pods_to_their_packets", |world| {
        let (kernel, mut maps) = start(world);
        let node = address(ip("192.168.0.2"));
        kernel.set_node(&[(node, NODE_ADDRESS_OWN)].into(), node, [0; 16]).unwrap();
        let server = serve(TCP, ip(V4), "backend");
        let balancer = frontend("5.6.7.8:80", TCP);
        let flags = FRONTEND_EXTERNAL | FRONTEND_SOURCE_RANGES;
        put_value(&mut maps, balancer, value(1, flags), &[server]);
        let denied = ask_tcp(at("5.6.7.8:80")).unwrap_err();
        assert_eq!(denied.kind(), ErrorKind::HostUnreachable, "the node is in no range");
        let range = |prefix_len: u32, of: &str| SourceRangeKey {
            prefix_len: 32 + 96 + prefix_len,
            counter_id: 1,
            address: address(ip(of)),
        };
        maps.apply(&Step::PutSourceRanges(vec![range(24, "192.168.0.0")])).unwrap();
        assert_eq!(ask_tcp(at("5.6.7.8:80")).unwrap().0, "backend", "node to balancer");
        let pod = world.pod(1);
        let error = pod.inside(|| {
            let to: SocketAddr = at("5.6.7.8:80");
            std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300)).unwrap_err()
        });
        assert_ne!(error.kind(), ErrorKind::ConnectionRefused, "its packet is not translated");
        maps.apply(&Step::DeleteSourceRanges(vec![range(24, "192.168.0.0")])).unwrap();
        assert!(ask_tcp(at("5.6.7.8:80")).is_err());
        let drops = kernel.drops().unwrap();
        assert_eq!(drops[&Reason::SourceDenied], 2);
    });
}

#[test]
fn node_ports_answer_only_where_they_are_told_to() {
    world("policies::node_ports_answer_only_where_they_are_told_to", |world| {
        let words = ["127.0.0.0/8", "10.99.0.0/16"];
        let options = KernelOptions {
            node_port_addresses: NodePortAddresses::from_words(words).unwrap(),
            ..world.options()
        };
        let kernel = Kernel::open(&options).unwrap();
        kernel.attach().unwrap();
        let mut maps = kernel.maps().unwrap();
        let servers = [serve(TCP, ip(V4), "v4"), serve(TCP, ip(V6), "v6")];
        for (set, is_ipv4, server) in [(1, true, servers[0]), (2, false, servers[1])] {
            put(&mut maps, node_port(is_ipv4, 30080, TCP), set, &[(server, 0)]);
        }
        assert_eq!(ask_tcp(at("127.0.0.1:30080")).unwrap().0, "v4");
        for dialled in ["[::1]:30080", "[::]:30080"] {
            let error = ask_tcp(at(dialled)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{dialled}");
        }
        let pod = world.pod(1);
        let [own, other] =
            [pod.node_address(true), pod.node_address(false)].map(|ip| (address(ip), ip));
        let addresses =
            [(own.0, NODE_ADDRESS_OWN | NODE_ADDRESS_PORTS), (other.0, NODE_ADDRESS_OWN)];
        kernel.set_node(&addresses.into(), [0; 16], [0; 16]).unwrap();
        assert_eq!(ask_tcp(SocketAddr::new(own.1, 30080)).unwrap().0, "v4");
        let error = ask_tcp(SocketAddr::new(other.1, 30080)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "not among the addresses");
    });
}
