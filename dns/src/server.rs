//! Starts the threads and tasks, ends everything in order.

mod follow;

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

use self::follow::{Orders, Renewal, Serving, follow};
use crate::{
    clients::{Rate, Seats},
    config::{DnsConfig, THREADS_MAX},
    counters::{Counts, Ledgers, RCODES, Registry, SiteCounts, Way},
    error::DnsError,
    explain::Explainer,
    fast::Worker,
    listen::{Listener, is_shared, listen, retire},
    policy::Policy,
    programming::Programming,
    slow::SlowPath,
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
    ledgers: Ledgers,
    programming: Arc<Programming>,
    revisions: watch::Receiver<Option<u64>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    tasks: TaskTracker,
    policy: Arc<ArcSwap<Policy>>,
    zone: Arc<ArcSwap<Zone>>,
    /// Where each group of server blocks was asked to listen.
    listening: Vec<Vec<SocketAddr>>,
    renew: watch::Sender<Option<Arc<Renewal>>>,
    stand_in: watch::Sender<Option<Arc<Snapshot>>>,
}

/// Whether an earlier process, still at work, shares its port with a later one. The later one should
/// have a snapshot before it starts: from then on it gets a part of the queries.
pub fn has_predecessor(config: &DnsConfig) -> bool {
    config.listening().iter().flatten().flatten().any(|address| is_shared(*address))
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
    let origin = origin(config)?;
    let mut first = Zone::unsynced(origin, serial());
    if let Some(snapshot) = &*snapshots.borrow() {
        first = first.updated(snapshot, serial());
    }
    let threads = config.threads.unwrap_or_else(default_threads);
    let listening = config.listening()?;
    let listeners = listen_groups(&listening, threads)?;
    let addresses: Vec<_> = listeners.iter().map(|(_, listener)| listener.address).collect();

    let zone = Arc::new(ArcSwap::from_pointee(first));
    let tasks = TaskTracker::new();
    let workers = listeners.iter().flat_map(|(_, listener)| {
        let way = Way { tcp: false, ipv6: listener.address.is_ipv6() };
        listener.udp.iter().map(move |_| way)
    });
    let ledgers = Ledgers::new(workers);
    let policy = Policy::new(&config.in_force(), &addresses, &ledgers)?;
    policy.watch_loops();
    let policy = Arc::new(ArcSwap::from_pointee(policy));
    let slow = SlowPath::new(runtime.clone(), tasks.clone(), policy.clone(), zone.clone());
    let counters = Registry::default();
    let rate = config.client_rate.map(|rate| Arc::new(Rate::new(rate)));
    let server = Server {
        group: 0,
        policy: policy.clone(),
        zone: zone.clone(),
        slow: slow.clone(),
        counters: Arc::default(),
        tasks: tasks.clone(),
        connections: Arc::new(Semaphore::new(tcp::CONNECTIONS_MAX)),
        clients: Seats::new(tcp::CONNECTIONS_EACH_MAX),
        rate: rate.clone(),
        cancel: cancel.clone(),
    };
    let mut workers = vec![];
    let stopping = Arc::new(AtomicBool::new(false));
    let mut sockets = vec![];
    for (group, listener) in listeners {
        let failed = |source| DnsError::Listen {
            address: listener.address,
            transport: "TCP",
            cure: "start within a runtime that has I/O enabled",
            source,
        };
        let tcp = TcpListener::from_std(listener.tcp).map_err(failed)?;
        let ipv6 = listener.address.is_ipv6();
        let of_tcp = counters.add(Way { tcp: true, ipv6 }, None);
        tasks.spawn(Server { group, counters: of_tcp, ..server.clone() }.run(tcp));
        for socket in listener.udp {
            let socket = Arc::new(socket);
            let worker = Worker {
                socket: socket.clone(),
                group,
                policy: policy.clone(),
                zone: zone.clone(),
                slow: slow.clone(),
                counters: counters.add(Way { tcp: false, ipv6 }, Some(workers.len())),
                rate: rate.clone(),
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
    let (renew, renewals) = watch::channel(None);
    let stand_in = watch::Sender::new(None);
    let orders = Orders { renewals, stand_ins: stand_in.clone() };
    let programming = Arc::<Programming>::default();
    let serving =
        Serving { zone: zone.clone(), policy: policy.clone(), programming: programming.clone() };
    tasks.spawn(follow(serving, snapshots, orders, announce, cancel.clone()));
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
    Ok(Running {
        addresses,
        counters,
        ledgers,
        programming,
        revisions,
        threads,
        tasks,
        policy,
        zone,
        listening,
        renew,
        stand_in,
    })
}

impl Running {
    /// Addresses answered on, UDP and TCP, with the ports the kernel chose for 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Explains by the settings and names in force now.
    pub fn explainer(&self) -> Explainer {
        Explainer::of(self.policy.load_full(), self.zone.load_full())
    }

    /// How many Services have names.
    pub fn service_count(&self) -> usize {
        self.zone.load().service_count()
    }

    /// What was asked, answered and dropped since the start.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counters.sum();
        let policy = self.policy.load();
        counts.sites = self.ledgers.sum();
        counts.caches = policy.caches(&counts.sites);
        counts.forwards = policy.forwards();
        counts.enabled = policy.enabled();
        counts.hosts = policy.hosts();
        counts.programming = self.programming.report();
        for code in 0..RCODES {
            let by_code = |site: &SiteCounts| {
                site.replies.iter().filter_map(|all| all.get(code)).sum::<u64>()
            };
            if let Some(sum) = counts.replies.get_mut(code) {
                *sum = counts.sites.iter().map(by_code).sum();
            }
        }
        counts
    }

    /// Takes other settings into force without closing a socket: answers given meanwhile are those
    /// of the old settings or of the new. What fails leaves the old ones.
    ///
    /// # Errors
    /// [`DnsError::Restart`] when the new settings listen elsewhere.
    pub fn renew(&self, config: &DnsConfig) -> Result<(), DnsError> {
        if config.listening()? != self.listening {
            return Err(DnsError::Restart);
        }
        let origin = origin(config)?;
        let corefile = config.in_force();
        let policy = Arc::new(Policy::new(&corefile, &self.addresses, &self.ledgers)?);
        self.renew.send_replace(Some(Arc::new(Renewal { policy, origin })));
        Ok(())
    }

    /// Answers by a snapshot of an earlier run for as long as there is no new one. Readiness and
    /// [`Running::revision`] stay as they are: nobody knows how old its names are.
    pub fn stand_in(&self, kept: Arc<Snapshot>) {
        self.stand_in.send_replace(Some(kept));
    }

    /// What was given to [`Running::stand_in`], as long as there is no snapshot of this run: whoever takes
    /// this server's place needs it, too.
    pub fn standing_in(&self) -> Option<Arc<Snapshot>> {
        self.stand_in.borrow().clone()
    }

    /// Whether names of an earlier run are being answered.
    pub fn stands_in(&self) -> bool {
        self.zone.load().is_stand_in()
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

pub(crate) fn origin(config: &DnsConfig) -> Result<Arc<Origin>, DnsError> {
    let options = config.in_force().kubernetes().unwrap_or_default();
    Origin::new(&options, config.negative_ttl_seconds).map(Arc::new)
}

fn listen_groups(
    groups: &[Vec<SocketAddr>],
    threads: usize,
) -> Result<Vec<(usize, Listener)>, DnsError> {
    let mut all = vec![];
    for (group, addresses) in groups.iter().enumerate() {
        all.extend(listen_all(addresses, threads)?.into_iter().map(|listener| (group, listener)));
    }
    Ok(all)
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
