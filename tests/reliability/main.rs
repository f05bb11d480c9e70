//! Agents that end in every way, a hundred times, under five thousand connections a second: minutes of work, so apart from
//! `make test` (`make test-reliability`).
#![allow(unreachable_pub, dead_code, clippy::expect_used, reason = "shared with tests/it")]
#![expect(clippy::print_stdout, reason = "long work shows how far it is")]

#[path = "../it/support"]
mod support {
    pub(crate) mod agent;
    pub(crate) mod world;
}

use support::{
    agent::Agent,
    world::{PROBE, Report, Steady, World},
};

const ROUNDS: usize = 100;
const CLUSTER_IP: &str = "http://10.96.0.20";
const NODE_PORT: &str = "http://192.168.77.2:30080";

/// How an agent ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// SIGKILL while it serves.
    Killed,
    /// SIGKILL while it takes up what it found.
    KilledAtItsStart,
    /// SIGTERM.
    Asked,
}

const ENDS: [End; 3] = [End::Killed, End::KilledAtItsStart, End::Asked];

fn traffic(world: &World) -> Vec<(&'static str, Steady)> {
    let ways: [(&str, &str, [&str; 4]); 6] = [
        ("ClusterIP", PROBE, ["--url", CLUSTER_IP, "--rate", "3000"]),
        ("NodePort from outside", "client", ["--url", NODE_PORT, "--rate", "2000"]),
        ("open connections by ClusterIP", PROBE, ["--url", CLUSTER_IP, "--streams", "50"]),
        ("open connections by NodePort", "client", ["--url", NODE_PORT, "--streams", "50"]),
        ("UDP by ClusterIP", PROBE, ["--url", "udp://10.96.0.20:80", "--rate", "200"]),
        ("UDP by NodePort", "client", ["--url", "udp://192.168.77.2:30080", "--rate", "200"]),
    ];
    ways.into_iter().map(|(what, place, args)| (what, world.steady(place, &args))).collect()
}

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
    }
}

#[test]
fn a_hundred_ends_of_the_agent_under_five_thousand_connections_a_second_lose_nothing() {
    let world = World::with_pods(3);
    let mut agent = world.agent();
    let traffic = traffic(&world);
    for (round, how) in ENDS.into_iter().cycle().take(ROUNDS).enumerate() {
        end(agent, how, &world);
        agent = world.agent_with(&[]);
        if round % 10 == 9 {
            println!("{} of {ROUNDS} agents have ended", round + 1);
        }
    }
    agent.await_ready(&world);
    let reports: Vec<(&str, Report)> =
        traffic.into_iter().map(|(what, steady)| (what, steady.stop())).collect();
    for (what, report) in &reports {
        println!(
            "{what}: {} good, {} failed, {} broken",
            report.ok(),
            report.failed(),
            report.broken()
        );
    }
    for (what, report) in reports {
        report.assert_flawless(what);
    }
}
