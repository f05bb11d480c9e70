//! What an endpoint sends: read when it is asked for, and not before.

use std::{
    future::Future,
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use crate::serve::wire::Wire;

/// Most answers are no longer.
const ROOM_BYTES: usize = 8 << 10;
/// Of an endpoint that sends more than there is room for, again and again.
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
    pub(super) fn poll_read(
        &mut self,
        wire: &mut Wire,
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
            *self = Self::new();
        }
    }
}
