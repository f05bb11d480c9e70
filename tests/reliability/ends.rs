//! Agents that end in every way, a hundred times, under five thousand connections a second.

use crate::{
    support::{agent::Agent, world::World},
    traffic::{INSIDE, OUTSIDE, Traffic, assert_all_pods_answer, run},
};

const ROUNDS: usize = 100;

/// How an agent ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// SIGKILL while it serves.
    Killed,
    /// SIGKILL while it takes up what it found.
    KilledAtItsStart,
    /// SIGTERM.
    Asked,
    /// SIGKILL, and the next one is of a version whose Services have another layout.
    Upgraded,
}

const ENDS: [End; 4] = [End::Killed, End::KilledAtItsStart, End::Asked, End::Upgraded];
/// To the next agent these are some other version's. What connections are remembered by keeps its
/// layout, or they could not go on.
const MAPS_OF_SERVICES: [&str; 10] = [
    "frontends",
    "backends",
    "maglev",
    "service_counters",
    "service_refusals",
    "service_bytes",
    "source_ranges",
    "node_addresses",
    "settings",
    "drops",
];

fn end(agent: Agent, how: End, world: &World) {
    let mut agent = agent;
    match how {
        End::Killed => {
            agent.await_ready(world);
            agent.kill();
        }
        End::KilledAtItsStart => {
            agent.await_any_line();
            agent.kill();
        }
        End::Asked => {
            agent.await_ready(world);
            agent.terminate();
            assert!(agent.await_end().success(), "{}", agent.log());
        }
        End::Upgraded => {
            agent.await_ready(world);
            agent.kill();
            let maps = world.bpffs().join("fairlead/maps");
            let names = MAPS_OF_SERVICES.join(" ");
            let rename = "for map in \"$name\"_v*; do mv \"$map\" \"${name}_v0\"; done";
            let rename = format!("cd {}; for name in {names}; do {rename}; done", maps.display());
            run(world, "node", &rename);
        }
    }
}

#[test]
fn a_hundred_ends_of_the_agent_under_five_thousand_connections_a_second_lose_nothing() {
    let world = World::on_two_nodes(2, 2);
    let mut agent = world.agent();
    assert_all_pods_answer(&world);
    let traffic = Traffic::start(&world, INSIDE.into_iter().chain(OUTSIDE));
    for (round, how) in ENDS.into_iter().cycle().take(ROUNDS).enumerate() {
        end(agent, how, &world);
        agent = world.agent_with(&[]);
        if round % 10 == 9 {
            println!("{} of {ROUNDS} agents have ended", round + 1);
        }
    }
    agent.await_ready(&world);
    traffic.assert_flawless();
    assert_all_pods_answer(&world);
}
