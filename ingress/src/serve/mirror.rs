//! A copy of a request to somebody whose answer nobody waits for (nginx: mirror).

use std::rc::Rc;

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE},
};
use http_body_util::BodyExt;
use tokio::task::spawn_local;

use super::{
    body::RequestBody,
    client::Client,
    fields::{self, Edit},
    forward::{self, Errand},
    gates,
    plan::Plan,
    scope::Scope,
};
use crate::{authority::Mirror, counters::Uncopied};

/// What an answer may hold before its connection is given up.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Sends it, unless it has a body that would be missing. What is not sent is counted.
pub(super) fn copy(
    client: &Rc<Client>,
    mirror: &Mirror,
    scope: &Scope<'_>,
    plan: &Plan<'_>,
    has_body: bool,
) {
    let (copies, counters) = (&mirror.copies, &client.worker.counters);
    if plan.websocket.is_some() || (has_body && !copies.without_bodies) {
        return counters.uncopied(Uncopied::Unfit);
    }
    let Some(turn) = mirror.begin() else { return counters.uncopied(Uncopied::Busy) };
    let authority = scope.render(&copies.url.authority);
    let target = scope.render(&copies.url.target);
    let host = copies.host.clone().or_else(|| HeaderValue::from_str(&authority).ok());
    let (Some(host), Ok(uri)) = (host, Uri::try_from(target)) else {
        return counters.uncopied(Uncopied::Target);
    };
    let headers = headers(client, scope, plan, &host);
    let method: Method = scope.head.method.clone();
    let (client, places, route) = (client.clone(), mirror.places.clone(), plan.route.clone());
    spawn_local(async move {
        let _turn = turn;
        let counters = &client.worker.counters;
        let Some(place) = places.place(&authority, &client.worker.shared.timer).await else {
            return counters.uncopied(Uncopied::Target);
        };
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let errand = Errand::to(&place.upstream, &route.policy);
        let mut body =
            forward::forward(&client, &errand, Box::new(request), None).await.into_body();
        if body.is_ours() {
            return counters.uncopied(Uncopied::Unanswered);
        }
        counters.copies.add();
        let mut left = ANSWER_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
            if left == 0 {
                return;
            }
        }
    });
}

fn headers(client: &Client, scope: &Scope<'_>, plan: &Plan<'_>, host: &HeaderValue) -> HeaderMap {
    let config = client.worker.config();
    let mut headers = scope.head.headers.clone();
    fields::to_upstream(
        &mut headers,
        &Edit {
            origin: &client.origin,
            front: scope.front,
            host: &plan.host,
            vhost: Some(host),
            prefix: None,
            policy: client.forwarded,
            named: gates::forwarded_for(client, &scope.head.headers),
            underscores: config.underscores_in_headers,
            websocket: false,
            request_id: plan.record.own_id,
            closes: false,
        },
    );
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.insert(HOST, host.clone());
    headers
}
