//! Resolves one name: by the zone, along aliases, at the upstreams.

use std::sync::atomic::Ordering;

use hickory_proto::{
    op::{LowerQuery, Message, Metadata, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, HINFO},
    },
    serialize::binary::{BinDecodable, BinDecoder, BinEncodable},
};
use hickory_server::{net::xfer::Protocol, server::Request};

use super::{
    SlowPath,
    message::{Sections, error, reply, reply_bytes_max},
};
use crate::{
    answer::{Manner, Outcome, answer, rotation},
    counters::Counters,
    wire::{
        CLASS_IN, HEADER_BYTES,
        name::WireName,
        question::{Edns, Question, Shape},
    },
    zone::{Zone, lookup::Found},
};

/// Aliases followed for one query, as CoreDNS.
const ALIASES_MAX: usize = 10;
/// TTL of the answer to ANY for names that are not ours, in seconds: it never changes.
const ANY_TTL_SECONDS: u32 = 8482;

/// What resolving came to.
struct Resolved {
    metadata: Metadata,
    sections: Sections,
}

impl SlowPath {
    /// The reply to a query for one IN name.
    pub(super) async fn resolve(
        &self,
        request: &Request,
        transport: Protocol,
        counters: &Counters,
    ) -> Option<Vec<u8>> {
        let zone = self.0.zone.load_full();
        let asked = request.queries.queries().first()?.original().clone();
        let query = plain_query(request, &asked.name().to_bytes().ok()?, asked.query_type());
        if let Some(reply) = self.ask_zone(&zone, request, &query, transport) {
            return Some(reply);
        }
        // An amplifier's favourite; nobody needs it (RFC 8482 §4.2).
        if asked.query_type() == RecordType::ANY {
            return self.any(request, asked.name());
        }
        match self.follow(&zone, request, asked.name().clone(), counters).await {
            Ok(Resolved { metadata, sections }) => reply(request, metadata, &sections),
            Err(code) => error(request, code, self.has_upstreams()),
        }
    }

    /// The zone's own answer to a plain form of the query.
    fn ask_zone(
        &self,
        zone: &Zone,
        request: &Request,
        query: &[u8],
        transport: Protocol,
    ) -> Option<Vec<u8>> {
        let mut question = Question::new();
        if question.read(query) != Shape::Plain {
            return None;
        }
        question.edns = request.edns.as_ref().map(|edns| Edns {
            payload_bytes: edns.max_payload(),
            dnssec_ok: edns.flags().dnssec_ok,
        });
        let limit = match transport {
            Protocol::Udp => question.udp_reply_bytes_max(),
            _ => usize::from(reply_bytes_max(request)),
        };
        let mut buffer = vec![0; limit];
        let manner = Manner {
            limit,
            recursion_available: self.has_upstreams(),
            rotation: rotation(request.metadata.id.into()),
        };
        match answer(zone, &question, query, &mut buffer, manner) {
            Outcome::Reply(bytes, _) => {
                buffer.truncate(bytes);
                Some(buffer)
            }
            Outcome::Elsewhere => None,
        }
    }

    /// Follows aliases of the zone to their end, in the zone or at the upstreams.
    async fn follow(
        &self,
        zone: &Zone,
        request: &Request,
        mut name: Name,
        counters: &Counters,
    ) -> Result<Resolved, ResponseCode> {
        let qtype = request.queries.queries().first().map_or(RecordType::A, LowerQuery::query_type);
        let mut aliases = vec![];
        while aliases.len() <= ALIASES_MAX {
            let wire = name.to_bytes().map_err(|_| ResponseCode::ServFail)?;
            let query = plain_query(request, &wire, qtype);
            let mut question = Question::new();
            question.read(&query);
            let found = match zone.lookup(&question.name, qtype.into()).0 {
                Found::Alias(target) => {
                    let target = read_name(target)?;
                    let data = RData::CNAME(CNAME(target.clone()));
                    aliases.push(Record::from_rdata(name, zone.ttl_seconds(), data));
                    name = target;
                    continue;
                }
                Found::Outside => {
                    self.0.upstreams.reread_if_none();
                    if !self.has_upstreams() {
                        return Err(ResponseCode::Refused);
                    }
                    counters.forwarded.fetch_add(1, Ordering::Relaxed);
                    self.0.upstreams.ask(request, name, qtype).await?
                }
                _ => self.at_target(zone, &question, &query)?,
            };
            return Ok(self.join(request, aliases, found));
        }
        tracing::debug!(%name, "DNS: too many aliases");
        Err(ResponseCode::ServFail)
    }

    /// The zone's answer for an alias' target, as records.
    fn at_target(
        &self,
        zone: &Zone,
        question: &Question,
        query: &[u8],
    ) -> Result<Message, ResponseCode> {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        let manner = Manner { limit: buffer.len(), recursion_available: true, rotation: 0 };
        match answer(zone, question, query, &mut buffer, manner) {
            Outcome::Reply(bytes, _) => {
                buffer.truncate(bytes);
                Message::from_vec(&buffer).map_err(|_| ResponseCode::ServFail)
            }
            Outcome::Elsewhere => Err(ResponseCode::ServFail),
        }
    }

    fn any(&self, request: &Request, name: &Name) -> Option<Vec<u8>> {
        let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
        let record = Record::from_rdata(name.clone(), ANY_TTL_SECONDS, data);
        let sections = Sections { answers: vec![record], ..Sections::default() };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = self.has_upstreams();
        reply(request, metadata, &sections)
    }

    /// Aliases, then what was found at their end. The response code is that of the last name (RFC
    /// 6604 §3).
    fn join(&self, request: &Request, mut aliases: Vec<Record>, found: Message) -> Resolved {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = found.metadata.response_code;
        // The flag speaks of the first owner in the answer (RFC 1035 §4.1.1).
        metadata.authoritative = !aliases.is_empty() || found.metadata.authoritative;
        metadata.recursion_available = self.has_upstreams();
        let wants_ad = request.metadata.authentic_data
            || request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        // RFC 6840 §5.8: only for those who show that they understand it; our own part is not
        // signed.
        metadata.authentic_data = wants_ad && aliases.is_empty() && found.metadata.authentic_data;
        aliases.extend(found.answers);
        let sections = Sections {
            answers: aliases,
            authorities: found.authorities,
            additionals: found.additionals,
        };
        Resolved { metadata, sections }
    }
}

/// The query with nothing but its header and one uncompressed question.
fn plain_query(request: &Request, name: &[u8], qtype: RecordType) -> Vec<u8> {
    let [id_hi, id_lo] = request.metadata.id.to_be_bytes();
    let recursion = u8::from(request.metadata.recursion_desired);
    let checking_disabled = u8::from(request.metadata.checking_disabled) << 4;
    let mut query = Vec::with_capacity(HEADER_BYTES + name.len() + 4);
    query.extend_from_slice(&[id_hi, id_lo, recursion, checking_disabled, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.extend_from_slice(name);
    query.extend_from_slice(&u16::from(qtype).to_be_bytes());
    query.extend_from_slice(&CLASS_IN.to_be_bytes());
    query
}

fn read_name(name: &WireName) -> Result<Name, ResponseCode> {
    Name::read(&mut BinDecoder::new(name.as_bytes())).map_err(|_| ResponseCode::ServFail)
}
