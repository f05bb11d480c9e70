//! What goes through once it is set up: short connections, datagrams and bulk data, by ClusterIP and by NodePort.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use socket2::SockRef;

use crate::{
    client::{self, Role},
    kube_proxy::{KubeProxy, Mode},
    nodeport, objects,
    report::Row,
    subject,
    world::World,
};

pub const SCALE: u64 = 10_000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
const BULK_SECONDS: u32 = 3;
/// A Service of its own: TCP and UDP, and a NodePort for each.
const CLUSTER_IP: &str = "10.96.255.1";
const NODE_IP: &str = "10.1.0.1";
const NODE_PORT: u16 = 30_080;
const BULK_NODE_PORT: u16 = 30_081;
const BULK_PORT: u16 = 9100;

/// What is counted, in units a second.
const KINDS: [(&str, &str); 3] =
    [("crr", "crr_per_s"), ("udp-rr", "udp_rr_per_s"), ("udp-crr", "udp_crr_per_s")];
const NODE_PORT_KINDS: [(&str, &str); 3] = [
    ("crr", "nodeport_crr_per_s"),
    ("udp-rr", "nodeport_udp_rr_per_s"),
    ("udp-crr", "nodeport_udp_crr_per_s"),
];

pub struct Lane<'w> {
    pub subject: &'static str,
    pub world: &'w World,
    /// By ClusterIP, or what stands for it.
    inside: (Role, SocketAddr),
    /// From outside of the node, to its port.
    pub outside: (Role, SocketAddr),
    bulk: SocketAddr,
    /// From outside too: where small packets go.
    pub packets: SocketAddr,
}

/// Rows for 10,000 Services, the ways taking turns.
pub fn measure(rows: &mut Vec<Row>) {
    let worlds = [World::new(), World::new(), World::new(), World::new()];
    let [bare, ours, nft, ipt] = &worlds;
    let _echoes: Vec<Role> = worlds.iter().map(echo).collect();
    let all = || objects::services(SCALE).into_iter().chain(service()).collect();
    let agent = subject::Agent::start(ours, &subject::serve(ours, all()));
    let nft_proxy = KubeProxy::start(nft, &subject::serve(nft, all()), Mode::Nftables);
    let ipt_proxy = KubeProxy::start(ipt, &subject::serve(ipt, all()), Mode::Iptables);
    let mut lanes = vec![
        lane("no-proxy", bare),
        lane("fairlead", ours),
        lane(Mode::Nftables.subject(), nft),
        lane(Mode::Iptables.subject(), ipt),
    ];
    for (kind, figure) in KINDS {
        per_second(&mut lanes, kind, figure, |lane| &mut lane.inside, rows);
    }
    for (kind, figure) in NODE_PORT_KINDS {
        per_second(&mut lanes, kind, figure, |lane| &mut lane.outside, rows);
    }
    nodeport::measure(&mut lanes, rows);
    bulk(&lanes, rows);
    drop((agent, nft_proxy, ipt_proxy));
}

fn lane<'w>(subject: &'static str, world: &'w World) -> Lane<'w> {
    let hooks = if subject == "fairlead" { world.node_cgroup() } else { world.outside_cgroup() };
    let without = world.outside_cgroup();
    let role =
        |cgroup: &std::path::Path| client::start(world, "c", "flows", &[cgroup.to_str().unwrap()]);
    let direct = subject == "no-proxy";
    let at = |ip: &str, port: u16, bare_port: u16| -> SocketAddr {
        let (ip, port) = if direct { (objects::SERVER, bare_port) } else { (ip, port) };
        SocketAddr::new(ip.parse().unwrap(), port)
    };
    Lane {
        subject,
        world,
        inside: (role(&hooks), at(CLUSTER_IP, 80, objects::PORT)),
        outside: (role(&without), at(NODE_IP, NODE_PORT, objects::PORT)),
        bulk: at(NODE_IP, BULK_NODE_PORT, BULK_PORT),
        packets: at(NODE_IP, nodeport::NODE_PORT, nodeport::PORT),
    }
}

fn per_second(
    lanes: &mut [Lane<'_>],
    kind: &str,
    figure: &'static str,
    end: for<'l> fn(&'l mut Lane<'_>) -> &'l mut (Role, SocketAddr),
    rows: &mut Vec<Row>,
) {
    let mut rates = vec![vec![]; lanes.len()];
    for round in 0..ROUNDS {
        // Another one comes first in each round.
        for turn in 0..lanes.len() {
            let place = (turn + round) % lanes.len();
            let (role, target) = end(&mut lanes[place]);
            role.order(&format!("{kind} {target}"));
            rates[place].push(role.line().parse::<f64>().expect("a rate"));
        }
    }
    for (lane, rates) in lanes.iter().zip(rates) {
        let row = Row::new(figure, lane.subject, SCALE, "1/s", &rates);
        println!("{figure} {}: {:.0} 1/s", lane.subject, row.value);
        rows.push(row);
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

fn echo(world: &World) -> Role {
    let mut echo = client::start(world, "s", "echo", &[]);
    assert_eq!(echo.line(), "ready");
    echo
}

/// Answers each connection's byte and each datagram.
pub fn run_echo() {
    let any = (Ipv4Addr::UNSPECIFIED, objects::PORT);
    let datagrams = UdpSocket::bind(any).unwrap();
    let answering = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        loop {
            let Ok((len, from)) = datagrams.recv_from(&mut bytes) else { continue };
            drop(datagrams.send_to(&bytes[..len], from));
        }
    });
    let listener = TcpListener::bind(any).unwrap();
    println!("ready");
    for mut stream in listener.incoming().flatten() {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_ok() {
            drop(stream.write_all(&byte));
        }
    }
    answering.join().unwrap();
}

/// Orders are `KIND TARGET`; the answer is how many a second, or what [`nodeport`] says.
pub fn run_client(cgroup: &str) {
    client::join(cgroup);
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let (kind, target) = order.split_once(' ').expect("KIND TARGET");
        let target: SocketAddr = target.parse().unwrap();
        let answer = match kind {
            "crr" => rate(|| connect_and_ask(target)),
            "udp-rr" => {
                let socket = datagram_socket(target);
                rate(|| ask(&socket))
            }
            "udp-crr" => rate(|| ask(&datagram_socket(target))),
            "flood" => nodeport::run_flood(target),
            "rtt" => nodeport::run_round_trips(target),
            other => panic!("no kind {other}"),
        };
        println!("{answer}");
    }
}

fn rate(mut once: impl FnMut()) -> String {
    let started = Instant::now();
    let mut count = 0u32;
    while started.elapsed() < ROUND {
        once();
        count += 1;
    }
    format!("{:.1}", f64::from(count) / started.elapsed().as_secs_f64())
}

fn connect_and_ask(target: SocketAddr) {
    let mut stream = TcpStream::connect(target).unwrap_or_else(|e| panic!("{target}: {e}"));
    // Closing by reset keeps TIME_WAIT from using up the ports.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    stream.write_all(&[1]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

pub fn datagram_socket(target: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect(target).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn ask(socket: &UdpSocket) {
    socket.send(&[1]).unwrap();
    socket.recv(&mut [0]).unwrap();
}
