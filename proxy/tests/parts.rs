//! Parts of packets: fragments, and what ICMP errors quote.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::net::{IpAddr, SocketAddr};

use fairlead_ebpf::abi::{BACKEND_LOCAL, Reason, SCTP, TCP, UDP};
use support::{
    frames::{
        Packet, fragment, read_sctp, read_too_big, read_unreachable, reassembled, sctp, too_big,
        unreachable,
    },
    services::{frontend, node_port},
    uplink::{DROP, IN, NEXT, NODE_V4, NODE_V6, OUT, POD, Uplink, at},
    world::world,
};

mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

/// Client, what it dials, backend, by another name: for both families.
const FAMILIES: [(bool, &str, &str, &str, &str); 2] = [
    (true, "203.0.113.9:40000", "192.168.0.2:30080", "10.244.1.5:8080", "10.96.0.1:80"),
    (false, "[2001:db8:9::9]:40000", "[2001:db8::2]:30080", "[fd00:10::5]:8080", "[fd00:96::1]:80"),
];
/// Bytes of the first fragment: its headers and some more.
const FIRST: usize = 32;

/// Each of these frames after it has passed both hooks.
fn through(uplink: &Uplink, ingress: &'static str, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let pass = |frame: &Vec<u8>| {
        [ingress, OUT].into_iter().fold(frame.clone(), |frame, hook| {
            let run = uplink.kernel.run_on_packet(hook, &frame, 1).unwrap();
            assert_eq!(run.verdict, NEXT, "{hook}");
            run.packet
        })
    };
    frames.iter().map(pass).collect()
}

/// Three of them.
fn fragments(whole: &[u8]) -> Vec<Vec<u8>> {
    [(0, FIRST), (FIRST, 16), (FIRST + 16, 1000)].map(|(at, len)| fragment(whole, at, len)).to_vec()
}

/// Destination options before a packet's transport header (RFC 8200 §4.1, note 3: behind a Fragment header).
fn with_options(frame: &[u8]) -> Vec<u8> {
    let mut with = [&frame[..54], &[frame[20], 0, 1, 4, 0, 0, 0, 0], &frame[54..]].concat();
    with[20] = 60;
    with[19] += 8;
    with
}

/// The same without them, which must be there still.
fn without_options(frame: &[u8]) -> Vec<u8> {
    assert_eq!((frame[20], &frame[55..62]), (60, &[0, 1, 4, 0, 0, 0, 0][..]));
    let mut without = [&frame[..54], &frame[62..]].concat();
    without[20] = frame[54];
    without[19] -= 8;
    without
}

/// There and back, to a backend that is here and to one that is elsewhere, where both directions are translated at both
/// hooks. Put together again it is the packet, checksum included.
#[test]
fn fragments_follow_their_first() {
    world("fragments_follow_their_first", |world| {
        let mut set = 0;
        for (family, place) in
            FAMILIES.into_iter().flat_map(|family| [BACKEND_LOCAL, 0].map(|place| (family, place)))
        {
            let mut uplink = Uplink::new(&world.options());
            let (is_ipv4, client, dialled, backend, _) = family;
            let own = if is_ipv4 { NODE_V4 } else { NODE_V6 };
            for protocol in [TCP, UDP] {
                set += 1;
                uplink.put(node_port(is_ipv4, 30080, protocol), set, &[backend], place);
                let mut first = Packet::first(protocol, client, dialled);
                first.from.set_port(40_000 + u16::try_from(set).unwrap());
                first.payload = (0..64).collect();
                let parts = through(&uplink, IN, &fragments(&first.frame()));
                let seen = Packet::read(&reassembled(&parts));
                assert_eq!((seen.to, &seen.payload), (at(backend), &first.payload), "{protocol}");
                if place == BACKEND_LOCAL {
                    assert_eq!(seen.from, first.from, "{protocol}");
                } else {
                    assert_eq!(seen.from.ip().to_string(), own, "{protocol}");
                }
                let parts = through(&uplink, IN, &fragments(&seen.reply().frame()));
                assert_eq!(Packet::read(&reassembled(&parts)), first.reply(), "{protocol}");
            }
            assert_eq!(uplink.count(Reason::Fragment), 0);
        }
    });
}

/// Only the first fragment shows what follows the options; what the others say comes next is the options themselves, and they
/// were left as they were.
#[test]
fn fragments_of_packets_with_options_follow_their_first() {
    world("fragments_of_packets_with_options_follow_their_first", |world| {
        let mut uplink = Uplink::new(&world.options());
        let (_, client, dialled, backend, _) = FAMILIES[1];
        for (set, protocol) in (1..).zip([TCP, UDP]) {
            uplink.put(node_port(false, 30080, protocol), set, &[backend], 0);
            let mut first = Packet::first(protocol, client, dialled);
            first.payload = (0..64).collect();
            let parts = through(&uplink, IN, &fragments(&with_options(&first.frame())));
            let seen = Packet::read(&without_options(&reassembled(&parts)));
            assert_eq!((seen.from.ip().to_string(), seen.to), (NODE_V6.into(), at(backend)));
            assert_eq!(seen.payload, first.payload, "{protocol}");
            let reply = fragments(&with_options(&seen.reply().frame()));
            let back = reassembled(&through(&uplink, IN, &reply));
            assert_eq!(Packet::read(&without_options(&back)), first.reply(), "{protocol}");
        }
        assert_eq!(uplink.count(Reason::Fragment), 0);
    });
}

/// What a change of ports does to SCTP's checksum depends on the length of all, which a first fragment does not tell: it went on
/// with a wrong one, and the association never came about for no reason that was counted.
#[test]
fn fragments_of_sctp_are_translated_where_ports_stay_and_dropped_where_they_would_change() {
    let name = "fragments_of_sctp_are_translated_where_ports_stay_and_dropped_where_they_would_\
                change";
    world(name, |world| {
        let mut uplink = Uplink::new(&world.options());
        for ((set, dropped), (is_ipv4, client, dialled, backend, _)) in
            [(1, 1), (3, 2)].into_iter().zip(FAMILIES)
        {
            let same = backend.replace(":8080", ":30080");
            uplink.put(node_port(is_ipv4, 30080, SCTP), set, &[&same], BACKEND_LOCAL);
            uplink.put(node_port(is_ipv4, 30081, SCTP), set + 1, &[backend], BACKEND_LOCAL);
            let parts = |dialled: &str| {
                let whole = sctp(client, dialled, 1);
                [(0, 24), (24, 1000)].map(|(at, len)| fragment(&whole, at, len))
            };
            let stays = through(&uplink, IN, &parts(dialled));
            assert_eq!(read_sctp(&reassembled(&stays)), (at(client), at(&same)));
            let [first, _] = parts(&dialled.replace(":30080", ":30081"));
            assert_eq!(uplink.verdict(IN, &first), DROP);
            assert_eq!(uplink.count(Reason::NotRewritten), dropped);
        }
    });
}

/// Why a router or host could not deliver, about a translated connection: both ends must
/// understand it (path MTU discovery lives by this).
#[test]
fn icmp_errors_are_translated_like_the_packets_they_are_about() {
    world("icmp_errors_are_translated_like_the_packets_they_are_about", |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, (is_ipv4, client, dialled, backend, _)) in (1..).zip(FAMILIES) {
            let router = if is_ipv4 { "198.51.100.1" } else { "2001:db8:77::1" }.parse().unwrap();
            for protocol in [TCP, UDP] {
                let set = set * 10 + u32::from(protocol);
                uplink.put(node_port(is_ipv4, 30080, protocol), set, &[backend], 0);
                let first = Packet::first(protocol, client, dialled);
                let routed = uplink.pass(IN, &first);
                let sent = uplink.pass(OUT, &routed);
                // From beyond the node, about what it sent on: to the client, about what it sent.
                let frame = too_big(router, sent.from.ip(), &sent);
                let inside = uplink.kernel.run_on_packet(IN, &frame, 1).unwrap();
                assert_eq!(inside.verdict, NEXT);
                let outside = uplink.kernel.run_on_packet(OUT, &inside.packet, 1).unwrap();
                let (_, to, quoted) = read_too_big(&outside.packet);
                assert_eq!(to, first.from.ip());
                assert_eq!((quoted.from, quoted.to), (first.from, first.to));
                // From the client's side, about a reply: to the backend, about what it sent.
                let returned = uplink.pass(IN, &sent.reply());
                let reply = uplink.pass(OUT, &returned);
                let frame = too_big(router, reply.from.ip(), &reply);
                let inside = uplink.kernel.run_on_packet(IN, &frame, 1).unwrap();
                let outside = uplink.kernel.run_on_packet(OUT, &inside.packet, 1).unwrap();
                let (from, to, quoted) = read_too_big(&outside.packet);
                assert_eq!((from, to), (sent.from.ip(), sent.to.ip()));
                assert_eq!((quoted.from, quoted.to), (sent.to, sent.from));
            }
        }
    });
}

/// A backend on this node is met at one hook in each direction: what was dialled is written into the request on the way in, and
/// into the answer on the way out. So it is with errors, of which each is about the other direction.
#[test]
fn icmp_errors_about_a_local_backends_connection_are_translated_at_the_one_hook_they_meet() {
    let name = "icmp_errors_about_a_local_backends_connection_are_translated_at_the_one_hook_they_\
                meet";
    world(name, |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, (is_ipv4, client, dialled, backend, _)) in (1..).zip(FAMILIES) {
            for protocol in [TCP, UDP] {
                let set = set * 10 + u32::from(protocol);
                uplink.put(node_port(is_ipv4, 30080, protocol), set, &[backend], BACKEND_LOCAL);
                let first = Packet::first(protocol, client, dialled);
                let inside = uplink.pass(IN, &first);
                let reply = uplink.pass(OUT, &inside.reply());
                let error = |frame: &[u8]| through(&uplink, IN, &[frame.to_vec()]).remove(0);
                // Of the backend itself, about what it got: in the name of what the client dialled.
                let refusal = error(&unreachable(inside.to.ip(), inside.from.ip(), &inside));
                let (from, to, quoted) = read_unreachable(&refusal, 3, 4);
                assert_eq!((from, to), (first.to.ip(), first.from.ip()), "{protocol}");
                assert_eq!(ends(quoted), (first.from, first.to), "{protocol}");
                // Of the client's side, about the answer: to the backend.
                let seen = error(&too_big(client_router(is_ipv4), reply.from.ip(), &reply));
                let (from, to, quoted) = read_too_big(&seen);
                assert_eq!((from, to), (client_router(is_ipv4), at(backend).ip()), "{protocol}");
                assert_eq!((quoted.from, quoted.to), (at(backend), first.from), "{protocol}");
            }
        }
    });
}

/// A pod that meets itself by way of the node gets its own errors by that way, too.
#[test]
fn icmp_errors_of_a_pod_that_meets_itself_come_in_the_services_name() {
    world("icmp_errors_of_a_pod_that_meets_itself_come_in_the_services_name", |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, (_, _, _, backend, cluster_ip)) in (1..).zip(FAMILIES) {
            for protocol in [TCP, UDP] {
                let set = set * 10 + u32::from(protocol);
                uplink.put(frontend(cluster_ip, protocol), set, &[backend], BACKEND_LOCAL);
                let client = SocketAddr::new(at(backend).ip(), 40000).to_string();
                let first = Packet::first(protocol, &client, cluster_ip);
                let arrives = uplink.pass(OUT, &uplink.pass(POD, &first));
                let frame = unreachable(arrives.to.ip(), arrives.from.ip(), &arrives);
                let refusal = through(&uplink, POD, &[frame]).remove(0);
                let (from, to, quoted) = read_unreachable(&refusal, 3, 4);
                assert_eq!((from, to), (first.to.ip(), first.from.ip()), "{protocol}");
                assert_eq!(ends(quoted), (first.from, first.to), "{protocol}");
                // About the answer, which the pod gets from the Service.
                let reply = uplink.pass(OUT, &uplink.pass(POD, &arrives.reply()));
                let frame = unreachable(reply.to.ip(), reply.from.ip(), &reply);
                let refusal = through(&uplink, POD, &[frame]).remove(0);
                let (from, to, quoted) = read_unreachable(&refusal, 3, 4);
                assert_eq!((from, to), (arrives.from.ip(), arrives.to.ip()), "{protocol}");
                assert_eq!(ends(quoted), (arrives.to, arrives.from), "{protocol}");
            }
        }
    });
}

fn client_router(is_ipv4: bool) -> IpAddr {
    if is_ipv4 { "198.51.100.1" } else { "2001:db8:77::1" }.parse().unwrap()
}

/// Both ends of a packet, from its IP header on.
fn ends(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    let ethertype = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    let Packet { from, to, .. } =
        Packet::read_unchecked(&[&[0; 12][..], &ethertype, packet].concat());
    (from, to)
}
