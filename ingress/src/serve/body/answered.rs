//! The body of an endpoint's answer.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::{BodyError, spliced::Splicing};
use crate::serve::{
    client::Client, clock::Watch, upstream::UpstreamConnection, upstream2::Stream2,
};

/// A response's body. Reading it drives the connection it comes on.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    /// Until it went back to the pool or broke; nothing comes without it.
    pub(super) carrier: Option<Carrier>,
    pub(super) client: Rc<Client>,
    pub(super) read_ms: u64,
    pub(super) splicing: Splicing,
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
    pub(super) fn watch(&self) -> &Watch {
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
    pub(super) fn is_answered(&self) -> bool {
        match self {
            Self::H1(connection) => connection.is_answered(),
            Self::H2(incoming, _) => incoming.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::H1(connection) => connection.size_hint(),
            Self::H2(incoming, _) => incoming.size_hint(),
        }
    }
}

impl UpstreamBody {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(carrier) = &mut self.carrier else { return Poll::Ready(None) };
        let polled = carrier.poll_frame(cx);
        match &polled {
            // Nobody waits for the next part before it is asked for (nginx: no timer either).
            Poll::Ready(Some(Ok(_))) if !carrier.is_answered() => carrier.watch().disarm(),
            Poll::Ready(Some(Ok(_)) | None) => self.finish(),
            Poll::Ready(Some(Err(_))) => self.carrier = None,
            Poll::Pending => {
                carrier.watch().arm_once(self.read_ms);
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

    pub(super) fn pause(&self) {
        if let Some(carrier) = &self.carrier {
            carrier.watch().disarm();
        }
    }

    pub(super) fn finish(&mut self) {
        let worker = &self.client.worker;
        if let Some(Carrier::H1(connection)) = self.carrier.take()
            && connection.is_reusable()
        {
            let idle_max = worker.config().limits.upstream_idle_per_endpoint_max;
            worker.pool.put(connection, worker.clock.now_ms(), idle_max);
        }
    }
}

#[cfg(test)]
mod tests;
