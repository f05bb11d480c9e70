//! What the maps must hold for one service: a pure function of the service, its slices, the node.

mod claims;
pub mod select;
mod warning;

use std::{net::IpAddr, sync::Arc};

use fairlead_ebpf::{
    abi::{ANY_V4, ANY_V6, Address, BACKEND_LOCAL, Backend, FrontendKey},
    packet::mapped,
};
use fairlead_state::{
    Key, Name, Snapshot,
    model::{EndpointSlice, Protocol, Service, ServicePort, TrafficPolicy},
};

use self::select::Candidate;

pub(crate) use self::claims::{Changed, ServiceId};
pub use self::{
    claims::{Planned, Plans},
    warning::{Problem, Warning},
};

/// Backends of one set; the ABI counts them in 16 bits.
pub const SET_BACKENDS_MAX: usize = u16::MAX as usize;
/// How many of a service's other sets are searched for the same content.
const COMPARED_SETS_MAX: usize = 64;

/// Backends in the order of their slots: those of this node first, each part sorted by address.
pub type BackendSet = Arc<[Backend]>;

/// What planning has to know of the node it plans for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its name; empty: no endpoint is local.
    pub name: Name,
    /// Its zone.
    pub zone: Option<Name>,
}

/// One frontend and which of the plan's sets it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFrontend {
    /// What clients dial.
    pub key: FrontendKey,
    /// Index of the Service's port.
    pub port: usize,
    /// Index into [`ServicePlan::sets`]; `None`: no endpoints, clients are refused.
    pub set: Option<usize>,
}

/// What the maps must hold for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// Each key once.
    pub frontends: Vec<PlannedFrontend>,
    /// Frontends share them. None is empty.
    pub sets: Vec<BackendSet>,
    /// What of the service is not served as it asks.
    pub problems: Vec<Problem>,
}

impl NodeView {
    /// The node `name` as `snapshot` knows it.
    pub fn new(name: &str, snapshot: &Snapshot) -> Self {
        let node = snapshot.nodes().get(&Key::new("", name));
        Self { name: name.into(), zone: node.and_then(|node| node.zone.clone()) }
    }
}

impl ServicePlan {
    /// The set `frontend` leads to.
    pub fn set_of(&self, frontend: &PlannedFrontend) -> Option<&BackendSet> {
        frontend.set.and_then(|set| self.sets.get(set))
    }

    fn intern(&mut self, port: &ServicePort, mut backends: Vec<Backend>) -> Option<usize> {
        if backends.len() > SET_BACKENDS_MAX {
            let problem = Problem::TooManyEndpoints { port: port.port, endpoints: backends.len() };
            self.problems.push(problem);
            backends.truncate(SET_BACKENDS_MAX);
        }
        if backends.is_empty() {
            return None;
        }
        let recent = self.sets.len().saturating_sub(COMPARED_SETS_MAX);
        let known = self.sets.iter().skip(recent).position(|set| **set == *backends);
        if let Some(known) = known {
            return Some(recent + known);
        }
        self.sets.push(backends.into());
        Some(self.sets.len() - 1)
    }
}

/// Plans one service. `slices` are all its EndpointSlices.
pub fn plan_service(
    service: &Service,
    slices: &[&Arc<EndpointSlice>],
    node: &NodeView,
) -> ServicePlan {
    let mut plan = ServicePlan::default();
    if !is_served(service) {
        return plan;
    }
    let mut frontends = Vec::with_capacity(service.ports.len() * service.cluster_ips.len());
    for (index, port) in service.ports.iter().enumerate() {
        if port.protocol == Protocol::Sctp {
            plan.problems.push(Problem::Sctp { port: port.port });
            continue;
        }
        for cluster_ip in service.cluster_ips.iter() {
            let candidates = candidates(port, cluster_ip.is_ipv6(), slices, node);
            let cluster = plan.intern(port, select::for_cluster(&candidates, node));
            // Local endpoints none, others some: kube-proxy drops, these maps can only say refuse.
            let internal = match service.internal_traffic_policy {
                TrafficPolicy::Cluster => cluster,
                TrafficPolicy::Local => plan.intern(port, select::for_node(&candidates)),
            };
            let key = frontend_key(address(*cluster_ip), port.port, port.protocol);
            frontends.push(PlannedFrontend { key, port: index, set: internal });
            if let Some(node_port) = port.node_port {
                let any = if cluster_ip.is_ipv6() { ANY_V6 } else { ANY_V4 };
                let key = frontend_key(any, node_port, port.protocol);
                frontends.push(PlannedFrontend { key, port: index, set: cluster });
            }
        }
    }
    plan.frontends = first_of_each(frontends);
    plan.sets.shrink_to_fit();
    plan
}

/// Whether this proxy has anything to do for the service.
fn is_served(service: &Service) -> bool {
    // ExternalName is DNS's alone; both kinds of headless and a foreign proxy's name are what
    // kube-proxy's ShouldSkipService and its informer's label selector leave out.
    !service.headless
        && !service.headless_label
        && service.proxy_name.is_none()
        && service.external_name.is_none()
}

/// Endpoints that serve `port` over one family, each address and port once, sorted by them.
fn candidates<'a>(
    port: &ServicePort,
    is_ipv6: bool,
    slices: &[&'a Arc<EndpointSlice>],
    node: &NodeView,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices.iter().filter(|slice| slice.ipv6 == is_ipv6) {
        // By name, not by number: endpoints behind one targetPort name may differ in their port.
        let ports = slice.ports.iter();
        for target in ports.filter(|p| p.name == port.name && p.protocol == port.protocol) {
            for endpoint in slice.endpoints.iter() {
                // discovery.k8s.io/v1 defines no meaning for addresses after the first.
                let Some(first) = endpoint.addresses.first() else { continue };
                let is_local = endpoint.node_name.as_ref().is_some_and(|name| *name == node.name);
                candidates.push(Candidate {
                    backend: Backend {
                        address: address(*first),
                        port: target.port.to_be_bytes(),
                        flags: if is_local { BACKEND_LOCAL } else { 0 },
                    },
                    endpoint,
                });
            }
        }
    }
    select::unique(candidates)
}

fn first_of_each(mut frontends: Vec<PlannedFrontend>) -> Vec<PlannedFrontend> {
    // Stable, so that of a key written twice the first port stays.
    frontends.sort_by_key(|frontend| frontend.key);
    frontends.dedup_by_key(|frontend| frontend.key);
    frontends.shrink_to_fit();
    frontends
}

fn frontend_key(address: Address, port: u16, protocol: Protocol) -> FrontendKey {
    FrontendKey { address, port: port.to_be_bytes(), protocol: protocol.number(), zero: 0 }
}

/// An address as the maps have it.
pub(crate) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => mapped(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    }
}
