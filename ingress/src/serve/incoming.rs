//! What a client sends as a request's body, by either protocol.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::{
    body::BodyError,
    http1::{Arriving, Upgraded},
};
use crate::codec::h2::Received;

/// A request's body, as it comes.
#[derive(Debug)]
pub(crate) enum Incoming {
    Http1(Arriving),
    Http2(Received),
}

impl Incoming {
    /// The connection, once its request was answered by 101.
    pub(super) fn upgraded(&self) -> Upgraded {
        match self {
            Self::Http1(body) => body.upgraded(),
            Self::Http2(_) => Upgraded::never(),
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
