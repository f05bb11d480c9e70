//! After a WebSocket handshake: bytes in both directions until one side ends or both are silent.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};

use super::{
    client::Client,
    clock::{Clock, Watch},
    http1::Upgraded,
    observed::{Observed, Observer},
    pipe::Pipe,
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
    mut down: D,
    up: Wire,
    early: Bytes,
    record: Rc<Record>,
) {
    let worker = &client.worker;
    if down.write_all(&early).await.is_ok() {
        record.sent(early.len());
        let up = Observed::new(up, Sent(record));
        join(&worker.clock, down, up, worker.config().timeouts.tunnel_idle_ms).await;
    }
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
