//! A connection, encrypted or not; one to an endpoint can be looked at before it is used again.

use std::{
    io::{self, ErrorKind, IoSlice, Write},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::FutureExt;
use socket2::SockRef;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest, ReadBuf, Ready},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use super::{prefixed::Prefixed, send};
use crate::codec::Output;

/// The connection, as HTTP reads and writes it.
#[derive(Debug)]
pub(super) enum Wire<T = client::TlsStream<TcpStream>> {
    Plain(TcpStream),
    Tls(Box<T>),
}

/// A client's connection.
pub(super) type ClientWire = Wire<server::TlsStream<Tcp>>;

/// Past the runtime.
struct Pushing<'a>(&'a TcpStream);

/// The same below TLS: something may have been read of it.
pub(super) type Tcp = Prefixed<TcpStream>;

/// A client's connection to whose kernel something can be given, whatever the runtime knows of its room. It is told of that
/// when a third of it is free, which may be more than whoever reads slowly takes in the time he has for a write.
pub(super) trait Push {
    /// Gives it what it has room for. Returns how much.
    ///
    /// # Errors
    /// Nothing can be written, for now or any more.
    fn push(&mut self, output: &mut Output) -> io::Result<usize>;

    /// Whether the client takes something after all.
    fn takes(&mut self, output: &mut Output) -> bool {
        matches!(self.push(output), Ok(1..))
    }
}

impl Wire {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }

    pub(super) fn tls(stream: client::TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(stream))
    }

    /// Not closed, and nothing was said that nobody asked for: what the kernel knows now, for one
    /// system call. The runtime learns of it only when it next waits.
    pub(super) fn is_silent(&self) -> bool {
        let stream = match self {
            Self::Plain(stream) => stream,
            // Tickets came with answers: what is left to come is an end, or nothing that was asked for.
            Self::Tls(stream) => stream.get_ref().0,
        };
        let mut byte = [MaybeUninit::uninit()];
        let peeked = SockRef::from(stream).peek(&mut byte);
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

impl<T> Wire<T> {
    /// What it is if bytes on it mean what they are.
    pub(super) fn bare(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }
}

impl ClientWire {
    /// Whether the client has closed its side of the connection, by what the kernel told the runtime:
    /// no system call. Ready without that when there is something to read before: nobody is woken then.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0.get_ref(),
        };
        if ready!(stream.poll_read_ready(cx)).is_err() {
            return Poll::Ready(true);
        }
        let known = stream.ready(Interest::READABLE).now_or_never();
        Poll::Ready(known.is_some_and(|known| known.is_ok_and(Ready::is_read_closed)))
    }

    /// Ready when there is something to read, the end included; that needs no room to read into.
    ///
    /// # Errors
    /// Nothing can be read any more.
    pub(super) fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // Looks: the runtime takes a connection for readable until it knows better.
            Self::Plain(stream) => stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])).map_ok(|_| ()),
            // What comes may be TLS's own, and is dealt with here.
            Self::Tls(stream) => {
                ready!(Pin::new(&mut **stream).poll_fill_buf(cx))?;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl Push for ClientWire {
    fn push(&mut self, output: &mut Output) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => push(stream, output),
            Self::Tls(stream) => stream.push(output),
        }
    }
}

impl Push for Tcp {
    fn push(&mut self, output: &mut Output) -> io::Result<usize> {
        push(self.get_ref(), output)
    }
}

impl Push for Box<server::TlsStream<Tcp>> {
    /// What TLS has made of it, and holds.
    fn push(&mut self, _: &mut Output) -> io::Result<usize> {
        let (below, session) = self.get_mut();
        session.write_tls(&mut Pushing(below.get_ref()))
    }
}

fn push(stream: &TcpStream, output: &mut Output) -> io::Result<usize> {
    output.write_by(|parts| Pushing(stream).write_vectored(parts))
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => send::poll(stream, cx, bufs),
            Self::Tls(stream) => send::poll(&mut **stream, cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

impl io::Write for Pushing<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        SockRef::from(self.0).send(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        SockRef::from(self.0).send_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use fairlead_state::Key;
    use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::aws_lc_rs};
    use rustls_pki_types::PrivateKeyDer;
    use tokio::io::AsyncReadExt;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::tls::{TlsWish, prepare};

    /// A connection whose other side is not part of the runtime.
    async fn pair() -> (Wire, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Wire::plain(stream), listener.accept().unwrap().0)
    }

    #[tokio::test]
    async fn a_close_the_runtime_has_not_heard_of_is_seen() {
        let (wire, other) = pair().await;
        assert!(wire.is_silent());
        drop(other);
        // No await in between: the runtime had no chance to hear of it.
        assert!(!wire.is_silent());
    }

    #[tokio::test]
    async fn attack_what_nobody_asked_for_is_seen_and_stays_where_it_is() {
        let (mut wire, mut other) = pair().await;
        other.write_all(b"abc").unwrap();
        assert!(!wire.is_silent());
        let mut said = [0; 3];
        wire.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"abc");
        assert!(wire.is_silent());
    }

    type Other = StreamOwned<ServerConnection, std::net::TcpStream>;

    /// The same by TLS; no tickets come.
    async fn tls_pair() -> (Wire, Other) {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        config.send_tls13_tickets = 0;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::task::spawn_blocking(move || {
            let session = ServerConnection::new(Arc::new(config)).unwrap();
            let mut other = StreamOwned::new(session, listener.accept().unwrap().0);
            while other.conn.is_handshaking() {
                other.conn.complete_io(&mut other.sock).unwrap();
            }
            other
        });
        let key = Key::new("default", "web");
        let tls = prepare(&TlsWish::default(), &key, b"http/1.1", None).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = TlsConnector::from(tls.config).connect(tls.name, stream).await.unwrap();
        (Wire::tls(stream), accepting.await.unwrap())
    }

    #[tokio::test]
    async fn attack_by_tls_it_is_seen_too_and_so_is_an_end() {
        for is_end in [false, true] {
            let (wire, mut other) = tls_pair().await;
            assert!(wire.is_silent());
            if is_end {
                other.conn.send_close_notify();
            } else {
                other.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
            }
            other.flush().unwrap();
            assert!(!wire.is_silent(), "{is_end}");
        }
    }
}
