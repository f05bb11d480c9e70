//! The Ingress process is replaced on its node, as a rolling update or a crash does it.

use std::path::PathBuf;

use super::support::{
    agent::Agent,
    certificate::{Certificate, HOST},
    world::World,
};

/// Replacements.
const ROUNDS: u16 = 4;

/// A certificate for the host in the world's manifests; returns what clients are to trust.
fn certificate(world: &World) -> PathBuf {
    let file = world.root().join("hello-ca.pem");
    std::fs::write(&file, Certificate::apply(world).chain).expect("writable");
    file
}

/// An agent with this role alone, ready. Its pages are its own; the addresses it serves are not.
fn ingress(world: &World, generation: u16) -> Agent {
    let pages = format!("127.0.0.1:{}", 10300 + generation);
    let healthz = format!("--healthz-listen={pages}");
    let more = ["--no-proxy", "--no-dns", &healthz, "--metrics-listen="];
    let agent = world.agent_with(&more);
    let url = format!("http://{pages}/readyz");
    let report = world.load("node", &["--url", &url, "--wait-ms", "20000", "--count", "1"]);
    assert_eq!(report.ok(), 1, "it does not get ready:\n{}", agent.log());
    agent
}

#[test]
fn replaced_by_another_process_under_load_it_refuses_and_resets_nothing() {
    let world = World::with_pods(2);
    let ca = certificate(&world);
    let ca = ca.to_str().expect("a path");
    let mut agent = ingress(&world, 0);
    let (http, https) = (format!("http://{HOST}"), format!("https://{HOST}"));
    let plain = |to| ["--url", &http, "--to", to, "--expect", "308"];
    let tls = |to| ["--url", &https, "--to", to, "--ca", ca];
    let (v4, v6) = ("192.168.77.2:443", "[fd77::2]:443");
    let traffic = [
        ("new, HTTP", [&plain("192.168.77.2:80")[..], &["--rate", "200"]]),
        ("new, HTTPS", [&tls(v4)[..], &["--rate", "50"]]),
        ("new, HTTPS by IPv6", [&tls(v6)[..], &["--rate", "50"]]),
        ("kept, HTTPS", [&tls(v4)[..], &["--streams", "20"]]),
    ];
    let traffic = traffic.map(|(what, args)| (what, world.steady("client", &args.concat())));
    for generation in 1..=ROUNDS {
        let next = ingress(&world, generation);
        agent.terminate();
        assert!(agent.await_end().success(), "{}", agent.log());
        agent = next;
    }
    for (what, steady) in traffic {
        let report = steady.stop();
        assert!(report.ok() > 0, "{what}");
        // Slow is a busy machine; refused, reset, closed would be ours.
        let kinds: Vec<_> = report.kinds().into_iter().filter(|kind| *kind != "timeout").collect();
        assert!(kinds.is_empty(), "{what}: {kinds:?}: {}", report.failures());
    }
    agent.await_line(&["taken over from"]);
}

#[test]
fn after_kill_9_with_connections_open_its_addresses_can_be_taken_at_once() {
    let world = World::with_pods(1);
    let ca = certificate(&world);
    let https = format!("https://{HOST}");
    let to = ["--to", "192.168.77.2:443", "--ca", ca.to_str().expect("a path")];
    let call = |more: [&'static str; 2]| [&["--url", &https][..], &to, &more].concat();
    let args = call(["--streams", "20"]);
    for generation in 0..3 {
        let agent = ingress(&world, generation);
        let steady = world.steady("client", &args);
        assert_eq!(world.load("client", &call(["--count", "50"])).ok(), 50, "{}", agent.log());
        agent.kill();
        steady.stop();
    }
    let agent = ingress(&world, 3);
    assert_eq!(world.load("client", &call(["--count", "1"])).ok(), 1, "{}", agent.log());
    assert!(agent.lines_with(&["ERROR"]).is_empty(), "{}", agent.log());
}
