//! Answers read ahead of their clients, so that endpoints are done with them (nginx: proxy_buffering).

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_local};

use super::{Full, Held};
use crate::{
    record::Record,
    serve::{
        body::{BodyError, ResponseBody},
        worker::Worker,
    },
};

/// An answer that is read ahead.
#[derive(Debug)]
pub(crate) enum Ahead {
    /// It has only begun. What comes in one piece needs nobody to read it but whoever wants it.
    Beside(Reading),
    /// A task reads it.
    Before { shelf: Rc<RefCell<Shelf>>, task: JoinHandle<()> },
}

/// An answer, and on what terms it is read.
#[derive(Debug)]
pub(crate) struct Reading {
    answer: ResponseBody,
    worker: Rc<Worker>,
    /// Is told once the endpoint has said everything.
    record: Option<Rc<Record>>,
    bytes_max: usize,
    /// For room.
    waits: bool,
    /// The thread held as much as it may: counted once.
    is_counted: bool,
}

/// What was read and not taken: all of `held`, then `over`, then the trailers, then the end.
#[derive(Debug)]
pub(crate) struct Shelf {
    held: Held,
    /// What found no room. Nothing more is read until it does.
    over: Bytes,
    trailers: Option<HeaderMap>,
    end: End,
    /// Bytes not yet taken, those not yet read included, if that is known.
    left: Option<u64>,
    /// A piece was taken just now.
    is_fresh: bool,
    /// Waits for something to take.
    reader: Option<Waker>,
    /// Waits for room.
    task: Option<Waker>,
}

#[derive(Debug)]
enum End {
    NotYet,
    Broken(BodyError),
    Reached,
}

impl Ahead {
    pub(in crate::serve) fn of(
        answer: ResponseBody,
        worker: &Rc<Worker>,
        record: Option<&Rc<Record>>,
        bytes_max: usize,
    ) -> Self {
        let (worker, record) = (worker.clone(), record.cloned());
        let (waits, is_counted) = Default::default();
        Self::Beside(Reading { answer, worker, record, bytes_max, waits, is_counted })
    }

    pub(in crate::serve) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Beside(reading) => {
                let polled = Pin::new(&mut reading.answer).poll_frame(cx);
                if matches!(polled, Poll::Ready(Some(Ok(_)))) && !reading.answer.is_end_stream() {
                    self.go_before();
                }
                polled
            }
            Self::Before { shelf, .. } => shelf.borrow_mut().poll(cx),
        }
    }

    fn go_before(&mut self) {
        let Self::Beside(reading) = self else { return };
        let shelf = Rc::new(RefCell::new(Shelf {
            held: Held::new(&reading.worker.buffers, reading.bytes_max),
            over: Bytes::new(),
            trailers: None,
            end: End::NotYet,
            left: reading.answer.size_hint().exact(),
            is_fresh: false,
            reader: None,
            task: None,
        }));
        let mut reading = Reading {
            answer: std::mem::take(&mut reading.answer),
            worker: reading.worker.clone(),
            record: reading.record.take(),
            ..*reading
        };
        let own = shelf.clone();
        let reading = std::future::poll_fn(move |cx| reading.poll(&own, cx));
        *self = Self::Before { shelf, task: spawn_local(reading) };
    }

    pub(in crate::serve) fn is_end_stream(&self) -> bool {
        match self {
            Self::Beside(reading) => reading.answer.is_end_stream(),
            Self::Before { shelf, .. } => shelf.borrow().is_over(),
        }
    }

    pub(in crate::serve) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Beside(reading) => reading.answer.size_hint(),
            Self::Before { shelf, .. } => {
                shelf.borrow().left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}

impl Drop for Ahead {
    /// Nobody wants the rest.
    fn drop(&mut self) {
        if let Self::Before { task, .. } = self {
            task.abort();
        }
    }
}

impl Reading {
    /// Reads as long as there is room; ready when the endpoint has said everything.
    fn poll(&mut self, shelf: &RefCell<Shelf>, cx: &mut Context<'_>) -> Poll<()> {
        if self.waits {
            if !self.makes_room(shelf, cx) {
                return Poll::Pending;
            }
            self.waits = false;
        }
        loop {
            let Poll::Ready(next) = Pin::new(&mut self.answer).poll_frame(cx) else {
                return Poll::Pending;
            };
            let is_last = self.answer.is_end_stream();
            let is_over = shelf.borrow_mut().put(next, is_last);
            let has_room = self.makes_room(shelf, cx);
            if is_over {
                if let Some(record) = &self.record {
                    record.heard();
                }
                return Poll::Ready(());
            }
            if !has_room {
                self.waits = true;
                return Poll::Pending;
            }
        }
    }

    /// Whether nothing is left over; if something is, room wakes the task.
    fn makes_room(&mut self, shelf: &RefCell<Shelf>, cx: &Context<'_>) -> bool {
        let mut shelf = shelf.borrow_mut();
        let Shelf { held, over, .. } = &mut *shelf;
        let Err(full) = held.push(over) else { return true };
        if full == Full::Thread && !std::mem::replace(&mut self.is_counted, true) {
            self.worker.counters.answers_unbuffered.add();
        }
        shelf.task = Some(cx.waker().clone());
        false
    }
}

impl Shelf {
    /// Puts down what was read, and says whether that is all.
    fn put(&mut self, next: Option<Result<Frame<Bytes>, BodyError>>, is_last: bool) -> bool {
        match next.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => self.over = data,
            Some(Ok(Err(frame))) => self.trailers = frame.into_trailers().ok(),
            Some(Err(error)) => self.end = End::Broken(error),
            None => self.end = End::Reached,
        }
        if is_last && matches!(self.end, End::NotYet) {
            self.end = End::Reached;
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        !matches!(self.end, End::NotYet)
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = self.held.pop().unwrap_or_else(|| std::mem::take(&mut self.over));
        if !piece.is_empty() {
            self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
            self.is_fresh = true;
            if let Some(task) = self.task.take() {
                task.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        if matches!(self.end, End::Broken(_)) && std::mem::take(&mut self.is_fresh) {
            // hyper writes what it has when nothing more comes, and throws it away at an error.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match std::mem::replace(&mut self.end, End::Reached) {
            End::Reached => Poll::Ready(None),
            End::Broken(error) => Poll::Ready(Some(Err(error))),
            End::NotYet => {
                self.end = End::NotYet;
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_over(&self) -> bool {
        let is_taken = self.held.is_empty() && self.over.is_empty() && self.trailers.is_none();
        is_taken && matches!(self.end, End::Reached)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::serve::buffer::Budget;

    const ROOM: usize = 1 << 20;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    type Last = fn() -> Option<Result<Frame<Bytes>, BodyError>>;

    fn shelf(budget: &Budget, bytes_max: usize) -> Shelf {
        Shelf {
            held: Held::new(budget, bytes_max),
            over: Bytes::new(),
            trailers: None,
            end: End::NotYet,
            left: None,
            is_fresh: false,
            reader: None,
            task: None,
        }
    }

    fn data(bytes: usize) -> Option<Result<Frame<Bytes>, BodyError>> {
        Some(Ok(Frame::data(vec![b'x'; bytes].into())))
    }

    /// Bytes, trailers, and how it ends.
    fn taken(shelf: &mut Shelf) -> (usize, bool, &'static str) {
        let (mut bytes, mut trailers) = (0, false);
        let woken = Arc::new(Woken::default());
        let waker = woken.clone().into();
        loop {
            match shelf.poll(&Context::from_waker(&waker)) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => bytes += data.len(),
                    Err(_) => trailers = true,
                },
                Poll::Ready(Some(Err(_))) => return (bytes, trailers, "broken"),
                Poll::Ready(None) => return (bytes, trailers, "over"),
                Poll::Pending if woken.0.swap(0, Relaxed) > 0 => {}
                Poll::Pending => return (bytes, trailers, "waits"),
            }
        }
    }

    #[test]
    fn what_was_said_comes_before_how_it_ended() {
        let trailers: Last = || {
            let sum = (HeaderName::from_static("x-sum"), HeaderValue::from_static("1"));
            Some(Ok(Frame::trailers(HeaderMap::from_iter([sum]))))
        };
        let piece: Last = || data(5_000);
        let nothing: Last = || None;
        let broken: Last = || Some(Err(BodyError::TimedOut));
        for (name, last, is_last, expected) in [
            ("the last piece", piece, true, (25_000, false, "over")),
            ("another piece", piece, false, (25_000, false, "waits")),
            ("trailers", trailers, true, (20_000, true, "over")),
            ("nothing", nothing, false, (20_000, false, "over")),
            ("an error", broken, false, (20_000, false, "broken")),
            ("an error at the end", broken, true, (20_000, false, "broken")),
        ] {
            let budget = Budget::new(ROOM);
            // With room, and without: then the piece itself waits.
            for bytes_max in [ROOM, 20_000] {
                let mut shelf = shelf(&budget, bytes_max);
                assert!(!shelf.put(data(20_000), false));
                let mut over = std::mem::take(&mut shelf.over);
                assert_eq!(shelf.held.push(&mut over), Ok(()));
                let is_end = shelf.put(last(), is_last);
                assert_eq!(is_end, expected.2 != "waits", "{name}");
                assert!(!shelf.is_over(), "{name}: something is there");
                assert_eq!(taken(&mut shelf), expected, "{name}");
                assert_eq!(shelf.is_over(), expected.2 != "waits", "{name}");
                assert!(budget.lease(ROOM).is_some(), "{name}: what was taken is room");
            }
        }
    }

    #[test]
    fn each_side_wakes_the_other_when_it_has_something_for_it() {
        let (reader, task) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        let budget = Budget::new(ROOM);
        let mut shelf = shelf(&budget, ROOM);
        let waker = reader.clone().into();
        assert!(shelf.poll(&Context::from_waker(&waker)).is_pending());
        shelf.put(data(1), false);
        assert_eq!(reader.0.load(Relaxed), 1);
        shelf.task = Some(task.clone().into());
        assert_eq!(taken(&mut shelf), (1, false, "waits"));
        assert_eq!(task.0.load(Relaxed), 1);
    }
}
