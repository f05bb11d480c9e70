//! A copy of a request to somebody whose answer nobody waits for (nginx: mirror).

mod gathered;
mod shares;

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::task::spawn_local;

pub(crate) use self::{gathered::Gathered, shares::Shares};
use super::{
    body::RequestBody,
    buffer::{Budget, Lease, whole::is_conversation},
    client::Client,
    fields::own,
    forward::{self, Errand},
    incoming::Incoming,
    plan::Plan,
    scope::Scope,
};
use crate::{
    authority::{Mirror, Turn},
    counters::Uncopied,
    routes::Route,
};

/// What an answer may hold before its connection is given up.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What a field takes of memory beside its name and value.
const FIELD_BYTES: usize = 128;

/// What is to be copied.
pub(super) struct Original<'a, H> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) plan: &'a Plan<'a>,
    pub(super) body: &'a Incoming,
    /// Names of fields a copy does not have.
    pub(super) hidden: H,
}

/// A request for a mirror, ready but for its body.
#[derive(Debug)]
struct Mirrored {
    client: Rc<Client>,
    mirror: Arc<Mirror>,
    route: Arc<Route>,
    /// `HOST[:PORT]` of the mirror.
    authority: String,
    request: Box<Request<RequestBody>>,
    /// What its body may take from.
    share: Budget,
    /// Its place among those under way, and what its head takes.
    holds: (Turn, Lease),
}

/// Counts a copy whatever becomes of it: one that is under way as its thread ends, too.
#[derive(Debug)]
struct Fate {
    client: Rc<Client>,
    /// `Ok`: the mirror answers.
    outcome: Result<(), Uncopied>,
}

/// Copies a request: now, if there is no body to wait for; else what is returned is to be given the body,
/// and sends the copy at its end. What is not sent is counted.
pub(super) fn copy<'h>(
    mirror: &Arc<Mirror>,
    original: Original<'_, impl Iterator<Item = &'h HeaderName>>,
) -> Gathered {
    let (client, body) = (original.scope.client, original.body);
    let has_body = mirror.copies.bodies && !body.is_end_stream();
    let bytes_max = has_body.then(|| gathered::bytes_max(original.plan));
    match (Mirrored::of(mirror, original, bytes_max), bytes_max) {
        (Ok(copy), Some(bytes_max)) => {
            return Gathered::begin(copy, bytes_max, body.size_hint().exact());
        }
        (Ok(copy), None) => copy.send(RequestBody::Empty),
        (Err(reason), _) => client.worker.counters.uncopied(reason),
    }
    Gathered::default()
}

impl Mirrored {
    /// `bytes_max`: what its body may hold, if it is to have one.
    fn of<'h>(
        mirror: &Arc<Mirror>,
        original: Original<'_, impl Iterator<Item = &'h HeaderName>>,
        bytes_max: Option<usize>,
    ) -> Result<Self, Uncopied> {
        let Original { scope, plan, body, .. } = original;
        // Who converses has said all of it when the conversation is over, and only then; without its
        // messages a call is none.
        if plan.websocket.is_some() || is_conversation(&scope.head.headers) {
            return Err(Uncopied::Unfit);
        }
        if bytes_max.is_some_and(|bytes_max| body.size_hint().lower() > bytes_max as u64) {
            return Err(Uncopied::TooLarge);
        }
        let copies = &mirror.copies;
        let authority = scope.render_whole(&copies.url.authority).ok_or(Uncopied::Target)?;
        let target = scope.render_whole(&copies.url.target).ok_or(Uncopied::Target)?;
        let host = match &copies.host {
            Some(host) => scope.host_of(host),
            None => HeaderValue::from_str(&authority).ok(),
        };
        let (Some(host), Ok(uri)) = (host, Uri::try_from(target)) else {
            return Err(Uncopied::Target);
        };
        let turn = mirror.begin().ok_or(Uncopied::Busy)?;
        let mut request = Box::new(Request::new(RequestBody::Empty));
        request.method_mut().clone_from(&scope.head.method);
        *request.uri_mut() = uri;
        *request.headers_mut() = headers(original, &host);
        let share = scope.client.worker.copied.of(&plan.route.ingress.namespace);
        let head = share.lease(bytes_of(&request)).ok_or(Uncopied::Busy)?;
        let (mirror, route) = (mirror.clone(), plan.route.clone());
        // A mirror that does not answer holds no client's connection open.
        let client = scope.client.aside();
        Ok(Self { client, mirror, route, authority, request, share, holds: (turn, head) })
    }

    /// Sends it by itself: nobody waits for what becomes of it.
    fn send(self, body: RequestBody) {
        let Self { client, mirror, route, authority, mut request, share: _, holds } = self;
        *request.body_mut() = body;
        let mut fate = Fate { client: client.clone(), outcome: Err(Uncopied::Unanswered) };
        spawn_local(async move {
            let _holds = holds;
            let Some(place) = mirror.places.place(&authority, &client.worker.shared.timer).await
            else {
                return fate.settle(Err(Uncopied::Target));
            };
            let errand = Errand::to(&place.upstream, &route.policy);
            let mut body = forward::forward(&client, &errand, request, None).await.into_body();
            if body.is_ours() {
                return;
            }
            fate.settle(Ok(()));
            drop(fate);
            let mut left = ANSWER_BYTES_MAX;
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
                if left == 0 {
                    return;
                }
            }
        });
    }
}

fn headers<'h>(
    original: Original<'_, impl Iterator<Item = &'h HeaderName>>,
    host: &HeaderValue,
) -> HeaderMap {
    let Original { scope, plan, hidden, .. } = original;
    // A password is for whoever guards the route; who a client is only that one may say.
    let mut headers = scope.fields_beside(&plan.host, Some(host), hidden);
    for value in headers.values_mut() {
        *value = own(value);
    }
    headers
}

/// What a request's head holds, in bytes.
fn bytes_of(request: &Request<RequestBody>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| FIELD_BYTES + name.as_str().len() + value.len());
    target + fields.sum::<usize>()
}

impl Fate {
    fn settle(&mut self, outcome: Result<(), Uncopied>) {
        self.outcome = outcome;
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        let counters = &self.client.worker.counters;
        match self.outcome {
            Ok(()) => counters.copies.add(),
            Err(reason) => counters.uncopied(reason),
        }
    }
}
