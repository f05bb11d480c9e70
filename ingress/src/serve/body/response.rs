//! What a client is sent.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::net::TcpStream;

use super::{
    BodyError,
    answered::{Carrier, UpstreamBody},
    spliced::{Spliced, Splicing},
};
use crate::{
    limiter::Slot,
    record::Record,
    routes::{Pace, Patience},
    serve::{
        buffer::ahead::Ahead,
        client::{Busy, Client},
        gzip::Gzipped,
        pace::Paced,
        pipe::Outflow,
    },
    timer::Timer,
};

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
    /// It is said how fast it goes out, be it as fast as it may.
    is_paced: bool,
    /// Counts as in service as long as the body goes out.
    slot: Option<Slot>,
}

/// Where it comes from.
#[derive(Debug)]
pub(crate) enum Source {
    Ours(Full<Bytes>),
    Upstream(UpstreamBody),
    /// What an upstream says, whether or not it is taken.
    Ahead(Box<Ahead>),
    /// One of the others, made smaller.
    Gzipped(Box<Gzipped>),
    Tunnel(Outflow),
}

impl ResponseBody {
    pub(crate) fn text(line: &'static str) -> Self {
        let body = Full::new(Bytes::from_static(line.as_bytes()));
        Self::of(Source::Ours(body))
    }

    pub(crate) fn own(text: String) -> Self {
        let body = Full::new(Bytes::from(text));
        Self::of(Source::Ours(body))
    }

    pub(crate) fn empty() -> Self {
        Self::text("")
    }

    /// What a tunnel sends to a stream.
    pub(crate) fn tunnel(outflow: Outflow) -> Self {
        Self::of(Source::Tunnel(outflow))
    }

    fn of(source: Source) -> Self {
        Self { source, busy: None, record: None, extras: None }
    }

    /// Takes over the connection whose response's head was read.
    pub(crate) fn upstream(carrier: Carrier, client: Rc<Client>, patience: &Patience) -> Self {
        let is_answered = carrier.is_answered();
        let (read_ms, splicing) = (patience.read_ms, Splicing::default());
        let mut body = UpstreamBody { carrier: Some(carrier), client, read_ms, splicing };
        if is_answered {
            body.finish();
        }
        Self::of(Source::Upstream(body))
    }

    /// No endpoint said it.
    pub(crate) fn is_ours(&self) -> bool {
        !matches!(self.source.bare(), Source::Upstream(_) | Source::Ahead(_))
    }

    /// Is read ahead of its client as far as `bytes_max`. Streams are so anyway, by their windows.
    pub(crate) fn read_ahead(&mut self, record: Option<&Rc<Record>>, bytes_max: usize) {
        if let Source::Upstream(UpstreamBody { carrier: Some(Carrier::H1(_)), client, .. }) =
            &self.source
        {
            let worker = client.worker.clone();
            let ahead = Ahead::of(std::mem::take(self), &worker, record, bytes_max);
            self.source = Source::Ahead(Box::new(ahead));
        }
    }

    /// It is no body, but what is said in a tunnel.
    pub(crate) fn is_tunnel(&self) -> bool {
        matches!(self.source, Source::Tunnel(_))
    }

    /// It is sent by gzip.
    pub(crate) fn gzip(&mut self, level: u32) {
        let bare = std::mem::replace(&mut self.source, Source::Ours(Full::default()));
        self.source = Source::Gzipped(Box::new(Gzipped::new(bare, level)));
    }

    /// Sends it no faster than this, unless somebody said before how fast it goes. What is in a tunnel is no
    /// body, over HTTP/2 as over HTTP/1.
    pub(crate) fn slow_down(&mut self, pace: Pace, timer: &Timer) {
        if self.is_tunnel() {
            return;
        }
        let extras = self.extras.get_or_insert_default();
        if !std::mem::replace(&mut extras.is_paced, true) && pace.bytes_per_second > 0 {
            extras.pace = Some(Paced::new(pace, timer.clone()));
        }
    }

    /// Is counted until this body ends.
    pub(crate) fn count(&mut self, slot: Slot) {
        self.extras.get_or_insert_default().slot = Some(slot);
    }

    /// Bytes held back.
    fn rest(&self) -> u64 {
        let pace = self.extras.as_ref().and_then(|extras| extras.pace.as_ref());
        pace.map_or(0, Paced::rest)
    }

    /// The request is over when this body ends.
    pub(crate) fn note(&mut self, record: Rc<Record>) {
        self.record = Some(record);
    }

    /// The request ends when this body does.
    pub(crate) fn hold(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    /// These are the bytes left, and they may be spliced.
    pub(crate) fn may_splice(&self, left: u64) -> bool {
        let is_paced = self.extras.as_ref().is_some_and(|extras| extras.pace.is_some());
        match &self.source {
            Source::Upstream(body) if !is_paced => body.may_splice(left),
            _ => false,
        }
    }

    /// Goes on to the client's connection by itself, without being polled.
    pub(crate) fn splice(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Spliced {
        let Source::Upstream(body) = &mut self.source else { return Spliced::Not };
        let (given, spliced) = body.splice(to, cx);
        if let Some(record) = &self.record {
            record.sent(given);
        }
        spliced
    }

    fn poll_paced(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let pace = self.extras.as_mut().and_then(|extras| extras.pace.as_mut());
        let Some(pace) = pace else { return self.source.poll(cx) };
        loop {
            if let Some(piece) = ready!(pace.poll(cx)) {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
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
    pub(crate) fn poll(
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

    /// Nobody waits for more of it until it is polled again, although it was and had none.
    pub(crate) fn pause(&self) {
        if let Self::Upstream(body) = self {
            body.pause();
        }
    }

    /// Before it is compressed.
    fn bare(&self) -> &Self {
        match self {
            Self::Gzipped(body) => body.source(),
            bare => bare,
        }
    }
}
