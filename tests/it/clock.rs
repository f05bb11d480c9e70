//! Somebody sets the clock: NTP after a long time without, a hand, a machine whose battery is empty.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use jiff::{SignedDuration, Timestamp};

use super::support::{
    agent,
    world::{FAIRLEAD, PROBE, World, assert_flawless},
};

const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);
/// What a page may take to come.
const CLOSE: SignedDuration = SignedDuration::from_secs(60);

/// The file that says by how much the agent's clock is set.
fn setting(world: &World) -> PathBuf {
    world.root().join("clock")
}

fn set_clock(world: &World, by: SignedDuration) {
    let unfinished = setting(world).with_extension("new");
    fs::write(&unfinished, by.as_secs().to_string()).expect("writable");
    fs::rename(unfinished, setting(world)).expect("writable");
}

/// A program that is the agent with a clock of its own: the machine's is everybody's.
fn with_own_clock(world: &World) -> String {
    let library = world.root().join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clock.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
    let compiled = compiler.status().expect("what links Rust is there");
    assert!(compiled.success());
    let program = world.root().join("agent");
    let script = format!(
        "#!/bin/sh\nexport LD_PRELOAD={} CLOCK_SET_BY={}\nexec {FAIRLEAD} \"$@\"\n",
        library.display(),
        setting(world).display()
    );
    fs::write(&program, script).expect("writable");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    program.display().to_string()
}

/// Where the agent's clock stands, by what it says of it.
fn clock(page: &str) -> Timestamp {
    let at = page.split("\"currentTime\": \"").nth(1).and_then(|rest| rest.split('"').next());
    at.and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("no time: {page}"))
}

fn service(number: usize, pod: std::net::Ipv4Addr) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: later{number}, namespace: default}}\n\
         spec: {{clusterIP: 10.96.1.{number}, ports: [{{port: 80, targetPort: 8080}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: later{number}-1, \
         namespace: default, labels: {{kubernetes.io/service-name: later{number}}}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{{addresses: [{pod}]}}]\n"
    )
}

#[test]
fn a_clock_that_is_set_years_ahead_and_back_fails_no_connection_and_delays_no_change() {
    let world = World::with_pods(2);
    set_clock(&world, SignedDuration::ZERO);
    let agent = agent::start(&world, &with_own_clock(&world), &[]);
    agent.await_ready(&world);
    let (cluster_ip, node_port) = ("http://10.96.0.20", "http://192.168.77.2:30080");
    let traffic = [
        ("ClusterIP", PROBE, ["--url", cluster_ip, "--rate", "200"]),
        ("NodePort", "client", ["--url", node_port, "--rate", "200"]),
        ("open connections", "client", ["--url", node_port, "--streams", "10"]),
        ("UDP", PROBE, ["--url", "udp://10.96.0.20:80", "--rate", "50"]),
    ];
    let traffic = traffic.map(|(what, place, args)| (what, world.steady(place, &args)));
    let pod = world.pods()[0].v4;
    for (number, years) in [(1, 10), (2, -20), (3, 0)] {
        set_clock(&world, YEAR * years);
        let health = world.page(10256, "/healthz");
        let apart = clock(&health).duration_since(Timestamp::now() + YEAR * years);
        assert!(apart.abs() < CLOSE, "its clock is not set: {health}");
        assert!(health.contains("200 OK"), "{years} years: {health}");

        world.apply(&format!("zz-later{number}.yaml"), &service(number, pod));
        let answered = world.await_answer(PROBE, &format!("http://10.96.1.{number}"));
        assert_eq!(answered.ok(), 1, "{years} years: {}\n{}", answered.failures(), agent.log());
        for page in ["/healthz", "/livez", "/readyz"] {
            let answer = world.page(10256, page);
            assert!(answer.contains("200 OK"), "{years} years: {answer}");
        }
    }
    assert_flawless(traffic.into());
    assert!(agent.lines_with(&["ERROR"]).is_empty(), "{}", agent.log());
}
