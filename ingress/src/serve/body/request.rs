//! What an endpoint is sent.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use hyper::body::{Body, Frame, SizeHint};
use tokio::net::TcpStream;

use super::{
    BodyError,
    progress::{Progress, Upload},
    recall::Recallable,
    spliced::{Spliced, Splicing},
};
use crate::{
    codec::{announced, h2::Broken},
    record::Record,
    routes::Patience,
    serve::{
        buffer::whole::Read,
        clock::Watch,
        incoming::Incoming,
        mirror::Gathered,
        splice::{Broke, Moved, Waits},
    },
};

/// What is sent to an upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Nothing: may be sent again.
    Empty,
    /// What the client sends.
    Client(ClientBody),
    /// What it has sent, all or the beginning.
    Read(Box<Read>),
    /// One of these, kept as it goes.
    Going(Recallable),
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
    splicing: Splicing,
    /// What a mirror is sent of it.
    copy: Gathered,
}

impl RequestBody {
    pub(crate) fn new(
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
        Self::Client(ClientBody {
            incoming,
            bytes_left: bytes_max,
            announced: announced(headers),
            progress,
            record: record.clone(),
            splicing: Splicing::default(),
            copy: Gathered::default(),
        })
    }

    /// A mirror is sent the same.
    pub(crate) fn copied(mut self, mut copy: Gathered) -> Self {
        match &mut self {
            Self::Client(body) => body.copy = copy,
            // Its end came meanwhile.
            Self::Empty | Self::Read(_) | Self::Going(_) => copy.end(),
        }
        self
    }

    /// If so many bytes are left, and nothing is to be done to them, they go on to an endpoint's
    /// connection by themselves.
    pub(crate) fn splice(&mut self, left: u64, to: &TcpStream, cx: &mut Context<'_>) -> Spliced {
        match self {
            Self::Empty | Self::Read(_) | Self::Going(_) => Spliced::Not,
            Self::Client(body) => body.splice(left, to, cx),
        }
    }

    /// It is about to be sent on the connection of this watch; `None` when there is no body. One that ended
    /// without a byte while its endpoint was dialled is over: nobody asks it for its end.
    pub(crate) fn begin(
        &mut self,
        watch: &Arc<Watch>,
        patience: &Patience,
    ) -> Option<Rc<Progress>> {
        let Some(progress) = self.progress() else {
            watch.arm(patience.read_ms);
            return None;
        };
        progress.begin(watch);
        if self.is_end_stream() {
            progress.reach(Upload::Done);
            self.end_copy();
        }
        Some(progress)
    }

    /// A mirror has all there is to be had.
    pub(super) fn end_copy(&mut self) {
        match self {
            Self::Client(body) => body.copy.end(),
            Self::Going(body) => body.end_copy(),
            Self::Empty | Self::Read(_) => {}
        }
    }

    /// `None` when there is no body.
    pub(crate) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Client(body) => Some(body.progress.clone()),
            Self::Read(read) => Some(read.progress().clone()),
            Self::Going(body) => Some(body.progress().clone()),
        }
    }
}

impl ClientBody {
    fn splice(&mut self, left: u64, to: &TcpStream, cx: &mut Context<'_>) -> Spliced {
        let Incoming::Http1(arriving) = &self.incoming else { return Spliced::Not };
        let worker = &self.record.client.worker;
        if matches!(self.splicing, Splicing::Undecided) {
            // More than is allowed is refused where it is read, and what is copied is seen there.
            let is_read = left > self.bytes_left || self.copy.is_open();
            if is_read || arriving.bare_left() != Some(left) {
                return Spliced::Not;
            }
            self.splicing = Splicing::begin(&worker.pipes, left);
        }
        let Splicing::Going(pump) = &mut self.splicing else { return Spliced::Not };
        let (moved, polled) = arriving.splice(pump, to, cx);
        let waits = pump.waits();
        worker.counters.spliced_bytes.add_all(moved.given as u64);
        self.bytes_left = self.bytes_left.saturating_sub(moved.taken as u64);
        self.record.received(moved.taken);
        if moved != Moved::default() {
            self.progress.reach(Upload::Sending);
        }
        let outcome = match polled {
            Poll::Pending => {
                if waits == Waits::More {
                    self.progress.reach(Upload::Receiving);
                }
                return Spliced::Waits(waits);
            }
            Poll::Ready(Ok(())) => {
                self.progress.reach(Upload::Done);
                Ok(())
            }
            Poll::Ready(Err(Broke::Unable(_))) => {
                self.splicing = Splicing::Never;
                return Spliced::Not;
            }
            Poll::Ready(Err(Broke::From(_) | Broke::CutOff)) => {
                self.progress.reach(Upload::Broken);
                Err(BodyError::Stream(Broken))
            }
            Poll::Ready(Err(Broke::To(error))) => Err(BodyError::Endpoint(error)),
        };
        self.splicing = Splicing::Never;
        Spliced::Over(outcome)
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
            Self::Going(body) => return Pin::new(body).poll_frame(cx),
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
            body.copy.push(data);
        }
        let stage = match &polled {
            Poll::Pending => Upload::Receiving,
            Poll::Ready(Some(Ok(_))) if body.incoming.is_end_stream() => Upload::Done,
            Poll::Ready(Some(Ok(_))) => Upload::Sending,
            Poll::Ready(Some(Err(_))) => Upload::Broken,
            Poll::Ready(None) => Upload::Done,
        };
        body.progress.reach(stage);
        if stage == Upload::Done {
            body.copy.end();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.incoming.is_end_stream(),
            Self::Read(read) => read.is_end_stream(),
            Self::Going(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.incoming.size_hint(),
            Self::Read(read) => read.size_hint(),
            Self::Going(body) => body.size_hint(),
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
