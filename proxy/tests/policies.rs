//! The contract's rows by real packets between namespaces: whom a client from outside and a pod meet by each address
//! of a Service, and whose address endpoints see. What comes back is of whom was dialled, or it would not be taken.
#![expect(clippy::unwrap_used, reason = "clippy knows test functions, but not what they share")]

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::Duration,
};

use fairlead_proxy::{Synchroniser, maps::kernel::KernelMaps, plan::Rules};
use fairlead_state::{
    Change, Kind,
    model::{
        Endpoint, EndpointSlice, IpMode, LoadBalancerIp, Protocol, Service, ServiceType,
        TrafficPolicy,
    },
};
use objects::{Cluster, NODE, delete, endpoint_port, put_service, put_slice};
use support::{
    followed::Follower,
    services::unspecified,
    world::{Pod, World, world},
};

#[allow(dead_code, reason = "shared with the tests of Services")]
#[path = "services/objects.rs"]
mod objects;
mod support {
    pub(crate) mod followed;
    pub(crate) mod services;
    pub(crate) mod world;
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// Enough for two endpoints: all meet one of them in one case of 2^23.
const ASKED: u32 = 24;
/// Until a packet is taken for dropped.
const SILENCE: Duration = Duration::from_millis(400);

/// A Service's addresses.
#[derive(Clone, Copy)]
struct Addresses {
    is_ipv4: bool,
    cluster_ip: &'static str,
    external_ip: &'static str,
    balancer: &'static str,
    unallocated: &'static str,
}

const ADDRESSES: [Addresses; 2] = [
    Addresses {
        is_ipv4: true,
        cluster_ip: "10.96.0.41",
        external_ip: "198.51.100.11",
        balancer: "203.0.113.80",
        unallocated: "10.96.0.99",
    },
    Addresses {
        is_ipv4: false,
        cluster_ip: "fd00:96::41",
        external_ip: "2001:db8:99::11",
        balancer: "2001:db8:5::80",
        unallocated: "fd00:96::99",
    },
];

/// Says its name and whom it talks to.
fn introduce(protocol: Protocol, ip: IpAddr, name: &'static str) -> SocketAddr {
    match protocol {
        Protocol::Udp => {
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            let at = socket.local_addr().unwrap();
            thread::spawn(move || {
                while let Ok((_, client)) = socket.recv_from(&mut [0; 16]) {
                    let _ = socket.send_to(format!("{name} {}", client.ip()).as_bytes(), client);
                }
            });
            at
        }
        _ => {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let at = listener.local_addr().unwrap();
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let client = stream.peer_addr().map(|client| client.ip().to_string());
                    let _ = write!(stream, "{name} {}", client.unwrap_or_default());
                }
            });
            at
        }
    }
}

/// A socket whose port no other had: what a port's earlier datagrams opened would go on.
fn datagrams(to: SocketAddr) -> std::io::Result<UdpSocket> {
    static PORT: AtomicU16 = AtomicU16::new(10_000);
    let port = PORT.fetch_add(1, Ordering::Relaxed);
    let socket = UdpSocket::bind((unspecified(to.ip()), port))?;
    socket.set_read_timeout(Some(SILENCE))?;
    // Connected: an answer of somebody else's would not be taken.
    socket.connect(to)?;
    Ok(socket)
}

fn ask_by(socket: &UdpSocket) -> std::io::Result<String> {
    let mut answer = vec![0; 64];
    socket.send(b"?")?;
    let len = socket.recv(&mut answer)?;
    answer.truncate(len);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn ask(protocol: Protocol, to: SocketAddr) -> std::io::Result<String> {
    match protocol {
        Protocol::Udp => ask_by(&datagrams(to)?),
        _ => {
            let mut stream = TcpStream::connect_timeout(&to, SILENCE)?;
            stream.set_read_timeout(Some(SILENCE))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        }
    }
}

/// One node, `node-a`, as far as pods know; who is `there` is taken to be on another.
struct Place {
    outside: Pod,
    pod: Pod,
    follower: Follower,
    sync: Synchroniser<KernelMaps>,
    cluster: Cluster,
    here: Pod,
    there: Pod,
}

impl Place {
    fn new(world: &World) -> Self {
        let [outside, here, there, pod] = [1, 2, 3, 4].map(|number| world.pod(number));
        world.forward();
        let own = outside.node_addresses();
        let follower = Follower::start_on(world, &[outside.device()], own);
        follower.wait_for(world, 4);
        let rules = Rules { external_ips: true, ..Rules::default() };
        let sync = Synchroniser::new(follower.kernel.maps().unwrap(), NODE).with_rules(rules);
        Self { outside, pod, follower, sync, cluster: Cluster::new(), here, there }
    }

    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        let report = self.sync.reconcile(&self.cluster.apply(changes));
        assert_eq!((report.error, report.behind), (None, 0));
    }

    /// A slice for each endpoint, since each has ports of its own.
    fn slices(&self, is_ipv4: bool) -> [EndpointSlice; 2] {
        [(&self.here, "here", NODE), (&self.there, "there", "node-b")].map(|(pod, name, node)| {
            let ip = pod.own_address(is_ipv4);
            let ports = PROTOCOLS.map(|protocol| {
                let server = pod.inside(|| introduce(protocol, ip, name));
                endpoint_port(protocol.as_str(), protocol, server.port())
            });
            let endpoint = Endpoint { node_name: Some(node.into()), ..objects::endpoint(ip) };
            EndpointSlice {
                ports: Arc::new(ports),
                endpoints: [endpoint].into(),
                ..objects::slice(name, "web", &[&ip.to_string()])
            }
        })
    }

    /// Who answers, and whom they see: `here client`, `there node`; `REJECT`, `DROP`.
    fn met(&self, of: Addresses, from: &Pod, protocol: Protocol, to: SocketAddr) -> String {
        let (node, client) = (self.outside.node_address(of.is_ipv4), from.own_address(of.is_ipv4));
        let answers = from.inside(|| {
            let mut met = BTreeSet::new();
            for _ in 0..ASKED {
                match ask(protocol, to) {
                    Ok(answer) => met.insert(answer),
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        met.insert("REJECT".to_owned())
                    }
                    Err(error) => {
                        let is_silence =
                            matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
                        met.insert(if is_silence { "DROP".to_owned() } else { error.to_string() });
                        break;
                    }
                };
            }
            met
        });
        let words: Vec<String> = answers.into_iter().collect();
        words.join(", ").replace(&node.to_string(), "node").replace(&client.to_string(), "client")
    }

    /// `rows`: from outside or from a pod, to where, what becomes of it.
    fn assert_met(&self, test: &str, of: Addresses, rows: &[(bool, SocketAddr, &str)]) {
        for (is_outside, to, expected) in rows {
            let from = if *is_outside { &self.outside } else { &self.pod };
            for protocol in PROTOCOLS {
                let found = self.met(of, from, protocol, *to);
                let who = if *is_outside { "outside" } else { "a pod" };
                assert_eq!(found, *expected, "{test}: {who} to {to}, {}", protocol.as_str());
            }
        }
    }
}

/// By ClusterIP, NodePort, external IP and balancer, TCP and UDP.
fn service(of: Addresses) -> Service {
    let ports =
        PROTOCOLS.map(|protocol| objects::port(protocol.as_str(), protocol, 80, Some(30080)));
    let service = Service {
        service_type: ServiceType::LoadBalancer,
        ports: Arc::new(ports),
        ..objects::service("web", of.cluster_ip)
    };
    objects::with(service, |extras| {
        extras.external_ips = Arc::new([objects::ip(of.external_ip)]);
        let ip = objects::ip(of.balancer);
        extras.load_balancer_ips = Arc::new([LoadBalancerIp { ip, mode: IpMode::Vip }]);
    })
}

#[test]
fn outcomes_are_the_contracts_in_ipv4() {
    world("outcomes_are_the_contracts_in_ipv4", |world| assert_all(world, ADDRESSES[0]));
}

#[test]
fn outcomes_are_the_contracts_in_ipv6() {
    world("outcomes_are_the_contracts_in_ipv6", |world| assert_all(world, ADDRESSES[1]));
}

/// One set serves both policies, the endpoints of this node at its head: a flow to another node's is in the set it was
/// opened by, and no part of the head.
#[test]
fn flows_of_datagrams_to_other_nodes_end_as_the_external_policy_turns_local() {
    let name = "flows_of_datagrams_to_other_nodes_end_as_the_external_policy_turns_local";
    world(name, |world| {
        let mut place = Place::new(world);
        for of in ADDRESSES {
            let to = SocketAddr::new(of.balancer.parse().unwrap(), 80);
            let slices = place.slices(of.is_ipv4).map(put_slice);
            place.apply(slices.into_iter().chain([put_service(service(of))]));
            let sockets: Vec<_> =
                (0..ASKED).map(|_| place.outside.inside(|| datagrams(to).unwrap())).collect();
            let answers = || -> Vec<String> {
                let answers = sockets.iter().map(|socket| ask_by(socket).unwrap());
                answers.map(|answer| answer.split_once(' ').unwrap().0.to_owned()).collect()
            };
            let before = answers();
            assert!(before.iter().any(|name| name == "there"), "{to}: {before:?}");
            assert_eq!(answers(), before, "{to}: a flow keeps its endpoint");

            let external_traffic_policy = TrafficPolicy::Local;
            place.apply([put_service(Service { external_traffic_policy, ..service(of) })]);
            assert_eq!(answers(), [(); ASKED as usize].map(|()| "here"), "{to}");
            place.apply(["here", "there"].map(|slice| delete(Kind::EndpointSlice, slice)));
        }
    });
}

fn assert_all(world: &World, of: Addresses) {
    let mut place = Place::new(world);
    let at = |ip: &str, port: u16| SocketAddr::new(ip.parse().unwrap(), port);
    let cluster_ip = at(of.cluster_ip, 80);
    let node_port = SocketAddr::new(place.outside.node_address(of.is_ipv4), 30080);
    let balancer = at(of.balancer, 80);
    let external = [node_port, at(of.external_ip, 80), balancer];
    let all = [&[cluster_ip], &external[..]].concat();
    let [here, there] = place.slices(of.is_ipv4);
    let (both_kept, both_masqueraded) = ("here client, there client", "here client, there node");

    place.apply([put_service(service(of)), put_slice(here.clone()), put_slice(there)]);
    for to in &all {
        let rows = [(true, *to, both_masqueraded), (false, *to, both_kept)];
        place.assert_met("policy Cluster", of, &rows);
    }
    let dead = [(at(of.cluster_ip, 81), "REJECT"), (at(of.unallocated, 80), "DROP")];
    for (to, expected) in dead {
        place.assert_met("no such port", of, &[(true, to, expected), (false, to, expected)]);
    }

    let local = TrafficPolicy::Local;
    place.apply([put_service(Service { external_traffic_policy: local, ..service(of) })]);
    for to in external {
        let rows = [(true, to, "here client"), (false, to, both_kept)];
        place.assert_met("externalTrafficPolicy Local", of, &rows);
    }
    let rows = [(true, cluster_ip, both_masqueraded), (false, cluster_ip, both_kept)];
    place.assert_met("externalTrafficPolicy Local", of, &rows);

    place.apply([put_service(Service { internal_traffic_policy: local, ..service(of) })]);
    let only = "here client";
    let rows = [(true, cluster_ip, only), (false, cluster_ip, only), (false, balancer, both_kept)];
    place.assert_met("internalTrafficPolicy Local", of, &rows);

    let both_local = Service { internal_traffic_policy: local, ..service(of) };
    let both_local = Service { external_traffic_policy: local, ..both_local };
    place.apply([put_service(both_local), delete(Kind::EndpointSlice, "here")]);
    place.assert_met("no local endpoint", of, &[(false, cluster_ip, "DROP")]);
    for to in external {
        let rows = [(true, to, "DROP"), (false, to, "there client")];
        place.assert_met("no local endpoint", of, &rows);
    }

    let ranged = objects::with(service(of), |extras| {
        let client = place.outside.own_address(of.is_ipv4);
        extras.load_balancer_source_ranges = Arc::new([client.into()]);
    });
    place.apply([put_service(ranged), put_slice(here)]);
    let rows = [
        (true, balancer, both_masqueraded),
        // Pods are filtered, too, and NodePorts are not.
        (false, balancer, "DROP"),
        (false, node_port, both_kept),
        (false, cluster_ip, both_kept),
    ];
    place.assert_met("loadBalancerSourceRanges", of, &rows);
    let denied = objects::with(service(of), |extras| {
        extras.load_balancer_source_ranges = Arc::new([at(of.unallocated, 0).ip().into()]);
    });
    place.apply([put_service(denied)]);
    let rows = [(true, balancer, "DROP"), (true, node_port, both_masqueraded)];
    place.assert_met("loadBalancerSourceRanges", of, &rows);

    place.apply([
        put_service(service(of)),
        delete(Kind::EndpointSlice, "here"),
        delete(Kind::EndpointSlice, "there"),
    ]);
    for to in all {
        place.assert_met("no endpoints", of, &[(true, to, "REJECT"), (false, to, "REJECT")]);
    }
    drop(place.follower);
}
