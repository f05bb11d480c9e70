//! An API server that comes and goes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    support::{
        apiserver::ApiServer,
        cluster::Cluster,
        world::{PROBE, Pod, World, comes_true},
    },
    traffic::{NODE_PORT, NODE_PORT_V6, Traffic},
};

const ADDRESSES: [&str; 2] = ["10.96.0.20", "fd00:10:96::20"];
const URLS: [&str; 2] = ["http://10.96.0.20", "http://[fd00:10:96::20]"];
/// Twice each outage: an agent waits the longer for a server the more often it goes, 30 s at most.
const ROUNDS: usize = 10;
/// Twice what an agent waits before it asks a server again that has often gone.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(60);

/// As the manifests of the world have it, but for the pods: two of three, whichever are not `without`.
fn objects(world: &World, without: usize) -> Vec<Value> {
    let slice = |family: &str, address: fn(&Pod) -> String| {
        let pods = world.pods().iter().enumerate().filter(|(index, _)| *index != without % 3);
        let endpoints = pods.map(|(_, pod)| {
            json!({
                "addresses": [address(pod)], "conditions": {"ready": true}, "nodeName": pod.node,
            })
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {
                "name": format!("hello-{}", family.to_lowercase()), "namespace": "default",
                "labels": {"kubernetes.io/service-name": "hello"},
            },
            "endpoints": endpoints.collect::<Vec<Value>>(),
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
    };
    vec![
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "192.168.77.2"},
                {"type": "InternalIP", "address": "fd77::2"},
            ]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "hello", "namespace": "default"},
            "spec": {
                "type": "NodePort", "clusterIP": ADDRESSES[0], "clusterIPs": ADDRESSES,
                "ipFamilies": ["IPv4", "IPv6"],
                "ports": [{"name": "http", "port": 80, "nodePort": 30080, "targetPort": 8080}],
            },
        }),
        slice("IPv4", |pod| pod.v4.to_string()),
        slice("IPv6", |pod| pod.v6.to_string()),
    ]
}

/// Whether, of many connections in each family, two pods answer and this one does not.
fn is_followed(world: &World, gone: &str) -> bool {
    URLS.iter().all(|url| {
        let report = world.load(PROBE, &["--url", url, "--count", "40", "--rate", "800"]);
        let names = report.answered_by();
        names.len() == 2 && !names.contains(&gone)
    })
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
            ("ClusterIP", PROBE, ["--url", URLS[0], "--rate", "700"]),
            ("ClusterIP, IPv6", PROBE, ["--url", URLS[1], "--rate", "300"]),
            ("NodePort", "client", ["--url", NODE_PORT, "--rate", "700"]),
            ("NodePort, IPv6", "client", ["--url", NODE_PORT_V6, "--rate", "300"]),
            ("open connections", "client", ["--url", NODE_PORT, "--streams", "20"]),
            ("open connections, IPv6", "client", ["--url", NODE_PORT_V6, "--streams", "20"]),
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
        let is_followed = comes_true(FOLLOWED_WITHIN, || is_followed(&world, gone));
        println!("outage {round} of {ROUNDS} is over");
        assert!(is_followed, "round {round}: {gone} answers still:\n{}", agent.log());
    }
    traffic.assert_flawless();
}
