//! A client's connection: read, answered and written in turns, by whoever polls it.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod incoming;
mod outgoing;
mod requests;

use std::{
    collections::VecDeque,
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use self::incoming::Block;
use super::{
    Dropped, Reason, Serve, Surroundings,
    frame::{self, MAX_31},
    guard::{Flood, Guard},
    hpack::{Decoder, Encoder},
    receive::Windows,
    settings,
    streams::{Closed, Streams},
};
use crate::codec::output::Output;

/// The windows before anybody says otherwise (RFC 9113 6.9.2).
const WINDOW_BYTES: u32 = 65_535;
/// Data that waits to be written.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Besides: answers to frames of the connection. Then nothing is read until something is written.
const REPLY_BYTES_MAX: usize = 16 << 10;
/// What is read at once, and how much of it if there is more again and again.
const ROOM_BYTES: usize = 16 << 10;
const ROOM_BYTES_MAX: usize = 32 << 10;
/// Others are served by this thread, too.
const TURNS_MAX: usize = 8;
/// More at once is more than a client can want, whatever the settings say.
const STREAMS_MAX: u32 = 1 << 14;
/// Comes back when all streams are here that were on their way.
const LEAVING: [u8; 8] = *b"leaving.";

/// What a connection is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// At once.
    pub(crate) streams_max: u32,
    /// Of a request's fields, as RFC 9113 6.5.2 counts them.
    pub(crate) head_bytes_max: usize,
    /// A request that is not read holds this much.
    pub(crate) stream_window_bytes: u32,
    /// And all of them together this.
    pub(crate) connection_window_bytes: u32,
    /// Who takes nothing of an answer for so long is not waited for.
    pub(crate) stall_ms: u64,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client was told, and may still be sending.
    Told,
    /// There is nobody any more.
    Gone,
}

/// How far a connection is on its way out (RFC 9113 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// The client is to send no more requests, and those it has sent are served.
    Leaving,
    /// Nothing that was not begun is served.
    Left,
    /// Nothing is.
    Failed,
}

/// One client's connection.
pub(crate) struct Connection<S, V: Serve, W> {
    io: S,
    service: V,
    around: W,
    settings: Settings,
    stage: Stage,
    input: BytesMut,
    room: usize,
    /// The preface is there, and the client's settings.
    is_greeted: bool,
    has_settings: bool,
    decoder: Decoder,
    /// Fields whose end is not there.
    block: Option<Block>,
    streams: Streams<V>,
    /// The highest identifier so far, and the highest of those that are served.
    last_seen: u32,
    last_served: u32,
    guard: Guard,
    windows: Rc<Windows>,
    encoder: Encoder,
    output: Output,
    /// What we may send, on all streams together and on a new one.
    send_window: i64,
    stream_send_window: i64,
    /// Places of streams that can go on.
    woken: Vec<usize>,
    /// Places of streams with something to send, each once.
    sending: VecDeque<usize>,
    /// Of those that wait for the connection's window; no place is in both queues.
    waiting: VecDeque<usize>,
    has_stalled: bool,
    client_leaves: bool,
    is_resting: bool,
}

/// What reading brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Some,
    None,
    /// There was no room for answers.
    Later,
    End,
}

impl<S, V, W> Connection<S, V, W>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Serve,
    W: Surroundings,
{
    /// Says what this side's settings are.
    pub(crate) fn new(io: S, service: V, around: W, settings: Settings) -> Self {
        let Settings { stream_window_bytes, connection_window_bytes, .. } = settings;
        let streams_max = settings.streams_max.min(STREAMS_MAX);
        let head_bytes = u32::try_from(settings.head_bytes_max).unwrap_or(u32::MAX);
        let mut output = Output::default();
        frame::write_settings(
            &[
                (settings::MAX_CONCURRENT_STREAMS, streams_max),
                (settings::INITIAL_WINDOW_SIZE, stream_window_bytes),
                (settings::MAX_HEADER_LIST_SIZE, head_bytes),
                (settings::ENABLE_CONNECT_PROTOCOL, 1),
            ],
            &mut output.text,
        );
        let more = connection_window_bytes.saturating_sub(WINDOW_BYTES);
        if more > 0 {
            frame::write_window(0, more, &mut output.text);
        }
        let stream_bytes = usize::try_from(stream_window_bytes).unwrap_or(usize::MAX);
        let connection_bytes = connection_window_bytes.max(WINDOW_BYTES);
        let connection_bytes = usize::try_from(connection_bytes).unwrap_or(usize::MAX);
        Self {
            stage: Stage::Serving,
            input: BytesMut::new(),
            room: ROOM_BYTES,
            is_greeted: false,
            has_settings: false,
            decoder: Decoder::new(),
            block: None,
            streams: Streams::new(usize::try_from(streams_max).unwrap_or(usize::MAX)),
            last_seen: 0,
            last_served: 0,
            guard: Guard::new(around.now_ms()),
            windows: Windows::new(stream_bytes, connection_bytes),
            encoder: Encoder::new(),
            output,
            send_window: i64::from(WINDOW_BYTES),
            stream_send_window: i64::from(WINDOW_BYTES),
            woken: Vec::new(),
            sending: VecDeque::new(),
            waiting: VecDeque::new(),
            has_stalled: false,
            client_leaves: false,
            is_resting: false,
            io,
            service,
            around,
            settings,
        }
    }

    /// No request is being served.
    pub(crate) fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// All that was said is with the kernel.
    pub(crate) fn is_sent(&self) -> bool {
        self.output.is_sent()
    }

    /// The stream below, and what it is to be given.
    pub(crate) fn unsent(&mut self) -> (&mut S, &mut Output) {
        (&mut self.io, &mut self.output)
    }

    /// Time matters: poll it now and then.
    pub(crate) fn is_stalled(&self) -> bool {
        self.has_stalled
    }

    /// Takes requests that are on their way, and then no more.
    pub(crate) fn drain(&mut self) {
        if self.stage == Stage::Serving {
            self.stage = Stage::Leaving;
            frame::write_goaway(MAX_31, Reason::NoError, &mut self.output.text);
            frame::write_ping(0, LEAVING, &mut self.output.text);
        }
    }

    /// Takes no requests that did not come yet.
    pub(crate) fn leave(&mut self) {
        if self.stage < Stage::Left {
            self.stage = Stage::Left;
            frame::write_goaway(self.last_seen, Reason::NoError, &mut self.output.text);
        }
    }

    /// Gives back what is not needed while nothing comes.
    pub(crate) fn rest(&mut self) {
        if !self.streams.is_empty() {
            return;
        }
        self.is_resting = true;
        self.streams.rest();
        self.output.rest();
        (self.woken, self.sending, self.waiting) = Default::default();
        self.room = ROOM_BYTES;
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// The stream below, whose writing side may still have something to say.
    pub(crate) fn into_io(self) -> S {
        self.io
    }

    /// Does what can be done.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.streams.ready.work(cx.waker());
        let now_ms = self.around.now_ms();
        self.guard.refill(now_ms);
        if self.has_stalled {
            self.drop_stalled(now_ms);
        }
        for _ in 0..TURNS_MAX {
            let mut input = Input::None;
            if self.stage < Stage::Failed {
                input = self.read(cx);
                if input == Input::End {
                    return Poll::Ready(End::Gone);
                }
                self.go_on();
                self.send();
                self.open_windows();
            }
            match self.output.poll(&mut self.io, cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Ready(Ok(())) if self.is_over() => return Poll::Ready(End::Told),
                Poll::Ready(Ok(())) if self.can_send() => continue,
                // Whoever writes before it reads goes on when it is read, perhaps only then.
                Poll::Ready(Ok(())) | Poll::Pending if input == Input::Later && self.may_read() => {
                    continue;
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            // Once nothing is served, only what is to be written still matters: who was woken is
            // not looked at any more, and would never be at rest.
            if self.stage == Stage::Failed || (input != Input::Some && self.streams.ready.rest()) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        match self.stage {
            Stage::Failed => true,
            Stage::Left => self.streams.is_empty(),
            Stage::Serving | Stage::Leaving => self.client_leaves && self.streams.is_empty(),
        }
    }

    /// There is room for answers to what is read.
    fn may_read(&self) -> bool {
        self.output.len() < OUTPUT_BYTES_MAX + REPLY_BYTES_MAX
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Input {
        if !self.may_read() {
            return Input::Later;
        }
        if self.input.capacity() - self.input.len() < self.room / 2 {
            self.input.reserve(self.room);
        }
        match pin!(self.io.read_buf(&mut self.input)).poll(cx) {
            Poll::Pending => {
                if self.is_resting && self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                Input::None
            }
            Poll::Ready(Ok(0) | Err(_)) => Input::End,
            Poll::Ready(Ok(_)) => {
                if self.input.len() == self.input.capacity() {
                    self.room = (self.room * 2).min(ROOM_BYTES_MAX);
                }
                if let Err(reason) = self.take_input() {
                    self.fail(reason);
                }
                self.is_resting &= self.streams.is_empty();
                Input::Some
            }
        }
    }

    /// The windows of what was read since; those of streams open when they are polled.
    fn open_windows(&mut self) {
        if self.stage == Stage::Failed {
            return;
        }
        let more = self.windows.due();
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(MAX_31);
            frame::write_window(0, more, &mut self.output.text);
        }
    }

    /// Nothing on this connection can be understood or is wanted any more.
    fn fail(&mut self, reason: Reason) {
        self.around.dropped(match reason {
            Reason::EnhanceYourCalm => Dropped::Flood,
            _ => Dropped::Malformed,
        });
        self.stage = Stage::Failed;
        let places: Vec<usize> = self.streams.iter_mut().map(|(place, _)| place).collect();
        for place in places {
            self.streams.close(place, Closed::ByUs);
        }
        frame::write_goaway(self.last_served, reason, &mut self.output.text);
    }

    /// Ends a stream for a mistake of the client's; what it still sends there is no other.
    fn reset(&mut self, id: u32, reason: Reason) -> Result<(), Reason> {
        self.around.dropped(match reason {
            Reason::Refused => Dropped::StreamsTooMany,
            _ => Dropped::Malformed,
        });
        frame::write_reset(id, reason, &mut self.output.text);
        match self.streams.find(id) {
            Some(place) => self.streams.close(place, Closed::ByUs),
            None => self.streams.remember(id, Closed::ByUs),
        }
        self.guard.reset()?;
        Ok(())
    }

    /// Who takes nothing for too long.
    fn drop_stalled(&mut self, now_ms: u64) {
        let stall_ms = self.settings.stall_ms;
        let is_over = |since: u64| since.saturating_add(stall_ms) <= now_ms;
        let stalled = self.streams.iter_mut();
        let stalled = stalled.filter_map(|(_, s)| s.outflow.stalled_ms.map(|since| (s.id, since)));
        let stalled: Vec<(u32, u64)> = stalled.collect();
        self.has_stalled = !stalled.is_empty();
        for (id, _) in stalled.into_iter().filter(|(_, since)| is_over(*since)) {
            self.around.dropped(Dropped::Stalled);
            // As old as that, they are no flood however many.
            frame::write_reset(id, Reason::Cancel, &mut self.output.text);
            if let Some(place) = self.streams.find(id) {
                self.streams.close(place, Closed::ByUs);
            }
        }
    }
}

impl From<Flood> for Reason {
    fn from(_: Flood) -> Self {
        Self::EnhanceYourCalm
    }
}

#[cfg(test)]
mod tests;
