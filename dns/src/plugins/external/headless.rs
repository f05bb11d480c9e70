//! `headless` of `k8s_external`: ready endpoints of Services that have no address outside.

use std::collections::BTreeSet;

use fairlead_state::model::EndpointPort;
use hickory_proto::rr::{Name, RData, Record, rdata::SRV};

use super::{External, Seen, name};
use crate::{
    wire::{
        RECORDS_MAX,
        name::{LowerName, WireName, push_label},
        rtype,
    },
    zone::{Zone, endpoints::Target, service::srv_weight},
};

/// An endpoint, with the ports that are asked for; without any of one whose slice has none, as in CoreDNS,
/// where it has addresses and no SRV record.
pub(super) struct Server<'z> {
    target: &'z Target,
    ports: Vec<u16>,
}

/// What the labels in front of the Service, which is label `first`, stand for; `service` is its name.
pub(super) fn seen<'z>(
    names: &'z Zone,
    asked: &LowerName,
    first: usize,
    service: WireName,
) -> Seen<'z> {
    let Some((is_headless, endpoints)) = names.endpoints_of(asked, first) else {
        return Seen::NoName;
    };
    let is_of = |port: &EndpointPort, protocol: &[u8]| {
        !port.name.is_empty()
            && protocol.strip_prefix(b"_") == Some(port.protocol.as_str().as_bytes())
    };
    let is_wanted = |port: &EndpointPort| {
        first < 2 || {
            let name = asked.label(0).strip_prefix(b"_");
            name.is_some_and(|name| port.name.as_bytes().eq_ignore_ascii_case(name))
                && is_of(port, asked.label(1))
        }
    };
    let all = || endpoints.groups().flatten();
    let targets: Vec<&Target> = match first {
        // An endpoint has a name whatever its Service is.
        1 => endpoints.group(asked.label(0)).unwrap_or_default().iter().collect(),
        0 | 2 if is_headless => all().collect(),
        _ => vec![],
    };
    let server = |target| {
        let ports = endpoints.ports(target).iter().filter(|port| is_wanted(port));
        Server { target, ports: ports.map(|port| port.port).collect() }
    };
    let mut servers: Vec<_> = targets.into_iter().map(server).collect();
    let is_portless = |target| first < 2 && endpoints.ports(target).is_empty();
    servers.retain(|server| !server.ports.is_empty() || is_portless(server.target));
    if !servers.is_empty() {
        return Seen::Servers(servers, service);
    }
    let mut ports = all().flat_map(|target| endpoints.ports(target));
    match first == 1 && is_headless && ports.any(|port| is_of(port, asked.label(0))) {
        true => Seen::Bare,
        false => Seen::NoName,
    }
}

impl External {
    /// Answers, and additional records, at the name `owner` of endpoints of `service`.
    pub(super) fn of_servers(
        &self,
        owner: &Name,
        servers: &[Server<'_>],
        service: &WireName,
        qtype: u16,
    ) -> (Vec<Record>, Vec<Record>) {
        if qtype != rtype::SRV {
            let addresses: BTreeSet<_> = servers.iter().map(|at| at.target.address).collect();
            return (self.addresses(owner, addresses.iter(), qtype), vec![]);
        }
        let count = servers.iter().map(|server| server.ports.len().max(1)).sum();
        let weight = srv_weight(count).unwrap_or(1);
        let (mut known, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        let (mut answers, mut additionals) = (vec![], vec![]);
        for Server { target, ports } in servers {
            let label = target.label();
            let server = below(label.as_bytes(), service).filter(|_| !ports.is_empty());
            let Some(server) = server else { continue };
            for port in ports {
                if answers.len() < RECORDS_MAX && known.insert((label.as_bytes().to_vec(), *port)) {
                    let data = RData::SRV(SRV::new(0, weight, *port, server.clone()));
                    answers.push(Record::from_rdata(owner.clone(), self.ttl_seconds, data));
                }
            }
            let is_new = addresses.insert((label.as_bytes().to_vec(), target.address));
            if is_new && additionals.len() < RECORDS_MAX {
                additionals.push(self.address(&server, target.address));
            }
        }
        (answers, additionals)
    }
}

fn below(label: &[u8], service: &WireName) -> Option<Name> {
    let mut labels = vec![];
    push_label(&mut labels, label).ok()?;
    Some(name(&service.below(&labels).ok()?))
}
