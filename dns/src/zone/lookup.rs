//! What a name is: research of the live CoreDNS as a table stands in `tests/contract.rs`.

use std::net::IpAddr;

use super::{
    DNS_SERVICE, DNS_SERVICE_LABELS, Known, Zone,
    authority::Authority,
    dashed,
    endpoints::{Endpoints, Group},
    reverse::Pointer,
    service::{self, ServiceNames, Srv},
};
use crate::{
    corefile::Pods,
    wire::{
        name::{LowerName, WireName},
        record::RrSet,
        rtype,
    },
};

/// What the zone knows about a name and type.
#[derive(Debug)]
pub(crate) enum Found<'z> {
    /// These records.
    Records(&'z RrSet),
    /// A pod's address, read from its name.
    Pod(IpAddr),
    /// A Service's own addresses of the type's family.
    Own(&'z [IpAddr]),
    /// An endpoint's.
    Endpoint(Group<'z>),
    /// SRV records.
    Srv(Srv<'z>),
    /// Names of an address.
    Pointers(IpAddr),
    /// The zone's own SOA.
    Soa,
    /// Another name's records.
    Alias(&'z WireName),
    /// The name exists, the type does not.
    NoData,
    /// No such name.
    NoName,
    /// It cannot be said yet: no snapshot.
    NotSynced,
    /// Not ours to answer.
    Outside,
}

impl<'z> Found<'z> {
    /// `found` if the type is that of one of its addresses.
    pub(super) fn of_addresses(
        mut addresses: impl Iterator<Item = IpAddr>,
        found: Self,
        qtype: u16,
    ) -> Self {
        let is_there = addresses.any(|address| rtype_of(&address) == qtype);
        if is_there { found } else { Found::NoData }
    }
}

impl Zone {
    /// Looks a name up. The authority is that of the zone the name is in.
    pub(crate) fn lookup(&self, name: &LowerName, qtype: u16) -> (Found<'_>, Option<&Authority>) {
        if let Some(below) = name.labels_below(&self.origin.name, self.origin.labels) {
            let found = self.lookup_below(name, below, qtype);
            return (self.denied_or_not(found, name), Some(&self.authority));
        }
        if let (Some(set), Some(authority)) = (&self.origin.set, &self.set_authority)
            && let Some(below) = name.labels_below(&set.name, set.labels)
        {
            let found = self.lookup_import(name, below, qtype);
            return (self.denied_or_not(found, name), Some(authority));
        }
        for (zone, authority) in self.origin.reverse.iter().zip(self.reverse_authorities.iter()) {
            if let Some(below) = name.labels_below(&zone.name, zone.labels) {
                let address = zone.family.address(name);
                // The zone of one address is that address' name, too.
                let is_apex =
                    below == 0 && (address.is_none() || matches!(qtype, rtype::SOA | rtype::NS));
                let found = match is_apex {
                    true => self.apex(qtype),
                    false => self.lookup_address(name, address, qtype),
                };
                return (found, Some(authority));
            }
        }
        (Found::Outside, None)
    }

    fn denied_or_not<'z>(&self, found: Found<'z>, name: &LowerName) -> Found<'z> {
        match found {
            // The API may know the name; only a snapshot can deny it (kubernetes/dns#186).
            Found::NoName if self.known == Known::Nothing => Found::NotSynced,
            Found::NoName if self.origin.misses.pass_on(name) => Found::Outside,
            found => found,
        }
    }

    /// `below` labels stand in front of the zone's name.
    fn lookup_below(&self, name: &LowerName, below: usize, qtype: u16) -> Found<'_> {
        let Some(last) = below.checked_sub(1) else { return self.apex(qtype) };
        match name.label(last) {
            b"svc" => self.lookup_service(name, last, qtype),
            // The name itself is there without any below it, as in CoreDNS.
            b"pod" if last == 0 || self.origin.pods != Pods::Disabled => {
                self.lookup_pod(name, last, qtype)
            }
            b"dns-version" if last == 0 => one_of(&self.origin.version, qtype),
            b"dns" => self.lookup_server(name, last, qtype),
            _ => Found::NoName,
        }
    }

    pub(super) fn apex(&self, qtype: u16) -> Found<'_> {
        match qtype {
            rtype::SOA => Found::Soa,
            rtype::NS => Found::Records(&self.name_servers),
            _ => Found::NoData,
        }
    }

    /// Below `svc`, which is label `svc` of the name.
    fn lookup_service(&self, name: &LowerName, svc: usize, qtype: u16) -> Found<'_> {
        match svc {
            0 => Found::NoData,
            1 => self.namespace(name.span(0, 1)),
            _ => {
                let Some(service) = self.service(name, svc - 2) else { return Found::NoName };
                match svc - 2 {
                    0 => service.at_own(qtype),
                    1 => service.at_label(name.label(0), qtype),
                    2 => service.at_port(name.label(0), name.label(1), qtype),
                    ahead if name.label(ahead - 1) == service::ZONES => {
                        let zone = (name.span(0, ahead - 2), name.label(ahead - 2));
                        match service.at_zone(zone, ahead, qtype) {
                            // Which zone an endpoint is in is not kept over a restart.
                            Found::NoData if self.known == Known::Kept => Found::NotSynced,
                            found => found,
                        }
                    }
                    _ => Found::NoName,
                }
            }
        }
    }

    /// The Service whose label is number `at`, its namespace's the next.
    fn service(&self, name: &LowerName, at: usize) -> Option<&ServiceNames> {
        let (service, namespace) = (name.label(at), name.label(at + 1));
        self.services.find(name.span(at, at + 2)).find(|names| names.is_of(service, namespace))
    }

    /// Whether the Service whose label is number `at` of a name is headless, and its ready endpoints.
    pub(crate) fn endpoints_of(&self, name: &LowerName, at: usize) -> Option<(bool, &Endpoints)> {
        let names = self.service(name, at)?;
        Some((names.service.headless, names.endpoints()?))
    }

    pub(super) fn namespace(&self, label: &[u8]) -> Found<'_> {
        let name = label.get(1..).unwrap_or_default();
        if self.namespaces.contains_key(name) { Found::NoData } else { Found::NoName }
    }

    /// Below `pod`: `1-2-3-4.NAMESPACE.pod`, `fd00--1.NAMESPACE.pod`, any address of a namespace that
    /// exists, or that a pod in it has.
    pub(super) fn lookup_pod(&self, name: &LowerName, pod: usize, qtype: u16) -> Found<'_> {
        match pod {
            0 => Found::NoData,
            1 => self.namespace(name.span(0, 1)),
            2 if self.namespaces.contains_key(name.label(1)) => {
                match dashed::address(name.label(0)) {
                    Some(address) if !self.may_be_pod(address, name.label(1)) => self.no_pod(),
                    Some(address) if qtype == rtype_of(&address) => Found::Pod(address),
                    Some(_) => Found::NoData,
                    None => Found::NoName,
                }
            }
            _ => Found::NoName,
        }
    }

    fn may_be_pod(&self, address: IpAddr, namespace: &[u8]) -> bool {
        self.origin.pods == Pods::Insecure || self.pods.has(address, namespace)
    }

    /// Pods are not kept over a restart: only those of this run can be denied.
    fn no_pod(&self) -> Found<'_> {
        if self.known == Known::Kept { Found::NotSynced } else { Found::NoName }
    }

    /// `ns.dns`, which SOA and NS records speak of: the DNS Service's addresses.
    fn lookup_server(&self, name: &LowerName, dns: usize, qtype: u16) -> Found<'_> {
        let is_address = matches!(qtype, rtype::A | rtype::AAAA);
        match (dns, self.dns_service()) {
            (0, _) => Found::NoData,
            (1, Some(service)) if name.label(0) == b"ns" && is_address => service.at_own(qtype),
            (1, _) if name.label(0) == b"ns" => Found::NoData,
            _ => Found::NoName,
        }
    }

    pub(super) fn dns_service(&self) -> Option<&ServiceNames> {
        let (service, namespace) = DNS_SERVICE_LABELS;
        let mut known = self.services.find(DNS_SERVICE);
        known.find(|names| names.is_of(service, namespace) && !names.cluster_ips().is_empty())
    }

    /// Names of an address: a Service's own has that Service's name and no other, as CoreDNS has it.
    pub(crate) fn pointers(&self, address: IpAddr) -> impl Iterator<Item = &Pointer> {
        let all = move || {
            self.reverse.find(&address).filter(move |pointer| pointer.address() == Some(address))
        };
        let is_own = all().next().is_some_and(Pointer::is_own);
        all().take(if is_own { 1 } else { usize::MAX })
    }

    fn lookup_address(&self, name: &LowerName, address: Option<IpAddr>, qtype: u16) -> Found<'_> {
        let known = address.filter(|address| self.pointers(*address).next().is_some());
        match known {
            Some(address) if qtype == rtype::PTR => Found::Pointers(address),
            Some(_) => Found::NoData,
            None if self.known == Known::Nothing => Found::NotSynced,
            // An upstream may know it: nodes, addresses outside the cluster.
            None if self.origin.misses.pass_on(name) => Found::Outside,
            None => Found::NoName,
        }
    }
}

pub(super) fn one_of(set: &RrSet, qtype: u16) -> Found<'_> {
    if set.rtype == qtype { Found::Records(set) } else { Found::NoData }
}

/// The record type of an address.
pub(crate) fn rtype_of(address: &IpAddr) -> u16 {
    if address.is_ipv4() { rtype::A } else { rtype::AAAA }
}
