//! The node's network changes under it.

use crate::{
    support::world::World,
    traffic::{INSIDE, NODE_PORT, NODE_PORT_V6, OUTSIDE, Traffic, await_good, run},
};

/// What a node has before and after its uplink comes.
const ROUTES: &str = "ip route add default via 192.168.77.100; \
    ip -6 route add default via fd77::100";

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
fn an_uplink_that_is_renamed_keeps_its_connections_and_one_that_comes_anew_gets_them() {
    let world = World::with_pods(3);
    let agent = world.agent();
    let inside = Traffic::start(&world, INSIDE);
    let outside = Traffic::start(&world, OUTSIDE);
    for (old, new) in [("eth0", "wan0"), ("wan0", "eth0"), ("eth0", "wan0")] {
        run(&world, "node", &format!("ip link set {old} name {new}"));
        agent.await_line(&["following the node", new]);
    }
    outside.assert_flawless();

    for (old, new) in [("wan0", "eth0"), ("eth0", "lan7")] {
        run(&world, "node", &format!("ip link delete {old}"));
        world.await_failure("client", NODE_PORT);
        lay_uplink(&world, new);
        await_good(&world, "client", NODE_PORT);
    }
    await_good(&world, "client", NODE_PORT_V6);
    let outside = Traffic::start(&world, OUTSIDE);
    outside.assert_flawless();
    inside.assert_flawless();
}

/// DHCP gives the node another address, and the kubelet says so later.
#[test]
fn a_node_whose_address_changes_answers_at_the_new_one_and_no_more_at_the_old_one() {
    let world = World::with_pods(3);
    let _agent = world.agent();
    let inside = Traffic::start(&world, INSIDE);
    let manifest = std::fs::read_to_string(world.manifests().join("cluster.yaml")).expect("there");
    for (old, new) in [("192.168.77.2", "192.168.77.3"), ("192.168.77.3", "192.168.77.2")] {
        let [old_url, new_url] = [old, new].map(|ip| format!("http://{ip}:30080"));
        await_good(&world, "client", &old_url);
        let change = format!(
            "ip addr del {old}/24 dev eth0; ip addr add {new}/24 dev eth0; \
             ip route add default via 192.168.77.100"
        );
        run(&world, "node", &change);
        await_good(&world, "client", &new_url);
        world.await_failure("client", &old_url);
        world.apply("cluster.yaml", &manifest.replace("192.168.77.2", new));
        await_good(&world, "client", &new_url);
    }
    inside.assert_flawless();
}
