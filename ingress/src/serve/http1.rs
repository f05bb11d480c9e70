//! HTTP/1 on a client's connection. There is a conversation while there is something to do; in
//! between nothing is held but what the connection itself needs.

mod arriving;
mod link;
mod reply;
mod talk;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

pub(crate) use self::arriving::{Arriving, Upgraded};
use self::{
    link::Link,
    talk::{End, attend, talk},
};
use super::{
    client::Client,
    http2,
    prefixed::Prefixed,
    wire::{ClientWire, Tcp, Wire},
    worker::Stage,
};

/// What a client may still send after an answer that did not wait for its request's end.
const LINGER_BYTES_MAX: usize = 256 << 10;
pub(super) const LINGER_MS: u64 = 1_000;
/// It is thrown away.
const SCRAP_BYTES: usize = 8 << 10;

/// How a conversation ended.
enum Ended {
    /// There may be another one.
    Paused(ClientWire),
    /// The client speaks HTTP/2; what was read, and the rest.
    Preface(Bytes, ClientWire),
    /// For good.
    Closed,
}

/// What a connection at rest waits for.
enum Next {
    /// There is something to read.
    Arrival,
    /// Nothing: it is to end.
    Goodbye,
    /// It is over.
    Gone,
}

/// Serves HTTP/1 or, if the client begins with its preface, HTTP/2 (RFC 9113 3.3: h2c).
pub(super) async fn plain(stream: TcpStream, client: Rc<Client>) {
    if let Some((preface, Wire::Plain(stream))) = serve(Wire::Plain(stream), &client).await {
        client.connected(true);
        Box::pin(http2::serve(Prefixed::new(preface, stream), client)).await;
    }
}

/// Serves HTTP/1 through TLS.
pub(super) async fn encrypted(stream: Box<TlsStream<Tcp>>, client: Rc<Client>) {
    // Who wants HTTP/2 says so in the handshake.
    _ = serve(Wire::Tls(stream), &client).await;
}

/// Serves HTTP/1 on a connection until it ends. Gives it back, with what was read, if what comes is
/// HTTP/2 without encryption.
async fn serve(mut wire: ClientWire, client: &Rc<Client>) -> Option<(Bytes, ClientWire)> {
    loop {
        // Boxed: the conversation, its buffers and the request in service are not there at rest.
        wire = match Box::pin(converse(wire, client)).await {
            Ended::Paused(wire) => wire,
            Ended::Preface(preface, wire) => return Some((preface, wire)),
            Ended::Closed => return None,
        };
        match next(&mut wire, client).await {
            Next::Arrival => {}
            Next::Goodbye => {
                _ = client.watch().limit(pin!(wire.shutdown())).await;
                return None;
            }
            Next::Gone => return None,
        }
    }
}

/// Waits for the client, or until it is to be left.
async fn next(wire: &mut ClientWire, client: &Client) -> Next {
    poll_fn(|cx| {
        client.watch().register(cx.waker());
        match wire.poll_arrival(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Next::Arrival),
            Poll::Ready(Err(_)) => Poll::Ready(Next::Gone),
            Poll::Pending if client.worker.stage.get() >= Stage::Closing => {
                Poll::Ready(Next::Goodbye)
            }
            Poll::Pending if client.watch().expired() => {
                client.worker.counters.client_timeouts.add();
                Poll::Ready(Next::Gone)
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Serves until nothing comes for a while.
async fn converse(wire: ClientWire, client: &Rc<Client>) -> Ended {
    // What woke us may be no request.
    client.watch().rest_soon();
    let link = Link::new(wire, client);
    let Some(end) = attend(&link, client, pin!(talk(&link, client))).await else {
        client.worker.counters.client_timeouts.add();
        // Whoever still reads the body has a part in the link: the connection ends here all the same.
        drop(link.take());
        return Ended::Closed;
    };
    if end == End::Broken {
        link.reset();
    }
    let Some((mut wire, unused)) = link.take() else { return Ended::Closed };
    match end {
        End::Rest => {
            client.watch().stay();
            Ended::Paused(wire)
        }
        End::Preface => Ended::Preface(unused, wire),
        End::Said { is_unread } => {
            client.watch().arm(LINGER_MS);
            let shut = client.watch().limit(pin!(wire.shutdown())).await;
            if shut.is_some_and(|shut| shut.is_ok())
                && (is_unread || !unused.is_empty() || has_more(&mut wire).await)
            {
                linger(wire, client).await;
            }
            Ended::Closed
        }
        End::Broken | End::Gone => Ended::Closed,
    }
}

/// Something came that nobody reads.
async fn has_more(wire: &mut ClientWire) -> bool {
    poll_fn(|cx| Poll::Ready(matches!(wire.poll_arrival(cx), Poll::Ready(Ok(()))))).await
}

/// Reads on for a while after the answer: closing on unread bytes would reset the connection, and
/// the client might never see why (RFC 9112 9.6).
pub(super) async fn linger<S: AsyncRead + Unpin>(mut stream: S, client: &Client) {
    client.watch().arm(LINGER_MS);
    let mut scrap = vec![0; SCRAP_BYTES];
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        let mut read = pin!(stream.read(&mut scrap));
        let outcome = poll_fn(|cx| {
            client.watch().register(cx.waker());
            match read.as_mut().poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(outcome.unwrap_or(0)),
                Poll::Pending if client.watch().expired() => Poll::Ready(0),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match outcome {
            0 => return,
            n => left = left.saturating_sub(n),
        }
    }
}
