//! Upstreams that say which one they are, and echo what WebSockets and gRPC calls send.

use std::{convert::Infallible, future::ready, net::SocketAddr, sync::mpsc, thread};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Error, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{io, net::TcpListener, sync::oneshot};

use crate::check;

/// What each of them repeats in its answers.
pub const LETTERS: [u8; 2] = *b"ab";
/// How often, in bytes.
pub const SMALL: usize = 128;
pub const BIG: usize = 1 << 20;
/// Of RFC 6455 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// How a call and its outcome are told.
pub const GRPC: &str = "application/grpc";
pub const STATUS: &str = "grpc-status";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

type Body = BoxBody<Bytes, Error>;

/// One for each letter; they end when this is dropped.
pub struct Origins {
    pub addresses: Vec<SocketAddr>,
    _end: oneshot::Sender<()>,
}

impl Origins {
    /// Starts them in a thread of their own.
    pub fn start() -> Self {
        let (end, ended) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let mut addresses = vec![];
                for letter in LETTERS {
                    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                    addresses.push(listener.local_addr().unwrap());
                    tokio::spawn(serve(listener, letter));
                }
                ready.send(addresses).unwrap();
                let _ = ended.await;
            });
        });
        Self { addresses: started.recv().unwrap(), _end: end }
    }
}

async fn serve(listener: TcpListener, letter: u8) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let answers =
            service_fn(move |request| ready(Ok::<_, Infallible>(answer(request, letter))));
        // A proxy may break off as it likes.
        tokio::spawn(async move {
            let connections = auto::Builder::new(TokioExecutor::new());
            drop(connections.serve_connection_with_upgrades(TokioIo::new(stream), answers).await);
        });
    }
}

fn answer(mut request: Request<Incoming>, letter: u8) -> Response<Body> {
    if request.headers().get(CONTENT_TYPE).is_some_and(|value| value == GRPC) {
        return echoes(request.into_body());
    }
    if !request.headers().contains_key(UPGRADE) {
        let body = match request.uri().path() {
            check::PATH => fields(request.headers()).into_bytes(),
            _ => vec![letter; SMALL],
        };
        return Response::new(whole(body));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut read, mut write) = io::split(TokioIo::new(upgraded));
        let _ = io::copy(&mut read, &mut write).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, ACCEPT)
        .body(whole(vec![]))
        .unwrap()
}

fn whole(body: Vec<u8>) -> Body {
    Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed()
}

/// Each part as it comes, then that all went well.
fn echoes(parts: Incoming) -> Response<Body> {
    let well = HeaderMap::from_iter([(STATUS.parse().unwrap(), HeaderValue::from_static("0"))]);
    let end = stream::once(ready(Ok(Frame::trailers(well))));
    let body = BodyExt::boxed(StreamBody::new(BodyStream::new(parts).chain(end)));
    Response::builder().header(CONTENT_TYPE, GRPC).body(body).unwrap()
}

/// Which of those to be set there are.
fn fields(headers: &HeaderMap) -> String {
    let line = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        format!("{name} {}\n", value.unwrap_or_default())
    };
    check::FIELDS.map(line).concat()
}
