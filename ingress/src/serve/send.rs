//! Short messages leave by send(2): writev(2) takes the kernel longer than copying them takes us.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

/// A head and a small body; more is not copied.
const SHORT_BYTES_MAX: usize = 1024;

/// Writes the buffers, in one piece if they are short.
pub(super) fn poll<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = bufs {
        return Pin::new(stream).poll_write(cx, only);
    }
    let mut short = [0; SHORT_BYTES_MAX];
    match gather(&mut short, bufs) {
        Some(bytes) => Pin::new(stream).poll_write(cx, bytes),
        None => Pin::new(stream).poll_write_vectored(cx, bufs),
    }
}

/// The buffers one after the other; `None` if there is no room for all of them.
fn gather<'a>(room: &'a mut [u8], bufs: &[IoSlice<'_>]) -> Option<&'a [u8]> {
    let mut end = 0;
    for buf in bufs {
        let start = end;
        end += buf.len();
        room.get_mut(start..end)?.copy_from_slice(buf);
    }
    room.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing_is_gathered() {
        let (a, b) = (vec![1; 700], vec![2; 324]);
        let bufs = [IoSlice::new(&a), IoSlice::new(&b)];
        let mut room = [0; SHORT_BYTES_MAX];
        assert_eq!(gather(&mut room, &bufs), Some([&a[..], &b[..]].concat().as_slice()));
        let bufs = [IoSlice::new(&a), IoSlice::new(&b), IoSlice::new(&[3])];
        assert_eq!(gather(&mut room, &bufs), None, "one byte too many");
        assert_eq!(gather(&mut room, &[]), Some(&[][..]));
    }
}
