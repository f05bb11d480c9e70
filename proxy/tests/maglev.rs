//! Consistent hashing in the programs: nodes agree on a flow's backend, and few flows move.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeSet, fs, net::SocketAddr, sync::Arc};

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
    uplink::{IN, POD, Uplink, at},
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
        Self { uplink, sync }
    }

    fn serve(&mut self, snapshot: &Snapshot) {
        let report = self.sync.reconcile(snapshot);
        assert_eq!((report.error, report.behind), (None, 0));
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

fn endpoints(count: u8) -> Vec<Change> {
    let addresses = |net: &str| (1..=count).map(|n| format!("{net}{n}")).collect::<Vec<_>>();
    vec![
        objects::put_slice(slice("web-4", &addresses("10.244.1."))),
        objects::put_slice(slice("web-6", &addresses("fd00:10::"))),
    ]
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
        let association = |node: &Node, port: u16| {
            let frame = sctp(&format!("203.0.113.9:{port}"), "192.168.0.2:30080", 1);
            read_sctp(&node.uplink.kernel.run_on_packet(IN, &frame, 1).unwrap().packet).1
        };
        for port in 10_000..10_100 {
            assert_eq!(association(&a, port), association(&b, port), "protocol {SCTP}");
        }
    });
}

#[test]
fn an_endpoint_that_leaves_moves_few_flows_of_others_and_no_connection() {
    world("an_endpoint_that_leaves_moves_few_flows_of_others_and_no_connection", |world| {
        let mut cluster = Cluster::new();
        let mut node = Node::new(world, "node-a", 1024);
        let to = "192.168.0.2:30080";
        node.serve(
            &cluster.apply([objects::put_service(service())].into_iter().chain(endpoints(10))),
        );
        let before = node.chosen(IN, TCP, "203.0.113.9", to);
        node.serve(&cluster.apply(endpoints(9)));
        let later = |port: u16| {
            let first = Packet::first(TCP, &format!("203.0.113.9:{port}"), to);
            node.uplink.pass(IN, &first.later()).to
        };
        let kept: Vec<SocketAddr> = (10_000..10_000 + FLOWS).map(later).collect();
        assert_eq!(kept, before, "connections stay, also with the one that left");
        // Another node, or this one after a restart that lost everything, would choose so.
        let mut other = Node::new(world, "node-b", 1024);
        other.serve(&cluster.newest());
        let after = other.chosen(IN, TCP, "203.0.113.9", to);
        let gone = at("10.244.1.10:8080");
        let moved = before.iter().zip(&after).filter(|(old, new)| old != new && **old != gone);
        let moved = moved.count();
        assert!(moved <= usize::from(FLOWS) / 100, "{moved} of {FLOWS} flows moved");
        assert!(before.contains(&gone) && !after.contains(&gone));
    });
}

#[test]
fn policy_local_hashes_among_the_local_ones_and_affinity_hashes_by_address_alone() {
    let test = "policy_local_hashes_among_the_local_ones_and_affinity_hashes_by_address_alone";
    world(test, |world| {
        let mut cluster = Cluster::new();
        let [mut a, mut b] = ["node-a", "node-b"].map(|name| Node::new(world, name, 256));
        let to = "192.168.0.2:30080";
        let local = Service { external_traffic_policy: TrafficPolicy::Local, ..service() };
        let snapshot = cluster.apply([objects::put_service(local)].into_iter().chain(endpoints(6)));
        a.serve(&snapshot);
        b.serve(&snapshot);
        let met = |node: &Node| -> BTreeSet<SocketAddr> {
            node.chosen(IN, TCP, "203.0.113.9", to).into_iter().collect()
        };
        let own = |first: u8| (first..=6).step_by(2).map(|n| at(&format!("10.244.1.{n}:8080")));
        assert_eq!([met(&a), met(&b)], [own(1).collect(), own(2).collect()]);

        let affinity = SessionAffinity::ClientIp { timeout_seconds: 600 };
        let sticky = objects::with(service(), |extras| extras.session_affinity = affinity);
        let snapshot = cluster.apply([objects::put_service(sticky)]);
        a.serve(&snapshot);
        b.serve(&snapshot);
        let mut all = BTreeSet::new();
        for last in 20..60 {
            let client = format!("203.0.113.{last}");
            let [here, there] = [&a, &b].map(|node| node.first_chosen(20, IN, UDP, &client, to));
            assert!(here.iter().chain(&there).all(|backend| *backend == here[0]), "{client}");
            all.insert(here[0]);
        }
        assert_eq!(all.len(), 6, "clients spread");
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
        let to = "192.168.0.2:30080";
        let mut agent = Node::over(&options, "node-a", 256);
        let random = objects::with(service(), |extras| {
            extras.load_balancing = LoadBalancing::Random;
        });
        agent.serve(
            &Cluster::new().apply([objects::put_service(random)].into_iter().chain(endpoints(9))),
        );
        let mut open = agent.chosen(IN, TCP, "203.0.113.9", to);
        drop(agent);
        fs::remove_file(options.bpffs.join("fairlead/maps/maglev_v3")).unwrap();
        for (places, client) in [(256, "203.0.113.10"), (512, "203.0.113.11")] {
            let mut agent = Node::over(&options, "node-a", places);
            agent.serve(&snapshot);
            let later = |port: u16| {
                let first = Packet::first(TCP, &format!("203.0.113.9:{port}"), to);
                agent.uplink.pass(IN, &first.later()).to
            };
            let kept: Vec<SocketAddr> = (10_000..10_000 + FLOWS).map(later).collect();
            assert_eq!(kept, open, "{places} places");
            // New ones by the table: as on a node that never was another.
            let fresh = agent.chosen(IN, UDP, client, to);
            let mut other = Node::new(world, &format!("node-{places}"), places);
            other.serve(&snapshot);
            assert_eq!(fresh, other.chosen(IN, UDP, client, to));
            open = kept;
        }
    });
}
