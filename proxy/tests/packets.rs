//! The packet programs on single frames: what comes out, and what is counted.

use std::{collections::BTreeSet, net::SocketAddr};

use bytemuck::Zeroable;
use fairlead_ebpf::abi::{
    BACKEND_LOCAL, FRONTEND_FOREIGN, FrontendKey, FrontendValue, Reason, SCTP, TCP, UDP,
};
use fairlead_proxy::{KernelOptions, delta::Step, maps::Maps as _};
use support::{
    frames::{Packet, read_sctp, read_unreachable, sctp, without_checksum},
    services::{address, frontend, node_port},
    uplink::{DROP, IN, NEXT, NODE_V4, NODE_V6, OUT, POD, REDIRECT, Uplink, at},
    world::world,
};

mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

/// Client, what it dials, backend: for both families.
const FAMILIES: [(bool, &str, &str, &str, &str); 2] = [
    (true, "203.0.113.9:40000", "192.168.0.2:30080", "10.244.1.5:8080", "10.96.0.1:80"),
    (false, "[2001:db8:9::9]:40000", "[2001:db8::2]:30080", "[fd00:10::5]:8080", "[fd00:96::1]:80"),
];

#[test]
fn local_backend_sees_the_client_and_answers_as_the_node() {
    world("local_backend_sees_the_client_and_answers_as_the_node", |world| {
        let mut uplink = Uplink::new(&world.options());
        let mut set = 0;
        for (is_ipv4, client, dialled, backend, cluster_ip) in FAMILIES {
            for protocol in [TCP, UDP] {
                for (key, dialled) in [
                    (node_port(is_ipv4, 30080, protocol), dialled),
                    (frontend(cluster_ip, protocol), cluster_ip),
                ] {
                    set += 1;
                    uplink.put(key, set, &[backend], BACKEND_LOCAL);
                    // The same client port would be met by another service's connection.
                    let mut first = Packet::first(protocol, client, dialled);
                    first.from.set_port(40000 + u16::try_from(set).unwrap());
                    for packet in [first.clone(), first.later(), first.later()] {
                        let inside = uplink.pass(IN, &packet);
                        assert_eq!((inside.from, inside.to), (first.from, at(backend)));
                        let outside = uplink.pass(OUT, &inside.reply());
                        assert_eq!((outside.from, outside.to), (first.to, first.from));
                    }
                    assert_eq!(uplink.services(set), (1, 0), "one connection");
                }
            }
        }
    });
}

#[test]
fn remote_backend_sees_the_node_and_the_client_sees_what_it_dialled() {
    world("remote_backend_sees_the_node_and_the_client_sees_what_it_dialled", |world| {
        let mut uplink = Uplink::new(&world.options());
        let mut set = 0;
        for (is_ipv4, client, dialled, backend, cluster_ip) in FAMILIES {
            let node = if is_ipv4 { NODE_V4 } else { NODE_V6 };
            for protocol in [TCP, UDP] {
                for (key, dialled) in [
                    (node_port(is_ipv4, 30080, protocol), dialled),
                    (frontend(cluster_ip, protocol), cluster_ip),
                ] {
                    set += 1;
                    uplink.put(key, set, &[backend], 0);
                    let mut first = Packet::first(protocol, client, dialled);
                    first.from.set_port(40000 + u16::try_from(set).unwrap());
                    let mut ports = BTreeSet::new();
                    for packet in [first.clone(), first.later(), first.later()] {
                        let routed = uplink.pass(IN, &packet);
                        assert_eq!((routed.from, routed.to), (first.from, at(backend)));
                        let sent = uplink.pass(OUT, &routed);
                        assert_eq!(
                            (sent.from.ip().to_string(), sent.to),
                            (node.into(), at(backend))
                        );
                        assert!((1024..30000).contains(&sent.from.port()), "{sent:?}");
                        ports.insert(sent.from.port());
                        let returned = uplink.pass(IN, &sent.reply());
                        assert_eq!((returned.from, returned.to), (at(backend), first.from));
                        let outside = uplink.pass(OUT, &returned);
                        assert_eq!((outside.from, outside.to), (first.to, first.from));
                    }
                    assert_eq!(ports.len(), 1, "one connection, one port");
                    assert_eq!(uplink.services(set), (1, 0), "one connection");
                }
            }
        }
    });
}

#[test]
fn what_is_not_for_a_service_passes_unchanged() {
    world("what_is_not_for_a_service_passes_unchanged", |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, (is_ipv4, client, dialled, backend, _)) in (1..).zip(FAMILIES) {
            uplink.put(node_port(is_ipv4, 30080, TCP), set, &[backend], 0);
            let (stranger, loopback) = match is_ipv4 {
                true => ("192.168.0.3:30080", "127.0.0.1:30080"),
                false => ("[2001:db8::3]:30080", "[::1]:30080"),
            };
            let first = Packet::first(TCP, client, dialled);
            let cases = [
                ("another port", Packet::first(TCP, client, &dialled.replace("30080", "30081"))),
                ("another protocol", Packet::first(UDP, client, dialled)),
                ("not the node's address", Packet::first(TCP, client, stranger)),
                ("loopback", Packet::first(TCP, client, loopback)),
                ("no SYN first", first.later()),
                ("SYN and ACK", Packet { flags: 0x12, ..first }),
            ];
            for (name, packet) in cases {
                assert_eq!(uplink.verdict(IN, &packet.frame()), NEXT, "{dialled}: {name}");
                let reply = packet.reply().frame();
                assert_eq!(uplink.verdict(OUT, &reply), NEXT, "{dialled}: {name}, out");
            }
            assert_eq!(uplink.services(set), (0, 0), "{dialled}");
        }
    });
}

#[test]
fn what_cannot_be_translated_passes_and_is_counted() {
    world("what_cannot_be_translated_passes_and_is_counted", |world| {
        let mut uplink = Uplink::new(&world.options());
        uplink.put(node_port(true, 30080, TCP), 1, &["10.244.1.5:8080"], 0);
        uplink.put(node_port(false, 30080, TCP), 2, &["[fd00:10::5]:8080"], 0);
        let v4 = Packet::first(TCP, "203.0.113.9:40000", "192.168.0.2:30080").frame();
        let v6 = Packet::first(TCP, "[2001:db8:9::9]:40000", "[2001:db8::2]:30080").frame();
        let change = |frame: &[u8], at: usize, value: u8| {
            let mut frame = frame.to_vec();
            frame[at] = value;
            frame
        };
        // The kernel's test run takes no frame whose IP header is cut short.
        let cases = [
            ("cut in the ports", v4[..14 + 20 + 3].to_vec(), Reason::Malformed),
            ("cut before the TCP flags", v4[..14 + 20 + 8].to_vec(), Reason::Malformed),
            ("impossible header length", change(&v4, 14, 0x44), Reason::Malformed),
            ("header longer than the frame", change(&v4[..14 + 24], 14, 0x4f), Reason::Malformed),
            ("later fragment, first one never seen", change(&v4, 14 + 7, 0x08), Reason::Fragment),
            ("IPv6 authentication header", change(&v6, 14 + 6, 51), Reason::ExtensionHeader),
            ("IPv6 routing header, type 0", change(&v6, 14 + 6, 43), Reason::ExtensionHeader),
        ];
        for (name, frame, reason) in cases {
            let before = uplink.count(reason);
            assert_eq!(uplink.verdict(IN, &frame), NEXT, "{name}");
            assert_eq!(uplink.count(reason), before + 1, "{name}");
        }
        let total: u64 = uplink.kernel.drops().unwrap().values().sum();
        assert_eq!(total, 7);
        let icmp = |kind| change(&change(&v4, 14 + 9, 1), 14 + 20, kind);
        for (name, kind) in [("a ping", 8), ("an error about nothing of ours", 3)] {
            assert_eq!(uplink.verdict(IN, &icmp(kind)), NEXT, "{name}");
        }
    });
}

/// TCP is reset, UDP told that the port is unreachable, in the name of what was dialled.
#[test]
fn service_without_backends_refuses_in_its_own_name() {
    world("service_without_backends_refuses_in_its_own_name", |world| {
        let mut uplink = Uplink::new(&world.options());
        let mut set = 0;
        for (is_ipv4, client, dialled, _, cluster_ip) in FAMILIES {
            for protocol in [TCP, UDP] {
                for (key, dialled) in [
                    (node_port(is_ipv4, 30080, protocol), dialled),
                    (frontend(cluster_ip, protocol), cluster_ip),
                ] {
                    set += 1;
                    uplink.put(key, set, &[], 0);
                    let first = Packet::first(protocol, client, dialled);
                    for program in [IN, POD] {
                        let frame = first.frame();
                        let run = uplink.kernel.run_on_packet(program, &frame, 1).unwrap();
                        assert_eq!(run.verdict, REDIRECT, "{program} {first:?}");
                        assert_eq!(run.packet[..6], frame[6..12], "back to whoever sent it");
                        assert_eq!(run.packet[6..12], frame[..6]);
                        if protocol == TCP {
                            let reset = Packet::read(&run.packet);
                            assert_eq!((reset.from, reset.to), (first.to, first.from));
                            assert_eq!(reset.flags, 0x14, "RST and ACK");
                            let transport = if is_ipv4 { 34 } else { 54 };
                            let numbers = &run.packet[transport + 4..transport + 12];
                            assert_eq!(numbers, [0, 0, 0, 0, 0, 0, 0, 1], "SYN is acknowledged");
                        } else {
                            let (from, to, quoted) = read_unreachable(&run.packet, 3, 4);
                            assert_eq!((from, to), (first.to.ip(), first.from.ip()));
                            assert!(frame[14..].starts_with(quoted), "what it is about");
                        }
                    }
                    assert_eq!(uplink.services(set), (0, 2));
                }
            }
        }
    });
}

#[test]
fn legal_extension_headers_are_no_hiding_place() {
    world("legal_extension_headers_are_no_hiding_place", |world| {
        let mut uplink = Uplink::new(&world.options());
        uplink.put(node_port(false, 30080, TCP), 1, &["[fd00:10::5]:8080"], BACKEND_LOCAL);
        let first = Packet::first(TCP, "[2001:db8:9::9]:40000", "[2001:db8::2]:30080");
        let plain = first.frame();
        // Hop-by-hop options, then destination options.
        let options = [60, 0, 1, 4, 0, 0, 0, 0, TCP, 0, 1, 4, 0, 0, 0, 0];
        let mut frame = [&plain[..54], &options[..], &plain[54..]].concat();
        frame[14 + 6] = 0;
        frame[14 + 5] += 16;
        let run = uplink.kernel.run_on_packet(IN, &frame, 1).unwrap();
        assert_eq!((run.verdict, &run.packet[54..70]), (NEXT, &options[..]));
        let without = [&run.packet[..54], &run.packet[70..]].concat();
        let mut without = without;
        without[14 + 6] = TCP;
        without[14 + 5] -= 16;
        assert_eq!(Packet::read(&without).to, at("[fd00:10::5]:8080"));
    });
}

/// A pod that meets itself behind its own service: without another source its answer would never
/// leave it.
#[test]
fn pod_that_dials_its_own_service_meets_itself_by_way_of_the_node() {
    world("pod_that_dials_its_own_service_meets_itself_by_way_of_the_node", |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, (is_ipv4, _, _, backend, cluster_ip)) in (1..).zip(FAMILIES) {
            uplink.put(frontend(cluster_ip, TCP), set, &[backend], BACKEND_LOCAL);
            let client = SocketAddr::new(at(backend).ip(), 40000).to_string();
            let first = Packet::first(TCP, &client, cluster_ip);
            let node = if is_ipv4 { NODE_V4 } else { NODE_V6 };
            for packet in [first.clone(), first.later()] {
                let routed = uplink.pass(POD, &packet);
                let arrives = uplink.pass(OUT, &routed);
                assert_eq!((arrives.from.ip().to_string(), arrives.to), (node.into(), at(backend)));
                let answered = uplink.pass(POD, &arrives.reply());
                let seen = uplink.pass(OUT, &answered);
                assert_eq!((seen.from, seen.to), (first.to, first.from));
            }
        }
    });
}

#[test]
fn masquerade_all_hides_every_client() {
    world("masquerade_all_hides_every_client", |world| {
        let options = KernelOptions { masquerade_all: true, ..world.options() };
        let mut uplink = Uplink::new(&options);
        for (set, (is_ipv4, outside, _, backend, cluster_ip)) in (1..).zip(FAMILIES) {
            let (pod, node) = match is_ipv4 {
                true => ("10.244.0.9:40000", NODE_V4),
                false => ("[fd00:10:9::9]:40000", NODE_V6),
            };
            for (protocol, set) in [(TCP, set), (UDP, set + 2)] {
                uplink.put(frontend(cluster_ip, protocol), set, &[backend], BACKEND_LOCAL);
                for (program, client) in [(IN, outside), (POD, pod)] {
                    let first = Packet::first(protocol, client, cluster_ip);
                    let sent = uplink.pass(OUT, &uplink.pass(program, &first));
                    assert_eq!(sent.from.ip().to_string(), node, "{client}");
                    let seen = uplink.pass(OUT, &uplink.pass(program, &sent.reply()));
                    assert_eq!((seen.from, seen.to), (first.to, first.from));
                }
            }
        }
    });
}

/// SCTP has no sockets here and no helper for its checksum: RFC 9260, appendix A, as reference.
#[test]
fn sctp_associations_are_translated_with_their_checksum() {
    world("sctp_associations_are_translated_with_their_checksum", |world| {
        let mut uplink = Uplink::new(&world.options());
        for (family, (is_ipv4, client, node, _, _)) in FAMILIES.into_iter().enumerate() {
            let old: Vec<String> = (1..=5)
                .map(|n| {
                    if is_ipv4 {
                        format!("10.244.1.{n}:7777")
                    } else {
                        format!("[fd00:10::{n}]:7777")
                    }
                })
                .collect();
            let old: Vec<&str> = old.iter().map(String::as_str).collect();
            let set = 1 + 2 * u32::try_from(family).unwrap();
            uplink.put(node_port(is_ipv4, 30080, SCTP), set, &old, BACKEND_LOCAL);
            let (init, data) = (1, 0);
            let [first, later] = [init, data].map(|chunk| sctp(client, node, chunk));
            assert_eq!(uplink.verdict(IN, &later), NEXT, "no association yet");
            let met = uplink.kernel.run_on_packet(IN, &first, 1).unwrap().packet;
            let (from, backend) = read_sctp(&met);
            assert_eq!(from, at(client));
            assert!(old.contains(&backend.to_string().as_str()), "{backend}");
            let after = uplink.kernel.run_on_packet(IN, &later, 1).unwrap().packet;
            assert_eq!(read_sctp(&after), (from, backend), "the same backend");
            let reply = sctp(&backend.to_string(), client, 2);
            let seen = uplink.kernel.run_on_packet(OUT, &reply, 1).unwrap().packet;
            assert_eq!(read_sctp(&seen), (at(node), at(client)));
            // Another set: the association stays, and a service without backends refuses.
            uplink.put(node_port(is_ipv4, 30080, SCTP), set + 1, &[], 0);
            let kept = uplink.kernel.run_on_packet(IN, &later, 1).unwrap().packet;
            assert_eq!(read_sctp(&kept), (from, backend));
            let other = sctp(&client.replace("40000", "40001"), node, init);
            let run = uplink.kernel.run_on_packet(IN, &other, 1).unwrap();
            let (from, to, _) = read_unreachable(&run.packet, 3, 4);
            assert_eq!((run.verdict, from, to), (REDIRECT, at(node).ip(), at(client).ip()));
        }
    });
}

/// Towards another node ports change twice, and back again.
#[test]
fn sctp_associations_with_other_nodes_go_by_the_nodes_own_port_there_and_back() {
    let name = "sctp_associations_with_other_nodes_go_by_the_nodes_own_port_there_and_back";
    world(name, |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, (is_ipv4, client, dialled, backend, _)) in (1..).zip(FAMILIES) {
            let own = if is_ipv4 { NODE_V4 } else { NODE_V6 };
            uplink.put(node_port(is_ipv4, 30080, SCTP), set, &[backend], 0);
            let through = |frame: Vec<u8>| {
                let run = uplink.kernel.run_on_packet(IN, &frame, 1).unwrap();
                assert_eq!(run.verdict, NEXT);
                let inside = read_sctp(&run.packet);
                let run = uplink.kernel.run_on_packet(OUT, &run.packet, 1).unwrap();
                assert_eq!(run.verdict, NEXT);
                [inside, read_sctp(&run.packet)]
            };
            let (init, init_ack, data) = (1, 2, 0);
            let mut ports = BTreeSet::new();
            for (there, back) in [(init, init_ack), (data, data)] {
                let [routed, (from, to)] = through(sctp(client, dialled, there));
                assert_eq!(routed, (at(client), at(backend)));
                assert_eq!((from.ip().to_string(), to), (own.into(), at(backend)));
                ports.insert(from.port());
                let [routed, seen] = through(sctp(backend, &from.to_string(), back));
                assert_eq!((routed.0, routed.1), (at(backend), at(client)));
                assert_eq!(seen, (at(dialled), at(client)));
            }
            assert_eq!(ports.len(), 1, "one association, one port");
            assert!(ports.iter().all(|port| (1024..30_000).contains(port)), "{ports:?}");
        }
    });
}

#[test]
fn pods_packets_keep_their_address_and_service_addresses_never_leave() {
    world("pods_packets_keep_their_address_and_service_addresses_never_leave", |world| {
        let cidrs = ["10.96.0.0/16", "fd00:96::/112"].map(|cidr| cidr.parse().unwrap());
        let options = KernelOptions { service_cidrs: cidrs.into(), ..world.options() };
        let mut uplink = Uplink::new(&options);
        for (set, (_, _, _, backend, cluster_ip)) in (1..).zip(FAMILIES) {
            uplink.put(frontend(cluster_ip, UDP), set, &[backend], 0);
            let pod = if set == 1 { "10.244.0.9:40000" } else { "[fd00:10:9::9]:40000" };
            let first = Packet::first(UDP, pod, cluster_ip);
            let routed = uplink.pass(POD, &first);
            assert_eq!((routed.from, routed.to), (first.from, at(backend)), "no masquerade");
            assert_eq!(uplink.pass(OUT, &routed), routed, "nor on the way out");
            let seen = uplink.pass(OUT, &routed.reply());
            assert_eq!((seen.from, seen.to), (first.to, first.from));
            let leak = Packet::first(TCP, pod, cluster_ip);
            assert_eq!(uplink.verdict(OUT, &leak.frame()), DROP);
            let mut unallocated = leak;
            unallocated.to.set_ip(if set == 1 {
                "10.96.200.1".parse().unwrap()
            } else {
                "fd00:96::99".parse().unwrap()
            });
            assert_eq!(uplink.verdict(POD, &unallocated.frame()), DROP, "{unallocated:?}");
        }
        for (pod, service) in
            [("10.244.0.9:40000", "10.96.0.7:80"), ("[fd00:10:9::9]:40000", "[fd00:96::7]:80")]
        {
            let others = FrontendKey::other_ports(address(at(service).ip()));
            let foreign = FrontendValue { flags: FRONTEND_FOREIGN, ..Zeroable::zeroed() };
            uplink.maps.apply(&Step::PutFrontends(vec![(others, foreign.into())])).unwrap();
            let meshed = Packet::first(TCP, pod, service);
            assert_eq!(uplink.pass(POD, &meshed), meshed, "another proxy serves it");
            assert_eq!(uplink.pass(OUT, &meshed), meshed, "and may want it elsewhere");
        }
        let counts = [Reason::ServiceAddressLeak, Reason::UnallocatedAddress];
        assert_eq!(counts.map(|reason| uplink.count(reason)), [2, 2]);
    });
}

/// SSH, kubelet and API server were dropped as addresses that no Service has.
#[test]
fn bug_the_nodes_own_addresses_in_a_service_range_are_no_service_addresses() {
    world("bug_the_nodes_own_addresses_in_a_service_range_are_no_service_addresses", |world| {
        let cidrs = ["192.168.0.0/16", "2001:db8::/64"].map(|cidr| cidr.parse().unwrap());
        let options = KernelOptions { service_cidrs: cidrs.into(), ..world.options() };
        let uplink = Uplink::new(&options);
        for (from, node, other) in [
            ("203.0.113.9:40000", NODE_V4, "192.168.0.3"),
            ("[2001:db8:9::9]:40000", NODE_V6, "2001:db8::3"),
        ] {
            for (protocol, to, verdict) in
                [(TCP, node, NEXT), (UDP, node, NEXT), (TCP, other, DROP), (UDP, other, DROP)]
            {
                let to = SocketAddr::new(to.parse().unwrap(), 6443).to_string();
                let first = Packet::first(protocol, from, &to).frame();
                for program in [IN, POD] {
                    assert_eq!(uplink.verdict(program, &first), verdict, "{program} {to}");
                }
            }
        }
    });
}

#[test]
fn ipv4_options_and_absent_udp_checksums_survive() {
    world("ipv4_options_and_absent_udp_checksums_survive", |world| {
        let mut uplink = Uplink::new(&world.options());
        uplink.put(node_port(true, 30080, UDP), 1, &["10.244.1.5:8080"], BACKEND_LOCAL);
        let first = Packet::first(UDP, "203.0.113.9:40000", "192.168.0.2:30080");
        // Router alert, RFC 2113.
        let options = [0x94, 0x04, 0, 0];
        let run = uplink.kernel.run_on_packet(IN, &first.frame_with(&options), 1).unwrap();
        let after = Packet::read_with(&run.packet, options.len());
        assert_eq!((run.verdict, after.to), (NEXT, at("10.244.1.5:8080")));
        let run = uplink.kernel.run_on_packet(IN, &without_checksum(first.frame()), 1).unwrap();
        assert_eq!(run.packet[14 + 20 + 6..][..2], [0, 0], "none was there, none is made");
        assert_eq!(Packet::read(&run.packet).to, at("10.244.1.5:8080"));
    });
}
