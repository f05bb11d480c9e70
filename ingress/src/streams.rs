//! TCP and UDP services: ports that lead to endpoints, their bytes unread. One thread serves them all.

mod clients;
mod datagrams;
mod tcp;
mod udp;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use socket2::Type;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::spawn_local,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::datagrams::Datagrams;
use crate::{
    config::IngressConfig,
    counters::ThreadCounters,
    routes::{Stream, StreamPort, Streams},
    serve::{Addresses, Clock, Listener, Pipes, is_missing_ipv6, socket},
    timer::Timer,
};

/// A port somebody else holds may be free by then.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// What all streams share. Never leaves its thread.
pub(crate) struct Shared {
    pub(crate) config: Arc<ArcSwap<IngressConfig>>,
    pub(crate) counters: Arc<ThreadCounters>,
    pub(crate) clock: Clock,
    pub(crate) timer: Timer,
    /// Connections of each client, HTTP's among them.
    addresses: Option<Arc<Addresses>>,
    pipes: Pipes,
    /// Clients of UDP services.
    udp: udp::Everybody,
    /// A task per listening socket; each ends once it has taken what the kernel still held.
    accepting: TaskTracker,
}

/// A port that is to be served and cannot be listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unbound {
    /// Where not.
    pub(crate) address: SocketAddr,
    /// Somebody has it.
    pub(crate) is_taken: bool,
    /// What the kernel says.
    pub(crate) reason: Arc<str>,
}

/// All of them.
pub(crate) type AllUnbound = BTreeMap<StreamPort, Unbound>;

/// One port, open on every address.
struct Open {
    /// Where it leads at the moment.
    stream: Rc<RefCell<Stream>>,
    _close: DropGuard,
}

/// Serves what is to be served until cancelled; what is open then may end within the drain time. Tells which ports
/// it waits for.
pub(crate) fn run(
    config: Arc<ArcSwap<IngressConfig>>,
    counters: Arc<ThreadCounters>,
    (timer, addresses): (Timer, Option<Arc<Addresses>>),
    streams: watch::Receiver<Arc<Streams>>,
    unbound: &watch::Sender<AllUnbound>,
    cancel: &CancellationToken,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let clock = Clock::new(config.load().timeouts.shortest_ms());
    let (pipes, udp, accepting) = Default::default();
    let shared =
        Rc::new(Shared { config, counters, clock, timer, addresses, pipes, udp, accepting });
    runtime.block_on(async {
        let ticking = shared.clone();
        spawn_local(async move {
            let mut interval = tokio::time::interval(ticking.clock.tick_interval());
            loop {
                interval.tick().await;
                ticking.clock.tick();
            }
        });
        tokio::select! {
            () = follow(&shared, streams, unbound) => {}
            () = leave(&shared, cancel) => {}
        }
        shared.accepting.close();
        shared.accepting.wait().await;
        drain(&shared).await;
    });
    Ok(())
}

/// As HTTP: connections are taken until those who balance in front have learned of the end.
async fn leave(shared: &Shared, cancel: &CancellationToken) {
    cancel.cancelled().await;
    let wait = shared.config.load().timeouts.drain_accept();
    tokio::time::sleep(wait).await;
}

async fn follow(
    shared: &Rc<Shared>,
    mut streams: watch::Receiver<Arc<Streams>>,
    unbound: &watch::Sender<AllUnbound>,
) {
    let mut open: BTreeMap<StreamPort, Open> = BTreeMap::new();
    loop {
        let wanted = streams.borrow_and_update().clone();
        open.retain(|port, _| wanted.contains_key(port));
        let mut missing = AllUnbound::new();
        for (port, stream) in &*wanted {
            if let Some(open) = open.get(port) {
                *open.stream.borrow_mut() = stream.clone();
                continue;
            }
            match begin(shared, *port, stream) {
                Ok(new) => _ = open.insert(*port, new),
                Err(reason) => _ = missing.insert(*port, reason),
            }
        }
        let is_missing = !missing.is_empty();
        // Told once, however often it is tried.
        unbound.send_if_modified(|told| {
            let is_new = *told != missing;
            *told = missing;
            is_new
        });
        let again = async {
            if !is_missing {
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

fn begin(shared: &Rc<Shared>, port: StreamPort, stream: &Stream) -> Result<Open, Unbound> {
    let cancel = CancellationToken::new();
    let close = cancel.clone().drop_guard();
    let stream = Rc::new(RefCell::new(stream.clone()));
    let clients = shared.udp.begin();
    for ip in addresses(&shared.config.load()) {
        let address = SocketAddr::new(ip, port.number);
        let begun = match port.udp {
            true => begin_udp(shared, address, &stream, &clients, &cancel),
            false => begin_tcp(shared, address, &stream, &cancel),
        };
        match begun {
            // As for HTTP: a machine without IPv6 is no reason.
            Err(error) if is_missing_ipv6(address, &error) => {}
            Err(error) => {
                let is_taken = error.kind() == io::ErrorKind::AddrInUse;
                return Err(Unbound { address, is_taken, reason: error.to_string().into() });
            }
            Ok(()) => {}
        }
    }
    Ok(Open { stream, _close: close })
}

fn begin_tcp(
    shared: &Rc<Shared>,
    address: SocketAddr,
    stream: &Rc<RefCell<Stream>>,
    leave: &CancellationToken,
) -> io::Result<()> {
    let listening = Listener::plain(address)?.into_iter().map(Listener::listen);
    let listening = listening.collect::<io::Result<Vec<_>>>()?;
    for one in &listening {
        let serving = tcp::serve(shared.clone(), one.clone(), stream.clone(), leave.clone());
        shared.accepting.spawn_local(serving);
    }
    if let Some(one) = listening.first() {
        one.group.arrive(&*one.socket);
    }
    Ok(())
}

fn begin_udp(
    shared: &Rc<Shared>,
    address: SocketAddr,
    stream: &Rc<RefCell<Stream>>,
    clients: &udp::Clients,
    cancel: &CancellationToken,
) -> io::Result<()> {
    let socket = socket(address, Type::DGRAM)?;
    let socket = Datagrams::new(tokio::net::UdpSocket::from_std(socket.into())?)?;
    let serving = udp::serve(shared.clone(), socket, stream.clone(), clients.clone());
    spawn_local(cancel.clone().run_until_cancelled_owned(serving));
    Ok(())
}

/// Those of HTTP, each once.
fn addresses(config: &IngressConfig) -> Vec<IpAddr> {
    let listen = config.http_listen.iter().chain(&config.https_listen);
    let mut addresses: Vec<IpAddr> = listen.map(SocketAddr::ip).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
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
