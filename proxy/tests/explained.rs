//! What is explained is what packets meet: random Services in kernel maps, random packets through the
//! real programs, and for each the decision that `explain` predicts from the same maps.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use fairlead_ebpf::abi::{NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS};
use fairlead_proxy::{
    Kernel, KernelOptions, Synchroniser,
    explain::{self, Client, LiveMaps, Verdict, Why},
};
use fairlead_state::model::Protocol;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use support::{frames::Packet, services::address, world::world};

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
const PACKETS: u32 = 400;
const NODE_ADDRESS: [u8; 4] = [192, 168, 0, 2];

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

#[test]
fn a_hundred_thousand_packets_meet_what_is_explained() {
    world("a_hundred_thousand_packets_meet_what_is_explained", |world| {
        let options = KernelOptions {
            service_cidrs: vec!["10.96.0.0/28".parse().unwrap()],
            ..world.options()
        };
        let kernel = Kernel::open(&options).unwrap();
        let node = address(NODE_ADDRESS.into());
        let flags = NODE_ADDRESS_OWN | NODE_ADDRESS_PORTS;
        // Without an address of the family nothing is translated towards other nodes.
        let node_v6 = address(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2]));
        kernel.set_node(&[(node, flags), (node_v6, flags)].into(), node, node_v6).unwrap();
        let mut sync = Synchroniser::new(kernel.maps().unwrap(), NODE);
        let mut cluster = Cluster::new();
        let mut random = StdRng::seed_from_u64(1);
        let mut clients = Clients(0);
        let mut met: BTreeMap<&str, u32> = BTreeMap::new();
        for round in 0..ROUNDS {
            let changes: Vec<_> = (0..8).map(|_| random::change(&mut random)).collect();
            let snapshot = cluster.apply(changes);
            assert_eq!(sync.reconcile(&snapshot).error, None);
            let maps = LiveMaps::of(&kernel).unwrap();
            for _ in 0..PACKETS {
                let to = destination(&mut random);
                let from = clients.next(&mut random, to.ip());
                let protocol = if random.random_bool(0.7) { Protocol::Tcp } else { Protocol::Udp };
                let (hook, client) = if random.random_bool(0.3) {
                    ("pod_ingress", Client::Pod(Some(from.ip())))
                } else {
                    ("uplink_ingress", Client::Outside(from.ip()))
                };
                let packet = Packet::first(protocol.number(), &from.to_string(), &to.to_string());
                let run = kernel.run_on_packet(hook, &packet.frame(), 1).unwrap();
                let foretold = explain::decide(&maps, client, protocol, to).unwrap().verdict;
                let after = Packet::read_unchecked(&run.packet);
                let is_told = agrees(&foretold, run.verdict, to, &after);
                let fate = run.verdict;
                assert!(
                    is_told,
                    "round {round}: {hook} {packet:?}: {foretold:?}, met {fate}: {after:?}"
                );
                let kind = match foretold {
                    Verdict::Pass => "pass",
                    Verdict::Backends(_) => "backends",
                    Verdict::Reject(_) => "reject",
                    Verdict::Drop(_) => "drop",
                };
                *met.entry(kind).or_default() += 1;
            }
        }

        // A test that met but one kind would prove little.
        assert!(met.len() == 4 && met.values().all(|count| *count > 1000), "{met:?}");
    });
}
