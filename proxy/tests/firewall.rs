//! Beside others who look at packets: a firewall that lets through what it was told to, and a CNI
//! plugin that hides pods' addresses from the outside. Nothing is added to their rules.

use std::net::SocketAddr;

use fairlead_ebpf::abi::BACKEND_LOCAL;
use support::{
    followed::{Follower, ask_tcp, ask_udp, echo},
    services::{frontend, node_port, put},
    world::{load_rules, world},
};

mod support {
    pub(crate) mod followed;
    pub(crate) mod services;
    pub(crate) mod world;
}

/// Pods 2 and 3 are pods to it, pod 1 is somebody outside. That pods may be reached and may reach
/// others is what CNI plugins' rules say (flannel's, Calico's).
const RULES: &str = "
table inet firewall {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        ip saddr 10.99.2.0/23 accept
        ip daddr 10.99.2.0/23 accept
        ip6 saddr fd99:0:0:2::/63 accept
        ip6 daddr fd99:0:0:2::/63 accept
    }
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.99.2.0/23 ip daddr != 10.99.2.0/23 masquerade
        ip6 saddr fd99:0:0:2::/63 ip6 daddr != fd99:0:0:2::/63 masquerade
    }
}
";

#[test]
fn a_firewall_that_drops_and_rules_that_masquerade_stay_as_they_are_and_services_work() {
    let name = "a_firewall_that_drops_and_rules_that_masquerade_stay_as_they_are_and_services_work";
    world(name, |world| {
        let [outside, backend, pod] = [1, 2, 3].map(|number| world.pod(number));
        world.forward();
        load_rules(RULES);
        // Sockets of the test's own pods are in the node's cgroup, which has no socket programs here.
        let own = outside.node_addresses();
        let follower = Follower::start_on(world, &[outside.device()], own);
        follower.wait_for(world, 3);
        let mut maps = follower.kernel.maps().unwrap();
        let mut set = 0;
        for is_ipv4 in [true, false] {
            let servers = echo(&backend, is_ipv4);
            let service = if is_ipv4 { "10.96.0.1:80" } else { "[fd00:96::1]:80" };
            let cluster_ip: SocketAddr = service.parse().unwrap();
            let by_node = SocketAddr::new(outside.node_address(is_ipv4), 30080);
            // As if it were on this node, and as if elsewhere: then the node's address on the way there stands in.
            for flags in [BACKEND_LOCAL, 0] {
                for (protocol, server) in servers {
                    for key in [frontend(service, protocol), node_port(is_ipv4, 30080, protocol)] {
                        set += 1;
                        put(&mut maps, key, set, &[(server, flags)]);
                    }
                }
                let client = outside.own_address(is_ipv4);
                let on_the_way = backend.node_address(is_ipv4);
                let expected = if flags == 0 { on_the_way } else { client };
                let seen = outside.inside(|| [ask_tcp(by_node), ask_udp(by_node)]);
                assert_eq!(seen, [expected; 2], "{by_node} from outside, flags {flags}");
                let seen = pod.inside(|| [ask_tcp(cluster_ip), ask_udp(cluster_ip)]);
                assert_eq!(seen, [pod.own_address(is_ipv4); 2], "{cluster_ip}, flags {flags}");
                let seen = pod.inside(|| [ask_tcp(by_node), ask_udp(by_node)]);
                assert_eq!(seen, [pod.own_address(is_ipv4); 2], "{by_node} from a pod");
            }
        }
        follower.assert_nothing_dropped();
    });
}
