//! Endpoints that change without a pause, as in a cluster that rolls everything out at once.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use fairlead_proxy::{plan::NodeView, text};
use fairlead_state::source::directory;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    support::{
        apiserver::ApiServer,
        cluster::Cluster,
        world::{FAIRLEAD, PROBE, World, comes_true},
    },
    traffic::Traffic,
};

/// Of both families each.
const SERVICES: u32 = 2_000;
const CHANGES_A_SECOND: u32 = 1_000;
const CHANGES: u32 = 10 * CHANGES_A_SECOND;
/// Of the changes a second that were asked for, the share without which nothing is proved.
const PACE_MIN: f64 = 0.8;
/// What the slowest change may take until packets follow it, the test's own client included.
const LAG_MAX: Duration = Duration::from_secs(2);
/// Of a hundred changes so many are in force within a second of their trigger, by the agent's own account.
const IN_TIME_MIN_PERCENT: f64 = 99.0;
const ADDRESSES: [(&str, &str); 2] = [("IPv4", "10.96.0.20"), ("IPv6", "fd00:10:96::20")];
const URLS: [&str; 2] = ["http://10.96.0.20", "http://[fd00:10:96::20]"];

/// A Service of both families, without NodePorts.
fn service(name: &str, cluster_ips: &[String; 2]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": cluster_ips[0], "clusterIPs": cluster_ips, "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    })
}

fn slice(of: &str, family: &str, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {
            "name": format!("{of}-{}", family.to_lowercase()), "namespace": "default",
            "labels": {"kubernetes.io/service-name": of},
            "annotations": {
                "endpoints.kubernetes.io/last-change-trigger-time": Timestamp::now().to_string(),
            },
        },
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

/// The slice that change number `n` concerns, as it is then: one to three endpoints at other addresses, some of which
/// terminate.
fn change(n: u32) -> Value {
    let (number, family) = (n % SERVICES, ADDRESSES[(n / SERVICES % 2) as usize].0);
    let endpoint = |nth: u32| {
        let [_, high, middle, low] = (n * 4 + nth).to_be_bytes();
        let address = match family {
            "IPv4" => format!("10.{}.{middle}.{low}", 128 + u16::from(high)),
            _ => format!("fd00:20::{high:x}:{middle:x}:{low:x}"),
        };
        let terminates = (n + nth).is_multiple_of(3);
        json!({
            "addresses": [address], "nodeName": format!("node{}", 1 + nth),
            "conditions": {"ready": !terminates, "serving": true, "terminating": terminates},
        })
    };
    let endpoints: Vec<Value> = (0..=n % 3).map(endpoint).collect();
    slice(&format!("churn-{number}"), family, &endpoints)
}

/// The Service whose packets are looked at leads to one pod, in both families.
fn lead(world: &World, pod: usize) -> Vec<Value> {
    let pod = &world.pods()[pod];
    let endpoint = |address: String| {
        [json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": pod.node})]
    };
    let [v4, v6] = [pod.v4.to_string(), pod.v6.to_string()].map(endpoint);
    vec![slice("hello", "IPv4", &v4), slice("hello", "IPv6", &v6)]
}

/// Changes at an even pace; how many a second there were.
fn churn(server: &ApiServer) -> f64 {
    let begun = Instant::now();
    for n in 0..CHANGES {
        let due = Duration::from_secs(1) * n / CHANGES_A_SECOND;
        while let Some(left) = due.checked_sub(begun.elapsed()) {
            thread::park_timeout(left);
        }
        server.put(change(n));
    }
    f64::from(CHANGES) / begun.elapsed().as_secs_f64()
}

/// Leads to one pod after the other and looks for it at once, until `is_over`; how long each took.
fn lags(world: &World, server: &ApiServer, is_over: impl Fn() -> bool) -> Vec<Duration> {
    let mut lags = vec![];
    while !is_over() {
        let pod = lags.len() % 2;
        let name = world.pods()[pod].name.as_str();
        let begun = Instant::now();
        server.put_all(lead(world, pod));
        for url in URLS {
            let follows =
                || world.load(PROBE, &["--url", url, "--count", "1"]).answered_by() == [name];
            assert!(comes_true(LAG_MAX * 5, follows), "{url} does not lead to {name}");
        }
        lags.push(begun.elapsed());
    }
    lags
}

/// What the objects ask for, planned from scratch.
fn planned(world: &World, cluster: &Cluster) -> String {
    let kinds = ["nodes", "services", "endpointslices"];
    let objects = kinds.iter().flat_map(|kind| cluster.await_all(kind, |_| true));
    let documents: Vec<String> = objects.map(|object| object.to_string()).collect();
    let file = world.root().join("all.yaml");
    fs::write(&file, documents.join("\n---\n")).expect("writable");
    let loaded = directory::load(&[file], None, [].into()).expect("readable");
    assert_eq!(loaded.problems, Vec::<String>::new());
    text::plan_text(&loaded.snapshot, &NodeView::new("node1", &loaded.snapshot))
}

/// What the kernel's maps hold.
fn held(world: &World) -> String {
    let mut dump = world.command("node", FAIRLEAD);
    let output = dump.arg("dump").arg("--bpffs").arg(world.bpffs()).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The first line of which there is another.
fn first_difference(planned: &str, held: &str) -> String {
    let pairs = planned.lines().zip(held.lines());
    let differ = pairs.into_iter().find(|(planned, held)| planned != held);
    let lines = (planned.lines().count(), held.lines().count());
    format!("{differ:?}, lines: {lines:?}")
}

/// Changes whose trigger the agent has measured from, and those in force within a second of it; of both families.
fn measured(world: &World) -> [f64; 2] {
    let page = world.page(10249, "/metrics");
    let sum = |part: &str| {
        let name = "kubeproxy_network_programming_duration_seconds_bucket{";
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(part));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    [sum("le=\"+Inf\""), sum("le=\"1\"")]
}

#[test]
fn a_thousand_changes_a_second_are_followed_at_once_and_all_of_them() {
    let world = World::with_pods(2);
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.77.2"}]},
    });
    let cluster = Cluster::start(&world, [node]);
    let all = (0..SERVICES).map(|n| {
        let [.., high, low] = n.to_be_bytes();
        let ips = [format!("10.97.{high}.{low}"), format!("fd00:10:97::{n:x}")];
        service(&format!("churn-{n}"), &ips)
    });
    let hello = service("hello", &ADDRESSES.map(|(_, address)| address.to_owned()));
    cluster.server.put_all(all.chain([hello]).chain(lead(&world, 0)));
    let agent = cluster.agent(&world, &["--no-dns", "--no-ingress"]);
    agent.await_ready(&world);
    // Open connections stay where they are, whoever the Service leads to next.
    let traffic = Traffic::start(
        &world,
        [
            ("connections", PROBE, ["--url", URLS[0], "--rate", "200"]),
            ("connections, IPv6", PROBE, ["--url", URLS[1], "--rate", "200"]),
            ("open connections", PROBE, ["--url", URLS[0], "--streams", "20"]),
            ("open connections, IPv6", PROBE, ["--url", URLS[1], "--streams", "20"]),
        ],
    );
    let (pace, lags) = thread::scope(|scope| {
        let churning = scope.spawn(|| churn(&cluster.server));
        let lags = lags(&world, &cluster.server, || churning.is_finished());
        (churning.join().expect("no panic"), lags)
    });
    // Before they are compared: the plan takes its time, too.
    let (done, at_once) = (Instant::now(), held(&world));
    let looked_after = done.elapsed();
    let planned = planned(&world, &cluster);
    let was_complete = at_once.lines().eq(planned.lines());
    let is_complete =
        was_complete || comes_true(LAG_MAX, || held(&world).lines().eq(planned.lines()));
    let slowest = lags.iter().max().copied().unwrap_or_default();
    let [triggers, in_time] = measured(&world);
    println!(
        "{pace:.0} changes a second; of {} that were looked for the slowest took {slowest:.1?}; maps \
         complete when looked at, {looked_after:.1?} after the last: {was_complete}; {in_time} of \
         {triggers} within a second",
        lags.len()
    );
    assert!(
        is_complete,
        "the maps are not as the objects: {}",
        first_difference(&planned, &held(&world))
    );
    assert!(pace >= f64::from(CHANGES_A_SECOND) * PACE_MIN, "only {pace:.0} a second");
    assert!(lags.len() >= 5 && slowest <= LAG_MAX, "{lags:?}");
    assert!(triggers >= f64::from(SERVICES), "{triggers} were measured");
    assert!(in_time * 100.0 >= triggers * IN_TIME_MIN_PERCENT, "{in_time} of {triggers} in time");
    traffic.assert_flawless();
    assert!(agent.lines_with(&["ERROR"]).is_empty(), "{}", agent.log());
}
