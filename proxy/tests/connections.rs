//! The connection table: who meets which backend, from which port, and for how long.
#![expect(clippy::expect_used, reason = "clippy knows test functions, but not what they share")]

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use fairlead_ebpf::abi::{
    BACKEND_LOCAL, EGRESS, FrontendKey, INGRESS, Reason, TCP, Tuple, UDP, name,
};
use fairlead_proxy::{
    KernelOptions,
    attach::MapSizes,
    connections::{Sweep, Swept},
    delta::Step,
    maps::{Maps as _, kernel::KernelMaps},
};
use support::{
    frames::Packet,
    services::{address, frontend, node_port},
    uplink::{DROP, IN, NEXT, NODE_V4, OUT, POD, REDIRECT, Uplink, at},
    world::world,
};

mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

#[test]
fn who_steps_aside_leaves_service_addresses_to_the_next_and_keeps_connections() {
    let name = "who_steps_aside_leaves_service_addresses_to_the_next_and_keeps_connections";
    world(name, |world| {
        let cidrs = vec!["10.96.0.0/16".parse().unwrap()];
        let options = KernelOptions { service_cidrs: cidrs, ..world.options() };
        let mut uplink = Uplink::new(&options);
        uplink.put(frontend("10.96.0.1:80", TCP), 1, &["10.244.1.5:8080"], 0);
        let first = Packet::first(TCP, "10.244.0.9:40000", "10.96.0.1:80");
        assert_eq!(uplink.pass(POD, &first).to, at("10.244.1.5:8080"));
        KernelMaps::open_pinned(&world.bpffs).unwrap().step_aside().unwrap();
        assert_eq!(uplink.pass(POD, &first.later()).to, at("10.244.1.5:8080"), "open: kept");
        for to in ["10.96.0.1:80", "10.96.200.1:80"] {
            let new = Packet::first(TCP, "10.244.0.9:40001", to);
            assert_eq!(uplink.pass(POD, &new), new, "another proxy's, if anybody's");
        }
    });
}

/// Client, without its port, and what it dials: for both families.
const FAMILIES: [(bool, &str, &str); 2] =
    [(true, "203.0.113.9", "192.168.0.2:30080"), (false, "[2001:db8:9::9]", "[2001:db8::2]:30080")];

/// Backend number `n` of a family.
fn backend(is_ipv4: bool, n: u8) -> String {
    if is_ipv4 { format!("10.244.1.{n}:8080") } else { format!("[fd00:10::{n}]:8080") }
}

#[test]
fn repeated_syn_meets_the_same_backend() {
    world("repeated_syn_meets_the_same_backend", |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, (is_ipv4, client, dialled)) in (1..).zip(FAMILIES) {
            let backends: Vec<String> = (1..=9).map(|n| backend(is_ipv4, n)).collect();
            let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
            uplink.put(node_port(is_ipv4, 30080, TCP), set, &backends, 0);
            let mut met = BTreeSet::new();
            for port in 40000..40050 {
                let syn = Packet::first(TCP, &format!("{client}:{port}"), dialled);
                let backend = uplink.pass(IN, &syn).to;
                for _ in 0..5 {
                    assert_eq!(uplink.pass(IN, &syn).to, backend);
                }
                met.insert(backend);
            }
            assert!(met.len() >= 7, "50 connections to 9 backends met only {met:?}");
            assert_eq!(uplink.services(set), (50, 0), "a repeated SYN is no new connection");
        }
    });
}

#[test]
fn backend_that_left_keeps_its_connections_and_gets_no_new_ones() {
    world("backend_that_left_keeps_its_connections_and_gets_no_new_ones", |world| {
        let mut uplink = Uplink::new(&world.options());
        let replace = |uplink: &mut Uplink, key, set: u32, backends: &[&str]| {
            uplink.put(key, set, backends, 0);
            let gone = fairlead_ebpf::abi::BackendKey { set_id: set - 1, slot: 0 };
            uplink.maps.apply(&Step::DeleteBackends(vec![gone])).unwrap();
        };
        let mut set = 10;
        for (is_ipv4, client, dialled) in FAMILIES {
            let [old, new] = [5, 6].map(|n| backend(is_ipv4, n));
            let (old, new) = (old.as_str(), new.as_str());
            for protocol in [TCP, UDP] {
                set += 10;
                let key = node_port(is_ipv4, 30080, protocol);
                let first = Packet::first(protocol, &format!("{client}:40000"), dialled);
                replace(&mut uplink, key, set, &[old]);
                assert_eq!(uplink.pass(IN, &first).to, at(old));
                // Another joins: the connection stays where it is, whatever its slot is now.
                replace(&mut uplink, key, set + 1, &[new, old]);
                for packet in [first.clone(), first.later(), first.clone()] {
                    assert_eq!(uplink.pass(IN, &packet).to, at(old), "{protocol} {client}");
                }
                replace(&mut uplink, key, set + 2, &[new]);
                let kept = uplink.pass(IN, &first.later()).to;
                let expected = if protocol == TCP { old } else { new };
                assert_eq!(kept, at(expected), "{protocol} {client}: established, or a datagram");
                assert_eq!(uplink.pass(IN, &first).to, at(new), "{protocol} {client}: anew");
                let reply = uplink.pass(OUT, &uplink.pass(IN, &first));
                assert_eq!(reply.to, at(new));
            }
        }
    });
}

/// A packet of a connection that is known was counted twice: when its entry was found to be of no use,
/// and when it was opened anew.
#[test]
fn each_packet_of_a_known_flow_to_a_port_that_is_gone_is_counted_once() {
    world("each_packet_of_a_known_flow_to_a_port_that_is_gone_is_counted_once", |world| {
        let mut uplink = Uplink::new(&world.options());
        let mut met = 0;
        for (protocol, set) in [(UDP, 1), (TCP, 2)] {
            let service = format!("10.96.0.{set}:53");
            let key = frontend(&service, protocol);
            uplink.put(key, set, &["10.244.1.5:53"], BACKEND_LOCAL);
            let others = FrontendKey::other_ports(key.address);
            uplink.put(others, set, &[], 0);
            let first = Packet::first(protocol, "203.0.113.9:40000", &service);
            assert_eq!(uplink.pass(IN, &first).to, at("10.244.1.5:53"));
            uplink.maps.apply(&Step::DeleteFrontends(vec![key])).unwrap();
            for rejected in 1..=3 {
                assert_eq!(uplink.verdict_of(IN, &first.frame()), REDIRECT, "{service}");
                met += 1;
                assert_eq!(uplink.count(Reason::UnusedPort), met, "{service}");
                assert_eq!(uplink.services(set), (1, rejected), "{service}");
                assert_eq!(uplink.refused(set), [(Reason::UnusedPort, rejected)].into());
            }
        }
    });
}

#[test]
fn one_client_port_reaches_one_backend_by_two_services() {
    world("one_client_port_reaches_one_backend_by_two_services", |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, port) in [(1, 30080), (2, 30081)] {
            uplink.put(node_port(true, port, TCP), set, &["10.244.1.5:8080"], BACKEND_LOCAL);
        }
        let dialled = ["192.168.0.2:30080", "192.168.0.2:30081"];
        let syns = dialled.map(|dialled| Packet::first(TCP, "203.0.113.9:40000", dialled));
        let inside = syns.clone().map(|syn| uplink.pass(IN, &syn));
        assert_ne!(inside[0].from, inside[1].from, "replies could not be told apart");
        for (syn, inside) in syns.iter().zip(&inside) {
            let reply = uplink.pass(OUT, &inside.reply());
            assert_eq!((reply.from, reply.to), (syn.to, syn.from));
            assert_eq!(uplink.pass(IN, &syn.later()).from, inside.from);
        }
    });
}

#[test]
fn a_client_that_dials_a_backend_itself_from_the_port_of_a_services_connection_is_answered() {
    let name =
        "a_client_that_dials_a_backend_itself_from_the_port_of_a_services_connection_is_answered";
    world(name, |world| {
        for (flags, set) in [(BACKEND_LOCAL, 1), (0, 2)] {
            let mut uplink = Uplink::new(&world.options());
            uplink.put(node_port(true, 30080, TCP), set, &["10.244.1.5:8080"], flags);
            let client = format!("203.0.113.{set}:40000");
            let served = FromOutside {
                uplink: &uplink,
                first: Packet::first(TCP, &client, "192.168.0.2:30080"),
            };
            served.open();
            let own = FromOutside {
                uplink: &uplink,
                first: Packet::first(TCP, &client, "10.244.1.5:8080"),
            };
            for packet in [own.first.clone(), own.first.clone(), own.first.later()] {
                let there = own.there(&packet);
                assert_eq!(there.to, at("10.244.1.5:8080"));
                assert_ne!(there.from, packet.from, "replies could not be told apart");
                let back = own.and_back(&there.reply());
                assert_eq!((back.from, back.to), (packet.to, packet.from));
            }
            let back = served.and_back(&served.there(&served.first.later()).reply());
            assert_eq!((back.from, back.to), (served.first.to, served.first.from), "both go on");

            served.there(&served.first.reset());
            own.there(&own.first.reset());
            let begun = Instant::now();
            // An entry that has ended makes way: nothing is between the two then.
            while own.there(&own.first).from != own.first.from {
                own.there(&own.first.reset());
                assert!(begun.elapsed() < Duration::from_secs(10), "the port is never free again");
            }
            assert_eq!(own.and_back(&own.first.reply()), own.first.reply());
        }
    });
}

#[test]
fn connection_without_a_free_port_is_dropped_and_counted() {
    world("connection_without_a_free_port_is_dropped_and_counted", |world| {
        let options = KernelOptions { snat_ports: 61000..=61000, ..world.options() };
        let mut uplink = Uplink::new(&options);
        uplink.put(node_port(true, 30080, TCP), 1, &["10.244.1.5:8080"], 0);
        let [one, two] = [40000, 40001]
            .map(|port| Packet::first(TCP, &format!("203.0.113.9:{port}"), "192.168.0.2:30080"));
        uplink.pass(IN, &one);
        assert_eq!(uplink.verdict(IN, &two.frame()), DROP);
        assert_eq!(uplink.count(Reason::PortsExhausted), 1);
        assert_eq!(uplink.pass(IN, &one.later()).to, at("10.244.1.5:8080"), "the first goes on");
    });
}

/// Of ports taken at random, those a client's earlier connections still held were met ever more often: a client
/// that opened some thousand a second had packets dropped, though no two of its connections were alike.
#[test]
fn a_client_that_uses_all_its_ports_again_and_again_never_meets_its_own_earlier_connections() {
    let name =
        "a_client_that_uses_all_its_ports_again_and_again_never_meets_its_own_earlier_connections";
    world(name, |world| {
        const PORTS: u16 = 64;
        let options = KernelOptions { snat_ports: 61000..=61000 + PORTS - 1, ..world.options() };
        let mut uplink = Uplink::new(&options);
        for protocol in [TCP, UDP] {
            uplink.put(node_port(true, 30080, protocol), 1, &["10.244.1.5:8080"], 0);
        }
        for (protocol, round) in [(TCP, 0), (TCP, 1), (UDP, 0), (UDP, 1)] {
            let mut met = BTreeSet::new();
            for port in 40000..40000 + PORTS {
                let client = format!("203.0.113.9:{port}");
                let first = Packet::first(protocol, &client, "192.168.0.2:30080");
                let one = FromOutside { uplink: &uplink, first };
                let there = one.there(&one.first);
                assert_eq!(one.and_back(&there.reply()), one.first.reply(), "{client} {round}");
                met.insert(there.from);
                if protocol == TCP {
                    one.there(&one.first.reset());
                }
            }
            assert_eq!(met.len(), usize::from(PORTS), "round {round}");
        }
        assert_eq!(uplink.count(Reason::PortsExhausted), 0);
    });
}

/// A connection from outside to a backend on another node.
struct FromOutside<'a> {
    uplink: &'a Uplink,
    first: Packet,
}

impl FromOutside<'_> {
    fn there(&self, packet: &Packet) -> Packet {
        self.uplink.pass(OUT, &self.uplink.pass(IN, packet))
    }

    fn and_back(&self, at_backend: &Packet) -> Packet {
        self.uplink.pass(OUT, &self.uplink.pass(IN, at_backend))
    }

    fn open(&self) {
        self.and_back(&self.there(&self.first).reply());
        self.there(&self.first.later());
    }
}

/// The entries of one connection age in twos: when a closing was noted in the outer two only by half, the
/// inner two left long before them, and a client that came back to its port was led out as itself.
#[test]
fn a_client_that_opens_again_what_has_half_left_the_table_is_led_there_and_back() {
    let name = "a_client_that_opens_again_what_has_half_left_the_table_is_led_there_and_back";
    world(name, |world| {
        for gone in [EGRESS, INGRESS] {
            let mut uplink = Uplink::new(&world.options());
            uplink.put(node_port(true, 30080, TCP), 1, &["10.244.1.5:8080"], 0);
            let client = format!("203.0.113.9:{}", 40000 + u16::from(gone));
            let first = Packet::first(TCP, &client, "192.168.0.2:30080");
            let again = FromOutside { uplink: &uplink, first };
            again.open();
            let node = at(&format!("{NODE_V4}:0")).ip();
            assert_eq!(again.there(&again.first.later()).from.ip(), node);
            let backend = address(at("10.244.1.5:0").ip());
            let inner = |key: &Tuple| match gone {
                EGRESS => key.hook == EGRESS && key.destination == backend,
                _ => key.hook == INGRESS && key.source == backend,
            };
            assert_ne!(forget(&world.bpffs, inner), 0, "it was there");
            let there = again.there(&again.first);
            assert_eq!((there.from.ip(), there.to), (node, at("10.244.1.5:8080")));
            let back = again.and_back(&there.reply());
            assert_eq!((back.from, back.to), (again.first.to, again.first.from));
        }
    });
}

/// Takes entries out of the table; how many.
fn forget(bpffs: &Path, which: impl Fn(&Tuple) -> bool) -> usize {
    let mut count = 0;
    for name in [name::CONNECTIONS, name::OPENINGS] {
        let data = MapData::from_pin(bpffs.join("fairlead/maps").join(name)).expect("pinned");
        let mut table =
            HashMap::<_, [u8; 40], [u8; 36]>::try_from(Map::LruHashMap(data)).expect("a hash map");
        let keys: Vec<[u8; 40]> = table.keys().map_while(Result::ok).collect();
        for key in
            keys.into_iter().filter(|key| which(&bytemuck::pod_read_unaligned(key.as_slice())))
        {
            table.remove(&key).expect("it is there");
            count += 1;
        }
    }
    count
}

#[test]
fn source_ports_of_ended_connections_serve_again_and_those_of_open_ones_do_not() {
    let name = "source_ports_of_ended_connections_serve_again_and_those_of_open_ones_do_not";
    world(name, |world| {
        for (is_broken_off, port) in [(false, 61000), (true, 61001)] {
            let options = KernelOptions { snat_ports: port..=port, ..world.options() };
            let mut uplink = Uplink::new(&options);
            uplink.put(node_port(true, 30080, TCP), 1, &["10.244.1.5:8080"], 0);
            let syn =
                |n: u8| Packet::first(TCP, &format!("203.0.113.{n}:{port}"), "192.168.0.2:30080");
            let one = FromOutside { uplink: &uplink, first: syn(1) };
            one.open();
            let two = syn(2).frame();
            let one_says_fin = one.there(&one.first.fin());
            assert_eq!(uplink.verdict(IN, &two), DROP, "one side may go on for long");
            if is_broken_off {
                one.there(&one.first.reset());
            } else {
                one.and_back(&one_says_fin.reply().fin());
                one.there(&one.first.later());
            }
            let begun = Instant::now();
            while uplink.verdict_of(IN, &two) == DROP {
                assert!(begun.elapsed() < Duration::from_secs(10), "the port is never free again");
            }
            let two = FromOutside { uplink: &uplink, first: syn(2) };
            let met = two.and_back(&two.there(&two.first).reply());
            assert_eq!((met.from, met.to), (two.first.to, two.first.from));
        }
    });
}

#[test]
fn syn_flood_pushes_out_no_connection_that_is_open() {
    world("syn_flood_pushes_out_no_connection_that_is_open", |world| {
        const FLOOD: u16 = 20_000;
        let sizes = MapSizes { connections: 8192, openings: 2048, ..MapSizes::default() };
        let mut uplink = Uplink::new(&KernelOptions { sizes, ..world.options() });
        for protocol in [TCP, UDP] {
            uplink.put(node_port(true, 30080, protocol), 1, &["10.244.1.5:8080"], 0);
        }
        let from = |protocol, client: &str| Packet::first(protocol, client, "192.168.0.2:30080");
        let open = FromOutside { uplink: &uplink, first: from(TCP, "203.0.113.9:40001") };
        let stream = FromOutside { uplink: &uplink, first: from(UDP, "203.0.113.9:40002") };
        [&open, &stream].into_iter().for_each(FromOutside::open);
        for n in 0..FLOOD {
            let [high, low] = n.to_be_bytes();
            let client = format!("198.18.{high}.{low}:1024");
            let syn = from(TCP, &client);
            // The backend answers each, as it does with SYN cookies, too.
            let run = uplink.kernel.run_on_packet(IN, &syn.frame(), 1).unwrap();
            if run.verdict == NEXT {
                let at_backend = uplink.pass(OUT, &Packet::read(&run.packet));
                uplink.pass(OUT, &uplink.pass(IN, &at_backend.reply()));
            }
        }
        for one in [&open, &stream] {
            let later = one.there(&one.first.later());
            assert_eq!(later.to, at("10.244.1.5:8080"));
            let back = one.and_back(&later.reply());
            assert_eq!((back.from, back.to), (one.first.to, one.first.from));
        }
        let entries = uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap().entries;
        assert!(
            (8..=2048 + 8).contains(&entries),
            "{entries} entries: openings have their own room"
        );
    });
}

#[test]
fn many_short_connections_push_out_none_that_is_open_and_silent() {
    world("many_short_connections_push_out_none_that_is_open_and_silent", |world| {
        const SHORT: u16 = 4000;
        let sizes = MapSizes { connections: 2048, openings: 2048, ..MapSizes::default() };
        let mut uplink = Uplink::new(&KernelOptions { sizes, ..world.options() });
        for is_ipv4 in [true, false] {
            let at_backend = backend(is_ipv4, 5);
            uplink.put(node_port(is_ipv4, 30080, TCP), u32::from(is_ipv4) + 1, &[&at_backend], 0);
        }
        for (is_ipv4, client, dialled) in FAMILIES {
            let from = |port: u16| FromOutside {
                uplink: &uplink,
                first: Packet::first(TCP, &format!("{client}:{port}"), dialled),
            };
            let silent = from(999);
            silent.open();
            for n in 0..SHORT {
                let short = from(1024 + n);
                short.open();
                let last = short.there(&short.first.fin());
                if n % 2 == 0 {
                    short.and_back(&last.reply().fin());
                } else {
                    short.there(&short.first.reset());
                }
            }
            let later = silent.there(&silent.first.later());
            assert_eq!(later.to, at(&backend(is_ipv4, 5)));
            let back = silent.and_back(&later.reply());
            assert_eq!((back.from, back.to), (silent.first.to, silent.first.from));
        }
    });
}

/// A client that gives a download up answers each segment that was on its way with a reset.
#[test]
fn a_connection_that_was_broken_off_is_not_taken_for_open_by_what_was_on_its_way() {
    let name = "a_connection_that_was_broken_off_is_not_taken_for_open_by_what_was_on_its_way";
    world(name, |world| {
        let mut uplink = Uplink::new(&world.options());
        uplink.put(node_port(true, 30080, TCP), 1, &["10.244.1.5:8080"], 0);
        let first = Packet::first(TCP, "203.0.113.9:40000", "192.168.0.2:30080");
        let download = FromOutside { uplink: &uplink, first };
        download.open();
        let settled = || uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap().settled;
        assert_eq!(settled(), 4);
        let segment = download.there(&download.first.later()).reply();
        download.there(&download.first.reset());
        assert_eq!(settled(), 0);
        for _ in 0..3 {
            download.and_back(&segment);
            download.there(&download.first.reset());
            assert_eq!(settled(), 0);
        }
    });
}

/// Who forges a reset knows the ports, but not the numbers: both ends talk on, and their connection is as safe as before.
#[test]
fn a_connection_that_goes_on_after_a_forged_reset_is_pushed_out_by_no_flood() {
    world("a_connection_that_goes_on_after_a_forged_reset_is_pushed_out_by_no_flood", |world| {
        let sizes = MapSizes { connections: 2048, openings: 2048, ..MapSizes::default() };
        let mut uplink = Uplink::new(&KernelOptions { sizes, ..world.options() });
        uplink.put(node_port(true, 30080, TCP), 1, &["10.244.1.5:8080"], 0);
        let from = |client: String| Packet::first(TCP, &client, "192.168.0.2:30080");
        let open = FromOutside { uplink: &uplink, first: from("203.0.113.9:999".into()) };
        open.open();
        open.there(&open.first.reset());
        open.and_back(&open.there(&open.first.later()).reply());
        for n in 0..8000_u16 {
            let [high, low] = n.to_be_bytes();
            let syn = from(format!("198.18.{high}.{low}:1024")).frame();
            uplink.kernel.run_on_packet(IN, &syn, 1).unwrap();
        }
        let later = open.there(&open.first.later());
        assert_eq!(later.to, at("10.244.1.5:8080"));
        let back = open.and_back(&later.reply());
        assert_eq!((back.from, back.to), (open.first.to, open.first.from));
    });
}

#[test]
fn what_is_over_leaves_the_table_and_what_is_open_stays() {
    world("what_is_over_leaves_the_table_and_what_is_open_stays", |world| {
        let mut uplink = Uplink::new(&world.options());
        for protocol in [TCP, UDP] {
            uplink.put(node_port(true, 30080, protocol), 1, &["10.244.1.5:8080"], 0);
        }
        let from = |protocol, client: &str| Packet::first(protocol, client, "192.168.0.2:30080");
        let open = FromOutside { uplink: &uplink, first: from(TCP, "203.0.113.9:40001") };
        let ended = FromOutside { uplink: &uplink, first: from(TCP, "203.0.113.9:40002") };
        let datagrams = FromOutside { uplink: &uplink, first: from(UDP, "203.0.113.9:40003") };
        [&open, &ended, &datagrams].into_iter().for_each(FromOutside::open);
        ended.there(&ended.first.reset());
        let connections = uplink.kernel.connections().unwrap();
        let all = Swept { entries: 12, removed: 0, settled: 8 };
        assert_eq!(connections.sweep(Sweep::Over).unwrap(), all, "all of them may go on");

        let begun = Instant::now();
        let mut removed = 0;
        while removed < 8 {
            removed += connections.sweep(Sweep::Loose).unwrap().removed;
            assert!(begun.elapsed() < Duration::from_secs(10), "{removed} of 8 left");
        }
        let rest = Swept { entries: 4, removed: 0, settled: 4 };
        assert_eq!(connections.sweep(Sweep::Loose).unwrap(), rest);
        assert_eq!(open.there(&open.first.later()).to, at("10.244.1.5:8080"));
    });
}
