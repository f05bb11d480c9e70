//! A client that leaves while its request is served.

use std::task::{Context, Poll, ready};

use super::{Link, State};

impl Link {
    /// The client leaves: it reads no answer any more, as far as can be told. What it has sent behind
    /// its request does not hide that (nginx: EPOLLRDHUP).
    pub(in crate::serve::http1) fn poll_leave(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.is_read_on() {
            // Whoever reads the body hears of its end first.
            state.waits_for_reader(cx);
            return Poll::Pending;
        }
        if state.is_broken {
            return Poll::Pending;
        }
        if ready!(state.poll_end(cx)) {
            return Poll::Ready(());
        }
        // Nobody is told of an end behind bytes that are left where they are.
        self.client.watch().wake_each_tick();
        Poll::Pending
    }
}

impl State {
    /// Whether the client has ended its side. Not all it sent before may have been read: if so, nobody
    /// is woken when it does.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.decoder.is_over() && self.inbound.bytes.is_empty() {
            // What follows is the next request's: it is read anyway.
            match ready!(self.poll_read(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(true),
                Ok(_) => {}
            }
        }
        self.io.as_ref().map_or(Poll::Ready(true), |io| io.get_ref().poll_end(cx))
    }
}
