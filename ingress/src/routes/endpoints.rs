//! From a Service and its EndpointSlices to the addresses requests go to.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use fairlead_state::{
    Snapshot,
    model::{Endpoint, EndpointSlice, Protocol, Service, ServiceBackendPort, ServiceType},
};

use super::upstream::{Problem, UpstreamKey};

/// The addresses of an upstream, sorted, each once; or why there can be none.
pub(super) fn resolve(snapshot: &Snapshot, key: &UpstreamKey) -> Result<Vec<SocketAddr>, Problem> {
    let service = snapshot.services().get(&key.service).ok_or(Problem::NoService)?;
    if service.service_type == ServiceType::ExternalName {
        return Err(Problem::ExternalName);
    }
    let port_name = port_name(service, &key.port).ok_or(Problem::NoPort)?;
    let slices = || snapshot.slices_of(&key.service).map(|slice| &**slice);
    let ready = select(slices(), port_name, |endpoint| endpoint.ready);
    let chosen = if ready.is_empty() {
        // KEP-1669: pods on their way out serve on when nobody else does.
        select(slices(), port_name, |endpoint| endpoint.serving && endpoint.terminating)
    } else {
        ready
    };
    Ok(one_family(service, &chosen))
}

fn port_name<'a>(service: &'a Service, port: &ServiceBackendPort) -> Option<&'a str> {
    let mut tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let found = match port {
        ServiceBackendPort::Number(number) => tcp.find(|port| port.port == *number),
        ServiceBackendPort::Name(name) => tcp.find(|port| port.name == *name),
    };
    found.map(|port| &*port.name)
}

fn select<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port_name: &str,
    wanted: fn(&Endpoint) -> bool,
) -> BTreeSet<SocketAddr> {
    let mut addresses = BTreeSet::new();
    for slice in slices {
        let mut ports = slice.ports.iter();
        let Some(port) =
            ports.find(|port| port.protocol == Protocol::Tcp && *port.name == *port_name)
        else {
            continue;
        };
        // discovery/v1: all addresses of an endpoint are the same pod; consumers use the first.
        let endpoints = slice.endpoints.iter().filter(|endpoint| wanted(endpoint));
        let ips = endpoints.filter_map(|endpoint| endpoint.addresses.first());
        addresses.extend(ips.map(|ip| SocketAddr::new(*ip, port.port)));
    }
    addresses
}

/// A dual-stack Service lists each pod once per family; the Service's first family is used.
fn one_family(service: &Service, addresses: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
    let ipv6_first = matches!(service.cluster_ips.first(), Some(IpAddr::V6(_)));
    let (v6, v4): (Vec<SocketAddr>, Vec<_>) = addresses.iter().partition(|a| a.is_ipv6());
    let (first, second) = if ipv6_first { (v6, v4) } else { (v4, v6) };
    if first.is_empty() { second } else { first }
}
