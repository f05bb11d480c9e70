//! One request: admitted, routed, sent on, answered.

use std::{convert::Infallible, rc::Rc};

use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONNECTION, SET_COOKIE, STRICT_TRANSPORT_SECURITY, USER_AGENT},
    request::Parts,
    uri::{PathAndQuery, Uri},
};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};

use super::{
    answer,
    auth::LetIn,
    balance::Choice,
    body::{RequestBody, ResponseBody},
    client::Client,
    errors::{Case, Instead},
    fields::{self, Edit},
    forward::{self, Errand},
    gates, mirror,
    plan::{Plan, Unplanned, plan},
    scope::Scope,
    websocket::Asked,
};
use crate::{
    admission::Websocket,
    counters::Refused,
    host,
    limiter::Slot,
    path,
    record::Record,
    routes::{Extra, Upstream, Variable},
};

/// What lasts as long as a request is in service, or the tunnel it becomes.
struct Passage {
    on_upgrade: OnUpgrade,
    slot: Option<Slot>,
    /// Fields the endpoint is to see otherwise.
    fields: Vec<(HeaderName, Option<HeaderValue>)>,
}

/// Answers one request.
pub(super) async fn handle(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let busy = client.begin();
    let mut response = respond(&client, request).await;
    let status = response.status();
    client.worker.counters.response(status);
    let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
    let is_last = client.worker.is_draining() || client.is_full() || client.finding().is_some();
    if is_last && !client.is_h2() && !upgraded {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.body_mut().hold(busy);
    Ok(response)
}

async fn respond(client: &Rc<Client>, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let record = Record::begin(client, &head);
    let mut response = match planned(client, &head, &record) {
        Ok(plan) => serve(client, plan, head, body, on_upgrade).await,
        Err(unplanned) => {
            leave_unread(client, &body);
            unplanned.answer(client)
        }
    };
    record.answers(response.status(), response.headers());
    response.body_mut().note(record);
    response
}

fn planned(client: &Client, head: &Parts, record: &Rc<Record>) -> Result<Plan, Unplanned> {
    if let Some(reason) = client.finding() {
        return Err(Unplanned::Refused(reason));
    }
    let mut plan = plan(client, head)?;
    if let Some(span) = plan.trace.as_mut().and_then(|trace| trace.span.take()) {
        record.traced(span);
    }
    plan.record = Some(record.clone());
    Ok(plan)
}

async fn serve(
    client: &Rc<Client>,
    mut plan: Plan,
    mut head: Parts,
    body: Incoming,
    on_upgrade: OnUpgrade,
) -> Response<ResponseBody> {
    if let Some(trace) = plan.trace.take() {
        // Whoever is asked on the request's behalf is told, too.
        trace.tell(&mut head.headers);
    }
    let passage = Passage { on_upgrade, slot: None, fields: Vec::new() };
    let waiting = Waiting(&plan);
    let mut response = match &plan.route.policy.extra {
        None => proxy(client, &plan, head, body, passage).await,
        // Boxed, so that requests without them are not as large in memory as those with all of them.
        Some(extra) => Box::pin(with_extras(client, &plan, extra, head, body, passage)).await,
    };
    std::mem::forget(waiting);
    if plan.secured
        && let Some(hsts) = &client.worker.config().hsts
    {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, hsts.value().clone());
    }
    if let Some(record) = plan.record {
        record.identify(plan.request_id);
        record.routed(plan.route);
    }
    response
}

/// A client may leave while it waits: what is told of its request names the rule even so.
struct Waiting<'a>(&'a Plan);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(record) = &self.0.record {
            record.identify(self.0.request_id);
            record.routed(self.0.route.clone());
        }
    }
}

/// What only routes with such annotations pay for.
async fn with_extras(
    client: &Rc<Client>,
    plan: &Plan,
    extra: &Extra,
    mut head: Parts,
    body: Incoming,
    mut passage: Passage,
) -> Response<ResponseBody> {
    let seen = Seen::of(&head, plan);
    let instead = Instead::of(&plan.route, &seen.scope(client, &head, plan), &plan.host);
    let origin = extra.cors.as_ref().and_then(|cors| cors.allows(&head.headers));
    let scope = seen.scope(client, &head, plan);
    let fields: Vec<_> = extra.told.iter().filter_map(|field| scope.field(field)).collect();
    let told = extra.snippet.as_ref().map(|snippet| {
        let scope = seen.scope(client, &head, plan);
        let look = |variable: &Variable, out: &mut String| scope.write(variable, out);
        passage.fields = snippet.to_endpoint(&look);
        snippet.told(&look)
    });
    let mut response = match enter(client, plan, extra, &seen, &head).await {
        Ok((slot, mut let_in)) => {
            passage.slot = slot;
            if let Some(mirror) = &extra.mirror {
                let scope = seen.scope(client, &head, plan);
                mirror::copy(client, mirror, &scope, plan, !body.is_end_stream());
            }
            let_in.tell_upstream(&mut head.headers);
            let mut response = onward(client, plan, &seen, head, body, passage).await;
            let_in.tell_client(&mut response);
            response
        }
        Err(response) => {
            leave_unread(client, &body);
            response
        }
    };
    if let Some(reply) = extra.reply.as_ref().filter(|_| !response.body().is_ours()) {
        reply.apply(response.headers_mut());
    }
    if let Some(instead) = instead {
        response = instead.answer(client, &plan.route, response).await;
    }
    if let (Some(cors), Some(origin)) = (&extra.cors, &origin) {
        cors.set_fields(response.headers_mut(), origin);
    }
    for (name, value) in fields {
        response.headers_mut().insert(name, value);
    }
    if let Some(told) = told {
        told.apply(response.status(), response.headers_mut());
    }
    if let Some(pace) = extra.pace {
        response.body_mut().slow_down(pace);
    }
    response
}

/// Whether the request may go on at all.
async fn enter(
    client: &Rc<Client>,
    plan: &Plan,
    extra: &Extra,
    seen: &Seen,
    head: &Parts,
) -> Result<(Option<Slot>, LetIn), Response<ResponseBody>> {
    let slot = gates::count(client, extra, &head.headers);
    let slot = slot.map_err(|reason| gates::refuse(client, reason))?;
    let let_in = gates::pass(client, extra, &seen.scope(client, head, plan)).await?;
    Ok((slot, let_in))
}

/// To the route's Service, or to whoever stands in for it.
async fn onward(
    client: &Rc<Client>,
    plan: &Plan,
    seen: &Seen,
    mut head: Parts,
    body: Incoming,
    passage: Passage,
) -> Response<ResponseBody> {
    let route = &*plan.route;
    let is_empty = |upstream: &Upstream| upstream.endpoints().list.is_empty();
    let fallback = route.fallback.as_deref();
    match fallback.filter(|_| route.upstream.as_deref().is_none_or(is_empty)) {
        Some(fallback) => {
            let case = Case::without_endpoints(&seen.scope(client, &head, plan), &plan.host);
            head.headers.extend(case);
            let errand = Errand::to(fallback, &route.policy).noting(plan);
            send(client, plan, &errand, head, body, passage).await
        }
        None => choose(client, plan, seen, head, body, passage).await,
    }
}

/// To the Service and the endpoint the request is meant for.
async fn choose(
    client: &Rc<Client>,
    plan: &Plan,
    seen: &Seen,
    head: Parts,
    body: Incoming,
    passage: Passage,
) -> Response<ResponseBody> {
    let policy = &plan.route.policy;
    let balance = policy.extra.as_ref().and_then(|extra| extra.balance.as_ref());
    if balance.is_none() && plan.route.canary.is_none() {
        return proxy(client, plan, head, body, passage).await;
    }
    let choice = Choice::of(&seen.scope(client, &head, plan), &plan.route, balance);
    let Some(choice) = choice else {
        return refuse(client, &body, StatusCode::SERVICE_UNAVAILABLE);
    };
    let errand = Errand::to(choice.upstream, policy).with(choice.pick).noting(plan);
    if let (Some(record), Some(canary)) = (&plan.record, &plan.route.canary)
        && std::ptr::eq(choice.upstream, &*canary.upstream)
    {
        record.tries_canary();
    }
    let agent = head.headers.get(USER_AGENT).cloned();
    let mut response = send(client, plan, &errand, head, body, passage).await;
    if let Some(cookie) = choice.cookie(client, &plan.route, agent.as_ref(), &errand) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// What templates ask of a request, once admission's borrows are gone.
struct Seen {
    http_host: String,
    host: String,
    path: String,
}

impl Seen {
    fn of(head: &Parts, plan: &Plan) -> Self {
        let http_host = plan.host.to_str().unwrap_or_default().to_owned();
        let host = host::normalise(&http_host).unwrap_or_default().into_owned();
        let path = path::normalise(head.uri.path()).unwrap_or_default().into_owned();
        Self { http_host, host, path }
    }

    fn scope<'a>(&'a self, client: &'a Client, head: &'a Parts, plan: &'a Plan) -> Scope<'a> {
        let Self { http_host, host, path } = self;
        let (route, request_id) = (&*plan.route, plan.request_id);
        Scope { client, head, host, http_host, path, route, request_id }
    }
}

/// To the route's Service.
async fn proxy(
    client: &Rc<Client>,
    plan: &Plan,
    head: Parts,
    body: Incoming,
    passage: Passage,
) -> Response<ResponseBody> {
    let Some(upstream) = &plan.route.upstream else {
        return refuse(client, &body, StatusCode::SERVICE_UNAVAILABLE);
    };
    let errand = Errand::to(upstream, &plan.route.policy).noting(plan);
    send(client, plan, &errand, head, body, passage).await
}

/// To an upstream, with the fields and the path it is to see.
async fn send(
    client: &Rc<Client>,
    plan: &Plan,
    errand: &Errand<'_>,
    mut head: Parts,
    body: Incoming,
    passage: Passage,
) -> Response<ResponseBody> {
    let policy = &plan.route.policy;
    // What is announced as too large is not begun with.
    if body.size_hint().lower() > policy.body_bytes_max {
        return refuse(client, &body, StatusCode::PAYLOAD_TOO_LARGE);
    }
    let config = client.worker.config();
    let extra = policy.extra.as_deref();
    let edit = Edit {
        origin: &client.origin,
        host: &plan.host,
        vhost: extra.and_then(|extra| extra.vhost.as_ref()),
        prefix: plan.prefix.as_ref(),
        policy: client.forwarded,
        underscores: config.underscores_in_headers,
        websocket: plan.websocket.is_some(),
        request_id: plan.request_id,
        closes: extra.is_some_and(|extra| extra.closes),
    };
    fields::to_upstream(&mut head.headers, &edit);
    for (name, value) in plan.identity.iter().chain(&passage.fields) {
        match value {
            Some(value) => _ = head.headers.insert(name, value.clone()),
            None => _ = head.headers.remove(name),
        }
    }
    let Some(uri) = origin_form(head.uri, plan.target.as_deref()) else {
        client.worker.counters.refused(Refused::Path);
        return refuse(client, &body, Refused::Path.status());
    };
    let record = plan.record.as_ref();
    let body = RequestBody::new(body, client, policy.body_bytes_max, &errand.patience, record);
    let mut request = Request::new(body);
    *request.method_mut() = match plan.websocket {
        Some(_) => Method::GET,
        None => head.method,
    };
    *request.uri_mut() = uri;
    *request.headers_mut() = head.headers;
    let (on_upgrade, mut slot) = (passage.on_upgrade, passage.slot);
    let mut asked = plan.websocket.map(|websocket| match websocket {
        Websocket::Upgrade => Asked::by_upgrade(on_upgrade, slot.take()),
        Websocket::Connect => Asked::by_connect(on_upgrade, slot.take(), request.headers_mut()),
    });
    if let Some(asked) = &mut asked {
        asked.record = plan.record.clone();
    }
    let mut response = forward::forward(client, errand, request, asked).await;
    if let Some(slot) = slot {
        response.body_mut().count(slot);
    }
    response
}

/// Answers without having read the request's body.
fn refuse(client: &Client, body: &Incoming, status: StatusCode) -> Response<ResponseBody> {
    leave_unread(client, body);
    answer::status(status)
}

fn leave_unread(client: &Client, body: &Incoming) {
    if !body.is_end_stream() {
        client.leave_unread();
    }
}

/// An upstream is asked in origin form whatever form the client used (RFC 9112 3.2.1).
fn origin_form(uri: Uri, target: Option<&str>) -> Option<Uri> {
    let Some(target) = target else {
        if uri.authority().is_none() {
            return Some(uri);
        }
        return uri.into_parts().path_and_query.map(Uri::from);
    };
    let target = match uri.query() {
        // nginx: the request's own arguments come after those of a rewritten path.
        Some(query) if target.contains('?') => format!("{target}&{query}"),
        Some(query) => format!("{target}?{query}"),
        None => target.to_owned(),
    };
    PathAndQuery::try_from(target).ok().map(Uri::from)
}
