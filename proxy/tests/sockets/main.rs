//! Real sockets in a cgroup: what an application sees of a Service.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use fairlead_ebpf::abi::{BackendKey, Reason, TCP, UDP};
use fairlead_proxy::{
    Kernel,
    delta::Step,
    maps::{Maps as _, kernel::KernelMaps},
};
use socket2::{Domain, SockAddr, Socket, Type};
use support::{
    services::{Stop, ask_tcp, frontend, node_port, put, replace, serve, unspecified},
    world::{World, world},
};

mod connected;
mod policies;
#[path = "../support"]
mod support {
    pub(crate) mod services;
    pub(crate) mod world;
}
mod unconnected;

const V4: &str = "127.0.0.1";
const V6: &str = "::1";

fn start(world: &World) -> (Kernel, KernelMaps) {
    let kernel = Kernel::open(&world.options()).unwrap();
    kernel.attach().unwrap();
    let maps = kernel.maps().unwrap();
    (kernel, maps)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// An unconnected UDP socket that gives up after two seconds.
fn datagrams(local: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((local, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

fn text(buffer: &[u8], len: usize) -> String {
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

/// Sends to `to` without connecting; the answer and where it seems to come from.
fn ask_datagram(socket: &UdpSocket, to: SocketAddr) -> std::io::Result<(String, SocketAddr)> {
    socket.send_to(b"?", to)?;
    let mut buffer = [0; 64];
    let (len, from) = socket.recv_from(&mut buffer)?;
    Ok((text(&buffer, len), from))
}

#[test]
fn connected_sockets_reach_the_backend_and_see_the_service() {
    world("connected_sockets_reach_the_backend_and_see_the_service", |world| {
        let (_kernel, mut maps) = start(world);
        let cases = [
            ("10.96.0.1:80", TCP, V4, "10.96.0.1:80"),
            ("[fd00:96::1]:80", TCP, V6, "[fd00:96::1]:80"),
            ("10.96.0.1:80", UDP, V4, "10.96.0.1:80"),
            ("[fd00:96::1]:80", UDP, V6, "[fd00:96::1]:80"),
            // A dual-stack client's IPv6 socket dialling IPv4.
            ("10.96.0.2:80", TCP, V4, "[::ffff:10.96.0.2]:80"),
            ("10.96.0.2:80", UDP, V4, "[::ffff:10.96.0.2]:80"),
        ];
        for (set, (service, protocol, backend, dialled)) in (1..).zip(cases) {
            let backend = serve(protocol, ip(backend), "backend");
            put(&mut maps, frontend(service, protocol), set, &[(backend, 0)]);
            let dialled = at(dialled);
            let case = format!("{dialled} protocol {protocol}");
            let (answer, peer) = if protocol == TCP {
                ask_tcp(dialled).expect(&case)
            } else {
                let socket = datagrams(unspecified(dialled.ip()));
                socket.connect(dialled).expect(&case);
                socket.send(b"?").expect(&case);
                let mut buffer = [0; 64];
                let (len, from) = socket.recv_from(&mut buffer).expect(&case);
                assert_eq!(from, dialled, "{case}: source of the answer");
                (text(&buffer, len), socket.peer_addr().expect(&case))
            };
            assert_eq!((answer.as_str(), peer), ("backend", dialled), "{case}");
            let counters = maps.counters().unwrap().remove(&set).unwrap();
            assert_eq!((counters.selected, counters.rejected()), (1, 0), "{case}");
        }
    });
}

#[test]
fn unconnected_datagrams_seem_to_come_from_the_service() {
    world("unconnected_datagrams_seem_to_come_from_the_service", |world| {
        let (_kernel, mut maps) = start(world);
        let cases = [
            ("10.96.0.1:53", V4, "10.96.0.1:53"),
            ("[fd00:96::1]:53", V6, "[fd00:96::1]:53"),
            ("10.96.0.2:53", V4, "[::ffff:10.96.0.2]:53"),
        ];
        for (set, (service, backend, dialled)) in (1..).zip(cases) {
            let backend = serve(UDP, ip(backend), "backend");
            put(&mut maps, frontend(service, UDP), set, &[(backend, 0)]);
            let dialled = at(dialled);
            let socket = datagrams(unspecified(dialled.ip()));
            for _ in 0..3 {
                let answer = ask_datagram(&socket, dialled).unwrap();
                assert_eq!(answer, ("backend".into(), dialled));
            }
            assert_eq!(maps.counters().unwrap()[&set].selected, 3);
        }
    });
}

#[test]
fn counters_of_one_service_are_set_to_zero_and_its_neighbours_are_not() {
    world("counters_of_one_service_are_set_to_zero_and_its_neighbours_are_not", |world| {
        let (kernel, mut maps) = start(world);
        let backend = serve(UDP, ip(V4), "backend");
        let services = [(1, "10.96.0.1:53"), (2, "10.96.0.2:53"), (3, "10.96.0.3:53")];
        for (set, service) in services {
            put(&mut maps, frontend(service, UDP), set, &[(backend, 0)]);
        }
        let socket = datagrams(ip("0.0.0.0"));
        let ask = || {
            for (_, service) in services {
                ask_datagram(&socket, at(service)).unwrap();
            }
        };
        ask();
        ask();
        maps.apply(&Step::ClearCounters(vec![2])).unwrap();
        let selected = |maps: &KernelMaps| -> Vec<(u32, u64)> {
            maps.counters().unwrap().into_iter().map(|(id, c)| (id, c.selected)).collect()
        };
        assert_eq!(selected(&maps), [(1, 2), (3, 2)]);
        ask();
        assert_eq!(selected(&maps), [(1, 3), (2, 1), (3, 3)]);
        let up_to = |last| kernel.services(last).unwrap().into_keys().collect::<Vec<_>>();
        assert_eq!([0, 2, 3, u32::MAX].map(up_to), [&[][..], &[1, 2], &[1, 2, 3], &[1, 2, 3]]);
    });
}

#[test]
fn unconnected_socket_keeps_to_one_backend_and_sockets_spread() {
    world("unconnected_socket_keeps_to_one_backend_and_sockets_spread", |world| {
        let (_kernel, mut maps) = start(world);
        for (set, (service, local)) in (1..).zip([("10.96.0.1:53", V4), ("[fd00:96::1]:53", V6)]) {
            let backends = ["a", "b"].map(|name| (serve(UDP, ip(local), name), 0));
            put(&mut maps, frontend(service, UDP), set, &backends);
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..32 {
                let socket = datagrams(unspecified(ip(local)));
                let ask = || ask_datagram(&socket, at(service)).unwrap().0;
                let first = ask();
                assert_eq!([ask(), ask()], [first.clone(), first.clone()], "a retry moved");
                seen.insert(first);
            }
            assert_eq!(seen.len(), 2, "{service}: 32 sockets all at {seen:?}");
        }
    });
}

#[test]
fn one_socket_asking_two_services_with_one_backend_sees_each() {
    world("one_socket_asking_two_services_with_one_backend_sees_each", |world| {
        let (_kernel, mut maps) = start(world);
        for (first_set, local, services) in [
            (1, V4, ["10.96.0.1:53", "10.96.0.2:53"]),
            (3, V6, ["[fd00:96::1]:53", "[fd00:96::2]:53"]),
        ] {
            let backend = serve(UDP, ip(local), "backend");
            for (set, service) in (first_set..).zip(services) {
                put(&mut maps, frontend(service, UDP), set, &[(backend, 0)]);
            }
            let socket = datagrams(unspecified(ip(local)));
            for service in services.into_iter().cycle().take(3) {
                assert_eq!(ask_datagram(&socket, at(service)).unwrap().1, at(service));
            }
        }
    });
}

#[test]
fn service_without_endpoints_refuses_at_once() {
    world("service_without_endpoints_refuses_at_once", |world| {
        let (_kernel, mut maps) = start(world);
        let cases = [("10.96.0.1:80", "10.96.0.1:80"), ("[fd00:96::1]:80", "[fd00:96::1]:80")];
        for (set, (service, dialled)) in [10, 20].into_iter().zip(cases) {
            put(&mut maps, frontend(service, TCP), set, &[]);
            put(&mut maps, frontend(service, UDP), set + 1, &[]);
            let dialled = at(dialled);
            let socket = datagrams(unspecified(dialled.ip()));
            let begun = Instant::now();
            let errors = [
                ("connect, TCP", ask_tcp(dialled).unwrap_err()),
                ("connect, UDP", socket.connect(dialled).unwrap_err()),
                ("sendto", socket.send_to(b"?", dialled).unwrap_err()),
            ];
            for (call, error) in errors {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{call} to {dialled}");
            }
            assert!(begun.elapsed() < Duration::from_secs(1), "refusing took {begun:?}");
            let counters = maps.counters().unwrap();
            let refused = [set, set + 1].map(|set| counters[&set].refused.clone());
            assert_eq!(refused, [1, 2].map(|count| [(Reason::NoBackends, count)].into()));
        }
    });
}

#[test]
fn node_port_answers_on_every_address_of_the_node() {
    world("node_port_answers_on_every_address_of_the_node", |world| {
        let (_kernel, mut maps) = start(world);
        for (set, protocol) in [(1, TCP), (3, UDP)] {
            let backends = [serve(protocol, ip(V4), "v4"), serve(protocol, ip(V6), "v6")];
            put(&mut maps, node_port(true, 30080, protocol), set, &[(backends[0], 0)]);
            put(&mut maps, node_port(false, 30080, protocol), set + 1, &[(backends[1], 0)]);
        }
        for (dialled, expected) in [
            ("127.0.0.1:30080", "v4"),
            ("127.8.9.10:30080", "v4"),
            ("0.0.0.0:30080", "v4"),
            ("[::1]:30080", "v6"),
            ("[::]:30080", "v6"),
            ("[::ffff:127.0.0.1]:30080", "v4"),
        ] {
            let dialled = at(dialled);
            assert_eq!(ask_tcp(dialled).unwrap(), (expected.into(), dialled), "TCP {dialled}");
            let socket = datagrams(unspecified(dialled.ip()));
            let answer = ask_datagram(&socket, dialled).unwrap();
            assert_eq!(answer, (expected.into(), dialled), "UDP {dialled}");
        }
        let outside = ask_tcp(at("127.0.0.1:29999")).unwrap_err();
        assert_eq!(outside.kind(), ErrorKind::ConnectionRefused, "nothing listens there");
    });
}

#[test]
fn loopback_of_a_pod_is_not_the_node() {
    world("loopback_of_a_pod_is_not_the_node", |world| {
        let (_kernel, mut maps) = start(world);
        let pod = world.pod(1);
        let families =
            [(1, V4, "10.96.0.1:80", "127.0.0.1:30080"), (3, V6, "[fd00:96::1]:80", "[::1]:30080")];
        for (set, local, service, loopback) in families {
            let is_ipv4 = ip(local).is_ipv4();
            let backend = serve(TCP, pod.node_address(is_ipv4), "backend");
            put(&mut maps, node_port(is_ipv4, 30080, TCP), set, &[(backend, 0)]);
            put(&mut maps, frontend(service, TCP), set + 1, &[(backend, 0)]);
            assert_eq!(ask_tcp(at(loopback)).unwrap().0, "backend", "on the node");
            pod.inside(|| {
                assert_eq!(ask_tcp(at(service)).unwrap().0, "backend", "a Service, in a pod");
                let own = serve(TCP, ip(local), "the pod's own");
                assert_eq!(ask_tcp(own).unwrap().0, "the pod's own");
                let error = ask_tcp(at(loopback)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{loopback}");
            });
            assert_eq!(maps.counters().unwrap()[&set].selected, 1, "counted when it happens");
        }
    });
}

#[test]
fn what_is_no_service_is_left_alone() {
    world("what_is_no_service_is_left_alone", |world| {
        let (_kernel, mut maps) = start(world);
        for (set, (local, service)) in (1..).zip([(V4, "10.96.0.1:80"), (V6, "[fd00:96::1]:80")]) {
            let tcp = serve(TCP, ip(local), "direct");
            put(&mut maps, frontend(service, UDP), set, &[]);
            assert_eq!(ask_tcp(tcp).unwrap(), ("direct".into(), tcp));
            // Same address and port, another protocol: not refused by the Service, but unreachable.
            let error = ask_tcp(at(service)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{service}");
        }
    });
}

#[test]
fn socket_connected_elsewhere_no_longer_shows_the_service() {
    world("socket_connected_elsewhere_no_longer_shows_the_service", |world| {
        let (_kernel, mut maps) = start(world);
        for (set, (local, service)) in (1..).zip([(V4, "10.96.0.1:53"), (V6, "[fd00:96::1]:53")]) {
            let backend = serve(UDP, ip(local), "backend");
            let other = serve(UDP, ip(local), "other");
            put(&mut maps, frontend(service, UDP), set, &[(backend, 0)]);
            let socket = Socket::new(Domain::for_address(other), Type::DGRAM, None).unwrap();
            let peer = |to: SocketAddr| {
                socket.connect(&SockAddr::from(to)).unwrap();
                socket.peer_addr().unwrap().as_socket().unwrap()
            };
            assert_eq!(peer(at(service)), at(service));
            assert_eq!(peer(other), other);
            // The very backend, dialled by its own address: that is what must show.
            assert_eq!(peer(backend), backend);
            assert_eq!(peer(at(service)), at(service));
        }
    });
}

#[test]
fn sets_replaced_under_load_lose_no_connection() {
    world("sets_replaced_under_load_lose_no_connection", |world| {
        let (kernel, mut maps) = start(world);
        let service = frontend("10.96.0.1:80", TCP);
        let backends = [serve(TCP, ip(V4), "a"), serve(TCP, ip(V4), "b")];
        put(&mut maps, service, 1, &[(backends[0], 0)]);
        let done = AtomicBool::new(false);
        let (connections, sets) = thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut connections = 0u32;
                while !done.load(Ordering::Relaxed) {
                    let answer = ask_tcp(at("10.96.0.1:80")).map(|(answer, _)| answer);
                    assert!(["a", "b"].contains(&answer.unwrap().as_str()));
                    connections += 1;
                }
                connections
            });
            let stop = Stop(&done);
            let begun = Instant::now();
            let mut set = 1;
            while begun.elapsed() < Duration::from_secs(2) && !client.is_finished() {
                set += 1;
                let backend = backends[usize::try_from(set % 2).unwrap()];
                replace(&mut maps, service, (set, 1), &[(backend, 0)]);
                let old = vec![BackendKey { set_id: set - 1, slot: 0 }];
                maps.apply(&Step::DeleteBackends(old)).unwrap();
            }
            drop(stop);
            (client.join().unwrap(), set)
        });
        assert!(connections > 100 && sets > 1000, "{connections} connections, {sets} sets");
        let unserved: u64 = kernel.drops().unwrap().values().sum();
        assert_eq!(unserved, 0);
    });
}

/// A resolver that connected once must not hang on a dead address (cilium#12859 and others).
#[test]
fn connected_datagram_socket_ends_with_its_backend_wherever_it_lives() {
    world("connected_datagram_socket_ends_with_its_backend_wherever_it_lives", |world| {
        let (kernel, mut maps) = start(world);
        let pod = world.pod(1);
        let servers = [true, false].map(|is_ipv4| serve(UDP, pod.node_address(is_ipv4), "old"));
        let services = ["10.96.0.1:53", "[fd00:96::1]:53"];
        for (set, (service, server)) in (1..).zip(services.iter().zip(servers)) {
            put(&mut maps, frontend(service, UDP), set, &[(server, 0)]);
        }
        let connect = |to: &str| {
            let socket = UdpSocket::bind((unspecified(at(to).ip()), 0)).unwrap();
            socket.connect(at(to)).unwrap();
            socket
        };
        let sockets = services.map(|service| pod.inside(|| connect(service)));
        let on_node = connect("[::ffff:10.96.0.1]:53");
        let direct = pod.inside(|| connect(&servers[0].to_string()));
        assert_eq!(kernel.end_stale_sockets().unwrap().sockets, 0, "all is well");
        thread::scope(|scope| {
            let waiting = sockets
                .iter()
                .chain([&on_node])
                .map(|socket| scope.spawn(|| socket.recv(&mut [0; 16]).unwrap_err().kind()));
            let waiting: Vec<_> = waiting.collect();
            for (set, service) in (11..).zip(services) {
                replace(&mut maps, frontend(service, UDP), (set, set), &[]);
            }
            assert_eq!(kernel.end_stale_sockets().unwrap().sockets, 3);
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), ErrorKind::ConnectionAborted);
            }
        });
        direct.send(b"?").unwrap();
        assert_eq!(direct.recv(&mut [0; 16]).unwrap(), 3, "who dialled the pod itself is let be");
        assert_eq!(kernel.end_stale_sockets().unwrap().sockets, 0, "once is enough");
    });
}
