//! From a listening socket to connections, through TLS where it is asked for.

use std::{future::poll_fn, net::SocketAddr, pin::pin, rc::Rc, task::Poll, time::Duration};

use futures::FutureExt;
use tokio::{
    net::TcpStream,
    task::{spawn_local, unconstrained},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    client::{self, Client},
    listen::{BACKLOG, Listening},
    worker::Worker,
};
use crate::counters::Refused;

/// Out of file descriptors: others may be closed by then.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Accepts until told to leave, then takes what the kernel still holds, so that nobody is reset.
pub(super) async fn run(
    worker: Rc<Worker>,
    listening: Listening,
    acceptor: TlsAcceptor,
    leave: CancellationToken,
) {
    let Listening { socket, address, tls, group } = listening;
    let tls = tls.then_some(acceptor);
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = leave.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => admit(&worker, stream, peer, address, tls.as_ref()),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%address, %error, "cannot accept; trying again");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    group.leave(&*socket);
    for _ in 0..BACKLOG {
        // Unconstrained: tokio would call a halt after 128.
        match unconstrained(socket.accept()).now_or_never() {
            Some(Ok((stream, peer))) => admit(&worker, stream, peer, address, tls.as_ref()),
            Some(Err(error)) if is_of_one_connection(&error) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// accept(2): errors of the connection that was about to be accepted.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn admit(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    address: SocketAddr,
    tls: Option<&TlsAcceptor>,
) {
    let Some(open) = worker.open() else {
        worker.counters.refused(Refused::ConnectionLimit);
        return;
    };
    // Fails on a connection already reset; the next read says so.
    let _ = stream.set_nodelay(true);
    let client = Client::new(open, peer, address.port(), tls.is_some());
    match tls {
        None => _ = spawn_local(client::http1(stream, client)),
        Some(tls) => _ = spawn_local(handshake(tls.clone(), stream, client)),
    }
}

async fn handshake(tls: TlsAcceptor, stream: TcpStream, client: Rc<Client>) {
    let counters = &client.worker.counters;
    let Some(stream) = accept_tls(tls, stream, &client).await else {
        counters.tls_failures.add();
        return;
    };
    counters.tls_handshakes.add();
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    client.connected(is_h2);
    if is_h2 {
        client::http2(stream, client).await;
    } else {
        client::http1(stream, client).await;
    }
}

async fn accept_tls(
    tls: TlsAcceptor,
    stream: TcpStream,
    client: &Client,
) -> Option<TlsStream<TcpStream>> {
    client.watch().arm(client.worker.shared.config.timeouts.tls_handshake_ms);
    let mut accepting = pin!(tls.accept(stream));
    poll_fn(|cx| {
        client.watch().register(cx.waker());
        match accepting.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome.ok()),
            Poll::Pending if client.watch().expired() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
