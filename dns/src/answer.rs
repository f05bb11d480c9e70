//! A plain question and the zone make a reply: the same for UDP, TCP and the slow path.

use std::net::Ipv4Addr;

use crate::{
    wire::{
        question::Question,
        rcode,
        record::FIXED_BYTES,
        reply::{Flags, Reply, record_head},
        rtype,
    },
    zone::{Zone, lookup::Found, reverse::Pointer},
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
    let mut record = [0; FIXED_BYTES + 4];
    let head = record_head(crate::wire::HEADER_BYTES, rtype::A, zone.ttl_seconds(), 4);
    let (place, data) = record.split_at_mut(FIXED_BYTES);
    place.copy_from_slice(&head);
    data.copy_from_slice(&address.octets());
    reply.answer(&record);
}

fn put_pointer(reply: &mut Reply<'_>, zone: &Zone, pointer: &Pointer) {
    let parts: [&[u8]; 3] = [&pointer.label, &pointer.service, zone.services_name()];
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let head = record_head(crate::wire::HEADER_BYTES, rtype::PTR, zone.ttl_seconds(), length);
    let mut record = [0; FIXED_BYTES + crate::wire::name::NAME_BYTES_MAX];
    let mut at = 0;
    for part in [&head[..]].into_iter().chain(parts) {
        let Some(place) = record.get_mut(at..at + part.len()) else { return };
        place.copy_from_slice(part);
        at += part.len();
    }
    reply.answer(record.get(..at).unwrap_or_default());
}
