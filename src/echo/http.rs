use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Request, Response, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What a request looked like to the pod that answered it.
#[derive(Serialize)]
struct Seen<'a> {
    pod: &'a str,
    client: SocketAddr,
    method: &'a str,
    path: &'a str,
    headers: BTreeMap<&'a str, String>,
}

/// A connection without a request yet is given so long to bring one before it is closed.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two tries when a connection cannot be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Takes connections. Once `draining`, each answer closes its connection: a client hears of it with
/// an answer, never instead of one. When no new connection has come for the `quiet` time, or after
/// `most` in all, idle ones are closed and this ends with the last request.
pub(crate) async fn serve(
    listener: TcpListener,
    pod: Arc<str>,
    draining: CancellationToken,
    quiet: Duration,
    most: Duration,
) {
    let open = TaskTracker::new();
    let stop = CancellationToken::new();
    let take = |(stream, peer)| {
        let tokens = (draining.clone(), stop.clone());
        drop(open.spawn(connection(stream, peer, pod.clone(), tokens)));
    };
    while let Some(accepted) = draining.run_until_cancelled(accept(&listener)).await {
        take(accepted);
    }
    let drained = Instant::now() + most;
    while let Ok(accepted) = timeout(quiet, accept(&listener)).await {
        take(accepted);
        if Instant::now() > drained {
            break;
        }
    }
    drop(listener);
    stop.cancel();
    open.close();
    open.wait().await;
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // Out of descriptors: the connection stays in the backlog until one is free.
            Err(error) => tracing::warn!(%error, "accept"),
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    pod: Arc<str>,
    (draining, stop): (CancellationToken, CancellationToken),
) {
    let client = super::canonical(peer);
    let fresh = AtomicBool::new(true);
    let service = service_fn(|request| {
        fresh.store(false, Ordering::Relaxed);
        let mut answer = answer(&pod, client, &request);
        if draining.is_cancelled() {
            let close = header::HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        async { Ok::<_, Infallible>(answer) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
    );
    let patience = async {
        stop.cancelled().await;
        if fresh.load(Ordering::Relaxed) {
            tokio::time::sleep(FIRST_REQUEST_TIMEOUT).await;
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = patience => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, %client, "connection");
    }
}

fn answer(pod: &str, client: SocketAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let seen = Seen {
        pod,
        client,
        method: request.method().as_str(),
        path: request.uri().path(),
        headers: headers(request.headers()),
    };
    let body = serde_json::to_vec(&seen).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn headers(map: &HeaderMap) -> BTreeMap<&str, String> {
    let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.as_str(), text(value))).collect()
}
