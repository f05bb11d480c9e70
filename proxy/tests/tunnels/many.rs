//! Devices that lead to many nodes at once: what is sent by them must say to which.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    thread,
};

use fairlead_ebpf::abi::{TCP, UDP};

use crate::{
    TUNNEL, end, hand_over,
    support::{
        followed::{Follower, refused_tcp, refused_udp},
        overlay::{OTHER, OWN, PODS_OTHER, PODS_OWN},
        services::{node_port, put},
        world::{Pod, World, run, world},
    },
};

/// The way back to the other node.
const BACK: &str = "tunl2";
/// In `external` mode.
const VXLAN: &str = "vx0";
/// Link addresses of the nodes' ends.
const STATIONS: [&str; 2] = ["02:00:00:00:01:01", "02:00:00:00:01:02"];

/// The fallback device of IPIP (`tunl0`) and the like take what they send by its route: a refusal had none, and was lost. Here the
/// way back is another device, which the route alone tells.
#[test]
fn refusals_leave_a_device_without_ethernet_by_the_clients_route() {
    let name = "many::refusals_leave_a_device_without_ethernet_by_the_clients_route";
    world(name, |world| {
        let other = world.pod(1);
        world.forward();
        let (there, far) = (end(TUNNEL), other.inside(|| end(TUNNEL)));
        let (back, far_back) = (end(BACK), other.inside(|| end(BACK)));
        // Each in one direction only.
        thread::spawn(move || hand_over(far, there));
        thread::spawn(move || hand_over(back, far_back));
        up(&other, &[TUNNEL, BACK]);
        let on_other = |command: &str| other.run(command);
        for (run, own, pods, by) in
            [(&run as &dyn Fn(&str), OWN, PODS_OTHER, BACK), (&on_other, OTHER, PODS_OWN, TUNNEL)]
        {
            addresses(run, own, TUNNEL);
            pods.into_iter().for_each(|pods| run(&format!("ip route add {pods} dev {by}")));
        }
        all_are_refused(world, &other, &[TUNNEL.to_owned(), BACK.to_owned()]);
    });
}

#[test]
fn refusals_go_back_in_the_tunnel_over_ipv4_that_a_packet_came_by() {
    let name = "many::refusals_go_back_in_the_tunnel_over_ipv4_that_a_packet_came_by";
    world(name, |world| refused_in_tunnel(world, true));
}

#[test]
fn refusals_go_back_in_the_tunnel_over_ipv6_that_a_packet_came_by() {
    let name = "many::refusals_go_back_in_the_tunnel_over_ipv6_that_a_packet_came_by";
    world(name, |world| refused_in_tunnel(world, false));
}

/// As of network plugins whose route or program names the other node: the device itself knows none, and a refusal named none.
fn refused_in_tunnel(world: &World, is_over_ipv4: bool) {
    let other = world.pod(1);
    let [near, far] = [other.node_address(is_over_ipv4), other.own_address(is_over_ipv4)];
    let [near_station, far_station] = STATIONS;
    run(&format!("ip link add {VXLAN} address {near_station} type vxlan external dstport 4789"));
    other.run(&format!(
        "ip link add {VXLAN} address {far_station} type vxlan id 7 dstport 4789 local {far} remote {near}"
    ));
    up(&other, &[VXLAN]);
    addresses(&run, OWN, VXLAN);
    let on_other = |command: &str| other.run(command);
    addresses(&on_other, OTHER, VXLAN);
    for (own, pods) in OWN.into_iter().zip(PODS_OWN) {
        other.run(&format!("ip neigh add {own} lladdr {near_station} dev {VXLAN}"));
        other.run(&format!("ip route add {pods} via {own} dev {VXLAN} onlink"));
    }
    all_are_refused(world, &other, &[VXLAN.to_owned()]);
}

fn up(other: &Pod, devices: &[&str]) {
    for device in devices {
        let command = format!("ip link set {device} up");
        // A router asks for neighbours from its link-local address (RFC 4861 §4.3), which would be in doubt for a second.
        let hurry = || {
            fs::write(format!("/proc/sys/net/ipv6/conf/{device}/accept_dad"), "0").unwrap();
            // By the one they come, by the other they go.
            fs::write(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"), "0").unwrap();
        };
        hurry();
        other.inside(hurry);
        run(&command);
        other.run(&command);
    }
}

/// IPv4, then IPv6.
fn addresses(run: &dyn Fn(&str), [v4, v6]: [&str; 2], device: &str) {
    run(&format!("ip addr add {v4}/32 dev {device}"));
    run(&format!("ip addr add {v6}/128 dev {device} nodad"));
}

/// Asks this node, in the name of the other's address, where nobody serves.
fn all_are_refused(world: &World, other: &Pod, devices: &[String]) {
    let follower = Follower::start(world, devices);
    // What the tunnel goes through is a pod's, by its kind.
    follower.wait_for(world, devices.len() + 1);
    let mut maps = follower.kernel.maps().unwrap();
    for (own, set) in OWN.into_iter().zip(1..) {
        let own: IpAddr = own.parse().unwrap();
        let to = SocketAddr::new(own, 30082);
        [TCP, UDP].into_iter().for_each(|protocol| {
            put(&mut maps, node_port(own.is_ipv4(), to.port(), protocol), set, &[]);
        });
        let refused = other.inside(|| [refused_tcp(to), refused_udp(to)]);
        assert_eq!(refused, [ErrorKind::ConnectionRefused; 2], "{to}");
    }
}
