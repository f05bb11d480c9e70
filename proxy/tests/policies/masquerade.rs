//! InternalExternalMasquerade with masquerade-all: every endpoint sees the node, but where policy Local promises the
//! client's address to those who come by an external one.

use fairlead_proxy::KernelOptions;
use fairlead_state::model::{Service, TrafficPolicy};

use crate::{
    objects::{put_service, put_slice},
    place::{
        Addresses,
        Client::{Outside, Pod},
        IPV4, IPV6, Place,
    },
    support::world::{World, world},
};

#[test]
fn masquerade_all_spares_external_addresses_under_policy_local_in_ipv4() {
    let test = "masquerade::masquerade_all_spares_external_addresses_under_policy_local_in_ipv4";
    world(test, |world| assert_all(world, IPV4));
}

#[test]
fn masquerade_all_spares_external_addresses_under_policy_local_in_ipv6() {
    let test = "masquerade::masquerade_all_spares_external_addresses_under_policy_local_in_ipv6";
    world(test, |world| assert_all(world, IPV6));
}

fn assert_all(world: &World, of: Addresses) {
    let options = KernelOptions { masquerade_all: true, ..world.options() };
    let mut place = Place::with(world, of, options);
    let [here, there, _] = place.slices();
    place.apply([put_slice(here), put_slice(there)]);
    let (cluster, local) = (TrafficPolicy::Cluster, TrafficPolicy::Local);
    let (hidden, kept) = ("here node, there node", "here client, there client");
    // The policies, internal and external; then by ClusterIP from outside and of a pod, and by an external address.
    let cases = [
        ((cluster, cluster), [hidden, hidden], [hidden, hidden]),
        ((local, cluster), ["here node", "here node"], [hidden, hidden]),
        ((cluster, local), [hidden, hidden], ["here client", kept]),
        ((local, local), ["here node", "here node"], ["here client", kept]),
    ];
    for ((internal_traffic_policy, external_traffic_policy), by_cluster_ip, by_external) in cases {
        let service =
            Service { internal_traffic_policy, external_traffic_policy, ..place.service() };
        place.apply([put_service(service)]);
        let test =
            format!("internal {internal_traffic_policy:?}, external {external_traffic_policy:?}");
        for (client, expected) in [Outside, Pod].into_iter().zip(by_cluster_ip) {
            place.assert_seen(&test, client, place.cluster_ip(80), expected);
        }
        for (client, expected) in [Outside, Pod].into_iter().zip(by_external) {
            for to in place.external() {
                place.assert_seen(&test, client, to, expected);
            }
        }
    }
    place.attach_sockets();
    place.apply([put_service(place.service())]);
    for to in [place.cluster_ip(80), place.node_port(), place.balancers()[0]] {
        place.assert_seen("what sockets send keeps its address", Pod, to, kept);
    }
}
