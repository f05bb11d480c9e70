//! Questions that `rewrite` changes: another is asked, and the answer made to fit.

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{DNSClass, RecordType},
};
use hickory_server::server::Request;

use super::{
    Asked, SlowPath,
    chain::{Course, Resolution, refused},
    message::{Sections, Verdict, error, reply, verdict},
};
use crate::{
    plugins::{name, rewrite::Rewritten},
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
        let failed = |code| Resolution::Reply(error(course.request, code, site.has_upstreams()));
        let Some(other) = other_request(course.request, asked, &rewritten) else {
            return failed(ResponseCode::ServFail);
        };
        if let Verdict::Error(code) = verdict(&other) {
            return failed(code);
        }
        let request = course.request;
        let course = course.with(&other);
        let Some((query, plain)) = course.question() else {
            return failed(ResponseCode::ServFail);
        };
        // Policy sees what is really asked as well: else a rule would be a way around it
        // (CVE-2026-26017).
        if let Some(resolution) = refused(request, site, asked.source.ip(), &plain) {
            return resolution;
        }
        let bytes = self.found(&course, site, (&query, plain), asked.transport).await;
        Resolution::Reply(restored(request, bytes, &rewritten))
    }
}

/// The client's message with the other question in it.
fn other_request(
    request: &Request,
    asked: Asked<'_>,
    rewritten: &Rewritten<'_>,
) -> Option<Request> {
    let mut message = Message::from_vec(asked.query).ok()?;
    let mut query = Query::query(name(&rewritten.name)?, RecordType::from(rewritten.qtype));
    query.set_query_class(DNSClass::IN);
    message.queries = vec![query];
    Request::from_bytes(message.to_vec().ok()?, request.src(), request.protocol()).ok()
}

fn restored(
    request: &Request,
    bytes: Option<Vec<u8>>,
    rewritten: &Rewritten<'_>,
) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(&bytes?).ok()?;
    rewritten.restore(&mut message);
    let Message { answers, authorities, additionals, metadata, .. } = message;
    reply(request, metadata, &Sections { answers, authorities, additionals })
}
