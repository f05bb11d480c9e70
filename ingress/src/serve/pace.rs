//! How fast a body goes out (nginx: limit_rate, limit_rate_after).

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use crate::{routes::Pace, timer::Timer};

/// Less than this is not worth a wake-up.
const PIECE_BYTES_MIN: u64 = 1024;
const MILLIS: u64 = 1000;

/// One body's progress.
#[derive(Debug)]
pub(super) struct Paced {
    pace: Pace,
    started: Instant,
    sent: u64,
    sleep: Option<AbortOnDropHandle<()>>,
    timer: Timer,
    /// What could not go out yet.
    rest: Bytes,
}

impl Paced {
    pub(super) fn new(pace: Pace, timer: Timer) -> Self {
        Self { pace, started: Instant::now(), sent: 0, sleep: None, timer, rest: Bytes::new() }
    }

    /// Bytes that are still to be sent, although the body has ended.
    pub(super) fn rest(&self) -> u64 {
        self.rest.len() as u64
    }

    /// Takes what the endpoint sent.
    pub(super) fn push(&mut self, data: Bytes) {
        self.rest = data;
    }

    /// The next piece; `None`: more must be pushed first.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                match Pin::new(sleep).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => self.sleep = None,
                    // Nobody keeps time any more, and the role ends. What has ended is not asked again.
                    Poll::Ready(Err(_)) => {
                        self.sleep = None;
                        return Poll::Pending;
                    }
                }
            }
            if self.rest.is_empty() {
                return Poll::Ready(None);
            }
            let may_go = self.allowance();
            if may_go >= PIECE_BYTES_MIN.min(self.rest()) {
                let piece = usize::try_from(may_go).unwrap_or(usize::MAX).min(self.rest.len());
                self.sent += piece as u64;
                return Poll::Ready(Some(self.rest.split_to(piece)));
            }
            let missing = PIECE_BYTES_MIN.min(self.rest()).saturating_sub(may_go);
            let millis = missing * MILLIS / self.pace.bytes_per_second.max(1) + 1;
            self.sleep = Some(self.timer.after(Duration::from_millis(millis)));
        }
    }

    /// nginx gives the first second's share at once.
    fn allowance(&self) -> u64 {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let paced = self.pace.bytes_per_second.saturating_mul(millis.saturating_add(MILLIS));
        (paced / MILLIS).saturating_add(self.pace.after_bytes).saturating_sub(self.sent)
    }
}
