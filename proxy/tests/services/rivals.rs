//! Services that ask for the same address.

use std::sync::Arc;

use fairlead_proxy::{maps::memory::MemoryMaps, sync::Synchroniser, text};
use fairlead_state::{
    Change, Kind,
    model::{Endpoint, EndpointSlice, IpMode, LoadBalancerIp, Protocol, Service},
};

use crate::objects::{
    Cluster, NODE, delete, endpoint_port, ip, node_view, port, put_service, put_slice, service,
    slice, with,
};

/// Both Services' load balancer address, and its UDP port.
const SHARED: &str = "203.0.113.9:53";

/// Of UDP, with the shared address.
fn dns(name: &str, cluster_ip: &str, created_seconds: i64) -> Change {
    let service = Service {
        created_seconds,
        ports: Arc::new([port("", Protocol::Udp, 53, None)]),
        ..service(name, cluster_ip)
    };
    put_service(with(service, |extras| {
        let address = LoadBalancerIp { ip: ip("203.0.113.9"), mode: IpMode::Vip };
        extras.load_balancer_ips = Arc::new([address]);
    }))
}

/// One ready endpoint, and one that drains where `drains`: then not all that serve get new flows.
fn endpoints(name: &str, ready: &str, draining: &str, drains: bool) -> Change {
    let slice = slice(name, name, &[ready, draining]);
    let endpoint = |of: &Endpoint| {
        let is_draining = drains && *of.addresses == [ip(draining)];
        Endpoint { ready: !is_draining, terminating: is_draining, ..of.clone() }
    };
    put_slice(EndpointSlice {
        ports: Arc::new([endpoint_port("", Protocol::Udp, 5353)]),
        endpoints: slice.endpoints.iter().map(endpoint).collect(),
        ..slice
    })
}

/// Whose endpoints new flows to the shared address are given to, and whose keep those that they have, by the network of their
/// addresses; `None`: nothing stands beside the frontend.
fn networks(sync: &Synchroniser<MemoryMaps>) -> (Option<u8>, Option<u8>) {
    let image = sync.maps().image();
    let network = |frontend: &str| {
        let mut frontends = image.frontends.iter();
        let (_, entry) = frontends.find(|(key, _)| text::frontend(key).to_string() == frontend)?;
        let mut slots = image.backends.iter();
        let (_, backend) = slots.find(|(key, _)| key.set_id == entry.value.set_id)?;
        Some(backend.address[13])
    };
    (network(&format!("udp {SHARED}")), network(&format!("flows of udp {SHARED}")))
}

/// Flows to the address of the one Service stayed with endpoints of the other, that only asks for it, for as long as it had one
/// that drains; what drained of the one was forgotten.
#[test]
fn bug_what_keeps_flows_of_an_address_is_of_the_service_that_has_the_address() {
    let (elder, younger) = (dns("elder", "10.96.0.1", 1), dns("younger", "10.96.0.2", 2));
    let eldest = dns("younger", "10.96.0.2", 0);
    let of_elder = |drains| endpoints("elder", "10.1.0.1", "10.1.0.2", drains);
    let of_younger = |drains| endpoints("younger", "10.2.0.1", "10.2.0.2", drains);
    let gone = || delete(Kind::Service, "elder");
    for (what, steps, expected) in [
        ("who drains has not the address", vec![of_younger(true)], (1, None)),
        ("both drain", vec![of_younger(true), of_elder(true)], (1, Some(1))),
        ("who has it drains", vec![of_elder(true)], (1, Some(1))),
        ("who drained and had it is gone", vec![of_elder(true), gone()], (2, None)),
        ("who drains inherits it", vec![of_younger(true), gone()], (2, Some(2))),
        ("it goes to one that does not drain", vec![of_elder(true), eldest.clone()], (2, None)),
        ("it goes to one that drains", vec![of_younger(true), eldest], (2, Some(2))),
    ] {
        let mut cluster = Cluster::new();
        let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
        let begin = [elder.clone(), younger.clone(), of_elder(false), of_younger(false)];
        sync.reconcile(&cluster.apply(begin));
        assert_eq!(networks(&sync), (Some(1), None), "{what}: at first");
        for step in steps {
            assert_eq!(sync.reconcile(&cluster.apply([step])).error, None, "{what}");
        }
        assert_eq!(networks(&sync), (Some(expected.0), expected.1), "{what}");
        let snapshot = cluster.newest();
        let planned = text::plan_text(&snapshot, &node_view(&snapshot));
        assert_eq!(text::image_text(sync.maps().image()), planned, "{what}");
    }
}
