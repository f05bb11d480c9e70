//! After a WebSocket handshake: bytes in both directions until one side ends or both are silent.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

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

/// Copies both ways until one side breaks off, both have ended, or neither sends for too long.
pub(crate) async fn join<D, U>(clock: &Clock, down: D, up: U, idle_ms: u64)
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let traffic = Rc::new(Traffic { watch: clock.watch(), idle_ms });
    traffic.watch.arm(idle_ms);
    let mut down = Observed::new(down, traffic.clone());
    let mut up = Observed::new(up, traffic.clone());
    let mut copying = pin!(copy_bidirectional(&mut down, &mut up));
    poll_fn(|cx| {
        traffic.watch.register(cx.waker());
        // Either side breaking off is how tunnels end.
        let ended = copying.as_mut().poll(cx).is_ready() || traffic.watch.expired();
        if ended { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        net::{TcpListener, TcpStream},
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
}
