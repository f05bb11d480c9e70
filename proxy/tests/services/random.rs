//! Random changes of a cluster small enough that everything meets everything.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use fairlead_ebpf::abi::{BackendKey, FrontendValue, MaglevKey, TableSize};
use fairlead_proxy::image::Image;
use fairlead_state::{
    Change, Kind, Name,
    model::{
        Endpoint, EndpointSlice, Hints, IpMode, LoadBalancerIp, LoadBalancing, Protocol, Service,
        ServiceExtras, ServicePort, SessionAffinity, TrafficPolicy,
    },
};
use ipnetwork::IpNetwork;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::objects;

const SERVICES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const SLICES: [&str; 9] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"];
const PORTS: [&str; 3] = ["", "web", "dns"];
const ZONES: [&str; 2] = ["x", "y"];

/// One change of one object.
pub(crate) fn change(random: &mut StdRng) -> Change {
    match random.random_range(0..100) {
        0..30 => objects::put_service(service(random)),
        30..38 => objects::delete(Kind::Service, pick(random, &SERVICES)),
        38..86 => objects::put_slice(slice(random)),
        86..96 => objects::delete(Kind::EndpointSlice, pick(random, &SLICES)),
        _ => objects::node(random.random_bool(0.7).then(|| pick(random, &ZONES))),
    }
}

fn pick<'a>(random: &mut StdRng, of: &[&'a str]) -> &'a str {
    of.choose(random).unwrap()
}

fn service(random: &mut StdRng) -> Service {
    let mut cluster_ips = Vec::new();
    if random.random_bool(0.9) {
        cluster_ips.push(IpAddr::from([10, 96, 0, random.random_range(1..9)]));
    }
    if random.random_bool(0.3) {
        cluster_ips.push(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, random.random_range(1..5)]));
    }
    let policy = |local| if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
    Service {
        created_seconds: random.random_range(0..3),
        cluster_ips: cluster_ips.into(),
        headless: random.random_bool(0.05),
        headless_label: random.random_bool(0.03),
        internal_traffic_policy: policy(random.random_bool(0.15)),
        external_traffic_policy: policy(random.random_bool(0.4)),
        extras: extras(random).into(),
        ports: ports(random).into(),
        ..objects::service(pick(random, &SERVICES), "10.96.0.1")
    }
}

fn extras(random: &mut StdRng) -> ServiceExtras {
    ServiceExtras {
        proxy_name: random.random_bool(0.03).then(|| "other".into()),
        load_balancer_ips: balancer_ips(random),
        load_balancer_source_ranges: source_ranges(random),
        session_affinity: if random.random_bool(0.2) {
            SessionAffinity::ClientIp { timeout_seconds: random.random_range(1..3) }
        } else {
            SessionAffinity::None
        },
        load_balancing: match random.random_range(0..10) {
            0..3 => LoadBalancing::Maglev,
            3 => LoadBalancing::Other("best".into()),
            _ => LoadBalancing::Default,
        },
        ..ServiceExtras::default()
    }
}

fn balancer_ips(random: &mut StdRng) -> Arc<[LoadBalancerIp]> {
    let ip = |random: &mut StdRng| LoadBalancerIp {
        ip: IpAddr::from([192, 0, 2, random.random_range(1..4)]),
        mode: if random.random_bool(0.8) { IpMode::Vip } else { IpMode::Proxy },
    };
    (0..random.random_range(0..3)).map(|_| ip(random)).collect()
}

fn source_ranges(random: &mut StdRng) -> Arc<[IpNetwork]> {
    let ranges = ["198.51.100.0/24", "203.0.113.0/25", "0.0.0.0/0", "fd00::/8", "::/0"];
    let count = if random.random_bool(0.4) { random.random_range(1..4) } else { 0 };
    (0..count).map(|_| pick(random, &ranges).parse().unwrap()).collect()
}

fn ports(random: &mut StdRng) -> Vec<ServicePort> {
    let port = |random: &mut StdRng, name: &&str| {
        let protocol = match random.random_range(0..20) {
            0..13 => Protocol::Tcp,
            13..19 => Protocol::Udp,
            _ => Protocol::Sctp,
        };
        let node_port = random
            .random_bool(0.4)
            .then(|| *[80, 20000, 30000, 30001, 65535].choose(random).unwrap());
        objects::port(name, protocol, random.random_range(80..83), node_port)
    };
    let count = random.random_range(1..=PORTS.len());
    PORTS.iter().take(count).map(|name| port(random, name)).collect()
}

fn slice(random: &mut StdRng) -> EndpointSlice {
    let ipv6 = random.random_bool(0.3);
    let endpoints = (0..random.random_range(0..5)).map(|_| endpoint(random, ipv6)).collect();
    let mut ports = Vec::new();
    for name in PORTS {
        if random.random_bool(0.7) {
            let protocol = if random.random_bool(0.8) { Protocol::Tcp } else { Protocol::Udp };
            ports.push(objects::endpoint_port(name, protocol, random.random_range(8080..8083)));
        }
    }
    EndpointSlice {
        ipv6,
        ports: ports.into(),
        endpoints,
        ..objects::slice(pick(random, &SLICES), pick(random, &SERVICES), &[])
    }
}

fn endpoint(random: &mut StdRng, ipv6: bool) -> Endpoint {
    let last: u8 = random.random_range(1..9);
    let address = if ipv6 {
        IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, u16::from(last)])
    } else {
        IpAddr::from([10, 244, 0, last])
    };
    let hints = |random: &mut StdRng, names: &[&str]| -> Arc<[Name]> {
        let is_hinted = random.random_bool(0.6);
        is_hinted.then(|| pick(random, names).into()).into_iter().collect()
    };
    let ready = random.random_bool(0.6);
    Endpoint {
        ready,
        serving: ready || random.random_bool(0.6),
        terminating: !ready && random.random_bool(0.6),
        node_name: Some(pick(random, &[objects::NODE, "node-b"]).into()),
        hints: Hints {
            zones: hints(random, &ZONES),
            nodes: hints(random, &[objects::NODE, "node-b"]),
        }
        .into(),
        ..objects::endpoint(address)
    }
}

/// Every slot a frontend leads to.
fn slots(value: &FrontendValue) -> impl Iterator<Item = BackendKey> + use<> {
    let sets = [(value.set_id, value.backends), (value.local_set_id, value.local_backends)];
    let slots =
        |(set_id, count)| (0..u32::from(count)).map(move |slot| BackendKey { set_id, slot });
    sets.into_iter().flat_map(slots)
}

/// Every part of the tables a frontend leads to.
fn parts(value: &FrontendValue) -> impl Iterator<Item = MaglevKey> + use<> {
    let sets = [(value.set_id, value.backends), (value.local_set_id, value.local_backends)];
    let size = TableSize::of(value.flags);
    let sets = sets.into_iter().filter(|(_, backends)| *backends > 0);
    sets.flat_map(move |(set_id, _)| {
        (0..size.map_or(0, TableSize::parts)).map(move |part| MaglevKey { set_id, part })
    })
}

/// What a reader of these maps could trip over.
pub(crate) fn hole(image: &Image) -> Option<String> {
    image.frontends.iter().find_map(|(key, value)| {
        let slot = slots(value).find(|slot| !image.backends.contains_key(slot));
        let part = parts(value).find(|part| !image.maglev.contains_key(part));
        let other = slots(value).find(|at| {
            let first = value.first.get(key, at.slot).filter(|_| at.set_id == value.set_id);
            first.is_some_and(|first| image.backends.get(at) != Some(&first))
        });
        let missing = slot
            .map(|slot| format!("{slot:?}"))
            .or(part.map(|part| format!("{part:?}")))
            .or(other.map(|slot| format!("a copy of {slot:?}")))?;
        Some(format!("{} lacks {missing}", fairlead_proxy::text::frontend(key)))
    })
}

/// Slots and parts of tables no frontend leads to.
pub(crate) fn strays(image: &Image) -> Vec<String> {
    let led_to: BTreeSet<BackendKey> =
        image.frontends.values().flat_map(|entry| slots(entry)).collect();
    let tables: BTreeSet<MaglevKey> =
        image.frontends.values().flat_map(|entry| parts(entry)).collect();
    let slots = image.backends.keys().filter(|key| !led_to.contains(key));
    let parts = image.maglev.keys().filter(|key| !tables.contains(key));
    slots.map(|key| format!("{key:?}")).chain(parts.map(|key| format!("{key:?}"))).collect()
}
