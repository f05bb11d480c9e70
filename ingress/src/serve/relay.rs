//! Two connections without TLS that become one: what is said on either is said on the other, unread.
//!
//! Pieces are copied. A direction that turns out to be bulk goes within the kernel, until it is none
//! any more; a pipe is held only while bytes are in it. Whoever waits holds neither pipe nor buffer.

mod way;

use std::{future::poll_fn, sync::Arc, task::Poll};

use tokio::net::TcpStream;

use self::way::Way;
use super::{
    clock::{Clock, Watch},
    splice::{Moved, Pipes},
};
use crate::counters::ThreadCounters;

/// What a thread has for all that it joins.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) clock: &'a Clock,
    pub(crate) pipes: &'a Pipes,
    pub(crate) counters: &'a ThreadCounters,
}

/// What both directions share.
struct Joint<'a> {
    pipes: &'a Pipes,
    counters: &'a ThreadCounters,
    watch: Arc<Watch>,
    idle_ms: u64,
}

/// One of both connections, and the way of what is said on it.
struct Side {
    stream: TcpStream,
    way: Way,
}

impl Joint<'_> {
    /// Any byte, either way, keeps both connections; so does an end.
    fn passed(&self) {
        self.watch.arm(self.idle_ms);
    }

    fn spliced(&self, moved: Moved) {
        if moved != Moved::default() {
            self.counters.spliced_bytes.add_all(moved.given as u64);
            self.passed();
        }
    }
}

/// Until one side breaks off, both have ended, or neither has moved a byte for `idle_ms`. The end of
/// one direction is passed on, and the other one goes on.
pub(crate) async fn join(means: Means<'_>, near: TcpStream, far: TcpStream, idle_ms: u64) {
    let Means { clock, pipes, counters } = means;
    let joint = Joint { pipes, counters, watch: clock.watch(), idle_ms };
    joint.passed();
    let [mut near, mut far] = [near, far].map(|stream| Side { stream, way: Way::default() });
    let (mut first, mut second) = (&mut near, &mut far);
    poll_fn(|cx| {
        joint.watch.register(cx.waker());
        // By turns: whoever is first may use up all that the runtime lets a task do at once.
        std::mem::swap(&mut first, &mut second);
        let ways = [
            first.way.poll(&mut first.stream, &mut second.stream, &joint, cx),
            second.way.poll(&mut second.stream, &mut first.stream, &joint, cx),
        ];
        // Either side breaking off is how such connections end.
        let is_broken = ways.iter().any(|way| matches!(way, Poll::Ready(Err(_))));
        let has_ended = is_broken || ways.iter().all(Poll::is_ready);
        if has_ended || joint.watch.expired() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests;
