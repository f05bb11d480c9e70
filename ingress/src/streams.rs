//! TCP and UDP services: ports that lead to endpoints, their bytes unread. One thread serves them all.

mod datagrams;
mod tcp;
mod udp;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::spawn_local,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    config::IngressConfig,
    counters::ThreadCounters,
    routes::{Stream, StreamPort, Streams},
    serve::Clock,
};

const BACKLOG: i32 = 4096;
/// A port somebody else holds may be free by then.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// What all streams share. Never leaves its thread.
pub(crate) struct Shared {
    pub(crate) config: Arc<ArcSwap<IngressConfig>>,
    pub(crate) counters: Arc<ThreadCounters>,
    pub(crate) clock: Clock,
}

/// One port, open on every address.
struct Open {
    /// Where it leads at the moment.
    stream: Rc<RefCell<Stream>>,
    _close: DropGuard,
}

/// Serves what is to be served until cancelled; what is open then may end within the drain time.
pub(crate) fn run(
    config: Arc<ArcSwap<IngressConfig>>,
    counters: Arc<ThreadCounters>,
    streams: watch::Receiver<Arc<Streams>>,
    cancel: &CancellationToken,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let clock = Clock::new(config.load().timeouts.shortest_ms());
    let shared = Rc::new(Shared { config, counters, clock });
    runtime.block_on(async {
        let ticking = shared.clone();
        spawn_local(async move {
            let mut interval = tokio::time::interval(ticking.clock.tick_interval());
            loop {
                interval.tick().await;
                ticking.clock.tick();
            }
        });
        cancel.run_until_cancelled(follow(&shared, streams)).await;
        drain(&shared).await;
    });
    Ok(())
}

async fn follow(shared: &Rc<Shared>, mut streams: watch::Receiver<Arc<Streams>>) {
    let mut open: BTreeMap<StreamPort, Open> = BTreeMap::new();
    let mut missing: BTreeSet<StreamPort> = BTreeSet::new();
    loop {
        let wanted = streams.borrow_and_update().clone();
        open.retain(|port, _| wanted.contains_key(port));
        missing.retain(|port| wanted.contains_key(port));
        for (port, stream) in &*wanted {
            if let Some(open) = open.get(port) {
                *open.stream.borrow_mut() = stream.clone();
                continue;
            }
            match begin(shared, *port, stream) {
                Ok(new) => {
                    missing.remove(port);
                    open.insert(*port, new);
                }
                // Told once, however often it is tried.
                Err(_) if missing.contains(port) => {}
                Err(error) => {
                    missing.insert(*port);
                    let kind = if port.udp { "UDP" } else { "TCP" };
                    tracing::warn!(%error, "{kind} port {} cannot be listened on", port.number);
                }
            }
        }
        let again = async {
            if missing.is_empty() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(BIND_AGAIN).await;
        };
        tokio::select! {
            changed = streams.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = again => {}
        }
    }
}

fn begin(shared: &Rc<Shared>, port: StreamPort, stream: &Stream) -> io::Result<Open> {
    let cancel = CancellationToken::new();
    let close = cancel.clone().drop_guard();
    let stream = Rc::new(RefCell::new(stream.clone()));
    for ip in addresses(&shared.config.load()) {
        let socket = bind(SocketAddr::new(ip, port.number), port.udp);
        let socket = match socket {
            // As for HTTP: a machine without IPv6 is no reason.
            Err(_) if ip.is_ipv6() && ip.is_unspecified() => continue,
            socket => socket?,
        };
        let (shared, stream, cancel) = (shared.clone(), stream.clone(), cancel.clone());
        if port.udp {
            let socket =
                datagrams::Datagrams::new(tokio::net::UdpSocket::from_std(socket.into())?)?;
            spawn_local(cancel.run_until_cancelled_owned(udp::serve(shared, socket, stream)));
        } else {
            socket.listen(BACKLOG)?;
            let listener = tokio::net::TcpListener::from_std(socket.into())?;
            spawn_local(cancel.run_until_cancelled_owned(tcp::serve(shared, listener, stream)));
        }
    }
    Ok(Open { stream, _close: close })
}

/// Those of HTTP, each once.
fn addresses(config: &IngressConfig) -> Vec<IpAddr> {
    let listen = config.http_listen.iter().chain(&config.https_listen);
    let mut addresses: Vec<IpAddr> = listen.map(SocketAddr::ip).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn bind(address: SocketAddr, udp: bool) -> io::Result<Socket> {
    let (kind, protocol) =
        if udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Another process takes over on the same port.
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

async fn drain(shared: &Shared) {
    let deadline = Duration::from_millis(shared.config.load().timeouts.drain_ms);
    let ended = async {
        while shared.counters.streams.get() > shared.counters.streams_ended.get() {
            tokio::time::sleep(shared.clock.tick_interval()).await;
        }
    };
    if tokio::time::timeout(deadline, ended).await.is_err() {
        tracing::warn!("TCP connections cut: still open after the drain time");
    }
}
