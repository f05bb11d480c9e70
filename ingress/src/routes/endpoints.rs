//! From a Service and its EndpointSlices to the addresses requests go to.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use fairlead_state::{
    Snapshot,
    model::{
        self, Endpoint, EndpointSlice, Service, ServiceBackendPort, ServicePort, ServiceType,
        TargetPort,
    },
    some_of,
};

use super::{
    external::{self, ExternalNames},
    upstream::{Problem, Protocol, UpstreamKey},
};

/// KEP-3726, and what gRPC Services are marked with.
const H2C_PROTOCOLS: [&str; 2] = ["kubernetes.io/h2c", "grpc"];
/// Ports that a reason names: it stands in Events and lines of the log.
const PORTS_NAMED_MAX: usize = 8;

/// Where an upstream is, and what is spoken there.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Each once, in the order of their turns.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) protocol: Protocol,
}

/// The addresses of an upstream, or why there can be none.
pub(super) fn resolve(
    snapshot: &Snapshot,
    key: &UpstreamKey,
    names: &ExternalNames,
) -> Result<Resolved, Problem> {
    let service = snapshot.services().get(&key.service).ok_or(Problem::NoService)?;
    if service.service_type == ServiceType::ExternalName {
        return resolve_external(service, key, names);
    }
    let transport = transport(key);
    let port = port(&service.ports, key.port.as_ref(), transport)
        .or_else(|| by_target(&service.ports, key.port.as_ref()?, transport))
        .ok_or_else(|| no_port(&service.ports))?;
    let protocol = protocol(port);
    // A headless Service has no address: its endpoints are asked, as by ingress-nginx.
    if let Some(ip) = service.cluster_ips.first().filter(|_| key.by_address) {
        let addresses = vec![SocketAddr::new(*ip, port.port)];
        return Ok(Resolved { addresses, protocol });
    }
    let slices = || snapshot.slices_of(&key.service).map(|slice| &**slice);
    let ready = select(slices(), port, is_ready);
    // KEP-1669: pods on their way out serve on when nobody else does.
    let chosen = if ready.is_empty() { select(slices(), port, is_leaving) } else { ready };
    let serves = |endpoint: &Endpoint| is_ready(endpoint) || is_leaving(endpoint);
    if chosen.is_empty() && slices().any(|slice| slice.endpoints.iter().any(serves)) {
        return Err(Problem::NoEndpointPort(port.name.clone()));
    }
    Ok(Resolved { addresses: one_family(service, &chosen), protocol })
}

/// Services of this type need not name ports: then the Ingress's is asked for (as by ingress-nginx).
fn resolve_external(
    service: &Service,
    key: &UpstreamKey,
    names: &ExternalNames,
) -> Result<Resolved, Problem> {
    let name = external::external_name(service).cloned().unwrap_or_default();
    if !names.allows(&name) {
        return Err(Problem::ExternalName(name));
    }
    let (number, protocol) =
        match (port(&service.ports, key.port.as_ref(), transport(key)), &key.port) {
            (Some(port), _) => (target_number(port).unwrap_or(port.port), protocol(port)),
            (None, Some(ServiceBackendPort::Number(number))) => (*number, Protocol::Http1),
            (None, _) => return Err(no_port(&service.ports)),
        };
    let addresses = names.addresses(&name, number).map_err(|reason| match reason {
        Some(reason) => Problem::NoAddress(name, reason),
        None => Problem::NotLookedUp(name),
    })?;
    Ok(Resolved { addresses, protocol })
}

fn transport(key: &UpstreamKey) -> model::Protocol {
    if key.udp { model::Protocol::Udp } else { model::Protocol::Tcp }
}

/// What a port says is spoken there.
fn protocol(port: &ServicePort) -> Protocol {
    let is_h2c = port.app_protocol.as_deref().is_some_and(|name| H2C_PROTOCOLS.contains(&name));
    if is_h2c { Protocol::H2c } else { Protocol::Http1 }
}

fn port<'a>(
    ports: &'a [ServicePort],
    port: Option<&ServiceBackendPort>,
    transport: model::Protocol,
) -> Option<&'a ServicePort> {
    let mut ports = ports.iter().filter(|port| port.protocol == transport);
    match port {
        None => ports.next(),
        Some(ServiceBackendPort::Number(number)) => ports.find(|port| port.port == *number),
        Some(ServiceBackendPort::Name(name)) => ports.find(|port| port.name == *name),
    }
}

/// A port that nobody has for his own may be what pods call one: ingress-nginx's serviceEndpoints takes the first port of which any of the three is what is wanted.
fn by_target<'a>(
    ports: &'a [ServicePort],
    wanted: &ServiceBackendPort,
    transport: model::Protocol,
) -> Option<&'a ServicePort> {
    let mut ports = ports.iter().filter(|port| port.protocol == transport);
    ports.find(|port| match (&port.target_port, wanted) {
        (Some(TargetPort::Number(target)), ServiceBackendPort::Number(number)) => target == number,
        (Some(TargetPort::Name(target)), ServiceBackendPort::Name(name)) => target == name,
        _ => false,
    })
}

fn no_port(others: &[ServicePort]) -> Problem {
    Problem::NoPort(some_of(others, PORTS_NAMED_MAX).into())
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.ready
}

fn is_leaving(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

/// The number pods are asked at, if the Service says one: the API server fills in the port's own.
fn target_number(port: &ServicePort) -> Option<u16> {
    match port.target_port {
        Some(TargetPort::Number(number)) => Some(number),
        Some(TargetPort::Name(_)) => None,
        None => Some(port.port),
    }
}

/// Slices made by hand do not always name ports as their Service does: then ingress-nginx takes any port for one
/// without a name, and a number that the Service says (endpointslices.go, kubernetes/ingress-nginx#7390).
fn number_in(slice: &EndpointSlice, port: &ServicePort) -> Option<u16> {
    let alike = || slice.ports.iter().filter(|own| own.protocol == port.protocol);
    let named = alike().find(|own| own.name == port.name);
    let any = || alike().next().filter(|_| port.name.is_empty());
    let is_told = slice.ports.is_empty() || alike().next().is_some();
    let target = || target_number(port).filter(|_| is_told);
    named.or_else(any).map(|own| own.port).or_else(target)
}

fn select<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    port: &ServicePort,
    wanted: fn(&Endpoint) -> bool,
) -> BTreeSet<SocketAddr> {
    let mut addresses = BTreeSet::new();
    for slice in slices {
        let Some(number) = number_in(slice, port) else { continue };
        // discovery/v1: all addresses of an endpoint are the same pod; consumers use the first.
        let endpoints = slice.endpoints.iter().filter(|endpoint| wanted(endpoint));
        let ips = endpoints.filter_map(|endpoint| endpoint.addresses.first());
        addresses.extend(ips.map(|ip| SocketAddr::new(*ip, number)));
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

#[cfg(test)]
mod tests {
    use fairlead_state::Key;

    use super::*;

    #[test]
    fn bug_a_backend_may_name_a_port_as_its_pods_do() {
        let number = ServiceBackendPort::Number;
        let name = |name: &str| ServiceBackendPort::Name(name.into());
        let port = |name: &str, port, target| ServicePort {
            name: name.into(),
            protocol: model::Protocol::Tcp,
            port,
            node_port: None,
            target_port: Some(target),
            app_protocol: None,
        };
        let ports = [
            port("http", 80, TargetPort::Number(8080)),
            port("admin", 8080, TargetPort::Number(9000)),
            port("metrics", 90, TargetPort::Name("prom".into())),
            port("late", 91, TargetPort::Name("http".into())),
        ];
        for (wanted, expected) in [
            (number(80), Some(80)),
            // What is a port's own comes first.
            (number(8080), Some(8080)),
            (number(9000), Some(8080)),
            (name("http"), Some(80)),
            (name("prom"), Some(90)),
            (number(90), Some(90)),
            (number(7), None),
            (name("8080"), None),
        ] {
            let own = super::port(&ports, Some(&wanted), model::Protocol::Tcp);
            let found = own.or_else(|| by_target(&ports, &wanted, model::Protocol::Tcp));
            assert_eq!(found.map(|port| port.port), expected, "{wanted:?}");
            assert!(by_target(&ports, &wanted, model::Protocol::Udp).is_none(), "{wanted:?}");
        }
    }

    #[test]
    fn a_port_that_is_not_there_is_told_with_some_of_those_that_are() {
        let key = |udp| UpstreamKey {
            service: Key::new("shop", "web"),
            port: Some(ServiceBackendPort::Number(8080)),
            protocol: None,
            tls: None,
            udp,
            by_address: false,
        };
        let port = |port| ServicePort {
            name: if port == 1 { "http".into() } else { "".into() },
            protocol: model::Protocol::Tcp,
            port,
            node_port: None,
            target_port: None,
            app_protocol: None,
        };
        for (count, udp, told) in [
            (0, false, "Service shop/web has no TCP port 8080, and no other"),
            (1, true, "Service shop/web has no UDP port 8080, but http (1/tcp)"),
            (
                10,
                false,
                "Service shop/web has no TCP port 8080, but http (1/tcp), 2/tcp, 3/tcp, 4/tcp, 5/tcp, \
                 6/tcp, 7/tcp, 8/tcp and 2 more",
            ),
        ] {
            let ports: Vec<ServicePort> = (1..=count).map(port).collect();
            assert_eq!(no_port(&ports).describe(&key(udp)), told);
        }
    }
}
