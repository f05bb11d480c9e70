//! Resolves one name: by the zone, along aliases, at the upstreams.

use std::{net::IpAddr, sync::Arc};

use hickory_proto::{
    op::{LowerQuery, Message, Metadata, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{CNAME, HINFO, opt::EdnsCode},
    },
    serialize::binary::{BinDecodable, BinDecoder, BinEncodable},
};
use hickory_server::{net::xfer::Protocol, server::Request};
use ipnetwork::IpNetwork;

use super::{
    Asked, SlowPath,
    asking::{Wanted, site_limit, wishes},
    message::{Sections, error, reply},
    upstreams::Wishes,
    walk::Reached,
};
use crate::{
    answer::{Manner, Outcome, answer, rotation},
    corefile::AclAction,
    counters::{Counters, Plugin},
    hosts::HostAnswer,
    plugins::{External, Seen, turn, whoami},
    policy::{Asking, Policy, Site},
    wire::{
        CLASS_IN, HEADER_BYTES,
        name::{LowerName, WireName},
        question::{Edns, Question},
        rcode,
        record::RrSet,
        reply::{Flags, Reply},
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
    by: Plugin,
}

/// What becomes of a query.
#[derive(Debug)]
pub(super) enum Resolution {
    /// This, and who made it; `None` if it could not be encoded.
    Reply(Option<Vec<u8>>, Plugin),
    /// Policy says: nothing.
    Drop,
}

/// What a query is resolved with: one state of everything from beginning to end.
pub(super) struct Course<'c> {
    pub(super) policy: &'c Policy,
    pub(super) zone: &'c Zone,
    pub(super) request: &'c Request,
    pub(super) group: usize,
    /// The network of the client that upstreams are told.
    pub(super) subnet: Option<IpNetwork>,
    pub(super) counters: &'c Arc<Counters>,
}

impl SlowPath {
    /// The reply to a query for one name.
    pub(super) async fn resolve(&self, course: &Course<'_>, asked: Asked<'_>) -> Resolution {
        let request = course.request;
        let Some((query, plain)) = seen(request) else {
            return Resolution::Reply(None, Plugin::None);
        };
        let Some(site) = course.policy.site(asked.group, asked.asking(&plain)) else {
            let reply = error(request, ResponseCode::Refused, false);
            return Resolution::Reply(reply, Plugin::None);
        };
        if let Some(resolution) = refused(request, site, asked.source.ip(), &plain) {
            return resolution;
        }
        match &site.plugins {
            Some(plugins) => self.wrapped(course, (site, plugins), asked).await,
            None => self.answered(course, site, (&query, &plain), asked.transport).await,
        }
    }

    /// The reply to a question as it is, if it is of a class that is served.
    pub(super) async fn answered(
        &self,
        course: &Course<'_>,
        site: &Site,
        (query, plain): (&[u8], &Question),
        transport: Protocol,
    ) -> Resolution {
        let class = course.request.queries.queries().first().map(LowerQuery::query_class);
        if class == Some(DNSClass::IN) {
            let first = self.found(course, site, (query, plain), transport).await;
            let (reply, by) = self.walked(course, site, plain, transport, first).await;
            return Resolution::Reply(reply, by);
        }
        let refusal = error(course.request, ResponseCode::Refused, site.has_upstreams());
        Resolution::Reply(refusal, Plugin::None)
    }

    /// The reply to a question of class IN, by a server block.
    pub(super) async fn found(
        &self,
        course: &Course<'_>,
        site: &Site,
        (query, plain): (&[u8], &Question),
        transport: Protocol,
    ) -> Reached {
        let Some(question) = course.request.queries.queries().first() else {
            return (None, Plugin::None);
        };
        let (name, qtype) = (question.original().name().clone(), question.query_type());
        let tells_who = site.plugins.as_ref().is_some_and(|all| all.whoami)
            && site.forward(&plain.name).is_none();
        let is_external = external(site, &plain.name).is_some();
        let is_made = is_external
            || site.plugins.as_ref().is_some_and(|all| all.makes(&plain.name, plain.qtype));
        if !is_made && let Some((reply, by)) = course.at_hand(site, plain, query, transport) {
            return (Some(reply), by);
        }
        // An amplifier's favourite; nobody needs it (RFC 8482 §4.2).
        if qtype == RecordType::ANY && !is_made {
            return (any(course.request, site, &name), Plugin::Any);
        }
        match self.follow(course, site, name.clone()).await {
            Ok(Resolved { metadata, mut sections, by }) => {
                turn(&mut sections.answers, course.rotation(site));
                (reply(course.request, metadata, &sections), by)
            }
            Err(ResponseCode::Refused) if tells_who => (who(course.request, &name), Plugin::Whoami),
            Err(code) => (error(course.request, code, site.has_upstreams()), Plugin::None),
        }
    }

    /// Follows aliases of the zone to their end, in the zone or at the upstreams.
    async fn follow(
        &self,
        course: &Course<'_>,
        first: &Site,
        mut name: Name,
    ) -> Result<Resolved, ResponseCode> {
        let Course { policy, zone, request, group, .. } = *course;
        let qtype = request.queries.queries().first().map_or(RecordType::A, LowerQuery::query_type);
        let mut aliases = vec![];
        while aliases.len() <= ALIASES_MAX {
            let (query, question) = plain(request, &name, qtype).ok_or(ResponseCode::ServFail)?;
            // An alias' target may be another server block's, as in CoreDNS.
            let site = match aliases.is_empty() {
                true => first,
                false => policy
                    .site(group, course.asking(&question, &query))
                    .ok_or(ResponseCode::Refused)?,
            };
            if let Some(made) = course.made(site, &question) {
                let (mut made, by) = made?;
                if by == Plugin::External {
                    let its_own = made.answers.iter_mut().filter(|record| record.name == name);
                    // In the client's letter case: resolvers that mix it compare.
                    its_own.for_each(|record| record.name = name.clone());
                }
                let target = alias_target(&made, qtype);
                aliases.append(&mut made.answers);
                match target {
                    Some(target) => name = target,
                    None => {
                        let made = (made, by);
                        return Ok(join(request, first.has_upstreams(), aliases, made));
                    }
                }
                continue;
            }
            let found = match zone.lookup(&question.name, qtype.into()).0 {
                Found::Alias(target) if site.kubernetes => {
                    let target = read_name(target)?;
                    let data = RData::CNAME(CNAME(target.clone()));
                    aliases.push(Record::from_rdata(name, zone.ttl_seconds(), data));
                    name = target;
                    continue;
                }
                found => match course.target_in_hosts(site, &question, &query) {
                    Some(answer) => (answer?, Plugin::Hosts),
                    None if site.kubernetes && !matches!(found, Found::Outside) => {
                        (at_target(zone, &question, &query)?, Plugin::Kubernetes)
                    }
                    None => {
                        let mut wishes = wishes(request);
                        wishes.flavour.subnet = course.subnet;
                        let lower = &question.name;
                        let wanted = Wanted { name: &name, lower, qtype, wishes };
                        self.ask(course, site, wanted).await?
                    }
                },
            };
            return Ok(join(request, first.has_upstreams(), aliases, found));
        }
        tracing::debug!(%name, "DNS: too many aliases");
        Err(ResponseCode::ServFail)
    }
}

impl<'c> Course<'c> {
    /// The same for another request.
    pub(super) fn with<'r>(&self, request: &'r Request) -> Course<'r>
    where
        'c: 'r,
    {
        Course { request, ..*self }
    }

    /// See [`rotation`]; 0 without `loadbalance`.
    fn rotation(&self, site: &Site) -> usize {
        if site.rotate { rotation(self.request.metadata.id.into()) } else { 0 }
    }

    /// What the server block of another question of this client is chosen by.
    pub(super) fn asking<'q>(&self, question: &'q Question, query: &'q [u8]) -> Asking<'q> {
        let tcp = self.request.protocol() != Protocol::Udp;
        Asking { question, query, source: self.request.src(), tcp }
    }

    /// What a template, or the names outside of the cluster, make of a question.
    fn made(
        &self,
        site: &Site,
        question: &Question,
    ) -> Option<Result<(Message, Plugin), ResponseCode>> {
        let (name, qtype, source) = (&question.name, question.qtype, self.request.src().ip());
        if let Some(made) = site.plugins.as_ref()?.make(Seen { name, qtype, source }) {
            return Some(made.map(|message| (message, Plugin::Template)));
        }
        let made = external(site, name)?.make(self.zone, name, qtype)?;
        Some(made.map(|message| (message, Plugin::External)))
    }

    /// What hosts or the zone say, without asking anyone.
    fn at_hand(
        &self,
        site: &Site,
        question: &Question,
        query: &[u8],
        transport: Protocol,
    ) -> Option<(Vec<u8>, Plugin)> {
        let limit = match transport {
            Protocol::Udp => question.udp_reply_bytes_max().min(site.udp_bytes_max),
            _ => usize::from(site_limit(self.request, site)),
        };
        let mut buffer = vec![0; limit];
        let (recursion_available, rotation) = (site.has_upstreams(), self.rotation(site));
        let manner = Manner { limit, recursion_available, rotation };
        let (bytes, by) = match in_hosts(site, question, query, &mut buffer, manner) {
            Some(bytes) => (bytes, Plugin::Hosts),
            None if site.kubernetes => {
                match answer(self.zone, question, query, &mut buffer, manner) {
                    Outcome::Reply(made) => (made.bytes, made.by),
                    _ => return None,
                }
            }
            None => return None,
        };
        buffer.truncate(bytes);
        Some((buffer, by))
    }

    fn target_in_hosts(
        &self,
        site: &Site,
        question: &Question,
        query: &[u8],
    ) -> Option<Result<Message, ResponseCode>> {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        let manner = Manner { limit: buffer.len(), recursion_available: true, rotation: 0 };
        let bytes = in_hosts(site, question, query, &mut buffer, manner)?;
        buffer.truncate(bytes);
        Some(Message::from_vec(&buffer).map_err(|_| ResponseCode::ServFail))
    }
}

/// Who answers a name outside of the cluster; `hosts` goes before.
fn external<'s>(site: &'s Site, name: &LowerName) -> Option<&'s External> {
    let external = site.plugins.as_ref()?.external.as_ref()?;
    (external.holds(name) && !site.hosts_first(name)).then_some(external)
}

/// A request's question in plain form, of class IN whatever its class is.
pub(super) fn seen(request: &Request) -> Option<(Vec<u8>, Question)> {
    let asked = request.queries.queries().first()?;
    let (query, mut question) = plain(request, asked.original().name(), asked.query_type())?;
    question.edns = request.edns.as_ref().map(|edns| Edns {
        payload_bytes: edns.max_payload(),
        dnssec_ok: edns.flags().dnssec_ok,
        nsid: edns.option(EdnsCode::NSID).is_some(),
    });
    Some((query, question))
}

/// A question of nothing but a name and type, with a request's flags.
fn plain(request: &Request, name: &Name, qtype: RecordType) -> Option<(Vec<u8>, Question)> {
    let wire = name.to_bytes().ok()?;
    let query = plain_query(request.metadata.id, wishes(request), &wire, qtype);
    let mut question = Question::new();
    let name_bytes = question.name.read(&wire)?;
    question.qtype = qtype.into();
    question.end = HEADER_BYTES + name_bytes + 4;
    Some((query, question))
}

/// `whoami`'s reply.
fn who(request: &Request, name: &Name) -> Option<Vec<u8>> {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.authoritative = true;
    let sections = Sections { additionals: whoami(request, name), ..Sections::default() };
    reply(request, metadata, &sections)
}

/// What `acl` makes of a question that it does not allow.
pub(super) fn refused(
    request: &Request,
    site: &Site,
    source: IpAddr,
    question: &Question,
) -> Option<Resolution> {
    let code = match site.verdict(source, &question.name, question.qtype) {
        AclAction::Allow => return None,
        AclAction::Drop => return Some(Resolution::Drop),
        AclAction::Block => ResponseCode::Refused,
        AclAction::Filter => ResponseCode::NoError,
    };
    Some(Resolution::Reply(error(request, code, site.has_upstreams()), Plugin::Acl))
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

/// The reply `hosts` has; `None` if it passes the question on.
pub(crate) fn in_hosts(
    site: &Site,
    question: &Question,
    query: &[u8],
    buffer: &mut [u8],
    manner: Manner,
) -> Option<usize> {
    let hosts = site.hosts.as_ref()?;
    let (set, code): (Option<RrSet>, u8) = match hosts.answer(&question.name, question.qtype) {
        HostAnswer::Records(set) => (Some(set), rcode::NO_ERROR),
        HostAnswer::NoData => (None, rcode::NO_ERROR),
        HostAnswer::NoName => (None, rcode::NO_SUCH_NAME),
        HostAnswer::PassOn => return None,
    };
    let mut reply = Reply::begin(buffer, manner.limit, query, question)?;
    if let Some(set) = set {
        reply.answer_set(&set, manner.rotation);
    }
    let flags = Flags { authoritative: true, recursion_available: manner.recursion_available };
    Some(reply.finish(question, code, flags))
}

/// The zone's answer for an alias' target, as records.
fn at_target(zone: &Zone, question: &Question, query: &[u8]) -> Result<Message, ResponseCode> {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let manner = Manner { limit: buffer.len(), recursion_available: true, rotation: 0 };
    match answer(zone, question, query, &mut buffer, manner) {
        Outcome::Reply(made) => {
            buffer.truncate(made.bytes);
            Message::from_vec(&buffer).map_err(|_| ResponseCode::ServFail)
        }
        _ => Err(ResponseCode::ServFail),
    }
}

fn any(request: &Request, site: &Site, name: &Name) -> Option<Vec<u8>> {
    let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
    let record = Record::from_rdata(name.clone(), ANY_TTL_SECONDS, data);
    let sections = Sections { answers: vec![record], ..Sections::default() };
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.recursion_available = site.has_upstreams();
    reply(request, metadata, &sections)
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

/// A query of nothing but its header and one uncompressed question.
pub(crate) fn plain_query(id: u16, wishes: Wishes, name: &[u8], qtype: RecordType) -> Vec<u8> {
    let [id_hi, id_lo] = id.to_be_bytes();
    let recursion = u8::from(wishes.recursion_desired);
    let checking_disabled = u8::from(wishes.flavour.checking_disabled) << 4;
    let authentic = u8::from(wishes.authentic_data) << 5;
    let flags = checking_disabled | authentic;
    let mut query = Vec::with_capacity(HEADER_BYTES + name.len() + 4);
    query.extend_from_slice(&[id_hi, id_lo, recursion, flags, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.extend_from_slice(name);
    query.extend_from_slice(&u16::from(qtype).to_be_bytes());
    query.extend_from_slice(&CLASS_IN.to_be_bytes());
    query
}

fn read_name(name: &WireName) -> Result<Name, ResponseCode> {
    Name::read(&mut BinDecoder::new(name.as_bytes())).map_err(|_| ResponseCode::ServFail)
}
