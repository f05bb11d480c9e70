//! What a power cut leaves, and a hand that empties the BPF file system or takes it away.

use crate::{
    support::world::{PROBE, World},
    traffic::{
        CLUSTER_IP, CLUSTER_IP_V6, NODE_PORT, NODE_PORT_V6, Traffic, assert_all_pods_answer,
        await_good, run,
    },
};

/// Sockets are translated when they connect: nothing on the way of these asks for a program.
const OPEN: [(&str, &str, [&str; 4]); 2] = [
    ("open connections by ClusterIP", PROBE, ["--url", CLUSTER_IP, "--streams", "20"]),
    ("open connections by ClusterIP, IPv6", PROBE, ["--url", CLUSTER_IP_V6, "--streams", "20"]),
];

/// By sockets and by packets, in each family.
const WAYS: [(&str, &str); 4] =
    [(PROBE, CLUSTER_IP), (PROBE, CLUSTER_IP_V6), ("client", NODE_PORT), ("client", NODE_PORT_V6)];

fn empty(world: &World) {
    run(world, "node", &format!("rm -r {}/fairlead", world.bpffs().display()));
}

/// As `umount -l`: for everybody, as nobody holds it open.
fn unmount(world: &World) {
    run(world, "node", &format!("umount -l {}", world.bpffs().display()));
}

/// Connections between pods that no proxy translates.
fn past_the_proxy(world: &World) -> Vec<String> {
    let pods = world.pods().iter();
    pods.flat_map(|pod| [format!("http://{}:8080", pod.v4), format!("http://[{}]:8080", pod.v6)])
        .collect()
}

/// Maps, programs and links are gone with the machine's memory; the state directory is not.
#[test]
fn after_a_power_cut_a_start_serves_everything_again() {
    let world = World::on_two_nodes(2, 1);
    for _ in 0..3 {
        let agent = world.agent();
        WAYS.into_iter().for_each(|(place, url)| await_good(&world, place, url));
        assert_all_pods_answer(&world);
        agent.kill();
        empty(&world);
        WAYS.into_iter().for_each(|(place, url)| world.await_failure(place, url));
    }
}

/// Takes programs away twice; what needs none does not notice.
fn assert_programs_are_put_back(taken_away: fn(&World)) {
    let world = World::on_two_nodes(2, 1);
    let agent = world.agent();
    let open = Traffic::start(&world, OPEN);
    let past = past_the_proxy(&world);
    let past: Vec<_> =
        past.iter().map(|url| world.steady(PROBE, &["--url", url, "--rate", "100"])).collect();
    for round in 1..=2 {
        WAYS.into_iter().for_each(|(place, url)| await_good(&world, place, url));
        taken_away(&world);
        world.await_failure(PROBE, CLUSTER_IP);
        // The log sums up what is said again within half a minute.
        agent.await_line(&["ERROR", "the programs are gone"]);
        agent.await_lines(1 + round, &["services programmed"]);
        WAYS.into_iter().for_each(|(place, url)| await_good(&world, place, url));
        agent.await_ready(&world);
        assert_all_pods_answer(&world);
    }
    open.assert_flawless();
    for steady in past {
        steady.stop().assert_flawless("from pod to pod");
    }
}

#[test]
fn an_agent_whose_programs_are_taken_away_puts_them_back_and_breaks_no_open_connection() {
    assert_programs_are_put_back(empty);
}

#[test]
fn an_agent_whose_bpf_file_system_is_unmounted_mounts_one_and_breaks_no_open_connection() {
    assert_programs_are_put_back(unmount);
}
