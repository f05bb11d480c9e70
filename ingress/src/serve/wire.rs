//! A connection to an endpoint, encrypted or not, that can be looked at before it is used again.

use std::{
    cell::Cell,
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
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
pub(super) struct Wire {
    stream: Stream,
    look: Look,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Asks for a look at the connection with the next read.
#[derive(Clone, Debug, Default)]
pub(super) struct Look(Rc<Cell<bool>>);

impl Wire {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), look: Look::default() }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self { stream: Stream::Tls(Box::new(stream)), look: Look::default() }
    }

    pub(super) fn look(&self) -> Look {
        self.look.clone()
    }

    /// What the kernel knows now; the runtime learns of a close only when it next waits.
    fn is_closed(&self) -> io::Result<bool> {
        let mut byte = [MaybeUninit::uninit()];
        let stream = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        match SockRef::from(stream).peek(&mut byte) {
            Ok(0) => Ok(true),
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Look {
    /// One system call more, and a closed connection is not written to.
    pub(super) fn ask(&self) {
        self.0.set(true);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.look.0.replace(false) && self.is_closed()? {
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => send::poll(stream, cx, bufs),
            Stream::Tls(stream) => send::poll(stream, cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write};

    use super::*;

    /// A connection whose other side is not part of the runtime.
    async fn pair() -> (Wire, Look, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let wire = Wire::plain(stream);
        let look = wire.look();
        (wire, look, listener.accept().unwrap().0)
    }

    /// Bytes read, or nothing yet.
    async fn read(wire: &mut Wire) -> Option<usize> {
        let mut bytes = [0; 8];
        let mut buf = ReadBuf::new(&mut bytes);
        poll_fn(|cx| match Pin::new(&mut *wire).poll_read(cx, &mut buf) {
            Poll::Ready(outcome) => Poll::Ready(outcome.ok().map(|()| buf.filled().len())),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn a_close_the_runtime_has_not_heard_of_is_seen_by_looking() {
        let (mut wire, look, other) = pair().await;
        assert_eq!(read(&mut wire).await, None);
        drop(other);
        // No await in between: the runtime had no chance to hear of it.
        assert_eq!(read(&mut wire).await, None);
        look.ask();
        assert_eq!(read(&mut wire).await, Some(0));
    }

    #[tokio::test]
    async fn looking_takes_nothing_away() {
        let (mut wire, look, mut other) = pair().await;
        look.ask();
        assert_eq!(read(&mut wire).await, None);
        other.write_all(b"abc").unwrap();
        let Stream::Plain(stream) = &wire.stream else { unreachable!() };
        stream.readable().await.unwrap();
        look.ask();
        assert_eq!(read(&mut wire).await, Some(3));
    }
}
