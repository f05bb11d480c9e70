//! What the maps must hold for one service: a pure function of the service, its slices, the node.

mod claims;
mod frontends;
pub mod select;
mod targets;
mod warning;
mod without_local;

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use fairlead_ebpf::{
    abi::{Address, Backend, FrontendKey, TableSize},
    packet::mapped,
};
use fairlead_state::{
    Key, Name, Snapshot,
    model::{EndpointSlice, LoadBalancing, Plain, Rare, Service, ServicePort, SessionAffinity},
};
use ipnetwork::IpNetwork;

use self::frontends::PortFamily;

pub(crate) use self::{
    claims::{Changed, ServiceId},
    targets::Targets,
};
pub use self::{
    claims::{Planned, Plans},
    warning::{Problem, Warning},
    without_local::without_local_endpoints,
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
    /// What the agent was told.
    pub rules: Rules,
}

/// What the agent was told about Services; the same on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `spec.externalIPs` are served. Off by default: whoever may write a Service can take any
    /// address with them (CVE-2020-8554).
    pub external_ips: bool,
    /// Services whose label `service.kubernetes.io/service-proxy-name` has this value are served, and
    /// no others; `None`: those without the label.
    pub proxy_name: Option<Name>,
    /// Packets' flows are given to backends by consistent hashing, where a Service says nothing else.
    pub maglev: bool,
    /// The size of the tables. Nodes agree on a flow's backend if they agree on this.
    pub maglev_table: TableSize,
}

impl Default for Rules {
    fn default() -> Self {
        // 1024 places: three KiB in the kernel, and enough for ten endpoints.
        let [_, _, maglev_table, ..] = TableSize::ALL;
        Self { external_ips: false, proxy_name: None, maglev: false, maglev_table }
    }
}

/// One frontend and which of the plan's sets it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFrontend {
    /// What clients dial.
    pub key: FrontendKey,
    /// Index of the Service's port; for every other port of a ClusterIP the first.
    pub port: u16,
    /// The Service's port, host byte order.
    pub service_port: u16,
    /// `FRONTEND_*`.
    pub flags: u16,
    /// Of the set of `local`, the first so many serve clients from outside, with
    /// [`FRONTEND_LOCAL`].
    pub local_backends: u16,
    /// Of [`ServicePlan::sets`]; `None`: no endpoints.
    pub set: Option<SetIndex>,
    /// With [`FRONTEND_LOCAL`], the set whose head the endpoints of this node are.
    pub local: Option<SetIndex>,
}

/// Which of a plan's sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetIndex(NonZeroU32);

/// What the maps must hold for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// Each key once, sorted by it.
    pub frontends: Box<[PlannedFrontend]>,
    /// Frontends share them. None is empty.
    pub sets: Box<[BackendSet]>,
    /// How long a client keeps its backend; 0: no affinity.
    pub affinity_seconds: u32,
    /// What few services have.
    pub extras: Rare<PlanExtras>,
}

/// What few services have in their plans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanExtras {
    /// Who may use load balancer addresses; each family's apply to its frontends with
    /// [`FRONTEND_SOURCE_RANGES`](fairlead_ebpf::abi::FRONTEND_SOURCE_RANGES).
    pub source_ranges: Vec<IpNetwork>,
    /// What of the service is not served as it asks.
    pub problems: Vec<Problem>,
}

impl Plain for PlanExtras {
    fn plain() -> &'static Self {
        static PLAIN: PlanExtras = PlanExtras { source_ranges: Vec::new(), problems: Vec::new() };
        &PLAIN
    }
}

/// A plan in the making.
#[derive(Debug, Default)]
struct Builder {
    frontends: Vec<PlannedFrontend>,
    sets: Vec<BackendSet>,
    affinity_seconds: u32,
    extras: PlanExtras,
}

/// Where a frontend leads.
#[derive(Clone, Copy, Debug)]
pub struct Lead<'a> {
    /// As planned.
    pub frontend: &'a PlannedFrontend,
    /// `None`: no endpoints.
    pub set: Option<&'a BackendSet>,
    /// See [`PlannedFrontend::local`].
    pub local: Option<&'a BackendSet>,
    /// See [`ServicePlan::affinity_seconds`].
    pub affinity_seconds: u32,
}

impl NodeView {
    /// The node `name` as `snapshot` knows it.
    pub fn new(name: &str, snapshot: &Snapshot) -> Self {
        let node = snapshot.nodes().get(&Key::new("", name));
        let zone = node.and_then(|node| node.zone.clone());
        Self { name: name.into(), zone, rules: Rules::default() }
    }
}

impl SetIndex {
    fn of(place: usize) -> Option<Self> {
        Some(Self(NonZeroU32::MIN.checked_add(u32::try_from(place).ok()?)?))
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl ServicePlan {
    /// Where each frontend leads.
    pub fn leads(&self) -> impl Iterator<Item = Lead<'_>> {
        let set = |index: Option<SetIndex>| index.and_then(|index| self.sets.get(index.place()));
        self.frontends.iter().map(move |frontend| Lead {
            frontend,
            set: set(frontend.set),
            local: set(frontend.local),
            affinity_seconds: self.affinity_seconds,
        })
    }
}

impl Builder {
    fn intern(&mut self, port: &ServicePort, mut backends: Vec<Backend>) -> Option<SetIndex> {
        if backends.len() > SET_BACKENDS_MAX {
            let problem = Problem::TooManyEndpoints { port: port.port, endpoints: backends.len() };
            self.extras.problems.push(problem);
            backends.truncate(SET_BACKENDS_MAX);
        }
        if backends.is_empty() {
            return None;
        }
        let recent = self.sets.len().saturating_sub(COMPARED_SETS_MAX);
        let known = self.sets.iter().skip(recent).position(|set| **set == *backends);
        let place = known.map_or(self.sets.len(), |known| recent + known);
        if known.is_none() {
            self.sets.push(backends.into());
        }
        SetIndex::of(place)
    }

    fn finish(self) -> ServicePlan {
        let Self { mut frontends, sets, affinity_seconds, extras } = self;
        // Stable, so that of a key written twice the first port stays.
        frontends.sort_by_key(|frontend| frontend.key);
        frontends.dedup_by_key(|frontend| frontend.key);
        ServicePlan {
            frontends: frontends.into(),
            sets: sets.into(),
            affinity_seconds,
            extras: extras.into(),
        }
    }
}

/// Plans one service. `slices` are all its EndpointSlices.
pub fn plan_service(
    service: &Service,
    slices: &[&Arc<EndpointSlice>],
    node: &NodeView,
) -> ServicePlan {
    let mut plan = Builder::default();
    let ours = node.rules.proxy_name.as_ref();
    if !is_served(service, ours) {
        if service.extras.proxy_name.as_ref() != ours {
            plan.frontends.extend(service.cluster_ips.iter().map(|ip| frontends::foreign(*ip)));
        }
        return plan.finish();
    }
    if let SessionAffinity::ClientIp { timeout_seconds } = service.extras.session_affinity {
        plan.affinity_seconds = timeout_seconds;
    }
    if !service.extras.external_ips.is_empty() && !node.rules.external_ips {
        plan.extras.problems.push(Problem::ExternalIps);
    }
    let unusable = service.extras.unusable_ips.iter().cloned().chain(left_out(slices));
    plan.extras.problems.extend(unusable.map(|why| Problem::UnusableIp { why }));
    let table = table(service, &node.rules, &mut plan.extras.problems);
    let addresses = frontends::external_addresses(service, &node.rules);
    if addresses.iter().any(|address| address.is_balancer) {
        plan.extras.source_ranges = service.extras.load_balancer_source_ranges.to_vec();
    }
    // Ranges of one family do not make the other unreachable (kube-proxy sorts them first).
    let ranges = &plan.extras.source_ranges;
    let is_limited = [false, true].map(|is_ipv6| ranges.iter().any(|r| r.is_ipv6() == is_ipv6));
    let targets = Targets::of(slices.iter().copied());
    for (port, index) in service.ports.iter().zip(0u16..) {
        for (is_ipv6, is_limited) in [false, true].into_iter().zip(is_limited) {
            let addresses = &addresses;
            let at = PortFamily { service, port, index, is_ipv6, addresses, is_limited, table };
            let candidates = targets.candidates(port, is_ipv6, node);
            frontends::of_port(&mut plan, at, &candidates, node);
        }
    }
    plan.frontends.extend(service.cluster_ips.iter().map(|ip| frontends::other_ports(*ip)));
    plan.finish()
}

/// What the first slice with anything wrong leaves out: a service may have a thousand slices.
fn left_out(slices: &[&Arc<EndpointSlice>]) -> Option<Name> {
    let first = slices.iter().find_map(|of| Some((&of.key.name, of.left_out.as_ref()?)));
    first.map(|(name, why)| format!("EndpointSlice {name}: {why}").into())
}

/// Whether this proxy has anything to do for the service.
pub(crate) fn is_served(service: &Service, proxy_name: Option<&Name>) -> bool {
    // ExternalName is DNS's alone; both kinds of headless and a foreign proxy's name are what
    // kube-proxy's ShouldSkipService and its informer's label selector leave out.
    !service.headless
        && !service.headless_label
        && service.extras.proxy_name.as_ref() == proxy_name
        && service.extras.external_name.is_none()
}

/// The size of the tables by which the service's flows are given to backends.
fn table(service: &Service, rules: &Rules, problems: &mut Vec<Problem>) -> Option<TableSize> {
    let is_maglev = match &service.extras.load_balancing {
        LoadBalancing::Default => rules.maglev,
        LoadBalancing::Random => false,
        LoadBalancing::Maglev => true,
        LoadBalancing::Other(text) => {
            problems.push(Problem::LoadBalancing { text: text.clone(), is_maglev: rules.maglev });
            rules.maglev
        }
    };
    is_maglev.then_some(rules.maglev_table)
}

/// An address as the maps have it.
pub(crate) fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => mapped(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    }
}
