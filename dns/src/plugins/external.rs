//! `k8s_external`: Services by their addresses outside of the cluster.

mod headless;

use std::net::IpAddr;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, AAAA, CNAME, NS, SOA, SRV},
    },
    serialize::binary::{BinDecodable, BinDecoder},
};

use crate::{
    corefile::ExternalOptions,
    error::DnsError,
    policy::{Misses, ZoneName},
    wire::{
        name::{LowerName, WireName},
        rtype,
    },
    zone::{
        Zone,
        outside::{Outside, OutsidePort},
        service::srv_weight,
    },
};

/// SOA timers, as CoreDNS'.
const REFRESH_SECONDS: i32 = 7200;
const RETRY_SECONDS: i32 = 1800;
const EXPIRE_SECONDS: i32 = 86400;

/// One server block's.
#[derive(Debug)]
pub(crate) struct External {
    /// The longest first.
    zones: Vec<ExternalZone>,
    apex: Box<[u8]>,
    ttl_seconds: u32,
    /// Endpoints of Services without addresses outside have names, too.
    headless: bool,
    misses: Misses,
}

#[derive(Debug)]
struct ExternalZone {
    zone: ZoneName,
    name: Name,
    /// `ns1.dns` below it.
    server: Name,
    /// `hostmaster.dns` below it.
    mailbox: Name,
}

/// What a name is.
enum Seen<'z> {
    /// Records of these addresses, and of these ports at a Service's name.
    Service(&'z Outside, Vec<&'z OutsidePort>, Name),
    /// Records of these endpoints of the Service of this name.
    Servers(Vec<headless::Server<'z>>, WireName),
    /// The name server's addresses.
    Server(Option<&'z Outside>),
    Apex,
    /// It exists and has no records.
    Bare,
    NoName,
}

impl External {
    pub(crate) fn new(options: &ExternalOptions) -> Result<Self, DnsError> {
        let zone = |text: &String| {
            let zone = ZoneName::new(text)?;
            let below = |label: &str| match zone.labels {
                0 => ZoneName::new(&format!("{label}.{}", options.apex)),
                _ => ZoneName::new(&format!("{label}.{}.{text}", options.apex)),
            };
            Ok(ExternalZone {
                name: name(&zone.name),
                server: name(&below("ns1")?.name),
                mailbox: name(&below("hostmaster")?.name),
                zone,
            })
        };
        let mut zones: Vec<_> = options.zones.iter().map(zone).collect::<Result<_, DnsError>>()?;
        zones.sort_by_key(|zone| std::cmp::Reverse(zone.zone.labels));
        Ok(Self {
            zones,
            apex: options.apex.as_bytes().into(),
            ttl_seconds: options.ttl_seconds,
            headless: options.headless,
            misses: Misses::new(&options.fallthrough)?,
        })
    }

    /// Whether a name is in one of the zones.
    pub(crate) fn holds(&self, name: &LowerName) -> bool {
        self.zones.iter().any(|zone| zone.zone.holds(name))
    }

    /// The answer; `None`: the next plugin is asked.
    pub(crate) fn make(
        &self,
        names: &Zone,
        asked: &LowerName,
        qtype: u16,
    ) -> Option<Result<Message, ResponseCode>> {
        let at = self.zones.iter().find(|zone| zone.zone.holds(asked))?;
        let below = asked.labels_below(&at.zone.name, at.zone.labels)?;
        let owner = Name::read(&mut BinDecoder::new(asked.as_bytes())).ok()?;
        let seen = self.seen(names, asked, below, at);
        let mut message = Message::query();
        message.metadata.authoritative = true;
        match seen {
            Seen::NoName if self.misses.pass_on(asked) => return None,
            // Only a snapshot can deny it.
            Seen::NoName if !names.knows_outside() => return Some(Err(ResponseCode::ServFail)),
            Seen::NoName => message.metadata.response_code = ResponseCode::NXDomain,
            Seen::Apex if qtype == rtype::SOA => message.answers.push(self.soa(names, at)),
            Seen::Apex if qtype == rtype::NS => {
                let server = RData::NS(NS(at.server.clone()));
                message.answers.push(Record::from_rdata(owner, self.ttl_seconds, server));
                let addresses = names.dns_outside().into_iter().flat_map(|o| o.addresses.iter());
                message.additionals.extend(addresses.map(|ip| self.address(&at.server, *ip)));
            }
            Seen::Bare | Seen::Apex => {}
            Seen::Server(outside) => {
                let addresses = outside.into_iter().flat_map(|o| o.addresses.iter());
                message.answers = self.addresses(&owner, addresses, qtype);
            }
            Seen::Servers(servers, service) => {
                (message.answers, message.additionals) =
                    self.of_servers(&owner, &servers, &service, qtype);
            }
            Seen::Service(Outside { alias: Some(alias), .. }, ports, _) => {
                let target = name(alias);
                let alias = || RData::CNAME(CNAME(target.clone()));
                match qtype {
                    rtype::SRV => message.answers = self.services(&owner, &ports, 1, &target),
                    // Where it leads is looked up by who follows aliases.
                    rtype::A | rtype::AAAA | rtype::CNAME => {
                        message.answers.push(Record::from_rdata(owner, self.ttl_seconds, alias()));
                    }
                    _ => {}
                }
            }
            Seen::Service(outside, ports, target) if qtype == rtype::SRV => {
                message.answers = self.services(&owner, &ports, outside.addresses.len(), &target);
                let addresses = outside.addresses.iter();
                message.additionals = addresses.map(|ip| self.address(&target, *ip)).collect();
            }
            Seen::Service(outside, ..) => {
                message.answers = self.addresses(&owner, outside.addresses.iter(), qtype);
            }
        }
        if message.answers.is_empty() {
            message.authorities.push(self.soa(names, at));
        }
        Some(Ok(message))
    }

    fn seen<'z>(
        &self,
        names: &'z Zone,
        asked: &LowerName,
        below: usize,
        at: &ExternalZone,
    ) -> Seen<'z> {
        let Some(last) = below.checked_sub(1) else { return Seen::Apex };
        if asked.label(last) == &*self.apex {
            return match below {
                1 => Seen::Bare,
                2 if asked.label(0) == b"ns1" => Seen::Server(names.dns_outside().map(|o| &**o)),
                _ => Seen::NoName,
            };
        }
        let Some(first) = below.checked_sub(2) else {
            return if names.has_namespace(asked.label(last)) { Seen::Bare } else { Seen::NoName };
        };
        let key = asked.span(first, below);
        let Some(outside) = names.outside(key) else {
            let service = self.headless.then(|| at.zone.name.below(key).ok()).flatten();
            return match service {
                Some(service) => headless::seen(names, asked, first, service),
                None => Seen::NoName,
            };
        };
        let protocol = |port: &&OutsidePort, label: &[u8]| {
            label.strip_prefix(b"_") == Some(port.protocol.as_bytes())
        };
        let ports: Vec<_> = match first {
            0 => outside.ports.iter().collect(),
            1 => {
                let named = |port: &&OutsidePort| !port.name.is_empty();
                let mut ports = outside.ports.iter().filter(named);
                let is_there = ports.any(|port| protocol(&port, asked.label(0)));
                return if is_there { Seen::Bare } else { Seen::NoName };
            }
            2 => {
                let port = asked.label(0).strip_prefix(b"_").filter(|name| !name.is_empty());
                let fits = |port_at: &&OutsidePort| {
                    port == Some(port_at.name.as_bytes()) && protocol(port_at, asked.label(1))
                };
                outside.ports.iter().filter(fits).collect()
            }
            _ => vec![],
        };
        let target = at.zone.name.below(key).ok();
        match target {
            Some(target) if !ports.is_empty() => Seen::Service(outside, ports, name(&target)),
            _ => Seen::NoName,
        }
    }

    fn addresses<'a>(
        &self,
        owner: &Name,
        addresses: impl Iterator<Item = &'a IpAddr>,
        qtype: u16,
    ) -> Vec<Record> {
        let wanted = |ip: &&IpAddr| qtype == if ip.is_ipv4() { rtype::A } else { rtype::AAAA };
        addresses.filter(wanted).map(|ip| self.address(owner, *ip)).collect()
    }

    fn address(&self, owner: &Name, ip: IpAddr) -> Record {
        let data = match ip {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        };
        Record::from_rdata(owner.clone(), self.ttl_seconds, data)
    }

    /// One a port; weights share 100 among all addresses and ports.
    fn services(
        &self,
        owner: &Name,
        ports: &[&OutsidePort],
        targets: usize,
        target: &Name,
    ) -> Vec<Record> {
        let weight = srv_weight(ports.len() * targets).unwrap_or(1);
        let record = |port: &&OutsidePort| {
            let data = RData::SRV(SRV::new(0, weight, port.number, target.clone()));
            Record::from_rdata(owner.clone(), self.ttl_seconds, data)
        };
        ports.iter().map(record).collect()
    }

    fn soa(&self, names: &Zone, at: &ExternalZone) -> Record {
        let serial = names.revision().unwrap_or(0) & u64::from(u32::MAX);
        let soa = SOA::new(
            at.server.clone(),
            at.mailbox.clone(),
            u32::try_from(serial).unwrap_or(0),
            REFRESH_SECONDS,
            RETRY_SECONDS,
            EXPIRE_SECONDS,
            self.ttl_seconds,
        );
        Record::from_rdata(at.name.clone(), self.ttl_seconds, RData::SOA(soa))
    }
}

fn name(wire: &WireName) -> Name {
    Name::read(&mut BinDecoder::new(wire.as_bytes())).unwrap_or_default()
}
