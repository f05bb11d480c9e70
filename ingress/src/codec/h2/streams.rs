//! A connection's streams. Each has a place, which keeps what its successors can use: the waker and
//! the room of the future that answers.

use std::{collections::VecDeque, pin::Pin, sync::Arc, task::Waker};

use bytes::Bytes;
use http::HeaderMap;

use super::{Serve, ready::Ready, receive::Inflow};

/// Frames that were on their way when a stream ended are no error (RFC 9113 5.1).
const CLOSED_KEPT_MAX: usize = 128;

/// One stream's place.
pub(super) struct Stream<V: Serve> {
    /// 0: free.
    pub(super) id: u32,
    pub(super) waker: Waker,
    /// Its answer has no body (RFC 9110 9.3.2).
    pub(super) is_head: bool,
    /// Becomes the head of the answer.
    pub(super) answer: Pin<Box<Option<V::Answer>>>,
    pub(super) outflow: Outflow<V::Body>,
    /// Until the request is whole.
    pub(super) inflow: Option<Inflow>,
    /// What the client may send before it is told to go on.
    pub(super) receive_window: i64,
    /// Announced and not received.
    pub(super) length: Option<u64>,
    /// In the queue of those with something to send.
    pub(super) is_queued: bool,
}

/// An answer's body on its way.
pub(super) struct Outflow<B> {
    pub(super) body: Option<B>,
    /// Taken from the body and not sent.
    pub(super) data: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    /// Nothing follows what was taken.
    pub(super) is_last: bool,
    /// All of the answer was written.
    pub(super) is_over: bool,
    pub(super) window: i64,
    /// Since when a window is shut on data, its own or the connection's.
    pub(super) stalled_ms: Option<u64>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// The client knows it.
    Known,
    /// We reset it, and the client may not have heard of it.
    ByUs,
}

/// All of a connection's.
pub(super) struct Streams<V: Serve> {
    places: Vec<Stream<V>>,
    free: Vec<usize>,
    /// By identifier, which only grow.
    open: Vec<(u32, usize)>,
    /// Of those that closed last: known to be, and reset by us. The latter are not forgotten
    /// because others end in great numbers.
    known: VecDeque<u32>,
    reset: VecDeque<u32>,
    pub(super) ready: Arc<Ready>,
    most: usize,
}

impl<B> Outflow<B> {
    fn new(window: i64) -> Self {
        Self {
            body: None,
            data: Bytes::new(),
            trailers: None,
            is_last: false,
            is_over: false,
            window,
            stalled_ms: None,
        }
    }
}

impl<V: Serve> Streams<V> {
    /// For so many at once.
    pub(super) fn new(most: usize) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            open: Vec::new(),
            known: VecDeque::new(),
            reset: VecDeque::new(),
            ready: Ready::new(most),
            most,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= self.most
    }

    pub(super) fn find(&self, id: u32) -> Option<usize> {
        let found = self.open.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.open.get(found).map(|(_, place)| *place)
    }

    /// The stream at a place, if there is one.
    pub(super) fn get(&mut self, place: usize) -> Option<&mut Stream<V>> {
        self.places.get_mut(place).filter(|stream| stream.id != 0)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Stream<V>)> {
        self.places.iter_mut().enumerate().filter(|(_, stream)| stream.id != 0)
    }

    /// Opens one, whose identifier is above all before, and says where.
    pub(super) fn open(&mut self, id: u32, send: i64, receive: i64) -> usize {
        let place = self.free.pop().unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(Stream {
                id: 0,
                waker: self.ready.waker(place),
                is_head: false,
                answer: Box::pin(None),
                outflow: Outflow::new(0),
                inflow: None,
                receive_window: 0,
                length: None,
                is_queued: false,
            });
        }
        if let Some(stream) = self.places.get_mut(place) {
            stream.id = id;
            stream.outflow = Outflow::new(send);
            stream.receive_window = receive;
            self.open.push((id, place));
        }
        place
    }

    /// Ends one: whatever it had begun is given up.
    pub(super) fn close(&mut self, place: usize, how: Closed) {
        let Some(stream) = self.places.get_mut(place).filter(|stream| stream.id != 0) else {
            return;
        };
        let id = std::mem::take(&mut stream.id);
        stream.answer.set(None);
        stream.outflow = Outflow::new(0);
        stream.inflow = None;
        self.free.push(place);
        if let Ok(found) = self.open.binary_search_by_key(&id, |(id, _)| *id) {
            self.open.remove(found);
        }
        self.remember(id, how);
    }

    /// It may queue again, or whoever has its place next.
    pub(super) fn leave_queue(&mut self, place: usize) {
        if let Some(stream) = self.places.get_mut(place) {
            stream.is_queued = false;
        }
    }

    pub(super) fn remember(&mut self, id: u32, how: Closed) {
        let ids = match how {
            Closed::Known => &mut self.known,
            Closed::ByUs => &mut self.reset,
        };
        if ids.len() >= CLOSED_KEPT_MAX {
            ids.pop_front();
        }
        ids.push_back(id);
    }

    /// How a stream ended, if that was not long ago.
    pub(super) fn closed(&self, id: u32) -> Option<Closed> {
        if self.reset.contains(&id) {
            return Some(Closed::ByUs);
        }
        self.known.contains(&id).then_some(Closed::Known)
    }

    /// There will be none for a while.
    pub(super) fn rest(&mut self) {
        if self.open.is_empty() {
            (self.places, self.free, self.open) = Default::default();
        }
    }
}
