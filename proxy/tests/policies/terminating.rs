//! TerminatingEndpointsTrafficPolicyLocal and TerminatingEndpointsTrafficPolicyCluster: endpoints that drain serve
//! while no ready one does, for the cluster's set and for the node's own each.

use fairlead_state::model::{Endpoint, EndpointSlice, Service, TrafficPolicy};

use crate::{
    objects::{put_service, put_slice},
    place::{ALL, Addresses, INSIDE, IPV4, IPV6, OUTSIDE, Place, Row},
    support::world::{World, world},
};

/// What a slice says of an endpoint.
#[derive(Clone, Copy, Debug)]
enum State {
    Ready,
    /// Terminates, and serves as yet.
    Draining,
    /// Terminates, and serves no more.
    Gone,
    /// Not yet, or no more, and does not terminate.
    Unready,
}
use State::{Draining, Gone, Ready, Unready};

/// The endpoint here, the one there; who of all of them answers, and who of those here.
const CASES: [(State, State, &str, &str); 10] = [
    (Ready, Ready, "here there", "here"),
    (Ready, Draining, "here", "here"),
    (Draining, Ready, "there", "here"),
    (Draining, Draining, "here there", "here"),
    (Gone, Ready, "there", "DROP"),
    (Gone, Draining, "there", "DROP"),
    (Gone, Gone, "REJECT", "REJECT"),
    (Unready, Ready, "there", "DROP"),
    (Unready, Draining, "there", "DROP"),
    (Unready, Unready, "REJECT", "REJECT"),
];

#[test]
fn endpoints_that_terminate_serve_as_in_the_contract_in_ipv4() {
    let test = "terminating::endpoints_that_terminate_serve_as_in_the_contract_in_ipv4";
    world(test, |world| assert_both_ways(world, IPV4));
}

#[test]
fn endpoints_that_terminate_serve_as_in_the_contract_in_ipv6() {
    let test = "terminating::endpoints_that_terminate_serve_as_in_the_contract_in_ipv6";
    world(test, |world| assert_both_ways(world, IPV6));
}

fn assert_both_ways(world: &World, of: Addresses) {
    let mut place = Place::new(world, of);
    assert_all(&mut place);
    place.attach_sockets();
    assert_all(&mut place);
}

fn in_state(slice: &EndpointSlice, state: State) -> EndpointSlice {
    let (ready, serving, terminating) = match state {
        Ready => (true, true, false),
        Draining => (false, true, true),
        Gone => (false, false, true),
        Unready => (false, false, false),
    };
    let endpoints = slice.endpoints.iter();
    let endpoints = endpoints.map(|of| Endpoint { ready, serving, terminating, ..of.clone() });
    EndpointSlice { endpoints: endpoints.collect(), ..slice.clone() }
}

fn assert_all(place: &mut Place) {
    let (cluster_ip, external) = ([place.cluster_ip(80)], place.external());
    let [here_slice, there_slice, _] = place.slices();
    for (here, there, of_all, of_here) in CASES {
        place.apply([
            put_slice(in_state(&here_slice, here)),
            put_slice(in_state(&there_slice, there)),
        ]);
        let case = |policy: &str| format!("{policy}, {here:?} here, {there:?} there");
        place.apply([put_service(place.service())]);
        let rows: [Row<'_>; 2] = [(ALL, &cluster_ip, of_all), (ALL, &external, of_all)];
        place.assert_met(&case("policy Cluster"), &rows);

        let local = TrafficPolicy::Local;
        place.apply([put_service(Service { external_traffic_policy: local, ..place.service() })]);
        place.assert_met(
            &case("externalTrafficPolicy Local"),
            &[
                (ALL, &cluster_ip, of_all),
                (INSIDE, &external, of_all),
                (OUTSIDE, &external, of_here),
            ],
        );

        place.apply([put_service(Service { internal_traffic_policy: local, ..place.service() })]);
        let rows: [Row<'_>; 2] = [(ALL, &cluster_ip, of_here), (ALL, &external, of_all)];
        place.assert_met(&case("internalTrafficPolicy Local"), &rows);
    }
}
