//! A connection to an endpoint, driven by whoever uses it.
//!
//! With no task of its own, what it reads is passed on in the same round: no wake-up in between.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{Connection, SendRequest, handshake},
};
use hyper_util::rt::TokioIo;

use super::{
    body::{Progress, RequestBody, Upload},
    clock::Watch,
    replay::Replay,
    wire::{Look, Wire},
    worker::Worker,
};
use crate::routes::{Endpoint, Patience};

/// An HTTP/1.1 connection to one endpoint of one upstream; serves one request at a time.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    sender: SendRequest<RequestBody>,
    /// `None` once it is of no more use.
    driver: Option<Connection<TokioIo<Wire>, RequestBody>>,
    look: Look,
    ended: bool,
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
    /// The endpoint took too long.
    TimedOut,
    /// The client took too long with its body.
    ClientTimedOut,
    /// The client broke off its body.
    ClientBroke,
    /// The client sent more than it may.
    ClientTooLarge,
}

impl UpstreamConnection {
    /// Prepares a fresh connection.
    pub(super) async fn new(
        wire: Wire,
        endpoint: Arc<Endpoint>,
        watch: Arc<Watch>,
    ) -> Result<Box<Self>, hyper::Error> {
        let look = wire.look();
        let (sender, driver) = handshake(TokioIo::new(wire)).await?;
        Ok(Box::new(Self {
            sender,
            driver: Some(driver),
            look,
            ended: false,
            endpoint,
            watch,
            replay: Replay::default(),
            idle_since_ms: 0,
        }))
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
        self.watch.disarm();
    }

    /// Both messages are complete, both sides keep the connection.
    pub(super) fn is_reusable(&self) -> bool {
        !self.ended && self.sender.is_ready()
    }

    /// Closed, by whichever side.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads and writes what can be.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && !self.ended
        {
            self.ended = Pin::new(driver).poll(cx).is_ready();
        }
    }

    /// The endpoint may have closed it by now: looks before the next request is written.
    pub(super) fn look_first(&self) {
        self.look.ask();
    }

    /// Keeps a request that is about to be sent, if it may be sent twice; see [`Replay::keep`].
    pub(super) fn keep(&mut self, request: &Request<RequestBody>, any_method: bool) -> bool {
        self.replay.keep(request, any_method)
    }

    /// The request that was kept.
    pub(super) fn again(&mut self) -> Option<Box<Request<RequestBody>>> {
        self.replay.again()
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
        worker: &Rc<Worker>,
        patience: &Patience,
    ) -> Result<Response<Incoming>, SendError> {
        let progress = request.body().progress();
        match &progress {
            Some(progress) => progress.begin(&self.watch),
            None => self.watch.arm(patience.read_ms),
        }
        let mut sent = pin!(self.sender.try_send_request(*request));
        let outcome = poll_fn(|cx| {
            self.watch.register(cx.waker());
            self.drive(cx);
            if let Poll::Ready(outcome) = sent.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            if self.ended {
                // What it did not get to is given back when it is dropped.
                self.driver = None;
                return sent.as_mut().poll(cx).map(Some);
            }
            if self.watch.expired() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        match outcome {
            Some(Ok(response)) => {
                self.watch.arm(patience.read_ms);
                Ok(response)
            }
            Some(Err(mut failed)) => Err(match failed.take_message() {
                Some(request) => SendError::Unsent(Box::new(request)),
                None => broken(progress.as_ref()),
            }),
            None if upload(progress.as_ref()) == Upload::Receiving => {
                Err(SendError::ClientTimedOut)
            }
            None => {
                worker.counters.upstream_timeouts.add();
                Err(SendError::TimedOut)
            }
        }
    }

    /// After 101: the bare connection, and what the endpoint has already sent on it.
    pub(super) async fn into_tunnel(mut self: Box<Self>) -> Option<(Wire, Bytes)> {
        poll_fn(|cx| {
            self.watch.register(cx.waker());
            self.drive(cx);
            if self.ended || self.watch.expired() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let parts = self.driver.take().filter(|_| self.ended)?.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
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
