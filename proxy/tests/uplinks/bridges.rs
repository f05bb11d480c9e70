//! A node whose card is a port of a bridge, beside the ports of pods and virtual machines.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
};

use fairlead_ebpf::abi::{BACKEND_LOCAL, TCP, UDP};
use fairlead_proxy::connections::{Connections, Sweep};

use crate::support::{
    followed::{Follower, ask_tcp, ask_udp, echo_tcp, echo_udp, refused_tcp, refused_udp},
    services::{frontend, node_port, put},
    world::{Pod, World, run, world},
};

/// The node's own addresses, on the bridge: IPv4, then IPv6.
pub(crate) const NODE: [&str; 2] = ["10.99.100.1", "fd99:0:0:100::1"];
/// Another of the node's, which the client dials that is behind a router.
const SECOND: [&str; 2] = ["10.88.0.1", "fd88::1"];
/// Beyond the router that is at the card's other end: that client, and another node's pod.
const FAR: [&str; 2] = ["192.0.2.9", "2001:db8:9::9"];
const ELSEWHERE: [&str; 2] = ["10.77.0.5", "fd77::5"];
pub(crate) const CLUSTER_IP: [&str; 2] = ["10.96.0.1:80", "[fd00:96::1]:80"];
pub(crate) const NODE_PORT: u16 = 30080;
/// A connection whose client's address is kept has an entry each way; another two where it is not.
pub(crate) const KEPT: usize = 2;
pub(crate) const MASQUERADED: usize = 4;

/// Who dials what, which backend answers, as whom it sees the client, and how many entries that makes.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) what: &'a str,
    pub(crate) client: &'a Pod,
    pub(crate) to: SocketAddr,
    pub(crate) backend: Backend<'a>,
    pub(crate) seen: IpAddr,
    pub(crate) entries: usize,
}

#[derive(Clone, Copy)]
pub(crate) struct Backend<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) ip: IpAddr,
    pub(crate) flags: u16,
}

/// It was translated at the port and again at the bridge, to another port of the client's; what answered on the same bridge went
/// past the bridge's own device, and came from a stranger.
#[test]
fn packets_by_a_bridge_of_card_and_pods_are_translated_once_and_answers_come_back() {
    let name =
        "bridges::packets_by_a_bridge_of_card_and_pods_are_translated_once_and_answers_come_back";
    world(name, |world| {
        world.forward();
        lay_bridge();
        let [card, pod, other] = [11, 12, 13].map(|number| on_bridge(world, number));
        let routed = world.pod(4);
        lay_router(&card);
        let follower = Follower::start(world, &["br0".to_owned(), card.device()]);
        // The bridge itself has none.
        follower.wait_for(world, 4);
        let table = follower.kernel.connections().unwrap();
        let mut set = 0;
        for (family, is_ipv4) in [true, false].into_iter().enumerate() {
            let [node, second, far, elsewhere] = [NODE, SECOND, FAR, ELSEWHERE]
                .map(|addresses| addresses[family].parse::<IpAddr>().unwrap());
            let [near, own] = [11, 12].map(|number| address(number, is_ipv4));
            let local = |pod, ip| Backend { pod, ip, flags: BACKEND_LOCAL };
            let itself = local(&pod, own);
            let same = local(&other, address(13, is_ipv4));
            let by_route = local(&routed, routed.own_address(is_ipv4));
            let remote = Backend { pod: &card, ip: elsewhere, flags: 0 };
            let service: SocketAddr = CLUSTER_IP[family].parse().unwrap();
            let of = |what, client, to, backend, seen| Case {
                what,
                client,
                to,
                backend,
                seen,
                entries: KEPT,
            };
            let outside =
                |what, backend| of(what, &card, SocketAddr::new(second, NODE_PORT), backend, far);
            let inside = |what, backend| of(what, &pod, service, backend, own);
            let masqueraded = |case| Case { seen: node, entries: MASQUERADED, ..case };
            let [at_node, at_second] = [node, second].map(|ip| SocketAddr::new(ip, NODE_PORT));
            for case in [
                outside("a client behind a router, to a pod on the bridge", itself),
                outside("the same, to a pod that is routed to", by_route),
                masqueraded(outside("the same, to another node's pod", remote)),
                of("a client in the node's network, to a pod there", &card, at_node, same, near),
                inside("a pod on the bridge, to another there", same),
                inside("the same, to a pod that is routed to", by_route),
                inside("the same, to another node's pod", remote),
                masqueraded(inside("the same, to itself", itself)),
                of("a pod on the bridge, to a NodePort", &pod, at_second, same, own),
                of(
                    "a pod that is routed to, to one on the bridge",
                    &routed,
                    service,
                    same,
                    routed.own_address(is_ipv4),
                ),
            ] {
                for protocol in [TCP, UDP] {
                    set += 1;
                    check(&follower, &table, (set, protocol), &case);
                }
            }
            set += 1;
            let mut maps = follower.kernel.maps().unwrap();
            for protocol in [TCP, UDP] {
                put(&mut maps, node_port(is_ipv4, NODE_PORT + 1, protocol), set, &[]);
            }
            for (client, ip) in [(&card, node), (&card, second), (&pod, node)] {
                let to = SocketAddr::new(ip, NODE_PORT + 1);
                let refused = client.inside(|| [refused_tcp(to), refused_udp(to)]);
                assert_eq!(refused, [ErrorKind::ConnectionRefused; 2], "{to}: nobody serves");
            }
        }
        follower.assert_nothing_dropped();
    });
}

pub(crate) fn check(
    follower: &Follower,
    table: &Connections,
    (set, protocol): (u32, u8),
    case: &Case<'_>,
) {
    let Case { what, client, to, backend, seen, entries } = *case;
    let what = format!("{what}: {to}, protocol {protocol}");
    let server = backend.pod.inside(|| match protocol {
        TCP => echo_tcp(backend.ip),
        _ => echo_udp(backend.ip),
    });
    let key = match to.port() {
        NODE_PORT => node_port(to.is_ipv4(), NODE_PORT, protocol),
        _ => frontend(&to.to_string(), protocol),
    };
    let mut maps = follower.kernel.maps().unwrap();
    put(&mut maps, key, set, &[(server, backend.flags)]);
    let before = table.sweep(Sweep::Over).unwrap();
    let answer = client.inside(|| if protocol == TCP { ask_tcp(to) } else { ask_udp(to) });
    assert_eq!(answer, seen, "{what}");
    let after = table.sweep(Sweep::Over).unwrap();
    assert_eq!(after.entries + before.removed - before.entries, entries, "{what}: translated once");
    let counts = follower.kernel.services(u32::MAX).unwrap().remove(&set).unwrap_or_default();
    assert_eq!(counts.selected, 1, "{what}");
}

pub(crate) fn lay_bridge() {
    // A station of its own, unlike any port's.
    run("ip link add br0 address 02:00:00:00:01:01 type bridge forward_delay 0 mcast_snooping 0");
    // A router asks for neighbours from its link-local address (RFC 4861 §4.3), which would be in doubt for a second.
    fs::write("/proc/sys/net/ipv6/conf/br0/accept_dad", "0").unwrap();
    let [v4, v6] = NODE;
    run(&format!("ip addr add {v4}/24 dev br0"));
    run(&format!("ip addr add {v6}/64 nodad dev br0"));
    for (ip, bits) in SECOND.into_iter().zip([32, 128]) {
        run(&format!("ip addr add {ip}/{bits} dev lo"));
    }
    run("ip link set br0 up");
}

/// A namespace whose device is a port of the bridge.
pub(crate) fn on_bridge(world: &World, number: u8) -> Pod {
    let pod = world.pod(number);
    let device = pod.device();
    run(&format!("ip addr flush dev {device} scope global"));
    pod.run("ip addr flush dev eth0 scope global");
    run(&format!("ip link set {device} master br0"));
    for (is_ipv4, options) in [(true, "24 dev"), (false, "64 nodad dev")] {
        pod.run(&format!("ip addr add {}/{options} eth0", address(number, is_ipv4)));
    }
    NODE.into_iter().for_each(|node| pod.run(&format!("ip route replace default via {node}")));
    pod
}

/// In the bridge's network.
pub(crate) fn address(number: u8, is_ipv4: bool) -> IpAddr {
    let [v4, v6] = NODE.map(|node| node.parse().unwrap());
    match if is_ipv4 { v4 } else { v6 } {
        IpAddr::V4(node) => {
            IpAddr::from((node.to_bits() & !0xff | u32::from(number)).to_be_bytes())
        }
        IpAddr::V6(node) => {
            IpAddr::from((node.to_bits() & !0xffff | u128::from(number)).to_be_bytes())
        }
    }
}

/// Makes the card's other end a router to what is far.
fn lay_router(card: &Pod) {
    for (family, bits) in [32, 128].into_iter().enumerate() {
        let by = address(11, family == 0);
        for beyond in [FAR[family], ELSEWHERE[family]] {
            card.run(&format!("ip addr add {beyond}/{bits} dev lo"));
            run(&format!("ip route add {beyond}/{bits} via {by}"));
        }
        let (second, node, far) = (SECOND[family], NODE[family], FAR[family]);
        card.run(&format!("ip route add {second}/{bits} via {node} src {far}"));
    }
}
