//! A start while no API server answers: names of the last run.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{
    agent::Agent,
    apiserver::ApiServer,
    cluster::Cluster,
    world::{FAIRLEAD, World, comes_true},
};

const PATIENCE: Duration = Duration::from_secs(30);
/// What `fairlead_state::kept` writes.
const KEPT: &str = "names";

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.77",
            "clusterIPs": ["10.96.0.77"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    })
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
}

fn question(service: &str) -> String {
    format!("dns://127.0.0.1/{service}.default.svc.cluster.local")
}

fn is_stale(world: &World) -> bool {
    let metrics = world.page(10249, "/metrics");
    let line = metrics.lines().find(|line| line.starts_with("fairlead_dns_names_stale "));
    match line {
        Some("fairlead_dns_names_stale 1") => true,
        Some("fairlead_dns_names_stale 0") => false,
        other => panic!("{other:?} in {metrics}"),
    }
}

fn flags(world: &World) -> Vec<String> {
    let state = world.root().join("state").display().to_string();
    let socket = world.root().join("admin.sock").display().to_string();
    let flags = ["--no-proxy", "--no-ingress", "--state-dir", &state, "--admin-socket", &socket];
    flags.map(str::to_owned).to_vec()
}

fn agent(cluster: &Cluster, world: &World) -> Agent {
    let flags = flags(world);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    cluster.agent(world, &flags)
}

fn status(world: &World) -> String {
    let mut command = world.command("node", FAIRLEAD);
    command.args(["status", "--admin-socket"]).arg(world.root().join("admin.sock"));
    let output = command.output().expect("it starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A run that has read names and is gone, and the API server with it.
fn after_a_run(world: &World) -> Cluster {
    let cluster = Cluster::start(world, [namespace(), service("web")]);
    let agent = agent(&cluster, world);
    agent.await_ready(world);
    assert!(!is_stale(world), "they are read");
    let kept = world.root().join("state").join(KEPT);
    assert!(comes_true(PATIENCE, || kept.exists()), "names are kept:\n{}", agent.log());
    agent.kill();
    cluster.on_the_node(ApiServer::pause);
    cluster.server.delete("Service", "default", "web");
    cluster.server.put(service("young"));
    cluster
}

/// Waits until names are those of now.
fn await_present(world: &World, agent: &Agent) {
    agent.await_ready(world);
    let young = world.await_answer("node", &question("young"));
    assert_eq!(young.ok(), 1, "{}", agent.log());
    let past = world.load("node", &["--url", &question("web"), "--count", "1"]);
    assert_eq!(past.kinds(), ["nxdomain"], "{}", agent.log());
    assert!(!is_stale(world), "{}", agent.log());
}

#[test]
fn without_an_api_server_names_of_the_last_run_are_answered_and_marked_stale() {
    let world = World::with_pods(0);
    let cluster = after_a_run(&world);
    let agent = agent(&cluster, &world);
    agent.await_line(&["WARN", "names of the last run stand in"]);
    assert_eq!(world.await_answer("node", &question("web")).ok(), 1, "{}", agent.log());
    assert!(is_stale(&world), "{}", agent.log());
    let said = status(&world);
    assert!(said.contains("names of its last run"), "{said}");
    // Nobody may be led here while others know better; whoever asks here all the same is answered.
    let ready = world.page(10256, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("dns: starting"), "{ready}");
    // And nothing restarts it for that.
    let lives = world.page(10256, "/livez");
    assert!(lives.starts_with("HTTP/1.1 200"), "{lives}");

    cluster.on_the_node(ApiServer::resume);
    await_present(&world, &agent);
    assert!(!status(&world).contains("names of its last run"));
}

#[test]
fn without_an_api_server_and_a_last_run_nothing_is_denied() {
    let world = World::with_pods(0);
    let cluster = after_a_run(&world);
    std::fs::remove_file(world.root().join("state").join(KEPT)).expect("it is there");
    let agent = agent(&cluster, &world);
    agent.await_line(&["WARN", "API server"]);
    agent.await_line(&["DNS: answering"]);
    for name in ["web", "young"] {
        let asked = world.load("node", &["--url", &question(name), "--count", "1"]);
        assert_eq!(asked.kinds(), ["rcode"], "SERVFAIL: {}", agent.log());
    }
    assert!(!is_stale(&world));
    cluster.on_the_node(ApiServer::resume);
    await_present(&world, &agent);
}
