//! A request's way to an endpoint and its response's way back.

use std::{rc::Rc, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, Version, header::SERVER};
use hyper::body::Incoming;
use tokio::task::spawn_local;

use super::{
    answer,
    body::{Carrier, RequestBody, ResponseBody},
    client::Client,
    connect::{ConnectError, connect},
    fields,
    replay::Replay,
    tunnel,
    upstream::{SendError, UpstreamConnection},
    upstream2::{self, Failed2},
    websocket::Asked,
    worker::Worker,
};
use crate::routes::{Endpoint, Protocol, Upstream};

/// While an upstream's endpoints are waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What became of a request at one endpoint.
enum Attempt {
    /// It answered; the body is still to come.
    Answered(Response<Incoming>, Carrier),
    /// It did not, and another may be asked (the status, if there is none).
    Again(Request<RequestBody>, StatusCode),
    /// It did not, and nobody else may be asked: it could have acted on the request.
    Failed(StatusCode),
}

/// Sends a request to an endpoint of the upstream, to another one if that cannot do harm.
pub(super) async fn forward(
    client: &Rc<Client>,
    upstream: &Upstream,
    mut request: Request<RequestBody>,
    asked: Option<Asked>,
) -> Response<ResponseBody> {
    let worker = &client.worker;
    let turn = worker.pool.turn(upstream, worker.clock.now_ms());
    let tries_max = worker.shared.config.limits.upstream_tries_max;
    let mut failure = StatusCode::SERVICE_UNAVAILABLE;
    let mut tried = Vec::new();
    while tried.len() < tries_max {
        // Anew each time: what just failed may be no endpoint any more.
        let mut chosen = upstream.choose(turn, &tried);
        if chosen.is_none() && !tried.is_empty() {
            chosen = another(worker, upstream, turn, &tried).await;
        }
        let Some(endpoint) = chosen else { break };
        if !tried.is_empty() {
            worker.counters.upstream_retries.add();
        }
        tried.push(endpoint.id());
        let attempt = match endpoint.protocol() {
            Protocol::Http1 | Protocol::Https => attempt(client, &endpoint, request).await,
            Protocol::H2c | Protocol::Grpcs => attempt2(client, &endpoint, request).await,
        };
        match attempt {
            Attempt::Answered(response, carrier) => {
                return match (asked, carrier) {
                    (Some(asked), Carrier::H1(connection))
                        if response.status() == StatusCode::SWITCHING_PROTOCOLS =>
                    {
                        switch(client, response, connection, asked).await
                    }
                    (Some(asked), _) if asked.is_misread(response.status()) => {
                        answer::status(StatusCode::BAD_GATEWAY)
                    }
                    (_, carrier) => relay(client, response, carrier),
                };
            }
            Attempt::Again(again, status) => (request, failure) = (again, status),
            Attempt::Failed(status) => return answer::status(status),
        }
    }
    answer::status(failure)
}

/// Pods end before EndpointSlices say so: when the last endpoint just stopped answering, its
/// successor is probably on its way. Whatever was tried is marked as failing by then.
async fn another(
    worker: &Worker,
    upstream: &Upstream,
    turn: usize,
    tried: &[u64],
) -> Option<Arc<Endpoint>> {
    let patience_ms = worker.shared.config.timeouts.upstream_change_ms;
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        if let Some(untried) = upstream.choose(turn, tried) {
            return Some(untried);
        }
        let newest = upstream.choose(turn, &[])?;
        match newest.failing_for_ms() {
            // Others reach it again.
            None => return Some(newest),
            Some(failing_ms) if failing_ms >= patience_ms => return None,
            Some(_) => {}
        }
    }
}

async fn attempt(
    client: &Rc<Client>,
    endpoint: &Arc<Endpoint>,
    mut request: Request<RequestBody>,
) -> Attempt {
    let worker = &client.worker;
    while let Some(mut connection) = worker.pool.take(endpoint) {
        let replay = Replay::of(&request);
        if replay.is_none() {
            connection.look_first();
        }
        match connection.send(request, worker).await {
            Ok(response) => {
                worker.counters.upstream_reuses.add();
                return Attempt::Answered(response, Carrier::H1(connection));
            }
            // It had been closed while idle: no harm done.
            Err(SendError::Unsent(again)) => request = *again,
            // It was closed just as the request was sent (RFC 9110 9.2.2, RFC 9112 9.3.1).
            Err(SendError::Broken) if let Some(again) = replay.and_then(Replay::into_request) => {
                worker.counters.upstream_retries.add();
                request = again;
                break;
            }
            Err(error) => return Attempt::Failed(status_of(&error)),
        }
    }
    let mut connection = match connect(worker, endpoint).await {
        Ok(connection) => connection,
        Err(error) => return Attempt::Again(request, status_of_connect(error)),
    };
    let replay = Replay::of(&request);
    match connection.send(request, worker).await {
        Ok(response) => Attempt::Answered(response, Carrier::H1(connection)),
        Err(SendError::Unsent(again)) => {
            endpoint.failed();
            Attempt::Again(*again, StatusCode::BAD_GATEWAY)
        }
        Err(SendError::Broken) if let Some(again) = replay.and_then(Replay::into_request) => {
            endpoint.failed();
            Attempt::Again(again, StatusCode::BAD_GATEWAY)
        }
        Err(error) => Attempt::Failed(status_of(&error)),
    }
}

async fn attempt2(
    client: &Rc<Client>,
    endpoint: &Arc<Endpoint>,
    mut request: Request<RequestBody>,
) -> Attempt {
    // The first connection may have been closed just now; the second is a new one.
    for _ in 0..2 {
        let replay = Replay::of(&request);
        request = match upstream2::send(&client.worker, endpoint, request).await {
            Ok((response, watch)) => return Attempt::Answered(response, Carrier::H2(watch)),
            Err(Failed2::Connect(error, request)) => {
                return Attempt::Again(*request, status_of_connect(error));
            }
            Err(Failed2::Send(SendError::Unsent(again))) => *again,
            Err(Failed2::Send(SendError::Broken))
                if let Some(again) = replay.and_then(Replay::into_request) =>
            {
                again
            }
            Err(Failed2::Send(error)) => return Attempt::Failed(status_of(&error)),
        };
    }
    endpoint.failed();
    Attempt::Again(request, StatusCode::BAD_GATEWAY)
}

fn status_of_connect(error: ConnectError) -> StatusCode {
    match error {
        ConnectError::Refused => StatusCode::BAD_GATEWAY,
        ConnectError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

fn status_of(error: &SendError) -> StatusCode {
    match error {
        SendError::Unsent(_) | SendError::Broken => StatusCode::BAD_GATEWAY,
        SendError::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        SendError::ClientTimedOut => StatusCode::REQUEST_TIMEOUT,
        SendError::ClientBroke => StatusCode::BAD_REQUEST,
        SendError::ClientTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
    }
}

fn relay(
    client: &Rc<Client>,
    response: Response<Incoming>,
    carrier: Carrier,
) -> Response<ResponseBody> {
    let (mut head, incoming) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for that; what follows is in no protocol we know.
        return answer::status(StatusCode::BAD_GATEWAY);
    }
    fields::to_client(&mut head.headers);
    head.headers.entry(SERVER).or_insert_with(|| answer::SERVER_NAME.clone());
    head.version = Version::HTTP_11;
    let body = ResponseBody::upstream(incoming, carrier, client.clone());
    Response::from_parts(head, body)
}

/// Only after the upstream's 101: what follows the request's head is tunnelled, nothing before
/// (CVE-2026-2833).
async fn switch(
    client: &Rc<Client>,
    response: Response<Incoming>,
    connection: Box<UpstreamConnection>,
    asked: Asked,
) -> Response<ResponseBody> {
    let (mut head, _) = response.into_parts();
    if !asked.is_agreed(&head.headers) {
        return answer::status(StatusCode::BAD_GATEWAY);
    }
    let Some((stream, early)) = connection.into_tunnel().await else {
        return answer::status(StatusCode::BAD_GATEWAY);
    };
    client.worker.counters.tunnels.add();
    fields::to_client(&mut head.headers);
    let mut response = Response::from_parts(head, ResponseBody::empty());
    asked.agree(&mut response);
    client.becomes_tunnel();
    spawn_local(tunnel::run(client.clone(), asked.on_upgrade, stream, early));
    response
}
