//! What a name is: research of the live CoreDNS as a table stands in `tests/contract.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    DNS_SERVICE, Known, Zone,
    authority::Authority,
    reverse::Pointer,
    service::{More, Node, ServiceNames},
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
    /// Names of an address.
    Pointers(&'z [Pointer]),
    /// The zone's own SOA.
    Soa,
    /// SRV of an endpoint's own name: its ports.
    Endpoint(&'z Node, &'z [u16]),
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

impl Zone {
    /// Looks a name up. The authority is that of the zone the name is in.
    pub(crate) fn lookup(&self, name: &LowerName, qtype: u16) -> (Found<'_>, Option<&Authority>) {
        if let Some(below) = name.labels_below(&self.origin.name, self.origin.labels) {
            let found = match self.lookup_below(name, below, qtype) {
                // The API may know the name; only a snapshot can deny it (kubernetes/dns#186).
                Found::NoName if self.known == Known::Nothing => Found::NotSynced,
                Found::NoName if self.origin.misses.pass_on(name) => Found::Outside,
                found => found,
            };
            return (found, Some(&self.authority));
        }
        for (zone, authority) in self.origin.reverse.iter().zip(self.reverse_authorities.iter()) {
            if name.labels_below(&zone.name, zone.labels).is_some() {
                let address = zone.family.address(name);
                return (self.lookup_address(name, address, qtype), Some(authority));
            }
        }
        (Found::Outside, None)
    }

    /// `below` labels stand in front of the zone's name.
    fn lookup_below(&self, name: &LowerName, below: usize, qtype: u16) -> Found<'_> {
        let Some(last) = below.checked_sub(1) else { return self.apex(qtype) };
        match name.label(last) {
            b"svc" => self.lookup_service(name, last, qtype),
            b"pod" if self.origin.pods == Pods::Insecure => self.lookup_pod(name, last, qtype),
            b"dns-version" if last == 0 => one_of(&self.origin.version, qtype),
            b"dns" => self.lookup_server(name, last, qtype),
            _ => Found::NoName,
        }
    }

    fn apex(&self, qtype: u16) -> Found<'_> {
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
                let Some(service) = self.services.get(name.span(svc - 2, svc)) else {
                    return Found::NoName;
                };
                let node = match svc {
                    2 => Some(&service.node),
                    _ => service.below(name.span(0, svc - 2)),
                };
                node.map_or(Found::NoName, |node| at_node(node, qtype))
            }
        }
    }

    fn namespace(&self, label: &[u8]) -> Found<'_> {
        let name = label.get(1..).unwrap_or_default();
        if self.namespaces.contains_key(name) { Found::NoData } else { Found::NoName }
    }

    /// Below `pod`: `1-2-3-4.NAMESPACE.pod`, `fd00--1.NAMESPACE.pod`, any address of a namespace that
    /// exists.
    fn lookup_pod(&self, name: &LowerName, pod: usize, qtype: u16) -> Found<'_> {
        match pod {
            0 => Found::NoData,
            1 => self.namespace(name.span(0, 1)),
            2 if self.namespaces.contains_key(name.label(1)) => match pod_address(name.label(0)) {
                Some(address) if qtype == rtype_of(&address) => Found::Pod(address),
                Some(_) => Found::NoData,
                None => Found::NoName,
            },
            _ => Found::NoName,
        }
    }

    /// `ns.dns`, which SOA and NS records speak of: the DNS Service's addresses.
    fn lookup_server(&self, name: &LowerName, dns: usize, qtype: u16) -> Found<'_> {
        let is_address = matches!(qtype, rtype::A | rtype::AAAA);
        match (dns, self.dns_service()) {
            (0, _) => Found::NoData,
            (1, Some(service)) if name.label(0) == b"ns" && is_address => {
                at_node(&service.node, qtype)
            }
            (1, _) if name.label(0) == b"ns" => Found::NoData,
            _ => Found::NoName,
        }
    }

    pub(super) fn dns_service(&self) -> Option<&ServiceNames> {
        let service = self.services.get(DNS_SERVICE)?;
        (!service.cluster_ips.is_empty()).then_some(service)
    }

    fn lookup_address(&self, name: &LowerName, address: Option<IpAddr>, qtype: u16) -> Found<'_> {
        let pointers = address.and_then(|address| self.reverse.get(&address));
        match pointers {
            Some(pointers) if qtype == rtype::PTR => Found::Pointers(names_in_force(pointers)),
            Some(_) => Found::NoData,
            None if self.known == Known::Nothing => Found::NotSynced,
            // An upstream may know it: nodes, addresses outside the cluster.
            None if self.origin.misses.pass_on(name) => Found::Outside,
            None => Found::NoName,
        }
    }
}

/// A Service's own address has that Service's name and no other, as CoreDNS has it.
fn names_in_force(pointers: &[Pointer]) -> &[Pointer] {
    match pointers.first() {
        Some(first) if first.label.is_empty() => pointers.get(..1).unwrap_or_default(),
        _ => pointers,
    }
}

fn at_node(node: &Node, qtype: u16) -> Found<'_> {
    match (node.set(qtype), &node.more) {
        (Some(set), _) => Found::Records(set),
        (None, More::Alias(target)) => Found::Alias(target),
        (None, More::Ports(ports)) if qtype == rtype::SRV => Found::Endpoint(node, ports),
        (None, _) => Found::NoData,
    }
}

fn one_of(set: &RrSet, qtype: u16) -> Found<'_> {
    if set.rtype == qtype { Found::Records(set) } else { Found::NoData }
}

fn rtype_of(address: &IpAddr) -> u16 {
    if address.is_ipv4() { rtype::A } else { rtype::AAAA }
}

/// `1-2-3-4`, or an IPv6 address with its colons as dashes: `fd00--1`.
fn pod_address(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    if text.matches('-').count() == 3 && !text.contains("--") {
        return text.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    text.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}
