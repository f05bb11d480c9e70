//! ClusterIPGeneral, NoEndpointsReject, LoadBalancer, NodePorts, ExternalTrafficPolicy and InternalTrafficPolicy.

use std::sync::Arc;

use fairlead_state::{
    Kind,
    model::{Protocol, Service, TrafficPolicy},
};
use ipnetwork::IpNetwork;

use crate::{
    objects::{self, delete, put_service, put_slice},
    place::{ALL, Addresses, By, Client, INSIDE, IPV4, IPV6, OUTSIDE, Place, Row},
    support::world::{World, world},
};

#[test]
fn outcomes_are_the_contracts_in_ipv4() {
    world("rows::outcomes_are_the_contracts_in_ipv4", |world| assert_both_ways(world, IPV4));
}

#[test]
fn outcomes_are_the_contracts_in_ipv6() {
    world("rows::outcomes_are_the_contracts_in_ipv6", |world| assert_both_ways(world, IPV6));
}

fn assert_both_ways(world: &World, of: Addresses) {
    let mut place = Place::new(world, of);
    assert_all(&mut place);
    place.attach_sockets();
    assert_all(&mut place);
}

fn assert_all(place: &mut Place) {
    assert_policy_cluster(place);
    assert_policies_local(place);
    assert_source_ranges(place);
    assert_nobody(place);
}

/// ClusterIPGeneral, ExternalTrafficPolicyCluster, NodePorts.
fn assert_policy_cluster(place: &mut Place) {
    let [here, there, _] = place.slices();
    let other = place.other_service();
    place.apply([put_service(place.service()), put_service(other), put_slice(here)]);
    // A pod's packets come back to it by way of the node; its sockets are connected to itself at once.
    let itself = if place.by == By::Packets { "here node" } else { "here client" };
    for to in [place.cluster_ip(80), place.node_port(), place.balancers()[0]] {
        place.assert_seen("hairpin", Client::Endpoint, to, itself);
    }

    place.apply([put_slice(there)]);
    let [cluster_ip, tls, unused] = [80, 443, 81].map(|port| place.cluster_ip(port));
    let (external, unallocated) = (place.external(), place.unallocated());
    place.assert_met(
        "policy Cluster",
        &[(ALL, &[cluster_ip], "here there"), (ALL, &external, "here there")],
    );
    let each_its_own = [(ALL, &[tls][..], "here-tls there-tls")];
    place.assert_met_by(Protocol::Tcp, "another port", &each_its_own);
    place.assert_met_by(Protocol::Udp, "of TCP only", &[(ALL, &[tls], "REJECT")]);
    // A socket is told at once.
    let silence = if place.by == By::Packets { "DROP" } else { "REJECT" };
    place.assert_met("nobody's", &[(ALL, &[unused], "REJECT"), (ALL, &[unallocated], silence)]);
}

/// ExternalTrafficPolicyLocal, InternalTrafficPolicy.
fn assert_policies_local(place: &mut Place) {
    let local = TrafficPolicy::Local;
    let (cluster_ip, external) = ([place.cluster_ip(80)], place.external());
    place.apply([put_service(Service { external_traffic_policy: local, ..place.service() })]);
    place.assert_met(
        "externalTrafficPolicy Local",
        &[
            (OUTSIDE, &external, "here"),
            (INSIDE, &external, "here there"),
            (ALL, &cluster_ip, "here there"),
        ],
    );

    let internal = Service { internal_traffic_policy: local, ..place.service() };
    place.apply([put_service(internal.clone())]);
    let rows: [Row<'_>; 2] = [(ALL, &cluster_ip, "here"), (ALL, &external, "here there")];
    place.assert_met("internalTrafficPolicy Local", &rows);
    let [.., also] = place.slices();
    place.apply([put_slice(also)]);
    place.assert_met("two local endpoints", &[(ALL, &cluster_ip, "also here")]);

    let both_local = Service { external_traffic_policy: local, ..internal.clone() };
    let gone = ["also", "here"].map(|slice| delete(Kind::EndpointSlice, slice));
    place.apply(gone.into_iter().chain([put_service(both_local)]));
    place.assert_met(
        "no local endpoint",
        &[(ALL, &cluster_ip, "DROP"), (OUTSIDE, &external, "DROP"), (INSIDE, &external, "there")],
    );
    place.apply([put_service(internal), delete(Kind::EndpointSlice, "there")]);
    let rows: [Row<'_>; 2] = [(ALL, &cluster_ip, "REJECT"), (ALL, &external, "REJECT")];
    place.assert_met("internalTrafficPolicy Local, no endpoints", &rows);
}

/// LoadBalancer: pods are filtered, too, and NodePorts are not.
fn assert_source_ranges(place: &mut Place) {
    let [here, there, _] = place.slices();
    place.apply([put_slice(here), put_slice(there)]);
    let (cluster_ip, node_port) = ([place.cluster_ip(80)], [place.node_port()]);
    let (balancers, is_ipv4) = (place.balancers(), place.of.is_ipv4);
    let (client, node) = (place.outside.own_address(is_ipv4), place.outside.node_address(is_ipv4));
    let ranged = |place: &Place, ranges: &[IpNetwork]| {
        put_service(objects::with(place.service(), |extras| {
            extras.load_balancer_source_ranges = ranges.into();
        }))
    };
    let everybody = ["0.0.0.0/0", "::/0"].map(|range| range.parse::<IpNetwork>().unwrap());
    let [own, other] = if is_ipv4 { everybody } else { [everybody[1], everybody[0]] };
    let open: [Row<'_>; 2] = [(ALL, &cluster_ip, "here there"), (ALL, &node_port, "here there")];
    let [client, node, nobody] = [client, node, place.unallocated().ip()].map(IpNetwork::from);
    for (what, ranges) in [
        ("loadBalancerSourceRanges of a client and the node", &[client, node][..]),
        ("of those, and of everybody in the other family", &[client, node, other]),
    ] {
        place.apply([ranged(place, ranges)]);
        place.assert_met(
            what,
            &[
                (OUTSIDE, &balancers, "here there"),
                (&[Client::Node], &balancers, "here there"),
                (&[Client::Pod], &balancers, "DROP"),
            ],
        );
        place.assert_met(what, &open);
    }
    for (what, ranges, met) in [
        ("loadBalancerSourceRanges of nobody", &[nobody][..], "DROP"),
        ("of nobody, and of everybody in the other family", &[nobody, other], "DROP"),
        ("of everybody", &[own, other], "here there"),
    ] {
        place.apply([ranged(place, ranges)]);
        place.assert_met(what, &[(ALL, &balancers, met)]);
        place.assert_met(what, &open);
    }
}

/// NoEndpointsReject.
fn assert_nobody(place: &mut Place) {
    let service = objects::with(place.service(), |extras| {
        extras.load_balancer_source_ranges = Arc::new([]);
    });
    let gone = ["here", "there"].map(|slice| delete(Kind::EndpointSlice, slice));
    place.apply(gone.into_iter().chain([put_service(service)]));
    let (cluster_ip, external) = ([place.cluster_ip(80)], place.external());
    let rows: [Row<'_>; 2] = [(ALL, &cluster_ip, "REJECT"), (ALL, &external, "REJECT")];
    place.assert_met("no endpoints", &rows);
}
