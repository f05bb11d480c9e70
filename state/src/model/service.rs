use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use ipnetwork::IpNetwork;

use super::{Addresses, Key, Labels, Name, Plain, Rare};

/// Transport protocol; part of every frontend's identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, the default.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The lower-case name, as in DNS SRV labels and in dumps.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// Reachable inside the cluster; the default.
    #[default]
    ClusterIp,
    /// Also on a port of every node.
    NodePort,
    /// Also on addresses an outside balancer gives.
    LoadBalancer,
    /// A DNS alias, nothing for the proxy.
    ExternalName,
}

/// `spec.internalTrafficPolicy` and `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Any endpoint; the default.
    #[default]
    Cluster,
    /// Endpoints of the own node only.
    Local,
}

/// `spec.sessionAffinity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionAffinity {
    /// Each connection chooses anew; the default.
    #[default]
    None,
    /// By client address.
    ClientIp {
        /// Idle time after which the choice is forgotten (`clientIP.timeoutSeconds`).
        timeout_seconds: u32,
    },
}

/// Annotation `fairlead.io/load-balancing`: how packets' connections are given to endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LoadBalancing {
    /// There is none: as the agent does it; the default.
    #[default]
    Default,
    /// `random`: each connection chooses anew.
    Random,
    /// `maglev`: by a hash of the client, on every node the same.
    Maglev,
    /// Something else, which means nothing.
    Other(Name),
}

/// `spec.trafficDistribution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficDistribution {
    /// `PreferSameNode` (KEP-3015).
    PreferSameNode,
    /// `PreferSameZone`, and its older name `PreferClose` (KEP-4444).
    PreferSameZone,
}

/// `ports[].targetPort`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// A port number.
    Number(u16),
    /// A container port's name, resolved per pod by the EndpointSlice controller.
    Name(Name),
}

/// `status.loadBalancer.ingress[].ipMode` (KEP-1860).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpMode {
    /// The node answers for the address itself; the default.
    #[default]
    Vip,
    /// Traffic must go through the outside balancer.
    Proxy,
}

/// One `status.loadBalancer.ingress[]` entry that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerIp {
    /// The address.
    pub ip: IpAddr,
    /// Who answers for it.
    pub mode: IpMode,
}

/// `spec.ports[]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Name; empty when the Service has a single unnamed port. EndpointSlice ports join by it.
    pub name: Name,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of the Service, host byte order, never 0.
    pub port: u16,
    /// Port on every node, host byte order; `None` when the type has none.
    pub node_port: Option<u16>,
    /// What the port is called on the pod's side.
    pub target_port: Option<TargetPort>,
    /// `appProtocol`.
    pub app_protocol: Option<Name>,
}

/// `http (80/tcp)`, `80/tcp`.
impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port, protocol, .. } = self;
        if name.is_empty() {
            write!(f, "{port}/{protocol}")
        } else {
            write!(f, "{name} ({port}/{protocol})")
        }
    }
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.creationTimestamp` in seconds since the epoch, 0 if absent: the elder of two that
    /// claim
    /// the same frontend wins.
    pub created_seconds: i64,
    /// `spec.clusterIPs` (or `clusterIP`), at most one per family; empty when headless.
    pub cluster_ips: Addresses,
    /// Ports in the order of the manifest; equal lists of several Services are one.
    pub ports: Arc<[ServicePort]>,
    /// What few Services have.
    pub extras: Rare<ServiceExtras>,
    /// `spec.type`.
    pub service_type: ServiceType,
    /// `clusterIP: None`.
    pub headless: bool,
    /// `spec.internalTrafficPolicy`.
    pub internal_traffic_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`.
    pub external_traffic_policy: TrafficPolicy,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready_addresses: bool,
    /// `spec.trafficDistribution`.
    pub traffic_distribution: Option<TrafficDistribution>,
    /// Label `service.kubernetes.io/headless` is present: proxies ignore it.
    pub headless_label: bool,
}

/// Fields that few Services have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceExtras {
    /// `spec.externalName`, without a trailing dot; only with that type.
    pub external_name: Option<Name>,
    /// `spec.externalIPs`.
    pub external_ips: Arc<[IpAddr]>,
    /// Addresses the outside balancer gave.
    pub load_balancer_ips: Arc<[LoadBalancerIp]>,
    /// The first host name that the outside balancer gave in an entry without an address.
    pub load_balancer_name: Option<Name>,
    /// `spec.loadBalancerSourceRanges`.
    pub load_balancer_source_ranges: Arc<[IpNetwork]>,
    /// `spec.sessionAffinity`.
    pub session_affinity: SessionAffinity,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
    /// Annotation `fairlead.io/load-balancing`.
    pub load_balancing: LoadBalancing,
    /// Label `service.kubernetes.io/service-proxy-name`: another proxy serves it.
    pub proxy_name: Option<Name>,
    /// `metadata.labels`, where labels are kept.
    pub labels: Labels,
    /// What is wrong with addresses that were left out of `external_ips` and `load_balancer_ips`, and with ranges
    /// that were left out of `load_balancer_source_ranges`.
    pub unusable_ips: Arc<[Name]>,
}

impl Plain for ServiceExtras {
    fn plain() -> &'static Self {
        static PLAIN: LazyLock<ServiceExtras> = LazyLock::new(ServiceExtras::default);
        &PLAIN
    }
}

/// `ports[]` of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointPort {
    /// Joins with [`ServicePort::name`]; empty when unnamed.
    pub name: Name,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on the endpoint, host byte order. (A slice port without a number means "all ports" and
    /// is left out.)
    pub port: u16,
    /// `appProtocol`.
    pub app_protocol: Option<Name>,
}

/// `endpoints[]` of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// All addresses of the endpoint, of the slice's family. Never empty.
    pub addresses: Addresses,
    /// `hostname`.
    pub hostname: Option<Name>,
    /// `nodeName`.
    pub node_name: Option<Name>,
    /// `zone`.
    pub zone: Option<Name>,
    /// `hints`.
    pub hints: Rare<Hints>,
    /// `targetRef.name` when it is a Pod.
    pub pod: Option<Name>,
    /// `conditions.ready`; absent means ready.
    pub ready: bool,
    /// `conditions.serving`; absent means as `ready`.
    pub serving: bool,
    /// `conditions.terminating`; absent means not.
    pub terminating: bool,
}

/// Whom an endpoint is meant for (KEP-2433, KEP-3015); empty: everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `forZones[].name`.
    pub zones: Arc<[Name]>,
    /// `forNodes[].name`.
    pub nodes: Arc<[Name]>,
}

impl Plain for Hints {
    fn plain() -> &'static Self {
        static PLAIN: LazyLock<Hints> = LazyLock::new(Hints::default);
        &PLAIN
    }
}

/// An EndpointSlice of one Service (label `kubernetes.io/service-name`) with IP addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub key: Key,
    /// The Service it belongs to; the name is empty where it is of the cluster set's alone.
    pub service: Key,
    /// `addressType: IPv6`.
    pub ipv6: bool,
    /// Ports of every endpoint in the slice; equal lists of several slices are one.
    pub ports: Arc<[EndpointPort]>,
    /// Endpoints in the order of the slice.
    pub endpoints: Box<[Endpoint]>,
    /// Label `service.kubernetes.io/headless` is present: proxies ignore it, names do not.
    pub headless_label: bool,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`, milliseconds since the epoch.
    pub trigger_time_ms: Option<i64>,
    /// Of which Service of the cluster set it is, if it is.
    pub import: Option<Arc<Import>>,
    /// What is wrong with what was left out of `endpoints`: the first of it, and how much more there is.
    pub left_out: Option<Name>,
}

/// Where an EndpointSlice of the cluster set is from (KEP-1645), by its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The ServiceImport's name.
    pub service: Name,
    /// The cluster's id; may be empty.
    pub cluster: Name,
}

impl EndpointSlice {
    /// Whether it is of a Service of this cluster.
    pub fn has_service(&self) -> bool {
        !self.service.name.is_empty()
    }

    /// The ServiceImport it is of.
    pub fn import_key(&self) -> Option<Key> {
        let name = self.import.as_ref()?.service.clone();
        Some(Key { namespace: self.key.namespace.clone(), name })
    }
}
