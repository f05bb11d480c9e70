//! Aliases: what is at their end is asked for as the client itself would ask for it.
//!
//! The target goes the whole way from the choice of the server block on: its `view`, `acl`, `rewrite`
//! and all, whatever the block of the alias says. Else whoever may create a Service of type
//! ExternalName had a way around another block's policy.

use std::sync::atomic::Ordering;

use hickory_proto::{
    op::{LowerQuery, Message, Metadata, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
    serialize::binary::{BinDecodable, BinDecoder},
};
use hickory_server::server::Request;

use super::{
    Asked, SlowPath,
    asking::{Wanted, wishes},
    chain::{Course, Resolution},
    message::Sections,
    wrapped::{again, with_question},
};
use crate::{
    counters::Plugin,
    policy::Site,
    wire::{name::WireName, question::Question},
    zone::lookup::Found,
};

/// Aliases followed for one query.
pub(crate) const ALIASES_MAX: u8 = 10;

/// What resolving came to.
pub(super) struct Resolved {
    pub(super) metadata: Metadata,
    pub(super) sections: Sections,
    pub(super) by: Plugin,
}

/// What a plugin has made of a question, and which.
pub(super) type Made = Result<(Message, Plugin), ResponseCode>;

impl SlowPath {
    /// What was made of a question, or an alias of the zone, with what its target is answered; else
    /// what the upstreams say.
    pub(super) async fn follow(
        &self,
        course: &Course<'_>,
        site: &Site,
        asked: Asked<'_>,
        (name, plain): (&Name, &Question),
        made: Option<Made>,
    ) -> Result<Resolved, ResponseCode> {
        let Course { zone, request, .. } = *course;
        let qtype = request.queries.queries().first().map_or(RecordType::A, LowerQuery::query_type);
        let recursion_available = site.has_upstreams();
        let joined = |aliases, end| join(request, recursion_available, aliases, end);
        let (aliases, target, by) = match made {
            Some(made) => {
                let (mut made, by) = made?;
                if by == Plugin::External {
                    let its_own = made.answers.iter_mut().filter(|record| record.name == *name);
                    // In the client's letter case: resolvers that mix it compare.
                    its_own.for_each(|record| record.name = name.clone());
                }
                match alias_target(&made, qtype) {
                    Some(target) => (made.answers, target, by),
                    None => return Ok(joined(vec![], (made, by))),
                }
            }
            None => match zone.lookup(&plain.name, plain.qtype).0 {
                Found::Alias(target) if site.kubernetes => {
                    let target = read_name(target)?;
                    let data = RData::CNAME(CNAME(target.clone()));
                    let alias = Record::from_rdata(name.clone(), zone.ttl_seconds(), data);
                    (vec![alias], target, Plugin::Kubernetes)
                }
                _ => {
                    let mut wishes = wishes(request);
                    wishes.flavour.subnet = course.subnet;
                    let wanted = Wanted { name, lower: &plain.name, qtype, wishes };
                    return Ok(joined(vec![], self.ask(course, site, wanted).await?));
                }
            },
        };
        let course = Course { rotated: course.rotated || site.rotate, ..course.with(request) };
        let end = self.at_target(&course, asked, target, by).await?;
        Ok(joined(aliases, end))
    }

    /// What this client is answered to the same question for an alias' target.
    async fn at_target(
        &self,
        course: &Course<'_>,
        asked: Asked<'_>,
        target: Name,
        from: Plugin,
    ) -> Made {
        let aliases = asked.aliases + 1;
        if aliases > ALIASES_MAX || !course.may_ask_on() {
            tracing::debug!(%target, "DNS: too many aliases");
            return Err(ResponseCode::ServFail);
        }
        let qtype = course.request.queries.queries().first().map(LowerQuery::query_type);
        let query = qtype.and_then(|qtype| with_question(asked.query, target, qtype));
        let query = query.ok_or(ResponseCode::ServFail)?;
        let request = again(course.request, &query).ok_or(ResponseCode::ServFail)?;
        let asked = Asked { query: &query, aliases, ..asked };
        let (bytes, by) = match self.boxed(&course.within(&request), asked).await {
            Resolution::Reply(bytes, by) => (bytes.ok_or(ResponseCode::ServFail)?, by),
            // As CoreDNS' template: the alias is told, and nothing of where it leads.
            Resolution::Drop => return Ok((Message::query(), from)),
        };
        let end = Message::from_vec(&bytes).map_err(|_| ResponseCode::ServFail)?;
        match end.metadata.response_code {
            // Resolvers send it alone: it says nothing of the names on the way.
            ResponseCode::ServFail => Err(ResponseCode::ServFail),
            // A balancer's name is another's to answer for. Outside nobody asks on whom he finds refusing.
            ResponseCode::Refused if from == Plugin::External && by != Plugin::Acl => {
                Ok((Message::query(), from))
            }
            _ => Ok((end, by)),
        }
    }
}

impl Course<'_> {
    /// Whether one more question may be asked because of the client's; it is counted.
    pub(super) fn may_ask_on(&self) -> bool {
        let less = |left: u8| left.checked_sub(1);
        self.asks_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// Where an alias that answers a question for addresses leads.
fn alias_target(made: &Message, qtype: RecordType) -> Option<Name> {
    match &made.answers.last()?.data {
        RData::CNAME(CNAME(target)) if matches!(qtype, RecordType::A | RecordType::AAAA) => {
            Some(target.clone())
        }
        _ => None,
    }
}

/// Aliases, then what was found at their end. The response code is that of the last name (RFC 6604
/// §3).
fn join(
    request: &Request,
    recursion_available: bool,
    mut aliases: Vec<Record>,
    (found, by): (Message, Plugin),
) -> Resolved {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = found.metadata.response_code;
    // The flag speaks of the first owner in the answer (RFC 1035 §4.1.1).
    metadata.authoritative = !aliases.is_empty() || found.metadata.authoritative;
    metadata.recursion_available = recursion_available;
    // A part of what the client could take may have been cut already.
    metadata.truncation = !aliases.is_empty() && found.metadata.truncation;
    let wants_ad = request.metadata.authentic_data
        || request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    // RFC 6840 §5.8: only for those who show that they understand it; our own part is not signed.
    metadata.authentic_data = wants_ad && aliases.is_empty() && found.metadata.authentic_data;
    aliases.extend(found.answers);
    let sections = Sections {
        answers: aliases,
        authorities: found.authorities,
        additionals: found.additionals,
    };
    Resolved { metadata, sections, by }
}

fn read_name(name: &WireName) -> Result<Name, ResponseCode> {
    Name::read(&mut BinDecoder::new(name.as_bytes())).map_err(|_| ResponseCode::ServFail)
}
