//! Each map of Services, full: what operators, dashboards and `kubectl describe node` are told, and who goes on.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::support::{
    agent::Agent,
    cluster::Cluster,
    world::{FAIRLEAD, PROBE, World, assert_flawless, comes_true},
};

/// A Service of both families, with a balancer's address, two ranges of clients and a table in each, has six frontends
/// (ClusterIP, its other ports, balancer), two backends, 32 parts of tables and two ranges.
const CASES: [(&str, u64); 4] =
    [("frontends", 6), ("backends", 2), ("maglev", 32), ("source-ranges", 2)];
/// Room is used as soon as it is made; missed, nothing would ever use it.
const USED_WITHIN: Duration = Duration::from_secs(20);

/// Its ClusterIPs end in `number`; its one endpoint is the world's pod.
fn service(world: &World, name: &str, number: u8) -> [Value; 3] {
    let pod = &world.pods()[0];
    let slice = |family: &str, address: String| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {
                "name": format!("{name}-{}", family.to_lowercase()), "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": pod.node}],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
    };
    let [v4, v6] = cluster_ips(number);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": "default",
            "annotations": {"fairlead.io/load-balancing": "maglev"},
        },
        "spec": {
            "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "clusterIP": v4, "clusterIPs": [v4, v6], "ipFamilies": ["IPv4", "IPv6"],
            "loadBalancerSourceRanges": ["192.168.77.0/24", "fd77::/64"],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": format!("192.0.2.{number}")}, {"ip": format!("2001:db8::{number}")},
        ]}},
    });
    [service, slice("IPv4", pod.v4.to_string()), slice("IPv6", pod.v6.to_string())]
}

fn cluster_ips(number: u8) -> [String; 2] {
    [format!("10.96.0.{number}"), format!("fd00:10:96::{number}")]
}

fn urls(number: u8) -> [String; 2] {
    let [v4, v6] = cluster_ips(number);
    [format!("http://{v4}"), format!("http://[{v6}]")]
}

/// What `fairlead status` warns of.
fn warnings(world: &World) -> String {
    let mut command = world.command("node", FAIRLEAD);
    command.args(["status", "-o", "json", "--admin-socket"]).arg(world.root().join("admin.sock"));
    let output = command.output().expect("it starts");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report["warnings"].to_string()
}

/// One gauge of the agent's.
fn metric(world: &World, name: &str) -> Option<u64> {
    let page = world.page(10249, "/metrics");
    page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn answers(world: &World, url: &str) -> bool {
    world.load(PROBE, &["--url", url, "--count", "1"]).ok() == 1
}

#[test]
fn each_full_map_is_a_metric_a_line_a_finding_and_an_event_and_concerns_the_newcomer_alone() {
    thread::scope(|scope| {
        let cases = CASES.map(|(map, room)| scope.spawn(move || assert_told(map, room)));
        for case in cases {
            case.join().expect("as it should be");
        }
    });
}

fn assert_told(map: &str, room: u64) {
    let world = World::with_pods(1);
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.77.2"}]},
    });
    let cluster = Cluster::start(&world, [node]);
    cluster.server.put_all(service(&world, "first", 1));
    let agent = agent(&world, &cluster, map, room);
    let entries = format!("fairlead_map_entries{{map=\"{map}\"}}");
    let served = urls(1).map(|url| {
        assert_eq!(world.await_answer(PROBE, &url).ok(), 1, "{map} {url}:\n{}", agent.log());
        world.steady(PROBE, &["--url", &url, "--rate", "50"])
    });
    assert_eq!(metric(&world, &entries), Some(room), "{map}: the first fills it");
    assert_eq!(metric(&world, "fairlead_proxy_services_behind"), Some(0), "{map}");
    assert!(agent.lines_with(&["is full"]).is_empty(), "{map}:\n{}", agent.log());

    cluster.server.put_all(service(&world, "newcomer", 2));
    let full = format!(
        "{map} holds {room} entries and is full; services not served in full: 1; raise --{map}-max"
    );
    agent.await_line(&["ERROR", &full]);
    assert_eq!(metric(&world, "fairlead_proxy_services_behind"), Some(1), "{map}");
    for name in ["entries", "entries_max"] {
        let gauge = format!("fairlead_map_{name}{{map=\"{map}\"}}");
        assert_eq!(metric(&world, &gauge), Some(room), "{map}");
    }
    let warnings_now = warnings(&world);
    assert!(warnings_now.contains(&full), "{map}: {warnings_now}");
    let events = cluster.await_all("events", |all| all.iter().any(is_of_full_map));
    let events: Vec<&Value> = events.iter().filter(|event| is_of_full_map(event)).collect();
    let [event] = events[..] else { panic!("{map}: one for the map: {events:?}") };
    assert_eq!((&event["type"], &event["regarding"]["kind"]), (&json!("Warning"), &json!("Node")));
    assert_eq!(event["regarding"]["name"], "node1", "{event}");
    let note = format!("{map} holds {room} entries and is full: raise --{map}-max");
    assert_eq!(event["note"], note, "{event}");
    for url in urls(2) {
        assert!(!answers(&world, &url), "{map}: {url} is served, and there is no room for it");
    }
    let what = "the first Service, while another finds no room";
    assert_flawless(served.map(|steady| (what, steady)).into());

    cluster.server.delete("Service", "default", "first");
    for url in urls(2) {
        let is_served = comes_true(USED_WITHIN, || answers(&world, &url));
        assert!(is_served, "{map}: {url} is not served when there is room:\n{}", agent.log());
    }
    // Told once all of the pass is written.
    let behind = || metric(&world, "fairlead_proxy_services_behind");
    assert!(comes_true(USED_WITHIN, || behind() == Some(0)), "{map}: {:?} behind", behind());
    assert!(comes_true(USED_WITHIN, || warnings(&world) == "[]"), "{map}: {}", warnings(&world));
}

fn agent(world: &World, cluster: &Cluster, map: &str, room: u64) -> Agent {
    let (max, socket) = (format!("--{map}-max={room}"), world.root().join("admin.sock"));
    let socket = format!("--admin-socket={}", socket.display());
    let flags = ["--no-dns", "--no-ingress", "--service-events", &max, &socket];
    let agent = cluster.agent(world, &flags);
    agent.await_ready(world);
    agent
}

fn is_of_full_map(event: &Value) -> bool {
    event["reason"] == "ServiceMapFull"
}
