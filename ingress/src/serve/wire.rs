//! A connection to an endpoint, encrypted or not, that can be looked at before it is used again.

use std::{
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::send;

/// The connection, as HTTP reads and writes it.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(stream))
    }

    /// Not closed, and nothing was said that nobody asked for: what the kernel knows now, for one
    /// system call. The runtime learns of it only when it next waits.
    pub(super) fn is_silent(&self) -> bool {
        let (stream, is_tls) = match self {
            Self::Plain(stream) => (stream, false),
            Self::Tls(stream) => (stream.get_ref().0, true),
        };
        let mut byte = [MaybeUninit::uninit()];
        match SockRef::from(stream).peek(&mut byte) {
            // A record of TLS need not hold anything of HTTP.
            Ok(bytes) => is_tls && bytes > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => send::poll(stream, cx, bufs),
            Self::Tls(stream) => send::poll(stream, cx, bufs),
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
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::AsyncReadExt;

    use super::*;

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
}
