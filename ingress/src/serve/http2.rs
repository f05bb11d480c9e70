//! HTTP/2 on a client's connection: [`Connection`] speaks it, deadlines and draining end it.

use std::{
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::unconstrained,
};

use super::{
    client::{Busy, Client},
    exchange, http1,
    incoming::Incoming,
    observed::{Observed, Observer},
    wire::Push,
    worker::Stage,
};
use crate::{
    codec::h2::{Connection, Dropped, End, Received, Serve, Settings, Surroundings},
    counters::Refused,
};

/// RFC 9113 6.5.2: what is sent and not read holds this much, of one stream and of all.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// When a connection has had enough of them (nginx: keepalive_requests).
#[derive(Clone, Copy, Debug)]
struct Requests {
    /// The client is to send no more then.
    most: u64,
    /// It does, although all that may have been on their way are here.
    last: u64,
}

/// Serves HTTP/2 on a connection until it ends.
pub(super) async fn serve<S>(stream: S, client: Rc<Client>)
where
    S: AsyncRead + AsyncWrite + Push + Unpin,
{
    let config = client.worker.config();
    let settings = Settings {
        streams_max: config.limits.h2_streams_max,
        head_bytes_max: config.limits.head_bytes_max,
        stream_window_bytes: STREAM_WINDOW_BYTES,
        connection_window_bytes: CONNECTION_WINDOW_BYTES,
        stall_ms: config.timeouts.client_send_ms,
    };
    let io = Observed::new(stream, client.live().clone());
    let service = |request: Request<Received>| {
        exchange::handle(client.clone(), request.map(Incoming::Http2), None)
    };
    let mut connection = Connection::new(io, service, Around(client.clone()), settings);
    client.watch().rest_soon();
    let most = config.limits.requests_per_connection_max;
    let requests = Requests { most, last: most.saturating_add(settings.streams_max.into()) };
    let mut unsent = None;
    let talking = poll_fn(|cx| poll(&mut connection, (&client, &mut unsent), requests, cx));
    // One task serves many streams: what is fair among tasks would not be to them.
    let end = unconstrained(talking).await;
    let end = match end {
        Some(end) => end,
        None => {
            client.worker.counters.client_timeouts.add();
            connection.leave();
            // As far as it can be said at once.
            match poll_fn(|cx| Poll::Ready(connection.poll(cx))).await {
                Poll::Ready(end) => end,
                Poll::Pending => End::Gone,
            }
        }
    };
    if end == End::Told {
        let mut stream = connection.into_io();
        // A tunnel that ends only now would have the connection wait for its next request.
        let _busy = client.hold();
        drop(unsent);
        client.watch().arm(http1::LINGER_MS);
        if client.watch().limit(pin!(stream.shutdown())).await.is_some_and(|shut| shut.is_ok()) {
            http1::linger(stream, &client).await;
        }
    }
}

/// `None`: a deadline came first.
fn poll<S, O, V>(
    connection: &mut Connection<Observed<S, O>, V, Around>,
    (client, unsent): (&Rc<Client>, &mut Option<Busy>),
    requests: Requests,
    cx: &mut Context<'_>,
) -> Poll<Option<End>>
where
    S: AsyncRead + AsyncWrite + Push + Unpin,
    O: Observer,
    V: Serve,
{
    let watch = client.watch();
    watch.register(cx.waker());
    let begun = client.begun();
    match client.worker.stage.get() {
        stage if stage >= Stage::Closing || begun >= requests.last => connection.leave(),
        _ if begun >= requests.most => connection.drain(),
        // A connection that has not brought its first request may still do so.
        Stage::Draining if client.has_begun() => connection.drain(),
        _ => {}
    }
    if let Poll::Ready(end) = connection.poll(cx) {
        return Poll::Ready(Some(end));
    }
    // Whoever reads slowly is not idle before he could have read all of it.
    if connection.is_sent() {
        *unsent = None;
    } else if unsent.is_none() && client.has_begun() {
        *unsent = Some(client.hold());
    }
    if watch.expired() {
        let (io, output) = connection.unsent();
        if !watch.awaits_write() || !io.get_mut().takes(output) {
            return Poll::Ready(None);
        }
        watch.written();
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    match connection.is_stalled() {
        true => watch.wake_each_tick(),
        false => watch.wake_when_expired(),
    }
    if connection.is_idle() && watch.may_rest() {
        connection.rest();
        watch.stay();
    }
    Poll::Pending
}

/// What the connection asks and tells.
struct Around(Rc<Client>);

impl Surroundings for Around {
    fn now_ms(&self) -> u64 {
        self.0.worker.clock.now_ms()
    }

    fn date(&self) -> HeaderValue {
        self.0.worker.clock.date()
    }

    fn dropped(&self, what: Dropped) {
        let counters = &self.0.worker.counters;
        match what {
            Dropped::Malformed => counters.refused(Refused::Malformed),
            Dropped::StreamsTooMany => counters.refused(Refused::StreamLimit),
            Dropped::Flood => counters.refused(Refused::Flood),
            Dropped::Stalled => counters.client_timeouts.add(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::{
        io::{AsyncReadExt, DuplexStream, duplex, split},
        task::yield_now,
    };

    use super::*;
    use crate::{codec::Output, config::Timeouts, serve::alone};

    const IDLE_MS: u64 = 100;
    const IDLE_TICKS: usize = 20;
    /// Less than any answer.
    const ROOM_BYTES: usize = 16;
    /// The preface, no settings, and GET of http://a/.
    const REQUEST: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
        \0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";
    const HEAD_BYTES: usize = 9;
    const DATA: u8 = 0;
    const END_STREAM: u8 = 1;

    impl Push for DuplexStream {
        fn push(&mut self, _: &mut Output) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    fn is_over(mut frames: &[u8]) -> bool {
        while let Some(&[high, middle, low, kind, flags, ..]) = frames.first_chunk::<HEAD_BYTES>() {
            let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap();
            let Some(rest) = frames.get(HEAD_BYTES + length..) else { return false };
            if kind == DATA && flags & END_STREAM != 0 {
                return true;
            }
            frames = rest;
        }
        false
    }

    /// An answer was over once its last frame was made: the idle time of its connection began, and its end went
    /// with what was not written by then.
    #[tokio::test]
    async fn bug_the_end_of_an_answer_waits_for_whoever_reads_slowly() {
        let timeouts = Timeouts { keep_alive_idle_ms: IDLE_MS, ..Timeouts::default() };
        let client = alone::client(timeouts);
        client.connected(true);
        let (near, far) = duplex(ROOM_BYTES);
        let (mut reading, mut writing) = split(far);
        let asking = async {
            writing.write_all(REQUEST).await.unwrap();
            while !client.has_begun() {
                yield_now().await;
            }
            let mut came = vec![];
            while !is_over(&came) {
                alone::pass(&client.worker.clock, IDLE_TICKS).await;
                assert!(reading.read_buf(&mut came).await.unwrap() > 0, "cut off: {came:?}");
            }
            drop((reading, writing));
            alone::pass(&client.worker.clock, IDLE_TICKS).await;
        };
        tokio::join!(asking, serve(near, client.clone()));
    }
}
