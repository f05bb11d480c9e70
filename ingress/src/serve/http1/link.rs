//! What the conversation on a connection and the body of its request share: both read it, in turns.
//! The body may be read by another task, and when its answer is over.

mod leaving;
mod splicing;
mod switching;

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::Frame;
use socket2::SockRef;
use tokio::{net::TcpStream, sync::oneshot::Sender};

use super::arriving::{Arriving, Bare};
use crate::{
    codec::{
        Decoder, Framing, Output, Piece,
        h1::{Asks, Head, Heads, Unread},
        h2::Broken,
    },
    counters::Refused,
    serve::{
        client::{Client, Liveness},
        inbound::Inbound,
        observed::Observed,
        wire::{ClientWire, Push},
    },
};

/// RFC 9110 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Of both buffers; the rest is for what is read.
const OUTPUT_SHARE: usize = 2;

/// A connection in use.
#[derive(Debug)]
pub(super) struct Link {
    client: Rc<Client>,
    head_bytes_max: usize,
    output_bytes_max: usize,
    /// The number of the one that is served.
    request: Cell<u64>,
    /// The conversation is being polled: it sees what is done meanwhile.
    is_attended: Cell<bool>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    /// Until it is taken away.
    io: Option<Observed<ClientWire, Rc<Liveness>>>,
    inbound: Inbound,
    heads: Heads,
    /// What the next head's fields are read into.
    room: HeaderMap,
    /// Of the request's body.
    decoder: Decoder,
    /// Somebody reads that.
    has_reader: bool,
    /// It will never be whole.
    is_broken: bool,
    /// The client is to be told that it may send it.
    waits: bool,
    /// How long a part of it is waited for once it is answered.
    late_ms: Option<u64>,
    output: Output,
    upgrade: Option<Sender<Bare>>,
    /// Who waits for the body's end.
    waker: Option<Waker>,
    /// Who waits for more of it.
    reader: Option<Waker>,
}

impl Link {
    pub(super) fn new(wire: ClientWire, client: &Rc<Client>) -> Rc<Self> {
        let config = client.worker.config();
        let state = State {
            io: Some(Observed::new(wire, client.live().clone())),
            inbound: Inbound::new(),
            heads: Heads::behind(client.begun()),
            room: HeaderMap::new(),
            decoder: Decoder::default(),
            has_reader: false,
            is_broken: false,
            waits: false,
            late_ms: None,
            output: Output::default(),
            upgrade: None,
            waker: None,
            reader: None,
        };
        Rc::new(Self {
            client: client.clone(),
            head_bytes_max: config.limits.head_bytes_max,
            output_bytes_max: config.limits.buffer_bytes_max / OUTPUT_SHARE,
            request: Cell::new(0),
            is_attended: Cell::new(false),
            state: RefCell::new(state),
        })
    }

    /// While `poll` runs nobody has to be woken.
    pub(super) fn attended<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.is_attended.set(true);
        let polled = poll();
        self.is_attended.set(false);
        polled
    }

    pub(super) fn request(&self) -> u64 {
        self.request.get()
    }

    /// The next head, if it is there.
    pub(super) fn next_head(&self) -> Result<Option<Head>, Unread> {
        let state = &mut *self.state.borrow_mut();
        state.heads.take(&mut state.inbound.bytes, self.head_bytes_max, &mut state.room)
    }

    /// More of what the client sends; nothing is the end.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.state.borrow_mut().poll_read(cx)
    }

    /// Nothing was read that nobody has taken.
    pub(super) fn is_drained(&self) -> bool {
        self.state.borrow().inbound.bytes.is_empty()
    }

    /// A request's head is read: what follows is its body.
    pub(super) fn begin(self: &Rc<Self>, framing: Framing, asks: Asks) -> Arriving {
        let request = self.request.get() + 1;
        self.request.set(request);
        let state = &mut *self.state.borrow_mut();
        state.decoder = Decoder::new(framing);
        state.has_reader = !state.decoder.is_over();
        state.waits = asks.expects;
        state.is_broken = false;
        (state.late_ms, state.upgrade) = (None, None);
        let is_needed = state.has_reader || asks.upgrades;
        Arriving::new(is_needed.then(|| self.clone()), request)
    }

    /// The next part of the request's body.
    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut state = self.state.borrow_mut();
        let waited = state.waits;
        let polled = state.poll_frame(&self.client, cx);
        state.reader = polled.is_pending().then(|| cx.waker().clone());
        drop(state);
        if waited || polled.is_ready() {
            self.tell();
        }
        polled
    }

    /// All of the request's body was read.
    pub(super) fn is_read(&self) -> bool {
        self.state.borrow().decoder.is_over()
    }

    /// What is left of it, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.state.borrow().decoder.left()
    }

    /// Nobody reads the rest of it.
    pub(super) fn give_up(&self) {
        self.state.borrow_mut().has_reader = false;
        self.tell();
    }

    /// Wakes whoever waits for the body's end, if it is here, or is to write something meanwhile.
    fn tell(&self) {
        if self.is_attended.get() {
            return;
        }
        let mut state = self.state.borrow_mut();
        if !(state.is_read_on() && state.output.is_sent())
            && let Some(waker) = state.waker.take()
        {
            drop(state);
            waker.wake();
        }
    }

    /// Waits until nobody reads the body any more. Each part of it has so much time.
    pub(super) fn poll_read_on(&self, patience_ms: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if !state.is_read_on() {
            return Poll::Ready(());
        }
        if state.late_ms.replace(patience_ms).is_none() {
            self.client.watch().arm(patience_ms);
        }
        state.waits_for_reader(cx);
        Poll::Pending
    }

    /// Whether the next request can be told from what is left of this one: somebody reads that, or
    /// all of it is here already.
    pub(super) fn settles(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.state.borrow_mut();
        if state.decoder.is_over() {
            return true;
        }
        // A client that was not told to go on may never send it, and once it is answered nobody tells it.
        if state.is_broken || state.waits {
            return false;
        }
        if state.is_read_on() {
            return true;
        }
        matches!(state.poll_discard(cx), Poll::Ready(true))
    }

    /// What is said now is the answer.
    pub(super) fn answer<T>(&self, write: impl FnOnce(&mut Output) -> T) -> T {
        let mut state = self.state.borrow_mut();
        state.waits = false;
        write(&mut state.output)
    }

    /// Fields that were written: the next ones have their room.
    pub(super) fn give_room(&self, mut headers: HeaderMap) {
        // What they say is parts of somebody's buffer.
        headers.clear();
        self.state.borrow_mut().room = headers;
    }

    /// More may be said before any of it is written.
    pub(super) fn has_room(&self) -> bool {
        self.state.borrow().output.len() < self.output_bytes_max
    }

    /// All that was said is with the kernel.
    pub(super) fn is_sent(&self) -> bool {
        self.state.borrow().output.is_sent()
    }

    /// Writes what was said.
    ///
    /// # Errors
    /// Nothing can be written any more.
    pub(super) fn poll_output(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.borrow_mut().poll_output(cx)
    }

    /// Whether the client takes something after all.
    pub(super) fn pushes(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let Some(io) = &mut state.io else { return false };
        let takes = io.get_mut().takes(&mut state.output);
        if takes {
            self.client.watch().written();
        }
        takes
    }

    /// The bare socket, for who needs no bytes of it: nothing of the output may be left. `None`: it
    /// is encrypted, or somebody else has it.
    pub(super) fn plain<T>(&self, act: impl FnOnce(&TcpStream) -> T) -> Option<T> {
        self.state.borrow().io.as_ref()?.get_ref().bare().map(act)
    }

    /// A body that ends with its connection is not to be taken for whole: it ends by a reset. Through
    /// TLS it does not end as it should anyway.
    pub(super) fn reset(&self) {
        // Fails on a connection that is gone already.
        _ = self.plain(|stream| SockRef::from(stream).set_linger(Some(Duration::ZERO)));
    }

    /// The connection, and what was read of it and not taken; `None` if somebody else has it. A body
    /// that is not over never will be: whoever reads it hears that.
    pub(super) fn take(&self) -> Option<(ClientWire, Bytes)> {
        let mut state = self.state.borrow_mut();
        let wire = state.io.take()?.into_inner();
        let unused = std::mem::replace(&mut state.inbound, Inbound::new()).bytes.freeze();
        state.is_broken |= !state.decoder.is_over();
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Some((wire, unused))
    }
}

impl State {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Some(io) => self.inbound.poll_read(io, cx),
            None => Poll::Ready(Ok(0)),
        }
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) if !self.output.is_sent() => self.output.poll(io, cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Whoever reads the body tells who waits for that.
    fn waits_for_reader(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    /// The body is not over, and somebody is about to read the rest of it.
    fn is_read_on(&self) -> bool {
        self.has_reader && !self.is_broken && !self.decoder.is_over()
    }

    fn poll_frame(
        &mut self,
        client: &Client,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        while !self.is_broken {
            match self.decoder.take(&mut self.inbound.bytes) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::More) => {}
                Err(_) => {
                    client.worker.counters.refused(Refused::Malformed);
                    self.is_broken = true;
                    break;
                }
            }
            self.go_on();
            match ready!(self.poll_read(cx)) {
                Ok(0) | Err(_) => self.is_broken = true,
                Ok(_) => {
                    if let Some(late_ms) = self.late_ms {
                        client.watch().arm(late_ms);
                    }
                }
            }
        }
        Poll::Ready(Some(Err(Broken)))
    }

    /// The client may send the body, if it waits for that (RFC 9110 10.1.1). It is not written here: a
    /// task that reads the body would be woken instead of the one that has the rest to write.
    fn go_on(&mut self) {
        let waits = std::mem::take(&mut self.waits);
        if waits && self.inbound.bytes.is_empty() {
            self.output.text.extend_from_slice(CONTINUE);
        }
    }

    /// Throws away what is here of the body; whether that was all.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut has_read = false;
        loop {
            match self.decoder.take(&mut self.inbound.bytes) {
                Ok(Piece::Data(_) | Piece::Trailers(_)) => {}
                Ok(Piece::End) => return Poll::Ready(true),
                Ok(Piece::More) if has_read => return Poll::Ready(false),
                Ok(Piece::More) => {
                    has_read = true;
                    if !matches!(ready!(self.poll_read(cx)), Ok(1..)) {
                        return Poll::Ready(false);
                    }
                }
                Err(_) => return Poll::Ready(false),
            }
        }
    }
}
