//! Towards another node's pods: which of the node's addresses they see, and that their answers come back.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use fairlead_ebpf::abi::{TCP, UDP};
use support::{
    followed::{Follower, ask_tcp, ask_udp, echo_tcp, echo_udp},
    overlay::{OWN, POD, PODS_OTHER, route_pods},
    services::{node_port, put},
    world::{Pod, load_rules, run, world},
};

mod support {
    pub(crate) mod followed;
    pub(crate) mod overlay;
    pub(crate) mod services;
    pub(crate) mod world;
}

const OVERLAY: &str = "flannel.1";
/// Of a load balancer that announces it on every node.
const VIRTUAL: [&str; 2] = ["203.0.113.80", "2001:db8:80::1"];

/// From kube-proxy they get the address of the device the packet leaves by (netfilter's MASQUERADE).
#[test]
fn a_remote_pod_sees_the_address_of_the_device_its_packets_come_from() {
    world("a_remote_pod_sees_the_address_of_the_device_its_packets_come_from", |world| {
        let (client, other) = (world.pod(1), world.pod(2));
        world.forward();
        lay_overlay(&other);
        announce_virtual_addresses(&other);
        let [outward, inward] = [client.device(), other.device()];
        let follower = Follower::start(world, &[outward, inward, OVERLAY.to_owned()]);
        follower.wait_for(world, 3);
        let mut maps = follower.kernel.maps().unwrap();
        let mut set = 0;
        for (family, is_ipv4) in [true, false].into_iter().enumerate() {
            let ip = |of: [&str; 2]| -> IpAddr { of[family].parse().unwrap() };
            let public = client.node_address(is_ipv4);
            let private = other.node_address(is_ipv4);
            for (dialled, backend, seen) in [
                (public, other.own_address(is_ipv4), private),
                (ip(VIRTUAL), other.own_address(is_ipv4), private),
                (public, ip(POD), ip(OWN)),
                (private, ip(POD), ip(OWN)),
                (ip(VIRTUAL), ip(POD), ip(OWN)),
            ] {
                let servers = other.inside(|| [(TCP, echo_tcp(backend)), (UDP, echo_udp(backend))]);
                for (protocol, server) in servers {
                    set += 1;
                    put(&mut maps, node_port(is_ipv4, 30080, protocol), set, &[(server, 0)]);
                }
                let to = SocketAddr::new(dialled, 30080);
                let met = client.inside(|| [ask_tcp(to), ask_udp(to)]);
                assert_eq!(met, [seen; 2], "{dialled} to {backend}");
            }
        }
        follower.assert_nothing_dropped();
    });
}

/// Pods of the other node are reached over VXLAN alone: what comes from them otherwise is dropped, as clouds
/// do it by their source checks and Linux by `rp_filter`.
fn lay_overlay(other: &Pod) {
    let device = other.device();
    let (own, far) = (other.node_address(true), other.own_address(true));
    let link = |local: IpAddr, remote: IpAddr, device: &str| {
        format!(
            "ip link add {OVERLAY} type vxlan id 1 dstport 8472 local {local} remote {remote} dev {device}"
        )
    };
    run(&link(own, far, &device));
    other.run(&link(far, own, "eth0"));
    route_pods(other, OVERLAY, true);
    fs::write(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"), "1").unwrap();
    load_rules(&format!(
        "table ip6 cloud {{
            chain sources {{
                type filter hook prerouting priority raw
                iifname {device} ip6 saddr {} drop
            }}
        }}",
        PODS_OTHER[1]
    ));
}

/// Every node has them: a node that is sent an answer to one takes it for its own.
fn announce_virtual_addresses(other: &Pod) {
    for (ip, len) in VIRTUAL.into_iter().zip([32, 128]) {
        let command = format!("ip addr add {ip}/{len} dev lo");
        run(&command);
        other.run(&command);
    }
}
