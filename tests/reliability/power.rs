//! What a power cut leaves, and a hand that empties the BPF file system.

use crate::{
    support::world::{PROBE, World},
    traffic::{CLUSTER_IP, NODE_PORT, await_good, run},
};

/// As an unmount does; pods' processes of the world keep mounts of their own.
fn take_away_all(world: &World) {
    run(world, "node", &format!("rm -r {}/fairlead", world.bpffs().display()));
}

/// Maps, programs and links are gone with the machine's memory; the state directory is not.
#[test]
fn after_a_power_cut_a_start_serves_everything_again() {
    let world = World::with_pods(2);
    for _ in 0..3 {
        let agent = world.agent();
        await_good(&world, PROBE, CLUSTER_IP);
        await_good(&world, "client", NODE_PORT);
        agent.kill();
        take_away_all(&world);
        world.await_failure(PROBE, CLUSTER_IP);
        world.await_failure("client", NODE_PORT);
    }
}

#[test]
fn an_agent_whose_programs_are_taken_away_puts_them_back() {
    let world = World::with_pods(2);
    let agent = world.agent();
    for _ in 0..2 {
        await_good(&world, PROBE, CLUSTER_IP);
        await_good(&world, "client", NODE_PORT);
        take_away_all(&world);
        world.await_failure(PROBE, CLUSTER_IP);
        agent.await_line(&["ERROR", "the programs are gone"]);
        await_good(&world, PROBE, CLUSTER_IP);
        await_good(&world, "client", NODE_PORT);
        agent.await_ready(&world);
    }
}
