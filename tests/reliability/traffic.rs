//! Traffic of every kind, and commands for the node.

use crate::support::world::{PROBE, Steady, World, assert_flawless};

pub(crate) const CLUSTER_IP: &str = "http://10.96.0.20";
pub(crate) const CLUSTER_IP_V6: &str = "http://[fd00:10:96::20]";
pub(crate) const NODE_PORT: &str = "http://192.168.77.2:30080";
pub(crate) const NODE_PORT_V6: &str = "http://[fd77::2]:30080";
/// Datagrams to the same.
pub(crate) const NODE_PORT_UDP: &str = "udp://192.168.77.2:30080";
/// See [`NODE_PORT_UDP`].
pub(crate) const NODE_PORT_UDP_V6: &str = "udp://[fd77::2]:30080";

/// Of pods to a ClusterIP.
pub(crate) const INSIDE: [(&str, &str, [&str; 4]); 6] = [
    ("ClusterIP", PROBE, ["--url", CLUSTER_IP, "--rate", "2500"]),
    ("ClusterIP, IPv6", PROBE, ["--url", CLUSTER_IP_V6, "--rate", "500"]),
    ("UDP by ClusterIP, IPv6", PROBE, ["--url", "udp://[fd00:10:96::20]:80", "--rate", "100"]),
    ("open connections by ClusterIP", PROBE, ["--url", CLUSTER_IP, "--streams", "50"]),
    ("open connections by ClusterIP, IPv6", PROBE, ["--url", CLUSTER_IP_V6, "--streams", "20"]),
    ("UDP by ClusterIP", PROBE, ["--url", "udp://10.96.0.20:80", "--rate", "200"]),
];
/// From outside to a NodePort.
pub(crate) const OUTSIDE: [(&str, &str, [&str; 4]); 6] = [
    ("NodePort from outside", "client", ["--url", NODE_PORT, "--rate", "1500"]),
    ("NodePort from outside, IPv6", "client", ["--url", NODE_PORT_V6, "--rate", "500"]),
    ("open connections by NodePort, IPv6", "client", ["--url", NODE_PORT_V6, "--streams", "20"]),
    ("open connections by NodePort", "client", ["--url", NODE_PORT, "--streams", "50"]),
    ("UDP by NodePort", "client", ["--url", NODE_PORT_UDP, "--rate", "200"]),
    ("UDP by NodePort, IPv6", "client", ["--url", NODE_PORT_UDP_V6, "--rate", "100"]),
];

/// Traffic that must not notice anything.
pub(crate) struct Traffic(Vec<(&'static str, Steady)>);

impl Traffic {
    pub(crate) fn start(
        world: &World,
        ways: impl IntoIterator<Item = (&'static str, &'static str, [&'static str; 4])>,
    ) -> Self {
        let ways = ways.into_iter();
        Self(ways.map(|(what, place, args)| (what, world.steady(place, &args))).collect())
    }

    /// Ends it; nothing of it failed and nothing broke.
    pub(crate) fn assert_flawless(self) {
        assert_flawless(self.0);
    }
}

/// NodePorts lead to pods of both nodes, by TCP and UDP and in both families; else traffic would prove
/// nothing about one of them.
pub(crate) fn assert_all_pods_answer(world: &World) {
    let mut pods: Vec<&str> = world.pods().iter().map(|pod| pod.name.as_str()).collect();
    pods.sort_unstable();
    assert!(world.pods().iter().any(|pod| pod.node == "node2"), "{:?}", world.pods());
    for url in [NODE_PORT, NODE_PORT_V6, NODE_PORT_UDP, NODE_PORT_UDP_V6] {
        let report = world.load("client", &["--url", url, "--count", "100", "--rate", "1000"]);
        assert_eq!(report.answered_by(), pods, "{url}: {}", report.failures());
    }
}

/// Runs a shell's commands at a place in the world.
pub(crate) fn run(world: &World, place: &str, commands: &str) {
    let output = world.command(place, "sh").args(["-ec", commands]).output().expect("sh starts");
    assert!(
        output.status.success(),
        "{place}: {commands}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Waits until the address answers, from where it is dialled.
pub(crate) fn await_good(world: &World, place: &str, url: &str) {
    let report = world.await_answer(place, url);
    assert_eq!(report.ok(), 1, "{url} does not answer {place}: {}", report.failures());
}
