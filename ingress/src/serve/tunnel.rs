//! After a WebSocket handshake: bytes in both directions until one side ends or both are silent.

use std::{
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
use crate::{limiter::Slot, record::Record};

/// The client's side.
pub(super) enum Down {
    /// A connection, once its 101 is written.
    Connection(Upgraded),
    /// A stream of one.
    Stream(Pipe),
}

/// Any byte, either way, keeps the tunnel.
struct Traffic {
    watch: Arc<Watch>,
    idle_ms: u64,
}

impl Observer for Rc<Traffic> {
    fn read(&mut self, _: &[u8]) {
        self.watch.arm(self.idle_ms);
    }

    fn written(&self) {
        self.watch.arm(self.idle_ms);
    }

    fn blocked(&self) {}
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
    pub(super) slot: Option<Slot>,
    pub(super) record: Rc<Record>,
}

/// Joins both sides.
pub(super) async fn run(client: Rc<Client>, tunnel: Tunnel) {
    let Tunnel { down, up, early, slot: _slot, record } = tunnel;
    match down {
        Down::Connection(upgraded) => {
            // There is none if the client left before it saw the 101.
            let Some(down) = upgraded.connection().await else { return };
            join_after(&client, down, up, early, record).await;
        }
        Down::Stream(pipe) => {
            // The connection is not idle while a tunnel is one of its streams.
            let _busy = client.hold();
            join_after(&client, pipe, up, early, record).await;
        }
    }
}

async fn join_after<D: AsyncRead + AsyncWrite + Unpin>(
    client: &Client,
    down: D,
    up: Wire,
    early: Bytes,
    record: Rc<Record>,
) {
    let worker = &client.worker;
    // It is what the endpoint says first: whoever does not take it is waited for no longer than later.
    let up = Observed::new(Prefixed::new(early, up), Sent(record));
    join(&worker.clock, down, up, worker.config().timeouts.tunnel_idle_ms).await;
}

/// Copies both ways until one side breaks off, both have ended, or neither sends for too long. The end
/// of one direction is passed on, and the other one goes on.
pub(crate) async fn join<D, U>(clock: &Clock, down: D, up: U, idle_ms: u64)
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let traffic = Rc::new(Traffic { watch: clock.watch(), idle_ms });
    traffic.watch.arm(idle_ms);
    let (down_says, down_hears) = split(Observed::new(down, traffic.clone()));
    let (up_says, up_hears) = split(Observed::new(up, traffic.clone()));
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
    use std::task::{Context, ready};

    use http::Request;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex, sink},
        net::{TcpListener, TcpStream},
        task::coop::poll_proceed,
        time::timeout,
    };

    use super::*;
    use crate::{
        config::Timeouts,
        serve::alone::{self, PATIENCE},
    };

    const EARLY: &[u8] = b"right behind the 101";
    const LATER: &[u8] = b", and later";
    const ROOM_BYTES: usize = 4;
    /// It does not pass unless a test lets it.
    const IDLE_MS: u64 = 60_000;
    /// Of a side that is heard although the other one never rests.
    const HEARD_BYTES: usize = 1 << 10;

    #[tokio::test]
    async fn bug_whoever_takes_nothing_of_what_follows_a_101_is_left_as_if_it_came_later() {
        for takes in [true, false] {
            let timeouts = Timeouts { tunnel_idle_ms: 100, ..Timeouts::default() };
            let client = alone::client(timeouts);
            let record = Record::begin(&client, &Request::new(()).into_parts().0);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let up = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut endpoint, _) = listener.accept().await.unwrap();
            endpoint.write_all(LATER).await.unwrap();
            let (down, mut far) = duplex(ROOM_BYTES);
            let early = Bytes::from_static(EARLY);
            let joining = join_after(&client, down, Wire::plain(up), early, record.clone());
            let taking = async {
                let mut taken = vec![0; EARLY.len() + LATER.len()];
                if takes {
                    far.read_exact(&mut taken).await.unwrap();
                    assert_eq!(taken, [EARLY, LATER].concat());
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

    /// Both ends of what is joined, as the two sides have them.
    fn far_ends() -> (DuplexStream, DuplexStream, impl Future<Output = ()>) {
        let client = alone::client(Timeouts::default());
        let (down, client_end) = duplex(ROOM_BYTES);
        let (up, endpoint_end) = duplex(ROOM_BYTES);
        let joining = async move { join(&client.worker.clock, down, up, IDLE_MS).await };
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
            let clock = &client.worker.clock;
            let joining: Pin<Box<dyn Future<Output = ()>>> = match endless_client {
                true => Box::pin(join(clock, endless, near, IDLE_MS)),
                false => Box::pin(join(clock, near, endless, IDLE_MS)),
            };
            let hearing = async { copy(&mut far_hears, &mut sink()).await.unwrap() };
            let saying = async { while far_says.write_all(EARLY).await.is_ok() {} };
            let all = async { tokio::join!(joining, hearing, saying) };
            assert!(timeout(PATIENCE, all).await.is_ok(), "endless client: {endless_client}");
        }
    }
}
