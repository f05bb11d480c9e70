//! Resolves one name: by a plugin, by the zone, at the upstreams.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicU8},
};

use hickory_proto::{
    op::{LowerQuery, Metadata, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{HINFO, opt::EdnsCode},
    },
    serialize::binary::BinEncodable,
};
use hickory_server::{net::xfer::Protocol, server::Request};
use ipnetwork::IpNetwork;

use super::{
    Asked, Place, SlowPath,
    alias::{Made, Resolved},
    asking::{site_limit, wishes},
    message::{Sections, error, reply, unserved},
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
        name::LowerName,
        question::{Edns, Question},
        rcode,
        record::RrSet,
        reply::{Flags, Reply},
        room::with_room,
    },
    zone::Zone,
};

/// TTL of the answer to ANY for names that are not ours, in seconds: it never changes.
const ANY_TTL_SECONDS: u32 = 8482;

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
    pub(super) place: &'c Place,
    pub(super) counters: &'c Arc<Counters>,
    /// The addresses will be put in turn where an alias to them was met.
    pub(super) rotated: bool,
    /// The reply becomes part of another one, which is what the client has to take.
    pub(super) is_inner: bool,
    /// How many more questions may be asked because of the client's.
    pub(super) asks_left: &'c AtomicU8,
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
        if let Some(code) = unserved(request) {
            return Resolution::Reply(error(request, code, site.has_upstreams()), Plugin::None);
        }
        match &site.plugins {
            Some(plugins) => self.wrapped(course, (site, plugins), asked).await,
            None => self.answered(course, site, (&query, &plain), asked).await,
        }
    }

    /// The reply to a question as it is, if it is of a class that is served.
    pub(super) async fn answered(
        &self,
        course: &Course<'_>,
        site: &Site,
        (query, plain): (&[u8], &Question),
        asked: Asked<'_>,
    ) -> Resolution {
        let class = course.request.queries.queries().first().map(LowerQuery::query_class);
        if class == Some(DNSClass::IN) {
            let first = self.found(course, site, (query, plain), asked).await;
            let (reply, by) = self.walked(course, site, plain, asked, first).await;
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
        asked: Asked<'_>,
    ) -> Reached {
        let Some(question) = course.request.queries.queries().first() else {
            return (None, Plugin::None);
        };
        let (name, qtype) = (question.original().name(), question.query_type());
        if qtype == RecordType::ANY && site.plugins.as_ref().is_some_and(|all| all.any) {
            return (any(course.request, site, name), Plugin::Any);
        }
        let tells_who = site.plugins.as_ref().is_some_and(|all| all.whoami)
            && site.forwards(&plain.name).next().is_none();
        let made = course.made(site, plain);
        if made.is_none() {
            if let Some((reply, by)) = course.at_hand(site, plain, query, asked.transport) {
                return (Some(reply), by);
            }
            // An amplifier's favourite; nobody needs it (RFC 8482 §4.2).
            if qtype == RecordType::ANY {
                return (any(course.request, site, name), Plugin::Any);
            }
        }
        match self.follow(course, site, asked, (name, plain), made).await {
            Ok(Resolved { metadata, mut sections, by }) => {
                turn(&mut sections.answers, course.rotation(site));
                if site.minimal {
                    sections.reduce(metadata.response_code);
                }
                (reply(course.request, metadata, &sections, course.limit(site)), by)
            }
            Err(ResponseCode::Refused) if tells_who => {
                (who(course.request, site, name), Plugin::Whoami)
            }
            Err(code) => (error(course.request, code, site.has_upstreams()), Plugin::None),
        }
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

    /// The same for a question that is asked because of the client's.
    pub(super) fn within<'r>(&self, request: &'r Request) -> Course<'r>
    where
        'c: 'r,
    {
        Course { is_inner: true, ..self.with(request) }
    }

    /// Bytes of the largest reply.
    pub(super) fn limit(&self, site: &Site) -> u16 {
        if self.is_inner { u16::MAX } else { site_limit(self.request, site) }
    }

    /// See [`rotation`]; 0 without `loadbalance`, and where it comes later: twice would be never.
    fn rotation(&self, site: &Site) -> usize {
        let rotates = site.rotate && !self.rotated;
        if rotates { rotation(self.request.metadata.id.into()) } else { 0 }
    }

    /// What the server block of another question of this client is chosen by.
    pub(super) fn asking<'q>(&self, question: &'q Question, query: &'q [u8]) -> Asking<'q> {
        let tcp = self.request.protocol() != Protocol::Udp;
        Asking { question, query, source: self.request.src(), tcp }
    }

    /// What a template, or the names outside of the cluster, make of a question.
    fn made(&self, site: &Site, question: &Question) -> Option<Made> {
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
            Protocol::Udp if !self.is_inner => {
                question.udp_reply_bytes_max().min(site.udp_bytes_max)
            }
            _ => usize::from(self.limit(site)),
        };
        let manner = Manner {
            limit,
            recursion_available: site.has_upstreams(),
            rotation: self.rotation(site),
            minimal: site.minimal,
        };
        with_room(|buffer| {
            let (bytes, by) = match in_hosts(site, question, query, buffer, manner) {
                Some(bytes) => (bytes, Plugin::Hosts),
                None if site.kubernetes => {
                    match answer(self.zone, question, query, buffer, manner) {
                        Outcome::Reply(made) => (made.bytes, made.by),
                        _ => return None,
                    }
                }
                None => return None,
            };
            Some((buffer.get(..bytes)?.to_vec(), by))
        })
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
fn who(request: &Request, site: &Site, name: &Name) -> Option<Vec<u8>> {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.authoritative = true;
    let mut sections = Sections { additionals: whoami(request, name), ..Sections::default() };
    if site.minimal {
        sections.reduce(metadata.response_code);
    }
    reply(request, metadata, &sections, site_limit(request, site))
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

fn any(request: &Request, site: &Site, name: &Name) -> Option<Vec<u8>> {
    let data = RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()));
    let record = Record::from_rdata(name.clone(), ANY_TTL_SECONDS, data);
    let sections = Sections { answers: vec![record], ..Sections::default() };
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.recursion_available = site.has_upstreams();
    reply(request, metadata, &sections, site_limit(request, site))
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
