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
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        task::Poll::{Pending, Ready},
    };

    use fairlead_state::Key;
    use futures::task::{ArcWake, waker};
    use http::Request;
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
        task::yield_now,
    };

    use super::*;
    use crate::{
        config::Timeouts,
        routes::{Patience, Speech, Upstream, UpstreamKey},
        serve::{
            alone,
            body::{RequestBody, ResponseBody},
            connect::connect,
        },
    };

    const CONNECT_MS: u64 = 10_000;
    /// Sixteen ticks.
    const READ_MS: u64 = 80;
    const TICKS: usize = 40;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(own: &Arc<Self>) {
            own.0.fetch_add(1, SeqCst);
        }
    }

    /// An answer of which nothing but the head is there, and who gives it.
    async fn answered(client: &Rc<Client>) -> (ResponseBody, TcpStream) {
        let patience = Patience { connect_ms: CONNECT_MS, send_ms: READ_MS, read_ms: READ_MS };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream::new(UpstreamKey::of(Key::new("default", "web")));
        upstream.set(&[listener.local_addr().unwrap()], &Speech::default(), None);
        let endpoint = upstream.endpoints().list[0].clone();
        let worker = &client.worker;
        let mut connection = connect(worker, &endpoint, CONNECT_MS).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let sending =
            connection.send(Box::new(Request::new(RequestBody::Empty)), worker, &patience);
        let head = far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
        // Nobody writes before he was asked.
        let (response, written) = tokio::join!(sending, async {
            yield_now().await;
            head.await
        });
        written.unwrap();
        assert_eq!(response.unwrap().status(), 200);
        (ResponseBody::upstream(Carrier::H1(connection), client.clone(), &patience), far)
    }

    /// Its client takes nothing of what is there already. nginx: no timer while nothing is read.
    #[tokio::test]
    async fn bug_an_endpoint_is_not_waited_for_and_nobody_woken_while_nobody_reads_on() {
        let timeouts = Timeouts { keep_alive_idle_ms: 40, ..Timeouts::default() };
        let client = alone::client(timeouts);
        let clock = &client.worker.clock;
        let woken = Arc::<Woken>::default();
        let waker = waker(woken.clone());
        let cx = &mut Context::from_waker(&waker);
        let (mut body, mut far) = answered(&client).await;
        for part in ["", "part", "and more"] {
            far.write_all(part.as_bytes()).await.unwrap();
            let mut left = part.len();
            while left > 0 {
                match Pin::new(&mut body).poll_frame(cx) {
                    Ready(frame) => left -= frame.unwrap().unwrap().data_ref().unwrap().len(),
                    Pending => yield_now().await,
                }
            }
            let before = woken.0.load(SeqCst);
            alone::pass(clock, TICKS).await;
            assert_eq!(woken.0.load(SeqCst), before, "behind {part:?}");
            assert!(Pin::new(&mut body).poll_frame(cx).is_pending(), "behind {part:?}");
        }
        // Now it is.
        alone::pass(clock, TICKS).await;
        let end = Pin::new(&mut body).poll_frame(cx);
        assert!(matches!(end, Ready(Some(Err(BodyError::TimedOut)))), "{end:?}");
        assert_eq!(client.worker.counters.upstream_timeouts.get(), 1);
    }
}
