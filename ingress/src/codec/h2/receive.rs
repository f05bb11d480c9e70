//! A request's body: what the client sent and nobody has taken yet. Its windows open again as it is
//! taken, so a client is read no faster than the endpoint reads.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};

/// Shorter data is copied: a part of the connection's buffer keeps all of it, and a client may see
/// to it that the rest is nobody's. This is a quarter of the largest.
pub(super) const SHARED_BYTES_MIN: usize = 8 << 10;

/// What all bodies of a connection share.
#[derive(Debug)]
pub(super) struct Windows {
    /// What the client may send on all streams together.
    open: Cell<usize>,
    /// Taken, and not given back to the client's window yet.
    taken: Cell<usize>,
    /// Worth telling the client.
    connection_step: usize,
    stream_step: usize,
}

/// A request's body, on the connection's side.
#[derive(Debug)]
pub(super) struct Inflow {
    shared: Rc<Shared>,
}

/// The same on the side of whoever reads it. Dropping it gives the rest up.
#[derive(Debug)]
pub(crate) struct Received(Option<Rc<Shared>>);

/// The client broke off, or the connection did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client broke off its request")]
pub(crate) struct Broken;

#[derive(Debug)]
struct Shared {
    queue: RefCell<Queue>,
    windows: Rc<Windows>,
    /// Of the stream: it is polled when its window is worth opening, or the body is given up.
    stream: Waker,
}

#[derive(Debug)]
struct Queue {
    /// Whole frames, then what is copied together behind them.
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
    trailers: Option<HeaderMap>,
    state: State,
    /// Announced and not taken.
    length: Option<u64>,
    reader: Option<Waker>,
    /// Taken, and not given back to the stream's window yet.
    taken: usize,
    is_given_up: bool,
    /// The client waits to be told that it is to go on, as long as nothing of the body is here.
    waits: bool,
    /// And so does whoever reads.
    is_wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Broken,
}

impl Windows {
    pub(super) fn new(stream_bytes: usize, connection_bytes: usize) -> Rc<Self> {
        let (open, taken) = (Cell::new(connection_bytes), Cell::new(0));
        let (connection_step, stream_step) = (connection_bytes / 2, stream_bytes / 2);
        Rc::new(Self { open, taken, connection_step, stream_step })
    }

    /// Bytes that came; false: more than the client may send.
    pub(super) fn spend(&self, bytes: usize) -> bool {
        let left = self.open.get().checked_sub(bytes);
        self.open.set(left.unwrap_or_default());
        left.is_some()
    }

    /// Bytes that were no body's, or are nobody's any more.
    pub(super) fn give_back(&self, bytes: usize) {
        self.taken.set(self.taken.get() + bytes);
    }

    /// What the connection's window is to be opened by, if that is worth a frame.
    pub(super) fn due(&self) -> usize {
        if !self.is_due() {
            return 0;
        }
        let taken = self.taken.take();
        self.open.set(self.open.get() + taken);
        taken
    }

    /// Bodies nobody reads keep their part of the window. The rest must never be narrower than the
    /// step the others wait for.
    fn is_due(&self) -> bool {
        self.taken.get() >= self.connection_step.min(self.open.get() / 2).max(1)
    }
}

impl Inflow {
    /// Both sides of a body of this length, if it is known; `waits`: its client is to be told to go
    /// on.
    pub(super) fn new(
        length: Option<u64>,
        waits: bool,
        windows: &Rc<Windows>,
        stream: &Waker,
    ) -> (Self, Received) {
        let queue = Queue {
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            bytes: 0,
            trailers: None,
            state: State::Open,
            length,
            reader: None,
            taken: 0,
            is_given_up: false,
            waits,
            is_wanted: false,
        };
        let queue = RefCell::new(queue);
        let shared = Rc::new(Shared { queue, windows: windows.clone(), stream: stream.clone() });
        (Self { shared: shared.clone() }, Received(Some(shared)))
    }

    /// Data that came in a frame of `frame_bytes`; `shared` if it need not be copied.
    pub(super) fn push(&self, data: &[u8], shared: Option<Bytes>, frame_bytes: usize) {
        let mut queue = self.shared.queue.borrow_mut();
        if queue.is_given_up {
            return self.shared.windows.give_back(frame_bytes);
        }
        // RFC 9110 10.1.1: whoever sends has not waited for it.
        (queue.waits, queue.is_wanted) = (false, false);
        let padding = frame_bytes.saturating_sub(data.len());
        queue.taken += padding;
        self.shared.windows.give_back(padding);
        if padding > 0 && queue.taken >= self.shared.windows.stream_step {
            // Of padding alone nobody takes anything.
            self.shared.stream.wake_by_ref();
        }
        queue.bytes += data.len();
        match shared {
            Some(shared) => {
                if !queue.tail.is_empty() {
                    let tail = queue.tail.split().freeze();
                    queue.pieces.push_back(tail);
                }
                queue.pieces.push_back(shared);
            }
            None => queue.tail.extend_from_slice(data),
        }
        queue.wake();
    }

    /// Nothing follows.
    pub(super) fn end(&self, trailers: Option<HeaderMap>) {
        let mut queue = self.shared.queue.borrow_mut();
        queue.trailers = trailers.filter(|trailers| !trailers.is_empty());
        queue.state = State::Ended;
        queue.wake();
    }

    /// What the stream's window is to be opened by, if that is worth a frame.
    pub(super) fn due(&self) -> usize {
        let mut queue = self.shared.queue.borrow_mut();
        if queue.taken < self.shared.windows.stream_step.max(1) {
            return 0;
        }
        std::mem::take(&mut queue.taken)
    }

    /// The client is to be told to go on, now and not again: both sides wait for its body.
    pub(super) fn is_wanted(&self) -> bool {
        std::mem::take(&mut self.shared.queue.borrow_mut().is_wanted)
    }

    /// Nobody reads it any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.shared.queue.borrow().is_given_up
    }
}

/// The stream is gone: what was not received will not be.
impl Drop for Inflow {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.borrow_mut();
        if queue.state == State::Open {
            queue.state = State::Broken;
            queue.wake();
        }
    }
}

impl Queue {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        let piece = match self.pieces.pop_front() {
            Some(piece) => piece,
            None if self.tail.is_empty() => return None,
            None => self.tail.split().freeze(),
        };
        self.bytes -= piece.len();
        self.taken += piece.len();
        if let Some(left) = &mut self.length {
            *left = left.saturating_sub(piece.len() as u64);
        }
        Some(piece)
    }

    fn is_over(&self) -> bool {
        self.state == State::Ended && self.bytes == 0 && self.trailers.is_none()
    }
}

impl Received {
    /// Of a request that ended with its head.
    pub(super) fn nothing() -> Self {
        Self(None)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(shared) = &self.0 else { return Poll::Ready(None) };
        let mut queue = shared.queue.borrow_mut();
        // What came before it broke off is still good.
        if let Some(piece) = queue.next() {
            let windows = &shared.windows;
            windows.give_back(piece.len());
            if queue.taken >= windows.stream_step || windows.is_due() {
                shared.stream.wake_by_ref();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match queue.state {
            State::Ended => {
                let trailers = queue.trailers.take();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            State::Broken => Poll::Ready(Some(Err(Broken))),
            State::Open => {
                queue.reader = Some(cx.waker().clone());
                if std::mem::take(&mut queue.waits) {
                    queue.is_wanted = true;
                    shared.stream.wake_by_ref();
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| shared.queue.borrow().is_over())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.0 else { return SizeHint::with_exact(0) };
        let queue = shared.queue.borrow();
        queue.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let Some(shared) = &self.0 else { return };
        let mut queue = shared.queue.borrow_mut();
        queue.is_given_up = true;
        queue.pieces.clear();
        queue.tail = BytesMut::new();
        shared.windows.give_back(std::mem::take(&mut queue.bytes));
        // The stream may have waited for this, or the connection's window be worth opening.
        shared.stream.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn body(length: Option<u64>) -> (Rc<Windows>, Inflow, Received) {
        let windows = Windows::new(100, 400);
        let (inflow, received) = Inflow::new(length, false, &windows, Waker::noop());
        (windows, inflow, received)
    }

    fn next(received: &mut Received) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Pin::new(received).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    fn data(received: &mut Received) -> Option<Bytes> {
        let Poll::Ready(Some(Ok(frame))) = next(received) else { return None };
        frame.into_data().ok()
    }

    #[test]
    fn data_comes_in_its_order_and_small_pieces_come_as_one() {
        let (_, inflow, mut received) = body(None);
        let large = Bytes::from_static(b"large");
        inflow.push(b"a", None, 1);
        inflow.push(b"b", None, 1);
        inflow.push(&large, Some(large.clone()), 5);
        inflow.push(b"c", None, 1);
        assert_eq!(data(&mut received).unwrap(), "ab");
        assert_eq!(data(&mut received).unwrap(), large);
        inflow.push(b"d", None, 1);
        assert_eq!(data(&mut received).unwrap(), "cd");
        assert!(next(&mut received).is_pending());
        assert!(!received.is_end_stream());
        inflow.end(None);
        assert!(received.is_end_stream());
        assert!(matches!(next(&mut received), Poll::Ready(None)));
    }

    #[test]
    fn trailers_come_last() {
        let (_, inflow, mut received) = body(Some(1));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        inflow.push(b"a", None, 1);
        inflow.end(Some(trailers));
        assert_eq!(received.size_hint().exact(), Some(1));
        assert_eq!(data(&mut received).unwrap(), "a");
        assert_eq!(received.size_hint().exact(), Some(0));
        assert!(!received.is_end_stream());
        let Poll::Ready(Some(Ok(frame))) = next(&mut received) else { panic!("no trailers") };
        assert_eq!(frame.into_trailers().unwrap()["x-sum"], "1");
        assert!(received.is_end_stream());
    }

    /// RFC 9110 10.1.1.
    #[test]
    fn a_client_that_waits_is_told_once_that_its_body_is_wanted_and_not_if_it_sends_already() {
        let windows = Windows::new(100, 400);
        for sends in [false, true] {
            let (inflow, mut received) = Inflow::new(None, true, &windows, Waker::noop());
            assert!(!inflow.is_wanted(), "nobody reads it yet");
            if sends {
                inflow.push(b"", None, 0);
            }
            for expected in [!sends, false] {
                assert!(next(&mut received).is_pending());
                assert_eq!(inflow.is_wanted(), expected, "{sends}");
                assert!(!inflow.is_wanted(), "once");
            }
        }
        let (_, inflow, mut received) = body(None);
        assert!(next(&mut received).is_pending());
        assert!(!inflow.is_wanted(), "it waits for nothing");
    }

    #[test]
    fn windows_open_as_it_is_taken_and_in_steps() {
        let (windows, inflow, mut received) = body(None);
        // A frame with one byte of padding, and its length.
        inflow.push(&[0; 48], None, 50);
        assert_eq!((inflow.due(), windows.due()), (0, 0), "nobody took it");
        data(&mut received).unwrap();
        assert_eq!((inflow.due(), windows.due()), (50, 0));
        inflow.push(&[0; 150], None, 150);
        data(&mut received).unwrap();
        assert_eq!((inflow.due(), windows.due()), (150, 200));
        assert_eq!((inflow.due(), windows.due()), (0, 0));
    }

    #[test]
    fn bodies_nobody_reads_do_not_keep_the_others_waiting() {
        let windows = Windows::new(100, 400);
        assert!(windows.spend(60));
        windows.give_back(60);
        assert_eq!(windows.due(), 0, "the client has enough for now");
        // Three streams that nobody reads, and what is left.
        assert!(windows.spend(300) && windows.spend(40));
        windows.give_back(40);
        assert_eq!(windows.due(), 100);
        assert!(windows.spend(100));
        assert!(!windows.spend(1), "it was not told that it may");
    }

    #[test]
    fn what_is_given_up_is_no_burden_to_other_streams() {
        let (windows, inflow, received) = body(None);
        inflow.push(&[0; 150], None, 150);
        drop(received);
        assert!(inflow.is_given_up());
        inflow.push(&[0; 50], None, 50);
        assert_eq!((inflow.due(), windows.due()), (0, 200));
    }

    #[test]
    fn a_body_that_breaks_off_is_not_whole() {
        let (_, inflow, mut received) = body(None);
        inflow.push(b"a", None, 1);
        drop(inflow);
        assert_eq!(data(&mut received).unwrap(), "a");
        assert!(matches!(next(&mut received), Poll::Ready(Some(Err(Broken)))));
        let (_, inflow, mut received) = body(None);
        inflow.end(None);
        drop(inflow);
        assert!(matches!(next(&mut received), Poll::Ready(None)), "it was whole");
        assert!(Received::nothing().is_end_stream());
    }
}
