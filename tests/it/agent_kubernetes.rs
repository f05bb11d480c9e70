//! The real agent in a world, against a list/watch server: what the API server says reaches
//! packets.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{
    agent::Agent,
    apiserver::ApiServer,
    cluster::Cluster,
    world::{PROBE, World, comes_true},
};

/// An agent asks a server that has gone again within so long.
const PATIENCE: Duration = Duration::from_secs(30);
const ADDRESS: &str = "10.96.0.77";
const URL: &str = "http://10.96.0.77";

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ADDRESS,
            "clusterIPs": [ADDRESS],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    })
}

fn slice(world: &World, pods: &[usize]) -> Value {
    let endpoint = |&index: &usize| {
        let pod = &world.pods()[index];
        json!({"addresses": [pod.v4], "conditions": {"ready": true}, "nodeName": "node1"})
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

fn node() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.77.2"}]},
    })
}

/// Waits until connections fail in exactly these ways.
fn await_kinds(world: &World, agent: &Agent, kinds: &[&str]) {
    let seen = || world.load(PROBE, &["--url", URL, "--count", "5", "--rate", "400"]);
    let settled = comes_true(PATIENCE, || {
        let report = seen();
        report.ok() == 0 && report.kinds() == kinds
    });
    assert!(settled, "connections never fail as {kinds:?}:\n{}", agent.log());
}

/// Waits until connections are answered by exactly this pod.
fn await_pod(world: &World, agent: &Agent, index: usize) {
    let wanted = world.pods()[index].name.as_str();
    let seen = || world.load(PROBE, &["--url", URL, "--count", "20", "--rate", "400"]);
    let settled = comes_true(PATIENCE, || seen().answered_by() == [wanted]);
    assert!(settled, "{wanted} never answers alone:\n{}", agent.log());
}

#[test]
fn a_service_of_the_api_server_is_reached_and_follows_its_endpoints() {
    let world = World::with_pods(2);
    let cluster = Cluster::start(&world, [node()]);
    let agent = cluster.agent(&world, &[]);
    agent.await_ready(&world);
    cluster.server.put(service());
    cluster.server.put(slice(&world, &[0]));
    await_pod(&world, &agent, 0);
    cluster.server.put(slice(&world, &[1]));
    await_pod(&world, &agent, 1);
    cluster.server.put(slice(&world, &[]));
    await_kinds(&world, &agent, &["refused"]);
}

#[test]
fn outages_of_the_api_server_fail_no_connection_and_what_was_missed_is_caught_up() {
    let world = World::with_pods(2);
    let cluster = Cluster::start(&world, [node()]);
    cluster.server.put_all([service(), slice(&world, &[0])]);
    let agent = cluster.agent(&world, &[]);
    agent.await_ready(&world);
    await_pod(&world, &agent, 0);
    let steady = world.steady(PROBE, &["--url", URL, "--rate", "300"]);

    cluster.server.disconnect_all();
    cluster.server.put(slice(&world, &[1]));
    await_pod(&world, &agent, 1);

    // Its place in history is gone when the server is back: 410, and a list that replaces all.
    cluster.on_the_node(ApiServer::pause);
    cluster.server.put(slice(&world, &[0]));
    cluster.server.compact();
    assert_eq!(world.await_answer(PROBE, URL).ok(), 1, "without a server the last state serves");
    cluster.on_the_node(ApiServer::resume);
    await_pod(&world, &agent, 0);
    steady.stop().assert_flawless("steady traffic");
}

#[test]
fn a_node_that_the_server_knows_no_more_gets_no_traffic_and_where_nobody_asks_for_nodes_none_is_missed()
 {
    let world = World::with_pods(1);
    let cluster = Cluster::start(&world, [node()]);
    let await_health = |agent: &Agent, parts: [&str; 2]| {
        let mut last = String::new();
        let settled = comes_true(PATIENCE, || {
            last = world.page(10256, "/healthz");
            parts.iter().all(|part| last.contains(part))
        });
        assert!(settled, "never {parts:?}: {last}\n{}", agent.log());
    };
    let eligible = ["200 OK", "\"nodeEligible\": true"];
    let agent = cluster.agent(&world, &[]);
    agent.await_ready(&world);
    await_health(&agent, eligible);
    cluster.server.delete("Node", "", "node1");
    await_health(&agent, ["503 Service Unavailable", "\"nodeEligible\": false"]);
    assert!(world.page(10256, "/livez").contains("200 OK"), "its proxy goes on");
    cluster.server.put(node());
    await_health(&agent, eligible);
    agent.kill();
    cluster.server.delete("Node", "", "node1");
    let agent = cluster.agent(&world, &["--no-proxy", "--no-ingress"]);
    agent.await_ready(&world);
    await_health(&agent, eligible);
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    let world = World::with_pods(1);
    let cluster = Cluster::start(&world, [node()]);
    cluster.server.put_all([service(), slice(&world, &[0])]);
    cluster.on_the_node(ApiServer::pause);
    let agent = cluster.agent(&world, &[]);
    agent.await_line(&["WARN", "API server"]);
    agent.await_line(&["DNS: answering"]);
    let name = "dns://127.0.0.1/web.default.svc.cluster.local";
    let asked = world.load("node", &["--url", name, "--count", "3"]);
    assert_eq!(asked.kinds(), ["rcode"], "SERVFAIL: nothing is denied before it is known");
    cluster.on_the_node(ApiServer::resume);
    agent.await_ready(&world);
    await_pod(&world, &agent, 0);
    cluster.on_the_node(ApiServer::pause);
    assert_eq!(world.await_answer("node", name).ok(), 1, "and answered without a server");
}

#[test]
fn a_young_pods_name_is_answered_within_a_second_though_it_was_asked_for_too_early() {
    // What was denied once stayed denied for 30 s (kubernetes#92559).
    let world = World::with_pods(1);
    let mut headless = service();
    headless["spec"]["clusterIP"] = json!("None");
    headless["spec"]["clusterIPs"] = json!(["None"]);
    let cluster = Cluster::start(&world, [node(), headless]);
    let agent = cluster.agent(&world, &[]);
    agent.await_ready(&world);
    for turn in 0..3 {
        let host = format!("web-{turn}");
        let name = format!("dns://127.0.0.1/{host}.web.default.svc.cluster.local");
        let early = world.load("node", &["--url", &name, "--count", "3"]);
        assert_eq!(early.kinds(), ["nxdomain"], "{host} is not there yet");
        let mut young = slice(&world, &[0]);
        young["endpoints"][0]["hostname"] = json!(host);
        cluster.server.put(young);
        let found = world.load("node", &["--url", &name, "--wait-ms", "1000", "--count", "1"]);
        assert_eq!(found.ok(), 1, "{host}:\n{}", agent.log());
    }
}

#[test]
fn killed_while_the_server_is_away_the_agent_leaves_services_as_they_were() {
    let world = World::with_pods(1);
    let cluster = Cluster::start(&world, [node()]);
    cluster.server.put_all([service(), slice(&world, &[0])]);
    let agent = cluster.agent(&world, &[]);
    agent.await_ready(&world);
    await_pod(&world, &agent, 0);
    cluster.on_the_node(ApiServer::pause);
    agent.kill();
    let agent = cluster.agent(&world, &[]);
    // It has adopted what it found and knows nothing: nothing may be swept.
    agent.await_line(&["WARN", "API server"]);
    await_pod(&world, &agent, 0);
}

#[test]
fn services_not_served_as_they_ask_are_events_and_so_is_the_node_that_begins() {
    let world = World::with_pods(1);
    let mut open = service();
    open["metadata"]["uid"] = json!("uid-web");
    open["spec"]["externalIPs"] = json!(["192.0.2.7"]);
    let cluster = Cluster::start(&world, [node(), open, slice(&world, &[0])]);
    let agent = cluster.agent(&world, &["--service-events"]);
    let said = |all: &[Value], about: &str, reason: &str| {
        let fits =
            |event: &&Value| event["regarding"]["name"] == about && event["reason"] == reason;
        all.iter().find(fits).cloned()
    };
    let events = cluster.await_all("events", |all| {
        said(all, "web", "ExternalIPs").is_some() && said(all, "node1", "Starting").is_some()
    });
    let of_service = said(&events, "web", "ExternalIPs").expect("awaited");
    assert_eq!(of_service["type"], "Warning", "{of_service}");
    assert_eq!(of_service["metadata"]["namespace"], "default");
    assert_eq!(of_service["regarding"]["uid"], "uid-web", "kubectl describe looks for it");
    assert!(of_service["note"].as_str().is_some_and(|note| note.contains("--external-ips")));
    let of_node = said(&events, "node1", "Starting").expect("awaited");
    assert_eq!(
        (&of_node["type"], &of_node["metadata"]["namespace"]),
        (&json!("Normal"), &json!("default"))
    );
    assert_eq!(of_node["regarding"]["namespace"], Value::Null, "a Node has none: {of_node}");
    assert!(agent.lines_with(&["writing an Event"]).is_empty(), "{}", agent.log());
}
