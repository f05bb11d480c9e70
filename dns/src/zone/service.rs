//! The names of one Service (kubernetes/dns docs/specification.md §2.3-2.5; where CoreDNS differs,
//! see the crate's documentation).
//!
//! What a Service's own names are answered is read from the snapshot's Service when they are asked
//! for: a zone is an index, no second copy of the cluster. Only what has to be sorted or parsed first
//! is made once: see [`Endpoints`] and [`Alias`].

use std::{cmp::Ordering, net::IpAddr, sync::Arc};

use fairlead_state::model::{EndpointSlice, Protocol, Service, ServiceType};

use super::{
    Origin,
    endpoints::{Endpoints, Group, Target},
    lookup::Found,
    table::Place,
};
use crate::wire::{
    name::{NAME_BYTES_MAX, WireName},
    record::RrSet,
    rtype,
};

/// Below this label of a Service are its zones (coredns#8388).
pub(super) const ZONES: &[u8] = b"_zone";
/// In front of it: endpoints of the zone only, and of others where it has none.
const PIN: &[u8] = b"pin";
const PREFER: &[u8] = b"prefer";

/// A Service that has names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceNames {
    pub(super) service: Arc<Service>,
    more: Option<Arc<More>>,
}

#[derive(Debug, PartialEq, Eq)]
enum More {
    Endpoints(Endpoints),
    Alias(Alias),
}

/// What an ExternalName Service's name stands for.
#[derive(Debug, PartialEq, Eq)]
struct Alias {
    target: WireName,
    /// The alias itself, for those who ask for it.
    cname: RrSet,
}

/// SRV records of a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Srv<'z> {
    pub(crate) weight: u16,
    /// Those ports only.
    pub(crate) port: Option<PortId<'z>>,
    /// Labels of the question in front of the name that servers' names are made of.
    pub(crate) ahead: usize,
    pub(crate) of: Servers<'z>,
}

/// A port's name and protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortId<'z> {
    pub(super) name: &'z str,
    pub(super) protocol: Protocol,
}

/// Who serves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Servers<'z> {
    /// The Service itself, at its own addresses.
    Own(&'z Service),
    /// Endpoints, each by a name of its own.
    Endpoints(&'z Endpoints),
    /// One endpoint, by the name that was asked for.
    Endpoint(&'z Endpoints, Group<'z>),
}

impl<'z> PortId<'z> {
    /// Labels of a port's name in front of the Service's.
    pub(super) fn labels(port: Option<Self>) -> usize {
        if port.is_some() { 2 } else { 0 }
    }

    pub(crate) fn is_of(self, name: &str, protocol: Protocol) -> bool {
        self.protocol == protocol && self.name.eq_ignore_ascii_case(name)
    }
}

impl ServiceNames {
    /// The names of `service`, whose wire form of `SERVICE.NAMESPACE` is `key`. `None` when there are
    /// none, that is, when all of them are NXDOMAIN: a headless Service without ready endpoints
    /// (§2.4.1), an alias to something that is no name.
    pub(super) fn of<'a>(
        origin: &Origin,
        key: &[u8],
        service: &Arc<Service>,
        slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
    ) -> Option<Self> {
        let room = NAME_BYTES_MAX.checked_sub(key.len() + origin.services.as_bytes().len())?;
        let service = service.clone();
        if service.service_type == ServiceType::ExternalName {
            let alias = Alias::of(service.extras.external_name.as_deref()?, origin.ttl_seconds)?;
            return Some(Self { service, more: Some(More::Alias(alias).into()) });
        }
        let slices = slices.filter(|_| !origin.no_endpoints);
        let endpoints = Endpoints::of(origin, service.headless, room, slices);
        if endpoints.is_none() && (origin.ignore_empty || service.headless) {
            return None;
        }
        let more = endpoints.map(|endpoints| More::Endpoints(endpoints).into());
        Some(Self { service, more })
    }

    /// Whether these are the names of a Service; labels in lower case.
    pub(super) fn is_of(&self, service: &[u8], namespace: &[u8]) -> bool {
        let key = &self.service.key;
        key.name.as_bytes().eq_ignore_ascii_case(service)
            && key.namespace.as_bytes().eq_ignore_ascii_case(namespace)
    }

    pub(super) fn endpoints(&self) -> Option<&Endpoints> {
        match self.more.as_deref() {
            Some(More::Endpoints(endpoints)) => Some(endpoints),
            _ => None,
        }
    }

    /// The Service's own addresses.
    pub(super) fn cluster_ips(&self) -> &[IpAddr] {
        let has_none =
            self.service.headless || self.service.service_type == ServiceType::ExternalName;
        if has_none { &[] } else { &self.service.cluster_ips }
    }

    /// At `SERVICE.NAMESPACE.svc`.
    pub(super) fn at_own(&self, qtype: u16) -> Found<'_> {
        match self.more.as_deref() {
            Some(More::Alias(alias)) if qtype == rtype::CNAME => Found::Records(&alias.cname),
            Some(More::Alias(alias)) => Found::Alias(&alias.target),
            Some(More::Endpoints(endpoints)) if self.service.headless => {
                endpoints.at_own(None, qtype)
            }
            _ => self.at_own_addresses(None, qtype),
        }
    }

    /// At one label in front of it: `_PROTOCOL`, or an endpoint's.
    pub(super) fn at_label(&self, label: &[u8], qtype: u16) -> Found<'_> {
        let endpoints = self.endpoints();
        if let Some((endpoints, group)) = endpoints.and_then(|e| Some((e, e.group(label)?))) {
            return endpoints.at_group(group, qtype);
        }
        let protocol = protocol(label);
        let is_there = protocol.is_some_and(|wanted| {
            self.ports().any(|port| !port.name.is_empty() && port.protocol == wanted)
        });
        let is_zones = label == ZONES && endpoints.is_some_and(Endpoints::is_zonal);
        if is_there || is_zones { Found::NoData } else { Found::NoName }
    }

    /// At `_PORT._PROTOCOL` in front of it.
    pub(super) fn at_port(&self, port: &[u8], protocol: &[u8], qtype: u16) -> Found<'_> {
        let name = port.strip_prefix(b"_").filter(|name| !name.is_empty());
        let Some((name, protocol)) = name.zip(self::protocol(protocol)) else {
            let is_zones = protocol == ZONES && [PIN, PREFER].contains(&port);
            let exists = is_zones && self.endpoints().is_some_and(Endpoints::is_zonal);
            return if exists { Found::NoData } else { Found::NoName };
        };
        let is_it = |port: &PortId<'_>| {
            port.protocol == protocol && port.name.as_bytes().eq_ignore_ascii_case(name)
        };
        let Some(port) = self.ports().find(is_it) else { return Found::NoName };
        match self.endpoints().filter(|_| self.service.headless) {
            Some(endpoints) => endpoints.at_own(Some(port), qtype),
            None => self.at_own_addresses(Some(port), qtype),
        }
    }

    /// At `ZONE.pin._zone` or `ZONE.prefer._zone` in front of it, which are so many labels: what the
    /// endpoints in a zone, in wire form, are answered, or, where there are none and they were only preferred,
    /// all.
    pub(super) fn at_zone(
        &self,
        (zone, directive): (&[u8], &[u8]),
        ahead: usize,
        qtype: u16,
    ) -> Found<'_> {
        let Some(all) = self.endpoints().filter(|all| all.is_zonal()) else { return Found::NoName };
        let chosen = match all.of_zone(zone) {
            _ if ![PIN, PREFER].contains(&directive) => return Found::NoName,
            Some(of_zone) => of_zone,
            None if directive == PREFER => all,
            None => return Found::NoData,
        };
        match chosen.at_own(None, qtype) {
            Found::Srv(srv) => Found::Srv(Srv { ahead, ..srv }),
            found => found,
        }
    }

    fn at_own_addresses<'z>(&'z self, port: Option<PortId<'z>>, qtype: u16) -> Found<'z> {
        let addresses = self.cluster_ips();
        if qtype != rtype::SRV {
            return Found::of_addresses(addresses.iter().copied(), Found::Own(addresses), qtype);
        }
        let ports = self
            .ports()
            .filter(|known| port.is_none_or(|wanted| wanted.is_of(known.name, known.protocol)));
        match srv_weight(ports.count() * addresses.len()) {
            Some(weight) => {
                let (ahead, of) = (PortId::labels(port), Servers::Own(&self.service));
                Found::Srv(Srv { weight, port, ahead, of })
            }
            None => Found::NoData,
        }
    }

    /// Ports that have names below the Service's, as often as they are listed.
    fn ports(&self) -> impl Iterator<Item = PortId<'_>> {
        let of_endpoints = self.endpoints().filter(|_| self.service.headless);
        let of_endpoints = of_endpoints.into_iter().flat_map(Endpoints::own_ports);
        // Without an address there is nothing a port could be at.
        let has_own = !self.cluster_ips().is_empty();
        let own = self.service.ports.iter().filter(move |_| has_own);
        let own = own.map(|port| PortId { name: &port.name, protocol: port.protocol });
        of_endpoints.chain(own)
    }

    /// Every address that has names, and which of these Services' it is.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (IpAddr, Whose)> {
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let own = self.cluster_ips().iter().enumerate();
        let own = own.map(move |(at, address)| (*address, Whose::Own(number(at))));
        let endpoints = self.endpoints().into_iter().flat_map(Endpoints::distinct);
        own.chain(endpoints.map(move |(at, target)| (target.address, Whose::Endpoint(number(at)))))
    }

    pub(super) fn address(&self, whose: Whose) -> Option<IpAddr> {
        match whose {
            Whose::Own(at) => self.cluster_ips().get(at as usize).copied(),
            Whose::Endpoint(_) => self.target(whose).map(|target| target.address),
        }
    }

    /// The endpoint, if it is one's.
    pub(super) fn target(&self, whose: Whose) -> Option<&Target> {
        match whose {
            Whose::Own(_) => None,
            Whose::Endpoint(at) => self.endpoints()?.target(at as usize),
        }
    }
}

/// Whose address one is, by its place in the Service's lists. Own ones come first and win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    Own(u32),
    Endpoint(u32),
}

impl Place for ServiceNames {
    fn order(&self, other: &Self) -> Ordering {
        self.service.key.cmp(&other.service.key)
    }
}

impl Alias {
    /// CoreDNS denies an alias to an address, so do we: there is no such name.
    fn of(target: &str, ttl_seconds: u32) -> Option<Self> {
        if target.parse::<IpAddr>().is_ok() {
            return None;
        }
        let target = WireName::from_text(target).ok()?;
        let cname = RrSet::of_data(rtype::CNAME, &[target.as_bytes()], ttl_seconds);
        Some(Self { target, cname })
    }
}

/// The protocol of a label such as `_tcp`.
fn protocol(label: &[u8]) -> Option<Protocol> {
    let name = label.strip_prefix(b"_")?;
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.as_str().as_bytes() == name)
}

/// The weight of each of `count` SRV records (RFC 2782): they share 100, never 0, as CoreDNS has it.
/// `None` for none.
pub(crate) fn srv_weight(count: usize) -> Option<u16> {
    u16::try_from(100_usize.checked_div(count)?).ok().map(|weight| weight.max(1))
}
