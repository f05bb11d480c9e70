//! kube-proxy's `sync_proxy_rules_no_local_endpoints_total`: whom policy Local leaves without an endpoint here.

use std::sync::Arc;

use fairlead_proxy::plan::without_local_endpoints;
use fairlead_state::model::{
    Endpoint, EndpointSlice, Protocol, Service, ServiceType, TrafficPolicy,
};

use crate::objects::{
    self, Cluster, NODE, endpoint, ip, node_view, port, put_service, put_slice, service, slice,
    with,
};

/// NodePort Services of two ports of TCP, by both policies.
fn served(internal: TrafficPolicy, external: TrafficPolicy) -> Service {
    Service {
        service_type: ServiceType::NodePort,
        ports: Arc::new([
            port("a", Protocol::Tcp, 80, Some(30080)),
            port("b", Protocol::Tcp, 81, Some(30081)),
        ]),
        internal_traffic_policy: internal,
        external_traffic_policy: external,
        ..service("web", "10.96.0.1")
    }
}

fn at(node: &str) -> EndpointSlice {
    let of_node = Endpoint { node_name: Some(node.into()), ..endpoint(ip("10.1.0.1")) };
    let ports = ["a", "b"].map(|name| objects::endpoint_port(name, Protocol::Tcp, 8080));
    EndpointSlice {
        ports: Arc::new(ports),
        endpoints: [of_node].into(),
        ..slice("web-1", "web", &[])
    }
}

/// The same slice with other conditions: ready, serving, terminating.
fn in_state(
    slice: EndpointSlice,
    (ready, serving, terminating): (bool, bool, bool),
) -> EndpointSlice {
    let endpoints = slice.endpoints.iter().cloned();
    let endpoints = endpoints.map(|of| Endpoint { ready, serving, terminating, ..of });
    EndpointSlice { endpoints: endpoints.collect(), ..slice }
}

#[test]
fn ports_whose_endpoints_are_all_elsewhere_are_counted_by_policy() {
    use TrafficPolicy::{Cluster as All, Local};
    let nobody = EndpointSlice { endpoints: [].into(), ..at(NODE) };
    let elsewhere = || at("node-b");
    let both = || served(Local, Local);
    let [draining, unready] = [(false, true, true), (false, true, false)];
    let cases = [
        ("here", both(), at(NODE), [0, 0]),
        ("elsewhere", both(), elsewhere(), [2, 2]),
        ("internal only", served(Local, All), elsewhere(), [2, 0]),
        ("external only", served(All, Local), elsewhere(), [0, 2]),
        ("nobody: refused, not dropped", both(), nobody, [0, 0]),
        ("drains elsewhere", both(), in_state(elsewhere(), draining), [2, 2]),
        ("drains here", both(), in_state(at(NODE), draining), [0, 0]),
        (
            "serves elsewhere, neither ready nor terminating",
            both(),
            in_state(elsewhere(), unready),
            [0, 0],
        ),
        (
            "headless",
            Service { headless: true, cluster_ips: [].into(), ..both() },
            elsewhere(),
            [0, 0],
        ),
        ("headless by label", Service { headless_label: true, ..both() }, elsewhere(), [0, 0]),
        (
            "another proxy's",
            with(both(), |extras| extras.proxy_name = Some("other".into())),
            elsewhere(),
            [0, 0],
        ),
        (
            "no outside",
            Service {
                service_type: ServiceType::ClusterIp,
                ports: service("", "10.96.0.1").ports,
                ..both()
            },
            EndpointSlice { ports: slice("", "", &[]).ports, ..elsewhere() },
            [1, 0],
        ),
    ];
    for (name, service, slice, [internal, external]) in cases {
        let snapshot = Cluster::new().apply([put_service(service), put_slice(slice)]);
        let counts = without_local_endpoints(&snapshot, &node_view(&snapshot));
        assert_eq!(counts, [[internal, 0], [external, 0]], "{name}");
    }
}

#[test]
fn families_are_counted_apart_and_only_those_the_service_has() {
    let local = TrafficPolicy::Local;
    let ipv6 = EndpointSlice {
        ipv6: true,
        endpoints: [Endpoint { node_name: Some("node-b".into()), ..endpoint(ip("fd00::1")) }]
            .into(),
        ..at("node-b")
    };
    for (name, cluster_ips, expected) in [
        ("of IPv6", &["fd00:96::1"][..], [[0, 2], [0, 2]]),
        ("of both, IPv4 by nobody", &["10.96.0.1", "fd00:96::1"], [[0, 2], [0, 2]]),
        ("of IPv4", &["10.96.0.1"], [[0, 0], [0, 0]]),
    ] {
        let cluster_ips = cluster_ips.iter().map(|text| ip(text)).collect();
        let service = Service { cluster_ips, ..served(local, local) };
        let snapshot = Cluster::new().apply([put_service(service), put_slice(ipv6.clone())]);
        let counts = without_local_endpoints(&snapshot, &node_view(&snapshot));
        assert_eq!(counts, expected, "{name}");
    }
}
