//! Pipes that bytes pass through from one socket to another. One pool per thread: nothing is locked.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

/// A segment from a network takes a page's place however short it is: the kernel's 64 KiB are full
/// with 16 × 1448 bytes (HAProxy: SPLICE_FULL_HINT).
pub(super) const PIPE_BYTES: usize = 256 << 10;
/// Whoever has too many pipes is given some of a page or two (pipe(7): pipe-user-pages-soft); through
/// those, copying is cheaper.
const PIPE_BYTES_MIN: usize = 64 << 10;
/// Of a thread, at once; each takes two descriptors, and holds what its client has yet to take.
const PIPES_MAX: usize = 256;
/// Asked for at once: above isize::MAX the kernel says EINVAL (rw_verify_area).
const TAKEN_BYTES_MAX: usize = 1 << 30;
/// Of those that nobody needs for now.
const PIPES_KEPT_MAX: usize = 16;

/// Where pipes come from and go back to.
#[derive(Clone, Debug)]
pub(crate) struct Pipes(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    make: fn() -> io::Result<Pipe>,
    kept: RefCell<Vec<Pipe>>,
    lent: Cell<usize>,
}

/// Both its ends.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe for as long as something passes through it.
#[derive(Debug)]
pub(super) struct Lent {
    /// `None` once it was given back.
    pipe: Option<Pipe>,
    /// Bytes in it.
    held: usize,
    home: Rc<Shared>,
}

impl Default for Pipes {
    fn default() -> Self {
        Self::made_by(Pipe::new)
    }
}

impl Pipes {
    fn made_by(make: fn() -> io::Result<Pipe>) -> Self {
        Self(Rc::new(Shared { make, kept: RefCell::default(), lent: Cell::new(0) }))
    }

    /// `None` if there are as many as there may be, or the kernel gives none that is worth it.
    pub(super) fn lend(&self) -> Option<Lent> {
        let home = self.0.clone();
        if home.lent.get() >= PIPES_MAX {
            return None;
        }
        let kept = home.kept.borrow_mut().pop();
        let pipe = kept.map_or_else(home.make, Ok);
        let pipe =
            pipe.inspect_err(|error| tracing::debug!(%error, "no pipe to splice by")).ok()?;
        home.lent.set(home.lent.get() + 1);
        Some(Lent { pipe: Some(pipe), held: 0, home })
    }
}

#[cfg(test)]
impl Pipes {
    pub(in crate::serve) fn kept(&self) -> usize {
        self.0.kept.borrow().len()
    }

    pub(in crate::serve) fn lent(&self) -> usize {
        self.0.lent.get()
    }

    /// Others have as many as there may be, or none.
    pub(in crate::serve) fn others_have_all(&self, all: bool) {
        self.0.lent.set(if all { PIPES_MAX } else { 0 });
    }

    /// The process has no descriptor left.
    pub(in crate::serve) fn none() -> Self {
        Self::made_by(|| Err(rustix::io::Errno::MFILE.into()))
    }

    /// The kernel does not splice to there: EINVAL.
    pub(in crate::serve) fn unfit() -> Self {
        fn null() -> io::Result<OwnedFd> {
            Ok(std::fs::File::options().read(true).write(true).open("/dev/null")?.into())
        }
        Self::made_by(|| Ok(Pipe { read: null()?, write: null()? }))
    }
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let bytes = match fcntl_setpipe_size(&write, PIPE_BYTES) {
            Ok(bytes) => bytes,
            Err(_) => fcntl_getpipe_size(&write)?,
        };
        if bytes < PIPE_BYTES_MIN {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(Self { read, write })
    }
}

impl Lent {
    /// Bytes that were taken and not given.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes up to so many bytes off a socket; none is its end.
    pub(super) fn take(&mut self, from: impl AsFd, bytes_max: usize) -> io::Result<usize> {
        let pipe = self.pipe.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let bytes_max = bytes_max.min(TAKEN_BYTES_MAX);
        let taken = splice(from, None, &pipe.write, None, bytes_max, flags())?;
        self.held += taken;
        Ok(taken)
    }

    /// Gives a socket as much as it has room for.
    pub(super) fn give(&mut self, to: impl AsFd) -> io::Result<usize> {
        let pipe = self.pipe.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let given = splice(&pipe.read, None, to, None, self.held, flags())?;
        self.held = self.held.saturating_sub(given);
        Ok(given)
    }
}

/// Not SPLICE_F_MORE: what an endpoint says now is not to wait for what it says later.
fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

impl Drop for Lent {
    /// What is left in a pipe would be the next client's answer.
    fn drop(&mut self) {
        self.home.lent.set(self.home.lent.get() - 1);
        let mut kept = self.home.kept.borrow_mut();
        if let Some(pipe) = self.pipe.take()
            && self.held == 0
            && kept.len() < PIPES_KEPT_MAX
        {
            kept.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_gives_a_pipe_back_lets_the_next_one_have_it() {
        let pipes = Pipes::default();
        let first = pipes.lend().unwrap();
        assert_eq!((pipes.kept(), pipes.lent()), (0, 1));
        drop(first);
        assert_eq!((pipes.kept(), pipes.lent()), (1, 0));
        let second = pipes.lend().unwrap();
        assert_eq!((pipes.kept(), pipes.lent()), (0, 1));
        drop(second);
    }

    #[test]
    fn attack_what_one_client_left_in_a_pipe_is_no_other_clients() {
        let pipes = Pipes::default();
        let (from, mut other) = UnixStream::pair().unwrap();
        io::Write::write_all(&mut other, b"secret").unwrap();
        let mut lent = pipes.lend().unwrap();
        assert_eq!(lent.take(&from, 6).unwrap(), 6);
        drop(lent);
        assert_eq!((pipes.kept(), pipes.lent()), (0, 0), "it is closed");
    }

    #[test]
    fn there_are_no_more_than_there_may_be_and_few_are_kept() {
        let pipes = Pipes::default();
        let lent: Vec<_> = (0..PIPES_MAX).map(|_| pipes.lend().unwrap()).collect();
        assert!(pipes.lend().is_none());
        drop(lent);
        assert_eq!((pipes.kept(), pipes.lent()), (PIPES_KEPT_MAX, 0));
        assert!(pipes.lend().is_some());
    }

    #[test]
    fn without_descriptors_there_is_none() {
        let pipes = Pipes::none();
        assert!(pipes.lend().is_none());
        assert_eq!(pipes.lent(), 0);
    }
}
