//! A request's body that goes on to its endpoint by itself.

use std::task::{Context, Poll};

use tokio::net::TcpStream;

use super::{Link, State};
use crate::serve::splice::{Broke, Moved, Pump};

impl Link {
    /// Bytes of it that are left, if nothing is to be done but to pass them on.
    pub(in crate::serve::http1) fn bare_left(&self) -> Option<u64> {
        let state = self.state.borrow();
        let is_rest = !state.is_broken && state.inbound.bytes.is_empty();
        state.decoder.left().filter(|_| is_rest && state.bare().is_some())
    }

    /// They go on: what moved, and the end of it.
    pub(in crate::serve::http1) fn splice(
        &self,
        pump: &mut Pump,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> (Moved, Poll<Result<(), Broke>>) {
        let mut state = self.state.borrow_mut();
        state.go_on();
        let polled = pump.poll(state.bare(), to, cx);
        let moved = pump.moved();
        state.decoder.pass_over(moved.taken as u64);
        if moved.taken > 0
            && let Some(late_ms) = state.late_ms
        {
            self.client.watch().arm(late_ms);
        }
        if matches!(polled, Poll::Ready(Err(Broke::From(_) | Broke::CutOff))) {
            state.is_broken = true;
        }
        state.reader = polled.is_pending().then(|| cx.waker().clone());
        drop(state);
        self.tell();
        (moved, polled)
    }
}

impl State {
    fn bare(&self) -> Option<&TcpStream> {
        self.io.as_ref()?.get_ref().bare()
    }
}
