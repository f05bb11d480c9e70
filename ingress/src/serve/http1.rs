//! HTTP/1 on a client's connection. hyper has it while there is something to do; in between nothing
//! is held but what the connection itself needs.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Request;
use hyper::{server::conn::http1::Builder, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{
    client::{self, Client, End, Liveness},
    exchange, http2,
    incoming::Incoming,
    observed::{Observed, Observer},
    prefixed::Prefixed,
    worker::Stage,
};
use crate::{admission::Scanner, counters::Refused};

/// What a client may still send after an answer that did not wait for its request's end.
const LINGER_BYTES_MAX: usize = 256 << 10;
pub(super) const LINGER_MS: u64 = 1_000;
/// hyper takes no smaller buffer.
const BUFFER_BYTES_MIN: usize = 8 << 10;
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that can be waited for without room to read into.
pub(super) trait Arrives {
    /// Ready when there is something to read, the end included.
    ///
    /// # Errors
    /// Nothing can be read any more.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// The bytes hyper has read and not used, then the rest of the connection.
type Bare<S> = Prefixed<Observed<S, Scanning>>;

/// Looks at what clients send before hyper does.
#[derive(Debug)]
struct Scanning {
    live: Arc<Liveness>,
    scanner: Scanner,
}

/// How a conversation ended.
enum Ended<S> {
    /// There may be another one.
    Paused(Bare<S>),
    /// The client speaks HTTP/2; what was read, and the rest.
    Preface(Bytes, S),
    /// For good.
    Closed,
}

/// Serves HTTP/1 or, if the client begins with its preface, HTTP/2 (RFC 9113 3.3: h2c).
pub(super) async fn plain(stream: TcpStream, client: Rc<Client>) {
    if let Some((preface, stream)) = serve(stream, client.clone()).await {
        client.connected(true);
        Box::pin(http2::serve(Prefixed::new(preface, stream), client)).await;
    }
}

/// Serves HTTP/1 on a connection until it ends. Gives it back, with what was read, if what comes is
/// HTTP/2 without encryption.
pub(super) async fn serve<S>(stream: S, client: Rc<Client>) -> Option<(Bytes, S)>
where
    S: Arrives + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let scanning = Scanning { live: client.live().clone(), scanner: Scanner::default() };
    let mut bare = Prefixed::new(Bytes::new(), Observed::new(stream, scanning));
    while arrival(&mut bare, &client).await {
        // Boxed: hyper's connection, its buffers and the request in service are not there at rest.
        bare = match Box::pin(converse(bare, &client)).await {
            Ended::Paused(bare) => bare,
            Ended::Preface(preface, stream) => return Some((preface, stream)),
            Ended::Closed => return None,
        };
    }
    None
}

/// Waits for the client, or until hyper is to say goodbye to it; false: the connection is over.
async fn arrival<S: Arrives>(bare: &mut Bare<S>, client: &Client) -> bool {
    poll_fn(|cx| {
        client.watch().register(cx.waker());
        match bare.poll_arrival(cx) {
            Poll::Ready(arrived) => Poll::Ready(arrived.is_ok()),
            Poll::Pending if client.worker.stage.get() >= Stage::Closing => Poll::Ready(true),
            Poll::Pending if client.watch().expired() => {
                client.worker.counters.client_timeouts.add();
                Poll::Ready(false)
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Serves until nothing comes for a while.
async fn converse<S>(bare: Bare<S>, client: &Rc<Client>) -> Ended<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = client.worker.config();
    let limits = &config.limits;
    // What woke us may be no request.
    client.resumes();
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        exchange::handle(client.clone(), request.map(Incoming::Http1))
    });
    let mut connection = Builder::new()
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.buffer_bytes_max.max(BUFFER_BYTES_MIN))
        .serve_connection(TokioIo::new(bare), service)
        .with_upgrades();
    let end = client::drive(&mut connection, client, |connection| {
        connection.graceful_shutdown();
    })
    .await;
    let malformed = match end {
        End::Late => {
            client.worker.counters.client_timeouts.add();
            return Ended::Closed;
        }
        End::Rest => {
            let Some(parts) = connection.into_parts() else { return Ended::Closed };
            client.watch().stay();
            // Copied: however short it is, it is a part of the buffer that is to go.
            let unused = Bytes::copy_from_slice(&parts.read_buf);
            return Ended::Paused(Prefixed::new(unused, parts.io.into_inner().into_inner()));
        }
        End::Of(outcome) => outcome.is_err_and(|error| error.is_parse()),
    };
    if !malformed && !client.is_unread() {
        return Ended::Closed;
    }
    let Some(parts) = connection.into_parts() else { return Ended::Closed };
    let stream = parts.io.into_inner().into_inner().into_inner();
    if !client.tls && parts.read_buf.starts_with(H2_PREFACE) {
        return Ended::Preface(parts.read_buf, stream);
    }
    if malformed {
        client.worker.counters.refused(Refused::Malformed);
    }
    linger(stream, client).await;
    Ended::Closed
}

/// Reads on for a while after the answer: closing on unread bytes would reset the connection, and
/// the client might never see why (RFC 9112 9.6).
pub(super) async fn linger<S: AsyncRead + Unpin>(mut stream: S, client: &Client) {
    client.watch().arm(LINGER_MS);
    let mut scrap = vec![0; 8 << 10];
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        let mut read = std::pin::pin!(stream.read(&mut scrap));
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

impl Arrives for TcpStream {
    /// Looks: the runtime takes a connection for readable until it knows better.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_peek(cx, &mut ReadBuf::new(&mut [0])).map_ok(|_| ())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Arrives for Box<TlsStream<S>> {
    /// What comes may be TLS's own, and is dealt with here.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(self).poll_fill_buf(cx))?;
        Poll::Ready(Ok(()))
    }
}

impl<S: Arrives, O> Arrives for Observed<S, O> {
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner_mut().poll_arrival(cx)
    }
}

impl<S: Arrives> Arrives for Prefixed<S> {
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.is_used_up() {
            true => self.inner_mut().poll_arrival(cx),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl Observer for Scanning {
    fn read(&mut self, bytes: &[u8]) {
        self.live.read(bytes);
        if self.live.is_tunnel() {
            return;
        }
        if let Some(finding) = self.scanner.feed(bytes) {
            self.live.find(finding);
        }
    }

    fn written(&self) {
        self.live.written();
    }

    fn blocked(&self) {
        self.live.blocked();
    }
}
