//! NodePorts from outside, on real devices: client, node and backend in namespaces of their own.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fairlead_ebpf::abi::{BACKEND_LOCAL, FrontendKey, Reason, TCP, UDP};
use fairlead_proxy::{Devices, Kernel, KernelOptions, Synchroniser};
use fairlead_state::model::{LoadBalancing, Protocol, Service};
use support::{
    followed::{DEADLINE, Follower, ask_tcp, ask_udp, echo, refused_udp},
    services::{frontend, node_port, put, serve, unspecified},
    world::world,
};

mod advertised;
mod bridges;
mod following;
mod large;
mod lasting;
#[allow(dead_code, reason = "shared with the tests of Services")]
#[path = "../services/objects.rs"]
mod objects;
mod pods;
mod stacked;
#[path = "../support"]
mod support {
    pub(crate) mod followed;
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod world;
}

#[test]
fn node_port_from_outside_reaches_local_and_remote_backends() {
    world("node_port_from_outside_reaches_local_and_remote_backends", |world| {
        let (client, backend) = (world.pod(1), world.pod(2));
        world.forward();
        let follower = Follower::start(world, &[client.device(), backend.device()]);
        follower.wait_for(world, 2);
        let mut maps = follower.kernel.maps().unwrap();
        let mut set = 0;
        for is_ipv4 in [true, false] {
            let servers = echo(&backend, is_ipv4);
            for flags in [BACKEND_LOCAL, 0] {
                for (protocol, server) in servers {
                    set += 1;
                    put(&mut maps, node_port(is_ipv4, 30080, protocol), set, &[(server, flags)]);
                }
                let to = SocketAddr::new(client.node_address(is_ipv4), 30080);
                // Towards another node the address on the way there stands in for the client's.
                let expected = match flags {
                    0 => backend.node_address(is_ipv4),
                    _ => client.own_address(is_ipv4),
                };
                let seen = client.inside(|| [ask_tcp(to), ask_udp(to)]);
                assert_eq!(seen, [expected; 2], "{to} flags {flags}");
            }
        }
        follower.assert_nothing_dropped();
    });
}

/// Nobody says that there is a network of clients, or where pods are, but the addresses of their devices.
#[test]
fn a_card_beside_the_default_route_is_found_and_serves_clients_from_outside() {
    world("a_card_beside_the_default_route_is_found_and_serves_clients_from_outside", |world| {
        let (client, backend) = (world.pod(1), world.pod(2));
        world.forward();
        let options = KernelOptions { devices: Devices::Auto, ..world.options() };
        let pods = ["10.99.2.0/24", "fd99:0:0:2::/64"];
        let follower = Follower::start_with(&options, vec![], &pods);
        follower.wait_for(world, 2);
        let links = Kernel::attachments(&world.bpffs).unwrap();
        let of = |program: &str| links.iter().filter(|link| link.name.starts_with(program)).count();
        assert_eq!((of("uplink_ingress"), of("pod_ingress")), (1, 1), "{links:?}");
        let mut maps = follower.kernel.maps().unwrap();
        for (set, is_ipv4) in [(1, true), (2, false)] {
            let [_, (protocol, server)] = echo(&backend, is_ipv4);
            put(&mut maps, node_port(is_ipv4, 30080, protocol), set, &[(server, 0)]);
            let to = SocketAddr::new(client.node_address(is_ipv4), 30080);
            let seen = client.inside(|| ask_udp(to));
            assert_eq!(seen, backend.node_address(is_ipv4), "{to}: as one from outside");
        }
        follower.assert_nothing_dropped();
    });
}

#[test]
fn node_port_without_backends_is_refused_at_once() {
    world("node_port_without_backends_is_refused_at_once", |world| {
        let client = world.pod(1);
        let follower = Follower::start(world, &[client.device()]);
        follower.wait_for(world, 1);
        let mut maps = follower.kernel.maps().unwrap();
        for (set, is_ipv4) in [(1, true), (2, false)] {
            put(&mut maps, node_port(is_ipv4, 30080, TCP), set, &[]);
            let to = SocketAddr::new(client.node_address(is_ipv4), 30080);
            let error = client.inside(|| TcpStream::connect_timeout(&to, DEADLINE)).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
        }
    });
}

/// Where the stack refuses it sends a client one ICMP error a second, after a few: of many who ask at once
/// most waited in vain.
#[test]
fn each_of_many_who_ask_at_once_is_refused_at_once() {
    world("each_of_many_who_ask_at_once_is_refused_at_once", |world| {
        let (outside, pod) = (world.pod(1), world.pod(2));
        world.forward();
        let follower = Follower::start(world, &[outside.device()]);
        follower.wait_for(world, 2);
        let mut maps = follower.kernel.maps().unwrap();
        for (is_ipv4, service) in [(true, "10.96.0.2"), (false, "[fd00:96::2]")] {
            let at = |port: u16| format!("{service}:{port}");
            let others = FrontendKey::other_ports(frontend(&at(80), TCP).address);
            let served = [TCP, UDP].map(|protocol| frontend(&at(80), protocol));
            let node_ports = [TCP, UDP].map(|protocol| node_port(is_ipv4, 30080, protocol));
            for key in served.into_iter().chain(node_ports).chain([others]) {
                put(&mut maps, key, 1, &[]);
            }
            let dialled = |port: u16| -> SocketAddr { at(port).parse().unwrap() };
            let node = SocketAddr::new(outside.node_address(is_ipv4), 30080);
            for (client, to, what) in [
                (&outside, node, "a NodePort without endpoints"),
                (&pod, dialled(80), "a Service without endpoints"),
                (&pod, dialled(81), "a port the Service does not have"),
            ] {
                let slowest = client.inside(|| slowest_refusal(to));
                // Before a SYN is sent again.
                assert!(slowest < Duration::from_millis(900), "{what}, {to}: {slowest:?}");
            }
        }
    });
}

/// Of eight clients that ask one hundred times each, by TCP and by UDP.
fn slowest_refusal(to: SocketAddr) -> Duration {
    let ask = || {
        let begun = Instant::now();
        let tcp = TcpStream::connect_timeout(&to, DEADLINE).unwrap_err().kind();
        let udp = refused_udp(to);
        assert_eq!([tcp, udp], [std::io::ErrorKind::ConnectionRefused; 2], "{to}");
        begun.elapsed()
    };
    thread::scope(|scope| {
        let client = || (0..100).map(|_| ask()).max().unwrap_or_default();
        let clients = [(); 8].map(|()| scope.spawn(client));
        clients.map(|client| client.join().unwrap()).into_iter().max().unwrap_or_default()
    })
}

/// Virtual machines, sandboxes and SCTP have no sockets of this kernel: their packets are all there
/// is. (No socket hook is attached here.)
#[test]
fn pods_reach_services_by_their_packets_alone() {
    world("pods_reach_services_by_their_packets_alone", |world| {
        let (client, backend) = (world.pod(1), world.pod(2));
        world.forward();
        let own = backend.node_addresses();
        let follower = Follower::start_on(world, &[], own);
        follower.wait_for(world, 2);
        let mut maps = follower.kernel.maps().unwrap();
        let mut set = 0;
        for is_ipv4 in [true, false] {
            let servers = echo(&backend, is_ipv4);
            let service = if is_ipv4 { "10.96.0.1:80" } else { "[fd00:96::1]:80" };
            for (protocol, server) in servers {
                set += 1;
                put(&mut maps, frontend(service, protocol), set, &[(server, BACKEND_LOCAL)]);
            }
            let to: SocketAddr = service.parse().unwrap();
            let seen = client.inside(|| [ask_tcp(to), ask_udp(to)]);
            assert_eq!(seen, [client.own_address(is_ipv4); 2], "{to}: no masquerade");
            let seen = backend.inside(|| [ask_tcp(to), ask_udp(to)]);
            assert_eq!(seen, [backend.node_address(is_ipv4); 2], "{to}: hairpin, by the node");

            let dead = if is_ipv4 { "10.96.0.2:80" } else { "[fd00:96::2]:80" };
            for protocol in [TCP, UDP] {
                set += 1;
                put(&mut maps, frontend(dead, protocol), set, &[]);
            }
            let dead: SocketAddr = dead.parse().unwrap();
            let errors = client.inside(|| {
                let tcp = TcpStream::connect_timeout(&dead, DEADLINE).unwrap_err();
                [tcp.kind(), refused_udp(dead)]
            });
            assert_eq!(errors, [std::io::ErrorKind::ConnectionRefused; 2], "{dead}");
        }
        for unallocated in ["10.96.200.1:80", "[fd00:96::200]:80"] {
            let to = unallocated.parse().unwrap();
            let short = Duration::from_millis(300);
            let error = client.inside(|| TcpStream::connect_timeout(&to, short)).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{to}: dropped in silence");
        }
        let drops = follower.kernel.drops().unwrap();
        let unexpected = drops.iter().filter(|(_, count)| **count > 0);
        let unexpected: Vec<_> = unexpected.map(|(reason, _)| *reason).collect();
        assert_eq!(unexpected, [Reason::UnallocatedAddress]);
    });
}

/// The nodes take turns in one place, each with the endpoint on it as its own: to the other's it
/// translates the client's address. What the client's port is given to is the same.
#[test]
fn nodes_that_take_turns_send_a_clients_port_to_the_same_pod() {
    world("nodes_that_take_turns_send_a_clients_port_to_the_same_pod", |world| {
        let client = world.pod(1);
        let pods = [(world.pod(2), "a"), (world.pod(3), "b"), (world.pod(4), "c")];
        world.forward();
        for (is_ipv4, cluster_ip) in [(true, "10.96.0.1"), (false, "fd00:96::1")] {
            let servers = pods.each_ref().map(|(pod, name)| {
                let ip = pod.own_address(is_ipv4);
                (pod.inside(|| serve(UDP, ip, name)), format!("node-{name}"))
            });
            let mut cluster = objects::Cluster::new();
            let service = Service {
                ports: Arc::new([objects::port("", Protocol::Udp, 80, Some(30080))]),
                ..objects::service("web", cluster_ip)
            };
            let service = objects::with(service, |extras| {
                extras.load_balancing = LoadBalancing::Maglev;
            });
            let slices = servers.iter().map(|(server, node)| {
                let mut slice = objects::slice(node, "web", &[&server.ip().to_string()]);
                slice.ports = Arc::new([objects::endpoint_port("", Protocol::Udp, server.port())]);
                let endpoint = slice.endpoints[0].clone();
                let node_name = Some(node.as_str().into());
                slice.endpoints =
                    [fairlead_state::model::Endpoint { node_name, ..endpoint }].into();
                objects::put_slice(slice)
            });
            let changes: Vec<_> = slices.chain([objects::put_service(service)]).collect();
            let snapshot = cluster.apply(changes);
            let to = SocketAddr::new(client.node_address(is_ipv4), 30080);
            let answers = ["node-a", "node-b"].map(|name| {
                let follower = Follower::start(world, &[client.device()]);
                let mut sync = Synchroniser::new(follower.kernel.maps().unwrap(), name);
                assert_eq!(sync.reconcile(&snapshot).error, None);
                follower.wait_for(world, 4);
                let asked =
                    client.inside(|| (20_000..20_040).map(|port| name_at(port, to)).collect());
                drop(follower);
                Kernel::cleanup(&world.bpffs).unwrap();
                asked
            });
            let [first, second]: [Vec<String>; 2] = answers;
            assert_eq!(first, second);
            assert!(
                ["a", "b", "c"].iter().all(|name| first.iter().any(|met| met == name)),
                "{first:?}"
            );
        }
    });
}

/// Who answers a client at this port of its own.
fn name_at(port: u16, to: SocketAddr) -> String {
    let socket = UdpSocket::bind((unspecified(to.ip()), port)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"?").unwrap();
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}
