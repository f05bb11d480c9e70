//! Upstreams that say which one they are, echo what WebSockets send, and answer gRPC with what they are told.

use std::{convert::Infallible, future::ready, net::SocketAddr};

use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, runtime::Runtime};

/// What each repeats in its answers.
pub(super) const LETTERS: [u8; 2] = *b"ab";
/// How often, in bytes.
pub(super) const BODY_BYTES: usize = 128;
/// Of RFC 6455 1.3.
pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Names the upstream in what it answers to calls.
pub(super) const LETTER: &str = "x-letter";

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

/// One for each letter, HTTP/1 and HTTP/2 without TLS at the same port; they end with the runtime.
pub(super) struct Upstreams {
    pub(super) addresses: [SocketAddr; LETTERS.len()],
}

impl Upstreams {
    pub(super) fn start(runtime: &Runtime) -> Self {
        let addresses = LETTERS.map(|letter| {
            let bound = runtime.spawn(TcpListener::bind("127.0.0.1:0"));
            let listener = runtime.block_on(bound).expect("no panic").expect("a port");
            let address = listener.local_addr().expect("bound");
            runtime.spawn(serve(listener, letter));
            address
        });
        Self { addresses }
    }
}

async fn serve(listener: TcpListener, letter: u8) {
    loop {
        let (stream, _) = listener.accept().await.expect("open");
        stream.set_nodelay(true).expect("a socket");
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let answers =
                service_fn(move |request| ready(Ok::<_, Infallible>(answer(request, letter))));
            // A proxy may break off as it likes.
            drop(builder.serve_connection_with_upgrades(TokioIo::new(stream), answers).await);
        });
    }
}

fn answer(request: Request<Incoming>, letter: u8) -> Answer {
    if request.headers().contains_key(UPGRADE) {
        return switched(request);
    }
    let is_call = request.headers().get(CONTENT_TYPE).is_some_and(|it| it == "application/grpc");
    if is_call {
        return called(request, letter);
    }
    let body = Full::new(Bytes::from(vec![letter; BODY_BYTES]));
    Response::new(body.map_err(|never| match never {}).boxed_unsync())
}

fn called(request: Request<Incoming>, letter: u8) -> Answer {
    let status = HeaderMap::from_iter([(
        "grpc-status".parse().expect("a name"),
        HeaderValue::from_static("0"),
    )]);
    let body = request.into_body().with_trailers(ready(Some(Ok(status))));
    Response::builder()
        .header(CONTENT_TYPE, "application/grpc")
        .header(LETTER, HeaderValue::from_bytes(&[letter]).expect("a letter"))
        .body(body.boxed_unsync())
        .expect("fields")
}

fn switched(mut request: Request<Incoming>) -> Answer {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
        drop(tokio::io::copy(&mut read, &mut write).await);
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, ACCEPT)
        .body(Full::default().map_err(|never| match never {}).boxed_unsync())
        .expect("fields")
}
