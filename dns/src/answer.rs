//! A plain question and the zone make a reply: the same for UDP, TCP and the slow path.

use std::net::Ipv4Addr;

use crate::{
    wire::{
        HEADER_BYTES,
        name::NAME_BYTES_MAX,
        question::Question,
        rcode,
        record::OWNER_IS_QUESTION,
        reply::{Flags, Reply, record_head},
        rtype,
    },
    zone::{
        Zone,
        lookup::Found,
        reverse::Pointer,
        service::{Node, srv_weight},
    },
};

/// What became of a plain question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The reply is so many bytes long and has this response code.
    Reply(usize, u8),
    /// The slow path must look further: an alias, or a name that is not ours.
    Elsewhere,
}

/// How replies of this server are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Largest reply, in bytes.
    pub(crate) limit: usize,
    /// RA flag: there are upstreams to ask.
    pub(crate) recursion_available: bool,
    /// Which of several addresses comes first; changes with every query.
    pub(crate) rotation: usize,
}

/// Which address comes first in a thread's `turn`th reply. Turns are scattered, not counted
/// through: clients ask for A and AAAA in turn, so that each type would see every second rotation
/// only, and of two addresses always the same one.
pub(crate) fn rotation(turn: u32) -> usize {
    // Fibonacci hashing: the upper half of the product is spread evenly.
    let spread = u64::from(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(spread).unwrap_or(0)
}

/// Answers `query`, which `question` has read, into `buffer`.
pub(crate) fn answer(
    zone: &Zone,
    question: &Question,
    query: &[u8],
    buffer: &mut [u8],
    manner: Manner,
) -> Outcome {
    let (found, authority) = zone.lookup(&question.name, question.qtype);
    if matches!(found, Found::Alias(_) | Found::Outside) {
        return Outcome::Elsewhere;
    }
    let Some(mut reply) = Reply::begin(buffer, manner.limit, query, question) else {
        return Outcome::Elsewhere;
    };
    let mut code = rcode::NO_ERROR;
    match found {
        Found::Records(set) => reply.answer_set(set, manner.rotation),
        Found::Pod(address) => put_pod(&mut reply, zone, address),
        Found::Pointers(pointers) => pointers.iter().for_each(|p| put_pointer(&mut reply, zone, p)),
        Found::Endpoint(node, ports) => put_endpoint(&mut reply, zone, question, node, ports),
        Found::Soa => {
            authority.into_iter().for_each(|soa| soa.answer(&mut reply, &question.name));
        }
        Found::NoData | Found::NoName | Found::NotSynced => {
            code = match found {
                Found::NoName => rcode::NO_SUCH_NAME,
                Found::NotSynced => rcode::SERVER_FAILURE,
                _ => rcode::NO_ERROR,
            };
            authority.into_iter().for_each(|soa| soa.deny(&mut reply, &question.name));
        }
        Found::Alias(_) | Found::Outside => return Outcome::Elsewhere,
    }
    let flags = Flags { authoritative: true, recursion_available: manner.recursion_available };
    Outcome::Reply(reply.finish(question, code, flags), code)
}

fn put_pod(reply: &mut Reply<'_>, zone: &Zone, address: Ipv4Addr) {
    let head = record_head(HEADER_BYTES, rtype::A, zone.ttl_seconds(), 4);
    reply.answer(Scratch::new().join(&[&head, &address.octets()]));
}

fn put_pointer(reply: &mut Reply<'_>, zone: &Zone, pointer: &Pointer) {
    let target: [&[u8]; 3] = [&pointer.label, &pointer.service, zone.services_name()];
    let length = target.iter().map(|part| part.len()).sum();
    let head = record_head(HEADER_BYTES, rtype::PTR, zone.ttl_seconds(), length);
    let [label, service, parent] = target;
    reply.answer(Scratch::new().join(&[&head, label, service, parent]));
}

/// SRV records of an endpoint's own name, and its addresses.
fn put_endpoint(
    reply: &mut Reply<'_>,
    zone: &Zone,
    question: &Question,
    node: &Node,
    ports: &[u16],
) {
    let target = question.name.as_bytes();
    let sets = [rtype::A, rtype::AAAA].map(|rtype| node.set(rtype));
    let addresses = || sets.iter().flatten().flat_map(|set| set.slots());
    let weight = srv_weight(ports.len() * addresses().count()).unwrap_or(1).to_be_bytes();
    let head = record_head(HEADER_BYTES, rtype::SRV, zone.ttl_seconds(), 6 + target.len());
    for port in ports {
        let data = [[0, 0], weight, port.to_be_bytes()];
        // The target is written out: RFC 2782 forbids to compress it.
        reply.answer(Scratch::new().join(&[&head, data.as_flattened(), target]));
    }
    for slot in addresses() {
        let after_owner = slot.get(OWNER_IS_QUESTION.len()..).unwrap_or_default();
        reply.additional(Scratch::new().join(&[target, after_owner]));
    }
}

/// Room for one record made while answering.
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
