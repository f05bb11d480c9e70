//! What plugins do around a question: flags and identifiers (`header`, `nsid`), IPv6 addresses made
//! from IPv4 ones (`dns64`).

use std::{future::Future, pin::Pin};

use hickory_proto::{
    op::{LowerQuery, Message, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType, rdata::opt::EdnsCode},
};
use hickory_server::server::Request;

use super::{
    Asked, SlowPath,
    chain::{Course, Resolution, seen},
    message::{Sections, error, reply},
};
use crate::{
    corefile::Dns64Options,
    counters::{Book, Plugin},
    plugins::{Plugins, rewrite::Client},
    policy::Site,
    wire::{NSID_OPTION, reply::push_option},
};

/// Questions asked because of questions: a rule must not lead to itself without end.
const DEPTH_MAX: u8 = 4;

impl SlowPath {
    /// The reply to a question in a server block that has plugins.
    pub(super) async fn wrapped(
        &self,
        course: &Course<'_>,
        (site, plugins): (&Site, &Plugins),
        asked: Asked<'_>,
    ) -> Resolution {
        let mut query = asked.query.to_vec();
        plugins.header.query.apply(&mut query);
        let asked = Asked { query: &query, ..asked };
        let nothing = Resolution::Reply(None, Plugin::None);
        let Some(request) = again(course.request, &query) else { return nothing };
        let course = course.with(&request);
        let Some((plain_query, plain)) = seen(&request) else { return nothing };
        let class = request.queries.queries().first().map_or(DNSClass::IN, LowerQuery::query_class);
        let translates =
            |dns64: &Dns64Options| class == DNSClass::IN && dns64.is_for(asked.asking(&plain));
        let dns64 = plugins.dns64.filter(translates);
        let wants_nsid = plain.edns.is_some_and(|edns| edns.nsid);
        let edns = request.edns.as_ref();
        let has_subnet = edns.is_some_and(|edns| edns.option(EdnsCode::Subnet).is_some());
        let client = Client { source: asked.source.ip(), has_subnet };
        let orders = plugins.order(plain.qtype);
        // All of it is put in order, as in CoreDNS, and what of that the client takes is left: what is to come
        // first may stand behind a cut.
        let inner = if orders { course.within(&request) } else { course.with(&request) };
        let resolution = match plugins.rewrite(&plain.name, plain.qtype, class, client) {
            Some(other) => self.by_another(&inner, site, asked, other).await,
            None => self.answered(&inner, site, (&plain_query, &plain), asked).await,
        };
        let Resolution::Reply(Some(mut bytes), by) = resolution else { return resolution };
        let failed = || {
            let failure = error(&request, ResponseCode::ServFail, site.has_upstreams());
            Resolution::Reply(failure, Plugin::None)
        };
        let mut is_made = false;
        if let Some(dns64) = dns64 {
            let Some((made, is_translated)) =
                self.translated(&course, site, asked, (dns64, bytes)).await
            else {
                return failed();
            };
            if is_translated {
                let book = site.ledger.book(course.counters.shared);
                book.into_iter().for_each(Book::translated);
            }
            (bytes, is_made) = (made, is_translated);
        }
        // The IPv4 addresses it was made of are in order.
        if orders && !is_made {
            let ordered = plugins.ordered(&bytes, plain.qtype);
            let fitted = ordered.and_then(
                |Message { answers, authorities, additionals, metadata, .. }| {
                    let sections = Sections { answers, authorities, additionals };
                    reply(&request, metadata, &sections, course.limit(site))
                },
            );
            let Some(fitted) = fitted else { return failed() };
            bytes = fitted;
        }
        plugins.header.response.apply(&mut bytes);
        if let (Some(nsid), true) = (&plugins.nsid, wants_nsid) {
            push_option(&mut bytes, course.limit(site).into(), NSID_OPTION, nsid);
        }
        Resolution::Reply(Some(bytes), by)
    }

    /// A reply without IPv6 addresses becomes one of IPv4 addresses in IPv6 (RFC 6147 §5.1); whether it
    /// has.
    async fn translated(
        &self,
        course: &Course<'_>,
        site: &Site,
        asked: Asked<'_>,
        (dns64, bytes): (Dns64Options, Vec<u8>),
    ) -> Option<(Vec<u8>, bool)> {
        let Ok(denial) = Message::from_vec(&bytes) else { return Some((bytes, false)) };
        if !dns64.wants_for(&denial) {
            return Some((bytes, false));
        }
        let name = course.request.queries.queries().first()?.original().name().clone();
        let mut found = self.also(course, asked, name, RecordType::A).await?;
        dns64.translate(&denial, &mut found);
        let Message { answers, authorities, additionals, metadata, .. } = found;
        let sections = Sections { answers, authorities, additionals };
        reply(course.request, metadata, &sections, course.limit(site)).map(|bytes| (bytes, true))
    }

    /// What the server answers the same client to another question.
    pub(super) async fn also(
        &self,
        course: &Course<'_>,
        asked: Asked<'_>,
        name: Name,
        qtype: RecordType,
    ) -> Option<Message> {
        let depth = asked.depth + 1;
        if depth > DEPTH_MAX || !course.may_ask_on() {
            return None;
        }
        let query = with_question(asked.query, name, qtype)?;
        let request = again(course.request, &query)?;
        let asked = Asked { query: &query, depth, ..asked };
        let course = Course { subnet: None, ..course.within(&request) };
        match self.boxed(&course, asked).await {
            Resolution::Reply(Some(bytes), _) => Message::from_vec(&bytes).ok(),
            Resolution::Reply(None, _) | Resolution::Drop => None,
        }
    }

    /// As [`Self::resolve`], for what itself resolves.
    pub(super) fn boxed<'r>(
        &'r self,
        course: &'r Course<'r>,
        asked: Asked<'r>,
    ) -> Pin<Box<dyn Future<Output = Resolution> + Send + 'r>> {
        Box::pin(self.resolve(course, asked))
    }
}

/// The client's message with another question of class IN in it.
pub(super) fn with_question(query: &[u8], name: Name, qtype: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(query).ok()?;
    message.queries = vec![Query::query(name, qtype)];
    message.to_vec().ok()
}

/// A request from the same client.
pub(super) fn again(request: &Request, query: &[u8]) -> Option<Request> {
    Request::from_bytes(query.to_vec(), request.src(), request.protocol()).ok()
}
