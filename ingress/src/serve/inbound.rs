//! What the other side sends: read when it is asked for, and not before.

use std::{
    future::Future,
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Most messages are no longer.
const ROOM_BYTES: usize = 8 << 10;
/// Of whoever sends more than there is room for, again and again.
const ROOM_BYTES_MAX: usize = 128 << 10;

/// Bytes that were read and are nobody's yet. What is passed on are parts of the same room: it is
/// used again once they are gone.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) bytes: BytesMut,
    room: usize,
}

impl Inbound {
    pub(super) fn new() -> Self {
        Self { bytes: BytesMut::new(), room: ROOM_BYTES }
    }

    /// Reads what is there; nothing is the end.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        wire: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let spare = self.bytes.capacity() - self.bytes.len();
        if spare < self.room / 2 {
            self.bytes.reserve(self.room);
        }
        let read = ready!(pin!(wire.read_buf(&mut self.bytes)).poll(cx))?;
        if self.bytes.len() == self.bytes.capacity() {
            self.room = (self.room * 2).min(ROOM_BYTES_MAX);
        }
        Poll::Ready(Ok(read))
    }

    /// There will be nothing to read for a while.
    pub(super) fn rest(&mut self) {
        if self.room > ROOM_BYTES {
            self.give_back();
        }
    }

    /// Nor soon after.
    pub(super) fn give_back(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write};

    use tokio::net::TcpStream;

    use super::{super::wire::Wire, *};

    #[tokio::test]
    async fn room_that_was_given_back_is_there_again_when_something_comes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut wire, mut other) = (Wire::plain(stream), listener.accept().unwrap().0);
        let mut inbound = Inbound::new();
        for _ in 0..3 {
            assert_eq!(inbound.bytes.capacity(), 0);
            other.write_all(b"abc").unwrap();
            let read = poll_fn(|cx| inbound.poll_read(&mut wire, cx)).await.unwrap();
            assert_eq!((read, &inbound.bytes.split()[..]), (3, &b"abc"[..]));
            inbound.rest();
            assert!(inbound.bytes.capacity() > 0, "the next answer is probably not far");
            inbound.give_back();
        }
    }
}
