//! Questions that `rewrite` changes: another is asked, and the answer made to fit.

use hickory_proto::{
    op::{LowerQuery, Message, ResponseCode},
    rr::{DNSClass, RData, RecordType, rdata::CNAME},
};

use super::{
    Asked, SlowPath,
    chain::{Course, Resolution, refused, seen},
    message::{Sections, error, reply, unserved},
    wrapped::{again, with_question},
};
use crate::{
    corefile::NameMatch,
    counters::Plugin,
    plugins::{name, name_text, rewrite::Rewritten},
    policy::Site,
};

impl SlowPath {
    /// The reply to a question by way of another one, in the same server block.
    pub(super) async fn by_another(
        &self,
        course: &Course<'_>,
        site: &Site,
        asked: Asked<'_>,
        rewritten: Rewritten<'_>,
    ) -> Resolution {
        let request = course.request;
        let failed =
            |code| Resolution::Reply(error(request, code, site.has_upstreams()), Plugin::None);
        let qtype = RecordType::from(rewritten.qtype);
        let original = request.queries.queries().first().map(|question| question.original().name());
        // A name that no rule has changed keeps the client's letter case.
        let kept = original.filter(|kept| name_text(kept).as_deref() == Some(&*rewritten.name));
        let other = kept.cloned().or_else(|| name(&rewritten.name));
        let other = other.and_then(|name| with_question(asked.query, name, qtype));
        let Some(query) = other else { return failed(ResponseCode::ServFail) };
        let Some(other) = again(request, &query) else { return failed(ResponseCode::ServFail) };
        let Some((plain_query, plain)) = seen(&other) else {
            return failed(ResponseCode::ServFail);
        };
        // Policy sees what is really asked as well: else a rule would be a way around it
        // (CVE-2026-26017).
        if let Some(resolution) = refused(request, site, asked.source.ip(), &plain) {
            return resolution;
        }
        if let Some(code) = unserved(&other) {
            return failed(code);
        }
        if rewritten.class != DNSClass::IN {
            return failed(ResponseCode::Refused);
        }
        // What was said of the client for an alias holds for its target.
        let subnet = rewritten.subnet.or(course.subnet);
        let limit = course.limit(site);
        let course = Course { subnet, ..course.within(&other) };
        let asked = Asked { query: &query, ..asked };
        let first = self.found(&course, site, (&plain_query, &plain), asked).await;
        let (bytes, by) = self.walked(&course, site, &plain, asked, first).await;
        let message = bytes.and_then(|bytes| Message::from_vec(&bytes).ok());
        let Some(mut message) = message else { return Resolution::Reply(None, by) };
        for (from, to) in rewritten.aliases.iter().rev() {
            self.realias(&course, asked, &mut message, (from, to)).await;
        }
        rewritten.restore(&mut message);
        let Message { answers, authorities, additionals, metadata, .. } = message;
        let sections = Sections { answers, authorities, additionals };
        Resolution::Reply(reply(request, metadata, &sections, limit), by)
    }

    /// Makes the first alias that fits lead elsewhere: what is there takes the place of what was
    /// behind it.
    async fn realias(
        &self,
        course: &Course<'_>,
        asked: Asked<'_>,
        message: &mut Message,
        (from, to): (&NameMatch, &str),
    ) {
        let elsewhere = |data: &RData| match data {
            RData::CNAME(CNAME(target)) => {
                name_text(target).and_then(|text| from.replaced(&text, to)).and_then(|to| name(&to))
            }
            _ => None,
        };
        let all = message.answers.iter().enumerate();
        let Some((place, target)) =
            all.into_iter().find_map(|(place, r)| Some((place, elsewhere(&r.data)?)))
        else {
            return;
        };
        let question = course.request.queries.queries().first();
        let qtype = question.map_or(RecordType::A, LowerQuery::query_type);
        let Some(found) = self.also(course, asked, target.clone(), qtype).await else { return };
        message.answers.truncate(place + 1);
        if let Some(alias) = message.answers.last_mut() {
            alias.data = RData::CNAME(CNAME(target));
        }
        message.answers.retain(|record| record.record_type() == RecordType::CNAME);
        message.answers.extend(found.answers);
        message.authorities = found.authorities;
        message.metadata.truncation = found.metadata.truncation;
        message.metadata.response_code = found.metadata.response_code;
    }
}
