//! Packets cut short, and headers that lie: nothing behind a packet's end is taken for a part of it.

use fairlead_ebpf::abi::{Reason, TCP, UDP};

use super::{
    CLIENTS, ETHERNET, HEADERS, TARGETS, shortest, start,
    support::{
        frames::{Packet, fragment, refresh_header, sctp, too_big},
        uplink::{IN, NEXT, NODE_V4, NODE_V6, Uplink},
        world::world,
    },
};

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
    world("malformed::truncated_packets_pass_untouched_and_are_counted", |world| {
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
    let name =
        "malformed::headers_that_lie_about_versions_and_lengths_pass_untouched_and_are_counted";
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
    let name =
        "malformed::fragments_that_end_within_their_own_headers_pass_untouched_and_are_counted";
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
