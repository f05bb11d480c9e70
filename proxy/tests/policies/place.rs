//! A node with its pods, one of which is taken to be on another node, and a client from outside.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use fairlead_proxy::{
    Devices, Kernel, KernelOptions, Synchroniser, maps::kernel::KernelMaps, plan::Rules,
};
use fairlead_state::{
    Change,
    model::{Endpoint, EndpointSlice, IpMode, LoadBalancerIp, Protocol, Service, ServiceType},
};

use crate::{
    ask::{ask, introduce},
    objects::{self, Cluster, NODE},
    support::{
        followed::Follower,
        world::{Pod, World},
    },
};

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// Enough for two endpoints: all meet one of them in one case of 2^23.
pub(crate) const ASKED: u32 = 24;
pub(crate) const NODE_PORT: u16 = 30080;

/// A Service's addresses.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) is_ipv4: bool,
    cluster_ip: &'static str,
    external_ip: &'static str,
    balancers: [&'static str; 2],
    /// Of another Service.
    other: &'static str,
    unallocated: &'static str,
}

pub(crate) const IPV4: Addresses = Addresses {
    is_ipv4: true,
    cluster_ip: "10.96.0.41",
    external_ip: "198.51.100.11",
    balancers: ["203.0.113.80", "203.0.113.81"],
    other: "10.96.0.42",
    unallocated: "10.96.0.99",
};

pub(crate) const IPV6: Addresses = Addresses {
    is_ipv4: false,
    cluster_ip: "fd00:96::41",
    external_ip: "2001:db8:99::11",
    balancers: ["2001:db8:5::80", "2001:db8:5::81"],
    other: "fd00:96::42",
    unallocated: "fd00:96::99",
};

/// What is between a client of this node and a Service: the programs of devices alone, as for virtual machines, or
/// those of sockets, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Packets,
    Sockets,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// By packets only: it has no sockets on this node.
    Outside,
    Pod,
    /// A process of the node. By sockets only: its packets meet no program before they are routed.
    Node,
    /// The endpoint `here`.
    Endpoint,
}

pub(crate) const ALL: &[Client] = &[Client::Outside, Client::Pod, Client::Node];
pub(crate) const OUTSIDE: &[Client] = &[Client::Outside];
pub(crate) const INSIDE: &[Client] = &[Client::Pod, Client::Node];

/// From whom, to where, and who answers: `here`, `there`, `here there`, `REJECT`, `DROP`.
pub(crate) type Row<'a> = (&'a [Client], &'a [SocketAddr], &'a str);

/// One node, `node-a`, as far as pods know; who is `there` is taken to be on another.
pub(crate) struct Place {
    pub(crate) of: Addresses,
    pub(crate) by: By,
    pub(crate) outside: Pod,
    pub(crate) here: Pod,
    there: Pod,
    pod: Pod,
    pub(crate) also: Pod,
    follower: Follower,
    sync: Synchroniser<KernelMaps>,
    cluster: Cluster,
}

impl Place {
    pub(crate) fn new(world: &World, of: Addresses) -> Self {
        Self::with(world, of, world.options())
    }

    pub(crate) fn with(world: &World, of: Addresses, options: KernelOptions) -> Self {
        let [outside, here, there, pod, also] = [1, 2, 3, 4, 5].map(|number| world.pod(number));
        world.forward();
        let (follower, sync) = follow(world, &outside, options);
        let cluster = Cluster::new();
        Self { of, by: By::Packets, outside, here, there, pod, also, follower, sync, cluster }
    }

    /// The same objects under another agent with other options.
    pub(crate) fn restart(&mut self, world: &World, options: KernelOptions) {
        Kernel::cleanup(&world.bpffs).unwrap();
        (self.follower, self.sync) = follow(world, &self.outside, options);
        self.by = By::Packets;
        self.apply([]);
    }

    /// From now on sockets are served, too.
    pub(crate) fn attach_sockets(&mut self) {
        self.follower.kernel.attach().unwrap();
        self.by = By::Sockets;
    }

    pub(crate) fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        let report = self.sync.reconcile(&self.cluster.apply(changes));
        assert_eq!((report.error, report.behind), (None, 0));
    }

    pub(crate) fn cluster_ip(&self, port: u16) -> SocketAddr {
        SocketAddr::new(objects::ip(self.of.cluster_ip), port)
    }

    pub(crate) fn unallocated(&self) -> SocketAddr {
        SocketAddr::new(objects::ip(self.of.unallocated), 80)
    }

    pub(crate) fn node_port(&self) -> SocketAddr {
        SocketAddr::new(self.outside.node_address(self.of.is_ipv4), NODE_PORT)
    }

    pub(crate) fn balancers(&self) -> [SocketAddr; 2] {
        self.of.balancers.map(|balancer| SocketAddr::new(objects::ip(balancer), 80))
    }

    /// By NodePort, external address and balancer.
    pub(crate) fn external(&self) -> [SocketAddr; 4] {
        let [one, other] = self.balancers();
        [self.node_port(), SocketAddr::new(objects::ip(self.of.external_ip), 80), one, other]
    }

    /// By ClusterIP, NodePort, external address and balancer, TCP and UDP; by another port TCP alone.
    pub(crate) fn service(&self) -> Service {
        let port = |name, protocol, port, node_port| objects::port(name, protocol, port, node_port);
        let service = Service {
            service_type: ServiceType::LoadBalancer,
            ports: Arc::new([
                port("tcp", Protocol::Tcp, 80, Some(NODE_PORT)),
                port("udp", Protocol::Udp, 80, Some(NODE_PORT)),
                port("tls", Protocol::Tcp, 443, None),
            ]),
            ..objects::service("web", self.of.cluster_ip)
        };
        objects::with(service, |extras| {
            extras.external_ips = Arc::new([objects::ip(self.of.external_ip)]);
            let vip = |ip| LoadBalancerIp { ip: objects::ip(ip), mode: IpMode::Vip };
            extras.load_balancer_ips = Arc::new(self.of.balancers.map(vip));
        })
    }

    /// Has a port that `web` has not.
    pub(crate) fn other_service(&self) -> Service {
        Service {
            ports: Arc::new([objects::port("", Protocol::Tcp, 81, None)]),
            ..objects::service("other", self.of.other)
        }
    }

    /// A slice for each endpoint, since each has ports of its own: `here`, `there`, and one more that is here.
    pub(crate) fn slices(&self) -> [EndpointSlice; 3] {
        let pods = [
            (&self.here, ["here", "here-tls"], NODE),
            (&self.there, ["there", "there-tls"], "node-b"),
            (&self.also, ["also", "also-tls"], NODE),
        ];
        pods.map(|(pod, [name, tls], node)| {
            let ip = pod.own_address(self.of.is_ipv4);
            let servers = [
                ("tcp", Protocol::Tcp, name),
                ("udp", Protocol::Udp, name),
                ("tls", Protocol::Tcp, tls),
            ];
            let ports = servers.map(|(port, protocol, name)| {
                let server = pod.inside(|| introduce(protocol, (ip, 0).into(), name));
                objects::endpoint_port(port, protocol, server.port())
            });
            let endpoint = Endpoint { node_name: Some(node.into()), ..objects::endpoint(ip) };
            EndpointSlice {
                ports: Arc::new(ports),
                endpoints: [endpoint].into(),
                ..objects::slice(name, "web", &[&ip.to_string()])
            }
        })
    }

    fn is_there(&self, client: Client) -> bool {
        match client {
            Client::Outside => self.by == By::Packets,
            Client::Node => self.by == By::Sockets,
            Client::Pod | Client::Endpoint => true,
        }
    }

    /// Runs `body` where the client is; its address there.
    fn inside<T: Send>(
        &self,
        client: Client,
        body: impl FnOnce() -> T + Send,
    ) -> (Option<IpAddr>, T) {
        let pod = match client {
            Client::Outside => &self.outside,
            Client::Pod => &self.pod,
            Client::Endpoint => &self.here,
            Client::Node => return (None, body()),
        };
        (Some(pod.own_address(self.of.is_ipv4)), pod.inside(body))
    }

    /// Who answers, and whom they see: `here client, there node`; `REJECT`, `DROP`.
    pub(crate) fn met(&self, client: Client, protocol: Protocol, to: SocketAddr) -> String {
        let (own, answers) = self.inside(client, || {
            let mut met = BTreeSet::new();
            for _ in 0..ASKED {
                match ask(protocol, to) {
                    Ok(answer) => met.insert(answer),
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        met.insert("REJECT".to_owned())
                    }
                    Err(error) => {
                        met.insert(self.unanswered(&error));
                        break;
                    }
                };
            }
            met
        });
        let words: BTreeSet<String> =
            answers.iter().map(|answer| self.in_words(answer, own)).collect();
        Vec::from_iter(words).join(", ")
    }

    /// A socket is told at once of what a packet would be dropped for.
    fn unanswered(&self, error: &std::io::Error) -> String {
        let is_drop = match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => true,
            ErrorKind::HostUnreachable => self.by == By::Sockets,
            _ => false,
        };
        if is_drop { "DROP".to_owned() } else { error.to_string() }
    }

    fn in_words(&self, answer: &str, own: Option<IpAddr>) -> String {
        let Some((name, seen)) = answer.split_once(' ') else { return answer.to_owned() };
        let Ok(seen) = seen.parse::<IpAddr>() else { return answer.to_owned() };
        let pods = [&self.outside, &self.here, &self.there, &self.pod, &self.also];
        if Some(seen) == own {
            format!("{name} client")
        } else if pods.into_iter().any(|pod| pod.node_address(seen.is_ipv4()) == seen) {
            format!("{name} node")
        } else {
            answer.to_owned()
        }
    }

    /// By TCP and by UDP. The client's address is kept but towards another node.
    pub(crate) fn assert_met(&self, test: &str, rows: &[Row<'_>]) {
        for protocol in PROTOCOLS {
            self.assert_met_by(protocol, test, rows);
        }
    }

    pub(crate) fn assert_met_by(&self, protocol: Protocol, test: &str, rows: &[Row<'_>]) {
        for (clients, dialled, names) in rows {
            for client in clients.iter().copied().filter(|client| self.is_there(*client)) {
                for to in *dialled {
                    let expected = as_seen(client, names);
                    self.assert_seen_by(protocol, test, client, *to, &expected);
                }
            }
        }
    }

    /// The same with whom endpoints see: `here node`.
    pub(crate) fn assert_seen(&self, test: &str, client: Client, to: SocketAddr, expected: &str) {
        for protocol in PROTOCOLS {
            self.assert_seen_by(protocol, test, client, to, expected);
        }
    }

    fn assert_seen_by(
        &self,
        protocol: Protocol,
        test: &str,
        client: Client,
        to: SocketAddr,
        expected: &str,
    ) {
        let found = self.met(client, protocol, to);
        let (by, protocol) = (self.by, protocol.as_str());
        assert_eq!(found, expected, "{test}, by {by:?}: {client:?} to {to}, {protocol}");
    }
}

fn follow(
    world: &World,
    outside: &Pod,
    options: KernelOptions,
) -> (Follower, Synchroniser<KernelMaps>) {
    let options = KernelOptions { devices: Devices::List(vec![outside.device()]), ..options };
    let follower = Follower::start_with(&options, outside.node_addresses(), &[]);
    follower.wait_for(world, 5);
    let rules = Rules { external_ips: true, ..Rules::default() };
    let sync = Synchroniser::new(follower.kernel.maps().unwrap(), NODE).with_rules(rules);
    (follower, sync)
}

/// Whose address each of them sees.
fn as_seen(client: Client, names: &str) -> String {
    let seen = |name: &str| match (name, client) {
        ("REJECT" | "DROP", _) => name.to_owned(),
        (_, Client::Node) => format!("{name} node"),
        (_, Client::Outside) if name.starts_with("there") => format!("{name} node"),
        _ => format!("{name} client"),
    };
    let seen: Vec<String> = names.split(' ').map(seen).collect();
    seen.join(", ")
}
