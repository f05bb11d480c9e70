//! `autopath`: the names a client would ask for one after the other.

use std::time::Duration;

use hickory_proto::{
    op::Message,
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
    serialize::binary::{BinDecodable, BinDecoder, BinEncodable},
};
use tokio::time::timeout;

use super::{
    Asked, SlowPath,
    chain::{Course, Resolution, seen},
    message::{Sections, reply},
    wrapped::{again, with_question},
};
use crate::{
    corefile::AclAction,
    counters::{Book, Plugin},
    plugins::is_final,
    policy::Site,
    wire::{name::WireName, question::Question, reply::code, rtype},
};

/// A client does not wait any longer for all of it (resolv.conf(5): 5 s).
const WALK_MAX: Duration = Duration::from_secs(4);

/// A reply and who made it.
pub(super) type Reached = (Option<Vec<u8>>, Plugin);

impl SlowPath {
    /// The answer to the first name of the client's search path that has one, else `first`, the
    /// answer to the name asked for.
    pub(super) async fn walked(
        &self,
        course: &Course<'_>,
        site: &Site,
        plain: &Question,
        asked: Asked<'_>,
        first: Reached,
    ) -> Reached {
        let autopath = site.plugins.as_ref().and_then(|plugins| plugins.autopath.as_ref());
        // An alias' target is no name that a client searches for; nor is anything by a type that every name
        // outside is answered without being looked for.
        let is_searched = asked.aliases == 0 && plain.qtype != rtype::ANY;
        let autopath = autopath.filter(|_| is_searched);
        let source = course.request.src().ip();
        let Some(autopath) = autopath.filter(|autopath| {
            !ends(&first.0) && autopath.is_for(course.zone, &plain.name, source)
        }) else {
            return first;
        };
        let path = autopath.path(course.zone, source);
        // Of its own, so that who has no search path to walk keeps no room for it while waiting.
        let walk = Box::pin(self.walk(course, site, &path, asked));
        match timeout(WALK_MAX, walk).await {
            Ok(Some(found)) => {
                let book = site.ledger.book(course.counters.shared);
                book.into_iter().for_each(Book::walked);
                found
            }
            Ok(None) | Err(_) => first,
        }
    }

    async fn walk(
        &self,
        course: &Course<'_>,
        site: &Site,
        path: &[WireName],
        asked: Asked<'_>,
    ) -> Option<Reached> {
        let question = course.request.queries.queries().first()?;
        let (owner, qtype) = (question.original().name(), question.query_type());
        let wire = owner.to_bytes().ok()?;
        let (first, others) = path.split_first()?;
        // The name as it was meant, in the client's letter case.
        let meant = wire.get(..wire.len().checked_sub(first.as_bytes().len())?)?;
        for domain in others {
            let name = [meant, domain.as_bytes()].concat();
            let Ok(name) = Name::read(&mut BinDecoder::new(&name)) else { continue };
            let Some((bytes, by)) = self.tried(course, site, asked, (name, qtype)).await else {
                continue;
            };
            let mut message = Message::from_vec(&bytes).ok()?;
            lead(&mut message, owner);
            let Message { answers, authorities, additionals, metadata, .. } = message;
            let sections = Sections { answers, authorities, additionals };
            return Some((reply(course.request, metadata, &sections, course.limit(site)), by));
        }
        None
    }

    /// What one name of the path is answered, if that ends the search. Policy is asked about it as
    /// about any (coredns#8290).
    async fn tried(
        &self,
        course: &Course<'_>,
        site: &Site,
        asked: Asked<'_>,
        (name, qtype): (Name, RecordType),
    ) -> Option<(Vec<u8>, Plugin)> {
        let query = with_question(course.request.as_slice(), name, qtype)?;
        let request = again(course.request, &query)?;
        let (plain_query, plain) = seen(&request)?;
        let asked = Asked { query: &query, ..asked };
        let course = course.within(&request);
        let others = course.policy.site(asked.group, asked.asking(&plain))?;
        if !std::ptr::eq(others, site) {
            return self.tried_elsewhere(&course, asked).await;
        }
        if site.verdict(request.src().ip(), &plain.name, plain.qtype) != AclAction::Allow {
            return None;
        }
        let (bytes, by) = self.found(&course, site, (&plain_query, &plain), asked).await;
        bytes.filter(|bytes| is_final(code(bytes))).map(|bytes| (bytes, by))
    }

    /// A name on the path that another server block has is answered by that one, or by none: `autopath` is no way
    /// around its `view` and `acl`.
    async fn tried_elsewhere(
        &self,
        course: &Course<'_>,
        asked: Asked<'_>,
    ) -> Option<(Vec<u8>, Plugin)> {
        if !course.may_ask_on() {
            return None;
        }
        // As an alias' target: no name that a client searches for.
        let asked = Asked { aliases: asked.aliases + 1, ..asked };
        match self.boxed(course, asked).await {
            Resolution::Reply(Some(bytes), by) if by != Plugin::Acl && is_final(code(&bytes)) => {
                Some((bytes, by))
            }
            Resolution::Reply(..) | Resolution::Drop => None,
        }
    }
}

/// Whether a reply is one that ends a search.
fn ends(reply: &Option<Vec<u8>>) -> bool {
    reply.as_deref().is_some_and(|reply| is_final(code(reply)))
}

/// An alias from the name asked for to the one that was found.
fn lead(message: &mut Message, asked: &Name) {
    let found = message.answers.iter().find(|record| record.name != *asked);
    if let Some(found) = found {
        let target = RData::CNAME(CNAME(found.name.clone()));
        let alias = Record::from_rdata(asked.clone(), found.ttl, target);
        message.answers.insert(0, alias);
    }
}
