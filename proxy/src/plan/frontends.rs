//! What of a service clients can dial, and which endpoints each of it leads to.

use std::net::IpAddr;

use fairlead_ebpf::abi::{
    ANY_V4, ANY_V6, Address, FRONTEND_DROPS, FRONTEND_EXTERNAL, FRONTEND_FOREIGN, FRONTEND_LOCAL,
    FRONTEND_MAGLEV, FRONTEND_SOURCE_RANGES, FrontendKey, TableSize,
};
use fairlead_state::model::{IpMode, Protocol, Service, ServicePort, TrafficPolicy};

use super::{
    Builder, NodeView, PlannedFrontend, Problem, Rules, SetIndex, address,
    select::{self, Candidate},
};

/// An address beside the ClusterIPs.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExternalAddress {
    ip: IpAddr,
    /// A load balancer's: source ranges apply.
    pub(super) is_balancer: bool,
}

/// One port of a service in one family.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortFamily<'a> {
    pub(super) service: &'a Service,
    pub(super) port: &'a ServicePort,
    pub(super) index: u16,
    pub(super) is_ipv6: bool,
    pub(super) addresses: &'a [ExternalAddress],
    /// Load balancer addresses are for some clients only.
    pub(super) is_limited: bool,
    /// Of the tables by which flows are given to backends, if they are.
    pub(super) table: Option<TableSize>,
}

/// Endpoints by policy, as sets of the plan.
#[derive(Clone, Copy, Debug, Default)]
struct Sets {
    cluster: Option<SetIndex>,
    /// Holds the local ones at its head.
    local: Option<SetIndex>,
    local_backends: u16,
}

/// Load balancer addresses the node answers for (KEP-1860), and external ones if they are allowed.
pub(super) fn external_addresses(service: &Service, rules: &Rules) -> Vec<ExternalAddress> {
    let balancer = service.extras.load_balancer_ips.iter().filter(|ip| ip.mode == IpMode::Vip);
    let balancer = balancer.map(|ip| ExternalAddress { ip: ip.ip, is_balancer: true });
    let external = service.extras.external_ips.iter().filter(|_| rules.external_ips);
    let external = external.map(|ip| ExternalAddress { ip: *ip, is_balancer: false });
    balancer.chain(external).collect()
}

/// Adds the frontends of one port in one family.
pub(super) fn of_port(
    plan: &mut Builder,
    at: PortFamily<'_>,
    candidates: &[Candidate<'_>],
    node: &NodeView,
) {
    let PortFamily { service, port, is_ipv6, .. } = at;
    let is_family = |ip: &IpAddr| ip.is_ipv6() == is_ipv6;
    let Some(cluster_ip) = service.cluster_ips.iter().copied().find(is_family) else { return };
    let external: Vec<_> = at.addresses.iter().filter(|address| is_family(&address.ip)).collect();
    let is_external = port.node_port.is_some() || !external.is_empty();
    let is_internal_local = service.internal_traffic_policy == TrafficPolicy::Local;
    let is_external_local = is_external && service.external_traffic_policy == TrafficPolicy::Local;

    let cluster = select::for_cluster(candidates, node);
    let has_endpoints = !cluster.is_empty();
    if let Some(places) = at.table.map(TableSize::places)
        && cluster.len() > places as usize
    {
        let (port, endpoints) = (port.port, cluster.len());
        plan.extras.problems.push(Problem::CrowdedTable { port, endpoints, places });
    }
    let mut sets = Sets::default();
    if is_internal_local || is_external_local {
        let locals = select::for_node(candidates);
        sets.local_backends = u16::try_from(locals.len()).unwrap_or(u16::MAX);
        let is_head = cluster.starts_with(&locals) && !locals.is_empty();
        sets.cluster = plan.intern(port, cluster);
        // An internal policy Local leads to exactly these, and a table to all of its set; an external
        // policy is content with a head.
        let is_shared = is_head && !is_internal_local && at.table.is_none();
        sets.local = if is_shared { sets.cluster } else { plan.intern(port, locals) };
    } else {
        sets.cluster = plan.intern(port, cluster);
    }

    let internal = if is_internal_local {
        let drops = if sets.local.is_none() && has_endpoints { FRONTEND_DROPS } else { 0 };
        Planned { set: sets.local, local: None, local_backends: 0, flags: drops }
    } else {
        Planned { set: sets.cluster, local: None, local_backends: 0, flags: 0 }
    };
    // Of datagrams, who has a flow keeps it.
    let serving = (port.protocol == Protocol::Udp)
        .then(|| plan.intern(port, select::serving(candidates)))
        .flatten();
    let mut push = |planned: Planned, address: Address, port: u16| {
        let frontend = planned.at(address, port, at);
        plan.frontends.push(frontend);
        plan.frontends.extend(planned.serving(&frontend, serving));
    };
    push(internal, address(cluster_ip), port.port);

    let mut outward =
        Planned { set: sets.cluster, local: None, local_backends: 0, flags: FRONTEND_EXTERNAL };
    if is_external_local {
        outward.flags |= FRONTEND_LOCAL;
        outward.local = sets.local;
        outward.local_backends = sets.local_backends;
    }
    if let Some(node_port) = port.node_port {
        push(outward, if is_ipv6 { ANY_V6 } else { ANY_V4 }, node_port);
    }
    for ExternalAddress { ip, is_balancer } in external {
        let limit = if *is_balancer && at.is_limited { FRONTEND_SOURCE_RANGES } else { 0 };
        let limited = Planned { flags: outward.flags | limit, ..outward };
        push(limited, address(*ip), port.port);
    }
}

/// Where several frontends of a port lead alike.
#[derive(Clone, Copy, Debug)]
struct Planned {
    set: Option<SetIndex>,
    local: Option<SetIndex>,
    local_backends: u16,
    flags: u16,
}

impl Planned {
    fn at(self, address: Address, port: u16, at: PortFamily<'_>) -> PlannedFrontend {
        let Planned { set, local, local_backends, flags } = self;
        let flags = flags | at.table.map_or(0, TableSize::flags);
        PlannedFrontend {
            key: frontend_key(address, port, at.port.protocol),
            port: at.index,
            service_port: at.port.port,
            flags,
            local_backends,
            set,
            local,
        }
    }

    /// What a frontend has beside it if it does not lead to all of `serving`. It has the flags of a table, since
    /// it may share a set that has one.
    fn serving(self, of: &PlannedFrontend, serving: Option<SetIndex>) -> Option<PlannedFrontend> {
        let set = serving.filter(|_| serving != self.set)?;
        Some(PlannedFrontend {
            key: of.key.serving(),
            flags: of.flags & FRONTEND_MAGLEV,
            local_backends: 0,
            set: Some(set),
            local: None,
            ..*of
        })
    }
}

/// Every port of a ClusterIP the service does not have: clients are refused.
pub(super) fn other_ports(cluster_ip: IpAddr) -> PlannedFrontend {
    PlannedFrontend {
        key: FrontendKey::other_ports(address(cluster_ip)),
        port: 0,
        service_port: 0,
        flags: 0,
        local_backends: 0,
        set: None,
        local: None,
    }
}

/// A ClusterIP that another proxy serves: it is allotted, and none of ours.
pub(super) fn foreign(cluster_ip: IpAddr) -> PlannedFrontend {
    PlannedFrontend { flags: FRONTEND_FOREIGN, ..other_ports(cluster_ip) }
}

fn frontend_key(address: Address, port: u16, protocol: Protocol) -> FrontendKey {
    FrontendKey { address, port: port.to_be_bytes(), protocol: protocol.number(), zero: 0 }
}
