//! Bodies in both directions, streamed.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

use super::{
    buffer::{ahead::Ahead, whole::Read},
    client::{Busy, Client},
    clock::Watch,
    gzip::Gzipped,
    incoming::Incoming,
    pace::Paced,
    pipe::Outflow,
    upstream::UpstreamConnection,
    upstream2::Stream2,
};
use crate::{
    codec::{Malformed, announced, h2},
    limiter::Slot,
    record::Record,
    routes::{Pace, Patience},
    timer::Timer,
};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection it came on failed.
    #[error("{0}")]
    Connection(#[from] hyper::Error),
    /// The client broke off its stream.
    #[error("{0}")]
    Stream(#[from] h2::Broken),
    /// The endpoint's connection failed.
    #[error("the endpoint's connection broke: {0}")]
    Endpoint(#[from] io::Error),
    /// The endpoint says what cannot be believed, or not all of it.
    #[error("{0}")]
    Answer(#[from] Malformed),
    /// The endpoint answered before it had all of a request that then broke off.
    #[error("the request's body broke off while it was answered")]
    Request,
    /// More came than is allowed.
    #[error("the body is too large")]
    TooLarge,
    /// It could not be compressed.
    #[error("the body could not be compressed: {0}")]
    Compression(io::Error),
    /// Nothing came for too long.
    #[error("no part of the body arrived in time")]
    TimedOut,
}

/// What is sent to a client.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: Source,
    /// Ends with the body: what is left open is a request in service.
    busy: Option<Busy>,
    /// What is told of it.
    record: Option<Rc<Record>>,
    /// What only some routes have.
    extras: Option<Box<Extras>>,
}

#[derive(Debug, Default)]
struct Extras {
    pace: Option<Paced>,
    /// Counts as in service as long as the body goes out.
    slot: Option<Slot>,
}

/// Where it comes from.
#[derive(Debug)]
pub(super) enum Source {
    Ours(Full<Bytes>),
    Upstream(UpstreamBody),
    /// What an upstream says, whether or not it is taken.
    Ahead(Box<Ahead>),
    /// One of the others, made smaller.
    Gzipped(Box<Gzipped>),
    Tunnel(Outflow),
}

/// A response's body. Reading it drives the connection it comes on.
#[derive(Debug)]
pub(super) struct UpstreamBody {
    /// Until it went back to the pool or broke; nothing comes without it.
    carrier: Option<Carrier>,
    client: Rc<Client>,
    read_ms: u64,
}

/// What a response comes on.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// A connection of its own: the body is read from it.
    H1(Box<UpstreamConnection>),
    /// A stream; the connection has a task of its own.
    H2(hyper::body::Incoming, Stream2),
}

impl Carrier {
    fn watch(&self) -> &Watch {
        match self {
            Self::H1(connection) => connection.watch(),
            Self::H2(_, stream) => stream.watch(),
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::H1(connection) => connection.poll_frame(cx),
            Self::H2(incoming, _) => Pin::new(incoming).poll_frame(cx).map_err(BodyError::from),
        }
    }

    /// Nothing of the body is left.
    fn is_answered(&self) -> bool {
        match self {
            Self::H1(connection) => connection.is_answered(),
            Self::H2(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::H1(connection) => connection.size_hint(),
            Self::H2(incoming, _) => incoming.size_hint(),
        }
    }
}

/// What is sent to an upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Nothing: may be sent again.
    Empty,
    /// What the client sends.
    Client(ClientBody),
    /// What it has sent, all or the beginning.
    Read(Box<Read>),
}

/// A request's body.
#[derive(Debug)]
pub(crate) struct ClientBody {
    incoming: Incoming,
    bytes_left: u64,
    /// Trailers that may come behind it, to whomever it is sent.
    announced: Vec<HeaderName>,
    progress: Rc<Progress>,
    /// What is told of the request.
    record: Rc<Record>,
}

/// How far a request's body is: decides who is waited for, and how long.
#[derive(Debug)]
pub(crate) struct Progress {
    stage: Cell<Upload>,
    /// Of the connection it is sent on.
    watch: RefCell<Option<Arc<Watch>>>,
    client_body_ms: u64,
    upstream_send_ms: u64,
    upstream_read_ms: u64,
}

/// Who is to act next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// The upstream has not taken what is there.
    Sending,
    /// The client has not sent more.
    Receiving,
    /// The client broke off.
    Broken,
    /// The client sent more than it may.
    TooLarge,
    /// All of it was sent.
    Done,
}

impl ResponseBody {
    pub(super) fn text(line: &'static str) -> Self {
        let body = Full::new(Bytes::from_static(line.as_bytes()));
        Self::of(Source::Ours(body))
    }

    pub(super) fn own(text: String) -> Self {
        let body = Full::new(Bytes::from(text));
        Self::of(Source::Ours(body))
    }

    pub(super) fn empty() -> Self {
        Self::text("")
    }

    /// What a tunnel sends to a stream.
    pub(super) fn tunnel(outflow: Outflow) -> Self {
        Self::of(Source::Tunnel(outflow))
    }

    fn of(source: Source) -> Self {
        Self { source, busy: None, record: None, extras: None }
    }

    /// Takes over the connection whose response's head was read.
    pub(super) fn upstream(carrier: Carrier, client: Rc<Client>, patience: &Patience) -> Self {
        let is_answered = carrier.is_answered();
        let read_ms = patience.read_ms;
        let mut body = UpstreamBody { carrier: Some(carrier), client, read_ms };
        if is_answered {
            body.finish();
        }
        Self::of(Source::Upstream(body))
    }

    /// No endpoint said it.
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self.source.bare(), Source::Upstream(_) | Source::Ahead(_))
    }

    /// Is read ahead of its client as far as `bytes_max`. Streams are so anyway, by their windows.
    pub(super) fn read_ahead(&mut self, record: Option<&Rc<Record>>, bytes_max: usize) {
        if let Source::Upstream(UpstreamBody { carrier: Some(Carrier::H1(_)), client, .. }) =
            &self.source
        {
            let worker = client.worker.clone();
            let ahead = Ahead::of(std::mem::take(self), &worker, record, bytes_max);
            self.source = Source::Ahead(Box::new(ahead));
        }
    }

    /// Nobody reads on for a while: that is not the endpoint's fault.
    pub(super) fn leave(&self) {
        self.source.leave();
    }

    pub(super) fn resume(&self) {
        self.source.resume();
    }

    /// It is no body, but what is said in a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        matches!(self.source, Source::Tunnel(_))
    }

    /// It is sent by gzip.
    pub(super) fn gzip(&mut self, level: u32) {
        let bare = std::mem::replace(&mut self.source, Source::Ours(Full::default()));
        self.source = Source::Gzipped(Box::new(Gzipped::new(bare, level)));
    }

    /// Sends it no faster than this. What is in a tunnel is no body, over HTTP/2 as over HTTP/1.
    pub(super) fn slow_down(&mut self, pace: Pace, timer: &Timer) {
        if self.is_tunnel() {
            return;
        }
        self.extras.get_or_insert_default().pace = Some(Paced::new(pace, timer.clone()));
    }

    /// Is counted until this body ends.
    pub(super) fn count(&mut self, slot: Slot) {
        self.extras.get_or_insert_default().slot = Some(slot);
    }

    /// Bytes held back.
    fn rest(&self) -> u64 {
        let pace = self.extras.as_ref().and_then(|extras| extras.pace.as_ref());
        pace.map_or(0, Paced::rest)
    }

    /// The request is over when this body ends.
    pub(super) fn note(&mut self, record: Rc<Record>) {
        self.record = Some(record);
    }

    /// The request ends when this body does.
    pub(super) fn hold(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    fn poll_paced(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let pace = self.extras.as_mut().and_then(|extras| extras.pace.as_mut());
        let Some(pace) = pace else { return self.source.poll(cx) };
        loop {
            match pace.poll(cx) {
                Poll::Pending => {
                    self.source.leave();
                    return Poll::Pending;
                }
                Poll::Ready(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Poll::Ready(None) => {}
            }
            if pace.has_waited() {
                self.source.resume();
            }
            match self.source.poll(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => pace.push(data),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return other,
            }
        }
    }
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.poll_paced(cx);
        // A tunnel counts for itself.
        let record = self.record.as_ref().filter(|_| !self.is_tunnel());
        if let (Some(record), Poll::Ready(Some(Ok(frame)))) = (record, &polled) {
            record.sent(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest() == 0
            && match &self.source {
                Source::Ours(body) => body.is_end_stream(),
                Source::Tunnel(_) => false,
                Source::Upstream(body) => body.carrier.as_ref().is_none_or(Carrier::is_answered),
                Source::Ahead(body) => body.is_end_stream(),
                Source::Gzipped(body) => body.is_over(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let hint = match &self.source {
            Source::Ours(body) => body.size_hint(),
            Source::Upstream(UpstreamBody { carrier: None, .. }) => SizeHint::with_exact(0),
            Source::Upstream(UpstreamBody { carrier: Some(carrier), .. }) => carrier.size_hint(),
            Source::Ahead(body) => body.size_hint(),
            Source::Tunnel(_) | Source::Gzipped(_) => SizeHint::default(),
        };
        match (self.rest(), hint.exact()) {
            (0, _) => hint,
            (rest, Some(exact)) => SizeHint::with_exact(exact + rest),
            (_, None) => SizeHint::default(),
        }
    }
}

impl Source {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Ours(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Upstream(body) => body.poll(cx),
            Self::Ahead(body) => body.poll(cx),
            Self::Tunnel(outflow) => outflow.poll(cx),
            Self::Gzipped(body) => body.poll(cx),
        }
    }

    /// Before it is compressed.
    fn bare(&self) -> &Self {
        match self {
            Self::Gzipped(body) => body.source(),
            bare => bare,
        }
    }

    /// Nobody reads on for a while: that is not the endpoint's fault.
    fn leave(&self) {
        if let Self::Upstream(UpstreamBody { carrier: Some(carrier), .. }) = self.bare() {
            carrier.watch().disarm();
        }
    }

    fn resume(&self) {
        if let Self::Upstream(UpstreamBody { carrier: Some(carrier), read_ms, .. }) = self.bare() {
            carrier.watch().arm(*read_ms);
        }
    }
}

impl UpstreamBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(carrier) = &mut self.carrier else { return Poll::Ready(None) };
        let polled = carrier.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) if !carrier.is_answered() => carrier.watch().arm(self.read_ms),
            Poll::Ready(Some(Ok(_)) | None) => self.finish(),
            Poll::Ready(Some(Err(_))) => self.carrier = None,
            Poll::Pending => {
                carrier.watch().register(cx.waker());
                if carrier.watch().expired() {
                    self.carrier = None;
                    self.client.worker.counters.upstream_timeouts.add();
                    return Poll::Ready(Some(Err(BodyError::TimedOut)));
                }
            }
        }
        polled
    }

    fn finish(&mut self) {
        let worker = &self.client.worker;
        if let Some(Carrier::H1(connection)) = self.carrier.take()
            && connection.is_reusable()
        {
            let idle_max = worker.config().limits.upstream_idle_per_endpoint_max;
            worker.pool.put(connection, worker.clock.now_ms(), idle_max);
        }
    }
}

impl RequestBody {
    pub(super) fn new(
        incoming: Incoming,
        headers: &HeaderMap,
        bytes_max: u64,
        patience: &Patience,
        record: &Rc<Record>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let client_body_ms = record.config.timeouts.client_body_ms;
        let progress = Rc::new(Progress::new(client_body_ms, patience));
        let record = record.clone();
        let (bytes_left, announced) = (bytes_max, announced(headers));
        Self::Client(ClientBody { incoming, bytes_left, announced, progress, record })
    }

    /// `None` when there is no body.
    pub(super) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Client(body) => Some(body.progress.clone()),
            Self::Read(read) => Some(read.progress().clone()),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Client(body) => body,
            Self::Read(read) => return Pin::new(&mut **read).poll_frame(cx),
        };
        let mut polled = Pin::new(&mut body.incoming).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            keep_announced(trailers, &body.announced);
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let Some(left) = body.bytes_left.checked_sub(data.len() as u64) else {
                body.progress.reach(Upload::TooLarge);
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            };
            body.bytes_left = left;
            body.record.received(data.len());
        }
        body.progress.reach(match &polled {
            Poll::Pending => Upload::Receiving,
            Poll::Ready(Some(Ok(_))) if body.incoming.is_end_stream() => Upload::Done,
            Poll::Ready(Some(Ok(_))) => Upload::Sending,
            Poll::Ready(Some(Err(_))) => Upload::Broken,
            Poll::Ready(None) => Upload::Done,
        });
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.incoming.is_end_stream(),
            Self::Read(read) => read.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.incoming.size_hint(),
            Self::Read(read) => read.size_hint(),
        }
    }
}

fn keep_announced(trailers: &mut HeaderMap, announced: &[HeaderName]) {
    let is_kept = |name: &HeaderName| announced.contains(name);
    if trailers.keys().all(is_kept) {
        return;
    }
    let kept = trailers.iter().filter(|&(name, _)| is_kept(name));
    *trailers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
}

impl Progress {
    pub(super) fn new(client_body_ms: u64, patience: &Patience) -> Self {
        Self {
            stage: Cell::new(Upload::Sending),
            watch: RefCell::default(),
            client_body_ms,
            upstream_send_ms: patience.send_ms,
            upstream_read_ms: patience.read_ms,
        }
    }

    /// The body is about to be sent on the connection of this watch.
    pub(super) fn begin(&self, watch: &Arc<Watch>) {
        watch.arm(self.upstream_send_ms);
        *self.watch.borrow_mut() = Some(watch.clone());
    }

    pub(super) fn stage(&self) -> Upload {
        self.stage.get()
    }

    pub(super) fn reach(&self, stage: Upload) {
        let waited_on = stage == Upload::Receiving && self.stage.get() == Upload::Receiving;
        self.stage.set(stage);
        if waited_on {
            return;
        }
        if let Some(watch) = &*self.watch.borrow() {
            watch.arm(match stage {
                Upload::Receiving => self.client_body_ms,
                Upload::Sending | Upload::Broken | Upload::TooLarge => self.upstream_send_ms,
                Upload::Done => self.upstream_read_ms,
            });
        }
    }
}
