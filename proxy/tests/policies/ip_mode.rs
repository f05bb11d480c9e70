//! LoadBalancerIngressRouteTypeProxy: what a balancer is to see itself is left to it (KEP-1860).

use std::sync::Arc;

use fairlead_state::{
    Change,
    model::{IpMode, LoadBalancerIp},
};

use crate::{
    ask::introduce,
    objects::{self, put_service, put_slice},
    place::{ALL, Addresses, IPV4, IPV6, PROTOCOLS, Place},
    support::world::{World, run, world},
};

#[test]
fn addresses_of_mode_proxy_are_left_to_the_balancer_in_ipv4() {
    let test = "ip_mode::addresses_of_mode_proxy_are_left_to_the_balancer_in_ipv4";
    world(test, |world| assert_both_ways(world, IPV4));
}

#[test]
fn addresses_of_mode_proxy_are_left_to_the_balancer_in_ipv6() {
    let test = "ip_mode::addresses_of_mode_proxy_are_left_to_the_balancer_in_ipv6";
    world(test, |world| assert_both_ways(world, IPV6));
}

fn assert_both_ways(world: &World, of: Addresses) {
    let mut place = Place::new(world, of);
    let balancer = &place.also;
    let bits = if of.is_ipv4 { 32 } else { 128 };
    let via = balancer.own_address(of.is_ipv4);
    for at in place.balancers() {
        run(&format!("ip route add {}/{bits} via {via}", at.ip()));
        // On the device it answers by: who asks for neighbours does so from an address of that (RFC 4861 §7.2.2).
        let options = if of.is_ipv4 { "dev" } else { "nodad dev" };
        balancer.run(&format!("ip addr add {}/{bits} {options} eth0", at.ip()));
        for protocol in PROTOCOLS {
            balancer.inside(|| introduce(protocol, at, "balancer"));
        }
    }
    assert_all(&mut place);
    place.attach_sockets();
    assert_all(&mut place);
}

fn assert_all(place: &mut Place) {
    let [here, there, _] = place.slices();
    let all = place.balancers();
    let [one, other] = all;
    let (cluster_ip, node_port) = ([place.cluster_ip(80)], [place.node_port()]);
    place.apply([put_slice(here), put_slice(there)]);
    place.apply([with_modes(place, [IpMode::Proxy, IpMode::Proxy])]);
    place.assert_met(
        "ipMode Proxy",
        &[
            (ALL, &all, "balancer"),
            (ALL, &cluster_ip, "here there"),
            (ALL, &node_port, "here there"),
        ],
    );
    place.apply([with_modes(place, [IpMode::Proxy, IpMode::Vip])]);
    place.assert_met("one of each", &[(ALL, &[one], "balancer"), (ALL, &[other], "here there")]);
    place.apply([with_modes(place, [IpMode::Vip, IpMode::Vip])]);
    place.assert_met("ipMode VIP", &[(ALL, &all, "here there")]);
}

fn with_modes(place: &Place, modes: [IpMode; 2]) -> Change {
    let addresses = place.balancers().into_iter().zip(modes);
    put_service(objects::with(place.service(), |extras| {
        let addresses = addresses.map(|(at, mode)| LoadBalancerIp { ip: at.ip(), mode });
        extras.load_balancer_ips = Arc::from_iter(addresses);
    }))
}
