//! Packets nobody sends in good faith: whatever they are, what the programs let pass is unchanged or
//! rightly translated, no service address leaves the node, and nobody is answered who cannot be.
//!
//! `FAIRLEAD_HOSTILE_SEED=N` ends with that seed, which a failure names; what the tables hold is of those before it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{collections::BTreeMap, env};

use fairlead_ebpf::{
    abi::{Address, BACKEND_LOCAL, Reason, SCTP, TCP, UDP},
    packet::mapped,
};
use fairlead_proxy::KernelOptions;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use support::{
    frames::{Packet, fragment, refresh_header, sctp, too_big},
    services::{address, frontend, node_port},
    uplink::{DROP, IN, NEXT, NODE_V4, NODE_V6, OUT, POD, REDIRECT, Uplink},
    world::world,
};

mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

const SEED_VARIABLE: &str = "FAIRLEAD_HOSTILE_SEED";
const SEEDS: u64 = 40;
const FRAMES: u32 = 1500;
const ETHERNET: usize = 14;
/// Of IPv4 and IPv6, without options and extensions.
const HEADERS: [usize; 2] = [20, 40];

const CLIENTS: [&str; 2] = ["203.0.113.9:40000", "[2001:db8:9::9]:40000"];
/// A Service, one without endpoints, an unused port, an address nobody has, NodePorts, strangers.
const TARGETS: [[&str; 7]; 2] = [
    [
        "10.96.0.1:80",
        "10.96.0.2:80",
        "10.96.0.1:81",
        "10.96.9.9:80",
        "192.168.0.2:30080",
        "192.168.0.2:30081",
        "198.51.100.1:80",
    ],
    [
        "[fd00:96::1]:80",
        "[fd00:96::2]:80",
        "[fd00:96::1]:81",
        "[fd00:96::99]:80",
        "[2001:db8::2]:30080",
        "[2001:db8::2]:30081",
        "[2001:db8:7::1]:80",
    ],
];
const BACKENDS: [[&str; 2]; 2] =
    [["10.244.1.5:8080", "10.244.2.6:8080"], ["[fd00:10::5]:8080", "[fd00:10::6]:8080"]];

fn start(options: &KernelOptions) -> Uplink {
    let ranges = ["10.96.0.0/16", "fd00:96::/112"];
    let service_cidrs = ranges.map(|range| range.parse().unwrap()).to_vec();
    let mut uplink = Uplink::new(&KernelOptions { service_cidrs, ..options.clone() });
    let mut set = 0;
    for (family, targets) in TARGETS.iter().enumerate() {
        let [service, empty, ..] = targets;
        for protocol in [TCP, UDP, SCTP] {
            for (key, backends) in [
                (frontend(service, protocol), &BACKENDS[family][..]),
                (frontend(empty, protocol), &[]),
                (node_port(family == 0, 30080, protocol), &BACKENDS[family][..]),
                (node_port(family == 0, 30081, protocol), &[]),
            ] {
                set += 1;
                uplink.put(key, set, backends, if set % 2 == 0 { BACKEND_LOCAL } else { 0 });
            }
        }
        for ip in [service, empty] {
            let mut key = frontend(ip, 0);
            key.port = [0; 2];
            set += 1;
            uplink.put(key, set, &[], 0);
        }
    }
    uplink
}

/// A frame as somebody might send it in good faith.
fn honest(random: &mut StdRng) -> Vec<u8> {
    let family = random.random_range(0..2usize);
    let (client, target) = (CLIENTS[family], *TARGETS[family].choose(random).unwrap());
    let client = client.replace("40000", &random.random_range(1..65535u16).to_string());
    let protocol = *[TCP, UDP].choose(random).unwrap();
    let mut packet = Packet::first(protocol, &client, target);
    packet.payload = vec![7; random.random_range(0..64)];
    match random.random_range(0..10) {
        0 => sctp(&client, target, random.random_range(0..3)),
        1 => {
            let [router, to] =
                if family == 0 { ["203.0.113.1", NODE_V4] } else { ["2001:db8:9::1", NODE_V6] };
            too_big(router.parse().unwrap(), to.parse().unwrap(), &packet.reply())
        }
        2 => packet.reply().frame(),
        3 => packet.later().frame(),
        4 => {
            let whole = packet.frame();
            let payload = whole.len() - ETHERNET - HEADERS[family];
            let from = 8 * random.random_range(0..3);
            fragment(&whole, from.min(payload / 8 * 8), random.random_range(1..40))
        }
        5 if family == 1 => with_extensions(random, &packet.frame()),
        _ => packet.frame(),
    }
}

/// Extension headers, legal and not, before the transport header.
fn with_extensions(random: &mut StdRng, frame: &[u8]) -> Vec<u8> {
    const KINDS: [u8; 8] = [0, 43, 44, 60, 51, 135, 59, 50];
    let (head, rest) = frame.split_at(ETHERNET + 40);
    let mut head = head.to_vec();
    let mut extensions = Vec::new();
    let mut next_at = ETHERNET + 6;
    let mut all = head.clone();
    for _ in 0..random.random_range(1..7) {
        let kind = *KINDS.choose(random).unwrap();
        let len = if kind == 44 { 0 } else { random.random_range(0..3u8) };
        let mut header = vec![0; (usize::from(len) + 1) * 8];
        random.fill(&mut header[2..]);
        header[0] = all[next_at];
        header[1] = len;
        all[next_at] = kind;
        next_at = all.len();
        all.extend(header.iter());
        extensions.extend(header);
    }
    head = all[..ETHERNET + 40].to_vec();
    let extensions = all[ETHERNET + 40..].to_vec();
    let len = u16::try_from(extensions.len() + rest.len()).unwrap();
    head[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&len.to_be_bytes());
    [head, extensions, rest.to_vec()].concat()
}

/// Makes it worse.
fn spoil(random: &mut StdRng, frame: &mut Vec<u8>) {
    let is_ipv4 = frame[12..14] == [0x08, 0x00];
    let martians: [[u8; 4]; 6] =
        [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4], [10, 96, 0, 1], [192, 168, 0, 2]];
    match random.random_range(0..9) {
        0 => frame.truncate(random.random_range(shortest(frame)..=frame.len())),
        1 => frame.extend(std::iter::repeat_n(0xee, random.random_range(1..40))),
        // Version and header length.
        2 => spoil_byte(random, frame, ETHERNET),
        // Its own length.
        3 => spoil_byte(random, frame, ETHERNET + if is_ipv4 { 2 } else { 4 }),
        4 => spoil_byte(random, frame, ETHERNET + if is_ipv4 { 3 } else { 5 }),
        // Flags, fragment offset; the next header.
        5 => {
            let at = *if is_ipv4 { [6usize, 7, 9] } else { [6, 6, 6] }.choose(random).unwrap();
            spoil_byte(random, frame, ETHERNET + at);
        }
        6 if is_ipv4 && frame.len() >= 34 => {
            let at = if random.random() { 26 } else { 30 };
            frame[at..at + 4].copy_from_slice(martians.choose(random).unwrap());
        }
        6 if frame.len() >= 54 => {
            let forged: Address = match random.random_range(0..4) {
                0 => [0; 16],
                1 => [0xff; 16],
                2 => mapped([10, 96, 0, 1]),
                _ => address("::1".parse().unwrap()),
            };
            let at = ETHERNET + if random.random() { 8 } else { 24 };
            frame[at..at + 16].copy_from_slice(&forged);
        }
        // Anywhere in the headers.
        _ => {
            let at = random.random_range(ETHERNET..ETHERNET + 80);
            spoil_byte(random, frame, at);
        }
    }
    if is_ipv4 && frame.len() >= 34 && random.random() {
        refresh_header(frame);
    }
}

/// The kernel runs programs on nothing shorter than an IP header; devices may deliver less, and
/// then the programs' reads fail as they do behind the header.
fn shortest(frame: &[u8]) -> usize {
    let header = if frame[12..14] == [0x08, 0x00] { 20 } else { 40 };
    frame.len().min(ETHERNET + header)
}

fn spoil_byte(random: &mut StdRng, frame: &mut [u8], at: usize) {
    if let Some(byte) = frame.get_mut(at) {
        *byte = random.random();
    }
}

/// Addresses as the IP header has them, read by other code than the programs'.
fn ends(frame: &[u8]) -> Option<(Address, Address)> {
    let at = |range: std::ops::Range<usize>| frame.get(range).map(<[u8]>::to_vec);
    let v4 = |bytes: Vec<u8>| mapped(bytes.try_into().unwrap());
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((v4(at(26..30)?), v4(at(30..34)?))),
        [0x86, 0xdd] => Some((at(22..38)?.try_into().unwrap(), at(38..54)?.try_into().unwrap())),
        _ => None,
    }
}

/// Whether the kernel's own input path would take it for a packet of IP, whatever it carries.
fn is_routable(frame: &[u8]) -> bool {
    let len = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.len() >= 34 => {
            let header = usize::from(frame[14] & 15) * 4;
            frame[14] >> 4 == 4 && header >= 20 && len(16) >= header && 14 + len(16) <= frame.len()
        }
        Some([0x86, 0xdd]) if frame.len() >= 54 => {
            frame[14] >> 4 == 6 && 54 + len(18) <= frame.len()
        }
        _ => false,
    }
}

/// Whether ports, or what an ICMP message begins with, are in the packet and not in what its frame has behind it.
fn has_ports(frame: &[u8]) -> bool {
    let len = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match frame[12..14] {
        [0x08, 0x00] => {
            let is_later = len(20) & 0x1fff != 0;
            is_later || len(16) >= usize::from(frame[14] & 15) * 4 + 8
        }
        _ => len(18) >= 8,
    }
}

fn is_in(addresses: impl IntoIterator<Item = &'static &'static str>, address: Address) -> bool {
    let all = addresses.into_iter().map(|text| text.parse::<std::net::SocketAddr>().unwrap().ip());
    all.into_iter().any(|ip| support::services::address(ip) == address)
}

fn is_service_address(address: &Address) -> bool {
    address[..14] == mapped([10, 96, 0, 0])[..14]
        || address[..14] == support::services::address("fd00:96::".parse().unwrap())[..14]
}

fn is_host(address: &Address) -> bool {
    let is_mapped = address[..12] == mapped([0; 4])[..12];
    let v4 = [address[12], address[13], address[14], address[15]];
    match is_mapped {
        true => !matches!(v4[0], 0 | 127 | 224..=239) && v4 != [255; 4],
        false => address[0] != 0xff && address[..15] != [0; 15],
    }
}

/// What is wrong with what became of a frame.
fn fault(hook: &str, before: &[u8], verdict: i32, after: &[u8]) -> Option<&'static str> {
    let (old, new) = (ends(before), ends(after));
    match verdict {
        DROP => None,
        NEXT if after == before => {
            let is_leak = hook == OUT
                && is_routable(before)
                && old.is_some_and(|(_, destination)| is_service_address(&destination));
            is_leak.then_some("a service address leaves the node")
        }
        NEXT => {
            let (Some(old), Some(new)) = (old, new) else {
                return Some("changed without addresses");
            };
            if before.len() != after.len() || before[..14] != after[..14] {
                return Some("more was changed than the packet");
            }
            if !is_routable(before) {
                return Some("translated what is no packet");
            }
            if !has_ports(before) {
                return Some("translated what has no ports");
            }
            if !is_host(&old.0) {
                return Some("translated a packet from nobody");
            }
            let backends = || BACKENDS.iter().flatten();
            if hook == OUT {
                let shown = || TARGETS.iter().flatten();
                let is_right = old.1 == new.1 && is_in(shown(), new.0);
                return (!is_right).then_some("a wrong source");
            }
            let is_right = old.0 == new.0 && (is_in(backends(), new.1) || old.1 == new.1);
            (!is_right).then_some("a wrong backend")
        }
        REDIRECT => {
            let (Some(old), Some(new)) = (old, new) else { return Some("an answer to nobody") };
            if (old.1, old.0) != new {
                return Some("an answer from somebody else");
            }
            (hook == OUT || !is_host(&old.0)).then_some("an answer to nobody")
        }
        _ => Some("no verdict of a program's"),
    }
}

fn last_seed() -> u64 {
    env::var(SEED_VARIABLE).map_or(SEEDS - 1, |seed| seed.parse().unwrap())
}

#[test]
fn nothing_hostile_is_translated_wrongly_answered_to_nobody_or_leaks() {
    world("nothing_hostile_is_translated_wrongly_answered_to_nobody_or_leaks", |world| {
        let uplink = start(&world.options());
        let mut met: BTreeMap<(&str, i32, bool), u32> = BTreeMap::new();
        for seed in 0..=last_seed() {
            let mut random = StdRng::seed_from_u64(seed);
            for number in 0..FRAMES {
                let mut frame = honest(&mut random);
                for _ in 0..random.random_range(0..3) {
                    spoil(&mut random, &mut frame);
                }
                let hook = *[IN, POD, OUT].choose(&mut random).unwrap();
                let run = uplink.kernel.run_on_packet(hook, &frame, 1).unwrap();
                let fault = fault(hook, &frame, run.verdict, &run.packet);
                let (verdict, after) = (run.verdict, &run.packet);
                assert_eq!(
                    fault, None,
                    "frame {number} of {SEED_VARIABLE}={seed}, {hook}: {frame:02x?} met {verdict}: \
                     {after:02x?}"
                );
                *met.entry((hook, verdict, *after != frame)).or_default() += 1;
            }
        }
        // A test that met nothing would prove nothing.
        let enough = 2 * (last_seed() + 1);
        for kind in [(IN, NEXT, true), (IN, NEXT, false), (IN, DROP, false), (IN, REDIRECT, true)] {
            let count = met.get(&kind).copied().unwrap_or_default();
            assert!(u64::from(count) > enough, "{kind:?} of {met:?}");
        }
        assert!(met.contains_key(&(OUT, DROP, false)), "{met:?}");
        for reason in
            [Reason::Malformed, Reason::Martian, Reason::Fragment, Reason::ExtensionHeader]
        {
            assert!(uplink.count(reason) > enough, "{reason:?}: {}", uplink.count(reason));
        }
    });
}

/// A frame of each protocol for a Service, by family.
fn one_of_each(family: usize) -> [(&'static str, Vec<u8>); 4] {
    let (client, target) = (CLIENTS[family], TARGETS[family][0]);
    let [tcp, udp] = [TCP, UDP].map(|protocol| Packet::first(protocol, client, target));
    let router = Packet::first(UDP, client, target).from.ip();
    let node = if family == 0 { NODE_V4 } else { NODE_V6 };
    let error = too_big(router, node.parse().unwrap(), &udp.reply());
    [("TCP", tcp.frame()), ("UDP", udp.frame()), ("SCTP", sctp(client, target, 1)), ("ICMP", error)]
}

/// It passes as it is, and is counted.
fn assert_malformed(uplink: &Uplink, frame: &[u8], what: &str) {
    let before = uplink.count(Reason::Malformed);
    assert_eq!(uplink.verdict(IN, frame), NEXT, "{what}");
    assert_eq!(uplink.count(Reason::Malformed), before + 1, "{what}");
}

/// Each length of a frame, and what is wrong with it by itself.
#[test]
fn truncated_packets_pass_untouched_and_are_counted() {
    world("truncated_packets_pass_untouched_and_are_counted", |world| {
        let uplink = start(&world.options());
        for family in [0, 1] {
            for (protocol, whole) in one_of_each(family) {
                for len in shortest(&whole)..whole.len() {
                    assert_malformed(&uplink, &whole[..len], &format!("{protocol}, {len} bytes"));
                }
            }
        }
    });
}

/// The kernel takes none of these for what it says it is, and no Service is asked for any of them: no backend is
/// chosen by what is behind a packet's end.
#[test]
fn headers_that_lie_about_versions_and_lengths_pass_untouched_and_are_counted() {
    let name = "headers_that_lie_about_versions_and_lengths_pass_untouched_and_are_counted";
    world(name, |world| {
        let uplink = start(&world.options());
        for family in [0, 1] {
            for (protocol, whole) in one_of_each(family) {
                let spoiled = |at: usize, bytes: &[u8]| {
                    let mut frame = whole.clone();
                    frame[ETHERNET + at..ETHERNET + at + bytes.len()].copy_from_slice(bytes);
                    if family == 0 {
                        refresh_header(&mut frame);
                    }
                    frame
                };
                let check = |what: &str, at: usize, bytes: &[u8]| {
                    let what = format!("{protocol}, family {family}, {what}");
                    assert_malformed(&uplink, &spoiled(at, bytes), &what);
                };
                let len_at = if family == 0 { 2 } else { 4 };
                let said = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
                let own = whole.len() - ETHERNET - if family == 0 { 0 } else { HEADERS[1] };
                check("one byte more than there is", len_at, &said(own + 1));
                check("as much as can be said", len_at, &[0xff, 0xff]);
                // A frame's padding has no ports: those behind the end are nobody's.
                let header = if family == 0 { HEADERS[0] } else { 0 };
                for transport in 0..8 {
                    let what = format!("{transport} bytes behind the header");
                    check(&what, len_at, &said(header + transport));
                }
                if family == 0 {
                    check("the other version", 0, &[0x65]);
                    for words in 0..5 {
                        check("a header shorter than any", 0, &[0x40 | words]);
                    }
                    check("shorter than its header", 2, &said(HEADERS[0] - 1));
                } else {
                    check("the other version", 0, &[0x45]);
                }
            }
        }
        let asked: u64 = (1..100).map(|set| uplink.services(set).0 + uplink.services(set).1).sum();
        assert_eq!(asked, 0);
    });
}

/// Their first fragment has come, and what is behind their end would name it.
#[test]
fn fragments_that_end_within_their_own_headers_pass_untouched_and_are_counted() {
    let name = "fragments_that_end_within_their_own_headers_pass_untouched_and_are_counted";
    world(name, |world| {
        let uplink = start(&world.options());
        for family in [0, 1] {
            // Where the length is said, and the least it says: IPv6 counts the fragment header, not its own.
            let (len_at, least) = if family == 0 { (16, 20) } else { (18, 8) };
            let pass = |frame: &[u8]| uplink.kernel.run_on_packet(IN, frame, 1).unwrap().packet;
            for protocol in [TCP, UDP] {
                let mut first = Packet::first(protocol, CLIENTS[family], TARGETS[family][0]);
                first.payload = vec![7; 96];
                let whole = first.frame();
                for from in [0, 32] {
                    let honest = fragment(&whole, from, 32);
                    assert_ne!(pass(&honest), honest, "{protocol} from {from}: translated");
                }
                for len in 0..least {
                    let mut frame = fragment(&whole, 32, 32);
                    frame[len_at..len_at + 2].copy_from_slice(&u16::to_be_bytes(len));
                    if family == 0 {
                        refresh_header(&mut frame);
                    }
                    let what = format!("{protocol}, family {family}, {len} bytes");
                    assert_malformed(&uplink, &frame, &what);
                }
            }
        }
    });
}

/// The kernel takes none of these; nothing of them is in the connection table afterwards.
#[test]
fn forged_sources_and_ipv4_in_ipv6_are_no_clients() {
    world("forged_sources_and_ipv4_in_ipv6_are_no_clients", |world| {
        let uplink = start(&world.options());
        let forged = [
            ("127.0.0.1:40000", 0),
            ("0.0.0.0:40000", 0),
            ("224.0.0.1:40000", 0),
            ("255.255.255.255:40000", 0),
            ("[::1]:40000", 1),
            ("[::]:40000", 1),
            ("[ff02::1]:40000", 1),
        ];
        for (client, family) in forged {
            for target in TARGETS[family] {
                let [tcp, udp] = [TCP, UDP].map(|p| Packet::first(p, client, target).frame());
                for frame in [tcp, udp, sctp(client, target, 1)] {
                    let before = uplink.count(Reason::Martian);
                    assert_eq!(uplink.verdict(IN, &frame), NEXT, "{client} to {target}");
                    assert_eq!(uplink.count(Reason::Martian), before + 1, "{client} to {target}");
                }
            }
        }
        let mut frame = Packet::first(TCP, CLIENTS[1], TARGETS[1][0]).frame();
        frame[ETHERNET + 24..ETHERNET + 40].copy_from_slice(&mapped([10, 96, 0, 1]));
        assert_eq!(uplink.verdict(IN, &frame), NEXT, "a Service's IPv4 address in IPv6");
        assert!(uplink.count(Reason::Martian) > 0);
    });
}

/// Whatever they carry: protocols nobody serves, fragments whose first was not seen.
#[test]
fn packets_to_service_addresses_leave_by_no_protocol() {
    world("packets_to_service_addresses_leave_by_no_protocol", |world| {
        let uplink = start(&world.options());
        for (family, client) in CLIENTS.iter().enumerate() {
            let frame = Packet::first(UDP, client, TARGETS[family][0]).frame();
            let at = ETHERNET + if family == 0 { 9 } else { 6 };
            for protocol in 0..=u8::MAX {
                let mut frame = frame.clone();
                frame[at] = protocol;
                assert_eq!(uplink.verdict(OUT, &frame), DROP, "protocol {protocol}");
            }
        }
        for family in [0, 1] {
            let whole = Packet::first(UDP, CLIENTS[family], TARGETS[family][0]).frame();
            assert_eq!(uplink.verdict(OUT, &fragment(&whole, 8, 8)), DROP);
        }
        assert_eq!(uplink.count(Reason::ServiceAddressLeak), 514);
    });
}

/// Whoever receives it must see that a packet was damaged: nothing mends it on the way.
#[test]
fn wrong_checksums_stay_wrong() {
    world("wrong_checksums_stay_wrong", |world| {
        let uplink = start(&world.options());
        let pass = |frame: &[u8]| uplink.kernel.run_on_packet(IN, frame, 1).unwrap().packet;
        for (family, client) in CLIENTS.iter().enumerate() {
            let transport = ETHERNET + if family == 0 { 20 } else { 40 };
            for (protocol, offset) in [(TCP, 16), (UDP, 6)] {
                let right = Packet::first(protocol, client, TARGETS[family][4]).frame();
                let after = pass(&right);
                assert_ne!(Packet::read(&after).to, Packet::read(&right).to, "translated");
                let header = (family == 0).then_some(ETHERNET + 10);
                for sum in header.into_iter().chain([transport + offset]) {
                    let mut wrong = right.clone();
                    wrong[sum] ^= 0x55;
                    let mut found = pass(&wrong);
                    assert_ne!(found[sum..sum + 2], after[sum..sum + 2], "{protocol} at {sum}");
                    found[sum..sum + 2].copy_from_slice(&after[sum..sum + 2]);
                    assert_eq!(found, after, "{protocol} at {sum}: the rest");
                }
            }
        }
    });
}

/// The backend's stack throws them away (RFC 5722, and Linux for IPv4): it must get all of them.
#[test]
fn overlapping_fragments_meet_at_one_backend_with_what_they_carry() {
    world("overlapping_fragments_meet_at_one_backend_with_what_they_carry", |world| {
        let uplink = start(&world.options());
        let pass = |frame: &[u8]| uplink.kernel.run_on_packet(IN, frame, 1).unwrap().packet;
        for family in [0, 1] {
            // Where the destination is, and where what is carried begins.
            let (to, carried) = if family == 0 { (30..34, 34) } else { (38..54, 62) };
            for protocol in [TCP, UDP] {
                let mut first = Packet::first(protocol, CLIENTS[family], TARGETS[family][4]);
                first.payload = (0..96).collect();
                let whole = first.frame();
                let backend = pass(&fragment(&whole, 0, 32))[to.clone()].to_vec();
                assert_ne!(backend, whole[to.clone()], "{protocol}");
                // Each lies over a part of those before; the last one comes twice.
                for (from, len) in [(8, 40), (16, 64), (24, 80), (24, 80)] {
                    let fragment = fragment(&whole, from, len);
                    let after = pass(&fragment);
                    assert_eq!(after[to.clone()], backend[..], "{protocol} from {from}");
                    assert_eq!(after[carried..], fragment[carried..], "{protocol} from {from}");
                }
            }
        }
    });
}
