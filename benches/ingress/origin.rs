//! Upstreams that say which one they are, and echo what WebSockets send.

use std::{convert::Infallible, future::ready, net::SocketAddr, sync::mpsc, thread};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderMap, SEC_WEBSOCKET_ACCEPT, UPGRADE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{io, net::TcpListener, sync::oneshot};

use crate::check;

/// What each of them repeats in its answers.
pub const LETTERS: [u8; 2] = *b"ab";
/// How often, in bytes.
pub const SMALL: usize = 128;
pub const BIG: usize = 1 << 20;
/// Of RFC 6455 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

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
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answers);
        // A proxy may break off as it likes.
        tokio::spawn(async { drop(connection.with_upgrades().await) });
    }
}

fn answer(mut request: Request<Incoming>, letter: u8) -> Response<Full<Bytes>> {
    if !request.headers().contains_key(UPGRADE) {
        let body = match request.uri().path() {
            check::PATH => fields(request.headers()).into_bytes(),
            _ => vec![letter; SMALL],
        };
        return Response::new(Full::new(Bytes::from(body)));
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
        .body(Full::default())
        .unwrap()
}

/// Which of those to be set there are.
fn fields(headers: &HeaderMap) -> String {
    let line = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        format!("{name} {}\n", value.unwrap_or_default())
    };
    check::FIELDS.map(line).concat()
}
