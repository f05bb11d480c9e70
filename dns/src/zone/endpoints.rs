//! A Service's ready endpoints, sorted so that a name and an address are found at once.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use fairlead_state::model::{Endpoint, EndpointPort, EndpointSlice, Name, Protocol};

use super::{
    Origin,
    dashed::{Dashed, exact_address},
    lookup::Found,
    ports::{SeenPorts, distinct},
    service::{PortId, Servers, Srv, srv_weight},
};
use crate::wire::{
    name::{LABEL_BYTES_MAX, push_label},
    record::RrSet,
    rtype,
};

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
    /// With `zonal`: its endpoints by their zones, labels in wire form.
    zones: Option<BTreeMap<Box<[u8]>, Endpoints>>,
}

/// Zones of one Service that have names; no region has as many. Others have no endpoints.
const ZONES_MAX: usize = 64;

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
        if !(headless && origin.zonal) {
            return Self::of_those(origin, headless, room, slices, |_| true);
        }
        let slices: Vec<_> = slices.collect();
        let those = |wanted: &dyn Fn(&Endpoint) -> bool| {
            Self::of_those(origin, true, room, slices.iter().copied(), wanted)
        };
        let mut all = those(&|_| true)?;
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter());
        let zones = endpoints.filter(|endpoint| endpoint.ready).filter_map(|e| e.zone.as_ref());
        let zones: BTreeSet<String> = zones.map(|zone| zone.to_ascii_lowercase()).collect();
        let named = zones.iter().take(ZONES_MAX).filter_map(|zone| {
            let is_in =
                |e: &Endpoint| e.zone.as_ref().is_some_and(|z| z.eq_ignore_ascii_case(zone));
            Some((labels(zone)?, those(&is_in)?))
        });
        let named = named.collect();
        if let Some(own) = &mut all.own {
            own.zones = Some(named);
        }
        Some(all)
    }

    /// The same of those endpoints alone that are wanted.
    fn of_those<'a>(
        origin: &Origin,
        headless: bool,
        room: usize,
        slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
        wanted: impl Fn(&Endpoint) -> bool,
    ) -> Option<Self> {
        let mut lists: Vec<Arc<[EndpointPort]>> = vec![];
        let mut places: HashMap<&[EndpointPort], usize> = HashMap::new();
        let mut targets = BTreeSet::new();
        for slice in slices {
            let is_wanted = |endpoint: &&Endpoint| endpoint.ready && wanted(endpoint);
            let mut ready = slice.endpoints.iter().filter(is_wanted).peekable();
            if ready.peek().is_none() {
                continue;
            }
            let list = *places.entry(&slice.ports).or_insert_with(|| {
                lists.push(slice.ports.clone());
                lists.len() - 1
            });
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

    /// The same, beginning with the name of the `rotation`th target.
    pub(crate) fn groups_from(&self, rotation: usize) -> impl Iterator<Item = Group<'_>> {
        let at = rotation % self.targets.len().max(1);
        let (before, rest) = self.targets.split_at_checked(at).unwrap_or_default();
        let is_its = |target: &&Target| rest.first().is_some_and(|one| one.is_named_as(target));
        let first = at - before.iter().rev().take_while(is_its).count();
        let (sooner, later) = self.targets.split_at_checked(first).unwrap_or_default();
        later.chunk_by(Target::is_named_as).chain(sooner.chunk_by(Target::is_named_as))
    }

    /// The targets of a label, lower case.
    pub(crate) fn group(&self, label: &[u8]) -> Option<Group<'_>> {
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
        let ports = distinct_ports(self, group, None, &mut SeenPorts::new()).count();
        match srv_weight(ports * distinct_addresses(group).count()) {
            Some(weight) => {
                let of = Servers::Endpoint(self, group);
                Found::Srv(Srv { weight, port: None, ahead: 0, of })
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
                let (ahead, of) = (PortId::labels(port), Servers::Endpoints(self));
                Found::Srv(Srv { weight, port, ahead, of })
            });
        }
        let fewer = ports.find_map(|known| known.addresses.as_ref().filter(|_| port.is_some()));
        let mut sets = fewer.unwrap_or(&own.addresses).iter().flatten();
        sets.find(|set| set.rtype == qtype).map_or(Found::NoData, Found::Records)
    }

    /// Whether they have names by zones.
    pub(super) fn is_zonal(&self) -> bool {
        self.own.as_ref().is_some_and(|own| own.zones.is_some())
    }

    /// Those in a zone, whose labels are in wire form.
    pub(super) fn of_zone(&self, zone: &[u8]) -> Option<&Self> {
        self.own.as_ref()?.zones.as_ref()?.get(zone)
    }

    /// Ports of a headless Service's own names.
    pub(super) fn own_ports(&self) -> impl Iterator<Item = PortId<'_>> {
        let ports = self.own.iter().flat_map(|own| own.ports.iter());
        ports.map(|port| PortId { name: &port.name, protocol: port.protocol })
    }
}

impl Own {
    fn of(targets: &BTreeSet<Target>, lists: &[Arc<[EndpointPort]>], ttl_seconds: u32) -> Self {
        let mut by_list: Vec<Vec<&Target>> = vec![vec![]; lists.len()];
        for target in targets {
            if let Some(list) = by_list.get_mut(target.list as usize) {
                list.push(target);
            }
        }
        let of_list = |list: usize| by_list.get(list).map_or(&[][..], Vec::as_slice);
        let ports = counted(lists).into_iter().map(|(port, counts)| {
            let having = || counts.iter().flat_map(|(list, _)| of_list(*list).iter().copied());
            let is_everywhere = having().count() == targets.len();
            OwnPort {
                name: port.name.clone(),
                protocol: port.protocol,
                records: counts.iter().map(|(list, count)| count * of_list(*list).len()).sum(),
                addresses: (!is_everywhere).then(|| address_sets(having(), ttl_seconds)),
            }
        });
        let ports = ports.collect();
        let addresses = address_sets(targets.iter(), ttl_seconds);
        Self { addresses, ports, zones: None }
    }
}

/// How often a list has ports of one name and protocol: the lists that have any, by number.
type Counts = Vec<(usize, usize)>;

/// The first port of each name and protocol, and where there are others. Each port is looked at once.
fn counted(lists: &[Arc<[EndpointPort]>]) -> Vec<(&EndpointPort, Counts)> {
    let mut places: HashMap<(String, Protocol), usize> = HashMap::new();
    let mut known: Vec<(&EndpointPort, Counts)> = vec![];
    for (list, ports) in lists.iter().enumerate() {
        for port in ports.iter() {
            let place = places.entry((port.name.to_ascii_lowercase(), port.protocol));
            let place = *place.or_insert(known.len());
            if place == known.len() {
                known.push((port, vec![]));
            }
            let Some((_, counts)) = known.get_mut(place) else { continue };
            match counts.last_mut() {
                Some((last, count)) if *last == list => *count += 1,
                _ => counts.push((list, 1)),
            }
        }
    }
    known
}

/// Numbers of ports at one name, each once.
pub(crate) fn distinct_ports(
    endpoints: &Endpoints,
    group: Group<'_>,
    wanted: Option<PortId<'_>>,
    seen: &mut SeenPorts,
) -> impl Iterator<Item = u16> {
    // Neighbours mostly have the same list: it is looked at once then.
    let lists = group.chunk_by(|a, b| a.list == b.list).filter_map(<[Target]>::first);
    let is_wanted = move |port: &&EndpointPort| {
        wanted.is_none_or(|wanted| wanted.is_of(&port.name, port.protocol))
    };
    let all = lists.flat_map(move |target| endpoints.ports(target)).filter(is_wanted);
    distinct(all.map(|port| port.port), seen)
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
pub(super) fn own_name(endpoint: &Endpoint, pod_names: bool) -> Option<Name> {
    let hostname = endpoint.hostname.as_ref().filter(|hostname| !hostname.is_empty());
    let pod = || endpoint.pod.as_ref().filter(|pod| pod_names && pod.len() <= LABEL_BYTES_MAX);
    let name = hostname.or_else(pod)?;
    let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if is_lower { name.clone() } else { name.to_ascii_lowercase().into() })
}

/// A zone's labels, since its name may have dots; `None` if it cannot be asked for.
fn labels(zone: &str) -> Option<Box<[u8]>> {
    let mut wire = vec![];
    zone.split('.').try_for_each(|label| push_label(&mut wire, label.as_bytes())).ok()?;
    Some(wire.into())
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
