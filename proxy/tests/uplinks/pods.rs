//! Sockets of pods that are left to their packets: what a pod's own network has for a Service's address comes first.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use fairlead_ebpf::abi::{BACKEND_LOCAL, TCP, UDP};
use fairlead_proxy::{Kernel, KernelOptions};

use crate::support::{
    followed::{DEADLINE, Follower, refused_tcp},
    services::{ask_tcp, frontend, put, serve, unspecified},
    world::{Pod, World, world},
};

/// Of IPv4 and IPv6: a Service, one that the pod answers for itself, and one without endpoints.
const SERVICES: [[&str; 3]; 2] =
    [["10.96.0.1", "10.96.0.7", "10.96.0.9"], ["fd00:96::1", "fd00:96::7", "fd00:96::9"]];

/// An agent that starts, or is started anew with another setting.
fn start(world: &World, node_sockets_only: bool) -> Follower {
    let options = KernelOptions { node_sockets_only, ..world.options() };
    let is_first = Kernel::attachments(&world.bpffs).unwrap().is_empty();
    let follower = Follower::start_with(&options, vec![], &["10.99.0.0/16", "fd99::/32"]);
    if is_first {
        follower.wait_for(world, 2);
    }
    follower.kernel.attach().unwrap();
    follower
}

fn ask(socket: &UdpSocket) -> String {
    socket.send(b"?").unwrap();
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

fn datagrams(pod: &Pod, to: IpAddr) -> UdpSocket {
    let socket = pod.inside(|| UdpSocket::bind((unspecified(to), 0)).unwrap());
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Envoy and ztunnel met endpoints where they knew Services, and a cluster within a pod met the outer one's API server.
#[test]
fn bug_a_pods_own_network_answers_for_a_service_where_sockets_of_the_node_alone_are_served() {
    let name = "pods::bug_a_pods_own_network_answers_for_a_service_where_sockets_of_the_node_alone_are_served";
    world(name, |world| {
        let (pod, backend) = (world.pod(1), world.pod(2));
        world.forward();
        let mut follower = start(world, false);
        let mut maps = follower.kernel.maps().unwrap();
        let mut families = vec![];
        for (set, [shared, own, empty]) in [(1, SERVICES[0]), (11, SERVICES[1])] {
            let is_ipv4 = set == 1;
            pod.run(&format!("ip addr add {own}/{} dev lo", if is_ipv4 { 32 } else { 128 }));
            let inner = pod.inside(|| serve(TCP, own.parse().unwrap(), "the pod's own"));
            let at = |address: &str| SocketAddr::new(address.parse().unwrap(), inner.port());
            for (protocol, set) in [(TCP, set), (UDP, set + 1)] {
                let ip = backend.own_address(is_ipv4);
                let server = backend.inside(|| serve(protocol, ip, "backend"));
                let key = frontend(&at(shared).to_string(), protocol);
                put(&mut maps, key, set, &[(server, BACKEND_LOCAL)]);
                let key = frontend(&at(own).to_string(), protocol);
                put(&mut maps, key, set + 2, &[(server, BACKEND_LOCAL)]);
                put(&mut maps, frontend(&at(empty).to_string(), protocol), set + 4, &[]);
            }
            let early = datagrams(&pod, at(shared).ip());
            early.connect(at(shared)).unwrap();
            families.push((at(shared), at(own), at(empty), early));
        }
        for node_sockets_only in [false, true, false] {
            drop(follower);
            follower = start(world, node_sockets_only);
            let expected = if node_sockets_only { "the pod's own" } else { "backend" };
            for (shared, own, empty, early) in &families {
                let case = format!("{shared} node_sockets_only={node_sockets_only}");
                let met = pod.inside(|| ask_tcp(*own)).expect(&case);
                assert_eq!(met, (expected.to_owned(), *own), "{case}");
                // What no pod has something of its own for is served all the same, and seems to come from the Service.
                assert_eq!(pod.inside(|| ask_tcp(*shared)).unwrap(), ("backend".into(), *shared));
                assert_eq!(ask(early), "backend", "{case}: connected before");
                assert_eq!(early.peer_addr().unwrap(), *shared, "{case}");
                early.connect(*shared).unwrap();
                assert_eq!((ask(early), early.peer_addr().unwrap()), ("backend".into(), *shared));
                let unconnected = datagrams(&pod, shared.ip());
                unconnected.send_to(b"?", shared).unwrap();
                let (_, from) = unconnected.recv_from(&mut [0; 64]).expect(&case);
                assert_eq!(from, *shared, "{case}");
                let refused = pod.inside(|| refused_tcp(*empty));
                assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{case}");
                // The node itself has no device of its own to be met at.
                assert_eq!(ask_tcp(*own).unwrap().0, "backend", "{case}");
            }
        }
    });
}
