//! NodePorts from outside, on real devices: client, node and backend in namespaces of their own.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fairlead_ebpf::abi::{BACKEND_LOCAL, FrontendKey, Reason, TCP, UDP};
use fairlead_proxy::{Devices, Kernel, KernelOptions, Synchroniser, node};
use fairlead_state::{
    Change, Key, Kind, Store,
    model::{LoadBalancing, ObjectRef, Protocol, Service},
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use support::{
    followed::{DEADLINE, Follower, ask_tcp, ask_udp, echo, echo_tcp, echo_udp, service_cidr},
    frames::Packet,
    services::{frontend, node_port, put, serve, unspecified},
    world::{Pod, run, world},
};

#[allow(dead_code, reason = "shared with the tests of Services")]
#[path = "services/objects.rs"]
mod objects;
mod support {
    pub(crate) mod followed;
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod world;
}

/// `TC_ACT_SHOT`.
const DROP: i32 = 2;

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
                // Towards another node the node's own address stands in for the client's.
                let expected = if flags == 0 { to.ip() } else { client.own_address(is_ipv4) };
                let seen = client.inside(|| [ask_tcp(to), ask_udp(to)]);
                assert_eq!(seen, [expected; 2], "{to} flags {flags}");
            }
        }
        follower.assert_nothing_dropped();
    });
}

/// A rollback: two programs would translate, one of them by maps that nobody writes.
#[test]
fn programs_of_another_version_leave_a_device_when_this_ones_run_there() {
    world("programs_of_another_version_leave_a_device_when_this_ones_run_there", |world| {
        let client = world.pod(1);
        let later = Follower::start(world, &[client.device()]);
        later.wait_for(world, 1);
        drop(later);
        let names = || -> Vec<String> {
            let links = Kernel::attachments(&world.bpffs).unwrap();
            links.into_iter().map(|link| link.name).collect()
        };
        let own = names();
        let links = world.bpffs.join("fairlead/links");
        for name in &own {
            let other = name.replace("uplink", "later");
            fs::rename(links.join(name), links.join(other)).unwrap();
        }
        let _follower = Follower::start(world, &[client.device()]);
        let begun = Instant::now();
        while names() != own {
            assert!(begun.elapsed() < DEADLINE, "attached: {:?}", names());
            thread::yield_now();
        }
    });
}

/// What another version left may be all that serves a device: it stays until all of this one's run.
#[test]
fn programs_of_another_version_stay_as_long_as_one_of_this_ones_is_missing() {
    world("programs_of_another_version_stay_as_long_as_one_of_this_ones_is_missing", |world| {
        let client = world.pod(1);
        let (_store, snapshots) = Store::new([]);
        let devices = Devices::List(vec![client.device()]);
        let options = KernelOptions { devices, ..world.options() };
        // Loaded anew: no device takes the same program twice.
        let prepare = || {
            let kernel = Kernel::open(&options).unwrap();
            node::prepare(&kernel, &snapshots, "node").unwrap();
        };
        let names = || -> BTreeSet<String> {
            let links = Kernel::attachments(&world.bpffs).unwrap();
            links.into_iter().map(|link| link.name).collect()
        };
        prepare();
        let own = names();
        let links = world.bpffs.join("fairlead/links");
        let others: BTreeSet<String> =
            own.iter().map(|name| name.replace("uplink", "later")).collect();
        assert!(!own.is_empty() && own.is_disjoint(&others), "{own:?}");
        for (name, other) in own.iter().zip(&others) {
            fs::rename(links.join(name), links.join(other)).unwrap();
        }
        for missing in &own {
            // Where a new link is pinned first, and a directory is not replaced.
            let in_the_way = links.join(format!("{missing}_new"));
            fs::create_dir(&in_the_way).unwrap();
            prepare();
            let there = names();
            assert!(!there.contains(missing), "{there:?} without {missing}");
            assert!(there.is_superset(&others), "{there:?} without {missing}");
            fs::remove_dir(in_the_way).unwrap();
            there.intersection(&own).for_each(|name| fs::remove_file(links.join(name)).unwrap());
        }
        prepare();
        assert_eq!(names(), own);
    });
}

/// Segments merged beyond what an IPv4 header can say of its length, as fast devices are set to do.
#[test]
fn packets_too_large_for_their_own_length_field_are_translated() {
    world("packets_too_large_for_their_own_length_field_are_translated", |world| {
        let (client, backend) = (world.pod(1), world.pod(2));
        world.forward();
        for pod in [&client, &backend] {
            allow_large(&pod.device());
            pod.inside(|| allow_large("eth0"));
        }
        let follower = Follower::start(world, &[client.device(), backend.device()]);
        follower.wait_for(world, 2);
        let mut maps = follower.kernel.maps().unwrap();
        for (set, is_ipv4) in [(1, true), (2, false)] {
            let ip = backend.own_address(is_ipv4);
            let server = backend.inside(|| echo_tcp(ip));
            put(&mut maps, node_port(is_ipv4, 30080, TCP), set, &[(server, BACKEND_LOCAL)]);
            let to = SocketAddr::new(client.node_address(is_ipv4), 30080);
            assert_eq!(client.inside(|| ask_tcp(to)), client.own_address(is_ipv4));
        }
        follower.assert_nothing_dropped();
    });
}

/// Lets a device's packets be larger than 64 KiB (BIG TCP), in both families. `ip` cannot say it for
/// IPv4 before its version 6.3.
fn allow_large(device: &str) {
    const BYTES_MAX: u32 = 196_608;
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(device.to_owned()),
        LinkAttribute::GsoMaxSize(BYTES_MAX),
        LinkAttribute::GroMaxSize(BYTES_MAX),
        LinkAttribute::GsoIpv4MaxSize(BYTES_MAX),
        LinkAttribute::GroIpv4MaxSize(BYTES_MAX),
    ];
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::SetLink(link));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
    socket.bind_auto().unwrap();
    socket.send(&bytes, 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).unwrap();
    let NetlinkPayload::Error(error) = answer.payload else { panic!("{answer:?}") };
    assert_eq!(error.code, None, "{device}: {error}");
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
        let unallocated = "10.96.200.1:80".parse().unwrap();
        let short = Duration::from_millis(300);
        let error = client.inside(|| TcpStream::connect_timeout(&unallocated, short)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "dropped in silence");
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
        let servers = pods.each_ref().map(|(pod, name)| {
            let ip = pod.own_address(true);
            (pod.inside(|| serve(UDP, ip, name)), format!("node-{name}"))
        });
        let mut cluster = objects::Cluster::new();
        let service = Service {
            ports: Arc::new([objects::port("", Protocol::Udp, 80, Some(30080))]),
            ..objects::service("web", "10.96.0.1")
        };
        let service = objects::with(service, |extras| {
            extras.load_balancing = LoadBalancing::Maglev;
        });
        let slices = servers.iter().map(|(server, node)| {
            let mut slice = objects::slice(node, "web", &[&server.ip().to_string()]);
            slice.ports = Arc::new([objects::endpoint_port("", Protocol::Udp, server.port())]);
            let endpoint = slice.endpoints[0].clone();
            let node_name = Some(node.as_str().into());
            slice.endpoints = [fairlead_state::model::Endpoint { node_name, ..endpoint }].into();
            objects::put_slice(slice)
        });
        let changes: Vec<_> = slices.chain([objects::put_service(service)]).collect();
        let snapshot = cluster.apply(changes);
        let to = SocketAddr::new(client.node_address(true), 30080);
        let answers = ["node-a", "node-b"].map(|name| {
            let follower = Follower::start(world, &[client.device()]);
            let mut sync = Synchroniser::new(follower.kernel.maps().unwrap(), name);
            assert_eq!(sync.reconcile(&snapshot).error, None);
            follower.wait_for(world, 4);
            let asked = client.inside(|| (20_000..20_040).map(|port| name_at(port, to)).collect());
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

/// What a connected socket is told when it listens after it has sent.
fn refused_udp(to: SocketAddr) -> std::io::ErrorKind {
    let socket = UdpSocket::bind((unspecified(to.ip()), 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"?").unwrap();
    socket.recv(&mut [0; 16]).unwrap_err().kind()
}

#[test]
fn devices_and_addresses_that_come_and_go_are_followed() {
    world("devices_and_addresses_that_come_and_go_are_followed", |world| {
        let (client, backend) = (world.pod(1), world.pod(2));
        world.forward();
        let follower = Follower::start(world, &[client.device()]);
        // The backend's device is a pod's: two more programs.
        follower.wait_for(world, 2);
        let server = backend.inside(|| echo_udp(backend.own_address(true)));
        let mut maps = follower.kernel.maps().unwrap();
        put(&mut maps, node_port(true, 30080, UDP), 1, &[(server, BACKEND_LOCAL)]);
        let to = SocketAddr::new(client.node_address(true), 30080);
        assert_eq!(client.inside(|| ask_udp(to)), client.own_address(true));
        client.disconnect();
        follower.wait_for(world, 1);
        client.connect();
        wait_for_answer(&client, to);
        run(&format!("ip addr add 10.98.0.1/32 dev {}", client.device()));
        wait_for_answer(&client, SocketAddr::from(([10, 98, 0, 1], 30080)));
    });
}

#[test]
fn service_cidrs_that_come_and_go_are_followed() {
    world("service_cidrs_that_come_and_go_are_followed", |world| {
        let client = world.pod(1);
        let follower = Follower::start(world, &[client.device()]);
        let packets =
            [("203.0.113.9:40000", "10.97.0.1:80"), ("[2001:db8:9::9]:40000", "[fd00:97::1]:80")];
        let is_dropped = |(from, to)| {
            let frame = Packet::first(TCP, from, to).frame();
            let run = follower.kernel.run_on_packet("pod_ingress", &frame, 1).unwrap();
            run.verdict == DROP
        };
        let wait_until = |are_dropped: bool| {
            let begun = Instant::now();
            while !packets.into_iter().all(|packet| is_dropped(packet) == are_dropped) {
                assert!(begun.elapsed() < DEADLINE, "not followed: dropped={are_dropped}");
            }
        };
        wait_until(false);
        // As KEP-1880 has it: a cluster that runs out of addresses is given another range.
        follower.change(service_cidr("more", &["10.97.0.0/24", "fd00:97::/112"]));
        wait_until(true);
        follower.change(Change::Delete(ObjectRef {
            kind: Kind::ServiceCidr,
            key: Key::new("", "more"),
        }));
        wait_until(false);
        let within = ("203.0.113.9:40000", "10.96.200.1:80");
        assert!(is_dropped(within), "the other range is as it was");
    });
}

/// Following takes a moment; nothing tells a client when it is done.
fn wait_for_answer(client: &Pod, to: SocketAddr) {
    let begun = Instant::now();
    while !client.inside(|| is_answered(to)) {
        assert!(begun.elapsed() < DEADLINE, "{to} does not answer");
    }
}

fn is_answered(to: SocketAddr) -> bool {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"?").is_ok() && socket.recv(&mut [0; 64]).is_ok()
}
