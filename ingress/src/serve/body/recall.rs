//! A body of which what was sent is kept for as long as it may have to be sent once more: until there is an
//! answer, and while it is short. Endpoints of HTTP/2 say of streams that nobody looked at them (RFC 9113
//! 8.7), and of gRPC's calls each has a body.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};

use super::{BodyError, Progress, RequestBody};
use crate::serve::buffer::{Budget, Held, whole::Read};

/// Of one body, in bytes; what a client sends before the endpoint says anything is hardly more (the
/// first window of HTTP/2 is 65,535).
const BODY_BYTES_MAX: usize = 64 << 10;

/// The body, as it is sent.
#[derive(Debug)]
pub(crate) struct Recallable {
    going: Rc<RefCell<Going>>,
    progress: Rc<Progress>,
}

/// By which it is had back. Dropped, what was kept of it is kept no longer.
#[derive(Debug)]
pub(crate) struct Recall(Rc<RefCell<Going>>);

#[derive(Debug)]
struct Going {
    /// `None`: somebody has it back.
    body: Option<RequestBody>,
    /// What was sent; `None`: not all of it is kept.
    sent: Option<Held>,
    /// Sent behind it.
    trailers: Option<HeaderMap>,
}

impl RequestBody {
    /// The same body, kept as it goes, if that can be and is not so yet.
    pub(crate) fn recallable(self, budget: &Budget) -> Self {
        let progress = match &self {
            Self::Empty | Self::Going(_) => return self,
            Self::Read(read) if read.kept().is_some() => return self,
            Self::Client(_) | Self::Read(_) => self.progress(),
        };
        let Some(progress) = progress else { return self };
        let sent = Some(Held::new(budget, BODY_BYTES_MAX));
        let going = Going { body: Some(self), sent, trailers: None };
        Self::Going(Recallable { going: Rc::new(RefCell::new(going)), progress })
    }

    /// As it was before, when nothing of it was sent.
    pub(crate) fn unsent(self) -> Self {
        match self {
            Self::Going(body) => body.going.borrow_mut().body.take().unwrap_or(Self::Empty),
            body => body,
        }
    }
}

impl Recallable {
    /// What has it back.
    pub(crate) fn recall(&self) -> Recall {
        Recall(self.going.clone())
    }

    pub(super) fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }

    pub(super) fn end_copy(&self) {
        if let Some(body) = &mut self.going.borrow_mut().body {
            body.end_copy();
        }
    }
}

impl Recall {
    /// The body from its beginning; `None`: more was sent than is kept. Whoever still sends it sends no
    /// more of it.
    pub(crate) fn body(self) -> Option<RequestBody> {
        let mut going = self.0.borrow_mut();
        let sent = going.sent.take()?;
        let body = going.body.take()?;
        let trailers = going.trailers.take();
        if sent.is_empty() && trailers.is_none() {
            return Some(body);
        }
        Some(Read::again(sent, trailers, body)?.into())
    }
}

impl Drop for Recall {
    fn drop(&mut self) {
        let mut going = self.0.borrow_mut();
        (going.sent, going.trailers) = (None, None);
    }
}

impl Going {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(sent) = &mut self.sent else { return };
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => {
                if sent.push(&mut data.clone()).is_err() {
                    self.sent = None;
                }
            }
            (None, trailers) => self.trailers = trailers.cloned(),
        }
    }
}

impl Body for Recallable {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let going = &mut *self.going.borrow_mut();
        let Some(body) = &mut going.body else {
            // An end would be taken for that of the whole.
            return Poll::Ready(Some(Err(BodyError::Recalled)));
        };
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            going.keep(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.going.borrow().body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let going = self.going.borrow();
        going.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
