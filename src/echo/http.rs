use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, pin::pin, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Request, Response, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
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

/// Takes connections until `stop`, then closes idle ones and lets requests finish. Once `draining`,
/// each answer closes its connection: a client hears of it with an answer, never instead of one.
pub(crate) async fn serve(
    listener: TcpListener,
    pod: Arc<str>,
    draining: CancellationToken,
    stop: CancellationToken,
) {
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let tokens = (draining.clone(), stop.clone());
                open.spawn(connection(stream, peer, pod.clone(), tokens));
            }
            // Out of descriptors, or the client was gone before we looked: others still want to be
            // served.
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::task::yield_now().await;
            }
        }
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    pod: Arc<str>,
    (draining, stop): (CancellationToken, CancellationToken),
) {
    let client = super::canonical(peer);
    let service = service_fn(|request| {
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
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
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
