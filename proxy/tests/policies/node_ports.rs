//! NodePorts by nodePortAddresses: what is not among them is left untouched, so that a process of the node has the
//! port there.

use std::net::SocketAddr;

use fairlead_proxy::{KernelOptions, NodePortAddresses};

use crate::{
    ask::introduce,
    objects::{put_service, put_slice},
    place::{ALL, Addresses, IPV4, IPV6, NODE_PORT, PROTOCOLS, Place, Row},
    support::world::{World, world},
};

#[test]
fn node_ports_answer_at_the_addresses_that_were_asked_for_in_ipv4() {
    let test = "node_ports::node_ports_answer_at_the_addresses_that_were_asked_for_in_ipv4";
    world(test, |world| assert_all(world, IPV4));
}

#[test]
fn node_ports_answer_at_the_addresses_that_were_asked_for_in_ipv6() {
    let test = "node_ports::node_ports_answer_at_the_addresses_that_were_asked_for_in_ipv6";
    world(test, |world| assert_all(world, IPV6));
}

fn assert_all(world: &World, of: Addresses) {
    let mut place = Place::new(world, of);
    let [here, there, _] = place.slices();
    place.apply([put_service(place.service()), put_slice(here), put_slice(there)]);
    let [own, other] = [&place.outside, &place.here]
        .map(|pod| SocketAddr::new(pod.node_address(of.is_ipv4), NODE_PORT));
    for at in [own, other] {
        for protocol in PROTOCOLS {
            introduce(protocol, at, "process");
        }
    }
    let (served, untouched) = ("here there", "process");
    let range = format!("{}/{}", other.ip(), if of.is_ipv4 { 32 } else { 128 });
    for (words, at_own, at_other) in [
        (vec![], served, served),
        (vec!["primary"], served, untouched),
        (vec![range.as_str()], untouched, served),
        (vec!["primary", range.as_str()], served, served),
        (vec!["primary", "localhost"], served, untouched),
        (vec!["localhost"], untouched, untouched),
    ] {
        let node_port_addresses = NodePortAddresses::from_words(words.clone()).unwrap();
        place.restart(world, KernelOptions { node_port_addresses, ..world.options() });
        let rows: [Row<'_>; 2] = [(ALL, &[own], at_own), (ALL, &[other], at_other)];
        let test = format!("nodePortAddresses {words:?}");
        place.assert_met(&test, &rows);
        place.attach_sockets();
        place.assert_met(&test, &rows);
    }
}
