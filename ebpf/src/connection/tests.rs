//! What entries rewrite, find, and say of their connection.

use bytemuck::Zeroable as _;

use super::*;
use crate::{abi::SCTP, packet::mapped};

const CLIENT: Address = mapped([203, 0, 113, 9]);
const NODE: Address = mapped([192, 168, 0, 2]);
const BACKEND: Address = mapped([10, 244, 1, 5]);

fn tuple(hook: u8, from: (Address, u16), to: (Address, u16)) -> Tuple {
    Tuple {
        source: from.0,
        destination: to.0,
        source_port: from.1.to_be_bytes(),
        destination_port: to.1.to_be_bytes(),
        protocol: TCP,
        hook,
        zero: [0; 2],
    }
}

fn flow(dialled: &Tuple, client_port: u16) -> Flow<'_> {
    Flow {
        dialled,
        backend: BACKEND,
        backend_port: 8080u16.to_be_bytes(),
        client_port: client_port.to_be_bytes(),
        now: 7,
        counter_id: 9,
    }
}

/// Applies `entry` to the packet the previous hook left behind.
fn pass(packet: Tuple, hook: u8, entry: Entry) -> Tuple {
    let packet = Tuple { hook, ..packet };
    assert_eq!(packet, entry.0, "the entry is for the packet that arrives at its hook");
    rewritten(&packet, &entry.1)
}

#[test]
fn local_backend_sees_the_client_and_the_client_sees_the_node() {
    for client_port in [40000, 50001] {
        let dialled = tuple(INGRESS, (CLIENT, 40000), (NODE, 30080));
        let flow = flow(&dialled, client_port);
        let at_backend = pass(dialled, INGRESS, flow.request_in());
        assert_eq!(at_backend, tuple(INGRESS, (CLIENT, client_port), (BACKEND, 8080)));
        let reply = tuple(EGRESS, (BACKEND, 8080), (CLIENT, client_port));
        let at_client = pass(reply, EGRESS, flow.reply_out());
        assert_eq!(at_client, tuple(EGRESS, (NODE, 30080), (CLIENT, 40000)));
    }
}

#[test]
fn remote_backend_sees_the_node_and_the_client_sees_the_node() {
    for client_port in [40000, 50001] {
        let dialled = tuple(INGRESS, (CLIENT, 40000), (NODE, 30080));
        let flow = flow(&dialled, client_port);
        let port = 61000u16.to_be_bytes();
        let routed = pass(dialled, INGRESS, flow.request_in());
        let at_backend = pass(routed, EGRESS, flow.request_out(NODE, port));
        assert_eq!(at_backend, tuple(EGRESS, (NODE, 61000), (BACKEND, 8080)));
        let reply = tuple(INGRESS, (BACKEND, 8080), (NODE, 61000));
        let routed = pass(reply, INGRESS, flow.reply_in(NODE, port));
        let at_client = pass(routed, EGRESS, flow.reply_out());
        assert_eq!(at_client, tuple(EGRESS, (NODE, 30080), (CLIENT, 40000)));
    }
}

#[test]
fn what_nothing_is_done_to_finds_its_other_direction_and_stays_as_it_is() {
    let there = tuple(EGRESS, (NODE, 30080), (CLIENT, 53));
    let way = Connection::unchanged(&there, 0, 7);
    let back = twin(&there, &way);
    assert_eq!(back, tuple(INGRESS, (CLIENT, 53), (NODE, 30080)));
    let way_back = Connection::unchanged(&back, CONNECTION_REPLY, 7);
    assert_eq!(twin(&back, &way_back), there);
    for (packet, entry, other) in [(there, way, way_back), (back, way_back, way)] {
        assert_eq!(rewritten(&packet, &entry), packet);
        assert!(entry.is_unchanged(&packet) && is_twin(&packet, &other));
        assert!(!entry.is_of_service());
        let led = Connection { destination_port: [9, 9], ..entry };
        assert!(!led.is_unchanged(&packet));
    }
}

#[test]
fn packets_that_pass_two_hooks_are_counted_at_one() {
    let dialled = tuple(INGRESS, (CLIENT, 40000), (NODE, 30080));
    let flow = flow(&dialled, 40000);
    let port = 61000u16.to_be_bytes();
    let ways = [flow.request_in(), flow.request_out(NODE, port)];
    let back = [flow.reply_in(NODE, port), flow.reply_out()];
    assert_eq!(ways.map(|(_, entry)| entry.counted_for()), [9, 0]);
    assert_eq!(back.map(|(_, entry)| entry.counted_for()), [0, 9]);
}

#[test]
fn what_an_earlier_agent_left_is_counted_for_no_service() {
    let slot_of_a_backend = Connection { counter_id: 3, ..Connection::zeroed() };
    assert_eq!(slot_of_a_backend.counted_for(), 0);
}

#[test]
fn one_client_port_reaching_one_backend_by_two_services_needs_another_port() {
    let dialled = [30080, 30081].map(|port| tuple(INGRESS, (CLIENT, 40000), (NODE, port)));
    let [first, second] = [flow(&dialled[0], 40000), flow(&dialled[1], 40000)];
    assert_eq!(first.reply_out().0, second.reply_out().0);
    let moved = Flow { client_port: 50001u16.to_be_bytes(), ..second };
    assert_ne!(first.reply_out().0, moved.reply_out().0);
}

#[test]
fn each_entry_finds_the_one_for_the_other_direction_and_back() {
    let dialled = tuple(INGRESS, (CLIENT, 40000), (NODE, 30080));
    let flow = flow(&dialled, 50001);
    let port = 61000u16.to_be_bytes();
    let outer = [flow.request_in(), flow.reply_out()];
    let inner = [flow.request_out(NODE, port), flow.reply_in(NODE, port)];
    for [(one, way), (other, back)] in [outer, inner] {
        assert_eq!(twin(&one, &way), other);
        assert_eq!(twin(&other, &back), one);
        assert!(is_twin(&one, &back) && is_twin(&other, &way));
        let elsewhere = Connection { source_port: [9, 9], ..back };
        assert_ne!(twin(&other, &elsewhere), one);
        assert!(!is_twin(&one, &elsewhere));
    }
}

#[test]
fn a_connection_is_over_when_netfilter_would_say_so() {
    let state = |state| Connection { state, seen: u32::MAX - 5, ..Connection::zeroed() };
    let (assured, fin, other) =
        (CONNECTION_ASSURED, CONNECTION_ASSURED | CONNECTION_FIN, CONNECTION_OTHER_FIN);
    for (protocol, flags, over, free) in [
        (TCP, 0, 120, 120),
        (TCP, CONNECTION_ANSWERED, 120, 120),
        (TCP, assured, 86_400, 86_400),
        (TCP, fin, 3600, 3600),
        (TCP, assured | other, 3600, 3600),
        (TCP, fin | other, 120, 2),
        (TCP, assured | CONNECTION_RESET, 120, 2),
        (TCP, CONNECTION_RESET, 120, 2),
        (UDP, CONNECTION_ANSWERED, 30, 30),
        (UDP, assured, 180, 180),
        (SCTP, assured, 210, 210),
    ] {
        let entry = state(flags);
        // Ticks run over: a node that is up for 146 years.
        let after = |ticks: u32| entry.seen.wrapping_add(ticks);
        assert!(!entry.is_over(protocol, after(over - 1)), "{protocol} {flags:#b}");
        assert!(entry.is_over(protocol, after(over)), "{protocol} {flags:#b}");
        assert!(!entry.is_free(protocol, after(free - 1)), "{protocol} {flags:#b}");
        assert!(entry.is_free(protocol, after(free)), "{protocol} {flags:#b}");
        assert!(!entry.is_free(protocol, entry.seen.wrapping_sub(1)), "met on another core");
    }
}

/// What is unwrapped comes in the buffer of what it was wrapped in, note and all.
#[test]
fn a_translated_packet_is_known_by_its_mark_and_no_other_is() {
    let v6 = |last| {
        let mut address = [0xfd; 16];
        address[15] = last;
        address
    };
    for (client, node, backend) in [(CLIENT, NODE, BACKEND), (v6(9), v6(2), v6(5))] {
        let packet = tuple(INGRESS, (client, 40000), (backend, 8080));
        assert_eq!(mark(&Tuple { hook: EGRESS, ..packet }), mark(&packet), "as it leaves");
        for (what, other) in [
            ("as it came", tuple(INGRESS, (client, 40000), (node, 30080))),
            ("its answer", tuple(INGRESS, (backend, 8080), (client, 40000))),
            ("another client's", tuple(INGRESS, (node, 40000), (backend, 8080))),
            ("of another connection", tuple(INGRESS, (client, 40001), (backend, 8080))),
            ("to another port", tuple(INGRESS, (client, 40000), (backend, 8081))),
            ("of another protocol", Tuple { protocol: UDP, ..packet }),
        ] {
            assert_ne!(mark(&other), mark(&packet), "{what}");
        }
    }
}

/// No mark says that there is none.
#[test]
fn marks_are_never_0_and_as_many_as_there_can_be() {
    let marks: std::collections::BTreeSet<u16> =
        (0..=u16::MAX).map(|port| mark(&tuple(INGRESS, (CLIENT, port), (BACKEND, 8080)))).collect();
    assert!(!marks.contains(&0));
    // 65,536 thrown at random into as many places meet a share of 1 - 1/e of them.
    assert!((40_000..43_000).contains(&marks.len()), "{}", marks.len());
}
