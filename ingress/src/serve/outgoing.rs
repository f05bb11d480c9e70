//! A request on its way to an endpoint: its fields, its path and its body as that one is to see them.

use std::rc::Rc;

use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    request::Parts,
    uri::{PathAndQuery, Uri},
};
use hyper::body::Body;

use super::{
    body::{RequestBody, ResponseBody},
    buffer::whole,
    client::Client,
    fields::{self, Edit},
    forward::{self, Errand},
    gates,
    incoming::Incoming,
    mirror::Gathered,
    plan::{Plan, Target},
    websocket::Asked,
};
use crate::{admission::Websocket, counters::Refused, limiter::Slot};

/// What lasts as long as a request is in service, or the tunnel it becomes.
#[derive(Default)]
pub(super) struct Passage {
    pub(super) slot: Option<Slot>,
    /// Fields the endpoint is to see otherwise.
    pub(super) fields: Vec<(HeaderName, Option<HeaderValue>)>,
    /// For a mirror, once its body is there.
    pub(super) copy: Gathered,
}

/// A request as an upstream is to see it.
pub(super) struct Outgoing {
    request: Box<Request<RequestBody>>,
    asked: Option<Box<Asked>>,
    slot: Option<Slot>,
    /// How much of its body is read before an endpoint is chosen, in bytes; `None`: nothing.
    read: Option<usize>,
}

impl Outgoing {
    /// With the fields and the path it is to have; or the status it is refused with.
    pub(super) fn of(
        client: &Rc<Client>,
        plan: &Plan<'_>,
        errand: &Errand<'_>,
        mut head: Parts,
        body: Incoming,
        passage: Passage,
    ) -> Result<Self, StatusCode> {
        let policy = &plan.route.policy;
        // What is announced as too large is not begun with.
        if body.size_hint().lower() > policy.body_bytes_max {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let extra = policy.extra.as_deref();
        let edit = Edit {
            origin: &client.origin,
            front: &plan.record.front,
            host: &plan.host,
            vhost: plan.vhost.as_ref(),
            prefix: plan.prefix.as_ref(),
            policy: client.forwarded(),
            named: gates::forwarded_for(client, &head.headers),
            underscores: plan.record.config.underscores_in_headers,
            websocket: plan.websocket.is_some(),
            request_id: plan.record.own_id,
            closes: extra.is_some_and(|extra| extra.closes),
        };
        fields::to_upstream(&mut head.headers, &edit);
        fields::overrule(&mut head.headers, plan.identity.iter().chain(&passage.fields));
        let Some(uri) = origin_form(head.uri, plan.target.as_ref()) else {
            client.worker.counters.refused(Refused::Path);
            return Err(Refused::Path.status());
        };
        let (most, patience) = (policy.body_bytes_max, &errand.patience);
        let upgraded = plan.websocket.map(|_| body.upgraded());
        // What follows a CONNECT is the tunnel's (RFC 8441 5).
        let (body, tunnel) = match plan.websocket {
            Some(Websocket::Connect) => (RequestBody::Empty, Some(body)),
            _ => {
                let headers = &head.headers;
                let body = RequestBody::new(body, headers, most, patience, plan.record);
                (body.copied(passage.copy), None)
            }
        };
        let is_read = |_: &usize| !body.is_end_stream() && !whole::is_conversation(&head.headers);
        let read = policy.buffering.request_bytes.filter(is_read);
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = match plan.websocket {
            Some(_) => Method::GET,
            None => head.method,
        };
        *request.uri_mut() = uri;
        *request.headers_mut() = head.headers;
        let mut slot = passage.slot;
        let asked = upgraded.map(|upgraded| {
            let (slot, record) = (slot.take(), plan.record.clone());
            Box::new(match tunnel {
                None => Asked::by_upgrade(upgraded, slot, record),
                Some(body) => Asked::by_connect(body, slot, record, request.headers_mut()),
            })
        });
        Ok(Self { request, asked, slot, read })
    }

    pub(super) async fn go(
        self,
        client: &Rc<Client>,
        errand: &Errand<'_>,
    ) -> Response<ResponseBody> {
        let Self { request, asked, slot, read } = self;
        let mut response = match read {
            None => forward::forward(client, errand, request, asked).await,
            // Boxed: most requests are not as large in memory.
            Some(bytes_max) => {
                Box::pin(whole::forward(client, errand, request, bytes_max, asked)).await
            }
        };
        if let Some(slot) = slot {
            response.body_mut().count(slot);
        }
        response
    }
}

/// An upstream is asked in origin form whatever form the client used (RFC 9112 3.2.1).
fn origin_form(uri: Uri, target: Option<&Target>) -> Option<Uri> {
    let Some(target) = target else {
        if uri.authority().is_none() {
            return Some(uri);
        }
        return uri.into_parts().path_and_query.map(Uri::from);
    };
    let Target { text: target, keeps_args } = target;
    let target = match uri.query().filter(|_| *keeps_args) {
        // nginx: the request's own arguments come after those of a rewritten path.
        Some(query) if target.contains('?') => format!("{target}&{query}"),
        Some(query) => format!("{target}?{query}"),
        None => target.to_owned(),
    };
    PathAndQuery::try_from(target).ok().map(Uri::from)
}
