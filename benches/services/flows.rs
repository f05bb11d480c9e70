//! What goes through once it is set up: short connections, datagrams and bulk data, by ClusterIP and by NodePort.

use std::{
    io::Read as _,
    net::SocketAddr,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    exchanges::{self, Way},
    kube_proxy::{KubeProxy, Mode},
    nodeport, objects,
    report::Row,
    subject,
    world::World,
};

pub const SCALE: u64 = 10_000;
const ROUNDS: usize = 5;
const BULK_SECONDS: u32 = 3;
/// A Service of its own: TCP and UDP, and a NodePort for each.
const CLUSTER_IP: &str = "10.96.255.1";
const NODE_IP: &str = "10.1.0.1";
const NODE_PORT: u16 = 30_080;
const BULK_NODE_PORT: u16 = 30_081;
const BULK_PORT: u16 = 9100;

pub struct Lane<'w> {
    pub subject: &'static str,
    pub world: &'w World,
    bulk: SocketAddr,
    /// Where small packets go, from outside too.
    pub packets: SocketAddr,
}

/// Rows for 10,000 Services, the ways taking turns.
pub fn measure(rows: &mut Vec<Row>) {
    let worlds = [World::new(), World::new(), World::new(), World::new()];
    let [_, ours, nft, ipt] = &worlds;
    let all = || objects::services(SCALE).into_iter().chain(service()).collect();
    let agent = subject::Agent::start(ours, &subject::serve(ours, all()));
    let nft_proxy = KubeProxy::start(nft, &subject::serve(nft, all()), Mode::Nftables);
    let ipt_proxy = KubeProxy::start(ipt, &subject::serve(ipt, all()), Mode::Iptables);
    let subjects = ["no-proxy", "fairlead", Mode::Nftables.subject(), Mode::Iptables.subject()];
    let answers = exchanges::start_server(&worlds);
    exchanges::measure(&exchanges::INSIDE, &ways_inside(&worlds), rows);
    let outside: Vec<Way<'_>> = subjects.into_iter().zip(&worlds).map(way_outside).collect();
    exchanges::measure(&exchanges::OUTSIDE, &outside, rows);
    // It spins.
    drop(answers);
    let lanes: Vec<Lane<'_>> =
        subjects.into_iter().zip(&worlds).map(|(subject, world)| lane(subject, world)).collect();
    nodeport::measure(&lanes, rows);
    bulk(&lanes, rows);
    drop((agent, nft_proxy, ipt_proxy));
}

/// To the endpoint itself where there is no proxy.
fn target(subject: &str, ip: &str, port: u16, bare_port: u16) -> SocketAddr {
    let (ip, port) = if subject == "no-proxy" { (objects::SERVER, bare_port) } else { (ip, port) };
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// By ClusterIP as a program on the node goes, and in the same world to the endpoint itself, past hooks and rules.
fn ways_inside(worlds: &[World; 4]) -> Vec<Way<'_>> {
    let [bare, ours, nft, ipt] = worlds;
    let cluster = SocketAddr::new(CLUSTER_IP.parse().unwrap(), 80);
    let endpoint = SocketAddr::new(objects::SERVER.parse().unwrap(), objects::PORT);
    let direct = |subject, world: &'_ World| (subject, world.outside_cgroup(), endpoint, None);
    let ways = [
        (bare, direct("no-proxy", bare)),
        (ours, direct("direct", ours)),
        (ours, ("fairlead", ours.node_cgroup(), cluster, Some(1))),
        (nft, direct("direct-past-nft", nft)),
        (nft, (Mode::Nftables.subject(), nft.outside_cgroup(), cluster, Some(3))),
        (ipt, direct("direct-past-iptables", ipt)),
        (ipt, (Mode::Iptables.subject(), ipt.outside_cgroup(), cluster, Some(5))),
    ];
    let way =
        |(world, (subject, cgroup, target, base))| Way { subject, world, cgroup, target, base };
    ways.into_iter().map(way).collect()
}

/// From outside by the node's port.
fn way_outside<'w>((subject, world): (&'static str, &'w World)) -> Way<'w> {
    let target = target(subject, NODE_IP, NODE_PORT, objects::PORT);
    Way { subject, world, cgroup: world.outside_cgroup(), target, base: None }
}

fn lane<'w>(subject: &'static str, world: &'w World) -> Lane<'w> {
    let at = |port: u16, bare_port: u16| target(subject, NODE_IP, port, bare_port);
    Lane {
        subject,
        world,
        bulk: at(BULK_NODE_PORT, BULK_PORT),
        packets: at(nodeport::NODE_PORT, nodeport::PORT),
    }
}

fn bulk(lanes: &[Lane<'_>], rows: &mut Vec<Row>) {
    let mut rates = vec![vec![]; lanes.len()];
    for _ in 0..ROUNDS {
        for (lane, rates) in lanes.iter().zip(&mut rates) {
            rates.push(gbit_per_s(lane));
        }
    }
    for (lane, rates) in lanes.iter().zip(rates) {
        let row = Row::new("nodeport_gbit_per_s", lane.subject, SCALE, "Gbit/s", &rates);
        println!("nodeport_gbit_per_s {}: {:.2}", lane.subject, row.value);
        rows.push(row);
    }
}

fn gbit_per_s(lane: &Lane<'_>) -> f64 {
    let mut server = lane.world.enter("s", "iperf3");
    server.args(["-s", "-1", "-p", &BULK_PORT.to_string(), "--forceflush"]);
    let mut server = server.stdout(Stdio::piped()).spawn().expect("iperf3");
    // It says so once it listens.
    let mut said = [0; 64];
    assert!(server.stdout.as_mut().unwrap().read(&mut said).unwrap() > 0, "iperf3 -s ended");
    let mut client: Command = lane.world.enter("c", "iperf3");
    let (ip, port) = (lane.bulk.ip().to_string(), lane.bulk.port().to_string());
    client.args(["-c", &ip, "-p", &port, "-J", "-t", &BULK_SECONDS.to_string()]);
    let output = client.output().expect("iperf3");
    drop(server.kill());
    drop(server.wait());
    let report: Value = serde_json::from_slice(&output.stdout).expect("iperf3's JSON");
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    rate.unwrap_or_else(|| panic!("{}: {report}", lane.subject)) / 1e9
}

/// The Service that is measured.
fn service() -> [Value; 2] {
    let port = |name: &str, protocol: &str, port: u16, target: u16, node_port: u16| json!({"name": name, "protocol": protocol, "port": port, "targetPort": target, "nodePort": node_port});
    let endpoint_port = |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "port": port});
    [
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "flows", "namespace": "default", "uid": "flows"},
            "spec": {
                "type": "NodePort", "clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
                "selector": {"app": "flows"},
                "ports": [
                    port("tcp", "TCP", 80, objects::PORT, NODE_PORT),
                    port("udp", "UDP", 80, objects::PORT, NODE_PORT),
                    port("bulk", "TCP", 81, BULK_PORT, BULK_NODE_PORT),
                    port("packets", "UDP", 82, nodeport::PORT, nodeport::NODE_PORT),
                ]
            },
            "status": {"loadBalancer": {}}
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "flows-abcde", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "flows"}
            },
            "ports": [
                endpoint_port("tcp", "TCP", objects::PORT),
                endpoint_port("udp", "UDP", objects::PORT),
                endpoint_port("bulk", "TCP", BULK_PORT),
                endpoint_port("packets", "UDP", nodeport::PORT),
            ],
            "endpoints": [{
                "addresses": [objects::SERVER],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": "other", "zone": "a",
            }]
        }),
    ]
}
