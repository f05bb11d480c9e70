//! Parts of a Service that cannot be served, beside the rest, which is.

use std::sync::Arc;

use fairlead_proxy::{maps::memory::MemoryMaps, plan::Problem, sync::Synchroniser, text};
use fairlead_state::model::{EndpointSlice, IpMode, LoadBalancerIp};

use crate::objects::{Cluster, NODE, ip, put_service, put_slice, service, slice, with};

#[test]
fn a_service_with_an_address_that_is_none_is_served_at_the_others_and_its_owner_told() {
    let why = "status.loadBalancer.ingress[0].ip \"127.0.0.1\" is a loopback address, which cannot be \
               a Service's";
    let web = with(service("web", "10.96.0.1"), |extras| {
        let usable = LoadBalancerIp { ip: ip("203.0.113.1"), mode: IpMode::Vip };
        extras.load_balancer_ips = Arc::new([usable]);
        extras.unusable_ips = Arc::new([why.into()]);
    });
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    sync.reconcile(&cluster.apply([put_service(web), put_slice(slice("w", "web", &["10.9.0.1"]))]));
    let image = text::image_text(sync.maps().image());
    assert!(image.contains("10.96.0.1") && image.contains("203.0.113.1"), "{image}");
    let warnings = sync.status().warnings.first;
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert_eq!(warning.problem, Problem::UnusableIp { why: why.into() });
    assert_eq!(warning.problem.reason(), "UnusableAddress");
    let said = warning.to_string();
    assert_eq!(said, format!("Service default/web: {why}: the Service is served without it"));
}

/// The log alone told of it.
#[test]
fn bug_of_an_endpoint_that_cannot_be_read_the_services_owner_is_told_once() {
    let why = "endpoints[0].addresses[0] \"nope\" is not an IP address (and 2 more)";
    let partly = |name: &str, endpoint: &str| {
        put_slice(EndpointSlice { left_out: Some(why.into()), ..slice(name, "web", &[endpoint]) })
    };
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    let web = put_service(service("web", "10.96.0.1"));
    sync.reconcile(&cluster.apply([web, partly("w-1", "10.9.0.1"), partly("w-2", "10.9.0.2")]));
    let warnings = sync.status().warnings.first;
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    let why = format!("EndpointSlice w-1: {why}");
    assert_eq!(warning.problem, Problem::UnusableIp { why: why.clone().into() });
    assert_eq!(warning.problem.to_string(), format!("{why}: the Service is served without it"));
    // Mended, nothing is said any more.
    let whole = ["w-1", "w-2"].map(|name| put_slice(slice(name, "web", &["10.9.0.1"])));
    sync.reconcile(&cluster.apply(whole));
    assert_eq!(sync.status().warnings.total, 0);
}
