//! A request's way to an endpoint and its response's way back.

mod timing;

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Request, Response, StatusCode, Version, header::SERVER};
use smallvec::SmallVec;
use tokio::task::spawn_local;

use self::timing::Timing;
use super::{
    accel::Accel,
    answer,
    body::{Carrier, RequestBody, ResponseBody},
    client::Client,
    connect::{ConnectError, connect},
    fields, pipe,
    plan::Plan,
    replay::Replay,
    tunnel::{self, Down, Tunnel},
    upstream::{SendError, UpstreamConnection},
    upstream2::{self, Failed2},
    websocket::{Asked, Side},
    worker::Worker,
};
use crate::{
    config::IngressConfig,
    record::Record,
    routes::{Endpoint, InFlight, Patience, Pick, Policy, Protocol, Retries, Upstream},
};

/// While an upstream's endpoints are waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Whom a request goes to, and with how much patience.
#[derive(Debug)]
pub(super) struct Errand<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) patience: Patience,
    pub(super) retries: Retries,
    /// `None`: the next endpoint's turn.
    pick: Option<Pick>,
    /// Who answered.
    pub(super) served: Cell<Option<SocketAddr>>,
    /// What is told of the request.
    pub(super) record: Option<&'a Rc<Record>>,
    /// The answer goes to a client, which is not to see all its fields.
    hides: bool,
    /// How far it is read ahead of that one, in bytes; `None`: not at all.
    ahead: Option<usize>,
}

/// What became of a request at one endpoint.
enum Attempt {
    /// It answered; the body is still to come. With HTTP/2 perhaps the request once more; with
    /// HTTP/1 the connection has it.
    Answered(Response<()>, Carrier, Option<Box<Replay>>),
    /// It did not, and another may be asked (the status, if there is none).
    Again(Box<Request<RequestBody>>, StatusCode),
    /// It took too long. Somebody else may be asked, and nobody twice.
    Late(Box<Request<RequestBody>>),
    /// What it answered is not believed. As before.
    Misread(Box<Request<RequestBody>>),
    /// It did not, and nobody else may be asked: it could have acted on the request.
    Failed(StatusCode),
}

impl Attempt {
    /// The status of an endpoint that did not answer; `None`: it did.
    fn failed_by(&self) -> Option<StatusCode> {
        match self {
            Self::Answered(..) => None,
            Self::Again(_, status) | Self::Failed(status) => Some(*status),
            Self::Late(_) => Some(StatusCode::GATEWAY_TIMEOUT),
            Self::Misread(_) => Some(StatusCode::BAD_GATEWAY),
        }
    }
}

impl<'a> Errand<'a> {
    /// As the route's annotations say.
    pub(super) fn to(upstream: &'a Upstream, policy: &Policy) -> Self {
        let Policy { patience, retries, .. } = *policy;
        let (pick, served, record, ahead) = Default::default();
        Self { upstream, patience, retries, pick, served, record, hides: true, ahead }
    }

    pub(super) fn with(self, pick: Option<Pick>) -> Self {
        Self { pick, ..self }
    }

    /// We read the answer ourselves, all its fields.
    pub(super) fn unhidden(self) -> Self {
        Self { hides: false, ..self }
    }

    /// It is the request's own, and not one that is made for it.
    pub(super) fn noting(self, plan: &Plan<'a>) -> Self {
        let ahead = plan.route.policy.buffering.answer_bytes;
        Self { record: Some(plan.record), ahead, ..self }
    }
}

/// Until when another endpoint may be asked.
struct Limit(Option<Instant>);

impl Limit {
    fn of(retries: &Retries) -> Self {
        Self(retries.within_ms.map(|ms| Instant::now() + Duration::from_millis(ms)))
    }

    fn is_over(&self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }
}

/// Sends a request to an endpoint of the upstream, to another one if that cannot do harm.
///
/// What is not every request's is awaited in a box, and the request is in one: futures are copied as
/// they are begun, with the room for everything they may ever await.
pub(super) async fn forward(
    client: &Rc<Client>,
    errand: &Errand<'_>,
    mut request: Box<Request<RequestBody>>,
    asked: Option<Box<Asked>>,
) -> Response<ResponseBody> {
    let worker = &client.worker;
    let Errand { upstream, retries, .. } = errand;
    let in_turn = || Pick::Turn(worker.pool.turn(upstream, worker.clock.now_ms()));
    let pick = errand.pick.unwrap_or_else(in_turn);
    let limit = Limit::of(retries);
    let mut failure = StatusCode::SERVICE_UNAVAILABLE;
    let mut tried = SmallVec::<[u64; 2]>::new();
    // For a successor of whoever went away.
    let mut waits = true;
    // An endpoint that was asked before, once: with the request it fails at it may do so without end.
    let mut repeats = true;
    while tried.len() < retries.tries_max && (tried.is_empty() || !limit.is_over()) {
        // Anew each time: what just failed may be no endpoint any more.
        let mut chosen = upstream.choose(pick, &tried);
        if chosen.is_none() && !tried.is_empty() && waits {
            chosen = Box::pin(another(worker, upstream, pick, (&tried, repeats))).await;
        }
        let Some(endpoint) = chosen else { break };
        if !tried.is_empty() {
            worker.counters.upstream_retries.add();
        }
        repeats &= !tried.contains(&endpoint.id());
        tried.push(endpoint.id());
        if let Some(record) = errand.record {
            record.asks(endpoint.address());
            if matches!(pick, Pick::Idlest { .. }) {
                record.keeps(InFlight::at(&endpoint));
            }
        }
        let timing = matches!(pick, Pick::Faster { .. })
            .then(|| Timing::of(&endpoint, request.body().progress()));
        let attempt = match endpoint.protocol() {
            Protocol::Http1 | Protocol::Https => attempt(client, errand, &endpoint, request).await,
            Protocol::H2c | Protocol::Grpcs => {
                Box::pin(attempt2(client, errand, &endpoint, request)).await
            }
        };
        if let Some(timing) = timing {
            timing.end(attempt.failed_by());
        }
        if let (Some(record), Some(status)) = (errand.record, attempt.failed_by()) {
            record.fails(status);
        }
        match attempt {
            Attempt::Answered(response, mut carrier, replay) => {
                let status = response.status();
                if let Some(record) = errand.record {
                    record.answered(status);
                }
                errand.served.set(Some(endpoint.address()));
                let is_passed_over = retries.on_status(status)
                    && tried.len() < retries.tries_max
                    && !limit.is_over()
                    && upstream.choose(pick, &tried).is_some();
                if is_passed_over && let Some(again) = again(&mut carrier, replay) {
                    if let Some(record) = errand.record {
                        record.leaves();
                    }
                    (request, failure) = (again, status);
                    continue;
                }
                return match (asked, carrier) {
                    (Some(asked), Carrier::H1(connection))
                        if response.status() == StatusCode::SWITCHING_PROTOCOLS =>
                    {
                        switch(client, errand, response, connection, *asked)
                    }
                    (Some(asked), _) if asked.is_misread(response.status()) => {
                        answer::status(StatusCode::BAD_GATEWAY)
                    }
                    (_, carrier) => relay(client, errand, response, carrier),
                };
            }
            Attempt::Again(_, status) if !retries.may_follow(status) => {
                return answer::status(status);
            }
            Attempt::Again(again, status) => (request, failure) = (again, status),
            Attempt::Late(again) if retries.may_follow(StatusCode::GATEWAY_TIMEOUT) => {
                (request, failure, waits) = (again, StatusCode::GATEWAY_TIMEOUT, false);
            }
            Attempt::Late(_) => return answer::status(StatusCode::GATEWAY_TIMEOUT),
            Attempt::Misread(again) if retries.on_invalid_header() => {
                (request, failure, waits) = (again, StatusCode::BAD_GATEWAY, false);
            }
            Attempt::Misread(_) => return answer::status(StatusCode::BAD_GATEWAY),
            Attempt::Failed(status) => return answer::status(status),
        }
    }
    answer::status(failure)
}

/// Pods end before EndpointSlices say so: when the last endpoint just stopped answering, its
/// successor is probably on its way. What could not be reached is marked as failing by then.
async fn another(
    worker: &Worker,
    upstream: &Upstream,
    pick: Pick,
    (tried, repeats): (&[u64], bool),
) -> Option<Arc<Endpoint>> {
    let patience_ms = worker.config().timeouts.upstream_change_ms;
    loop {
        worker.shared.timer.sleep(LOOK_AGAIN).await;
        if let Some(untried) = upstream.choose(pick, tried) {
            return Some(untried);
        }
        let newest = upstream.choose(pick, &[])?;
        match newest.failing_for_ms() {
            // It is reached, perhaps again.
            None => return repeats.then_some(newest),
            Some(failing_ms) if failing_ms >= patience_ms => return None,
            Some(_) => {}
        }
    }
}

async fn attempt(
    client: &Rc<Client>,
    errand: &Errand<'_>,
    endpoint: &Arc<Endpoint>,
    mut request: Box<Request<RequestBody>>,
) -> Attempt {
    let worker = &client.worker;
    let Errand { patience, retries, .. } = errand;
    while let Some(mut connection) = worker.pool.take(endpoint) {
        // What may not be sent twice is not sent into a connection that is closed already.
        if !connection.keep(&request, retries.non_idempotent()) && !connection.is_silent() {
            continue;
        }
        match connection.send(request, worker, patience).await {
            Ok(response) => {
                worker.counters.upstream_reuses.add();
                return Attempt::Answered(response, Carrier::H1(connection), None);
            }
            // It had been closed while idle: no harm done.
            Err(SendError::Unsent(again)) => request = again,
            // It was closed just as the request was sent (RFC 9110 9.2.2, RFC 9112 9.3.1).
            Err(SendError::Broken) => match connection.again() {
                Some(again) => {
                    worker.counters.upstream_retries.add();
                    request = again;
                    break;
                }
                None => return Attempt::Failed(status_of(&SendError::Broken)),
            },
            Err(error) => return failed(&error, connection.again()),
        }
    }
    let begun = Instant::now();
    let connected = Box::pin(connect(worker, endpoint, patience.connect_ms)).await;
    let mut connection = match connected {
        Ok(connection) => {
            if let Some(record) = errand.record {
                record.connected(begun.elapsed());
            }
            connection
        }
        Err(error) => return Attempt::Again(request, status_of_connect(error)),
    };
    connection.keep(&request, retries.non_idempotent());
    match connection.send(request, worker, patience).await {
        Ok(response) => Attempt::Answered(response, Carrier::H1(connection), None),
        Err(SendError::Unsent(again)) => {
            endpoint.failed();
            Attempt::Again(again, StatusCode::BAD_GATEWAY)
        }
        Err(SendError::Broken) => match connection.again() {
            // It was reached. What it does with this request says nothing of it to others, whom anybody could
            // lead away from it so.
            Some(again) => Attempt::Again(again, StatusCode::BAD_GATEWAY),
            None => Attempt::Failed(status_of(&SendError::Broken)),
        },
        Err(error) => failed(&error, connection.again()),
    }
}

/// The request of an answer that is not to be the last word.
fn again(carrier: &mut Carrier, replay: Option<Box<Replay>>) -> Option<Box<Request<RequestBody>>> {
    match carrier {
        Carrier::H1(connection) => connection.again(),
        Carrier::H2(..) => replay?.again(),
    }
}

/// Who took too long may not have been the only one who could answer.
fn failed(error: &SendError, again: Option<Box<Request<RequestBody>>>) -> Attempt {
    match (error, again) {
        (SendError::TimedOut, Some(again)) => Attempt::Late(again),
        (SendError::Reset, Some(again)) => Attempt::Again(again, StatusCode::BAD_GATEWAY),
        (SendError::Misread, Some(again)) => Attempt::Misread(again),
        _ => Attempt::Failed(status_of(error)),
    }
}

async fn attempt2(
    client: &Rc<Client>,
    errand: &Errand<'_>,
    endpoint: &Arc<Endpoint>,
    mut request: Box<Request<RequestBody>>,
) -> Attempt {
    let mut is_failing = false;
    // The first connection may have been closed just now; the second is a new one.
    for _ in 0..2 {
        let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
        *request.body_mut() = body.recallable(&client.worker.repeats);
        let mut replay = Box::<Replay>::default();
        replay.keep(&request, true);
        let may_repeat = errand.retries.non_idempotent() || request.method().is_idempotent();
        let Errand { patience, record, .. } = errand;
        let record = record.map(|record| &**record);
        let sent = upstream2::send(&client.worker, endpoint, request, patience, record).await;
        request = match sent {
            Ok((response, stream)) => {
                let (head, incoming) = response.into_parts();
                let carrier = Carrier::H2(incoming, stream);
                let replay = may_repeat.then_some(replay);
                return Attempt::Answered(Response::from_parts(head, ()), carrier, replay);
            }
            Err(Failed2::Connect(error, request)) => {
                return Attempt::Again(unsent(request), status_of_connect(error));
            }
            Err(Failed2::Send(SendError::Unsent(again))) => {
                is_failing = true;
                unsent(again)
            }
            Err(Failed2::Send(error)) => {
                is_failing = false;
                let is_refused = matches!(error, SendError::Unprocessed);
                let again = replay.again().filter(|_| may_repeat || is_refused);
                match (error, again) {
                    (SendError::Broken | SendError::Unprocessed, Some(again)) => again,
                    (error, again) => return failed(&error, again),
                }
            }
        };
    }
    if is_failing {
        endpoint.failed();
    }
    Attempt::Again(request, StatusCode::BAD_GATEWAY)
}

fn unsent(mut request: Box<Request<RequestBody>>) -> Box<Request<RequestBody>> {
    let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
    *request.body_mut() = body.unsent();
    request
}

fn status_of_connect(error: ConnectError) -> StatusCode {
    match error {
        ConnectError::Refused => StatusCode::BAD_GATEWAY,
        ConnectError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

fn status_of(error: &SendError) -> StatusCode {
    match error {
        SendError::Unsent(_)
        | SendError::Broken
        | SendError::Reset
        | SendError::Unprocessed
        | SendError::Misread => StatusCode::BAD_GATEWAY,
        SendError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        SendError::ClientTimedOut => StatusCode::REQUEST_TIMEOUT,
        SendError::ClientBroke => StatusCode::BAD_REQUEST,
        SendError::ClientTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
    }
}

fn relay(
    client: &Rc<Client>,
    errand: &Errand<'_>,
    response: Response<()>,
    mut carrier: Carrier,
) -> Response<ResponseBody> {
    let (mut head, ()) = response.into_parts();
    if let Carrier::H1(connection) = &mut carrier {
        connection.settle();
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for that; what follows is in no protocol we know.
        return answer::status(StatusCode::BAD_GATEWAY);
    }
    fields::to_client(&mut head.headers);
    let told = hide(client, errand, &mut head.headers);
    head.headers.entry(SERVER).or_insert_with(|| answer::SERVER_NAME.clone());
    head.version = Version::HTTP_11;
    let mut body = ResponseBody::upstream(carrier, client.clone(), &errand.patience);
    if let Some(bytes_max) = errand.ahead.filter(|_| !told.is_unbuffered) {
        body.read_ahead(errand.record, bytes_max);
    }
    if let Some(pace) = told.pace {
        body.slow_down(pace, &client.worker.shared.timer);
    }
    Response::from_parts(head, body)
}

/// Takes fields off an endpoint's answer that no client sees; what they say to us.
fn hide(client: &Client, errand: &Errand<'_>, headers: &mut HeaderMap) -> Accel {
    if !errand.hides {
        return Accel::default();
    }
    let told = Accel::take(headers);
    let mut take_off = |config: &IngressConfig| {
        for name in &config.hidden_headers {
            headers.remove(name);
        }
    };
    match errand.record {
        Some(record) => take_off(&record.config),
        None => take_off(&client.worker.config()),
    }
    told
}

/// Only after the upstream's 101: what follows the request's head is tunnelled, nothing before
/// (CVE-2026-2833).
fn switch(
    client: &Rc<Client>,
    errand: &Errand<'_>,
    response: Response<()>,
    connection: Box<UpstreamConnection>,
    asked: Asked,
) -> Response<ResponseBody> {
    let (mut head, ()) = response.into_parts();
    if !asked.is_agreed(&head.headers) {
        return answer::status(StatusCode::BAD_GATEWAY);
    }
    let Some((stream, early)) = connection.into_tunnel() else {
        return answer::status(StatusCode::BAD_GATEWAY);
    };
    client.worker.counters.tunnels.add();
    fields::to_client(&mut head.headers);
    hide(client, errand, &mut head.headers);
    let mut response = Response::from_parts(head, ResponseBody::empty());
    asked.agree(&mut response);
    let Asked { side, slot, record, .. } = asked;
    let down = match side {
        Side::Connection(upgraded) => Down::Connection(upgraded),
        Side::Stream(body) => {
            let (pipe, outflow) = pipe::pipe(body);
            *response.body_mut() = ResponseBody::tunnel(outflow);
            Down::Stream(pipe)
        }
    };
    let patience = errand.patience;
    let tunnel = Tunnel { down, up: stream, early, patience, slot, record };
    spawn_local(tunnel::run(client.clone(), tunnel));
    response
}
