//! After a WebSocket handshake: bytes in both directions until one side breaks off, both have ended, or
//! one is waited for too long.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};

use super::{
    client::Client,
    clock::{Clock, Watch},
    http1::Upgraded,
    observed::{Observed, Observer},
    pipe::Pipe,
    prefixed::Prefixed,
    wire::Wire,
};
use crate::{limiter::Slot, record::Record, routes::Patience};

/// The client's side.
pub(super) enum Down {
    /// A connection, once its 101 is written.
    Connection(Upgraded),
    /// A stream of one.
    Stream(Pipe),
}

/// How long each is waited for, in milliseconds since anything last passed, either way.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// The endpoint, to say more.
    read_ms: u64,
    /// The endpoint, to take more of what its client says.
    send_ms: u64,
    /// The client, to take more of what its endpoint says. Nobody waits for it to speak.
    client_send_ms: u64,
}

/// Which of these is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waiting {
    read: bool,
    send: bool,
    client_send: bool,
}

/// Times as nginx counts them (ngx_http_upstream_process_upgraded): whatever happens on either side has
/// them all begin anew, so a client's pings keep a tunnel as its endpoint's words do.
struct Traffic {
    watch: Arc<Watch>,
    limits: Limits,
    waiting: Cell<Waiting>,
}

impl Limits {
    fn of(patience: &Patience, client_send_ms: u64) -> Self {
        let Patience { read_ms, send_ms, .. } = *patience;
        Self { read_ms, send_ms, client_send_ms }
    }
}

impl Traffic {
    fn passed(&self, now: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.get();
        now(&mut waiting);
        self.waiting.set(waiting);
        let Waiting { read, send, client_send } = waiting;
        let Limits { read_ms, send_ms, client_send_ms } = self.limits;
        let all = [(read, read_ms), (send, send_ms), (client_send, client_send_ms)];
        match all.iter().filter_map(|&(waits, ms)| waits.then_some(ms)).min() {
            Some(ms) => self.watch.arm(ms),
            None => self.watch.disarm(),
        }
    }

    /// Whoever is asked again in vain is waited for no longer for that.
    fn waits(&self, now: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.get();
        now(&mut waiting);
        if waiting != self.waiting.get() {
            self.passed(|known| *known = waiting);
        }
    }
}

/// The endpoint's side.
struct Endpoint(Rc<Traffic>);

impl Observer for Endpoint {
    fn read(&mut self, _: &[u8]) {
        self.0.passed(|waiting| waiting.read = false);
    }

    fn written(&self) {
        self.0.passed(|waiting| waiting.send = false);
    }

    fn blocked(&self) {
        self.0.waits(|waiting| waiting.send = true);
    }

    fn quiet(&self) {
        self.0.waits(|waiting| waiting.read = true);
    }
}

/// The client's.
struct Near(Rc<Traffic>);

impl Observer for Near {
    fn read(&mut self, _: &[u8]) {
        self.0.passed(|_| {});
    }

    fn written(&self) {
        self.0.passed(|waiting| waiting.client_send = false);
    }

    fn blocked(&self) {
        self.0.waits(|waiting| waiting.client_send = true);
    }
}

/// What an endpoint says its client is sent (nginx: $bytes_sent; what a client says in a tunnel is
/// none of $request_length).
struct Sent(Rc<Record>);

impl Observer for Sent {
    fn read(&mut self, bytes: &[u8]) {
        self.0.sent(bytes.len());
    }

    fn written(&self) {}

    fn blocked(&self) {}
}

/// What both sides are, and what is told when they end.
pub(super) struct Tunnel {
    pub(super) down: Down,
    pub(super) up: Wire,
    /// What the endpoint sent right after its 101.
    pub(super) early: Bytes,
    /// As the route's annotations say.
    pub(super) patience: Patience,
    pub(super) slot: Option<Slot>,
    pub(super) record: Rc<Record>,
}

/// Joins both sides.
pub(super) async fn run(client: Rc<Client>, tunnel: Tunnel) {
    let Tunnel { down, up, early, patience, slot: _slot, record } = tunnel;
    let limits = Limits::of(&patience, client.worker.config().timeouts.client_send_ms);
    // It is what the endpoint says first: whoever does not take it is waited for no longer than later.
    let up = Observed::new(Prefixed::new(early, up), Sent(record));
    let clock = &client.worker.clock;
    match down {
        Down::Connection(upgraded) => {
            // There is none if the client left before it saw the 101.
            let Some(down) = upgraded.connection().await else { return };
            join(clock, down, up, limits).await;
        }
        Down::Stream(pipe) => {
            // The connection is not idle while a tunnel is one of its streams.
            let _busy = client.hold();
            join(clock, pipe, up, limits).await;
        }
    }
}

/// Copies both ways until one side breaks off, both have ended, or one is waited for too long. The end
/// of one direction is passed on, and the other one goes on.
async fn join<D, U>(clock: &Clock, down: D, up: U, limits: Limits)
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (watch, waiting) = (clock.watch(), Cell::default());
    let traffic = Rc::new(Traffic { watch, limits, waiting });
    let (down_says, down_hears) = split(Observed::new(down, Near(traffic.clone())));
    let (up_says, up_hears) = split(Observed::new(up, Endpoint(traffic.clone())));
    let mut there = pin!(say(down_says, up_hears));
    let mut back = pin!(say(up_says, down_hears));
    let ways: [Pin<&mut dyn Future<Output = io::Result<()>>>; 2] = [there.as_mut(), back.as_mut()];
    let mut ways = ways.map(Some);
    poll_fn(|cx| {
        traffic.watch.register(cx.waker());
        // By turns: whoever is first may use up all that the runtime lets a task do at once.
        ways.reverse();
        for way in &mut ways {
            match way.as_mut().map(|way| way.as_mut().poll(cx)) {
                Some(Poll::Ready(Ok(()))) => *way = None,
                // Either side breaking off is how tunnels end.
                Some(Poll::Ready(Err(_))) => return Poll::Ready(()),
                Some(Poll::Pending) | None => {}
            }
        }
        let have_ended = ways.iter().all(Option::is_none);
        if have_ended || traffic.watch.expired() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// All that one side says, and its end.
async fn say(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy(&mut from, &mut to).await?;
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker, ready};

    use futures::poll;
    use http::Request;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex, sink},
        net::{TcpListener, TcpStream},
        task::{coop::poll_proceed, yield_now},
        time::timeout,
    };

    use super::*;
    use crate::{
        config::Timeouts,
        serve::alone::{self, PATIENCE},
    };

    const PATIENT: Patience = Patience { connect_ms: 60_000, send_ms: 60_000, read_ms: 60_000 };
    const SECOND_MS: u64 = 1_000;
    const PIPE_BYTES: usize = 1 << 10;
    /// More than there are pipes and buffers to fill.
    const TURNS_A_SECOND: usize = 32;
    const EARLY: &[u8] = b"right behind the 101";
    const LATER: &[u8] = b", and later";
    const ROOM_BYTES: usize = 4;
    /// Of a side that is heard although the other one never rests.
    const HEARD_BYTES: usize = 1 << 10;

    #[tokio::test]
    async fn bug_whoever_takes_nothing_of_what_follows_a_101_is_left_as_if_it_came_later() {
        for takes in [true, false] {
            let client = alone::client(Timeouts { client_send_ms: 100, ..Timeouts::default() });
            let record = Record::begin(&client, &Request::new(()).into_parts().0);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let up = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut endpoint, _) = listener.accept().await.unwrap();
            endpoint.write_all(LATER).await.unwrap();
            endpoint.shutdown().await.unwrap();
            let (down, mut far) = duplex(ROOM_BYTES);
            let up = Prefixed::new(Bytes::from_static(EARLY), Wire::plain(up));
            let up = Observed::new(up, Sent(record.clone()));
            let limits = Limits::of(&PATIENT, client.worker.config().timeouts.client_send_ms);
            let joining = join(&client.worker.clock, down, up, limits);
            let taking = async {
                if takes {
                    let mut taken = Vec::new();
                    far.read_to_end(&mut taken).await.unwrap();
                    assert_eq!(taken, [EARLY, LATER].concat());
                    far.shutdown().await.unwrap();
                }
            };
            let both = async { tokio::join!(joining, taking) };
            tokio::select! {
                ended = timeout(PATIENCE, both) => assert!(ended.is_ok(), "takes: {takes}"),
                () = alone::pass(&client.worker.clock, usize::MAX) => {}
            }
            let all = EARLY.len() + LATER.len();
            assert_eq!(record.body_bytes_sent.get(), all as u64, "takes: {takes}");
        }
    }

    /// What one side says before it falls silent.
    #[derive(Clone, Copy, Debug)]
    enum Said {
        Nothing,
        /// A byte each second, which the other one takes. By the client, or by its endpoint.
        Often {
            by_client: bool,
            bytes: usize,
        },
        /// So many bytes at once, to somebody who takes none of them.
        Much {
            by_client: bool,
            bytes: usize,
        },
    }

    /// As much as goes at once.
    fn push(to: &mut DuplexStream, bytes: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(to).poll_write(&mut cx, &[b'x'; PIPE_BYTES][..bytes.min(PIPE_BYTES)]) {
            Poll::Ready(written) => written.unwrap(),
            Poll::Pending => 0,
        }
    }

    fn pull(from: &mut DuplexStream) {
        let (mut cx, mut room) = (Context::from_waker(Waker::noop()), [0; PIPE_BYTES]);
        let _ = Pin::new(from).poll_read(&mut cx, &mut ReadBuf::new(&mut room));
    }

    /// When a tunnel ends, in milliseconds.
    async fn quiet_for_ms(limits: Limits, said: Said) -> u64 {
        let client = alone::client(Timeouts::default());
        let clock = &client.worker.clock;
        let (down, mut near) = duplex(PIPE_BYTES);
        let (up, mut far) = duplex(PIPE_BYTES);
        let mut joining = pin!(join(clock, down, up, limits));
        let (by_client, mut left, each_second, is_taken) = match said {
            Said::Nothing => (true, 0, 0, true),
            Said::Often { by_client, bytes } => (by_client, bytes, 1, true),
            Said::Much { by_client, bytes } => (by_client, bytes, bytes, false),
        };
        let (says, hears) = if by_client { (&mut near, &mut far) } else { (&mut far, &mut near) };
        loop {
            let mut now = each_second.min(left);
            for _ in 0..TURNS_A_SECOND {
                // With a share of its own of what the runtime lets a task do at once.
                yield_now().await;
                let written = push(says, now);
                (now, left) = (now - written, left - written);
                if poll!(joining.as_mut()).is_ready() {
                    return clock.now_ms();
                }
                if is_taken {
                    pull(hears);
                }
            }
            clock.tick_at(clock.now_ms() + SECOND_MS);
        }
    }

    /// ngx_http_upstream_process_upgraded, 1.29: `proxy_read_timeout` and `proxy_send_timeout` are the
    /// endpoint's, `send_timeout` is the client's, and each event has all of them begin anew.
    #[tokio::test]
    async fn bug_a_tunnel_is_quiet_for_as_long_as_nginx_has_it() {
        const TEN_MS: u64 = 10 * SECOND_MS;
        const HOUR_MS: u64 = 3_600 * SECOND_MS;
        let limits = |read_ms, send_ms, client_send_ms| Limits { read_ms, send_ms, client_send_ms };
        let often = |by_client| Said::Often { by_client, bytes: 20 };
        let much = |by_client| Said::Much { by_client, bytes: 1 << 20 };
        // All of it is read.
        let some = Said::Much { by_client: false, bytes: PIPE_BYTES + 1 };
        for (limits, said, expected_ms) in [
            (limits(HOUR_MS, SECOND_MS, SECOND_MS), Said::Nothing, HOUR_MS),
            (limits(TEN_MS, HOUR_MS, HOUR_MS), Said::Nothing, TEN_MS),
            (limits(TEN_MS, HOUR_MS, HOUR_MS), often(true), 20 * SECOND_MS + TEN_MS),
            (limits(TEN_MS, HOUR_MS, HOUR_MS), often(false), 20 * SECOND_MS + TEN_MS),
            (limits(HOUR_MS, TEN_MS, HOUR_MS), much(true), TEN_MS),
            (limits(TEN_MS, HOUR_MS, HOUR_MS), much(true), TEN_MS),
            (limits(HOUR_MS, HOUR_MS, TEN_MS), some, TEN_MS),
            (limits(TEN_MS, HOUR_MS, HOUR_MS), some, TEN_MS),
            // The endpoint has more to say: not it is waited for, but its client.
            (limits(TEN_MS, TEN_MS, HOUR_MS), much(false), HOUR_MS),
        ] {
            let ended_ms = quiet_for_ms(limits, said).await;
            let in_time = expected_ms - 2 * SECOND_MS..=expected_ms + 2 * SECOND_MS;
            assert!(in_time.contains(&ended_ms), "{limits:?} {said:?}: {ended_ms}");
        }
    }

    /// Both ends of what is joined, as the two sides have them.
    fn far_ends() -> (DuplexStream, DuplexStream, impl Future<Output = ()>) {
        let client = alone::client(Timeouts::default());
        let (down, client_end) = duplex(ROOM_BYTES);
        let (up, endpoint_end) = duplex(ROOM_BYTES);
        let joining =
            async move { join(&client.worker.clock, down, up, Limits::of(&PATIENT, 60_000)).await };
        (client_end, endpoint_end, joining)
    }

    #[tokio::test]
    async fn whoever_has_said_all_still_hears_the_other_side() {
        for client_ends_first in [true, false] {
            let (client, endpoint, joining) = far_ends();
            let (mut first, mut second) =
                if client_ends_first { (client, endpoint) } else { (endpoint, client) };
            let talking = async move {
                first.write_all(EARLY).await.unwrap();
                first.shutdown().await.unwrap();
                let mut heard = Vec::new();
                second.read_to_end(&mut heard).await.unwrap();
                assert_eq!(heard, EARLY);
                // The end of that direction is known, and nothing was said in this one.
                second.write_all(LATER).await.unwrap();
                second.shutdown().await.unwrap();
                heard.clear();
                first.read_to_end(&mut heard).await.unwrap();
                assert_eq!(heard, LATER);
            };
            let both = async { tokio::join!(joining, talking) };
            let in_time = timeout(PATIENCE, both).await;
            assert!(in_time.is_ok(), "client first: {client_ends_first}");
        }
    }

    /// Always has more to say, and breaks off when it has heard enough.
    struct Endless {
        heard: usize,
    }

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            room: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            // As a socket does.
            ready!(poll_proceed(cx)).made_progress();
            room.put_slice(b"more");
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            ready!(poll_proceed(cx)).made_progress();
            self.heard += bytes.len();
            let is_over = self.heard > HEARD_BYTES;
            Poll::Ready(if is_over {
                Err(io::ErrorKind::BrokenPipe.into())
            } else {
                Ok(bytes.len())
            })
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Whoever sends all the time would use up all that a turn has, each time.
    #[tokio::test]
    async fn bug_who_sends_without_a_pause_does_not_silence_the_other_side() {
        for endless_client in [true, false] {
            let client = alone::client(Timeouts::default());
            let (mut far, near) = duplex(1 << 16);
            let (mut far_hears, mut far_says) = split(&mut far);
            let endless = Endless { heard: 0 };
            let (clock, limits) = (&client.worker.clock, Limits::of(&PATIENT, 60_000));
            let joining: Pin<Box<dyn Future<Output = ()>>> = match endless_client {
                true => Box::pin(join(clock, endless, near, limits)),
                false => Box::pin(join(clock, near, endless, limits)),
            };
            let hearing = async { copy(&mut far_hears, &mut sink()).await.unwrap() };
            let saying = async { while far_says.write_all(EARLY).await.is_ok() {} };
            let all = async { tokio::join!(joining, hearing, saying) };
            assert!(timeout(PATIENCE, all).await.is_ok(), "endless client: {endless_client}");
        }
    }
}
