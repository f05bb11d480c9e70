//! Starts the threads and tasks, keeps the zone up to date, ends everything in order.

use std::{
    net::{Shutdown, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use fairlead_state::{Snapshot, store::Snapshots};
use socket2::SockRef;
use tokio::{net::TcpListener, runtime::Handle, sync::Semaphore};
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
    zone: Arc<ArcSwap<Zone>>,
    threads: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
}

/// Starts answering at once: before the first snapshot names of the cluster are SERVFAIL, others are forwarded.
///
/// Must be called within a tokio runtime, which gets the slow path, TCP and zone updates; UDP has threads of its own.
///
/// # Errors
/// When an address cannot be listened on or the configuration names something that is no domain.
pub fn start(
    config: &DnsConfig,
    snapshots: Snapshots,
    cancel: CancellationToken,
) -> Result<Running, DnsError> {
    let runtime = Handle::try_current().map_err(|_| DnsError::NoRuntime)?;
    if config.listen.is_empty() {
        return Err(DnsError::NoAddress);
    }
    let origin = Arc::new(Origin::new(config)?);
    let threads = config.threads.unwrap_or_else(default_threads);
    let listeners = config.listen.iter().map(|address| listen(*address, threads));
    let listeners = listeners.collect::<Result<Vec<Listener>, _>>()?;
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
    let mut running = Running { addresses, counters, zone, threads: vec![], tasks };
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
        running.tasks.spawn(server.clone().run(tcp));
        for socket in listener.udp {
            let socket = Arc::new(socket);
            let worker = Worker {
                socket: socket.clone(),
                zone: running.zone.clone(),
                slow: slow.clone(),
                counters: running.counters.add(),
                stopping: stopping.clone(),
            };
            // Pushed first: if a later thread cannot be started, the earlier ones must end.
            sockets.push(socket);
            let name = format!("dns-udp-{}", running.threads.len());
            match thread::Builder::new().name(name).spawn(move || worker.run()) {
                Ok(thread) => running.threads.push(thread),
                Err(error) => {
                    cancel.cancel();
                    stop(&stopping, &sockets);
                    return Err(DnsError::Thread(error));
                }
            }
        }
    }
    running.tasks.spawn(follow(running.zone.clone(), snapshots, cancel.clone()));
    running.tasks.spawn(async move {
        cancel.cancelled().await;
        stop(&stopping, &sockets);
    });
    running.tasks.close();
    tracing::info!(addresses = ?running.addresses, threads = running.threads.len(), "DNS: answering");
    Ok(running)
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
        self.zone.load().revision()
    }

    /// Waits until all threads and tasks have ended, which they do after the token given to [`start`] is cancelled:
    /// queries that had arrived are answered, those at upstreams included.
    pub async fn join(self) {
        self.tasks.wait().await;
        // They were woken when the token was cancelled; a thread to wait in keeps the runtime free.
        let threads = self.threads;
        let joining = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A panic was caught and reported within the thread.
                let _ = thread.join();
            }
        });
        let _ = joining.await;
    }
}

/// Keeps the zone at the newest snapshot.
async fn follow(zone: Arc<ArcSwap<Zone>>, mut snapshots: Snapshots, cancel: CancellationToken) {
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
                zone.store(Arc::new(updated));
            }
            Err(error) => tracing::error!("DNS: names were not updated: {error}"),
        }
    }
}

/// Wakes every UDP thread and tells it to end.
fn stop(stopping: &AtomicBool, sockets: &[Arc<UdpSocket>]) {
    stopping.store(true, Ordering::Relaxed);
    for socket in sockets {
        // On an unconnected socket Linux says ENOTCONN and wakes its receivers all the same; if not, they look up
        // when their receive timeout ends.
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
