//! The names of one Service, as a pure function of the Service and its EndpointSlices
//! (kubernetes/dns docs/specification.md §2.3-2.5; where CoreDNS differs, see the crate's
//! documentation).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use fairlead_state::model::{EndpointSlice, Protocol, Service, ServiceType};

use super::Origin;
use crate::wire::{
    name::{LABEL_BYTES_MAX, WireName, push_label},
    record::{RrSet, SetBuilder},
    rtype,
};

/// One or more labels in wire form, without root.
pub(crate) type Labels = Arc<[u8]>;

/// All records at one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// At most one set per type; none for an empty non-terminal.
    sets: Box<[RrSet]>,
    pub(crate) more: More,
}

/// What a name has beside its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum More {
    #[default]
    Nothing,
    /// Any other type is answered at this name.
    Alias(WireName),
    /// The ports of an endpoint. SRV of its own name, which hardly anyone asks for, is made from
    /// them when asked: kept ready, it would be the largest part of a zone.
    Ports(Arc<[u16]>),
}

impl Node {
    fn of(sets: Box<[RrSet]>) -> Self {
        Self { sets, more: More::Nothing }
    }

    /// The set of a type.
    pub(crate) fn set(&self, rtype: u16) -> Option<&RrSet> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }
}

/// A Service's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceNames {
    /// At `SERVICE.NAMESPACE.svc`.
    pub(crate) node: Node,
    /// By the labels in front of that (wire form, without root), sorted.
    below: Box<[(Labels, Node)]>,
    /// The Service's own addresses.
    pub(crate) cluster_ips: Arc<[IpAddr]>,
    /// Addresses of ready endpoints with their labels, for reverse lookups.
    pub(crate) endpoints: Box<[(IpAddr, Labels)]>,
}

impl ServiceNames {
    /// The node `labels` in front of the Service's name.
    pub(crate) fn below(&self, labels: &[u8]) -> Option<&Node> {
        let index = self.below.binary_search_by(|(known, _)| known.as_ref().cmp(labels)).ok()?;
        self.below.get(index).map(|(_, node)| node)
    }
}

/// A port that SRV records name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    /// Lower case; empty when unnamed.
    name: String,
    protocol: Protocol,
    number: u16,
}

/// An address of the Service: a cluster IP, or an endpoint's.
struct Target<'a> {
    /// Its own label in front of the Service's name; empty for a cluster IP.
    label: Labels,
    name: WireName,
    address: IpAddr,
    ports: &'a [Port],
}

/// The names of `service`, whose wire form of `SERVICE.NAMESPACE` is `key`. `None` when there are
/// none, that is, when all of them are NXDOMAIN: a headless Service without ready endpoints
/// (§2.4.1), an alias to something that is no name.
pub(crate) fn names_of<'a>(
    origin: &Origin,
    key: &[u8],
    service: &Service,
    slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
) -> Option<ServiceNames> {
    let name = origin.services.below(key).ok()?;
    if service.service_type == ServiceType::ExternalName {
        return alias(service.external_name.as_deref()?, origin.ttl_seconds);
    }
    let slices = slices.filter(|_| !origin.no_endpoints);
    let slices: Vec<_> = slices.map(|slice| (slice, slice_ports(slice))).collect();
    let endpoints = endpoint_targets(&name, &slices, origin.endpoint_pod_names);
    if origin.ignore_empty && endpoints.is_empty() {
        return None;
    }
    if service.headless {
        return (!endpoints.is_empty()).then(|| names(origin, &endpoints, &endpoints, &[].into()));
    }
    let ports = service_ports(service);
    let cluster = service.cluster_ips.iter().map(|address| Target {
        label: Arc::default(),
        name: name.clone(),
        address: *address,
        ports: &ports,
    });
    let cluster = cluster.collect::<Vec<_>>();
    Some(names(origin, &cluster, &endpoints, &service.cluster_ips))
}

/// `own` are the targets of the Service's name and ports; `endpoints` get a name each.
fn names(
    origin: &Origin,
    own: &[Target<'_>],
    endpoints: &[Target<'_>],
    cluster_ips: &Arc<[IpAddr]>,
) -> ServiceNames {
    let ttl = origin.ttl_seconds;
    let all = |target: &Target<'_>| target.ports.to_vec();
    let node = Node::of(sets(own.iter().map(|t| (t, all(t))), ttl));
    let mut below = BTreeMap::new();
    let ports: BTreeSet<_> = own.iter().flat_map(|t| t.ports).collect();
    let only_port = ports.len() == 1 && own.iter().all(|t| !t.ports.is_empty());
    for port in ports.iter().filter(|port| !port.name.is_empty()) {
        let Some((protocol, labels)) = port_labels(port) else { continue };
        below.entry(protocol).or_insert_with(Node::default);
        let same = |p: &&Port| p.name == port.name && p.protocol == port.protocol;
        let at_port =
            own.iter().map(|t| (t, t.ports.iter().filter(same).cloned().collect::<Vec<_>>()));
        // The only port's records are the Service's: the bytes are shared.
        let sets = if only_port {
            node.sets.clone()
        } else {
            sets(at_port.filter(|(_, ports)| !ports.is_empty()), ttl)
        };
        below.insert(labels, Node::of(sets));
    }
    let mut by_label: BTreeMap<Labels, Vec<&Target<'_>>> = BTreeMap::new();
    for target in endpoints {
        by_label.entry(target.label.clone()).or_default().push(target);
    }
    for (label, targets) in by_label {
        below.insert(label, endpoint_node(&targets, ttl));
    }
    ServiceNames {
        node,
        below: below.into_iter().collect(),
        cluster_ips: cluster_ips.clone(),
        endpoints: endpoints.iter().map(|t| (t.address, t.label.clone())).collect(),
    }
}

/// A, AAAA and SRV of targets, each with the ports that count.
fn sets<'a>(
    targets: impl Iterator<Item = (&'a Target<'a>, Vec<Port>)>,
    ttl_seconds: u32,
) -> Box<[RrSet]> {
    let targets: Vec<_> = targets.collect();
    let addresses = address_sets(targets.iter().map(|(target, _)| target.address), ttl_seconds);
    addresses.chain(srv(&targets, ttl_seconds)).collect()
}

/// A and AAAA, each address once.
fn address_sets(
    addresses: impl Iterator<Item = IpAddr>,
    ttl_seconds: u32,
) -> impl Iterator<Item = RrSet> {
    let addresses: BTreeSet<IpAddr> = addresses.collect();
    let a = RrSet::addresses(rtype::A, addresses.iter().copied(), ttl_seconds);
    let aaaa = RrSet::addresses(rtype::AAAA, addresses, ttl_seconds);
    a.into_iter().chain(aaaa)
}

/// The records of an endpoint's own name, which several addresses may share.
fn endpoint_node(targets: &[&Target<'_>], ttl_seconds: u32) -> Node {
    let ports: BTreeSet<u16> =
        targets.iter().flat_map(|t| t.ports).map(|port| port.number).collect();
    let sets = address_sets(targets.iter().map(|t| t.address), ttl_seconds).collect();
    let more =
        if ports.is_empty() { More::Nothing } else { More::Ports(ports.into_iter().collect()) };
    Node { sets, more }
}

/// SRV records (RFC 2782): priority 0, weights that share 100 among all addresses and ports, never
/// 0, as CoreDNS has it.
fn srv(targets: &[(&Target<'_>, Vec<Port>)], ttl_seconds: u32) -> Option<RrSet> {
    let count = targets.iter().map(|(_, ports)| ports.len()).sum::<usize>();
    let weight = srv_weight(count)?;
    let mut set = SetBuilder::new(rtype::SRV, ttl_seconds);
    let mut answered = BTreeSet::new();
    let mut added = BTreeSet::new();
    for (target, ports) in targets {
        for port in ports {
            if answered.insert((target.name.as_bytes(), port.number)) {
                let mut data = vec![0, 0];
                data.extend_from_slice(&weight.to_be_bytes());
                data.extend_from_slice(&port.number.to_be_bytes());
                // Never compressed, RFC 2782 says.
                data.extend_from_slice(target.name.as_bytes());
                set.answer(&data);
            }
        }
        if !ports.is_empty() && added.insert((target.name.as_bytes(), target.address)) {
            set.additional_address(&target.name, &target.address);
        }
    }
    Some(set.finish())
}

/// The weight of each of `count` SRV records; `None` for none.
pub(crate) fn srv_weight(count: usize) -> Option<u16> {
    u16::try_from(100_usize.checked_div(count)?).ok().map(|weight| weight.max(1))
}

/// One target per address of a ready endpoint; an address in two slices counts once.
fn endpoint_targets<'a>(
    name: &WireName,
    slices: &'a [(&Arc<EndpointSlice>, Vec<Port>)],
    pod_names: bool,
) -> Vec<Target<'a>> {
    let mut seen = BTreeSet::new();
    let mut targets = vec![];
    for (slice, ports) in slices {
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            for address in endpoint.addresses.iter() {
                let pod = endpoint.pod.as_deref().filter(|_| pod_names);
                let Some(label) = endpoint_label(endpoint.hostname.as_deref(), pod, address) else {
                    continue;
                };
                let Ok(name) = name.below(&label) else { continue };
                if seen.insert((label.clone(), *address, ports)) {
                    targets.push(Target { label: label.into(), name, address: *address, ports });
                }
            }
        }
    }
    targets.sort_by(|a, b| (&a.label, a.address, a.ports).cmp(&(&b.label, b.address, b.ports)));
    targets
}

/// The endpoint's own label in wire form: its hostname, else the pod's name if that is wanted and a
/// label, else its address with dashes, which must not end in one.
fn endpoint_label(hostname: Option<&str>, pod: Option<&str>, address: &IpAddr) -> Option<Vec<u8>> {
    let pod = pod.filter(|pod| pod.len() <= LABEL_BYTES_MAX);
    let text = match hostname.filter(|hostname| !hostname.is_empty()).or(pod) {
        Some(name) => name.to_owned(),
        None => {
            let dashed = address.to_string().replace(['.', ':'], "-");
            if dashed.ends_with('-') { dashed + "0" } else { dashed }
        }
    };
    let mut label = vec![];
    push_label(&mut label, text.as_bytes()).ok()?;
    Some(label)
}

/// The labels `_PROTOCOL` and `_PORT._PROTOCOL` in wire form.
fn port_labels(port: &Port) -> Option<(Labels, Labels)> {
    let mut protocol = vec![];
    push_label(&mut protocol, format!("_{}", port.protocol).as_bytes()).ok()?;
    let mut labels = vec![];
    push_label(&mut labels, format!("_{}", port.name).as_bytes()).ok()?;
    labels.extend_from_slice(&protocol);
    Some((protocol.into(), labels.into()))
}

fn service_ports(service: &Service) -> Vec<Port> {
    let ports = service.ports.iter().map(|port| Port {
        name: port.name.to_ascii_lowercase(),
        protocol: port.protocol,
        number: port.port,
    });
    ports.collect()
}

fn slice_ports(slice: &EndpointSlice) -> Vec<Port> {
    let ports = slice.ports.iter().map(|port| Port {
        name: port.name.to_ascii_lowercase(),
        protocol: port.protocol,
        number: port.port,
    });
    ports.collect()
}

/// CNAME to another name. CoreDNS denies an alias to an address, so do we: there is no such name.
fn alias(target: &str, ttl_seconds: u32) -> Option<ServiceNames> {
    if target.parse::<IpAddr>().is_ok() {
        return None;
    }
    let target = WireName::from_text(target).ok()?;
    let cname = RrSet::of_data(rtype::CNAME, &[target.as_bytes()], ttl_seconds);
    let node = Node { sets: [cname].into(), more: More::Alias(target) };
    Some(ServiceNames {
        node,
        below: Box::default(),
        cluster_ips: [].into(),
        endpoints: Box::default(),
    })
}
