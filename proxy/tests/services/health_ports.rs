//! healthCheckNodePort: which ports there are, and how many endpoints each counts.

use fairlead_proxy::health_ports::HealthPorts;
use fairlead_state::{
    Kind,
    model::{Endpoint, EndpointSlice, Service, ServiceType, TrafficPolicy},
};

use crate::objects::{self, Cluster, NODE, endpoint, ip, put_service, put_slice, service, with};

fn balanced(name: &str, port: u16) -> Service {
    let service = Service {
        service_type: ServiceType::LoadBalancer,
        external_traffic_policy: TrafficPolicy::Local,
        ..service(name, "10.96.0.1")
    };
    with(service, |extras| extras.health_check_node_port = Some(port))
}

/// Endpoints as `(node, ready, terminating)`.
fn slice(name: &str, of: &str, endpoints: &[(&str, bool, bool)]) -> EndpointSlice {
    let endpoint = |(number, (node, ready, terminating)): (u8, &(&str, bool, bool))| Endpoint {
        ready: *ready,
        serving: true,
        terminating: *terminating,
        node_name: Some((*node).into()),
        ..endpoint(ip(&format!("10.1.0.{number}")))
    };
    let endpoints: Box<[Endpoint]> = (1..).zip(endpoints).map(endpoint).collect();
    EndpointSlice { endpoints, ..objects::slice(name, of, &[]) }
}

/// kube-proxy's TestHealthCheckNodePortWhenTerminating, and what else its tests count.
#[test]
fn only_ready_endpoints_of_this_node_count() {
    type Case<'a> = (&'a str, &'a [(&'a str, bool, bool)], usize);
    let cases: &[Case<'_>] = &[
        ("none", &[], 0),
        ("ready here", &[(NODE, true, false), (NODE, true, false)], 2),
        ("ready elsewhere", &[("node-b", true, false)], 0),
        ("terminating and serving", &[(NODE, false, true)], 0),
        ("one of two terminates", &[(NODE, true, false), (NODE, false, true)], 1),
    ];
    for (name, endpoints, expected) in cases {
        let mut cluster = Cluster::new();
        let mut ports = HealthPorts::default();
        let changes = [put_service(balanced("a", 31000)), put_slice(slice("a", "a", endpoints))];
        ports.update(&cluster.apply(changes), NODE);
        let by_port = ports.by_port();
        // Without IPv6 both are told the same.
        assert_eq!(by_port[&31000].local_endpoints, [*expected; 2], "{name}");
        assert_eq!(by_port[&31000].service.to_string(), "default/a");
    }
}

/// With `publishNotReadyAddresses` it is ready to its end: a node was sent traffic that it dropped.
#[test]
fn bug_a_pod_whose_address_is_another_nodes_by_now_does_not_count() {
    let at = |node: &str, terminating| Endpoint {
        terminating,
        node_name: Some(node.into()),
        ..endpoint(ip("10.1.0.1"))
    };
    for (name, endpoints, expected) in [
        ("terminates here, alone", vec![at(NODE, true)], 1),
        ("terminates here, another is there", vec![at(NODE, true), at("node-b", false)], 0),
        ("another is here, terminates there", vec![at("node-b", true), at(NODE, false)], 1),
    ] {
        let of = EndpointSlice { endpoints: endpoints.into(), ..objects::slice("a", "a", &[]) };
        let mut ports = HealthPorts::default();
        ports.update(
            &Cluster::new().apply([put_service(balanced("a", 31000)), put_slice(of)]),
            NODE,
        );
        assert_eq!(ports.by_port()[&31000].local_endpoints, [expected; 2], "{name}");
    }
}

/// Proxies leave such slices alone, as kube-proxy's informer does by its selector.
#[test]
fn a_slice_with_the_label_of_headless_services_counts_nobody() {
    let labelled =
        EndpointSlice { headless_label: true, ..slice("a", "a", &[(NODE, true, false)]) };
    let mut ports = HealthPorts::default();
    let changes = [put_service(balanced("a", 31000)), put_slice(labelled)];
    ports.update(&Cluster::new().apply(changes), NODE);
    assert_eq!(ports.by_port()[&31000].local_endpoints, [0; 2]);
}

#[test]
fn ports_follow_services_and_slices() {
    let mut cluster = Cluster::new();
    let mut ports = HealthPorts::default();
    let mut update = |changes: Vec<fairlead_state::Change>| {
        ports.update(&cluster.apply(changes), NODE);
        let by_port = ports.by_port().into_iter();
        by_port.map(|(port, health)| (port, health.local_endpoints(false))).collect::<Vec<_>>()
    };
    let both = slice("a", "a", &[(NODE, true, false), ("node-b", true, false)]);
    // The slice may come first.
    assert_eq!(update(vec![put_slice(both)]), []);
    assert_eq!(update(vec![put_service(balanced("a", 31000))]), [(31000, 1)]);
    let again = slice("a2", "a", &[(NODE, true, false)]);
    assert_eq!(update(vec![put_slice(again)]), [(31000, 1)], "one address in two slices");
    assert_eq!(update(vec![put_service(balanced("b", 31001))]), [(31000, 1), (31001, 0)]);
    let cluster_policy =
        Service { external_traffic_policy: TrafficPolicy::Cluster, ..balanced("a", 31000) };
    assert_eq!(update(vec![put_service(cluster_policy)]), [(31001, 0)]);
    assert_eq!(update(vec![put_service(balanced("a", 31002))]), [(31001, 0), (31002, 1)]);
    assert_eq!(update(vec![objects::delete(Kind::Service, "b")]), [(31002, 1)]);
}

/// A weight of two for one pod drew twice its share.
#[test]
fn a_pod_of_two_families_is_one_endpoint_to_whoever_asks_over_either() {
    let ready = |address: &str| Endpoint { node_name: Some(NODE.into()), ..endpoint(ip(address)) };
    let of = |name: &str, endpoints: &[&str]| EndpointSlice {
        endpoints: endpoints.iter().map(|address| ready(address)).collect(),
        ..objects::slice(name, "a", endpoints)
    };
    for (cluster_ips, expected) in [
        (&["10.96.0.1", "fd00:96::1"][..], [2, 1]),
        (&["10.96.0.1"], [2, 2]),
        (&["fd00:96::1"], [1, 1]),
    ] {
        let cluster_ips = cluster_ips.iter().map(|address| ip(address)).collect();
        let service = Service { cluster_ips, ..balanced("a", 31000) };
        let slices = [of("v4", &["10.1.0.1", "10.1.0.2"]), of("v6", &["fd01::1"])].map(put_slice);
        let mut ports = HealthPorts::default();
        ports.update(&Cluster::new().apply([put_service(service)].into_iter().chain(slices)), NODE);
        let by_port = ports.by_port();
        let told = [false, true].map(|is_ipv6| by_port[&31000].local_endpoints(is_ipv6));
        assert_eq!(told, expected, "{:?}", by_port[&31000].service);
    }
}
