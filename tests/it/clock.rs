//! Somebody sets the clock: NTP after a long time without, a hand, a machine whose battery is empty.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use jiff::{SignedDuration, Timestamp};

use super::support::{
    agent,
    world::{FAIRLEAD, PROBE, Pod, World, assert_flawless},
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

/// A Service of both families that leads to the pod.
fn service(number: usize, pod: &Pod) -> String {
    let slice = |family: &str, address: String| {
        let name = format!("later{number}-{}", family.to_lowercase());
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, \
             namespace: default, labels: {{kubernetes.io/service-name: later{number}}}}}\n\
             addressType: {family}\nports: [{{port: 8080}}]\nendpoints: [{{addresses: \
             [\"{address}\"]}}]\n"
        )
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: later{number}, namespace: default}}\n\
         spec: {{clusterIP: 10.96.1.{number}, clusterIPs: [10.96.1.{number}, \
         \"fd00:10:96::1:{number}\"], ports: [{{port: 80, targetPort: 8080}}]}}\n{}{}",
        slice("IPv4", pod.v4.to_string()),
        slice("IPv6", pod.v6.to_string())
    )
}

#[test]
fn a_clock_that_is_set_years_ahead_and_back_fails_no_connection_and_delays_no_change() {
    let world = World::with_pods(2);
    set_clock(&world, SignedDuration::ZERO);
    let agent = agent::start(&world, &with_own_clock(&world), &[]);
    agent.await_ready(&world);
    let families = [
        ("http://10.96.0.20", "http://192.168.77.2:30080", "udp://10.96.0.20:80"),
        ("http://[fd00:10:96::20]", "http://[fd77::2]:30080", "udp://[fd00:10:96::20]:80"),
    ];
    let traffic = families.map(|(cluster_ip, node_port, datagrams)| {
        let ways = [
            (cluster_ip, PROBE, ["--url", cluster_ip, "--rate", "100"]),
            (node_port, "client", ["--url", node_port, "--rate", "100"]),
            ("open connections", "client", ["--url", node_port, "--streams", "10"]),
            (datagrams, PROBE, ["--url", datagrams, "--rate", "25"]),
        ];
        ways.map(|(what, place, args)| (what, world.steady(place, &args)))
    });
    let pod = &world.pods()[0];
    for (number, years) in [(1, 10), (2, -20), (3, 0)] {
        set_clock(&world, YEAR * years);
        let health = world.page(10256, "/healthz");
        let apart = clock(&health).duration_since(Timestamp::now() + YEAR * years);
        assert!(apart.abs() < CLOSE, "its clock is not set: {health}");
        assert!(health.contains("200 OK"), "{years} years: {health}");

        world.apply(&format!("zz-later{number}.yaml"), &service(number, pod));
        for host in [format!("10.96.1.{number}"), format!("[fd00:10:96::1:{number}]")] {
            let answered = world.await_answer(PROBE, &format!("http://{host}"));
            let failures = answered.failures();
            assert_eq!(answered.ok(), 1, "{years} years: {host} {failures}\n{}", agent.log());
        }
        for page in ["/healthz", "/livez", "/readyz"] {
            let answer = world.page(10256, page);
            assert!(answer.contains("200 OK"), "{years} years: {answer}");
        }
    }
    assert_flawless(traffic.into_iter().flatten().collect());
    assert!(agent.lines_with(&["ERROR"]).is_empty(), "{}", agent.log());
}
