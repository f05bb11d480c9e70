//! A copy's body, gathered beside its request as that goes on to its endpoint.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, header::CONTENT_LENGTH};

use super::Mirrored;
use crate::{
    counters::Uncopied,
    serve::{
        body::{Progress, RequestBody},
        buffer::{Full, Held, whole::Kept},
        plan::Plan,
    },
};

/// Of one body, in bytes, unless the route reads requests whole: then as much as that. All that
/// clients may send where nothing else is said (proxy-body-size).
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// A copy that waits for the end of its request's body. Dropped before that, it is counted as one
/// that was not made.
#[derive(Debug, Default)]
pub(crate) struct Gathered(Option<Box<Waiting>>);

#[derive(Debug)]
struct Waiting {
    copy: Mirrored,
    held: Held,
    /// What the client announces, in bytes; `None`: nothing.
    length: Option<u64>,
}

/// What a copy's body may hold, in bytes.
pub(super) fn bytes_max(plan: &Plan<'_>) -> usize {
    plan.route.policy.buffering.request_bytes.unwrap_or(BODY_BYTES_MAX)
}

impl Gathered {
    pub(super) fn begin(copy: Mirrored, bytes_max: usize, length: Option<u64>) -> Self {
        let held = Held::new(&copy.share, bytes_max);
        let mut gathered = Self(Some(Box::new(Waiting { copy, held, length })));
        gathered.end_if_whole();
        gathered
    }

    /// The body is still to be seen, every part of it.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// The next part of the body. A copy that finds no room for it will not be made.
    pub(crate) fn push(&mut self, data: &Bytes) {
        let Some(waiting) = &mut self.0 else { return };
        match waiting.held.push(&mut data.clone()) {
            Ok(()) => self.end_if_whole(),
            Err(Full::Body) => self.give_up(Uncopied::TooLarge),
            Err(Full::Thread) => self.give_up(Uncopied::Busy),
        }
    }

    /// HTTP/2 may say behind the last of it that it was the last: the endpoint knows by the length, and
    /// its answer may come before that.
    fn end_if_whole(&mut self) {
        let is_whole = |waiting: &Waiting| waiting.length == Some(waiting.held.len() as u64);
        if self.0.as_deref().is_some_and(is_whole) {
            self.end();
        }
    }

    /// That was all: the copy is sent.
    pub(crate) fn end(&mut self) {
        let Some(waiting) = self.0.take() else { return };
        let Waiting { mut copy, held, .. } = *waiting;
        if held.is_empty() {
            copy.request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            return copy.send(RequestBody::Empty);
        }
        let client_body_ms = copy.client.worker.config().timeouts.client_body_ms;
        let progress = Rc::new(Progress::new(client_body_ms, &copy.route.policy.patience));
        copy.send(Rc::new(Kept::of(held, None, progress)).into());
    }

    fn give_up(&mut self, reason: Uncopied) {
        if let Some(waiting) = self.0.take() {
            waiting.copy.client.worker.counters.uncopied(reason);
        }
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.give_up(Uncopied::CutOff);
    }
}
