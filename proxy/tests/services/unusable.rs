//! Parts of a Service that cannot be served, beside the rest, which is.

use std::sync::Arc;

use fairlead_proxy::{maps::memory::MemoryMaps, plan::Problem, sync::Synchroniser, text};
use fairlead_state::model::{IpMode, LoadBalancerIp};

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
