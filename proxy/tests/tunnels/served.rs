//! A tunnel that ends at a Service's endpoint on this node: a gateway behind a NodePort or a load balancer's address.

use std::net::{IpAddr, SocketAddr};

use fairlead_ebpf::abi::{BACKEND_LOCAL, UDP};

use crate::support::{
    followed::{Follower, ask_tcp, ask_udp, echo},
    overlay::{OTHER, OWN, route_pods},
    services::{node_port, put},
    world::{run, world},
};

const VXLAN: &str = "vx0";
/// Where clients send what is in the tunnel, and where it ends.
const DIALLED: u16 = 30090;
const ENDPOINT: u16 = 4789;

/// The kernel hands on what it unwraps in the buffer it came in, with the note that this had been translated: what was in the
/// tunnel never was.
#[test]
fn bug_what_comes_in_a_tunnel_that_was_translated_itself_is_translated() {
    let name = "served::bug_what_comes_in_a_tunnel_that_was_translated_itself_is_translated";
    world(name, |world| {
        let [other, here] = [1, 2].map(|number| world.pod(number));
        world.forward();
        let [near, far] = [other.node_address(true), other.own_address(true)];
        // What goes back must be for the port that the other end listens at, as a NAT makes it of a client of IPsec or L2TP.
        run(&format!(
            "ip link add {VXLAN} type vxlan id 7 dstport {ENDPOINT} local {near} nolearning"
        ));
        run(&format!("bridge fdb append 00:00:00:00:00:00 dev {VXLAN} dst {far} port {DIALLED}"));
        other.run(&format!(
            "ip link add {VXLAN} type vxlan id 7 dstport {DIALLED} local {far} remote {near}"
        ));
        route_pods(&other, VXLAN, true);
        let follower = Follower::start(world, &[other.device(), VXLAN.to_owned()]);
        follower.wait_for(world, 3);
        let mut maps = follower.kernel.maps().unwrap();
        let gateway = SocketAddr::new(near, ENDPOINT);
        put(&mut maps, node_port(true, DIALLED, UDP), 1, &[(gateway, BACKEND_LOCAL)]);
        let mut set = 1;
        for (family, is_ipv4) in [true, false].into_iter().enumerate() {
            let [own, far] = [OWN, OTHER].map(|of| of[family].parse::<IpAddr>().unwrap());
            for (protocol, server) in echo(&here, is_ipv4) {
                set += 1;
                let key = node_port(is_ipv4, 30081, protocol);
                put(&mut maps, key, set, &[(server, BACKEND_LOCAL)]);
            }
            let to = SocketAddr::new(own, 30081);
            let seen = other.inside(|| [ask_udp(to), ask_tcp(to)]);
            assert_eq!(seen, [far; 2], "{to}");
        }
        follower.assert_nothing_dropped();
    });
}
