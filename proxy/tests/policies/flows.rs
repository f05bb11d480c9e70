//! Flows of datagrams that are open as a policy changes.

use std::net::SocketAddr;

use fairlead_state::model::{Endpoint, EndpointSlice, Service, TrafficPolicy};

use crate::{
    ask::{ask_by, datagrams},
    objects::{put_service, put_slice},
    place::{ASKED, Addresses, IPV4, IPV6, Place},
    support::world::{World, world},
};

#[test]
fn flows_of_datagrams_stay_with_endpoints_that_serve_and_leave_those_that_do_not_in_ipv4() {
    let test = "flows::flows_of_datagrams_stay_with_endpoints_that_serve_and_leave_those_that_do_not_in_ipv4";
    world(test, |world| assert_flows_stay(world, IPV4));
}

#[test]
fn flows_of_datagrams_stay_with_endpoints_that_serve_and_leave_those_that_do_not_in_ipv6() {
    let test = "flows::flows_of_datagrams_stay_with_endpoints_that_serve_and_leave_those_that_do_not_in_ipv6";
    world(test, |world| assert_flows_stay(world, IPV6));
}

/// As kube-proxy's pkg/proxy/conntrack/cleanup.go has it: what policies, hints and drains change is where new flows go.
fn assert_flows_stay(world: &World, of: Addresses) {
    let mut place = Place::new(world, of);
    let to: SocketAddr = place.balancers()[0];
    let [here, there, _] = place.slices();
    place.apply([put_slice(here), put_slice(there.clone()), put_service(place.service())]);
    let sockets: Vec<_> =
        (0..ASKED).map(|_| place.outside.inside(|| datagrams(to).unwrap())).collect();
    let answers = || -> Vec<String> {
        let answers = sockets.iter().map(|socket| ask_by(socket).unwrap());
        answers.map(|answer| answer.split_once(' ').unwrap().0.to_owned()).collect()
    };
    let before = answers();
    assert!(before.iter().any(|name| name == "there"), "{to}: {before:?}");

    let external_traffic_policy = TrafficPolicy::Local;
    place.apply([put_service(Service { external_traffic_policy, ..place.service() })]);
    // Twice: what a flow is known by from the first time on counts the second time.
    assert_eq!([answers(), answers()], [before.clone(), before.clone()], "{to}: Local");
    let new = place.outside.inside(|| ask_by(&datagrams(to).unwrap()).unwrap());
    assert!(new.starts_with("here "), "{to}: a new flow meets {new}");

    let state = |ready: bool, serving: bool| {
        let endpoints = there.endpoints.iter().cloned();
        let endpoints = endpoints.map(|e| Endpoint { ready, serving, terminating: !ready, ..e });
        put_slice(EndpointSlice { endpoints: endpoints.collect(), ..there.clone() })
    };
    place.apply([put_service(place.service()), state(false, true)]);
    assert_eq!([answers(), answers()], [before.clone(), before.clone()], "{to}: drains");
    place.apply([state(false, false)]);
    assert_eq!(answers(), [(); ASKED as usize].map(|()| "here"), "{to}: serves no more");
}
