//! The contract: what becomes of a packet, by where it comes from and where it is bound for.
//!
//! The rows are those of kube-proxy's own packet-flow tests (pkg/proxy/nftables/proxier_test.go,
//! `runPacketFlowTests`), with its addresses. Objects are planned, written to kernel maps, and
//! packets run through the real programs. Where kube-proxy masquerades and the backend is on this
//! node, the client's address is kept: its replies pass this node anyway.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use fairlead_ebpf::abi::{NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS, SCTP, TCP, UDP};
use fairlead_proxy::{Kernel, KernelOptions, Synchroniser, maps::kernel::KernelMaps, plan::Rules};
use fairlead_state::source::directory;
use support::{
    frames::{Packet, read_sctp, sctp},
    services::address,
    world::world,
};

mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod world;
}

const POD: &str = "10.180.0.9";
const CLIENT: &str = "203.0.113.2";
const BLOCKED: &str = "203.0.113.130";
const NODE: &str = "192.168.0.2";
/// The node's too, on another device.
const ALTERNATIVE: &str = "192.168.1.2";

/// The same text with every IPv4 address, address with port and range made IPv6:
/// `10.180.0.1:80` becomes `[2001:db8:10:180::1]:80`.
fn in_ipv6(text: &str) -> String {
    let mut translated = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let is_part = |c: char| c.is_ascii_digit() || ".:/".contains(c);
        let len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if len == 0 {
            let next = rest.find(is_part).unwrap_or(rest.len());
            translated.push_str(&rest[..next]);
            rest = &rest[next..];
            continue;
        }
        let word = &rest[..len];
        rest = &rest[len..];
        let end = word.find([':', '/']).unwrap_or(word.len());
        let quad: Vec<&str> = word[..end].split('.').collect();
        let [a, b, c, d] = quad[..] else {
            translated.push_str(word);
            continue;
        };
        let ip: Ipv6Addr = format!("2001:db8:{a}:{b}:{c}::{d}").parse().unwrap();
        translated += &match &word[end..] {
            // 203.0.113.130, outside of the range, is ::130 now.
            "/25" => format!("{ip}/120"),
            "/24" => format!("{ip}/80"),
            "/16" => format!("{ip}/64"),
            "" => ip.to_string(),
            port => format!("[{ip}]{port}"),
        };
    }
    translated.replace("addressType: IPv4", "addressType: IPv6")
}

/// One node, with Services in place.
struct Node {
    is_ipv6: bool,
    kernel: Kernel,
    sync: Synchroniser<KernelMaps>,
    port: u16,
}

impl Node {
    fn new(options: &KernelOptions, is_ipv6: bool) -> Self {
        let in_family = |text: &str| if is_ipv6 { in_ipv6(text) } else { text.to_owned() };
        let options = KernelOptions {
            service_cidrs: vec![in_family("172.30.0.0/16").parse().unwrap()],
            ..options.clone()
        };
        let kernel = Kernel::open(&options).unwrap();
        let node = address(in_family(NODE).parse().unwrap());
        let flags = NODE_ADDRESS_OWN | NODE_ADDRESS_PORTS;
        let alternative = address(in_family(ALTERNATIVE).parse().unwrap());
        let addresses = [(node, flags), (alternative, NODE_ADDRESS_OWN)];
        kernel.set_node(&addresses.into(), node, node).unwrap();
        let sync = Synchroniser::new(kernel.maps().unwrap(), "node-a");
        let sync = sync.with_rules(Rules { external_ips: true, ..Rules::default() });
        Self { is_ipv6, kernel, sync, port: 20_000 }
    }

    /// NodePorts answer on the alternative address, too.
    fn serve_node_ports_everywhere(&self) {
        let [node, alternative] =
            [NODE, ALTERNATIVE].map(|ip| address(self.in_family(ip).parse().unwrap()));
        let flags = NODE_ADDRESS_OWN | NODE_ADDRESS_PORTS;
        self.kernel.set_node(&[(node, flags), (alternative, flags)].into(), node, node).unwrap();
    }

    fn in_family(&self, text: &str) -> String {
        if self.is_ipv6 { in_ipv6(text) } else { text.to_owned() }
    }

    fn serve(&mut self, manifests: &str) {
        let manifests = self.in_family(manifests);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("all.yaml");
        fs::write(&file, &manifests).unwrap();
        let loaded = directory::load(&[file], None, BTreeSet::new()).unwrap();
        let refused: Vec<_> = loaded.snapshot.refused().values().map(ToString::to_string).collect();
        assert_eq!((&loaded.problems[..], &refused[..]), (&[][..], &[][..]), "{manifests}");
        // A file's snapshot has a history of its own.
        let fresh = Synchroniser::new(self.kernel.maps().unwrap(), "node-a");
        self.sync = fresh.with_rules(Rules { external_ips: true, ..Rules::default() });
        let report = self.sync.reconcile(&loaded.snapshot);
        assert_eq!((report.error, report.behind), (None, 0));
    }

    /// Who answers `source` at `to`, over many connections: `10.180.0.1:80 10.180.2.1:80 masq`,
    /// `REJECT`, `DROP`, or `` where the packet is left alone. What comes back is of whom was dialled.
    fn flow(&mut self, source: &str, protocol: u8, to: &str) -> String {
        let is_pod = |ip: &str| ip.starts_with("10.180.0.");
        let hook_of = |is_pod| if is_pod { "pod_ingress" } else { "uplink_ingress" };
        let program = hook_of(is_pod(source));
        let local = self.in_family("10.180.0.1");
        let pods = local.trim_end_matches('1');
        let (source, to) = (self.in_family(source), self.in_family(to));
        let source: IpAddr = source.parse().unwrap();
        let dialled: SocketAddr = to.parse().unwrap();
        let mut backends: BTreeSet<SocketAddr> = BTreeSet::new();
        let mut is_masqueraded = BTreeSet::new();
        for _ in 0..24 {
            self.port += 1;
            let client = SocketAddr::new(source, self.port);
            let frame = first(protocol, client, dialled);
            let run = self.kernel.run_on_packet(program, &frame, 1).unwrap();
            match run.verdict {
                2 => return "DROP".into(),
                7 => return "REJECT".into(),
                _ if run.packet == frame => return String::new(),
                _ => {}
            }
            let (_, backend) = ends(protocol, &run.packet);
            backends.insert(backend);
            let sent = self.kernel.run_on_packet("uplink_egress", &run.packet, 1).unwrap();
            let (seen, _) = ends(protocol, &sent.packet);
            is_masqueraded.insert(seen.ip() != source);

            // Through the device of a pod that is here, and out by whichever leads to the client.
            let reply = answer(protocol, backend, seen);
            let program = hook_of(backend.ip().to_string().starts_with(pods));
            let routed = self.kernel.run_on_packet(program, &reply, 1).unwrap();
            let reply = self.kernel.run_on_packet("uplink_egress", &routed.packet, 1).unwrap();
            assert_eq!((routed.verdict, reply.verdict), (-1, -1), "{backend} to {seen}");
            assert_eq!(ends(protocol, &reply.packet), (dialled, client), "by {backend}");
        }
        let mut words: Vec<String> = backends.iter().map(ToString::to_string).collect();
        words.extend(is_masqueraded.contains(&true).then(|| "masq".to_owned()));
        words.join(" ")
    }

    /// What a row says of TCP at a port that the Service has in UDP and SCTP, too, holds for these.
    fn assert_flows(&mut self, test: &str, flows: &[(&str, u8, &str, &str)]) {
        for (source, protocol, to, expected) in flows {
            let is_of_all = *protocol == TCP && (to.ends_with(":80") || to.ends_with(":30080"));
            self.assert_flow(test, source, *protocol, to, expected);
            for (protocol, port) in [(UDP, ":53"), (SCTP, ":7777")] {
                if is_of_all {
                    self.assert_flow(test, source, protocol, to, &expected.replace(":8443", port));
                }
            }
        }
    }

    fn assert_flow(&mut self, test: &str, source: &str, protocol: u8, to: &str, expected: &str) {
        let found = self.flow(source, protocol, to);
        let expected = self.in_family(expected);
        assert_eq!(found, expected, "{test}: {source} to {to}, protocol {protocol}");
    }
}

/// The frame that opens a connection.
fn first(protocol: u8, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (from, to) = (from.to_string(), to.to_string());
    match protocol {
        SCTP => sctp(&from, &to, 1),
        _ => Packet::first(protocol, &from, &to).frame(),
    }
}

/// What whoever gets that answers.
fn answer(protocol: u8, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (from, to) = (from.to_string(), to.to_string());
    match protocol {
        SCTP => sctp(&from, &to, 2),
        _ => Packet::first(protocol, &to, &from).reply().frame(),
    }
}

/// From where to where a frame is, whose checksums must hold.
fn ends(protocol: u8, frame: &[u8]) -> (SocketAddr, SocketAddr) {
    if protocol == SCTP {
        return read_sctp(frame);
    }
    let Packet { from, to, .. } = Packet::read(frame);
    (from, to)
}

/// A Service `web` (TCP, UDP and SCTP port 80; TCP port 443) with endpoints `(address, node, conditions)`.
fn manifests(spec: &str, status: &str, endpoints: &[(&str, &str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default}}\nspec:\n  \
         clusterIP: 172.30.0.41\n  ports:\n  - {{name: http, port: 80, targetPort: 8443, \
         nodePort: 30080}}\n  - {{name: dns, port: 80, protocol: UDP, nodePort: 30080}}\n  \
         - {{name: sig, port: 80, protocol: SCTP, nodePort: 30080}}\n  \
         - {{name: tls, port: 443, targetPort: 8443, nodePort: 30443}}\n{spec}\
         \nstatus: {{loadBalancer: {{ingress: [{status}]}}}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, \
         namespace: default, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: IPv4\nports:\n- {{name: http, port: 8443}}\n\
         - {{name: dns, port: 53, protocol: UDP}}\n- {{name: sig, port: 7777, protocol: SCTP}}\n\
         - {{name: tls, port: 8443}}\nendpoints:\n"
    );
    for (address, node, conditions) in endpoints {
        text += &format!(
            "- {{addresses: [{address}], nodeName: {node}, conditions: {{{conditions}}}}}\n"
        );
    }
    if endpoints.is_empty() {
        text += "  []\n";
    }
    text
}

const READY: &str = "ready: true";
const DRAINING: &str = "ready: false, serving: true, terminating: true";
const GONE: &str = "ready: false, serving: false, terminating: true";
const LOCAL: &str = "10.180.0.1";
const REMOTE: &str = "10.180.2.1";
const BOTH: [(&str, &str, &str); 2] = [(LOCAL, "node-a", READY), (REMOTE, "node-b", READY)];

#[test]
fn packet_flows_are_kube_proxys_in_ipv4() {
    world("packet_flows_are_kube_proxys_in_ipv4", |world| {
        assert_all(&mut Node::new(&world.options(), false));
    });
}

#[test]
fn packet_flows_are_kube_proxys_in_ipv6() {
    world("packet_flows_are_kube_proxys_in_ipv6", |world| {
        assert_all(&mut Node::new(&world.options(), true));
    });
}

fn assert_all(node: &mut Node) {
    let balancer = "  type: LoadBalancer";
    let vip = "{ip: 5.6.7.8}";

    node.serve(&manifests("  type: NodePort", "", &BOTH));
    node.assert_flows(
        "ClusterIPGeneral",
        &[
            (POD, TCP, "172.30.0.41:80", "10.180.0.1:8443 10.180.2.1:8443"),
            (POD, TCP, "172.30.0.41:443", "10.180.0.1:8443 10.180.2.1:8443"),
            (CLIENT, TCP, "172.30.0.41:80", "10.180.0.1:8443 10.180.2.1:8443 masq"),
            (POD, TCP, "172.30.0.41:81", "REJECT"),
            (POD, UDP, "172.30.0.41:53", "REJECT"),
            // Of one protocol only.
            (POD, UDP, "172.30.0.41:443", "REJECT"),
            (POD, SCTP, "172.30.0.41:443", "REJECT"),
            (POD, TCP, "172.30.0.99:80", "DROP"),
            (CLIENT, TCP, "172.30.0.99:80", "DROP"),
            (POD, TCP, "10.180.2.1:8443", ""),
        ],
    );
    node.serve(&manifests("  type: NodePort", "", &[(LOCAL, "node-a", READY)]));
    node.assert_flows(
        "ClusterIPGeneral, hairpin",
        &[(LOCAL, TCP, "172.30.0.41:80", "10.180.0.1:8443 masq")],
    );
    node.assert_flows(
        "NodePorts",
        &[
            (CLIENT, TCP, "192.168.0.2:30080", "10.180.0.1:8443"),
            (POD, TCP, "192.168.0.2:30080", "10.180.0.1:8443"),
            (CLIENT, TCP, "192.168.1.2:30080", ""),
        ],
    );
    node.serve_node_ports_everywhere();
    node.assert_flows(
        "NodePorts, multiple addresses",
        &[
            (CLIENT, TCP, "192.168.0.2:30080", "10.180.0.1:8443"),
            (CLIENT, TCP, "192.168.1.2:30080", "10.180.0.1:8443"),
        ],
    );

    let external = "  type: LoadBalancer\n  externalIPs: [192.168.99.11]";
    node.serve(&manifests(external, vip, &[]));
    for to in ["172.30.0.41:80", "192.168.99.11:80", "192.168.0.2:30080", "5.6.7.8:80"] {
        let rows = [POD, CLIENT].map(|from| (from, TCP, to, "REJECT"));
        node.assert_flows("NoEndpointsReject", &rows);
    }

    let ranges = "  type: LoadBalancer\n  loadBalancerSourceRanges: [192.168.0.0/24, \
                      \" 203.0.113.0/25\"]";
    node.serve(&manifests(ranges, "{ip: 1.2.3.4}, {ip: 5.6.7.8}", &BOTH[1..]));
    node.assert_flows(
        "LoadBalancer",
        &[
            (POD, TCP, "172.30.0.41:80", "10.180.2.1:8443"),
            (CLIENT, TCP, "192.168.0.2:30080", "10.180.2.1:8443 masq"),
            (BLOCKED, TCP, "192.168.0.2:30080", "10.180.2.1:8443 masq"),
            (CLIENT, TCP, "1.2.3.4:80", "10.180.2.1:8443 masq"),
            (CLIENT, TCP, "5.6.7.8:80", "10.180.2.1:8443 masq"),
            (BLOCKED, TCP, "1.2.3.4:80", "DROP"),
            (BLOCKED, TCP, "5.6.7.8:80", "DROP"),
            (POD, TCP, "5.6.7.8:80", "DROP"),
            ("192.168.0.3", TCP, "5.6.7.8:80", "10.180.2.1:8443 masq"),
            // kube-proxy lets this in: a node's own processes may have that source. Here they are
            // known by their sockets, and a packet from outside that says so is forged.
            ("5.6.7.8", TCP, "5.6.7.8:80", "DROP"),
        ],
    );
    node.serve(&manifests(balancer, "{ip: 5.6.7.8, ipMode: Proxy}", &BOTH[1..]));
    node.assert_flows(
        "LoadBalancerIngressRouteTypeProxy",
        &[(POD, TCP, "5.6.7.8:80", ""), (CLIENT, TCP, "5.6.7.8:80", "")],
    );

    let outside = ["192.168.99.11:80", "5.6.7.8:80", "192.168.0.2:30080"];
    let local = format!("{external}\n  externalTrafficPolicy: Local");
    let both = "10.180.0.1:8443 10.180.2.1:8443";
    node.serve(&manifests(&local, vip, &BOTH));
    node.assert_flows("ExternalTrafficPolicyLocal", &[(POD, TCP, "172.30.0.41:80", both)]);
    for to in outside {
        let rows = [(POD, TCP, to, both), (CLIENT, TCP, to, "10.180.0.1:8443")];
        node.assert_flows("ExternalTrafficPolicyLocal", &rows);
    }
    node.serve(&manifests(external, vip, &BOTH));
    for to in outside {
        let masqueraded = format!("{both} masq");
        let rows = [(POD, TCP, to, both), (CLIENT, TCP, to, masqueraded.as_str())];
        node.assert_flows("ExternalTrafficPolicyCluster", &rows);
    }

    let internal = "  type: NodePort\n  internalTrafficPolicy: Local";
    for (endpoints, expected) in [
        (&BOTH[..], "10.180.0.1:8443"),
        (
            &[(LOCAL, "node-a", READY), ("10.180.0.2", "node-a", READY)],
            "10.180.0.1:8443 10.180.0.2:8443",
        ),
        (&BOTH[1..], "DROP"),
        (&[], "REJECT"),
    ] {
        node.serve(&manifests(internal, "", endpoints));
        node.assert_flows("InternalTrafficPolicy", &[(POD, TCP, "172.30.0.41:80", expected)]);
    }

    // Conditions here and elsewhere; what a pod meets, and what a client meets, under policy
    // Local.
    let cases = [
        (READY, DRAINING, "10.180.0.1:8443", "10.180.0.1:8443"),
        (DRAINING, READY, "10.180.2.1:8443", "10.180.0.1:8443"),
        (DRAINING, DRAINING, both, "10.180.0.1:8443"),
        (GONE, READY, "10.180.2.1:8443", "DROP"),
        (GONE, DRAINING, "10.180.2.1:8443", "DROP"),
        (GONE, GONE, "REJECT", "REJECT"),
    ];
    for (here, elsewhere, inside, outside) in cases {
        let endpoints = [(LOCAL, "node-a", here), (REMOTE, "node-b", elsewhere)];
        node.serve(&manifests(&local, vip, &endpoints));
        node.assert_flows(
            &format!("TerminatingEndpointsTrafficPolicyLocal, {here} / {elsewhere}"),
            &[
                (POD, TCP, "172.30.0.41:80", inside),
                (POD, TCP, "5.6.7.8:80", inside),
                (CLIENT, TCP, "5.6.7.8:80", outside),
                (CLIENT, TCP, "192.168.0.2:30080", outside),
            ],
        );
    }
    let cases = [
        (READY, DRAINING, "10.180.0.1:8443", ""),
        (DRAINING, READY, "10.180.2.1:8443", " masq"),
        (DRAINING, DRAINING, both, " masq"),
        (GONE, READY, "10.180.2.1:8443", " masq"),
        (GONE, DRAINING, "10.180.2.1:8443", " masq"),
        (GONE, GONE, "REJECT", ""),
    ];
    for (here, elsewhere, expected, masquerade) in cases {
        let endpoints = [(LOCAL, "node-a", here), (REMOTE, "node-b", elsewhere)];
        node.serve(&manifests(external, vip, &endpoints));
        let outside = format!("{expected}{masquerade}");
        node.assert_flows(
            &format!("TerminatingEndpointsTrafficPolicyCluster, {here} / {elsewhere}"),
            &[
                (POD, TCP, "172.30.0.41:80", expected),
                (POD, TCP, "5.6.7.8:80", expected),
                (CLIENT, TCP, "5.6.7.8:80", outside.as_str()),
                (CLIENT, TCP, "192.168.0.2:30080", outside.as_str()),
            ],
        );
    }
}

#[test]
fn who_is_masqueraded_in_ipv4() {
    world("who_is_masqueraded_in_ipv4", |world| assert_masquerade(&world.options(), false));
}

#[test]
fn who_is_masqueraded_in_ipv6() {
    world("who_is_masqueraded_in_ipv6", |world| assert_masquerade(&world.options(), true));
}

/// InternalExternalMasquerade, with one rule for all of it: the client's address is kept unless a
/// client from outside meets a backend elsewhere, or masquerade-all was asked for. What policy Local
/// promises to those who come by an external address holds all the same, as in kube-proxy.
fn assert_masquerade(options: &KernelOptions, is_ipv6: bool) {
    for (all, first_port) in [(false, 20_000), (true, 40_000)] {
        let options = KernelOptions { masquerade_all: all, ..options.clone() };
        // What an earlier port's connection was given would be remembered.
        let mut node = Node { port: first_port, ..Node::new(&options, is_ipv6) };
        for policy in ["", "\n  internalTrafficPolicy: Local", "\n  externalTrafficPolicy: Local"] {
            let spec = format!("  type: LoadBalancer{policy}");
            node.serve(&manifests(&spec, "{ip: 5.6.7.8}", &BOTH));
            for (to, limited_by) in [
                ("172.30.0.41:80", "internal"),
                ("192.168.0.2:30080", "external"),
                ("5.6.7.8:80", "external"),
            ] {
                for source in [POD, CLIENT] {
                    let is_limited = policy.contains(limited_by)
                        && (source == CLIENT || limited_by == "internal");
                    let is_kept = limited_by == "external" && policy.contains(limited_by);
                    let is_masqueraded = (all && !is_kept) || (source == CLIENT && !is_limited);
                    let backends = if is_limited {
                        "10.180.0.1:8443"
                    } else {
                        "10.180.0.1:8443 10.180.2.1:8443"
                    };
                    let masquerade = if is_masqueraded { " masq" } else { "" };
                    let expected = format!("{backends}{masquerade}");
                    let test = format!("InternalExternalMasquerade, all: {all}, {policy:?}");
                    node.assert_flows(&test, &[(source, TCP, to, expected.as_str())]);
                }
            }
        }
    }
}
