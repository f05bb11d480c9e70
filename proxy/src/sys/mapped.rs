//! Array maps as memory: what millions of look-ups would find, read at once.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd as _},
    ptr::{self, NonNull},
    slice,
    sync::atomic::AtomicU64,
};

/// The values of an array map, which programs write meanwhile. Read only.
#[derive(Debug)]
pub(crate) struct Mapped {
    start: NonNull<AtomicU64>,
    words: usize,
}

impl Mapped {
    /// So many words of the values of a map that was made with `BPF_F_MMAPABLE`, from the byte `offset`
    /// on, where a page begins.
    ///
    /// # Errors
    /// There are not so many, or none are asked for, or the map was made without that flag.
    pub(crate) fn read(map: impl AsFd, offset: usize, words: usize) -> io::Result<Self> {
        let bytes = words.checked_mul(mem::size_of::<u64>());
        let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
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
        Ok(Self { start, words })
    }

    /// The words, to be loaded with `Ordering::Relaxed` and never stored.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: so many are mapped, at the start of a page, until this is dropped; the kernel checked
        // that the map is as long. Relaxed loads of a word are allowed where only others may write.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let bytes = self.words.saturating_mul(mem::size_of::<u64>());
        // SAFETY: this mapping, of which nobody has a reference any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
    }
}
