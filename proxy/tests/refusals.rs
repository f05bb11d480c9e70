//! Who is told that nobody serves here, and of what: answers go to those who asked, not to whoever a damaged packet names.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use fairlead_ebpf::abi::{FrontendKey, TCP, UDP};
use fairlead_proxy::KernelOptions;
use support::{
    frames::{ACK, Packet, RST, read_unreachable, without_checksum},
    services::{address, frontend, node_port},
    uplink::{DROP, IN, NEXT, POD, REDIRECT, Uplink, at},
    world::{World, world},
};

mod support {
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

/// Client, and what it dials, of which there is nobody.
const FAMILIES: [(bool, &str, &str); 2] = [
    (true, "203.0.113.9:40000", "192.168.0.2:30080"),
    (false, "[2001:db8:9::9]:40000", "[2001:db8::2]:30080"),
];

fn refusing(world: &World) -> Uplink {
    let mut uplink = Uplink::new(&world.options());
    let all = FAMILIES.iter().flat_map(|(is_ipv4, ..)| [TCP, UDP].map(|of| (*is_ipv4, of)));
    for (set, (is_ipv4, protocol)) in (1..).zip(all) {
        uplink.put(node_port(is_ipv4, 30080, protocol), set, &[], 0);
    }
    uplink
}

/// Where the transport header is, and in it the checksum.
fn checksum_at(is_ipv4: bool, protocol: u8) -> usize {
    let transport = if is_ipv4 { 34 } else { 54 };
    transport + if protocol == TCP { 16 } else { 6 }
}

/// What a sender leaves in the checksum's place for its device to fill in: the sum of the pseudo-header.
fn partial(mut frame: Vec<u8>, is_ipv4: bool, protocol: u8) -> Vec<u8> {
    let transport = if is_ipv4 { 34 } else { 54 };
    let addresses = &frame[if is_ipv4 { 26..34 } else { 22..54 }];
    let words = addresses.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = words.sum::<u32>() + u32::from(protocol);
    sum += u32::try_from(frame.len() - transport).unwrap();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let at = checksum_at(is_ipv4, protocol);
    frame[at..at + 2].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
    frame
}

/// A bit that fell over made another client, or another port, of it: the kernel looks at the checksum before it says
/// anything to anybody.
#[test]
fn damaged_packets_to_nobody_are_dropped_and_intact_ones_are_answered() {
    world("damaged_packets_to_nobody_are_dropped_and_intact_ones_are_answered", |world| {
        let uplink = refusing(world);
        for (is_ipv4, client, dialled) in FAMILIES {
            for protocol in [TCP, UDP] {
                // One, and around what is summed up at once.
                for len in [0, 1, 2, 503, 504, 505, 1016, 1399] {
                    let payload = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
                    let packet = Packet { payload, ..Packet::first(protocol, client, dialled) };
                    let intact = packet.frame();
                    let last = intact.len() - 1;
                    let source_port = if is_ipv4 { 34 } else { 54 };
                    let damaged = [source_port, checksum_at(is_ipv4, protocol) + 1, last];
                    for program in [IN, POD] {
                        let verdict = |frame: &[u8]| uplink.verdict_of(program, frame);
                        assert_eq!(verdict(&intact), REDIRECT, "{protocol} {client} {len}");
                        let unfinished = partial(intact.clone(), is_ipv4, protocol);
                        assert_eq!(verdict(&unfinished), REDIRECT, "{protocol} {client} {len}");
                        for at in damaged {
                            let mut frame = intact.clone();
                            frame[at] ^= 0x10;
                            assert_eq!(verdict(&frame), DROP, "{protocol} {client} {len} {at}");
                        }
                    }
                }
            }
        }
    });
}

/// RFC 768, RFC 8200 §8.1.
#[test]
fn datagrams_without_a_checksum_are_answered_in_ipv4_only() {
    world("datagrams_without_a_checksum_are_answered_in_ipv4_only", |world| {
        let uplink = refusing(world);
        for (is_ipv4, client, dialled) in FAMILIES {
            let mut frame = Packet::first(UDP, client, dialled).frame();
            if is_ipv4 {
                frame = without_checksum(frame);
            } else {
                let at = checksum_at(is_ipv4, UDP);
                frame[at..at + 2].fill(0);
            }
            let expected = if is_ipv4 { REDIRECT } else { DROP };
            assert_eq!(uplink.verdict_of(IN, &frame), expected, "{client}");
        }
    });
}

#[test]
fn datagrams_whose_length_is_not_theirs_are_dropped() {
    world("datagrams_whose_length_is_not_theirs_are_dropped", |world| {
        let uplink = refusing(world);
        for (is_ipv4, client, dialled) in FAMILIES {
            let at = if is_ipv4 { 34 } else { 54 } + 4;
            for len in [0u16, 7, 14, 1000] {
                let mut frame = Packet::first(UDP, client, dialled).frame();
                frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
                assert_eq!(uplink.verdict_of(IN, &frame), DROP, "{client} {len}");
            }
        }
    });
}

/// The same packet with so many bytes of IPv4 options, or of IPv6 options for each hop and for the destination.
fn with_options(packet: &Packet, len: usize) -> Vec<u8> {
    if packet.from.is_ipv4() {
        // Router alert (RFC 2113), then no operation.
        return packet.frame_with(&[&[0x94, 4, 0, 0], &vec![1; len - 4][..]].concat());
    }
    let plain = packet.frame();
    // Padding of one byte each.
    let header = |next: u8, len: usize| {
        let units = u8::try_from(len / 8 - 1).unwrap();
        [&[next, units][..], &vec![0; len - 2]].concat()
    };
    let options = [header(60, 8), header(packet.protocol, len - 8)].concat();
    let mut frame = [&plain[..54], &options, &plain[54..]].concat();
    frame[14 + 6] = 0;
    let payload = u16::try_from(frame.len() - 54).unwrap();
    frame[14 + 4..14 + 6].copy_from_slice(&payload.to_be_bytes());
    frame
}

/// Reads it, all checksums included.
fn without_options(frame: &[u8], is_ipv4: bool, len: usize) -> Packet {
    if is_ipv4 {
        return Packet::read_with(frame, len);
    }
    let mut plain = [&frame[..54], &frame[54 + len..]].concat();
    plain[14 + 6] = TCP;
    let payload = u16::try_from(plain.len() - 54).unwrap();
    plain[14 + 4..14 + 6].copy_from_slice(&payload.to_be_bytes());
    Packet::read(&plain)
}

/// They were dropped without a word: their clients waited for a time-out.
#[test]
fn packets_with_options_and_extension_headers_are_answered_with_what_they_began_with() {
    let name = "packets_with_options_and_extension_headers_are_answered_with_what_they_began_with";
    world(name, |world| {
        let uplink = refusing(world);
        for (is_ipv4, client, dialled) in FAMILIES {
            let lengths = if is_ipv4 { [4, 8, 40] } else { [16, 64, 256] };
            let headers = if is_ipv4 { 34 } else { 54 };
            for len in lengths {
                // Shorter than the answer, and longer.
                for payload in [vec![], vec![7; 900]] {
                    let datagram = Packet { payload, ..Packet::first(UDP, client, dialled) };
                    let frame = with_options(&datagram, len);
                    let run = uplink.kernel.run_on_packet(IN, &frame, 1).unwrap();
                    assert_eq!(run.verdict, REDIRECT, "{client} {len}");
                    assert_eq!(run.packet[..12], [&frame[6..12], &frame[..6]].concat());
                    let (from, to, quoted) = read_unreachable(&run.packet, 3, 4);
                    assert_eq!((from, to), (datagram.to.ip(), datagram.from.ip()));
                    let expected = &frame[14..headers + len + 8];
                    assert_eq!(quoted, expected, "all headers and the ports (RFC 1812 §4.3.2.3)");
                }
                let syn = Packet::first(TCP, client, dialled);
                let run = uplink.kernel.run_on_packet(IN, &with_options(&syn, len), 1).unwrap();
                assert_eq!(run.verdict, REDIRECT, "{client} {len}");
                let reset = without_options(&run.packet, is_ipv4, len);
                assert_eq!((reset.from, reset.to), (syn.to, syn.from));
                assert_eq!(reset.flags, RST | ACK, "{client} {len}");
            }
            // Longer than any that is in use.
            if !is_ipv4 {
                let frame = with_options(&Packet::first(UDP, client, dialled), 600);
                assert_eq!(uplink.verdict_of(IN, &frame), DROP);
            }
        }
    });
}

/// An echo request (RFC 792, RFC 4443 §4.1), made of a datagram.
fn ping(is_ipv4: bool, client: &str, to: &str) -> Vec<u8> {
    let mut frame = Packet::first(UDP, client, to).frame();
    let (next_header, icmp, message, request) =
        if is_ipv4 { (14 + 9, 1, 34, 8) } else { (14 + 6, 58, 54, 128) };
    frame[next_header] = icmp;
    frame[message..message + 2].copy_from_slice(&[request, 0]);
    frame
}

/// As in kube-proxy's nftables mode: of a ClusterIP each port that there is not is refused, and a ping has none. One that
/// is not allotted is silent; what is the node's own, the node answers.
#[test]
fn a_ping_of_a_service_is_refused_in_its_name_and_one_of_the_node_is_the_nodes() {
    let name = "a_ping_of_a_service_is_refused_in_its_name_and_one_of_the_node_is_the_nodes";
    world(name, |world| {
        let cidrs = ["10.96.0.0/16", "fd00:96::/112"].map(|cidr| cidr.parse().unwrap());
        let options = KernelOptions { service_cidrs: cidrs.into(), ..world.options() };
        let mut uplink = Uplink::new(&options);
        let cluster_ips = ["10.96.0.1:80", "[fd00:96::1]:80"];
        for (set, cluster_ip) in (1..).zip(cluster_ips) {
            uplink.put(frontend(cluster_ip, TCP), 10 + set, &[], 0);
            uplink.put(FrontendKey::other_ports(address(at(cluster_ip).ip())), set, &[], 0);
        }
        let unallocated = ["10.96.9.9:80", "[fd00:96::99]:80"];
        for (((is_ipv4, client, node), cluster_ip), nobody) in
            FAMILIES.into_iter().zip(cluster_ips).zip(unallocated)
        {
            for program in [IN, POD] {
                let frame = ping(is_ipv4, client, cluster_ip);
                let run = uplink.kernel.run_on_packet(program, &frame, 1).unwrap();
                assert_eq!(run.verdict, REDIRECT, "{program} {cluster_ip}");
                let (from, to, quoted) = read_unreachable(&run.packet, 3, 4);
                assert_eq!((from, to), (at(cluster_ip).ip(), at(client).ip()));
                assert!(frame[14..].starts_with(quoted), "what it is about");
                assert_eq!(uplink.verdict(program, &ping(is_ipv4, client, nobody)), DROP);
                assert_eq!(uplink.verdict(program, &ping(is_ipv4, client, node)), NEXT);
            }
        }
    });
}
