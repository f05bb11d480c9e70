//! Who meets which backend, and until when.

use std::collections::BTreeSet;

use fairlead_ebpf::abi::{BACKEND_LOCAL, BackendKey, FrontendKey, Reason, TCP, UDP};
use fairlead_proxy::{
    KernelOptions,
    delta::Step,
    maps::{Maps as _, kernel::KernelMaps},
};

use crate::{
    FAMILIES,
    support::{
        frames::Packet,
        uplink::{IN, OUT, POD, REDIRECT, Uplink, at},
        world::world,
    },
};

#[test]
fn who_steps_aside_leaves_service_addresses_to_the_next_and_keeps_connections() {
    let name =
        "backends::who_steps_aside_leaves_service_addresses_to_the_next_and_keeps_connections";
    world(name, |world| {
        let service_cidrs = FAMILIES.map(|family| family.cidr.parse().unwrap()).into();
        let options = KernelOptions { service_cidrs, ..world.options() };
        let mut uplink = Uplink::new(&options);
        for (set, family) in (1..).zip(FAMILIES) {
            uplink.put(family.cluster_ip_key(1, 80, TCP), set, &[&family.backend(5)], 0);
        }
        let opened = FAMILIES.map(|family| {
            let first = Packet::first(TCP, &family.pod(40000), &family.cluster_ip(1, 80));
            assert_eq!(uplink.pass(POD, &first).to, at(&family.backend(5)));
            first
        });
        KernelMaps::open_pinned(&world.bpffs).unwrap().step_aside().unwrap();
        for (family, first) in FAMILIES.into_iter().zip(opened) {
            let later = uplink.pass(POD, &first.later());
            assert_eq!(later.to, at(&family.backend(5)), "open: kept");
            for service in [1, 200] {
                let to = family.cluster_ip(service, 80);
                let new = Packet::first(TCP, &family.pod(40001), &to);
                assert_eq!(uplink.pass(POD, &new), new, "another proxy's, if anybody's");
            }
        }
    });
}

#[test]
fn repeated_syn_meets_the_same_backend() {
    world("backends::repeated_syn_meets_the_same_backend", |world| {
        let mut uplink = Uplink::new(&world.options());
        for (set, family) in (1..).zip(FAMILIES) {
            let backends: Vec<String> = (1..=9).map(|n| family.backend(n)).collect();
            let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
            uplink.put(family.key(TCP), set, &backends, 0);
            let mut met = BTreeSet::new();
            for port in 40000..40050 {
                let syn = family.first(TCP, 9, port);
                let backend = uplink.pass(IN, &syn).to;
                for _ in 0..5 {
                    assert_eq!(uplink.pass(IN, &syn).to, backend);
                }
                met.insert(backend);
            }
            assert!(met.len() >= 7, "50 connections to 9 backends met only {met:?}");
            assert_eq!(uplink.services(set), (50, 0), "a repeated SYN is no new connection");
        }
    });
}

#[test]
fn backend_that_left_keeps_its_connections_and_gets_no_new_ones() {
    world("backends::backend_that_left_keeps_its_connections_and_gets_no_new_ones", |world| {
        let mut uplink = Uplink::new(&world.options());
        let replace = |uplink: &mut Uplink, key, set: u32, backends: &[&str]| {
            uplink.put(key, set, backends, 0);
            let gone = BackendKey { set_id: set - 1, slot: 0 };
            uplink.maps.apply(&Step::DeleteBackends(vec![gone])).unwrap();
        };
        let mut set = 10;
        for family in FAMILIES {
            let [old, new] = [5, 6].map(|n| family.backend(n));
            let (old, new) = (old.as_str(), new.as_str());
            for protocol in [TCP, UDP] {
                set += 10;
                let key = family.key(protocol);
                let first = family.first(protocol, 9, 40000);
                replace(&mut uplink, key, set, &[old]);
                assert_eq!(uplink.pass(IN, &first).to, at(old));
                // Another joins: the connection stays where it is, whatever its slot is now.
                replace(&mut uplink, key, set + 1, &[new, old]);
                for packet in [first.clone(), first.later(), first.clone()] {
                    assert_eq!(uplink.pass(IN, &packet).to, at(old), "{protocol} {family:?}");
                }
                replace(&mut uplink, key, set + 2, &[new]);
                let kept = uplink.pass(IN, &first.later()).to;
                let expected = if protocol == TCP { old } else { new };
                assert_eq!(kept, at(expected), "{protocol} {family:?}: established, or a datagram");
                assert_eq!(uplink.pass(IN, &first).to, at(new), "{protocol} {family:?}: anew");
                let reply = uplink.pass(OUT, &uplink.pass(IN, &first));
                assert_eq!(reply.to, at(new));
            }
        }
    });
}

/// A packet of a connection that is known was counted twice: when its entry was found to be of no use,
/// and when it was opened anew.
#[test]
fn each_packet_of_a_known_flow_to_a_port_that_is_gone_is_counted_once() {
    let name = "backends::each_packet_of_a_known_flow_to_a_port_that_is_gone_is_counted_once";
    world(name, |world| {
        let mut uplink = Uplink::new(&world.options());
        let (mut met, mut set) = (0, 0);
        for family in FAMILIES {
            for (protocol, service) in [(UDP, 1), (TCP, 2)] {
                set += 1;
                let key = family.cluster_ip_key(service, 53, protocol);
                uplink.put(key, set, &[&family.backend(5)], BACKEND_LOCAL);
                let others = FrontendKey::other_ports(key.address);
                uplink.put(others, set, &[], 0);
                let dialled = family.cluster_ip(service, 53);
                let first = Packet::first(protocol, &family.client(9, 40000), &dialled);
                assert_eq!(uplink.pass(IN, &first).to, at(&family.backend(5)));
                uplink.maps.apply(&Step::DeleteFrontends(vec![key])).unwrap();
                for rejected in 1..=3 {
                    assert_eq!(uplink.verdict_of(IN, &first.frame()), REDIRECT, "{dialled}");
                    met += 1;
                    assert_eq!(uplink.count(Reason::UnusedPort), met, "{dialled}");
                    assert_eq!(uplink.services(set), (1, rejected), "{dialled}");
                    assert_eq!(uplink.refused(set), [(Reason::UnusedPort, rejected)].into());
                }
            }
        }
    });
}
