//! Consistent hashing in the programs: nodes agree on a flow's backend, and few flows move.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, fs, net::SocketAddr, path::PathBuf, sync::Arc};

use fairlead_ebpf::abi::{SCTP, TCP, UDP};
use fairlead_proxy::{
    Kernel, KernelOptions, Synchroniser, TableSize, maps::kernel::KernelMaps, plan::Rules,
};
use fairlead_state::{
    Change, Snapshot,
    model::{EndpointSlice, LoadBalancing, Protocol, Service, SessionAffinity, TrafficPolicy},
};
use objects::Cluster;
use support::{
    frames::{Packet, read_sctp, sctp},
    uplink::{IN, POD, Uplink},
    world::{World, world},
};

#[allow(dead_code, reason = "shared with the tests of Services")]
#[path = "services/objects.rs"]
mod objects;
mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

const FLOWS: u16 = 2000;

/// Whichever node it is, the same programs in maps of its own.
struct Node {
    bpffs: PathBuf,
    uplink: Uplink,
    sync: Synchroniser<KernelMaps>,
}

impl Node {
    fn new(world: &World, name: &str, places: u32) -> Self {
        Self::over(&options(world, name), name, places)
    }

    fn over(options: &KernelOptions, name: &str, places: u32) -> Self {
        let uplink = Uplink::new(options);
        let maglev_table = TableSize::with(places).unwrap();
        let rules = Rules { maglev_table, ..Rules::default() };
        let sync = Synchroniser::new(uplink.kernel.maps().unwrap(), name).with_rules(rules);
        Self { bpffs: options.bpffs.clone(), uplink, sync }
    }

    fn serve(&mut self, snapshot: &Snapshot) {
        let report = self.sync.reconcile(snapshot);
        assert_eq!((report.error, report.behind), (None, 0));
    }

    /// It never was: the next begins with no map of its.
    fn forget(self) {
        let bpffs = self.bpffs.clone();
        drop(self);
        Kernel::cleanup(&bpffs).unwrap();
    }

    /// Which backend each of many flows gets.
    fn chosen(&self, hook: &'static str, protocol: u8, client: &str, to: &str) -> Vec<SocketAddr> {
        self.first_chosen(FLOWS, hook, protocol, client, to)
    }

    /// The same for so many.
    fn first_chosen(
        &self,
        flows: u16,
        hook: &'static str,
        protocol: u8,
        client: &str,
        to: &str,
    ) -> Vec<SocketAddr> {
        let flow = |port: u16| {
            let from = format!("{client}:{port}");
            let packet = Packet::first(protocol, &from, to);
            self.uplink.pass(hook, &packet).to
        };
        (10_000..10_000 + flows).map(flow).collect()
    }
}

/// A BPF file system within the world's own, so that nodes share no pin.
fn options(world: &World, node: &str) -> KernelOptions {
    let bpffs = world.bpffs.join(node.replace('-', "_"));
    drop(Kernel::open(&world.options()).unwrap());
    fs::create_dir_all(&bpffs).unwrap();
    KernelOptions { bpffs, ..world.options() }
}

fn service() -> Service {
    let service = Service {
        cluster_ips: [objects::ip("10.96.0.1"), objects::ip("fd00:96::1")].into(),
        ports: Arc::new([
            objects::port("tcp", Protocol::Tcp, 80, Some(30080)),
            objects::port("udp", Protocol::Udp, 80, Some(30080)),
            objects::port("sctp", Protocol::Sctp, 80, Some(30080)),
        ]),
        ..objects::service("web", "10.96.0.1")
    };
    objects::with(service, |extras| extras.load_balancing = LoadBalancing::Maglev)
}

/// Endpoints, every other on the first node.
fn slice(name: &str, addresses: &[String]) -> EndpointSlice {
    let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let slice = objects::slice(name, "web", &texts);
    let endpoints = slice.endpoints.iter().zip(["node-a", "node-b"].iter().cycle());
    let endpoints = endpoints.map(|(endpoint, node)| {
        let node_name = Some((*node).into());
        fairlead_state::model::Endpoint { node_name, ..endpoint.clone() }
    });
    let ports = ["tcp", "udp", "sctp"].map(|name| {
        let protocol = match name {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => Protocol::Sctp,
        };
        objects::endpoint_port(name, protocol, 8080)
    });
    EndpointSlice { endpoints: endpoints.collect(), ports: ports.into(), ..slice }
}

/// Number `n` of a family.
fn endpoint(is_ipv4: bool, n: u16) -> String {
    let [high, low] = n.to_be_bytes();
    if is_ipv4 {
        format!("10.244.{}.{low}", u16::from(high) + 1)
    } else {
        format!("fd00:10::{n:x}")
    }
}

fn endpoints(count: u16) -> Vec<Change> {
    let put = |(name, is_ipv4)| {
        let addresses: Vec<String> = (1..=count).map(|n| endpoint(is_ipv4, n)).collect();
        objects::put_slice(slice(name, &addresses))
    };
    [("web-4", true), ("web-6", false)].map(put).into()
}

fn at_endpoint(is_ipv4: bool, n: u16) -> SocketAddr {
    SocketAddr::new(objects::ip(&endpoint(is_ipv4, n)), 8080)
}

#[test]
fn two_nodes_send_a_flow_to_the_same_endpoint_whatever_it_dialled() {
    world("two_nodes_send_a_flow_to_the_same_endpoint_whatever_it_dialled", |world| {
        let mut cluster = Cluster::new();
        let changes = [objects::put_service(service())].into_iter().chain(endpoints(9));
        let snapshot = cluster.apply(changes);
        let mut nodes = ["node-a", "node-b"].map(|name| Node::new(world, name, 1024));
        nodes.iter_mut().for_each(|node| node.serve(&snapshot));
        let [a, b] = nodes;
        for (client, node_port, cluster_ip) in [
            ("203.0.113.9", "192.168.0.2:30080", "10.96.0.1:80"),
            ("[2001:db8:9::9]", "[2001:db8::2]:30080", "[fd00:96::1]:80"),
        ] {
            for protocol in [TCP, UDP] {
                let there = a.chosen(IN, protocol, client, node_port);
                assert_eq!(b.chosen(IN, protocol, client, node_port), there);
                let met: BTreeSet<SocketAddr> = there.iter().copied().collect();
                assert_eq!(met.len(), 9, "every endpoint has its share");
                // Of packets of pods the same, and at another address of the Service.
                let other = client.replace("113.9", "113.10").replace("9::9", "9::a");
                let [by_port, by_ip] = [node_port, cluster_ip]
                    .map(|to| [&a, &b].map(|node| node.chosen(POD, protocol, &other, to)));
                assert_eq!(by_port, by_ip);
                assert_eq!(by_ip[0], by_ip[1]);
            }
        }
        for (_, client, to) in CLIENTS {
            let association = |node: &Node, port: u16| {
                let frame = sctp(&format!("{client}:{port}"), to, 1);
                read_sctp(&node.uplink.kernel.run_on_packet(IN, &frame, 1).unwrap().packet).1
            };
            for port in 10_000..10_100 {
                assert_eq!(association(&a, port), association(&b, port), "protocol {SCTP}");
            }
        }
    });
}

/// A client, and the NodePort it dials, in each family.
const CLIENTS: [(bool, &str, &str); 2] =
    [(true, "203.0.113.9", "192.168.0.2:30080"), (false, "[2001:db8:9::9]", "[2001:db8::2]:30080")];
/// Places of a table, and endpoints: the usual, the most that have a hundred places each in a table of a middle size,
/// and more than a thousand in the largest.
const SIZES: [(u32, u16); 3] = [(1024, 10), (8192, 80), (65_536, 1001)];
/// Enough for the least of a thousand endpoints to have some.
const MANY_FLOWS: u16 = 5000;

/// What became of flows between two sets, one of which has the endpoint `other` and the other has not.
fn assert_few_moved(test: &str, with: &[SocketAddr], without: &[SocketAddr], other: SocketAddr) {
    let moved = with.iter().zip(without).filter(|(with, without)| with != without);
    let moved = moved.filter(|(with, _)| **with != other).count();
    assert!(moved <= with.len() / 100, "{test}: {moved} flows of others moved");
    assert!(with.contains(&other) && !without.contains(&other), "{test}: {other} has its share");
}

#[test]
fn an_endpoint_that_leaves_or_joins_moves_few_flows_of_others_and_no_connection() {
    world(
        "an_endpoint_that_leaves_or_joins_moves_few_flows_of_others_and_no_connection",
        |world| {
            for (places, count) in SIZES {
                let chosen = |node: &Node| {
                    CLIENTS
                        .map(|(_, client, to)| node.first_chosen(MANY_FLOWS, IN, TCP, client, to))
                };
                let mut cluster = Cluster::new();
                let mut node = Node::new(world, &format!("node-{places}"), places);
                let all = [objects::put_service(service())].into_iter().chain(endpoints(count));
                node.serve(&cluster.apply(all));
                let before = chosen(&node);
                let met =
                    before.each_ref().map(|chosen| chosen.iter().collect::<BTreeSet<_>>().len());
                assert!(
                    met.iter().all(|met| *met > usize::from(count) / 10 * 9),
                    "{places}: {met:?}"
                );
                for (change, count, other) in
                    [("leaves", count - 1, count), ("joins", count + 1, count + 1)]
                {
                    node.serve(&cluster.apply(endpoints(count)));
                    for ((_, client, to), open) in CLIENTS.into_iter().zip(&before) {
                        let later = (10_000..).zip(open).map(|(port, _)| {
                            let first = Packet::first(TCP, &format!("{client}:{port}"), to);
                            node.uplink.pass(IN, &first.later()).to
                        });
                        assert!(
                            later.eq(open.iter().copied()),
                            "{to}: connections stay, as one {change}"
                        );
                    }
                    // Another node, or this one after a restart that lost everything, chooses so.
                    let mut fresh = Node::new(world, &format!("node-{places}-{change}"), places);
                    fresh.serve(&cluster.newest());
                    let after = chosen(&fresh);
                    for (((is_ipv4, ..), before), after) in
                        CLIENTS.into_iter().zip(&before).zip(&after)
                    {
                        let test =
                            format!("{places} places: one of {count} {change}, IPv4: {is_ipv4}");
                        let (with, without) =
                            if change == "joins" { (after, before) } else { (before, after) };
                        assert_few_moved(&test, with, without, at_endpoint(is_ipv4, other));
                    }
                    fresh.forget();
                }
                node.forget();
            }
        },
    );
}

#[test]
fn policy_local_hashes_among_the_local_ones_and_affinity_hashes_by_address_alone() {
    let test = "policy_local_hashes_among_the_local_ones_and_affinity_hashes_by_address_alone";
    world(test, |world| {
        let mut cluster = Cluster::new();
        let [mut a, mut b] = ["node-a", "node-b"].map(|name| Node::new(world, name, 256));
        let local = Service { external_traffic_policy: TrafficPolicy::Local, ..service() };
        let snapshot = cluster.apply([objects::put_service(local)].into_iter().chain(endpoints(6)));
        a.serve(&snapshot);
        b.serve(&snapshot);
        for (is_ipv4, client, to) in CLIENTS {
            let met = |node: &Node| -> BTreeSet<SocketAddr> {
                node.chosen(IN, TCP, client, to).into_iter().collect()
            };
            let own = |first: u16| (first..=6).step_by(2).map(|n| at_endpoint(is_ipv4, n));
            assert_eq!([met(&a), met(&b)], [own(1).collect(), own(2).collect()]);
        }

        let affinity = SessionAffinity::ClientIp { timeout_seconds: 600 };
        let sticky = objects::with(service(), |extras| extras.session_affinity = affinity);
        let snapshot = cluster.apply([objects::put_service(sticky)]);
        a.serve(&snapshot);
        b.serve(&snapshot);
        for (_, client, to) in CLIENTS {
            let mut all = BTreeSet::new();
            for last in 20..60 {
                let client = client.replace("113.9", &format!("113.{last}"));
                let client = client.replace("9::9", &format!("9::{last}"));
                let [here, there] =
                    [&a, &b].map(|node| node.first_chosen(20, IN, UDP, &client, to));
                assert!(here.iter().chain(&there).all(|met| *met == here[0]), "{client}");
                all.insert(here[0]);
            }
            assert_eq!(all.len(), 6, "clients spread");
        }
    });
}

/// An upgrade from before there were tables, and one to another size of them.
#[test]
fn connections_outlive_agents_without_tables_and_with_others() {
    world("connections_outlive_agents_without_tables_and_with_others", |world| {
        let mut cluster = Cluster::new();
        let snapshot =
            cluster.apply([objects::put_service(service())].into_iter().chain(endpoints(9)));
        let options = options(world, "node-a");
        let mut agent = Node::over(&options, "node-a", 256);
        let random = objects::with(service(), |extras| {
            extras.load_balancing = LoadBalancing::Random;
        });
        agent.serve(
            &Cluster::new().apply([objects::put_service(random)].into_iter().chain(endpoints(9))),
        );
        let chosen = |node: &Node, protocol, clients: [&str; 2]| {
            let dialled = CLIENTS.map(|(_, _, to)| to).into_iter().zip(clients);
            dialled.map(|(to, client)| node.chosen(IN, protocol, client, to)).collect::<Vec<_>>()
        };
        let mut open = chosen(&agent, TCP, CLIENTS.map(|(_, client, _)| client));
        drop(agent);
        fs::remove_file(options.bpffs.join("fairlead/maps/maglev_v3")).unwrap();
        for (places, clients) in
            [(256, ["203.0.113.10", "[2001:db8:9::a]"]), (512, ["203.0.113.11", "[2001:db8:9::b]"])]
        {
            let mut agent = Node::over(&options, "node-a", places);
            agent.serve(&snapshot);
            let kept = CLIENTS.map(|(_, client, to)| {
                let later = |port: u16| {
                    let first = Packet::first(TCP, &format!("{client}:{port}"), to);
                    agent.uplink.pass(IN, &first.later()).to
                };
                (10_000..10_000 + FLOWS).map(later).collect::<Vec<_>>()
            });
            assert_eq!(kept[..], open, "{places} places");
            // New ones by the table: as on a node that never was another.
            let fresh = chosen(&agent, UDP, clients);
            let mut other = Node::new(world, &format!("node-{places}"), places);
            other.serve(&snapshot);
            assert_eq!(fresh, chosen(&other, UDP, clients));
            open = kept.into();
        }
    });
}
