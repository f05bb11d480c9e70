//! What is explained is what packets and sockets meet: random Services in kernel maps, random packets
//! through the real programs and random calls of connect(2), and for each the decision that `explain`
//! predicts from the same maps.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use fairlead_ebpf::abi::{NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS};
use fairlead_proxy::{
    Kernel, KernelOptions, Synchroniser,
    explain::{self, Client, LiveMaps, Verdict, Why},
};
use fairlead_state::model::Protocol;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use socket2::{Domain, Socket, Type};
use support::{
    frames::Packet,
    services::address,
    world::{World, run, world},
};

use objects::{Cluster, NODE};

#[allow(dead_code, reason = "shared with the tests of Services")]
#[path = "services/objects.rs"]
mod objects;
#[allow(dead_code, reason = "shared with the tests of Services")]
#[path = "services/random.rs"]
mod random;
mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod world;
}

/// Verdicts of the programs: whoever comes next decides, dropped, sent back as an answer.
const NEXT: i32 = -1;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;

const ROUNDS: u32 = 250;
const CONNECTIONS: u32 = 400;
const NODE_ADDRESS: [u8; 4] = [192, 168, 0, 2];
/// Without an address of the family nothing is translated towards other nodes.
const NODE_ADDRESS_V6: [u16; 8] = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2];
/// The kernel has long done it, on loopback.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);

/// Each packet is the first of its own connection.
struct Clients(u32);

impl Clients {
    fn next(&mut self, random: &mut StdRng, to: IpAddr) -> SocketAddr {
        self.0 += 1;
        let [_, high, middle, low] = self.0.to_be_bytes();
        let ip = match (to, random.random_range(0..3)) {
            (IpAddr::V6(_), _) => {
                IpAddr::from([0xfd02, 0, 0, 0, 0, 0, u16::from(high), u16::from(middle)])
            }
            // Two of the ranges that Services may be limited to, and neither.
            (_, 0) => IpAddr::from([198, 51, 100, middle]),
            (_, 1) => IpAddr::from([203, 0, 113, middle]),
            _ => IpAddr::from([172, 16 + (high & 0x0f), middle, 1]),
        };
        SocketAddr::new(ip, 20_000 + u16::from(low) + 256 * u16::from(high))
    }
}

fn destination(random: &mut StdRng) -> SocketAddr {
    let port = random.random_range(79..84);
    let ip = match random.random_range(0..10) {
        0..5 => IpAddr::from([10, 96, 0, random.random_range(1..10)]),
        5..7 => IpAddr::from([192, 0, 2, random.random_range(1..5)]),
        7 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, random.random_range(1..6)]),
        _ => {
            let node_port = random.random_range(29_999..30_005);
            return SocketAddr::new(NODE_ADDRESS.into(), node_port);
        }
    };
    SocketAddr::new(ip, port)
}

/// What the program made of it, against what was foretold.
fn agrees(foretold: &Verdict, verdict: i32, to: SocketAddr, after: &Packet) -> bool {
    match (foretold, verdict) {
        (Verdict::Pass, NEXT) => after.to == to,
        (Verdict::Backends(all), NEXT) => all.iter().any(|backend| backend.address == after.to),
        // A pod's socket would be told; packets it sends without one are dropped.
        (Verdict::Reject(Why::Unallocated) | Verdict::Drop(_), DROP)
        | (Verdict::Reject(_), REDIRECT) => true,
        _ => false,
    }
}

fn open(world: &World) -> Kernel {
    let options =
        KernelOptions { service_cidrs: vec!["10.96.0.0/28".parse().unwrap()], ..world.options() };
    let kernel = Kernel::open(&options).unwrap();
    let (node, node_v6) = (address(NODE_ADDRESS.into()), address(NODE_ADDRESS_V6.into()));
    let flags = NODE_ADDRESS_OWN | NODE_ADDRESS_PORTS;
    kernel.set_node(&[(node, flags), (node_v6, flags)].into(), node, node_v6).unwrap();
    kernel
}

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Backends(_) => "backends",
        Verdict::Reject(_) => "reject",
        Verdict::Drop(_) => "drop",
    }
}

/// Random Services in the maps, which change each round, and so many connections to them: `meet` makes
/// one, holds it against what was foretold, and tells that. Of each kind there are more than `least`: a
/// test that met but one kind would prove little.
fn all_meet(
    kernel: &Kernel,
    (seed, least): (u64, u32),
    mut meet: impl FnMut(&mut StdRng, &LiveMaps<'_>, u32) -> Verdict,
) {
    let mut sync = Synchroniser::new(kernel.maps().unwrap(), NODE);
    let mut cluster = Cluster::new();
    let mut random = StdRng::seed_from_u64(seed);
    let mut met: BTreeMap<&str, u32> = BTreeMap::new();
    for round in 0..ROUNDS {
        let changes: Vec<_> = (0..8).map(|_| random::change(&mut random)).collect();
        let snapshot = cluster.apply(changes);
        assert_eq!(sync.reconcile(&snapshot).error, None);
        let maps = LiveMaps::of(kernel).unwrap();
        for _ in 0..CONNECTIONS {
            *met.entry(kind(&meet(&mut random, &maps, round))).or_default() += 1;
        }
    }
    assert!(met.len() == 4 && met.values().all(|count| *count > least), "{met:?}");
}

fn protocol(random: &mut StdRng) -> Protocol {
    if random.random_bool(0.7) { Protocol::Tcp } else { Protocol::Udp }
}

#[test]
fn a_hundred_thousand_packets_meet_what_is_explained() {
    world("a_hundred_thousand_packets_meet_what_is_explained", |world| {
        let kernel = open(world);
        let mut clients = Clients(0);
        all_meet(&kernel, (1, 1000), |random, maps, round| {
            let to = destination(random);
            let from = clients.next(random, to.ip());
            let protocol = protocol(random);
            let (hook, client) = if random.random_bool(0.3) {
                ("pod_ingress", Client::Pod(Some(from.ip())))
            } else {
                ("uplink_ingress", Client::Outside(from.ip()))
            };
            let packet = Packet::first(protocol.number(), &from.to_string(), &to.to_string());
            let run = kernel.run_on_packet(hook, &packet.frame(), 1).unwrap();
            let foretold = explain::decide(maps, client, protocol, to).unwrap().verdict;
            let after = Packet::read_unchecked(&run.packet);
            let is_told = agrees(&foretold, run.verdict, to, &after);
            let fate = run.verdict;
            assert!(
                is_told,
                "round {round}: {hook} {packet:?}: {foretold:?}, met {fate}: {after:?}"
            );
            foretold
        });
    });
}

/// Servers at every address that endpoints have.
struct Endpoints {
    tcp: Vec<(SocketAddr, TcpListener)>,
    udp: Vec<(SocketAddr, UdpSocket)>,
}

impl Endpoints {
    fn serve() -> Self {
        let v4 = (1..9).map(|last| IpAddr::from([10, 244, 0, last]));
        let v6 = (1..9).map(|last| IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, last]));
        let mut all = Self { tcp: vec![], udp: vec![] };
        for ip in v4.chain(v6) {
            // Else an address of IPv6 is only tried at first, and nobody's.
            let at_once = if ip.is_ipv6() { " nodad" } else { "" };
            run(&format!("ip addr add {ip} dev lo{at_once}"));
            for at in (8080..8083).map(|port| SocketAddr::new(ip, port)) {
                let (tcp, udp) = (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap());
                tcp.set_nonblocking(true).unwrap();
                udp.set_nonblocking(true).unwrap();
                all.tcp.push((at, tcp));
                all.udp.push((at, udp));
            }
        }
        all
    }

    /// Whose turn has come, since the last look.
    fn reached(&self, protocol: Protocol) -> Option<SocketAddr> {
        if protocol == Protocol::Tcp {
            let mut all = self.tcp.iter();
            all.find_map(|(at, server)| server.accept().is_ok().then_some(*at))
        } else {
            let mut all = self.udp.iter();
            all.find_map(|(at, server)| server.recv(&mut [0; 8]).is_ok().then_some(*at))
        }
    }

    fn await_one(&self, protocol: Protocol) -> Option<SocketAddr> {
        let begun = Instant::now();
        while begun.elapsed() < ARRIVES_WITHIN {
            if let Some(at) = self.reached(protocol) {
                return Some(at);
            }
            thread::yield_now();
        }
        None
    }
}

/// Beside loopback a network that takes everything and answers nothing, with the node's addresses.
fn network() {
    // Without ARP frames carry net0's own address, which is nobody's at the other end.
    run("ip link add net0 arp off type veth peer name net1");
    run("ip link set net1 up");
    run(&format!("ip addr add {}/24 dev net0", IpAddr::from(NODE_ADDRESS)));
    run(&format!("ip addr add {}/64 dev net0 nodad", IpAddr::from(NODE_ADDRESS_V6)));
    run("ip link set net0 up");
    for family in ["-4", "-6"] {
        run(&format!("ip {family} route add default dev net0"));
    }
}

/// A socket that has called connect(2), and what it was told; it waits for nobody.
fn connect(protocol: Protocol, to: SocketAddr) -> (Socket, Option<i32>) {
    let is_tcp = protocol == Protocol::Tcp;
    let kind = if is_tcp { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(to), kind, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    if is_tcp {
        // Nothing of it stays behind: ports are few.
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
    let told = socket.connect(&to.into()).map_err(|error: io::Error| error.raw_os_error());
    match told {
        Ok(()) => (socket, None),
        Err(error) if error == Some(libc::EINPROGRESS) => (socket, None),
        Err(error) => (socket, error),
    }
}

#[test]
fn a_hundred_thousand_connections_meet_what_is_explained() {
    world("a_hundred_thousand_connections_meet_what_is_explained", |world| {
        network();
        let endpoints = Endpoints::serve();
        let kernel = open(world);
        kernel.attach().unwrap();
        all_meet(&kernel, (2, 500), |random, maps, round| {
            let to = destination(random);
            let protocol = protocol(random);
            let foretold = explain::decide(maps, Client::Node, protocol, to).unwrap().verdict;
            let (socket, told) = connect(protocol, to);
            if protocol == Protocol::Udp && told.is_none() {
                // Where nobody is, an error may come back.
                let _ = socket.send(b"?");
            }
            let is_told = match &foretold {
                Verdict::Reject(_) => told == Some(libc::ECONNREFUSED),
                Verdict::Drop(_) => told == Some(libc::EHOSTUNREACH),
                Verdict::Pass => told.is_none() && endpoints.reached(protocol).is_none(),
                Verdict::Backends(all) => {
                    let at = endpoints.await_one(protocol);
                    let is_one = |at: SocketAddr| all.iter().any(|one| one.address == at);
                    told.is_none() && at.is_some_and(is_one)
                }
            };
            assert!(is_told, "round {round}: {protocol:?} {to}: {foretold:?}, met {told:?}");
            foretold
        });
    });
}
