//! What is in the kernel outlives the agent: kill -9 at any moment loses nothing.

use super::support::world::{PROBE, World};

/// Kills.
const ROUNDS: usize = 20;

#[test]
fn twenty_kills_under_a_thousand_connections_a_second_lose_nothing() {
    let world = World::on_two_nodes(2, 1);
    let mut agent = world.agent();
    let (cluster_ip, node_port) = ("http://10.96.0.20", "http://192.168.77.2:30080");
    let ways = [
        ("ClusterIP", PROBE, ["--url", cluster_ip, "--rate", "600"]),
        ("NodePort from outside", "client", ["--url", node_port, "--rate", "400"]),
        ("open connections by ClusterIP", PROBE, ["--url", cluster_ip, "--streams", "20"]),
        ("open connections by NodePort", "client", ["--url", node_port, "--streams", "20"]),
        ("UDP by ClusterIP", PROBE, ["--url", "udp://10.96.0.20:80", "--rate", "50"]),
    ];
    let traffic = ways.map(|(what, place, args)| (what, world.steady(place, &args)));
    for round in 0..ROUNDS {
        agent.kill();
        agent = world.agent_with(&[]);
        // Every other time it is killed while it is still adopting what it found.
        if round % 2 == 0 {
            agent.await_ready(&world);
        } else {
            agent.await_any_line();
        }
    }
    agent.await_ready(&world);
    for (what, steady) in traffic {
        steady.stop().assert_flawless(what);
    }
}

#[test]
fn a_service_deleted_while_no_agent_ran_is_gone_after_the_restart() {
    let world = World::with_pods(1);
    let agent = world.agent();
    assert_eq!(world.await_answer(PROBE, "http://10.96.0.20").ok(), 1);
    agent.kill();
    assert_eq!(world.await_answer(PROBE, "http://10.96.0.20").ok(), 1, "without an agent");
    std::fs::remove_file(world.manifests().join("hello.yaml")).expect("it is there");
    let _agent = world.agent();
    let report = world.load(PROBE, &["--url", "http://10.96.0.20", "--count", "1"]);
    assert_eq!(report.ok(), 0, "its address must not lead anywhere any more");
}
