//! A stream of an HTTP/2 connection as a tunnel has it: one side reads and writes bytes, the other is
//! the body of an answer.

use std::{
    cell::RefCell,
    io::{self, ErrorKind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{body::BodyError, incoming::Incoming};

/// What may be written and not taken.
const BYTES_MAX: usize = 64 << 10;

/// The side of bytes.
#[derive(Debug)]
pub(super) struct Pipe {
    incoming: Incoming,
    read: Bytes,
    shared: Rc<RefCell<Shared>>,
}

/// What is written to it.
#[derive(Debug)]
pub(super) struct Outflow(Rc<RefCell<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    bytes: BytesMut,
    end: Option<End>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All was written.
    Written,
    /// One side is gone.
    Broken,
}

/// Joins what a client sends with the body of its answer.
pub(super) fn pipe(incoming: Incoming) -> (Pipe, Outflow) {
    let shared = Rc::<RefCell<Shared>>::default();
    let outflow = Outflow(shared.clone());
    (Pipe { incoming, read: Bytes::new(), shared }, outflow)
}

impl Shared {
    fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Outflow {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.0.borrow_mut();
        if !shared.bytes.is_empty() {
            if let Some(writer) = shared.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(shared.bytes.split().freeze()))));
        }
        match shared.end {
            Some(End::Written) => Poll::Ready(None),
            Some(End::Broken) => {
                let error = io::Error::from(ErrorKind::ConnectionAborted);
                Poll::Ready(Some(Err(BodyError::Endpoint(error))))
            }
            None => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Outflow {
    fn drop(&mut self) {
        self.0.borrow_mut().end(End::Broken);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.shared.borrow_mut().end(End::Broken);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.read.is_empty() {
            match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(_)) => return Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
                Some(Ok(frame)) => self.read = frame.into_data().unwrap_or_default(),
            }
        }
        let bytes = self.read.len().min(buf.remaining());
        buf.put_slice(self.read.get(..bytes).unwrap_or_default());
        self.read.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.shared.borrow_mut();
        if shared.end.is_some() {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = BYTES_MAX.saturating_sub(shared.bytes.len());
        if room == 0 {
            shared.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.get(..room).unwrap_or(bytes);
        shared.bytes.extend_from_slice(taken);
        if let Some(reader) = shared.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.borrow_mut().end(End::Written);
        Poll::Ready(Ok(()))
    }
}
