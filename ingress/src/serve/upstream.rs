//! A connection to an endpoint, driven by whoever uses it.
//!
//! It has no task, and nothing is between it and the request: what it reads is passed on in the
//! same round, as parts of one buffer.

mod outbound;

use std::{
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, header::CONNECTION};
use hyper::body::{Frame, SizeHint};
use tokio::net::TcpStream;

use self::outbound::{BrokenOff, Outbound};
use super::{
    body::{BodyError, Progress, RequestBody, Upload},
    clock::Watch,
    inbound::Inbound,
    replay::Replay,
    wire::Wire,
    worker::Worker,
};
use crate::{
    admission::names,
    codec::{Answer, Answers, Asked, Decoder, Malformed, Piece},
    routes::{Endpoint, Patience},
};

/// An HTTP/1.1 connection to one endpoint of one upstream; serves one request at a time.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    wire: Wire,
    outbound: Outbound,
    inbound: Inbound,
    answers: Answers,
    /// Of the answer's body.
    decoder: Decoder,
    /// Both sides keep it behind the exchange under way.
    keeps: bool,
    endpoint: Arc<Endpoint>,
    watch: Arc<Watch>,
    /// The request that was sent last.
    replay: Replay,
    idle_since_ms: u64,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Not a byte of the request was sent; here it is again.
    Unsent(Box<Request<RequestBody>>),
    /// The connection broke before a response.
    Broken,
    /// The endpoint gave this request up, and goes on with the others on its connection.
    Reset,
    /// It did so before it looked at it: whoever is asked again has not done anything yet.
    Unprocessed,
    /// The endpoint's answer cannot be believed.
    Misread,
    /// The endpoint took too long.
    TimedOut,
    /// The client took too long with its body.
    ClientTimedOut,
    /// The client broke off its body.
    ClientBroke,
    /// The client sent more than it may.
    ClientTooLarge,
}

/// Why there will be no answer.
#[derive(Debug)]
enum Failed {
    /// The request will never be whole.
    Request,
    /// The connection ended, perhaps within an answer.
    Connection,
    /// The endpoint says what cannot be believed.
    Answer(Malformed),
    /// Whoever was to act next did not.
    Late,
}

impl UpstreamConnection {
    /// Prepares a fresh connection.
    pub(super) fn new(wire: Wire, endpoint: Arc<Endpoint>, watch: Arc<Watch>) -> Box<Self> {
        Box::new(Self {
            wire,
            outbound: Outbound::default(),
            inbound: Inbound::new(),
            answers: Answers::default(),
            decoder: Decoder::default(),
            keeps: false,
            endpoint,
            watch,
            replay: Replay::default(),
            idle_since_ms: 0,
        })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    pub(super) fn idle_since_ms(&self) -> u64 {
        self.idle_since_ms
    }

    /// Goes into the pool.
    pub(super) fn rest(&mut self, now_ms: u64) {
        self.idle_since_ms = now_ms;
        self.replay.rest();
        self.outbound.rest();
        self.inbound.rest();
        self.watch.disarm();
    }

    /// Gives back what only a request needs, and lets go of the task that had the last one.
    pub(super) fn give_back(&mut self) {
        self.watch.forget();
        self.replay = Replay::default();
        self.outbound.give_back();
        self.inbound.give_back();
    }

    /// Both messages are complete, both sides keep the connection, and nothing is left over: it
    /// would be the next client's answer (response queue poisoning).
    pub(super) fn is_reusable(&self) -> bool {
        self.keeps
            && self.outbound.is_sent()
            && self.decoder.is_over()
            && self.inbound.bytes.is_empty()
    }

    /// All of the answer was passed on.
    pub(super) fn is_answered(&self) -> bool {
        self.decoder.is_over()
    }

    /// What is left of the answer.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// It is as it was left, as far as the kernel knows; see [`Wire::is_silent`].
    pub(super) fn is_silent(&self) -> bool {
        self.wire.is_silent()
    }

    /// Keeps a request that is about to be sent, if it may be sent twice; see [`Replay::keep`].
    pub(super) fn keep(&mut self, request: &Request<RequestBody>, any_method: bool) -> bool {
        self.replay.keep(request, any_method)
    }

    /// The request that was kept.
    pub(super) fn again(&mut self) -> Option<Box<Request<RequestBody>>> {
        self.replay.again()
    }

    /// The answer is the last word: nobody is asked again.
    pub(super) fn settle(&mut self) {
        self.replay.rest();
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        mut request: Box<Request<RequestBody>>,
        worker: &Rc<Worker>,
        patience: &Patience,
    ) -> Result<Response<()>, SendError> {
        // Nobody was asked: whatever is there to read, its end included, is no answer to this one.
        if poll_fn(|cx| Poll::Ready(self.inbound.poll_read(&mut self.wire, cx).is_ready())).await {
            return Err(SendError::Unsent(request));
        }
        let progress = request.body_mut().begin(&self.watch, patience);
        self.begin(&mut request);
        drop(request);
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(outcome) = self.poll_answer(cx) {
                return Poll::Ready(Some(outcome));
            }
            self.watch.register(cx.waker());
            if self.watch.expired() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        let failed = match outcome {
            Some(Ok(answer)) => {
                self.watch.disarm();
                return Ok(self.receive(answer));
            }
            Some(Err(failed)) => failed,
            None => Failed::Late,
        };
        self.give_up(&failed);
        Err(match failed {
            Failed::Late if upload(progress.as_ref()) == Upload::Receiving => {
                SendError::ClientTimedOut
            }
            Failed::Late => {
                worker.counters.upstream_timeouts.add();
                SendError::TimedOut
            }
            Failed::Answer(_) => SendError::Misread,
            Failed::Request | Failed::Connection => broken(progress.as_ref()),
        })
    }

    fn begin(&mut self, request: &mut Request<RequestBody>) {
        self.answers = Answers::to(Asked::by(request.method()));
        let is_close = |name: &str| name.eq_ignore_ascii_case("close");
        self.keeps = !names(request.headers(), CONNECTION).any(is_close);
        self.outbound.begin(request);
        self.answers.give_room(std::mem::take(request.headers_mut()));
    }

    /// The head of the answer that counts, while the request is still being sent if need be.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Failed>> {
        if let Poll::Ready(Err(BrokenOff)) = self.outbound.poll(&mut self.wire, cx) {
            return Poll::Ready(Err(Failed::Request));
        }
        loop {
            match ready!(self.inbound.poll_read(&mut self.wire, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Failed::Connection)),
                Ok(_) => {}
            }
            match self.answers.take(&mut self.inbound.bytes) {
                Ok(Some(answer)) => return Poll::Ready(Ok(answer)),
                Ok(None) => {}
                Err(malformed) => return Poll::Ready(Err(Failed::Answer(malformed))),
            }
        }
    }

    /// Who has begun to answer has acted on the request: nobody else is asked, unless the route
    /// wishes it of answers that are whole and wrong (nginx: invalid_header).
    fn give_up(&mut self, failed: &Failed) {
        if let Failed::Answer(malformed) = failed {
            let endpoint = self.endpoint.address();
            tracing::debug!(%endpoint, %malformed, "an answer is refused");
        } else if self.answers.has_begun() || !self.inbound.bytes.is_empty() {
            self.replay.rest();
        }
    }

    /// What follows is the answer's body.
    fn receive(&mut self, answer: Answer) -> Response<()> {
        self.keeps &= answer.keeps;
        self.decoder = Decoder::new(answer.framing);
        let mut response = Response::new(());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        if let Some(reason) = answer.reason {
            response.extensions_mut().insert(reason);
        }
        response
    }

    /// The next part of the answer's body. Meanwhile the rest of the request is sent.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(Err(BrokenOff)) = self.outbound.poll(&mut self.wire, cx) {
            return Poll::Ready(Some(Err(BodyError::Request)));
        }
        loop {
            match self.decoder.take(&mut self.inbound.bytes) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(fields)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::More) => {}
                Err(malformed) => return Poll::Ready(Some(Err(malformed.into()))),
            }
            match ready!(self.inbound.poll_read(&mut self.wire, cx)) {
                Ok(0) => {
                    let ended = self.decoder.end();
                    return Poll::Ready(ended.err().map(|cut_off| Err(cut_off.into())));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// What is left of an answer of known length, and where it comes; `None` while anything is to be
    /// done but to pass that on.
    pub(super) fn bare(&self) -> Option<(u64, &TcpStream)> {
        let is_rest = self.outbound.is_sent() && self.inbound.bytes.is_empty();
        Some((self.decoder.left().filter(|_| is_rest)?, self.wire.bare()?))
    }

    /// So many bytes of it were passed on by somebody else.
    pub(super) fn pass_over(&mut self, bytes: u64) {
        self.decoder.pass_over(bytes);
    }

    /// After 101: the bare connection, and what the endpoint has already sent on it. `None` while
    /// part of the request is still to be sent: it would become part of the tunnel.
    pub(super) fn into_tunnel(self) -> Option<(Wire, Bytes)> {
        let is_sent = self.outbound.is_sent();
        is_sent.then(|| (self.wire, self.inbound.bytes.freeze()))
    }
}

/// Whose fault it is that a request was not sent whole.
pub(super) fn broken(progress: Option<&Rc<Progress>>) -> SendError {
    match upload(progress) {
        Upload::Broken => SendError::ClientBroke,
        Upload::TooLarge => SendError::ClientTooLarge,
        Upload::Sending | Upload::Receiving | Upload::Done => SendError::Broken,
    }
}

pub(super) fn upload(progress: Option<&Rc<Progress>>) -> Upload {
    progress.map_or(Upload::Done, |progress| progress.stage())
}
