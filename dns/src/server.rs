//! Starts the threads and tasks, keeps the zone up to date, ends everything in order.

use std::{
    net::{Shutdown, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
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
    config::{DnsConfig, THREADS_MAX, Tuning},
    counters::{Counts, Registry},
    error::DnsError,
    fast::Worker,
    listen::{Listener, is_shared, listen, retire},
    slow::{SlowPath, upstreams::UpstreamPool},
    tcp::{self, Server},
    zone::{Origin, Zone},
};

/// A datagram for which the kernel had chosen a socket before it was retired has arrived by then.
const RETIRE_PAUSE: Duration = Duration::from_millis(50);

/// The DNS role at work.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    counters: Registry,
    revisions: watch::Receiver<Option<u64>>,
    slow: SlowPath,
    origins: watch::Sender<Arc<Origin>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    tasks: TaskTracker,
}

/// Whether an earlier process, still at work, shares its port with a later one. The later one should
/// have a snapshot before it starts: from then on it gets a part of the queries.
pub fn has_predecessor(config: &DnsConfig) -> bool {
    config.listen.iter().any(|address| is_shared(*address))
}

/// Starts answering at once: before the first snapshot names of the cluster are SERVFAIL, others
/// are forwarded. If there is a snapshot already, the first answer is from it.
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
    let mut first = Zone::unsynced(origin.clone(), serial());
    if let Some(snapshot) = &*snapshots.borrow() {
        first = first.updated(snapshot, serial());
    }
    let threads = config.threads.unwrap_or_else(default_threads);
    let listeners = listen_all(&config.listen, threads)?;
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.address).collect();

    let zone = Arc::new(ArcSwap::from_pointee(first));
    let (origins, followed_origins) = watch::channel(origin);
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
    let follower = Follower { zone, snapshots, origins: followed_origins, announce };
    tasks.spawn(cancel.clone().run_until_cancelled_owned(follower.run()));
    tasks.spawn(async move {
        cancel.cancelled().await;
        for socket in &sockets {
            if let Err(error) = retire(socket) {
                tracing::debug!(%error, "DNS: a UDP socket ends with what it is sent meanwhile");
            }
        }
        tokio::time::sleep(RETIRE_PAUSE).await;
        stop(&stopping, &sockets);
    });
    tasks.close();
    tracing::info!(?addresses, threads = workers.len(), "DNS: answering");
    let threads = Mutex::new(workers);
    Ok(Running { addresses, counters, revisions, slow, origins, threads, tasks })
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

    /// Answers by these from now on. Names are made anew meanwhile, not interrupted.
    ///
    /// # Errors
    /// When the resolver library refuses the upstreams; the old ones stay.
    pub fn tune(&self, tuning: &Tuning) -> Result<(), DnsError> {
        self.slow.retarget(&tuning.upstreams)?;
        self.origins.send_if_modified(|origin| {
            let mut tuned = Origin::clone(origin);
            tuned.ttl_seconds = tuning.ttl_seconds;
            tuned.negative_ttl_seconds = tuning.negative_ttl_seconds;
            let changed = tuned != **origin;
            if changed {
                *origin = Arc::new(tuned);
            }
            changed
        });
        Ok(())
    }

    /// Waits until all threads and tasks have ended, which they do after the token given to
    /// [`start`] is cancelled. Sockets are left by the kernel's choice first, for another process on
    /// the same port if there is one; then queries that had arrived are answered, those at upstreams
    /// included, and TCP connections are served until they are idle for a moment.
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

/// Keeps the zone at the newest snapshot and settings.
struct Follower {
    zone: Arc<ArcSwap<Zone>>,
    snapshots: Snapshots,
    origins: watch::Receiver<Arc<Origin>>,
    announce: watch::Sender<Option<u64>>,
}

impl Follower {
    /// Until the store is gone: its last word stands until the end.
    async fn run(mut self) {
        self.snapshots.mark_changed();
        // Settings go with whoever may change them; snapshots then go on alone.
        let mut tunable = true;
        loop {
            tokio::select! {
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.origins.changed(), if tunable => tunable = changed.is_ok(),
            }
            self.update().await;
        }
    }

    async fn update(&mut self) {
        let newest: Option<Arc<Snapshot>> = self.snapshots.borrow_and_update().clone();
        let origin = self.origins.borrow_and_update().clone();
        let old = self.zone.load_full();
        let is_synced = old.revision().is_some();
        // A first snapshot is tens of milliseconds of work, too long for a runtime thread.
        let update = tokio::task::spawn_blocking(move || {
            let serial = serial();
            let base = if Arc::ptr_eq(old.origin(), &origin) {
                old
            } else {
                Arc::new(Zone::unsynced(origin, serial))
            };
            newest.map_or(base.clone(), |snapshot| Arc::new(base.updated(&snapshot, serial)))
        });
        match update.await {
            Ok(updated) => {
                let revision = updated.revision();
                if !is_synced && revision.is_some() {
                    tracing::info!(services = updated.service_count(), "DNS: names are in sync");
                }
                self.zone.store(updated);
                self.announce.send_replace(revision);
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
