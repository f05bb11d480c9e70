//! Names to ask for.

use crate::{
    cluster::{HOSTS, NAMESPACES, PORTS, SERVICES, ZONES},
    random::Random,
    setups::Setup,
    upstream,
};

const ZONE: &str = "cluster.local.";
/// Names that are there once, or nearly.
const SINGLE: [&str; 17] = [
    ZONE,
    "svc.cluster.local.",
    "pod.cluster.local.",
    "dns-version.cluster.local.",
    "foo.cluster.local.",
    "a.b.foo.cluster.local.",
    "ns.dns.cluster.local.",
    "dns.cluster.local.",
    "fd00--1.demo.pod.cluster.local.",
    "1-2-3-256.demo.pod.cluster.local.",
    "*.demo.svc.cluster.local.",
    "any.demo.svc.cluster.local.",
    "_http._tcp.demo.svc.cluster.local.",
    "_tcp.web.demo.svc.cluster.local.",
    "_._tcp.web.demo.svc.cluster.local.",
    "_http.web.demo.svc.cluster.local.",
    "_http._tcp.db-0.db.demo.svc.cluster.local.",
];

pub(super) fn any(setup: &Setup, random: &mut Random) -> String {
    if !setup.names.is_empty() && random.one_in(3) {
        return (*random.of(setup.names)).to_owned();
    }
    let namespace = match random.below(8) {
        0 => "nope",
        1 => "kube-system",
        _ => random.of(&NAMESPACES),
    };
    let service = if random.one_in(8) { "nope" } else { random.of(&SERVICES) };
    let number = random.below(65);
    match random.below(25) {
        0..=11 => below(namespace, service, random),
        12 => format!("1-2-3-{number}.{namespace}.pod.{ZONE}"),
        13 => format!("10-1-0-{number}.{namespace}.pod.{ZONE}"),
        14..=16 => reverse(random),
        17 => format!("{namespace}.svc.{ZONE}"),
        18 => format!("{namespace}.pod.{ZONE}"),
        19..=20 => (*random.of(&SINGLE)).to_owned(),
        21 => (*random.of(&[
            "xcluster.local.",
            "local.",
            ".",
            "in-addr.arpa.",
            "ip6.arpa.",
            "96.10.in-addr.arpa.",
            "1.10.in-addr.arpa.",
            "x.0.96.10.in-addr.arpa.",
            "1.1.0.96.10.in-addr.arpa.",
        ]))
        .to_owned(),
        22 => (*random.of(&upstream::NAMES)).to_owned(),
        23 => {
            let front = random.of(&["x", "10-1-0-1", "_http._tcp", "a.b", "a.b.c"]);
            let pod = random.of(&["1-2-3-4", "10-1-0-1", "fd00--1", "x"]);
            format!("{front}.{pod}.{namespace}.pod.{ZONE}")
        }
        _ => format!(
            "www.example.{}",
            random.of(&["demo.svc.cluster.local.", "svc.cluster.local.", ZONE])
        ),
    }
}

/// An address' name: a Service's, an endpoint's, or nobody's.
pub(super) fn reverse(random: &mut Random) -> String {
    let number = random.below(65);
    match random.below(3) {
        0 => format!("{number}.0.1.10.in-addr.arpa."),
        1 => format!("{}.0.96.10.in-addr.arpa.", random.below(200)),
        _ => {
            let low = format!("{:x}.{:x}", number % 16, number / 16);
            let middle = "0.".repeat(22);
            let nets = ["1.0.0.0.0.0.d.f.ip6.arpa.", "6.9.0.0.0.0.d.f.ip6.arpa."];
            format!("{low}.{middle}{}", random.of(&nets))
        }
    }
}

/// A Service's name, or one below it.
pub(super) fn below(namespace: &str, service: &str, random: &mut Random) -> String {
    let number = random.below(65);
    let proto = *random.of(&["_tcp", "_udp", "_sctp", "_nope", "tcp"]);
    let port = *random.of(&PORTS);
    let own = format!("{service}.{namespace}.svc.{ZONE}");
    match random.below(20) {
        0..=7 => own,
        8..=11 => format!("_{port}.{proto}.{own}"),
        12..=13 => format!("{}.{own}", random.of(&HOSTS)),
        14 => format!("10-1-0-{number}.{own}"),
        15 => format!("fd00-1--{number:x}.{own}"),
        16 => match random.below(5) {
            0 | 1 => format!("pod-{number}.{own}"),
            2 => format!("x.{own}"),
            3 => format!("a.b.c.{own}"),
            _ => format!("{proto}.{own}"),
        },
        17..=18 => {
            let topology = if random.one_in(4) { "two" } else { *random.of(&ZONES) };
            let directive = *random.of(&["pin", "pin", "prefer", "prefer", "near"]);
            format!("{topology}.{directive}._zone.{own}")
        }
        _ => {
            let front = *random.of(&["_zone", "pin._zone", "prefer._zone", "near._zone"]);
            format!("{front}.{own}")
        }
    }
}
