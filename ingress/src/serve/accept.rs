//! From a listening socket to connections, through TLS where it is asked for.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use rustls::server::Acceptor;
use tokio::{
    net::TcpStream,
    task::{spawn_local, unconstrained},
};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    addresses::Seat,
    client::Client,
    crew::{Handed, Inbox},
    http1, http2,
    identity::Shown,
    listen::{BACKLOG, Listening},
    passthrough,
    preamble::{self, Ends},
    prefixed::Prefixed,
    wire::Tcp,
    worker::{Open, Worker},
};
use crate::{config::ProxyProtocol, counters::Refused, timer::Timer};

/// Out of file descriptors: others may be closed by then.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves what comes to a socket, until told to leave.
pub(super) async fn run(worker: Rc<Worker>, listening: Listening, leave: CancellationToken) {
    let Listening { address, tls, .. } = listening;
    let timer = &worker.shared.timer;
    let distribute = |stream, peer| distribute(&worker, stream, peer, address, tls);
    accept(listening, leave, timer, distribute).await;
}

/// Serves what other threads hand over until told to leave, and then what is on its way already.
pub(super) async fn take_over(worker: Rc<Worker>, mut inbox: Inbox, leave: CancellationToken) {
    while let Some(Some(handed)) = leave.run_until_cancelled(inbox.recv()).await {
        take(&worker, handed);
    }
    // From here on others keep what they accept.
    inbox.close();
    while let Some(handed) = inbox.recv().await {
        take(&worker, handed);
    }
}

/// Accepts until told to leave, then takes what the kernel still holds, so that nobody is reset.
pub(crate) async fn accept(
    listening: Listening,
    leave: CancellationToken,
    timer: &Timer,
    mut admit: impl FnMut(TcpStream, SocketAddr),
) {
    let Listening { socket, address, group, .. } = listening;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = leave.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%address, %error, "cannot accept; trying again");
                timer.sleep(ACCEPT_RETRY).await;
            }
        }
    }
    group.leave(&*socket);
    for _ in 0..BACKLOG {
        // Unconstrained: tokio would call a halt after 128.
        match unconstrained(socket.accept()).now_or_never() {
            Some(Ok((stream, peer))) => admit(stream, peer),
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

/// Serves a connection here or, if this thread has too many, on another one.
fn distribute(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    address: SocketAddr,
    tls: bool,
) {
    let turn = usize::try_from(worker.counters.connections.get()).unwrap_or_default();
    let place = worker.shared.crew.elsewhere(worker.index, turn, worker.connections_max);
    let Some(place) = place else { return admit(worker, stream, peer, address, tls) };
    match stream.into_std() {
        Ok(stream) => {
            worker.counters.connections_moved.add();
            place.take(Handed { stream, peer, address, tls });
        }
        Err(error) => {
            tracing::warn!(%error, "a connection is closed: no thread could give it away");
        }
    }
}

/// Another thread accepted it.
fn take(worker: &Rc<Worker>, handed: Handed) {
    let Handed { stream, peer, address, tls } = handed;
    // It counts as any other from now on.
    worker.shared.crew.closed(worker.index);
    match TcpStream::from_std(stream) {
        Ok(stream) => admit(worker, stream, peer, address, tls),
        Err(error) => {
            tracing::warn!(%error, "a connection is closed: no thread could take it over");
        }
    }
}

fn admit(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, address: SocketAddr, tls: bool) {
    let Some(open) = worker.open() else {
        worker.counters.refused(Refused::ConnectionLimit);
        return;
    };
    // Fails on a connection already reset; the next read says so.
    let _ = stream.set_nodelay(true);
    let ends = Ends { client: peer, balancer: None, port: address.port() };
    if let Some(proxy) = &worker.config().proxy_protocol {
        if let Some(fronted) = Fronted::admitted(open, proxy, peer.ip()) {
            spawn_local(behind_proxy(fronted, stream, ends, tls));
        }
        return;
    }
    let Some(open) = open.of(peer.ip()) else { return };
    let client = Client::new(open, ends, tls);
    match tls {
        false => _ = spawn_local(http1::plain(stream, client)),
        true => _ = spawn_local(handshake(stream, client)),
    }
}

/// A connection whose PROXY header is still to come.
struct Fronted {
    open: Open,
    is_believed: bool,
    /// Among those of its peer. `None`: a balancer that is named may have any number.
    seat: Option<Seat>,
}

impl Fronted {
    /// `None`, and counted as refused: the peer has all it may have.
    fn admitted(open: Open, proxy: &ProxyProtocol, peer: IpAddr) -> Option<Self> {
        let worker = open.worker().clone();
        let seat = match proxy.names(peer) {
            true => None,
            false => {
                let seat = worker.shared.headerless.take(peer);
                if seat.is_none() {
                    worker.counters.refused(Refused::ProxyHeaderLimit);
                    return None;
                }
                seat
            }
        };
        let is_believed = proxy.trusts(peer);
        // Else it is known already whose it is.
        let open = if is_believed { open } else { open.of(peer)? };
        Some(Self { open, is_believed, seat })
    }
}

/// The PROXY header first.
async fn behind_proxy(fronted: Fronted, mut stream: TcpStream, mut ends: Ends, tls: bool) {
    let Fronted { mut open, is_believed, seat } = fronted;
    let worker = open.worker().clone();
    let watch = worker.clock.watch();
    watch.arm(worker.config().timeouts.tls_handshake_ms);
    let Some(Ok(route)) = watch.limit(pin!(preamble::read(&mut stream))).await else {
        return worker.counters.refused(Refused::ProxyHeader);
    };
    drop(seat);
    if is_believed {
        if let Some(route) = route {
            let balancer = Some(ends.client.ip().to_canonical());
            ends = Ends { client: route.source, balancer, port: route.destination.port() };
        }
        let Some(counted) = open.of(ends.client.ip()) else { return };
        open = counted;
    }
    let client = Client::new(open, ends, tls);
    match tls {
        false => http1::plain(stream, client).await,
        true => handshake(stream, client).await,
    }
}

/// What only the beginning needs is awaited in a box: the task of a connection lives as long as that
/// does, with room for everything it may ever await.
async fn handshake(stream: TcpStream, client: Rc<Client>) {
    let Some(stream) = Box::pin(shake_hands(stream, &client)).await else { return };
    let session = stream.get_ref().1;
    client.speaks(session.protocol_version());
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    client.connected(is_h2);
    if is_h2 {
        Box::pin(http2::serve(stream, client)).await;
    } else {
        http1::encrypted(stream, client).await;
    }
}

/// TLS, or nothing more to do here.
async fn shake_hands(stream: TcpStream, client: &Rc<Client>) -> Option<Box<TlsStream<Tcp>>> {
    let counters = &client.worker.counters;
    client.watch().arm(client.worker.config().timeouts.tls_handshake_ms);
    let passes = client.worker.routes.borrow_mut().load().passes_tls();
    let stream = match passes {
        // Nearly always all TLS ends here.
        false => Prefixed::new(Bytes::new(), stream),
        true => {
            let mut stream = stream;
            let Some(Ok(called)) =
                client.watch().limit(pin!(passthrough::called(&mut stream))).await
            else {
                counters.tls_failures.add();
                return None;
            };
            let service = called.name.and_then(|name| passthrough::service(client, &name));
            if let Some(service) = service {
                let passing = passthrough::run(client.clone(), stream, called.bytes, service);
                Box::pin(passing).await;
                return None;
            }
            Prefixed::new(called.bytes, stream)
        }
    };
    let Some(stream) = accept_tls(stream, client).await else {
        counters.tls_failures.add();
        return None;
    };
    counters.tls_handshakes.add();
    Some(Box::new(stream))
}

async fn accept_tls(stream: Tcp, client: &Client) -> Option<TlsStream<Tcp>> {
    // Nearly always nobody is to show a certificate, and who is called need not be known first.
    if !client.worker.routes.borrow_mut().load().asks_clients() {
        let tls = TlsAcceptor::from(client.worker.shared.tls.load().plain.clone());
        return client.watch().limit(pin!(tls.accept(stream))).await?.ok();
    }
    client.watch().limit(pin!(accept_by_name(stream, client))).await?
}

/// Asks for a certificate if the host that is called wants to see one.
async fn accept_by_name(stream: Tcp, client: &Client) -> Option<TlsStream<Tcp>> {
    let started = LazyConfigAcceptor::new(Acceptor::default(), stream).await.ok()?;
    let name = started.client_hello().server_name().map(str::to_ascii_lowercase);
    let worker = &client.worker;
    let asks = name.as_deref().is_some_and(|name| {
        let mut routes = worker.routes.borrow_mut();
        routes.load().host(name).is_some_and(|host| host.client_certificates.is_some())
    });
    let Some(name) = name.filter(|_| asks) else {
        let tls = worker.shared.tls.load().plain.clone();
        return started.into_stream(tls).await.ok();
    };
    let stream = started.into_stream(worker.shared.tls.load().asking.clone()).await.ok()?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    // Set here and nowhere else.
    let _ = client.shown.set(Shown::new(name, chain));
    Some(stream)
}
