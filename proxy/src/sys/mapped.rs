//! Array maps as memory: what millions of look-ups would find, read at once.

use std::{
    io, mem,
    ops::Range,
    os::fd::{AsFd, AsRawFd as _},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

/// Words after which a page begins, however large pages are.
const PAGE_WORDS: usize = (64 << 10) / mem::size_of::<u64>();

/// A word that programs write meanwhile. Its page is read only: a store would end the process, so there
/// is none.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Word(AtomicU64);

impl Word {
    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The values of an array map.
#[derive(Debug)]
pub(crate) struct Mapped {
    start: NonNull<Word>,
    words: usize,
    /// Words before those that were asked for, from where a page begins.
    before: usize,
}

impl Mapped {
    /// These words of the values of a map that was made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// There are not so many, or none are asked for, or the map was made without that flag.
    pub(crate) fn read(map: impl AsFd, wanted: Range<usize>) -> io::Result<Self> {
        let before = wanted.start % PAGE_WORDS;
        let first = wanted.start - before;
        let words = wanted.end.saturating_sub(first);
        let (Some(bytes), Some(offset), true) =
            (bytes(words), bytes(first), wanted.start < wanted.end)
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let fd = map.as_fd().as_raw_fd();
        // SAFETY: a new mapping, where the kernel chooses: nothing of this process lies there.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, fd, offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { start, words, before })
    }

    /// The words that were asked for.
    pub(crate) fn words(&self) -> &[Word] {
        // SAFETY: so many are mapped, at the start of a page, until this is dropped; the kernel checked
        // that the map is as long. A `Word` is laid out as the `u64` there; relaxed loads of one are
        // allowed in pages that this process may only read (std::sync::atomic).
        let all = unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) };
        all.get(self.before..).unwrap_or_default()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let bytes = bytes(self.words).unwrap_or_default();
        // SAFETY: this mapping, of which nobody has a reference any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
    }
}

fn bytes(words: usize) -> Option<usize> {
    words.checked_mul(mem::size_of::<u64>())
}
