//! Records made when they are asked for, of what the zone knows: straight into the reply.

use std::net::IpAddr;

use fairlead_state::model::Service;

use crate::{
    wire::{
        HEADER_BYTES,
        name::NAME_BYTES_MAX,
        question::Question,
        record::OWNER_IS_QUESTION,
        reply::{Reply, record_head},
        rtype,
    },
    zone::{
        Zone,
        endpoints::{Endpoints, Group, Target, distinct_addresses, distinct_ports},
        lookup::{Found, rtype_of},
        ports::{SeenPorts, distinct},
        reverse::Pointer,
        service::{Servers, Srv},
    },
};

/// A reply on its way, and what it replies to.
#[derive(Debug)]
pub(super) struct Records<'r, 'b> {
    pub(super) reply: &'r mut Reply<'b>,
    pub(super) zone: &'r Zone,
    pub(super) question: &'r Question,
    /// Which of several addresses comes first.
    pub(super) rotation: usize,
}

/// The name of a server: a label, if it is not empty, in front of a complete name.
#[derive(Clone, Copy)]
struct Server<'n> {
    label: &'n [u8],
    parent: &'n [u8],
}

impl Server<'_> {
    /// The length byte of the label, where there is one.
    fn length(&self) -> Option<u8> {
        u8::try_from(self.label.len()).ok().filter(|length| *length > 0)
    }

    fn bytes(&self) -> usize {
        usize::from(!self.label.is_empty()) + self.label.len() + self.parent.len()
    }
}

impl Records<'_, '_> {
    /// Puts the records there are; the rest of what can be found has none.
    pub(super) fn put(&mut self, found: &Found<'_>) {
        match found {
            Found::Records(set) => self.reply.answer_set(set, self.rotation),
            Found::Pod(address) => self.address(*address),
            Found::Own(addresses) => self.addresses(addresses.iter().copied()),
            Found::Endpoint(group) => self.addresses(distinct_addresses(group)),
            Found::Srv(srv) => self.srv(srv),
            Found::Pointers(address) => {
                let zone = self.zone;
                zone.pointers(*address).for_each(|pointer| self.pointer(pointer));
            }
            _ => {}
        }
    }

    fn head(&self, rtype: u16, data_bytes: usize) -> [u8; 12] {
        record_head(HEADER_BYTES, rtype, self.zone.ttl_seconds(), data_bytes)
    }

    /// Those of the type asked for, in turn.
    fn addresses(&mut self, addresses: impl Iterator<Item = IpAddr> + Clone) {
        let wanted = self.question.qtype;
        let of_type = addresses.filter(move |address| rtype_of(address) == wanted);
        let first = self.rotation % of_type.clone().count().max(1);
        let in_turn = of_type.clone().skip(first).chain(of_type.take(first));
        for address in in_turn {
            self.address(address);
            if self.reply.is_cut() {
                return;
            }
        }
    }

    fn address(&mut self, address: IpAddr) {
        let (octets, length) = octets(address);
        let head = self.head(rtype_of(&address), length);
        let mut record = [0; 12 + 16];
        let (front, back) = record.split_at_mut(head.len());
        front.copy_from_slice(&head);
        back.copy_from_slice(&octets);
        self.reply.answer(record.get(..head.len() + length).unwrap_or_default());
    }

    fn srv(&mut self, srv: &Srv<'_>) {
        let (name, question) = (self.question.name.as_bytes(), self.question);
        // Behind the labels of a port, or of a zone.
        let service_at = question.name.start(srv.ahead);
        let service = Server { label: &[], parent: name.get(service_at..).unwrap_or_default() };
        match srv.of {
            Servers::Own(at) => self.own(srv, at, service),
            Servers::Endpoints(all) => self.endpoints(srv, all, service.parent),
            Servers::Endpoint(all, group) => {
                let mut seen = SeenPorts::new();
                self.servers(srv, distinct_ports(all, group, None, &mut seen), service);
                self.additional(distinct_addresses(group), service);
            }
        }
    }

    fn own(&mut self, srv: &Srv<'_>, service: &Service, server: Server<'_>) {
        let wanted = |name: &str, protocol| srv.port.is_none_or(|port| port.is_of(name, protocol));
        let ports = service.ports.iter().filter(|port| wanted(&port.name, port.protocol));
        let mut seen = SeenPorts::new();
        self.servers(srv, distinct(ports.map(|port| port.port), &mut seen), server);
        self.additional(service.cluster_ips.iter().copied(), server);
    }

    fn endpoints(&mut self, srv: &Srv<'_>, all: &Endpoints, parent: &[u8]) {
        for group in all.groups_from(self.rotation) {
            with_label(group, |label| {
                let mut seen = SeenPorts::new();
                let ports = distinct_ports(all, group, srv.port, &mut seen);
                self.servers(srv, ports, Server { label, parent });
            });
            if self.reply.is_cut() {
                return;
            }
        }
        let serves = |target: &Target| {
            let mut ports = all.ports(target).iter();
            ports.any(|port| srv.port.is_none_or(|wanted| wanted.is_of(&port.name, port.protocol)))
        };
        for group in all.groups_from(self.rotation) {
            let same = group.chunk_by(|a, b| a.address == b.address);
            let serving = same.filter(|same| same.iter().any(serves));
            let addresses = serving.filter_map(|same| Some(same.first()?.address));
            let mut fits = true;
            with_label(group, |label| fits = self.additional(addresses, Server { label, parent }));
            if !fits {
                return;
            }
        }
    }

    /// A record for each port.
    fn servers(&mut self, srv: &Srv<'_>, ports: impl Iterator<Item = u16>, server: Server<'_>) {
        let head = self.head(rtype::SRV, 6 + server.bytes());
        let length = server.length();
        let mut scratch = Scratch::new();
        for port in ports {
            let data = [[0, 0], srv.weight.to_be_bytes(), port.to_be_bytes()];
            // The target is written out: RFC 2782 forbids to compress it.
            self.reply.answer(scratch.join(&[
                &head,
                data.as_flattened(),
                length.as_slice(),
                server.label,
                server.parent,
            ]));
            if self.reply.is_cut() {
                return;
            }
        }
    }

    /// Addresses of a server; false if one had no room.
    fn additional(&mut self, addresses: impl Iterator<Item = IpAddr>, server: Server<'_>) -> bool {
        let length = server.length();
        let mut scratch = Scratch::new();
        for address in addresses {
            let (octets, bytes) = octets(address);
            let data = octets.get(..bytes).unwrap_or_default();
            let head = self.head(rtype_of(&address), data.len());
            let after_owner = head.get(OWNER_IS_QUESTION.len()..).unwrap_or_default();
            let parts: [&[u8]; 5] =
                [length.as_slice(), server.label, server.parent, after_owner, data];
            if !self.reply.additional(scratch.join(&parts)) {
                return false;
            }
        }
        true
    }

    fn pointer(&mut self, pointer: &Pointer) {
        let label = pointer.label();
        let label = label.as_ref().map_or(&[][..], |label| label.as_bytes());
        let [service, namespace] = pointer.service();
        let parent = self.zone.services_name();
        let labels = [label, service, namespace];
        let lengths = labels.map(|label| u8::try_from(label.len()).ok().filter(|l| *l > 0));
        let [first, second, third] = lengths.each_ref().map(Option::as_slice);
        let names = [first, label, second, service, third, namespace, parent];
        let head = self.head(rtype::PTR, names.iter().map(|part| part.len()).sum());
        let [first, label, second, service, third, namespace, parent] = names;
        let mut scratch = Scratch::new();
        let parts: [&[u8]; 8] = [&head, first, label, second, service, third, namespace, parent];
        let bytes = scratch.join(&parts).len();
        // Length bytes are below 'A'.
        let name = scratch.0.get_mut(head.len()..bytes).unwrap_or_default();
        name.make_ascii_lowercase();
        self.reply.answer(scratch.0.get(..bytes).unwrap_or_default());
    }
}

fn with_label(group: Group<'_>, put: impl FnOnce(&[u8])) {
    if let Some(first) = group.first() {
        put(first.label().as_bytes());
    }
}

/// An address' bytes, and how many they are.
fn octets(address: IpAddr) -> ([u8; 16], usize) {
    match address {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            let [a, b, c, d, ..] = &mut octets;
            [*a, *b, *c, *d] = v4.octets();
            (octets, 4)
        }
        IpAddr::V6(v6) => (v6.octets(), 16),
    }
}

/// Room for one record.
struct Scratch([u8; NAME_BYTES_MAX + 32]);

impl Scratch {
    fn new() -> Self {
        Self([0; NAME_BYTES_MAX + 32])
    }

    /// The parts in a row; nothing if they have no room.
    fn join(&mut self, parts: &[&[u8]]) -> &[u8] {
        let mut at = 0;
        for part in parts {
            let Some(place) = self.0.get_mut(at..at + part.len()) else { return &[] };
            place.copy_from_slice(part);
            at += part.len();
        }
        self.0.get(..at).unwrap_or_default()
    }
}
