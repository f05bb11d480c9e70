//! One Service port that routes lead to, and its endpoints: swapped alone, read by all threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use fairlead_state::{Key, Name, model::ServiceBackendPort};

use super::{choice::Pick, health::Health, latency::Latency};
use crate::tls::{TlsWish, UpstreamTls};

/// Identities are never used twice, so a pooled connection cannot be taken for another's.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A Service and one of its ports, as a backend names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamKey {
    /// The Service.
    pub service: Key,
    /// The port, by number or by name; `None`: the Service's first.
    pub port: Option<ServiceBackendPort>,
    /// What the Ingress says it speaks; if nothing, the Service's `appProtocol` decides.
    pub protocol: Option<Protocol>,
    /// For protocols with TLS.
    pub tls: Option<TlsWish>,
    /// A UDP port, and not one of TCP.
    pub udp: bool,
    /// The Service's own address is asked, and whoever is behind it chooses the endpoint.
    pub by_address: bool,
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS: gRPC.
    H2c,
    /// HTTP/1.1 in TLS.
    Https,
    /// HTTP/2 in TLS: gRPC.
    Grpcs,
}

/// How endpoints are spoken to.
#[derive(Clone, Debug, Default)]
pub struct Speech {
    /// What they speak.
    pub protocol: Protocol,
    /// Where the protocol has TLS.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// A Service port and its endpoints of the moment.
#[derive(Debug)]
pub struct Upstream {
    id: u64,
    key: UpstreamKey,
    name: Box<str>,
    endpoints: ArcSwap<Endpoints>,
}

/// Where requests for an upstream go.
#[derive(Debug, Default)]
pub struct Endpoints {
    /// In the order of their turns; empty answers 503.
    pub list: Box<[Arc<Endpoint>]>,
    /// Why there can be none, beyond there being none ready.
    pub problem: Option<Problem>,
}

/// One address of one upstream. Kept across changes, so that its idle connections stay usable.
#[derive(Debug)]
pub struct Endpoint {
    id: u64,
    address: SocketAddr,
    speech: Speech,
    gone: AtomicBool,
    health: Health,
    latency: Latency,
    /// Of all threads, where that decides.
    in_flight: AtomicUsize,
}

/// A request an endpoint was sent, as long as its answer is not over; counted as long as it lives.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Endpoint>);

/// Why an upstream cannot have endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The Service does not exist.
    NoService,
    /// The Service has no such TCP port, or UDP port; those it has, for people.
    NoPort(Arc<str>),
    /// Pods serve, and none says where: they have no port of this name, and the Service no number of it.
    NoEndpointPort(Name),
    /// It leads to a name outside the cluster that is not allowed.
    ExternalName(Name),
    /// It leads to a name that has no address; the reason.
    NoAddress(Name, Arc<str>),
    /// It leads to a name that was not looked up yet.
    NotLookedUp(Name),
    /// TLS to its endpoints cannot be prepared as wished; the reason. Without it nothing is sent.
    Tls(Arc<str>),
}

impl UpstreamKey {
    /// The port as the backend names it; empty for the first one.
    pub(crate) fn port_text(&self) -> String {
        PortName("", &self.port).to_string()
    }

    /// A canary's, spoken to as the Service whose path it is tried at.
    pub(super) fn tried_at(&self, main: &Self) -> Self {
        Self { protocol: main.protocol, tls: main.tls.clone(), ..self.clone() }
    }
}

impl Protocol {
    /// Several requests share a connection.
    pub fn is_h2(self) -> bool {
        matches!(self, Self::H2c | Self::Grpcs)
    }

    /// As in the annotation `backend-protocol`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP",
            Self::H2c => "GRPC",
            Self::Https => "HTTPS",
            Self::Grpcs => "GRPCS",
        }
    }

    /// Connections are encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs)
    }
}

impl Speech {
    /// Connections of one may be used for the other.
    fn is(&self, other: &Self) -> bool {
        let tls = match (&self.tls, &other.tls) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        self.protocol == other.protocol && tls
    }
}

impl Upstream {
    /// An upstream without endpoints yet.
    pub fn new(key: UpstreamKey) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (service, port) = (&key.service, PortName("", &key.port));
        let name = format!("{}-{}-{port}", service.namespace, service.name).into();
        Self { id, key, name, endpoints: ArcSwap::default() }
    }

    /// Unique in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Service and port.
    pub fn key(&self) -> &UpstreamKey {
        &self.key
    }

    /// `NAMESPACE-SERVICE-PORT`, as ingress-nginx names its upstreams.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The endpoints of the moment.
    pub fn endpoints(&self) -> Guard<Arc<Endpoints>> {
        self.endpoints.load()
    }

    /// Whether anybody could be asked at the moment.
    pub(crate) fn has_endpoints(&self) -> bool {
        !self.endpoints.load().list.is_empty()
    }

    /// The addresses of the moment.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoints.load().list.iter().map(|endpoint| endpoint.address).collect()
    }

    /// The endpoint for a request that was not answered by those tried.
    pub(crate) fn choose(&self, pick: Pick, tried: &[u64]) -> Option<Arc<Endpoint>> {
        pick.of(&self.endpoints.load().list, tried)
    }

    /// Puts new addresses, each once, in force; those asked in rounds are asked in this order. Returns
    /// whether anything changed.
    pub fn set(&self, addresses: &[SocketAddr], speech: &Speech, problem: Option<Problem>) -> bool {
        let old = self.endpoints.load();
        let spoken = |endpoint: &Endpoint| endpoint.speech.is(speech);
        let same = old.list.iter().map(|endpoint| &endpoint.address).eq(addresses)
            && old.list.iter().all(|endpoint| spoken(endpoint));
        if same && old.problem == problem {
            return false;
        }
        let known = old.list.iter().map(|endpoint| (endpoint.address, endpoint));
        let known: BTreeMap<SocketAddr, &Arc<Endpoint>> = known.collect();
        let list = addresses.iter().map(|address| {
            let kept = known.get(address).copied().filter(|kept| spoken(kept));
            kept.cloned().unwrap_or_else(|| Arc::new(Endpoint::new(*address, speech.clone())))
        });
        let new = Endpoints { list: list.collect(), problem };
        self.endpoints.store(Arc::new(new));
        let wanted: BTreeSet<&SocketAddr> = addresses.iter().collect();
        for endpoint in &old.list {
            let gone = !wanted.contains(&endpoint.address) || !spoken(endpoint);
            endpoint.gone.store(gone, Ordering::Relaxed);
        }
        true
    }
}

impl Drop for Upstream {
    /// No route leads here any more, nor does a request go by one that did: idle connections are closed
    /// by the threads that hold them.
    fn drop(&mut self) {
        for endpoint in &self.endpoints.load().list {
            endpoint.gone.store(true, Ordering::Relaxed);
        }
    }
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, speech: Speech) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (gone, health, latency, in_flight) = Default::default();
        Self { id, address, speech, gone, health, latency, in_flight }
    }

    /// Unique in this process: two upstreams that share a pod do not share its connections.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection to it could not be made, or a new one was closed without an answer.
    pub fn failed(&self) {
        self.health.failed();
    }

    /// A connection to it was made.
    pub fn worked(&self) {
        self.health.worked();
    }

    /// It could not be reached a moment ago: others are asked first.
    pub fn is_avoided(&self) -> bool {
        self.health.is_avoided()
    }

    /// Since when it cannot be reached, in milliseconds; `None` if it can, as far as is known.
    pub fn failing_for_ms(&self) -> Option<u64> {
        self.health.failing_for_ms()
    }

    /// It took this long to answer a request.
    pub(crate) fn answered_in(&self, took: Duration) {
        self.latency.answered_in(took);
    }

    /// It was asked and has not answered for so long: it took too long, or its client went before.
    pub(crate) fn silent_for(&self, time: Duration) {
        self.latency.silent_for(time);
    }

    /// How long it takes, in seconds; `None`: not known.
    pub(super) fn latency(&self) -> Option<f64> {
        self.latency.average()
    }

    /// Requests it was sent whose answers are not over, of those that go by it.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.speech.protocol
    }

    /// Where connections to it are encrypted.
    pub fn tls(&self) -> Option<&Arc<UpstreamTls>> {
        self.speech.tls.as_ref()
    }

    /// No longer an endpoint: its idle connections are to be closed.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

impl InFlight {
    pub(crate) fn at(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Problem {
    /// The reason, for status and log.
    pub(crate) fn describe(&self, key: &UpstreamKey) -> String {
        let kind = if key.udp { "UDP" } else { "TCP" };
        match self {
            Problem::NoService => format!("Service {} does not exist", key.service),
            Problem::NoPort(others) => {
                let port = PortName(" ", &key.port);
                let service = &key.service;
                if others.is_empty() {
                    format!("Service {service} has no {kind} port{port}, and no other")
                } else {
                    format!("Service {service} has no {kind} port{port}, but {others}")
                }
            }
            Problem::NoEndpointPort(name) if name.is_empty() => {
                format!("Service {}: its endpoints that serve have no {kind} port", key.service)
            }
            Problem::NoEndpointPort(name) => format!(
                "Service {}: its endpoints that serve have no {kind} port named {name:?}: give a port of the \
                 EndpointSlice, or of the pods that its targetPort names, that name",
                key.service
            ),
            Problem::Tls(reason) => {
                format!("Service {}: TLS to its endpoints: {reason}", key.service)
            }
            Problem::ExternalName(name) => format!(
                "Service {} is of type ExternalName, which could lead anywhere, and {name} is none of \
                 --external-names",
                key.service
            ),
            Problem::NoAddress(name, reason) => {
                format!("Service {} leads to {name}: {reason}", key.service)
            }
            Problem::NotLookedUp(name) => {
                format!("Service {} leads to {name}: it is being looked up", key.service)
            }
        }
    }
}

/// A port after a separator; the first one has no name.
struct PortName<'a>(&'a str, &'a Option<ServiceBackendPort>);

impl fmt::Display for PortName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            None => Ok(()),
            Some(ServiceBackendPort::Number(number)) => write!(f, "{}{number}", self.0),
            Some(ServiceBackendPort::Name(name)) => write!(f, "{}{name}", self.0),
        }
    }
}

impl UpstreamKey {
    /// A Service's only port, by HTTP.
    pub(crate) fn of(service: Key) -> Self {
        Self { service, port: None, protocol: None, tls: None, udp: false, by_address: false }
    }
}

impl fmt::Display for UpstreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.service, PortName(":", &self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of names outside, families come by turns.
    #[test]
    fn endpoints_stay_the_same_whatever_their_order() {
        let upstream = Upstream::new(UpstreamKey::of(Key::new("shop", "web")));
        let first = ["192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.2:80"];
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert!(upstream.set(&addresses(&first), &Speech::default(), None));
        let known = upstream.endpoints().list.clone();
        for (next, is_another) in [
            (&first[..], false),
            (&["192.0.2.2:80", "192.0.2.1:80", "[2001:db8::1]:80"], true),
            (&["192.0.2.2:80", "[2001:db8::1]:80"], true),
            (&["[2001:db8::1]:80", "192.0.2.3:80", "192.0.2.2:80"], true),
        ] {
            let next = addresses(next);
            assert_eq!(upstream.set(&next, &Speech::default(), None), is_another, "{next:?}");
            assert_eq!(upstream.addresses(), next);
            for old in &known {
                let kept = next.contains(&old.address());
                assert_eq!(old.is_gone(), !kept, "{} in {next:?}", old.address());
                let list = &upstream.endpoints().list;
                assert_eq!(list.iter().any(|endpoint| Arc::ptr_eq(endpoint, old)), kept);
            }
        }
    }
}
