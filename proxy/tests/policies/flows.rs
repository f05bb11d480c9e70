//! Flows of datagrams that are open as a policy changes.

use std::net::SocketAddr;

use fairlead_state::model::{Service, TrafficPolicy};

use crate::{
    ask::{ask_by, datagrams},
    objects::{put_service, put_slice},
    place::{ASKED, Addresses, IPV4, IPV6, Place},
    support::world::{World, world},
};

#[test]
fn flows_of_datagrams_to_other_nodes_end_as_the_external_policy_turns_local_in_ipv4() {
    let test =
        "flows::flows_of_datagrams_to_other_nodes_end_as_the_external_policy_turns_local_in_ipv4";
    world(test, |world| assert_flows_end(world, IPV4));
}

#[test]
fn flows_of_datagrams_to_other_nodes_end_as_the_external_policy_turns_local_in_ipv6() {
    let test =
        "flows::flows_of_datagrams_to_other_nodes_end_as_the_external_policy_turns_local_in_ipv6";
    world(test, |world| assert_flows_end(world, IPV6));
}

/// One set serves both policies, the endpoints of this node at its head: a flow to another node's is in the set it was
/// opened by, and no part of the head.
fn assert_flows_end(world: &World, of: Addresses) {
    let mut place = Place::new(world, of);
    let to: SocketAddr = place.balancers()[0];
    let [here, there, _] = place.slices();
    place.apply([put_slice(here), put_slice(there), put_service(place.service())]);
    let sockets: Vec<_> =
        (0..ASKED).map(|_| place.outside.inside(|| datagrams(to).unwrap())).collect();
    let answers = || -> Vec<String> {
        let answers = sockets.iter().map(|socket| ask_by(socket).unwrap());
        answers.map(|answer| answer.split_once(' ').unwrap().0.to_owned()).collect()
    };
    let before = answers();
    assert!(before.iter().any(|name| name == "there"), "{to}: {before:?}");
    assert_eq!(answers(), before, "{to}: a flow keeps its endpoint");

    let external_traffic_policy = TrafficPolicy::Local;
    place.apply([put_service(Service { external_traffic_policy, ..place.service() })]);
    assert_eq!(answers(), [(); ASKED as usize].map(|()| "here"), "{to}");
}
