//! One direction.

use std::{
    io::{self, ErrorKind},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::Joint;
use crate::serve::splice::{Broke, Pump, Waits};

/// Copied at once, over the stack: a direction has no buffer of its own. TLS's records are as long.
pub(super) const COPIED_BYTES_MAX: usize = 16 << 10;
/// Reads in a row that fill all of that make a direction bulk (HAProxy's splice-auto: three of its
/// buffer's size).
pub(super) const FULL_READS: u32 = 2;
/// No longer bulk: less came before there was a wait for more. Copied, that is as many system calls.
const BULK_BYTES_MIN: usize = FULL_READS as usize * COPIED_BYTES_MAX;
/// As many before a pipe is asked for again where there was none.
const FULL_READS_AGAIN: u32 = 64;

/// What comes from one connection and goes to the other.
pub(super) struct Way {
    /// Was copied, and found no room. What follows is not taken before it is out.
    left: Bytes,
    /// Bytes are in its pipe, or about to be.
    pump: Option<Pump>,
    /// In a row.
    full_reads: u32,
    /// As many make it bulk; `None` if it cannot be spliced.
    full_reads_min: Option<u32>,
    /// Taken by splicing since it last waited for more.
    came: usize,
    has_ended: bool,
}

/// What comes next.
#[derive(PartialEq, Eq)]
enum Next {
    /// What follows.
    More,
    /// Nothing: all that was said has gone out.
    End,
}

impl Default for Way {
    fn default() -> Self {
        let full_reads_min = Some(FULL_READS);
        let (left, pump, full_reads, came, has_ended) = Default::default();
        Self { left, pump, full_reads, full_reads_min, came, has_ended }
    }
}

impl Way {
    /// Ready once all that was said is out, and its end, too.
    ///
    /// # Errors
    /// One of the connections broke off; what was on its way is lost.
    pub(super) fn poll(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        joint: &Joint<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.has_ended {
            ready!(self.poll_left(to, joint, cx))?;
            let next = match self.is_bulk() {
                true => self.poll_splice(from, to, joint, cx),
                false => self.poll_copy(from, to, joint, cx),
            };
            if ready!(next)? == Next::End {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                joint.passed();
                self.has_ended = true;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_bulk(&self) -> bool {
        self.pump.is_some() || self.full_reads_min.is_some_and(|min| self.full_reads >= min)
    }

    fn poll_left(
        &mut self,
        to: &mut TcpStream,
        joint: &Joint<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.left.is_empty() {
            let written = ready!(poll_write(to, &self.left, cx))?;
            joint.passed();
            self.left.advance(written);
            if self.left.is_empty() {
                // Who waits holds no memory.
                self.left = Bytes::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_copy(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        joint: &Joint<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Next>> {
        let mut room = [MaybeUninit::uninit(); COPIED_BYTES_MAX];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(from).poll_read(cx, &mut room))?;
        if room.filled().is_empty() {
            return Poll::Ready(Ok(Next::End));
        }
        joint.passed();
        let is_full = room.remaining() == 0;
        self.full_reads = if is_full { self.full_reads.saturating_add(1) } else { 0 };
        let written = match poll_write(to, room.filled(), cx)? {
            Poll::Ready(written) => written,
            Poll::Pending => 0,
        };
        self.left = Bytes::copy_from_slice(room.filled().get(written..).unwrap_or_default());
        Poll::Ready(Ok(Next::More))
    }

    fn poll_splice(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        joint: &Joint<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Next>> {
        if self.pump.is_none() {
            // No pipe for whoever may have nothing to say.
            ready!(from.poll_read_ready(cx))?;
            self.pump = Pump::endless(joint.pipes);
            let min = if self.pump.is_some() { FULL_READS } else { FULL_READS_AGAIN };
            self.full_reads_min = Some(min);
        }
        let Some(pump) = &mut self.pump else {
            self.full_reads = 0;
            return Poll::Ready(Ok(Next::More));
        };
        let polled = pump.poll(Some(from), to, cx);
        let waits = pump.waits();
        let moved = pump.moved();
        joint.spliced(moved);
        self.came = self.came.saturating_add(moved.taken);
        let outcome = match polled {
            Poll::Pending => {
                if waits == Waits::More {
                    self.rest();
                }
                return Poll::Pending;
            }
            Poll::Ready(outcome) => outcome,
        };
        self.pump = None;
        Poll::Ready(match outcome {
            Ok(()) => Ok(Next::More),
            // Or an urgent byte's place, which splice stops at and recv passes over (tcp_read_sock).
            Err(Broke::CutOff) => {
                self.full_reads = 0;
                Ok(Next::More)
            }
            Err(Broke::Unable(error)) => {
                tracing::debug!(%error, "a connection is copied");
                self.full_reads_min = None;
                Ok(Next::More)
            }
            Err(Broke::From(error) | Broke::To(error)) => Err(error),
        })
    }

    /// All that came is out. The pipe is somebody else's until there is more.
    fn rest(&mut self) {
        self.pump = None;
        // Nothing may be an urgent byte, at which splice stops for good.
        if self.came < BULK_BYTES_MIN {
            self.full_reads = 0;
        }
        self.came = 0;
    }
}

/// Bytes that went out, one at least.
fn poll_write(to: &mut TcpStream, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}
