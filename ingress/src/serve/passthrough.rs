//! TLS that is somebody else's: by the name that is called, to a Service's endpoints, unopened.

use std::{io, rc::Rc, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    client::Client,
    connect,
    relay::{self, Means},
    worker::Worker,
};
use crate::{
    routes::{Pick, Upstream},
    sni::{self, Hello},
};

/// Read at once; most first messages are shorter.
const READ_BYTES: usize = 2 << 10;

/// The first message of a client.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) name: Option<String>,
    /// What was read to find it.
    pub(super) bytes: Bytes,
}

/// Reads until it is known who is called; what is no first message is TLS's to refuse.
pub(super) async fn called(stream: &mut TcpStream) -> io::Result<Called> {
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    loop {
        let name = match sni::parse(&bytes) {
            Hello::Partial => None,
            Hello::Whole(name) => Some(name),
            Hello::Other => Some(None),
        };
        if let Some(name) = name {
            return Ok(Called { name, bytes: bytes.freeze() });
        }
        bytes.reserve(READ_BYTES);
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Where the TLS of this name goes, if not here.
pub(super) fn service(client: &Client, name: &str) -> Option<Arc<Upstream>> {
    let mut routes = client.worker.routes.borrow_mut();
    routes.load().host(name)?.passthrough.clone()
}

/// To an endpoint, until one side ends. A connection that cannot be made is tried elsewhere.
pub(super) async fn run(client: Rc<Client>, stream: TcpStream, called: Bytes, to: Arc<Upstream>) {
    let worker = client.worker.clone();
    let config = worker.config();
    let _busy = client.begin();
    let pick = Pick::Turn(client.turn(&to));
    let mut tried = Vec::new();
    while tried.len() < config.limits.upstream_tries_max {
        let Some(endpoint) = to.choose(pick, &tried) else { break };
        tried.push(endpoint.id());
        let connect_ms = config.timeouts.upstream_connect_ms;
        let Ok(mut upstream) = connect::plain(&worker, &endpoint, connect_ms).await else {
            continue;
        };
        if upstream.write_all(&called).await.is_err() {
            continue;
        }
        worker.counters.passthroughs.add();
        // Not held for as long as the connection lasts.
        drop(called);
        let Worker { clock, pipes, counters, .. } = &*worker;
        let means = Means { clock, pipes, counters };
        relay::join(means, stream, upstream, config.timeouts.stream_idle_ms).await;
        return;
    }
    worker.counters.tls_failures.add();
}
