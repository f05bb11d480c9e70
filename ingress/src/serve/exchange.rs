//! One request: admitted, routed, sent on, answered.

use std::{convert::Infallible, rc::Rc};

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONNECTION, SET_COOKIE, USER_AGENT},
    request::Parts,
};

use super::{
    answer,
    auth::LetIn,
    balance::Choice,
    body::ResponseBody,
    client::Client,
    errors::{self, Instead},
    forward::Errand,
    gates,
    gzip::{self, Taken},
    incoming::Incoming,
    mirror::{self, Original},
    outgoing::{Outgoing, Passage},
    plan::{Plan, Unplanned, plan},
    said::Said,
    scope::Scope,
};
use crate::{
    counters::Refused,
    host,
    limiter::Slot,
    path,
    record::Record,
    routes::{Extra, Upstream, Variable},
};

/// Answers one request; with `doubt`, why it is not served.
///
/// What needs no waiting is left to plain functions: a future has room for the arguments of each it
/// awaits, and is copied as it is begun.
pub(super) async fn handle(
    client: Rc<Client>,
    request: Request<Incoming>,
    doubt: Option<Refused>,
) -> Result<Response<ResponseBody>, Infallible> {
    let busy = client.begin();
    let (mut head, body) = request.into_parts();
    let is_connect = head.method == Method::CONNECT;
    let record = Record::begin(&client, &head);
    let compression = record.config.compression.as_ref().map(|how| (how, Taken::by(&head)));
    let mut response = match planned(&client, &mut head, &record, doubt) {
        Ok(plan) => {
            let passage = Passage::default();
            match &plan.route.policy.extra {
                None => {
                    let mut response = match plainly(&client, &plan, head, body, passage) {
                        Ok((errand, outgoing)) => outgoing.go(&client, &errand).await,
                        Err(status) => answer::status(status),
                    };
                    record.secure(response.headers_mut());
                    response
                }
                // Boxed, so that requests without them are not as large in memory as those with
                // all of them.
                Some(extra) => {
                    Box::pin(with_extras(&client, &plan, extra, head, body, passage)).await
                }
            }
        }
        Err(unplanned) => unplanned.answer(&record),
    };
    if is_connect && response.status().is_success() && !response.body().is_tunnel() {
        // To a CONNECT it would be a yes (RFC 9110 9.3.6), and what follows a WebSocket's frames.
        *response.status_mut() = StatusCode::BAD_GATEWAY;
    }
    if let Some((how, taken)) = compression
        && !gzip::apply(how, taken, &mut response)
    {
        client.worker.counters.uncompressed.add();
    }
    record.answers(response.status(), response.headers());
    end(&client, &record, &mut response);
    response.body_mut().note(record);
    response.body_mut().hold(busy);
    Ok(response)
}

/// Counts an answer, and says if it is the connection's last.
fn end(client: &Client, record: &Record, response: &mut Response<ResponseBody>) {
    let status = response.status();
    client.worker.counters.response(status);
    let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
    let is_full = client.begun() >= record.config.limits.requests_per_connection_max;
    let is_last = client.worker.is_draining() || is_full;
    if is_last && !client.is_h2() && !upgraded {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn planned<'r>(
    client: &Client,
    head: &mut Parts,
    record: &'r Rc<Record>,
    doubt: Option<Refused>,
) -> Result<Plan<'r>, Unplanned> {
    if let Some(reason) = doubt {
        return Err(Unplanned::Refused(reason));
    }
    let plan = plan(client, head, record)?;
    if let Some(context) = &plan.trace {
        // Whoever is asked on the request's behalf is told, too.
        context.tell(&mut head.headers);
    }
    Ok(plan)
}

/// What only routes with such annotations pay for.
async fn with_extras(
    client: &Rc<Client>,
    plan: &Plan<'_>,
    extra: &Extra,
    mut head: Parts,
    body: Incoming,
    mut passage: Passage,
) -> Response<ResponseBody> {
    let seen = Seen::of(&head, plan);
    let instead = Instead::of(plan.route, &head);
    let scope = seen.scope(client, &head, plan);
    let said = Said::of(&scope, extra, &plan.snippet);
    let look = |variable: &Variable, out: &mut String| scope.write(variable, out);
    passage.fields = plan.snippet.to_endpoint(&look);
    let mut response = match enter(client, plan, extra, &seen, &head).await {
        Ok((slot, mut let_in)) => {
            passage.slot = slot;
            if let Some(mirror) = &extra.mirror {
                let scope = seen.scope(client, &head, plan);
                // Before the endpoint is told: none of that is for a mirror, nor is what it replaces.
                let told = passage.fields.iter().chain(&plan.identity).map(|(name, _)| name);
                let hidden = let_in.taken_off().iter().chain(told);
                let original = Original { scope: &scope, plan, body: &body, hidden };
                passage.copy = mirror::copy(mirror, original);
            }
            let_in.tell_upstream(&mut head.headers, &mut passage.fields);
            let mut response = onward(client, plan, &seen, head, body, passage).await;
            let_in.tell_client(&mut response);
            response
        }
        Err(response) => response,
    };
    if let Some(reply) = extra.reply.as_ref().filter(|_| !response.body().is_ours()) {
        reply.apply(response.headers_mut());
    }
    if let Some(instead) = instead.filter(|instead| instead.replaces(&response)) {
        let scope = seen.scope(client, &instead.head, plan);
        response = instead.answer(client, extra, plan, &scope, response).await;
    }
    said.apply(plan.record, &mut response);
    if let Some(pace) = extra.pace {
        response.body_mut().slow_down(pace, &client.worker.shared.timer);
    }
    response
}

/// Whether the request may go on at all.
async fn enter(
    client: &Rc<Client>,
    plan: &Plan<'_>,
    extra: &Extra,
    seen: &Seen,
    head: &Parts,
) -> Result<(Option<Slot>, LetIn), Response<ResponseBody>> {
    let slot = gates::count(client, extra, &head.headers);
    let slot = slot.map_err(|reason| gates::refuse(client, reason))?;
    let let_in = gates::pass(client, extra, &seen.scope(client, head, plan)).await?;
    if extra.gate.is_some() || extra.authority.is_some() {
        plan.record.admitted();
    }
    Ok((slot, let_in))
}

/// To the route's Service, or to whoever stands in for it.
async fn onward(
    client: &Rc<Client>,
    plan: &Plan<'_>,
    seen: &Seen,
    head: Parts,
    body: Incoming,
    mut passage: Passage,
) -> Response<ResponseBody> {
    let route = plan.route;
    let is_empty = |upstream: &Upstream| !upstream.has_endpoints();
    let fallback = route.fallback.as_deref();
    match fallback.filter(|_| route.upstream.as_deref().is_none_or(is_empty)) {
        Some(fallback) => {
            let scope = seen.scope(client, &head, plan);
            // In front: a snippet has the last word.
            let about = errors::about(&scope, StatusCode::SERVICE_UNAVAILABLE);
            passage.fields.splice(0..0, about);
            let errand = Errand::to(fallback, &route.policy).noting(plan);
            send(client, plan, &errand, head, body, passage).await
        }
        None => choose(client, plan, seen, head, body, passage).await,
    }
}

/// To the Service and the endpoint the request is meant for.
async fn choose(
    client: &Rc<Client>,
    plan: &Plan<'_>,
    seen: &Seen,
    head: Parts,
    body: Incoming,
    passage: Passage,
) -> Response<ResponseBody> {
    let policy = &plan.route.policy;
    let balance = policy.extra.as_ref().and_then(|extra| extra.balance.as_ref());
    if balance.is_none() && plan.route.canary.is_none() {
        return match plainly(client, plan, head, body, passage) {
            Ok((errand, outgoing)) => outgoing.go(client, &errand).await,
            Err(status) => answer::status(status),
        };
    }
    let choice = Choice::of(&seen.scope(client, &head, plan), plan.route, balance);
    let Some(choice) = choice else {
        return answer::status(StatusCode::SERVICE_UNAVAILABLE);
    };
    let errand = Errand::to(choice.upstream, policy).with(choice.pick).noting(plan);
    if let Some(canary) = &plan.route.canary
        && std::ptr::eq(choice.upstream, &*canary.upstream)
    {
        plan.record.tries_canary();
    }
    let agent = head.headers.get(USER_AGENT).cloned();
    let mut response = send(client, plan, &errand, head, body, passage).await;
    if let Some(cookie) = choice.cookie(&plan.record.front, plan.route, agent.as_ref(), &errand) {
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
    fn of(head: &Parts, plan: &Plan<'_>) -> Self {
        let http_host = plan.host.to_str().unwrap_or_default().to_owned();
        let host = host::normalise(&http_host).unwrap_or_default().into_owned();
        let path = path::normalise(head.uri.path()).unwrap_or_default().into_owned();
        Self { http_host, host, path }
    }

    fn scope<'a>(&'a self, client: &'a Client, head: &'a Parts, plan: &'a Plan<'_>) -> Scope<'a> {
        let Self { http_host, host, path } = self;
        let (route, identity, record) = (plan.route, &plan.identity, plan.record);
        let (front, request_id) = (&record.front, record.own_id);
        let captured = plan.captured.as_ref();
        Scope { client, head, front, host, http_host, path, route, captured, identity, request_id }
    }
}

/// To the route's Service.
fn plainly<'a>(
    client: &Rc<Client>,
    plan: &Plan<'a>,
    head: Parts,
    body: Incoming,
    passage: Passage,
) -> Result<(Errand<'a>, Outgoing), StatusCode> {
    let Some(upstream) = &plan.route.upstream else {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    };
    let errand = Errand::to(upstream, &plan.route.policy).noting(plan);
    let outgoing = Outgoing::of(client, plan, &errand, head, body, passage)?;
    Ok((errand, outgoing))
}

/// To an upstream, which may not be the route's.
async fn send(
    client: &Rc<Client>,
    plan: &Plan<'_>,
    errand: &Errand<'_>,
    head: Parts,
    body: Incoming,
    passage: Passage,
) -> Response<ResponseBody> {
    match Outgoing::of(client, plan, errand, head, body, passage) {
        Ok(outgoing) => outgoing.go(client, errand).await,
        Err(status) => answer::status(status),
    }
}
