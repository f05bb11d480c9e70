//! HTTP/2 as clients speak it (RFC 9113). A connection is one state machine in one task: the answers
//! of all its streams are polled there, without a lock, a channel or a task of their own, and what
//! they say leaves in as few writes as there are turns.

mod connection;
mod frame;
mod guard;
mod head;
mod hpack;
mod overheard;
mod ready;
mod receive;
mod settings;
mod streams;

pub(crate) use self::{
    connection::{Connection, End, Settings},
    head::{Oversized, Protocol},
    overheard::Overheard,
    receive::{Broken, Received},
};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::connection::fuzzing;

use std::{convert::Infallible, future::Future};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use hyper::body::Body;

/// Error codes (RFC 9113 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    NoError = 0,
    Protocol = 1,
    Internal = 2,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    Refused = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
}

/// What a client did that ends a stream or the connection; counted by whoever listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Frames or fields that are none, or not there.
    Malformed,
    /// More requests at once than are taken.
    StreamsTooMany,
    /// Work without end and without a request that is waited for.
    Flood,
    /// An answer that is not taken.
    Stalled,
}

/// Answers requests.
pub(crate) trait Serve {
    type Body: Body<Data = Bytes> + Unpin;
    type Answer: Future<Output = Result<Response<Self::Body>, Infallible>>;

    /// One request; what is sent back is what this becomes.
    fn serve(&self, request: Request<Received>) -> Self::Answer;
}

impl<C, F, B> Serve for C
where
    C: Fn(Request<Received>) -> F,
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Data = Bytes> + Unpin,
{
    type Body = B;
    type Answer = F;

    fn serve(&self, request: Request<Received>) -> F {
        self(request)
    }
}

/// What a connection needs to know of the world around it, and tells it.
pub(crate) trait Surroundings {
    /// Milliseconds, from whenever.
    fn now_ms(&self) -> u64;
    /// For answers without one (RFC 9110 6.6.1).
    fn date(&self) -> HeaderValue;
    /// Something was not served.
    fn dropped(&self, what: Dropped);
}

impl Reason {
    fn code(self) -> u32 {
        self as u32
    }
}
