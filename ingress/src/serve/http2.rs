//! HTTP/2 on a client's connection: [`Connection`] speaks it, deadlines and draining end it.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::unconstrained,
};

use super::{
    client::Client, exchange, http1, incoming::Incoming, observed::Observed, worker::Stage,
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
    S: AsyncRead + AsyncWrite + Unpin,
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
    // One task serves many streams: what is fair among tasks would not be to them.
    let end = unconstrained(poll_fn(|cx| poll(&mut connection, &client, requests, cx))).await;
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
        client.watch().arm(http1::LINGER_MS);
        if client.watch().limit(stream.shutdown()).await.is_some_and(|shut| shut.is_ok()) {
            http1::linger(stream, &client).await;
        }
    }
}

/// `None`: a deadline came first.
fn poll<S, V>(
    connection: &mut Connection<S, V, Around>,
    client: &Client,
    requests: Requests,
    cx: &mut Context<'_>,
) -> Poll<Option<End>>
where
    S: AsyncRead + AsyncWrite + Unpin,
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
    if watch.expired() {
        return Poll::Ready(None);
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
