//! TCP: bytes both ways, perhaps with who connects said before.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use tokio::{io::AsyncWriteExt, net::TcpStream, task::spawn_local, time::timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{
    config::{IngressConfig, ProxyProtocol},
    counters::Refused,
    proxy_protocol,
    routes::{Pick, Stream},
    serve::{Addresses, Full, Listening, Means, Seat, accept, join, read_preamble},
};

pub(super) async fn serve(
    shared: Rc<Shared>,
    listening: Listening,
    stream: Rc<RefCell<Stream>>,
    leave: CancellationToken,
) {
    let timer = shared.timer.clone();
    let mut turn = 0usize;
    let admit = |connection, peer| {
        turn = turn.wrapping_add(1);
        let counted = Counted::begin(shared.clone());
        if counted.is_too_many() {
            shared.counters.streams_failed.add();
            return;
        }
        let serving = one(shared.clone(), connection, peer, stream.borrow().clone(), turn);
        spawn_local(async move {
            if serving.await.is_err() {
                counted.0.counters.streams_failed.add();
            }
        });
    };
    accept(listening, leave, &timer, admit).await;
}

/// A connection, as long as it is open.
struct Counted(Rc<Shared>);

impl Counted {
    fn begin(shared: Rc<Shared>) -> Self {
        shared.counters.streams.add();
        Self(shared)
    }

    fn is_too_many(&self) -> bool {
        let counters = &self.0.counters;
        let open = counters.streams.get() - counters.streams_ended.get();
        open > self.0.config.load().limits.connections_max as u64
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counters.streams_ended.add();
    }
}

/// One of this client's connections, HTTP's among them. `Err`: it has all it may have.
fn seat(shared: &Shared, config: &IngressConfig, client: IpAddr) -> Result<Option<Seat>, Full> {
    // Its clients are others, also where it does not say so.
    let names = |own: &ProxyProtocol| own.names(client);
    let addresses = shared.addresses.as_ref();
    let counted = addresses.filter(|_| !config.proxy_protocol.as_ref().is_some_and(names));
    Addresses::seat(counted, config, client)
}

async fn one(
    shared: Rc<Shared>,
    mut connection: TcpStream,
    mut peer: SocketAddr,
    to: Stream,
    turn: usize,
) -> io::Result<()> {
    let config = shared.config.load_full();
    let timeouts = &config.timeouts;
    connection.set_nodelay(true)?;
    let mut local = connection.local_addr()?;
    if to.proxy.comes {
        let limit = Duration::from_millis(timeouts.tls_handshake_ms);
        let trusted = config.trusts_header_of(peer.ip());
        if let Some(route) = timeout(limit, read_preamble(&mut connection)).await??
            && trusted
        {
            (peer, local) = (route.source, route.destination);
        }
    }
    let Ok(_seat) = seat(&shared, &config, peer.ip()) else {
        shared.counters.refused(Refused::ClientConnectionLimit);
        return Ok(());
    };
    let limit = Duration::from_millis(timeouts.upstream_connect_ms);
    let mut tried = Vec::new();
    while tried.len() < config.limits.upstream_tries_max {
        let Some(endpoint) = to.upstream.choose(Pick::Turn(turn), &tried) else { break };
        tried.push(endpoint.id());
        let connected = timeout(limit, TcpStream::connect(endpoint.address())).await;
        let Ok(Ok(mut upstream)) = connected else {
            endpoint.failed();
            shared.counters.upstream_connect_failures.add();
            continue;
        };
        endpoint.worked();
        shared.counters.upstream_connects.add();
        upstream.set_nodelay(true)?;
        if to.proxy.goes {
            upstream.write_all(proxy_protocol::line(peer, local).as_bytes()).await?;
        }
        let Shared { clock, pipes, counters, .. } = &*shared;
        let means = Means { clock, pipes, counters };
        join(means, connection, upstream, timeouts.stream_idle_ms).await;
        return Ok(());
    }
    Err(io::ErrorKind::ConnectionRefused.into())
}
