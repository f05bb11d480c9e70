//! A Service's ready endpoints, sorted so that a name and an address are found at once.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use fairlead_state::model::{Endpoint, EndpointPort, EndpointSlice, Name, Protocol};

use super::{
    Origin,
    dashed::{Dashed, exact_address},
    lookup::Found,
    service::{PortId, Servers, Srv, srv_weight},
};
use crate::wire::{name::LABEL_BYTES_MAX, record::RrSet, rtype};

/// Endpoints, one target an address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Those without a name of their own by address, then the others by name and address.
    targets: Box<[Target]>,
    /// Ports of the slices, each list once.
    lists: Box<[Arc<[EndpointPort]>]>,
    /// What the name of a headless Service itself is answered.
    own: Option<Box<Own>>,
}

/// An address of a ready endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    /// Its label, lower case; `None`: made of the address.
    pub(super) name: Option<Name>,
    pub(crate) address: IpAddr,
    /// Which list its ports are in.
    list: u32,
}

/// Targets of one name.
pub(crate) type Group<'z> = &'z [Target];

/// A headless Service's own records.
#[derive(Debug, PartialEq, Eq)]
struct Own {
    addresses: AddressSets,
    ports: Box<[OwnPort]>,
}

/// A port that names are made of, or, unnamed, at least records.
#[derive(Debug, PartialEq, Eq)]
struct OwnPort {
    name: Name,
    protocol: Protocol,
    /// How many SRV records it makes, doubles included: weights are shared among so many.
    records: usize,
    /// Where they are not all.
    addresses: Option<AddressSets>,
}

/// A and AAAA, each address once.
type AddressSets = [Option<RrSet>; 2];

impl Target {
    /// Its label's text.
    pub(crate) fn label(&self) -> Label<'_> {
        match &self.name {
            Some(name) => Label::Name(name),
            None => Label::Address(Dashed::of(self.address)),
        }
    }

    /// Whether both have one label.
    fn is_named_as(&self, other: &Self) -> bool {
        match (&self.name, &other.name) {
            (None, None) => self.address == other.address,
            (name, other) => name == other,
        }
    }
}

/// The text of an endpoint's label.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Label<'z> {
    Name(&'z str),
    Address(Dashed),
}

impl Label<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Name(name) => name.as_bytes(),
            Self::Address(dashed) => dashed.as_bytes(),
        }
    }
}

impl Endpoints {
    /// Ready endpoints of `slices` whose label has `room` in front of the Service's name; `None`: there
    /// are none. An address in two slices counts once.
    pub(super) fn of<'a>(
        origin: &Origin,
        headless: bool,
        room: usize,
        slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
    ) -> Option<Self> {
        let mut lists: Vec<Arc<[EndpointPort]>> = vec![];
        let mut targets = BTreeSet::new();
        for slice in slices {
            let mut ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready).peekable();
            if ready.peek().is_none() {
                continue;
            }
            let known = lists.iter().position(|ports| *ports == slice.ports);
            let list = known.unwrap_or(lists.len());
            if known.is_none() {
                lists.push(slice.ports.clone());
            }
            let list = u32::try_from(list).unwrap_or(u32::MAX);
            for endpoint in ready {
                let name = own_name(endpoint, origin.endpoint_pod_names);
                let new = endpoint.addresses.iter().map(|address| {
                    // A hostname that looks like the address' own label is that label.
                    let name = name
                        .clone()
                        .filter(|name| Dashed::of(*address).as_bytes() != name.as_bytes());
                    Target { name, address: *address, list }
                });
                let fits = |label: &[u8]| label.len() <= LABEL_BYTES_MAX && label.len() < room;
                targets.extend(new.filter(|new| fits(new.label().as_bytes())));
            }
        }
        if targets.is_empty() {
            return None;
        }
        let targets = without_doubles(targets);
        let own = headless.then(|| Own::of(&targets, &lists, origin.ttl_seconds).into());
        Some(Self { targets: targets.into_iter().collect(), lists: lists.into(), own })
    }

    pub(super) fn target(&self, at: usize) -> Option<&Target> {
        self.targets.get(at)
    }

    /// A target's ports.
    pub(crate) fn ports(&self, target: &Target) -> &[EndpointPort] {
        self.lists.get(target.list as usize).map_or(&[], |ports| ports)
    }

    /// Targets with their places, those of one name and address once.
    pub(super) fn distinct(&self) -> impl Iterator<Item = (usize, &Target)> {
        let is_new = |at: usize, target: &Target| {
            let before = at.checked_sub(1).and_then(|before| self.targets.get(before));
            before
                .is_none_or(|before| before.address != target.address || before.name != target.name)
        };
        self.targets.iter().enumerate().filter(move |(at, target)| is_new(*at, target))
    }

    /// All targets of each name.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.targets.chunk_by(Target::is_named_as)
    }

    /// The targets of a label, lower case.
    pub(super) fn group(&self, label: &[u8]) -> Option<Group<'_>> {
        let named = self.range(|target| {
            target.name.as_deref().map_or(Ordering::Less, |name| name.as_bytes().cmp(label))
        });
        if named.is_some() {
            return named;
        }
        let address = exact_address(label)?;
        self.range(|target| {
            target.name.as_ref().map_or_else(|| target.address.cmp(&address), |_| Ordering::Greater)
        })
    }

    /// Neighbours that are neither less nor greater.
    fn range(&self, order: impl Fn(&Target) -> Ordering) -> Option<Group<'_>> {
        let from = self.targets.partition_point(|target| order(target).is_lt());
        let rest = self.targets.get(from..)?;
        let same = rest.get(..rest.partition_point(|target| order(target).is_eq()))?;
        (!same.is_empty()).then_some(same)
    }

    /// At an endpoint's own name.
    pub(super) fn at_group<'z>(&'z self, group: Group<'z>, qtype: u16) -> Found<'z> {
        if qtype != rtype::SRV {
            let addresses = group.iter().map(|target| target.address);
            return Found::of_addresses(addresses, Found::Endpoint(group), qtype);
        }
        let ports = distinct_ports(self, group, None).count();
        match srv_weight(ports * distinct_addresses(group).count()) {
            Some(weight) => {
                Found::Srv(Srv { weight, port: None, of: Servers::Endpoint(self, group) })
            }
            None => Found::NoData,
        }
    }

    /// At the Service's own name, or at that of one of its ports, when it is headless.
    pub(super) fn at_own<'z>(&'z self, port: Option<PortId<'z>>, qtype: u16) -> Found<'z> {
        let Some(own) = &self.own else { return Found::NoData };
        let is_wanted =
            |known: &&OwnPort| port.is_none_or(|port| port.is_of(&known.name, known.protocol));
        let mut ports = own.ports.iter().filter(is_wanted);
        if qtype == rtype::SRV {
            let count = ports.map(|port| port.records).sum();
            return srv_weight(count).map_or(Found::NoData, |weight| {
                Found::Srv(Srv { weight, port, of: Servers::Endpoints(self) })
            });
        }
        let fewer = ports.find_map(|known| known.addresses.as_ref().filter(|_| port.is_some()));
        let mut sets = fewer.unwrap_or(&own.addresses).iter().flatten();
        sets.find(|set| set.rtype == qtype).map_or(Found::NoData, Found::Records)
    }

    /// Ports of a headless Service's own names.
    pub(super) fn own_ports(&self) -> impl Iterator<Item = PortId<'_>> {
        let ports = self.own.iter().flat_map(|own| own.ports.iter());
        ports.map(|port| PortId { name: &port.name, protocol: port.protocol })
    }
}

impl Own {
    fn of(targets: &BTreeSet<Target>, lists: &[Arc<[EndpointPort]>], ttl_seconds: u32) -> Self {
        let mut ports: Vec<OwnPort> = vec![];
        for port in lists.iter().flat_map(|ports| ports.iter()) {
            let id = PortId { name: &port.name, protocol: port.protocol };
            if ports.iter().any(|known| id.is_of(&known.name, known.protocol)) {
                continue;
            }
            let in_list = |ports: &Arc<[EndpointPort]>| {
                ports.iter().filter(|port| id.is_of(&port.name, port.protocol)).count()
            };
            let counts: Vec<usize> = lists.iter().map(in_list).collect();
            let count = |target: &Target| counts.get(target.list as usize).copied().unwrap_or(0);
            let having = || targets.iter().filter(|target| count(target) > 0);
            let is_everywhere = having().count() == targets.len();
            ports.push(OwnPort {
                name: port.name.clone(),
                protocol: port.protocol,
                records: targets.iter().map(count).sum(),
                addresses: (!is_everywhere).then(|| address_sets(having(), ttl_seconds)),
            });
        }
        Self { addresses: address_sets(targets.iter(), ttl_seconds), ports: ports.into() }
    }
}

/// Numbers of ports at one name, each once.
pub(crate) fn distinct_ports<'z>(
    endpoints: &'z Endpoints,
    group: Group<'z>,
    wanted: Option<PortId<'z>>,
) -> impl Iterator<Item = u16> + 'z {
    // Targets are many, their lists few.
    let is_used = move |at: usize| group.iter().any(|target| target.list as usize == at);
    let lists = endpoints.lists.iter().enumerate().filter(move |(at, _)| is_used(*at));
    let is_wanted = move |port: &&EndpointPort| {
        wanted.is_none_or(|wanted| wanted.is_of(&port.name, port.protocol))
    };
    let all = lists.flat_map(|(_, ports)| ports.iter()).filter(is_wanted);
    let earlier = all.clone();
    all.enumerate().filter_map(move |(at, port)| {
        let is_new = earlier.clone().take(at).all(|before| before.port != port.port);
        is_new.then_some(port.port)
    })
}

/// Addresses of one name, each once: they are sorted.
pub(crate) fn distinct_addresses(group: Group<'_>) -> impl Iterator<Item = IpAddr> + Clone {
    let addresses = group.iter().enumerate().filter(move |(at, target)| {
        let before = at.checked_sub(1).and_then(|before| group.get(before));
        before.is_none_or(|before| before.address != target.address)
    });
    addresses.map(|(_, target)| target.address)
}

/// The endpoint's hostname, else the pod's name if that is wanted and a label; lower case.
fn own_name(endpoint: &Endpoint, pod_names: bool) -> Option<Name> {
    let hostname = endpoint.hostname.as_ref().filter(|hostname| !hostname.is_empty());
    let pod = || endpoint.pod.as_ref().filter(|pod| pod_names && pod.len() <= LABEL_BYTES_MAX);
    let name = hostname.or_else(pod)?;
    let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if is_lower { name.clone() } else { name.to_ascii_lowercase().into() })
}

/// One that has another's label made of an address for a name shares it: both are known by that name.
fn without_doubles(targets: BTreeSet<Target>) -> BTreeSet<Target> {
    let named = targets.iter().filter_map(|target| target.name.clone());
    let odd: HashMap<IpAddr, Name> =
        named.filter_map(|name| Some((exact_address(name.as_bytes())?, name))).collect();
    if odd.is_empty() {
        return targets;
    }
    let known = |mut target: Target| {
        target.name = target.name.or_else(|| odd.get(&target.address).cloned());
        target
    };
    targets.into_iter().map(known).collect()
}

fn address_sets<'t>(targets: impl Iterator<Item = &'t Target>, ttl_seconds: u32) -> AddressSets {
    let addresses: BTreeSet<IpAddr> = targets.map(|target| target.address).collect();
    [rtype::A, rtype::AAAA]
        .map(|rtype| RrSet::addresses(rtype, addresses.iter().copied(), ttl_seconds))
}
