//! From which port a backend sees a client, where replies could not be told apart otherwise.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use fairlead_ebpf::abi::{BACKEND_LOCAL, EGRESS, INGRESS, Reason, TCP, Tuple, UDP};
use fairlead_proxy::{KernelOptions, delta::Step, maps::Maps as _, port_range::PortRange};

use crate::{
    FAMILIES, FromOutside,
    support::{
        frames::Packet,
        services::{address, node_port},
        uplink::{DROP, IN, OUT, Uplink, at},
        world::world,
    },
    table::{age, forget},
};

/// After so long another connection may have the ports of one that is closed.
const LINGER_TICKS: u32 = 3;

#[test]
fn one_client_port_reaches_one_backend_by_two_services() {
    world("source_ports::one_client_port_reaches_one_backend_by_two_services", |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, family) in [1, 3].into_iter().zip(FAMILIES) {
            let other_key = node_port(family.is_ipv4, 30081, TCP);
            let backend = family.backend(5);
            for (set, key) in [(set, family.key(TCP)), (set + 1, other_key)] {
                uplink.put(key, set, &[&backend], BACKEND_LOCAL);
            }
            let other = family.dialled.replace("30080", "30081");
            let dialled = [family.dialled, &other];
            let syns = dialled.map(|dialled| Packet::first(TCP, &family.client(9, 40000), dialled));
            let inside = syns.clone().map(|syn| uplink.pass(IN, &syn));
            let [one, two] = inside.each_ref().map(|inside| inside.from);
            assert_ne!(one, two, "replies could not be told apart");
            for (syn, inside) in syns.iter().zip(&inside) {
                let reply = uplink.pass(OUT, &inside.reply());
                assert_eq!((reply.from, reply.to), (syn.to, syn.from));
                assert_eq!(uplink.pass(IN, &syn.later()).from, inside.from);
            }
        }
    });
}

/// What hid the client outlived its connection, and met the next one from that port to the same backend: the endpoint saw
/// the node where a policy promises the client's address.
#[test]
fn bug_a_client_is_not_hidden_for_what_its_port_did_by_a_service_that_hides_clients() {
    let name = "source_ports::bug_a_client_is_not_hidden_for_what_its_port_did_by_a_service_that_hides_\
                clients";
    world(name, |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, family) in [1, 3].into_iter().zip(FAMILIES) {
            let backend = family.backend(5);
            uplink.put(family.key(TCP), set, &[&backend], 0);
            let open_key = node_port(family.is_ipv4, 30081, TCP);
            uplink.put(open_key, set + 1, &[&backend], BACKEND_LOCAL);
            let hidden = FromOutside { uplink: &uplink, first: family.first(TCP, 9, 40000) };
            hidden.open();
            let there = hidden.there(&hidden.first.reset());
            assert_ne!(there.from.ip(), hidden.first.from.ip());
            age(&world.bpffs, LINGER_TICKS, |_| true);
            let dialled = family.dialled.replace("30080", "30081");
            let first = Packet::first(TCP, &family.client(9, 40000), &dialled);
            let open = FromOutside { uplink: &uplink, first };
            for packet in [open.first.clone(), open.first.later()] {
                let there = open.there(&packet);
                assert_eq!((there.from, there.to), (packet.from, at(&backend)));
                let back = open.and_back(&there.reply());
                assert_eq!((back.from, back.to), (packet.to, packet.from));
            }
        }
    });
}

#[test]
fn a_client_that_dials_a_backend_itself_from_the_port_of_a_services_connection_is_answered() {
    let name = "source_ports::a_client_that_dials_a_backend_itself_from_the_port_of_a_services_\
                connection_is_answered";
    world(name, |world| {
        for (family, (flags, set)) in FAMILIES
            .into_iter()
            .flat_map(|family| [(BACKEND_LOCAL, 1), (0, 2)].map(|of| (family, of)))
        {
            let mut uplink = Uplink::new(&world.options());
            let backend = family.backend(5);
            uplink.put(family.key(TCP), set.into(), &[&backend], flags);
            let client = family.client(set, 40000);
            let served = FromOutside { uplink: &uplink, first: family.first(TCP, set, 40000) };
            served.open();
            let first = Packet::first(TCP, &client, &backend);
            let own = FromOutside { uplink: &uplink, first };
            for packet in [own.first.clone(), own.first.clone(), own.first.later()] {
                let there = own.there(&packet);
                assert_eq!(there.to, at(&backend));
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
    world("source_ports::connection_without_a_free_port_is_dropped_and_counted", |world| {
        let options = KernelOptions { snat_ports: 61000..=61000, ..world.options() };
        let mut uplink = Uplink::new(&options);
        for ((set, family), dropped) in (1..).zip(FAMILIES).zip(1u64..) {
            let backend = family.backend(5);
            uplink.put(family.key(TCP), set, &[&backend], 0);
            let [one, two] = [40000, 40001].map(|port| family.first(TCP, 9, port));
            uplink.pass(IN, &one);
            assert_eq!(uplink.verdict(IN, &two.frame()), DROP);
            assert_eq!(uplink.count(Reason::PortsExhausted), dropped);
            assert_eq!(uplink.pass(IN, &one.later()).to, at(&backend), "the first goes on");
        }
    });
}

/// Of ports taken at random, those a client's earlier connections still held were met ever more often: a client
/// that opened some thousand a second had packets dropped, though no two of its connections were alike.
#[test]
fn a_client_that_uses_all_its_ports_again_and_again_never_meets_its_own_earlier_connections() {
    let name = "source_ports::a_client_that_uses_all_its_ports_again_and_again_never_meets_its_\
                own_earlier_connections";
    world(name, |world| {
        const PORTS: u16 = 64;
        let options = KernelOptions { snat_ports: 61000..=61000 + PORTS - 1, ..world.options() };
        let mut uplink = Uplink::new(&options);
        for (set, family) in (1..).zip(FAMILIES) {
            for protocol in [TCP, UDP] {
                uplink.put(family.key(protocol), set, &[&family.backend(5)], 0);
            }
            for (protocol, round) in [(TCP, 0), (TCP, 1), (UDP, 0), (UDP, 1)] {
                let mut met = BTreeSet::new();
                for port in 40000..40000 + PORTS {
                    let first = family.first(protocol, 9, port);
                    let one = FromOutside { uplink: &uplink, first };
                    let there = one.there(&one.first);
                    let back = one.and_back(&there.reply());
                    assert_eq!(back, one.first.reply(), "{family:?} {port} {round}");
                    met.insert(there.from);
                    if protocol == TCP {
                        one.there(&one.first.reset());
                    }
                }
                assert_eq!(met.len(), usize::from(PORTS), "{family:?} round {round}");
            }
        }
        assert_eq!(uplink.count(Reason::PortsExhausted), 0);
    });
}

/// The entries of one connection age in twos: when a closing was noted in the outer two only by half, the
/// inner two left long before them, and a client that came back to its port was led out as itself.
#[test]
fn a_client_that_opens_again_what_has_half_left_the_table_is_led_there_and_back() {
    let name = "source_ports::a_client_that_opens_again_what_has_half_left_the_table_is_led_there_\
                and_back";
    world(name, |world| {
        for (family, gone) in
            FAMILIES.into_iter().flat_map(|family| [EGRESS, INGRESS].map(|gone| (family, gone)))
        {
            let mut uplink = Uplink::new(&world.options());
            uplink.put(family.key(TCP), 1, &[&family.backend(5)], 0);
            let first = family.first(TCP, 9, 40000 + u16::from(gone));
            let again = FromOutside { uplink: &uplink, first };
            again.open();
            let (node, backend) = (at(family.dialled).ip(), at(&family.backend(5)));
            assert_eq!(again.there(&again.first.later()).from.ip(), node);
            let inner = |key: &Tuple| match gone {
                EGRESS => key.hook == EGRESS && key.destination == address(backend.ip()),
                _ => key.hook == INGRESS && key.source == address(backend.ip()),
            };
            assert_ne!(forget(&world.bpffs, inner), 0, "it was there");
            let there = again.there(&again.first);
            assert_eq!((there.from.ip(), there.to), (node, backend));
            let back = again.and_back(&there.reply());
            assert_eq!((back.from, back.to), (again.first.to, again.first.from));
        }
    });
}

#[test]
fn source_ports_of_ended_connections_serve_again_and_those_of_open_ones_do_not() {
    let name = "source_ports::source_ports_of_ended_connections_serve_again_and_those_of_open_ones_\
                do_not";
    world(name, |world| {
        let ends = [(false, 61000), (true, 61001)];
        for (family, (is_broken_off, port)) in
            FAMILIES.into_iter().flat_map(|family| ends.map(|end| (family, end)))
        {
            let options = KernelOptions { snat_ports: port..=port, ..world.options() };
            let mut uplink = Uplink::new(&options);
            uplink.put(family.key(TCP), 1, &[&family.backend(5)], 0);
            let one = FromOutside { uplink: &uplink, first: family.first(TCP, 1, port) };
            one.open();
            let two = family.first(TCP, 2, port).frame();
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
            let two = FromOutside { uplink: &uplink, first: family.first(TCP, 2, port) };
            let met = two.and_back(&two.there(&two.first).reply());
            assert_eq!((met.from, met.to), (two.first.to, two.first.from));
        }
    });
}

/// NodePorts that come and go move the range of ports; who has one keeps it.
#[test]
fn a_connection_keeps_its_source_port_where_the_range_goes_and_when_it_comes_back() {
    let name = "source_ports::a_connection_keeps_its_source_port_where_the_range_goes_and_when_it_\
                comes_back";
    world(name, |world| {
        for (family, protocol) in
            FAMILIES.into_iter().flat_map(|family| [TCP, UDP].map(|protocol| (family, protocol)))
        {
            let options = KernelOptions { snat_ports: 61000..=61000, ..world.options() };
            let mut uplink = Uplink::new(&options);
            uplink.put(family.key(protocol), 1, &[&family.backend(5)], 0);
            let [one, two, three] = [1, 2, 3].map(|last| family.first(protocol, last, 40000));
            let goes_on = |uplink: &Uplink, first: &Packet, from: u16| {
                let it = FromOutside { uplink, first: first.clone() };
                let there = it.there(first);
                assert_eq!(there.from.port(), from, "{family:?}");
                let back = it.and_back(&there.reply());
                assert_eq!((back.from, back.to), (first.to, first.from), "{family:?}");
            };
            goes_on(&uplink, &one, 61000);
            let ports = |first, last| Step::SourcePorts(PortRange::new(first, last));
            uplink.maps.apply(&ports(62000, 62000)).expect("written");
            goes_on(&uplink, &two, 62000);
            goes_on(&uplink, &one.later(), 61000);
            uplink.maps.apply(&ports(61000, 61000)).expect("written");
            assert_eq!(uplink.verdict(IN, &three.frame()), DROP, "it is somebody's: {family:?}");
            goes_on(&uplink, &one.later(), 61000);
            goes_on(&uplink, &two.later(), 62000);
        }
    });
}
