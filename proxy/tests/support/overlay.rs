//! Another node, whose pods are reached through a device of the network plugin's.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;

use super::world::{Pod, run};

/// Of this node's device, the other node's, and of a pod there: IPv4, then IPv6.
pub(crate) const OWN: [&str; 2] = ["10.244.1.0", "fd00:244:1::1"];
pub(crate) const OTHER: [&str; 2] = ["10.244.2.0", "fd00:244:2::1"];
pub(crate) const POD: [&str; 2] = ["10.244.2.5", "fd00:244:2::5"];
/// Where the nodes' pods have their addresses from.
pub(crate) const PODS_OWN: [&str; 2] = ["10.244.1.0/24", "fd00:244:1::/64"];
pub(crate) const PODS_OTHER: [&str; 2] = ["10.244.2.0/24", "fd00:244:2::/64"];

/// Routes the pods' ranges through `device`, which both nodes have; with Ethernet by the other's address on it.
pub(crate) fn route_pods(other: &Pod, device: &str, is_ethernet: bool) {
    // A router asks for neighbours from its link-local address (RFC 4861 §4.3), which would be in doubt for a second.
    let hurry = || {
        fs::write(format!("/proc/sys/net/ipv6/conf/{device}/accept_dad"), "0").unwrap();
    };
    hurry();
    other.inside(hurry);
    let on_other = |command: &str| other.run(command);
    for (run, [own_v4, own_v6], far, pods) in
        [(&run as &dyn Fn(&str), OWN, OTHER, PODS_OTHER), (&on_other, OTHER, OWN, PODS_OWN)]
    {
        run(&format!("ip addr add {own_v4}/32 dev {device}"));
        run(&format!("ip addr add {own_v6}/128 dev {device} nodad"));
        run(&format!("ip link set {device} up"));
        for (pods, far) in pods.into_iter().zip(far) {
            let by = if is_ethernet { format!(" via {far} onlink") } else { String::new() };
            run(&format!("ip route add {pods} dev {device}{by}"));
        }
    }
    for (pod, len) in POD.into_iter().zip([32, 128]) {
        other.run(&format!("ip addr add {pod}/{len} dev lo"));
    }
}
