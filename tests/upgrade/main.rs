//! From an earlier build to this one and back, each over what the other has left in the kernel, under traffic. `make
//! test-upgrade` builds the earlier one and names it in `FAIRLEAD_EARLIER`.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "shared with tests/it"
)]

#[path = "../it/support"]
mod support {
    pub(crate) mod agent;
    pub(crate) mod world;
}

use std::collections::BTreeSet;

use serde_json::json;
use support::{
    agent::{self, Agent},
    world::{FAIRLEAD, PROBE, World, assert_flawless},
};

/// Takeovers: to this build and back, as often.
const ROUNDS: usize = 6;
const CLUSTER_IP: &str = "http://10.96.0.20";
const NODE_PORT: &str = "http://192.168.77.2:30080";
const HOST: &str = "https://hello.example.com";
const NODE: &str = "192.168.77.2:443";
const QUESTION: &str = "dns://192.168.77.2/hello.default.svc.cluster.local";

fn earlier() -> String {
    let named =
        std::env::var("FAIRLEAD_EARLIER").expect("make test-upgrade names an earlier build");
    assert_ne!(version(&named), version(FAIRLEAD), "they are the same build");
    named
}

fn version(build: &str) -> String {
    let output = std::process::Command::new(build).arg("version").output();
    let output = output.unwrap_or_else(|error| panic!("{build}: {error}"));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// An agent of a build with pages of its own, ready.
fn start(world: &World, build: &str, round: usize, more: &[&str]) -> Agent {
    let pages = format!("127.0.0.1:{}", 10300 + round);
    let socket = world.root().join(format!("admin-{round}.sock"));
    let own = [
        format!("--healthz-listen={pages}"),
        format!("--admin-socket={}", socket.display()),
        "--metrics-listen=".to_owned(),
    ];
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let agent = agent::start(world, build, &[&own[..], more].concat());
    let url = format!("http://{pages}/readyz");
    let ready = world.load("node", &["--url", &url, "--wait-ms", "20000", "--count", "1"]);
    assert_eq!(ready.ok(), 1, "{} does not get ready:\n{}", version(build), agent.log());
    agent
}

/// Names of the maps that are pinned: each ends in the version of its layout.
fn maps(world: &World) -> BTreeSet<String> {
    let mut list = world.command("node", "ls");
    let output = list.arg(world.bpffs().join("fairlead/maps")).output().expect("ls starts");
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    names.lines().map(str::to_owned).collect()
}

/// A Service that nobody has seen before, with a pod of hello's.
fn add_service(world: &World, round: usize) -> String {
    let (name, ip) = (format!("fresh-{round}"), format!("10.96.1.{round}"));
    let pod = world.pods()[0].v4;
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-1"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [pod], "conditions": {"ready": true}, "nodeName": "node1"}]});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [service, slice]});
    world.apply(&format!("{name}.json"), &list.to_string());
    format!("http://{ip}")
}

#[test]
fn the_node_agent_is_upgraded_and_rolled_back_and_no_connection_is_lost() {
    const ROLE: [&str; 2] = ["--no-dns", "--no-ingress"];
    let earlier = earlier();
    let world = World::on_two_nodes(2, 1);
    let mut agent = start(&world, &earlier, 0, &ROLE);
    let ways: [(&str, &str, [&str; 4]); 6] = [
        ("ClusterIP", PROBE, ["--url", CLUSTER_IP, "--rate", "300"]),
        ("NodePort from outside", "client", ["--url", NODE_PORT, "--rate", "200"]),
        ("open connections by ClusterIP", PROBE, ["--url", CLUSTER_IP, "--streams", "20"]),
        ("open connections by NodePort", "client", ["--url", NODE_PORT, "--streams", "20"]),
        ("UDP by ClusterIP", PROBE, ["--url", "udp://10.96.0.20:80", "--rate", "50"]),
        ("UDP by NodePort", "client", ["--url", "udp://192.168.77.2:30080", "--rate", "50"]),
    ];
    let traffic =
        ways.into_iter().map(|(what, place, args)| (what, world.steady(place, &args))).collect();
    let mut left = [maps(&world), BTreeSet::new()];
    for round in 1..=ROUNDS {
        // Asked to end, as an upgrade does it; every third time killed.
        if round % 3 == 0 {
            agent.kill();
        } else {
            agent.terminate();
            assert!(agent.await_end().success(), "{}", agent.log());
        }
        let build = if round % 2 == 1 { FAIRLEAD } else { &earlier };
        agent = start(&world, build, round, &ROLE);
        let fresh = add_service(&world, round);
        assert_eq!(world.await_answer(PROBE, &fresh).ok(), 1, "{} takes changes", version(build));
        let own = &mut left[round % 2];
        let seen = maps(&world);
        if own.is_empty() {
            println!("{}: {seen:?}", version(build));
            *own = seen;
        } else {
            assert_eq!(seen, *own, "{} takes away what only the other one reads", version(build));
        }
    }
    assert_flawless(traffic);
}

#[test]
fn dns_and_ingress_are_upgraded_and_rolled_back_and_nothing_stays_unanswered() {
    const ROLES: [&str; 2] = ["--no-proxy", "--lameduck=1"];
    let earlier = earlier();
    let world = World::with_pods(3);
    let ca = world.root().join("ca.pem").display().to_string();
    let mut agent = start(&world, &earlier, 0, &ROLES);
    let https = ["--url", HOST, "--to", NODE, "--ca", &ca];
    let ways: [(&str, &str, Vec<&str>); 3] = [
        ("questions", "client", vec!["--url", QUESTION, "--rate", "200"]),
        ("HTTPS requests", "client", [&https[..], &["--rate", "50"]].concat()),
        ("kept connections", "client", [&https[..], &["--streams", "10"]].concat()),
    ];
    let traffic =
        ways.iter().map(|(what, place, args)| (*what, world.steady(place, args))).collect();
    for round in 1..=ROUNDS {
        let build = if round % 2 == 1 { FAIRLEAD } else { &earlier };
        // Both are there for a while, as `maxSurge: 1` has it.
        let next = start(&world, build, round, &ROLES);
        agent.terminate();
        assert!(agent.await_end().success(), "{}", agent.log());
        agent = next;
    }
    assert_flawless(traffic);
}
