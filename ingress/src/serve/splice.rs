//! What is long and passes unchanged from one socket to another does so within the kernel: splice(2).

mod pipes;

use std::{
    io::{self, ErrorKind},
    task::{Context, Poll, ready},
};

use rustix::io::Errno;
use tokio::{io::Interest, net::TcpStream};

use self::pipes::Lent;
pub(crate) use self::pipes::Pipes;

/// Less is copied: a pipe is not worth it.
pub(super) const SPLICED_BYTES_MIN: u64 = 64 << 10;
/// Others are served by this thread, too: a turn is over with as many.
const TURN_BYTES_MAX: usize = 1 << 20;

/// So many bytes on their way.
#[derive(Debug)]
pub(super) struct Pump {
    pipe: Lent,
    /// To be taken from whoever sends them.
    left: u64,
    /// Some were.
    has_begun: bool,
    moved: Moved,
    waits: Waits,
}

/// What became of bytes since that was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Came off the one socket.
    pub(super) taken: usize,
    /// Went to the other.
    pub(super) given: usize,
}

/// Why nothing goes on for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// Nothing came; all that did has gone out.
    More,
    /// Nothing goes out.
    Room,
    /// It is somebody else's turn.
    Turn,
}

/// Why not all of them arrive.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broke {
    /// The connection they come on failed.
    #[error("{0}")]
    From(io::Error),
    /// It ended before they were all there. All that were are out.
    #[error("the connection ended amid a body")]
    CutOff,
    /// Who was to have them takes no more.
    #[error("{0}")]
    To(io::Error),
    /// The kernel, or what stands in for it, does not do it. Nothing was taken: it can be copied.
    #[error("splice is not possible here: {0}")]
    Unable(io::Error),
}

impl Pump {
    /// For so many bytes; `None` if they are to be copied.
    pub(super) fn begin(pipes: &Pipes, bytes: u64) -> Option<Self> {
        if bytes < SPLICED_BYTES_MIN {
            return None;
        }
        Some(Self::through(pipes.lend()?, bytes))
    }

    /// For all there is until the connection ends, which is [`Broke::CutOff`].
    pub(super) fn endless(pipes: &Pipes) -> Option<Self> {
        Some(Self::through(pipes.lend()?, u64::MAX))
    }

    fn through(pipe: Lent, left: u64) -> Self {
        let (has_begun, moved) = Default::default();
        Self { pipe, left, has_begun, moved, waits: Waits::Turn }
    }

    /// Moves what can be moved; ready once all of it is where it is to be. Nobody to take it `from` is
    /// needed any more when all of it was taken.
    ///
    /// # Errors
    /// That will not be.
    pub(super) fn poll(
        &mut self,
        from: Option<&TcpStream>,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broke>> {
        let mut turn = 0;
        loop {
            if self.pipe.held() > 0 {
                self.waits = Waits::Room;
                turn += ready!(self.give(to, cx)).map_err(Broke::To)?;
            } else if self.left == 0 {
                return Poll::Ready(Ok(()));
            } else if turn >= TURN_BYTES_MAX {
                self.waits = Waits::Turn;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            } else {
                self.waits = Waits::More;
                let Some(from) = from else { return Poll::Ready(Err(Broke::CutOff)) };
                ready!(self.take(from, cx))?;
            }
        }
    }

    /// Only into an empty pipe: that the kernel takes nothing then means that nothing is there, and
    /// not that there is no room.
    fn take(&mut self, from: &TcpStream, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        let bytes_max = usize::try_from(self.left).unwrap_or(usize::MAX);
        loop {
            ready!(from.poll_read_ready(cx)).map_err(Broke::From)?;
            let Self { pipe, .. } = self;
            let taken = from.try_io(Interest::READABLE, || pipe.take(from, bytes_max));
            match taken {
                Ok(0) => return Poll::Ready(Err(Broke::CutOff)),
                Ok(taken) => {
                    self.left = self.left.saturating_sub(taken as u64);
                    self.has_begun = true;
                    self.moved.taken += taken;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if is_passing(&error) => {}
                Err(error) if !self.has_begun && is_unable(&error) => {
                    return Poll::Ready(Err(Broke::Unable(error)));
                }
                Err(error) => return Poll::Ready(Err(Broke::From(error))),
            }
        }
    }

    fn give(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            let Self { pipe, .. } = self;
            match to.try_io(Interest::WRITABLE, || pipe.give(to)) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(given) => {
                    self.moved.given += given;
                    return Poll::Ready(Ok(given));
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Gives what there is room for, whatever the runtime knows of that: the kernel tells of room when
    /// a third of it is free. Returns whether there was any.
    pub(super) fn push(&mut self, to: &TcpStream) -> bool {
        match self.pipe.give(to) {
            Ok(given @ 1..) => {
                self.moved.given += given;
                true
            }
            _ => false,
        }
    }

    /// What moved since this was last asked.
    pub(super) fn moved(&mut self) -> Moved {
        std::mem::take(&mut self.moved)
    }

    /// What for, when it is pending.
    pub(super) fn waits(&self) -> Waits {
        self.waits
    }
}

/// The runtime knows by now, or a signal came in between.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn is_unable(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::INVAL | Errno::NOSYS | Errno::PERM))
}

#[cfg(test)]
mod tests;
