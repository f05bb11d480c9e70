//! What stays open from the first change to the last: WebSockets and streams of calls, each with something to say five
//! times a second.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::{SinkExt as _, channel::mpsc};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Request,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_TYPE, TE},
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use super::{
    HTTP,
    clients::{PATIENCE, connected, h2, tls},
    objects,
    seen::{Seen, What},
    upstreams::KEY,
};

const BETWEEN: Duration = Duration::from_millis(200);
/// A masked text frame that says `hello` (RFC 6455 5.7).
const FRAME: [u8; 11] = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
/// gRPC's prefix, not compressed and five bytes long, and these.
pub(super) const MESSAGE: [u8; 10] = *b"\0\0\0\0\x05hello";

type Outcome<T> = Result<T, String>;

/// Opens a WebSocket and goes on until it is told to end.
pub(super) async fn converse(seen: &Seen, trust: &Arc<ClientConfig>, host: usize, is_tls: bool) {
    if is_tls {
        // What it says first is what ALPN would have it say.
        let mut trust = (**trust).clone();
        trust.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = tls(trust.into(), host).await.expect("a connection");
        seen.run(keep(seen.clone(), opened(stream, host).await.expect("a WebSocket")));
    } else {
        let stream = connected(HTTP).await.expect("a connection");
        seen.run(keep(seen.clone(), opened(stream, host).await.expect("a WebSocket")));
    }
}

async fn opened<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, host: usize) -> Outcome<S> {
    let head = format!(
        "GET /chat HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        objects::host(host)
    );
    stream.write_all(head.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await.map_err(|_| "no head")?;
        head.push(byte.map_err(|error| error.to_string())?);
    }
    match head.starts_with(b"HTTP/1.1 101 ") {
        true => Ok(stream),
        false => Err(String::from_utf8_lossy(&head).into_owned()),
    }
}

async fn keep<S: AsyncRead + AsyncWrite + Unpin>(seen: Seen, mut stream: S) {
    while !seen.is_over() {
        let echoed = async {
            let mut echo = [0; FRAME.len()];
            stream.write_all(&FRAME).await?;
            stream.read_exact(&mut echo).await?;
            std::io::Result::Ok(echo)
        };
        let outcome = match timeout(PATIENCE, echoed).await {
            Ok(Ok(FRAME)) => Ok(None),
            Ok(Ok(other)) => Err(format!("a WebSocket's echo: {other:?}")),
            Ok(Err(error)) => Err(format!("a WebSocket: {error}")),
            Err(_) => Err("a WebSocket: no echo".to_owned()),
        };
        let is_broken = outcome.is_err();
        seen.count(What::WebSockets, outcome);
        if is_broken {
            return;
        }
        sleep(BETWEEN).await;
    }
}

/// Begins a call that has messages both ways, and goes on until it is told to end.
pub(super) async fn call(seen: &Seen, trust: &Arc<ClientConfig>, host: usize) {
    let stream = tls(trust.clone(), host).await.expect("a connection");
    let mut sender = h2(stream).await.expect("a connection");
    let (say, said) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let request = Request::post(format!("https://{}/echo.Echo/Talk", objects::host(host)))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(StreamBody::new(said))
        .expect("a request");
    let seen_too = seen.clone();
    seen.run(async move {
        let calling = timeout(PATIENCE, sender.send_request(request)).await;
        let answer = match calling {
            Ok(Ok(response)) if response.status() == 200 => response.into_body(),
            other => return seen_too.count(What::GrpcStreams, Err(format!("a call: {other:?}"))),
        };
        if let Err(error) = talk(&seen_too, say, answer).await {
            seen_too.count(What::GrpcStreams, Err(error));
        }
        drop(sender);
    });
}

async fn talk(
    seen: &Seen,
    mut say: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
    mut answer: Incoming,
) -> Outcome<()> {
    while !seen.is_over() {
        let message = Frame::data(Bytes::from_static(&MESSAGE));
        say.send(Ok(message)).await.map_err(|_| "a stream takes no more")?;
        let mut echo = Vec::new();
        while echo.len() < MESSAGE.len() {
            echo.extend(next(&mut answer).await?.ok_or("a stream ended")?);
        }
        if echo != MESSAGE {
            return Err(format!("a stream's echo: {echo:?}"));
        }
        seen.count(What::GrpcStreams, Ok(None));
        sleep(BETWEEN).await;
    }
    drop(say);
    match next(&mut answer).await? {
        None => seen.count(What::GrpcStreams, Ok(None)),
        Some(more) => return Err(format!("more than was said: {more:?}")),
    }
    Ok(())
}

/// The next part of an answer; `None`: trailers that say that all went well.
async fn next(answer: &mut Incoming) -> Outcome<Option<Bytes>> {
    let frame = timeout(PATIENCE, answer.frame()).await.map_err(|_| "a stream: nothing comes")?;
    let frame = frame.ok_or("a stream without trailers")?;
    let frame = frame.map_err(|error| format!("a stream: {error:?}"))?;
    match frame.into_data() {
        Ok(data) => Ok(Some(data)),
        Err(frame) => {
            let trailers = frame.into_trailers().unwrap_or_default();
            let is_good = trailers.get("grpc-status").is_some_and(|status| status == "0");
            is_good.then_some(None).ok_or_else(|| format!("trailers: {trailers:?}"))
        }
    }
}
