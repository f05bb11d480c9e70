//! What the node asks for itself, and for its pods, from a port that is a UDP Service's, too.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{IpAddr, SocketAddr, UdpSocket};

use fairlead_ebpf::abi::{BACKEND_LOCAL, UDP};
use socket2::{Domain, Socket, Type};
use support::{
    followed::{DEADLINE, Follower, echo_udp},
    services::{frontend, node_port, put, unspecified},
    world::{load_rules, world},
};

mod support {
    pub(crate) mod followed;
    pub(crate) mod services;
    pub(crate) mod world;
}

/// Of a load balancer whose address is the node's, as k3s' ServiceLB has it; Linux gives it to processes, too.
const BALANCED: u16 = 51820;
/// A NodePort, which a CNI plugin may choose (`masquerade --random-fully`).
const NODE_PORT: u16 = 30080;
const MASQUERADE: &str = "
table inet plugin {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.99.2.0/24 meta l4proto udp masquerade to :30080
        ip6 saddr fd99:0:0:2::/64 meta l4proto udp masquerade to :30080
    }
}
";

/// To kube-proxy's rules they are answers, by connection tracking: what is translated there is translated at a first packet.
#[test]
fn bug_answers_to_the_node_and_to_masqueraded_pods_are_led_to_no_service() {
    world("bug_answers_to_the_node_and_to_masqueraded_pods_are_led_to_no_service", |world| {
        let [outside, pod] = [1, 2].map(|number| world.pod(number));
        world.forward();
        load_rules(MASQUERADE);
        let follower = Follower::start_on(world, &[outside.device()], outside.node_addresses());
        follower.wait_for(world, 2);
        let mut maps = follower.kernel.maps().unwrap();
        for (set, is_ipv4) in [(1, true), (2, false)] {
            let node = outside.node_address(is_ipv4);
            let own = SocketAddr::new(node, BALANCED);
            // Nobody listens there.
            let backend = [(SocketAddr::new(pod.own_address(is_ipv4), 9), BACKEND_LOCAL)];
            for key in [frontend(&own.to_string(), UDP), node_port(is_ipv4, NODE_PORT, UDP)] {
                put(&mut maps, key, set, &backend);
            }
            let server = outside.own_address(is_ipv4);
            let server = outside.inside(|| echo_udp(server));
            let by_node = ask(own, server);
            let by_pod = pod.inside(|| ask(SocketAddr::new(unspecified(node), 0), server));
            assert_eq!([by_node, by_pod], [node; 2]);
        }
        follower.assert_nothing_dropped();
    });
}

/// As whom the server sees who asks it, several times.
fn ask(from: SocketAddr, server: SocketAddr) -> IpAddr {
    let socket = Socket::new(Domain::for_address(from), Type::DGRAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let socket = UdpSocket::from(socket);
    let mut buffer = [0; 64];
    let mut len = 0;
    for _ in 0..3 {
        socket.send(b"?").unwrap();
        len = socket.recv(&mut buffer).unwrap();
    }
    String::from_utf8_lossy(buffer.get(..len).unwrap()).parse().unwrap()
}
