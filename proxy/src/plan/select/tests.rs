//! The selection algorithm as tables: endpoints in, slots out.

use std::{net::IpAddr, sync::Arc};

use fairlead_state::{
    Name,
    model::{Endpoint, Hints, Rare},
};

use super::*;
use crate::plan::address;

/// An endpoint in words: `1 node=a ready zone-hint=x`, `2 draining`, `3 down`, `4 terminating`.
fn endpoint(words: &str) -> (u8, Endpoint) {
    let mut words = words.split_whitespace();
    let number: u8 = words.next().unwrap().parse().unwrap();
    let mut endpoint = Endpoint {
        addresses: [IpAddr::from([10, 0, 0, number])].into(),
        ready: false,
        serving: false,
        terminating: false,
        hostname: None,
        node_name: None,
        zone: None,
        hints: Rare::default(),
        pod: None,
    };
    let names = |list: &str| -> Arc<[Name]> { list.split('+').map(Name::from).collect() };
    let mut hints = Hints::default();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("ready", _) => (endpoint.ready, endpoint.serving) = (true, true),
            ("draining", _) => (endpoint.serving, endpoint.terminating) = (true, true),
            ("terminating", _) => endpoint.terminating = true,
            ("serving", _) => endpoint.serving = true,
            ("down", _) => {}
            ("node", name) => endpoint.node_name = Some(name.into()),
            ("zone-hint", list) => hints.zones = names(list),
            ("node-hint", list) => hints.nodes = names(list),
            (other, _) => panic!("{other}"),
        }
    }
    endpoint.hints = hints.into();
    (number, endpoint)
}

fn candidates(endpoints: &[(u8, Endpoint)]) -> Vec<Candidate<'_>> {
    let candidate = |(_, endpoint): &'_ (u8, Endpoint)| Backend {
        address: address(endpoint.addresses[0]),
        port: [0, 80],
        flags: u16::from(endpoint.node_name.as_deref() == Some("a")) * BACKEND_LOCAL,
    };
    let all = endpoints.iter().map(|e| Candidate { backend: candidate(e), endpoint: &e.1 });
    unique(all.collect())
}

/// The last bytes of the addresses.
fn numbers(backends: &[Backend]) -> Vec<u8> {
    backends.iter().map(|backend| backend.address[15]).collect()
}

#[test]
fn endpoints_for_node_a_in_zone_x() {
    let node = NodeView { name: "a".into(), zone: Some("x".into()), ..NodeView::default() };
    /// Name, endpoints, those under policy Cluster, those under policy Local.
    type Case<'a> = (&'a str, &'a [&'a str], &'a [u8], &'a [u8]);
    let cases: &[Case<'_>] = &[
        ("nothing there", &[], &[], &[]),
        ("only ready ones", &["1 ready", "2 down", "3 draining", "4 terminating"], &[1], &[]),
        (
            "locals first, each part sorted",
            &["4 ready", "3 ready node=a", "2 ready", "1 ready node=b", "5 ready node=a"],
            &[3, 5, 1, 2, 4],
            &[3, 5],
        ),
        (
            "none ready: serving and terminating",
            &["1 draining", "2 terminating", "3 serving", "4 down"],
            &[1],
            &[],
        ),
        ("terminating and not serving, never", &["1 terminating"], &[], &[]),
        (
            "ready while terminating counts as ready (publishNotReadyAddresses)",
            &["1 ready terminating", "2 draining"],
            &[1],
            &[],
        ),
        ("local falls back by itself", &["1 ready node=b", "2 draining node=a"], &[1], &[2]),
        ("local never leaves the node", &["1 ready node=b", "2 down node=a"], &[1], &[]),
        ("same node preferred", &["1 ready node-hint=a", "2 ready node-hint=b"], &[1], &[]),
        (
            "same node over same zone",
            &["1 ready node-hint=a zone-hint=x", "2 ready node-hint=b zone-hint=x"],
            &[1],
            &[],
        ),
        (
            "no endpoint for this node: the zone",
            &["1 ready node-hint=b zone-hint=x", "2 ready node-hint=b zone-hint=y"],
            &[1],
            &[],
        ),
        (
            "one ready endpoint without node hint: no node preference",
            &["1 ready node-hint=a", "2 ready"],
            &[1, 2],
            &[],
        ),
        (
            "same zone preferred",
            &["1 ready zone-hint=x", "2 ready zone-hint=y+x", "3 ready zone-hint=y"],
            &[1, 2],
            &[],
        ),
        (
            "one ready endpoint without zone hint: no preference",
            &["1 ready zone-hint=x", "2 ready"],
            &[1, 2],
            &[],
        ),
        (
            "no endpoint for this zone: no preference",
            &["1 ready zone-hint=y", "2 ready zone-hint=z"],
            &[1, 2],
            &[],
        ),
        (
            "hints of endpoints that are not ready do not count",
            &["1 ready zone-hint=x", "2 ready zone-hint=y", "3 down"],
            &[1],
            &[],
        ),
        (
            "draining ones ignore hints",
            &["1 draining zone-hint=x", "2 draining zone-hint=y"],
            &[1, 2],
            &[],
        ),
        (
            "hints do not limit policy Local",
            &["1 ready node=a zone-hint=y", "2 ready zone-hint=x"],
            &[2],
            &[1],
        ),
        ("in two slices: the readier entry", &["1 down", "1 ready", "2 draining"], &[1], &[]),
        ("in two slices: local if either says so", &["1 ready", "1 ready node=a"], &[1], &[1]),
        (
            "an address that a terminating pod of this node has left to one of another",
            &["1 draining node=a", "1 ready node=b", "2 ready node=a"],
            &[2, 1],
            &[2],
        ),
        (
            "the same, published while not ready: both are",
            &["1 ready terminating node=a", "1 ready node=b"],
            &[1],
            &[],
        ),
        (
            "the pod that has the address now is not ready yet",
            &["1 draining node=a", "1 down node=b"],
            &[],
            &[],
        ),
    ];
    for (name, endpoints, for_all, local) in cases {
        let endpoints: Vec<_> = endpoints.iter().map(|words| endpoint(words)).collect();
        let candidates = candidates(&endpoints);
        assert_eq!(numbers(&for_cluster(&candidates, &node)), *for_all, "{name}");
        assert_eq!(numbers(&for_node(&candidates)), *local, "{name}, local");
    }
}

#[test]
fn a_node_without_a_zone_has_no_zone_preference() {
    let node = NodeView { name: "a".into(), zone: None, ..NodeView::default() };
    let endpoints = [endpoint("1 ready zone-hint=x"), endpoint("2 ready zone-hint=y")];
    assert_eq!(numbers(&for_cluster(&candidates(&endpoints), &node)), [1, 2]);
}
