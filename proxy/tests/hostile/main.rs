//! Packets nobody sends in good faith: whatever they are, what the programs let pass is unchanged or
//! rightly translated, no service address leaves the node, and nobody is answered who cannot be.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use fairlead_ebpf::{
    abi::{BACKEND_LOCAL, Reason, SCTP, TCP, UDP},
    packet::mapped,
};
use fairlead_proxy::{KernelOptions, connections::Sweep};
use support::{
    frames::{Packet, fragment, sctp},
    services::{frontend, node_port},
    uplink::{DROP, IN, NEXT, OUT, Uplink},
    world::world,
};

mod fault;
mod malformed;
mod random;
#[path = "../support"]
mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

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

/// The kernel runs programs on nothing shorter than an IP header; devices may deliver less, and
/// then the programs' reads fail as they do behind the header.
fn shortest(frame: &[u8]) -> usize {
    let header = if frame[12..14] == [0x08, 0x00] { 20 } else { 40 };
    frame.len().min(ETHERNET + header)
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

/// An IP packet for one station in a frame for all: who answered would be answering a forger (the "hole-196" of wireless networks).
#[test]
fn a_services_packets_in_frames_for_all_stations_open_nothing_and_are_not_answered() {
    let name = "a_services_packets_in_frames_for_all_stations_open_nothing_and_are_not_answered";
    world(name, |world| {
        let uplink = start(&world.options());
        for station in [[0xff; 6], [0x01, 0x00, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
            for (family, client) in CLIENTS.iter().enumerate() {
                for target in TARGETS[family] {
                    let [tcp, udp] = [TCP, UDP].map(|p| Packet::first(p, client, target).frame());
                    for mut frame in [tcp, udp, sctp(client, target, 1)] {
                        frame[..6].copy_from_slice(&station);
                        let run = uplink.kernel.run_on_packet(IN, &frame, 1).unwrap();
                        assert_eq!((run.verdict, run.packet), (NEXT, frame), "to {target}");
                    }
                }
            }
        }
        let entries = uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap().entries;
        assert_eq!(entries, 0);
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
