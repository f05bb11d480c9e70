//! Devices that stand on each other: on its way in a packet passes the programs of each.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

use fairlead_ebpf::abi::{BACKEND_LOCAL, TCP, UDP};

use crate::{
    bridges::{
        Backend, CLUSTER_IP, Case, KEPT, MASQUERADED, NODE, NODE_PORT, address, check, lay_bridge,
        on_bridge,
    },
    support::{
        followed::Follower,
        world::{run, world},
    },
};

/// The node's end of the macvlan's network, and the client's: IPv4, then IPv6.
const UPPER: [&str; 2] = ["10.98.9.1", "fd98:9::1"];
const CLIENT: [&str; 2] = ["10.98.9.2", "fd98:9::2"];
/// The macvlan's station.
const STATION: &str = "02:00:00:00:02:01";

/// As of a VLAN's device over a bridge that gives its ports their VLAN. The bridge took a pod's packet for a stranger's, as it
/// had been translated at the pod's port: it got another port, and so what answers on the same bridge came from a stranger, and
/// a pod that was led to itself answered itself.
#[test]
fn bug_what_was_translated_at_a_pods_port_is_not_translated_again_at_the_bridge_above() {
    let name = "stacked::bug_what_was_translated_at_a_pods_port_is_not_translated_again_at_the_bridge_above";
    world(name, |world| {
        world.forward();
        lay_bridge();
        let [pod, other] = [12, 13].map(|number| on_bridge(world, number));
        let routed = world.pod(4);
        let follower = Follower::start(world, &["br0".to_owned()]);
        follower.wait_for(world, 4);
        let table = follower.kernel.connections().unwrap();
        let mut set = 0;
        for (family, is_ipv4) in [true, false].into_iter().enumerate() {
            let node: IpAddr = NODE[family].parse().unwrap();
            let own = address(12, is_ipv4);
            let local = |pod, ip| Backend { pod, ip, flags: BACKEND_LOCAL };
            let same = local(&other, address(13, is_ipv4));
            let by_route = local(&routed, routed.own_address(is_ipv4));
            let service: SocketAddr = CLUSTER_IP[family].parse().unwrap();
            let at_node = SocketAddr::new(node, NODE_PORT);
            let of = |what, to, backend| Case {
                what,
                client: &pod,
                to,
                backend,
                seen: own,
                entries: KEPT,
            };
            let itself = of("to itself", service, local(&pod, own));
            for case in [
                of("to another on the bridge", service, same),
                of("the same, by a NodePort", at_node, same),
                of("to one that is routed to", service, by_route),
                Case { seen: node, entries: MASQUERADED, ..itself },
            ] {
                for protocol in [TCP, UDP] {
                    set += 1;
                    check(&follower, &table, (set, protocol), &case);
                }
            }
        }
        follower.assert_nothing_dropped();
    });
}

/// Translated at the lower device, it was a stranger's at the upper and got another port, under which nothing led to the node's
/// address: an endpoint elsewhere saw the client's, and answered past the node.
#[test]
fn bug_what_was_translated_at_a_card_is_not_translated_again_at_a_macvlan_on_it() {
    let name =
        "stacked::bug_what_was_translated_at_a_card_is_not_translated_again_at_a_macvlan_on_it";
    world(name, |world| {
        let (client, backend) = (world.pod(1), world.pod(2));
        world.forward();
        let card = client.device();
        run(&format!("ip link add mv0 link {card} address {STATION} type macvlan mode bridge"));
        for (family, options) in ["24 dev", "64 nodad dev"].into_iter().enumerate() {
            run(&format!("ip addr add {}/{options} mv0", UPPER[family]));
            client.run(&format!("ip addr add {}/{options} eth0", CLIENT[family]));
            // The card would answer for it, too.
            client.run(&format!("ip neigh add {} lladdr {STATION} dev eth0", UPPER[family]));
        }
        // A router asks for neighbours from its link-local address (RFC 4861 §4.3), which would be in doubt for a second.
        fs::write("/proc/sys/net/ipv6/conf/mv0/accept_dad", "0").unwrap();
        run("ip link set mv0 up");
        let follower = Follower::start(world, &[card, "mv0".to_owned()]);
        follower.wait_for(world, 3);
        let table = follower.kernel.connections().unwrap();
        let mut set = 0;
        for (family, is_ipv4) in [true, false].into_iter().enumerate() {
            let [upper, own] = [UPPER, CLIENT].map(|of| of[family].parse::<IpAddr>().unwrap());
            let backend =
                |flags| Backend { pod: &backend, ip: backend.own_address(is_ipv4), flags };
            let local = Case {
                what: "to an endpoint here",
                client: &client,
                to: SocketAddr::new(upper, NODE_PORT),
                backend: backend(BACKEND_LOCAL),
                seen: own,
                entries: KEPT,
            };
            let elsewhere = Case {
                what: "to an endpoint elsewhere",
                backend: backend(0),
                seen: local.backend.pod.node_address(is_ipv4),
                entries: MASQUERADED,
                ..local
            };
            for case in [local, elsewhere] {
                for protocol in [TCP, UDP] {
                    set += 1;
                    check(&follower, &table, (set, protocol), &case);
                }
            }
        }
        follower.assert_nothing_dropped();
    });
}
