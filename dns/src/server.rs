//! Starts the threads and tasks, keeps the zone up to date, ends everything in order.

use std::{
    net::{Shutdown, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use fairlead_state::{Snapshot, store::Snapshots};
use socket2::SockRef;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{DnsConfig, THREADS_MAX},
    counters::{Counts, Registry},
    error::DnsError,
    fast::Worker,
    listen::{Listener, listen},
    slow::{SlowPath, upstreams::UpstreamPool},
    tcp::{self, Server},
    zone::{Origin, Zone},
};

/// The DNS role at work.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    counters: Registry,
    revisions: watch::Receiver<Option<u64>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    tasks: TaskTracker,
}

/// Starts answering at once: before the first snapshot names of the cluster are SERVFAIL, others
/// are forwarded.
///
/// Must be called within a tokio runtime, which gets the slow path, TCP and zone updates; UDP has
/// threads of its own.
///
/// # Errors
/// When an address cannot be listened on or the configuration names something that is no domain.
pub fn start(
    config: &DnsConfig,
    snapshots: Snapshots,
    cancel: CancellationToken,
) -> Result<Running, DnsError> {
    let runtime = Handle::try_current().map_err(|_| DnsError::NoRuntime)?;
    let origin = Arc::new(Origin::new(config)?);
    let threads = config.threads.unwrap_or_else(default_threads);
    let listeners = listen_all(&config.listen, threads)?;
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.address).collect();

    let zone = Arc::new(ArcSwap::from_pointee(Zone::unsynced(origin, serial())));
    let tasks = TaskTracker::new();
    let upstreams = UpstreamPool::new(&config.upstreams, addresses.clone())?;
    let slow = SlowPath::new(runtime.clone(), tasks.clone(), zone.clone(), upstreams);
    let counters = Registry::default();
    let server = Server {
        zone: zone.clone(),
        slow: slow.clone(),
        counters: counters.add(),
        tasks: tasks.clone(),
        connections: Arc::new(Semaphore::new(tcp::CONNECTIONS_MAX)),
        cancel: cancel.clone(),
    };
    let mut workers = vec![];
    let stopping = Arc::new(AtomicBool::new(false));
    let mut sockets = vec![];
    for listener in listeners {
        let failed = |source| DnsError::Listen {
            address: listener.address,
            transport: "TCP",
            cure: "start within a runtime that has I/O enabled",
            source,
        };
        let tcp = TcpListener::from_std(listener.tcp).map_err(failed)?;
        tasks.spawn(server.clone().run(tcp));
        for socket in listener.udp {
            let socket = Arc::new(socket);
            let worker = Worker {
                socket: socket.clone(),
                zone: zone.clone(),
                slow: slow.clone(),
                counters: counters.add(),
                stopping: stopping.clone(),
            };
            // Pushed first: if a later thread cannot be started, the earlier ones must end.
            sockets.push(socket);
            let name = format!("dns-udp-{}", workers.len());
            match thread::Builder::new().name(name).spawn(move || worker.run()) {
                Ok(thread) => workers.push(thread),
                Err(error) => {
                    cancel.cancel();
                    stop(&stopping, &sockets);
                    return Err(DnsError::Thread(error));
                }
            }
        }
    }
    let (announce, revisions) = watch::channel(None);
    tasks.spawn(follow(zone, snapshots, announce, cancel.clone()));
    tasks.spawn(async move {
        cancel.cancelled().await;
        stop(&stopping, &sockets);
    });
    tasks.close();
    tracing::info!(?addresses, threads = workers.len(), "DNS: answering");
    Ok(Running { addresses, counters, revisions, threads: Mutex::new(workers), tasks })
}

impl Running {
    /// Addresses answered on, UDP and TCP, with the ports the kernel chose for 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What was asked, answered and dropped since the start.
    pub fn counts(&self) -> Counts {
        self.counters.sum()
    }

    /// The snapshot revision whose names are being answered; `None` before the first.
    pub fn revision(&self) -> Option<u64> {
        *self.revisions.borrow()
    }

    /// Follows [`Running::revision`]: `wait_for(Option::is_some)` waits until names are in sync.
    /// Closed at the end.
    pub fn revisions(&self) -> watch::Receiver<Option<u64>> {
        self.revisions.clone()
    }

    /// Waits until all threads and tasks have ended, which they do after the token given to
    /// [`start`] is cancelled: queries that had arrived are answered, those at upstreams included.
    pub async fn join(&self) {
        self.tasks.wait().await;
        let threads = {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *threads)
        };
        // They were woken when the token was cancelled; a thread to wait in keeps the runtime free.
        let joining = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A panic was caught and reported within the thread.
                let _ = thread.join();
            }
        });
        let _ = joining.await;
    }
}

/// Listens everywhere asked; on a machine without IPv6 (`ipv6.disable=1`) the default's `[::]` is
/// left out.
fn listen_all(addresses: &[SocketAddr], threads: usize) -> Result<Vec<Listener>, DnsError> {
    let mut listeners = vec![];
    for address in addresses {
        match listen(*address, threads) {
            Ok(listener) => listeners.push(listener),
            Err(DnsError::Listen { source, .. })
                if source.raw_os_error() == Some(libc::EAFNOSUPPORT)
                    && address.ip().is_unspecified()
                    && addresses.len() > 1 =>
            {
                tracing::warn!(%address, "DNS: this machine has no such address family: left out");
            }
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() { Err(DnsError::NoAddress) } else { Ok(listeners) }
}

/// Keeps the zone at the newest snapshot.
async fn follow(
    zone: Arc<ArcSwap<Zone>>,
    mut snapshots: Snapshots,
    announce: watch::Sender<Option<u64>>,
    cancel: CancellationToken,
) {
    snapshots.mark_changed();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = snapshots.changed() => {
                // The store is gone: its last word stands until the end.
                if changed.is_err() {
                    return;
                }
            }
        }
        let newest: Option<Arc<Snapshot>> = snapshots.borrow_and_update().clone();
        let Some(snapshot) = newest else { continue };
        let old = zone.load_full();
        // A first snapshot is tens of milliseconds of work, too long for a runtime thread.
        let update = tokio::task::spawn_blocking(move || old.updated(&snapshot, serial()));
        match update.await {
            Ok(updated) => {
                if zone.load().revision().is_none() {
                    tracing::info!(services = updated.service_count(), "DNS: names are in sync");
                }
                let revision = updated.revision();
                zone.store(Arc::new(updated));
                announce.send_replace(revision);
            }
            Err(error) => tracing::error!("DNS: names were not updated: {error}"),
        }
    }
}

/// Wakes every UDP thread and tells it to end.
fn stop(stopping: &AtomicBool, sockets: &[Arc<UdpSocket>]) {
    stopping.store(true, Ordering::Relaxed);
    for socket in sockets {
        // On an unconnected socket Linux says ENOTCONN and wakes its receivers all the same; if
        // not, they look up when their receive timeout ends.
        let _ = SockRef::from(socket.as_ref()).shutdown(Shutdown::Read);
    }
}

fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// Serial of SOA records: the time, as CoreDNS'.
fn serial() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    u32::try_from(now & u64::from(u32::MAX)).unwrap_or(0)
}
