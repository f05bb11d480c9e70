//! What is to be written: heads and frames in one piece, long data between them where it is.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

/// Shorter data is copied between them: a part of a write costs more.
const COPIED_BYTES_MAX: usize = 1 << 10;
/// Parts of one write.
const PARTS_MAX: usize = 32;
/// Room for more is not kept.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// Bytes on their way out, in their order.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Heads and frames.
    pub(crate) text: Vec<u8>,
    /// So much of the text.
    written: usize,
    /// Data, and where in the text its place is.
    data: VecDeque<(usize, Bytes)>,
    data_bytes: usize,
    /// The stream below may still hold some of it.
    unflushed: bool,
}

impl Output {
    /// Bytes not written yet.
    pub(crate) fn len(&self) -> usize {
        self.text.len() - self.written + self.data_bytes
    }

    /// Everything is with the kernel.
    pub(crate) fn is_sent(&self) -> bool {
        self.len() == 0 && !self.unflushed
    }

    /// Data behind the text so far.
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() <= COPIED_BYTES_MAX {
            self.text.extend_from_slice(&data);
        } else {
            self.data_bytes += data.len();
            self.data.push_back((self.text.len(), data));
        }
    }

    /// There will be nothing to write for a while.
    pub(crate) fn rest(&mut self) {
        if self.is_sent() {
            *self = Self::default();
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Nothing can be written any more.
    pub(crate) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.len() > 0 {
            let parts = self.parts();
            match ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &parts))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                bytes => {
                    drop(parts);
                    self.unflushed = true;
                    self.advance(bytes);
                    self.forget();
                }
            }
        }
        self.text.clear();
        self.text.shrink_to(KEPT_BYTES_MAX);
        self.written = 0;
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes once, by `write`, and says how much.
    ///
    /// # Errors
    /// Those of `write`.
    pub(crate) fn write_by(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let bytes = write(&self.parts())?;
        self.unflushed = true;
        self.advance(bytes);
        self.forget();
        Ok(bytes)
    }

    /// Gives back the room of what was written: who reads slowly may never have read all.
    fn forget(&mut self) {
        if self.written < KEPT_BYTES_MAX {
            return;
        }
        self.text.drain(..self.written);
        for (place, _) in &mut self.data {
            *place -= self.written;
        }
        self.written = 0;
    }

    fn parts(&self) -> SmallVec<[IoSlice<'_>; PARTS_MAX]> {
        let mut parts = SmallVec::new();
        let mut at = self.written;
        let ends = self.data.iter().map(|(at, data)| (*at, &data[..]));
        for (end, data) in ends.chain([(self.text.len(), &[][..])]) {
            for part in [self.text.get(at..end).unwrap_or_default(), data] {
                if !part.is_empty() && parts.len() < PARTS_MAX {
                    parts.push(IoSlice::new(part));
                }
            }
            at = end;
        }
        parts
    }

    fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let place = self.data.front().map_or(self.text.len(), |(place, _)| *place);
            let of_text = bytes.min(place - self.written);
            self.written += of_text;
            bytes -= of_text;
            let Some((_, data)) = self.data.front_mut() else { return };
            let of_data = bytes.min(data.len());
            data.advance(of_data);
            self.data_bytes -= of_data;
            bytes -= of_data;
            if data.is_empty() && self.written == place {
                self.data.pop_front();
            } else {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes so many bytes at a time, at most, and so many in all.
    struct Sink {
        taken: Vec<u8>,
        step: usize,
        room: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let taken = &all[..all.len().min(self.step).min(self.room)];
            if taken.is_empty() {
                return Poll::Pending;
            }
            self.room -= taken.len();
            self.taken.extend_from_slice(taken);
            Poll::Ready(Ok(taken.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_written_is_what_was_pushed_however_little_is_taken() {
        for step in [1, 7, 1_000, 5_000, 1 << 20] {
            let mut output = Output::default();
            let mut sink = Sink { taken: Vec::new(), step, room: usize::MAX };
            let mut expected = Vec::new();
            for round in 0..3 {
                for (i, length) in [0, 1, 1_024, 1_025, 4_000, 5, 2_000, 2_000].iter().enumerate() {
                    let text = format!("frame {i} of {round};");
                    output.text.extend_from_slice(text.as_bytes());
                    let data = vec![u8::try_from(i).unwrap(); *length];
                    expected.extend_from_slice(text.as_bytes());
                    expected.extend_from_slice(&data);
                    output.push(Bytes::from(data));
                }
                assert_eq!(output.len(), expected.len() - sink.taken.len());
                let cx = &mut Context::from_waker(Waker::noop());
                assert!(matches!(output.poll(&mut sink, cx), Poll::Ready(Ok(()))));
                assert!(output.is_sent());
                assert!(sink.taken == expected, "{step}");
            }
        }
    }

    #[test]
    fn attack_what_is_never_read_to_its_end_grows_no_longer() {
        let mut output = Output::default();
        let mut sink = Sink { taken: Vec::new(), step: usize::MAX, room: 0 };
        let cx = &mut Context::from_waker(Waker::noop());
        let mut expected = Vec::new();
        for i in 0..1_000_u32 {
            let before = expected.len();
            output.text.extend_from_slice(&i.to_be_bytes());
            expected.extend_from_slice(&i.to_be_bytes());
            for length in [1_000, 2_000] {
                let data = vec![7; length];
                expected.extend_from_slice(&data);
                output.push(Bytes::from(data));
            }
            // The first five are always still to be read.
            sink.room = if i < 5 { 0 } else { expected.len() - before };
            assert!(output.poll(&mut sink, cx).is_pending());
            assert!(output.text.len() < 2 * KEPT_BYTES_MAX, "{} bytes", output.text.len());
        }
        sink.room = usize::MAX;
        assert!(matches!(output.poll(&mut sink, cx), Poll::Ready(Ok(()))));
        assert!(sink.taken == expected);
    }
}
