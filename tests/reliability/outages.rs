//! An API server that comes and goes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    support::{
        apiserver::ApiServer,
        cluster::Cluster,
        world::{PROBE, World, comes_true},
    },
    traffic::Traffic,
};

const ADDRESS: &str = "10.96.0.20";
/// Twice each outage: an agent waits the longer for a server the more often it goes, 30 s at most.
const ROUNDS: usize = 10;
/// Twice what an agent waits before it asks a server again that has often gone.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(60);

/// As the manifests of the world have it, but for the pods: two of three, whichever are not `without`.
fn objects(world: &World, without: usize) -> Vec<Value> {
    let pods = world.pods().iter().enumerate().filter(|(index, _)| *index != without % 3);
    let endpoints: Vec<Value> = pods
        .map(|(_, pod)| {
            json!({"addresses": [pod.v4], "conditions": {"ready": true}, "nodeName": pod.node})
        })
        .collect();
    vec![
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.77.2"}]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "hello", "namespace": "default"},
            "spec": {
                "type": "NodePort", "clusterIP": ADDRESS, "clusterIPs": [ADDRESS],
                "ports": [{"name": "http", "port": 80, "nodePort": 30080, "targetPort": 8080}],
            },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "hello-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "hello"},
            },
            "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }),
    ]
}

/// Which pods answer, of many connections.
fn answering(world: &World) -> Vec<String> {
    let url = format!("http://{ADDRESS}");
    let report = world.load(PROBE, &["--url", &url, "--count", "40", "--rate", "800"]);
    report.answered_by().into_iter().map(str::to_owned).collect()
}

/// Each round another outage, and other endpoints when the server is back: all of them are followed,
/// and no connection notices.
#[test]
fn an_api_server_that_flaps_fails_no_connection_and_nothing_it_says_is_missed() {
    let world = World::on_two_nodes(2, 1);
    let cluster = Cluster::start(&world, objects(&world, 0));
    let agent = cluster.agent(&world, &[]);
    agent.await_ready(&world);
    let traffic = Traffic::start(
        &world,
        [
            ("ClusterIP", PROBE, ["--url", "http://10.96.0.20", "--rate", "1000"]),
            ("NodePort", "client", ["--url", "http://192.168.77.2:30080", "--rate", "1000"]),
            (
                "open connections",
                "client",
                ["--url", "http://192.168.77.2:30080", "--streams", "20"],
            ),
        ],
    );
    for round in 1..=ROUNDS {
        match round % 5 {
            0 => cluster.server.disconnect_all(),
            1 => cluster.server.end_watches(),
            2 => {
                cluster.server.answer_with(Some(503));
                cluster.server.end_watches();
            }
            // Its place in history is gone: 410, and a list that replaces all.
            3 => {
                cluster.on_the_node(ApiServer::pause);
                cluster.server.compact();
            }
            _ => cluster.on_the_node(ApiServer::pause),
        }
        cluster.server.put_all(objects(&world, round));
        cluster.server.answer_with(None);
        cluster.on_the_node(ApiServer::resume);
        let gone = &world.pods()[round % 3].name;
        let is_followed = comes_true(FOLLOWED_WITHIN, || {
            let names = answering(&world);
            names.len() == 2 && !names.contains(gone)
        });
        println!("outage {round} of {ROUNDS} is over");
        assert!(is_followed, "round {round}: {gone} answers still:\n{}", agent.log());
    }
    traffic.assert_flawless();
}
