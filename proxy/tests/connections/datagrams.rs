//! Flows of datagrams: each of their entries gives way by itself, and no first packet or end tells one from the next.

use fairlead_ebpf::abi::{BACKEND_LOCAL, EGRESS, INGRESS, TCP, Tuple, UDP};
use fairlead_proxy::{
    KernelOptions,
    connections::{Sweep, Swept},
};

use crate::{
    FAMILIES, Family, FromOutside,
    support::{
        frames::Packet,
        services::{address, frontend},
        uplink::{IN, OUT, Uplink, at},
        world::{World, world},
    },
    table::{age, forget},
};

/// Backends enough that a flow which is given one anew hardly ever meets its own again.
const BACKENDS: u8 = 200;
/// A load balancer's port on the node's own address.
const BALANCED: u16 = 51820;

/// Which entries of a flow are gone, seen from its backend.
type Gone = fn(&Tuple, backend: [u8; 16]) -> bool;

fn is_reply(key: &Tuple, backend: [u8; 16]) -> bool {
    key.source == backend
}

const HALVES: [(&str, Gone); 5] = [
    ("reply out", |key, backend| is_reply(key, backend) && key.hook == EGRESS),
    ("reply in", |key, backend| is_reply(key, backend) && key.hook == INGRESS),
    ("both replies", is_reply),
    ("request out", |key, backend| key.destination == backend && key.hook == EGRESS),
    ("all but the request in", |key, backend| key.hook == EGRESS || is_reply(key, backend)),
];

/// Of a flow without answers yet the entry for them was met by nothing, and pushed out by a few seconds of short connections;
/// the first answer left the node as the backend's own, and each further question kept the rest of the flow as it was.
#[test]
fn bug_a_flow_of_which_some_entries_are_gone_goes_on_there_and_back_with_its_backend() {
    let name = "datagrams::bug_a_flow_of_which_some_entries_are_gone_goes_on_there_and_back_with_\
                its_backend";
    world(name, |world| {
        let mut uplink = Uplink::new(&world.options());
        let backends = [(0, HALVES.as_slice()), (BACKEND_LOCAL, &HALVES[..1])];
        let cases = backends.map(|of| [false, true].map(|is_answered| (of, is_answered)));
        let mut set = 0;
        for (family, ((flags, halves), is_answered)) in FAMILIES
            .into_iter()
            .flat_map(|family| cases.concat().into_iter().map(move |of| (family, of)))
        {
            set += 1;
            let backends: Vec<String> = (0..BACKENDS).map(|n| family.backend(n)).collect();
            let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
            uplink.put(family.key(UDP), set, &backends, flags);
            for (count, (what, is_gone)) in (1..).zip(halves) {
                let case = format!("{family:?} answered {is_answered}, flags {flags}: {what}");
                let flow = FromOutside { uplink: &uplink, first: family.first(UDP, 9, 40000) };
                let there = flow.there(&flow.first);
                if is_answered {
                    flow.open();
                }
                let backend = address(there.to.ip());
                assert_ne!(forget(&world.bpffs, |key| is_gone(key, backend)), 0, "{case}");
                next_tick(world);
                for _ in 0..2 {
                    assert_eq!(flow.there(&flow.first), there, "{case}");
                    assert_eq!(flow.and_back(&there.reply()), flow.first.reply(), "{case}");
                }
                assert_eq!(uplink.services(set), (count, 0), "{case}: it is no new one");
                forget(&world.bpffs, |_| true);
            }
        }
    });
}

/// The port that a flow goes out from may be another than the first choice.
#[test]
fn a_flow_of_which_some_entries_are_gone_keeps_its_source_port() {
    let name = "datagrams::a_flow_of_which_some_entries_are_gone_keeps_its_source_port";
    world(name, |world| {
        const PORTS: u16 = 4096;
        let options = KernelOptions { snat_ports: 57000..=57000 + PORTS - 1, ..world.options() };
        let mut uplink = Uplink::new(&options);
        for (set, family) in (1..).zip(FAMILIES) {
            uplink.put(family.key(UDP), set, &[&family.backend(5)], 0);
            // As many ports on, the first choice is the same.
            let [one, two] = [40000, 40000 + PORTS].map(|port| family.first(UDP, 9, port));
            let one = FromOutside { uplink: &uplink, first: one };
            let two = FromOutside { uplink: &uplink, first: two };
            let (first, second) = (one.there(&one.first), two.there(&two.first));
            assert_ne!(first.from, second.from);
            let backend = address(second.to.ip());
            for is_gone in HALVES[..3].iter().map(|(_, gone)| gone) {
                assert_ne!(forget(&world.bpffs, |key| is_gone(key, backend)), 0);
                next_tick(world);
                for (flow, there) in [(&two, &second), (&one, &first)] {
                    assert_eq!(flow.there(&flow.first), *there, "{family:?}");
                    assert_eq!(flow.and_back(&there.reply()), flow.first.reply(), "{family:?}");
                }
            }
        }
    });
}

/// It was new to the programs, which know no first datagram: it went to the Service's endpoint.
#[test]
fn bug_an_answer_to_the_node_itself_is_no_client_of_the_service_at_its_port() {
    let name =
        "datagrams::bug_an_answer_to_the_node_itself_is_no_client_of_the_service_at_its_port";
    world(name, |world| {
        let uplink = with_services(world);
        for (family, port) in both(&[30080, BALANCED]) {
            let asked = family.asks(port);
            for _ in 0..3 {
                assert_eq!(uplink.pass(OUT, &asked), asked);
                assert_eq!(uplink.pass(IN, &asked.reply()), asked.reply(), "{asked:?}");
            }
            let other = Packet { to: at(&family.client(8, 53)), ..asked.clone() }.reply();
            assert_eq!(uplink.pass(IN, &other).to, at(&family.backend(5)), "somebody else");
        }
    });
}

#[test]
fn a_flow_of_the_nodes_own_is_answered_also_when_one_of_its_entries_is_gone() {
    let name =
        "datagrams::a_flow_of_the_nodes_own_is_answered_also_when_one_of_its_entries_is_gone";
    world(name, |world| {
        let uplink = with_services(world);
        for ((family, port), hook) in both(&[30080, BALANCED])
            .into_iter()
            .flat_map(|of| [EGRESS, INGRESS].map(|hook| (of, hook)))
        {
            let asked = family.asks(port);
            assert_eq!(uplink.pass(OUT, &asked), asked);
            assert_eq!(forget(&world.bpffs, |key| key.hook == hook), 1, "{asked:?}");
            next_tick(world);
            assert_eq!(uplink.pass(OUT, &asked), asked);
            assert_eq!(uplink.pass(IN, &asked.reply()), asked.reply(), "{asked:?} {hook}");
            forget(&world.bpffs, |_| true);
        }
    });
}

/// As in connection tracking, where a packet of either side puts off the end (nf_conntrack_udp_packet): a server that talks on
/// while the node is silent was led to the Service's endpoint.
#[test]
fn bug_a_flow_of_the_nodes_own_lives_as_long_as_either_side_speaks() {
    let name = "datagrams::bug_a_flow_of_the_nodes_own_lives_as_long_as_either_side_speaks";
    world(name, |world| {
        let uplink = with_services(world);
        let sweep = || uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap();
        for (family, port) in both(&[30080, BALANCED]) {
            for (is_settled, ticks) in [(false, 30), (true, 180)] {
                let asked = family.asks(port);
                let say = || assert_eq!(uplink.pass(OUT, &asked), asked);
                let hear = || uplink.pass(IN, &asked.reply()).to;
                say();
                assert_eq!(hear(), asked.from);
                if is_settled {
                    next_tick(world);
                    say();
                }
                for turn in 0..3 {
                    age(&world.bpffs, ticks - 5, |_| true);
                    let case = format!("{asked:?} settled {is_settled} {turn}");
                    assert_eq!(sweep().removed, 0, "{case}: the other side has spoken");
                    assert_eq!(hear(), asked.from, "{case}");
                }
                age(&world.bpffs, ticks + 5, |_| true);
                assert_eq!(sweep().removed, 2, "{asked:?} settled {is_settled}: nobody has");
                assert_eq!(hear(), at(&family.backend(5)), "{asked:?} settled {is_settled}");
                forget(&world.bpffs, |_| true);
            }
        }
    });
}

#[test]
fn who_goes_on_alone_after_a_flow_of_the_nodes_own_is_a_client_of_the_service() {
    let name =
        "datagrams::who_goes_on_alone_after_a_flow_of_the_nodes_own_is_a_client_of_the_service";
    world(name, |world| {
        let uplink = with_services(world);
        for (family, port) in both(&[30080, BALANCED]) {
            let asked = family.asks(port);
            let hear = || uplink.pass(IN, &asked.reply()).to;
            assert_eq!(uplink.pass(OUT, &asked), asked);
            assert_eq!(hear(), asked.from);
            assert_eq!(forget(&world.bpffs, |key| key.hook == EGRESS), 1, "{asked:?}");
            next_tick(world);
            assert_eq!(hear(), at(&family.backend(5)), "{asked:?}");
            forget(&world.bpffs, |_| true);
        }
    });
}

#[test]
fn only_what_the_node_sends_from_a_services_port_is_remembered() {
    let name = "datagrams::only_what_the_node_sends_from_a_services_port_is_remembered";
    world(name, |world| {
        let uplink = with_services(world);
        let entries = || uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap();
        for family in FAMILIES {
            let node = family.asks(30080);
            let from = |from: String| Packet { from: at(&from), ..node.clone() };
            for other in [
                from(family.dialled.replace("30080", "30081")),
                from(family.dialled.replace("30080", "40000")),
                from(family.pod(30080)),
                // Another proxy has translated back what it serves.
                from(family.cluster_ip(1, 53)),
                Packet { protocol: TCP, ..node.clone() },
            ] {
                assert_eq!(uplink.pass(OUT, &other), other);
                assert_eq!(entries(), Swept::default(), "{other:?}");
            }
            // Through a second device goes what was translated at the first.
            let client = FromOutside { uplink: &uplink, first: family.first(UDP, 9, 40000) };
            let there = client.there(&client.first);
            let back = client.and_back(&there.reply());
            let before = entries();
            assert_eq!(uplink.pass(OUT, &back), back);
            assert_eq!(entries(), before, "{back:?}");
            assert_eq!(client.there(&client.first), there);
            forget(&world.bpffs, |_| true);
        }
    });
}

impl Family {
    /// The node asks a name server, from this port.
    fn asks(self, port: u16) -> Packet {
        let from = self.dialled.replace("30080", &port.to_string());
        Packet::first(UDP, &from, &self.client(9, 53))
    }
}

fn both(ports: &[u16]) -> Vec<(Family, u16)> {
    FAMILIES.into_iter().flat_map(|family| ports.iter().map(move |port| (family, *port))).collect()
}

/// A node with a NodePort, a load balancer's port on its own address, and a name server.
fn with_services(world: &World) -> Uplink {
    let mut uplink = Uplink::new(&world.options());
    for (set, family) in (1..).zip(FAMILIES) {
        let balanced = family.dialled.replace("30080", &BALANCED.to_string());
        let keys = [family.key(UDP), frontend(&balanced, UDP), family.cluster_ip_key(1, 53, UDP)];
        for key in keys {
            uplink.put(key, set, &[&family.backend(5)], BACKEND_LOCAL);
        }
    }
    uplink
}

/// Entries are looked after once a tick.
fn next_tick(world: &World) {
    age(&world.bpffs, 1, |_| true);
}
