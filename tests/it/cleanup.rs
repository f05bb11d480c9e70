//! What `fairlead cleanup` takes away, and when.

use super::support::world::{FAIRLEAD, PROBE, World};

#[test]
fn draining_keeps_open_connections_from_outside_and_takes_no_new_ones() {
    let world = World::with_pods(2);
    let agent = world.agent();
    let (cluster_ip, node_port) = ("http://10.96.0.20", "http://192.168.77.2:30080");
    let inside = world.steady(PROBE, &["--url", cluster_ip, "--streams", "5"]);
    let outside = world.steady("client", &["--url", node_port, "--streams", "5"]);
    agent.kill();

    let mut cleanup = world.command("node", FAIRLEAD);
    cleanup.arg("cleanup").arg("--bpffs").arg(world.bpffs()).args(["--drain", "3"]);
    let mut cleanup = cleanup.spawn().expect("it starts");
    world.await_failure("client", node_port);
    assert_eq!(cleanup.try_wait().expect("it is ours"), None, "it drains still");
    outside.stop().assert_flawless("open connections by NodePort, while draining");
    assert!(cleanup.wait().expect("it is ours").success());

    // Sockets of the node have had the backend's address from the start.
    inside.stop().assert_flawless("open connections by ClusterIP, after it");
}

#[test]
fn draining_where_nothing_is_does_not_wait() {
    let world = World::with_pods(0);
    let mut cleanup = world.command("node", FAIRLEAD);
    cleanup.arg("cleanup").arg("--bpffs").arg(world.bpffs()).args(["--drain", "3600"]);
    assert!(cleanup.status().expect("it starts").success());
}
