//! The node's network changes under it.

use crate::{
    support::world::World,
    traffic::{
        INSIDE, NODE_PORT, NODE_PORT_V6, OUTSIDE, Traffic, assert_all_pods_answer, await_good, run,
    },
};

/// What a node has before and after its uplink comes.
const ROUTES: &str = "ip route add default via 192.168.77.100; \
    ip -6 route add default via fd77::100";

const NODE_PORTS: [&str; 2] = [NODE_PORT, NODE_PORT_V6];

fn lay_uplink(world: &World, name: &str) {
    let client = world.root().join("netns/client");
    let wires = format!(
        "ip link add {name} type veth peer name eth0 netns {}; \
         ip addr add 192.168.77.2/24 dev {name}; ip addr add fd77::2/64 nodad dev {name}; \
         ip link set {name} up",
        client.display()
    );
    run(world, "node", &wires);
    run(
        world,
        "client",
        "ip addr add 192.168.77.100/24 dev eth0; ip addr add fd77::100/64 nodad dev eth0; \
         ip link set eth0 up",
    );
    run(world, "node", ROUTES);
}

#[test]
fn an_uplink_that_is_renamed_keeps_its_connections() {
    let world = World::on_two_nodes(2, 2);
    let agent = world.agent();
    assert_all_pods_answer(&world);
    let traffic = Traffic::start(&world, INSIDE.into_iter().chain(OUTSIDE));
    for (old, new) in [("eth0", "wan0"), ("wan0", "eth0"), ("eth0", "wan0")] {
        run(&world, "node", &format!("ip link set {old} name {new}"));
        agent.await_line(&["following the node", new]);
    }
    traffic.assert_flawless();
}

/// Pods of this node meet one another all the while.
#[test]
fn an_uplink_that_comes_anew_gets_the_connections_of_the_one_that_went() {
    let world = World::with_pods(3);
    let _agent = world.agent();
    let inside = Traffic::start(&world, INSIDE);
    for (old, new) in [("eth0", "wan0"), ("wan0", "lan7")] {
        run(&world, "node", &format!("ip link delete {old}"));
        NODE_PORTS.into_iter().for_each(|url| world.await_failure("client", url));
        lay_uplink(&world, new);
        NODE_PORTS.into_iter().for_each(|url| await_good(&world, "client", url));
    }
    let outside = Traffic::start(&world, OUTSIDE);
    outside.assert_flawless();
    inside.assert_flawless();
}

/// The node's addresses by turns, and the way of the router to the node's pods, in each family.
const CHANGES: [([&str; 2], &str); 2] = [
    (["192.168.77.2", "192.168.77.3"], "10.244.1.0/24"),
    (["fd77::2", "fd77::3"], "fd00:10:244:1::/64"),
];

/// From the one to the other and back.
fn turns(addresses: [&'static str; 2]) -> [(&'static str, &'static str); 2] {
    let [one, other] = addresses;
    [(one, other), (other, one)]
}

/// In a URL.
fn host(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

fn change_address(world: &World, old: &str, new: &str) {
    let (bits, router) = if new.contains(':') {
        ("64 nodad", "-6 route replace default via fd77::100")
    } else {
        ("24", "route replace default via 192.168.77.100")
    };
    let change = format!(
        "ip addr del {old}/{} dev eth0; ip addr add {new}/{bits} dev eth0; ip {router}",
        bits.split(' ').next().unwrap_or_default()
    );
    run(world, "node", &change);
}

/// As before, to pods of both nodes: those of the other one answer whom the node is now.
#[test]
fn a_node_whose_address_changes_reaches_other_nodes_from_the_new_one() {
    let world = World::on_two_nodes(1, 1);
    let _agent = world.agent();
    assert_all_pods_answer(&world);
    let manifest = std::fs::read_to_string(world.manifests().join("cluster.yaml")).expect("there");
    for (addresses, pods) in CHANGES {
        for (old, new) in turns(addresses) {
            change_address(&world, old, new);
            run(&world, "client", &format!("ip route replace {pods} via {new}"));
            let at = format!("{}:30080", host(new));
            let url = format!("http://{at}");
            await_good(&world, "client", &url);
            world.apply("cluster.yaml", &manifest.replace(addresses[0], new));
            for to in [url, format!("udp://{at}")] {
                let args = ["--url", &to, "--count", "100", "--rate", "1000"];
                let report = world.load("client", &args);
                report.assert_flawless(&to);
                assert_eq!(report.answered_by().len(), 2, "{to}");
            }
        }
    }
}

/// DHCP gives the node another address, or a router's announcement does, and the kubelet says so later.
#[test]
fn a_node_whose_address_changes_answers_at_the_new_one_and_no_more_at_the_old_one() {
    let world = World::with_pods(3);
    let _agent = world.agent();
    let inside = Traffic::start(&world, INSIDE);
    let manifest = std::fs::read_to_string(world.manifests().join("cluster.yaml")).expect("there");
    for (addresses, _) in CHANGES {
        for (old, new) in turns(addresses) {
            let [old_url, new_url] = [old, new].map(|ip| format!("http://{}:30080", host(ip)));
            await_good(&world, "client", &old_url);
            change_address(&world, old, new);
            await_good(&world, "client", &new_url);
            world.await_failure("client", &old_url);
            world.apply("cluster.yaml", &manifest.replace(addresses[0], new));
            await_good(&world, "client", &new_url);
        }
    }
    inside.assert_flawless();
}
