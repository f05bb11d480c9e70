//! Starts the role and holds on to it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use arc_swap::ArcSwap;
use fairlead_state::{Key, store::Snapshots};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    access_log,
    config::{HolderOf, IngressConfig},
    counters::{Counters, Meter, ThreadCounters},
    error::IngressError,
    explain::Explainer,
    names::{self, Asker},
    routes::{Finding, Planner, RouteRow, Routes, StreamPort, Streams},
    series::RouteCounters,
    serve::{self, Addresses, Crew, HttpsPort, Life, Readiness, Shared},
    streams::{self, AllUnbound, Unbound},
    timer,
    tls::{Expiry, Fallback, Handshakes, Resolver},
    traces,
};

const CLOCK_THREAD: &str = "ingress-clock";

/// The role, running. Dropping it ends it.
#[derive(Debug)]
pub struct Running {
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    ready: watch::Receiver<bool>,
    revision: watch::Receiver<u64>,
    counters: Meter,
    planner: Arc<Mutex<Planner>>,
    resolver: Arc<Resolver>,
    threads: Vec<Thread>,
    cancel: CancellationToken,
}

/// What is served, and what of it is not.
#[derive(Clone, Debug)]
pub struct Status {
    /// Revision of the snapshot in force; 0 before the first.
    pub revision: u64,
    /// Hosts, wildcards and the catch-all included.
    pub hosts: usize,
    /// Paths and default backends.
    pub routes: usize,
    /// Names with a certificate of their own.
    pub certificates: usize,
    /// What is refused, differs or waits, sorted by object.
    pub findings: Vec<Finding>,
}

#[derive(Debug)]
struct Thread {
    name: String,
    /// Cancelled when the thread ended, in whatever way.
    ended: CancellationToken,
    handle: JoinHandle<std::io::Result<()>>,
}

/// What the planning thread writes to.
struct Outlets {
    planner: Arc<Mutex<Planner>>,
    routes: Arc<ArcSwap<Routes>>,
    resolver: Arc<Resolver>,
    handshakes: Arc<ArcSwap<Handshakes>>,
    settings: Arc<ArcSwap<IngressConfig>>,
    streams: watch::Sender<Arc<Streams>>,
    /// Ports of theirs that cannot be listened on.
    unbound: watch::Receiver<AllUnbound>,
    holder_of: HolderOf,
    /// Routes are known, and where names outside lead: data threads may listen.
    go: watch::Sender<bool>,
    revision: watch::Sender<u64>,
}

/// Takes the addresses and starts the threads. Serving begins with the first snapshot, when the names
/// outside that it leads to were looked up.
///
/// Cancelling `cancel` drains: nothing new is accepted, what is open may finish within the drain
/// time. It becomes the role's own and is cancelled when [`Running`] is dropped: give it a child
/// token.
///
/// # Errors
/// If an address cannot be taken, or a thread or TLS cannot be set up.
pub fn start(
    config: IngressConfig,
    snapshots: Snapshots,
    cancel: CancellationToken,
) -> Result<Running, IngressError> {
    let threads = config.thread_count();
    let bound = serve::bind(&config, threads)?;
    let planner = Planner::new(&config, Fallback::generate()?);
    let routes = Arc::new(ArcSwap::default());
    let resolver = Arc::new(Resolver::new(planner.certificates().clone(), routes.clone()));
    let config = Arc::new(config);
    let config_has_streams = config.tcp_services.is_some() || config.udp_services.is_some();
    let in_force = Arc::new(ArcSwap::new(config.clone()));
    let (log, blocks) = access_log::queue();
    let (traces, spans) = traces::queue();
    let (timer, time_keeper) = timer::timer()
        .map_err(|source| IngressError::Thread { name: CLOCK_THREAD.to_owned(), source })?;
    let handshakes = Handshakes::new(&resolver, config.tls)?;
    let handshakes = Arc::new(ArcSwap::from_pointee(handshakes));
    let settings = in_force.clone();
    let addresses = config.limits.client_connections_max.map(Addresses::new);
    let shared = Arc::new(Shared {
        tls: handshakes.clone(),
        routes: routes.clone(),
        https: bound.https.first().map(|first| HttpsPort {
            listen: first.port(),
            outside: config.https_redirect_port.unwrap_or(first.port()),
        }),
        threads,
        crew: Crew::new(threads),
        addresses: addresses.clone(),
        headerless: Addresses::headerless(config.limits.connections_max),
        traces,
        timer: timer.clone(),
        config: in_force,
    });
    let (go, may_go) = watch::channel(false);
    let (readiness, ready) = Readiness::new(threads, &cancel);
    let (revision, revision_in_force) = watch::channel(0);
    let planner = Arc::new(Mutex::new(planner));
    let mut running = Running {
        http: bound.http,
        https: bound.https,
        ready,
        revision: revision_in_force,
        counters: Meter::default(),
        planner: planner.clone(),
        resolver: resolver.clone(),
        threads: Vec::new(),
        cancel,
    };
    for (index, listeners) in bound.threads.into_iter().enumerate() {
        let counters = Arc::new(ThreadCounters::new());
        running.counters.threads.push(counters.clone());
        let life = Life {
            go: may_go.clone(),
            readiness: readiness.clone(),
            cancel: running.cancel.clone(),
        };
        let (shared, log) = (shared.clone(), log.clone());
        running.spawn(format!("ingress-{index}"), move || {
            serve::run(index, shared, counters, listeners, log, life)
        })?;
    }
    running.spawn(CLOCK_THREAD.to_owned(), move || {
        time_keeper.run();
        Ok(())
    })?;
    // Those who serve these end with the last of the data threads.
    drop((log, shared));
    let (lost, in_force) = (running.counters.traces_lost.clone(), settings.clone());
    running.spawn("ingress-traces".to_owned(), move || traces::export(spans, &in_force, &lost))?;
    let lost = running.counters.log_lost.clone();
    running.spawn("ingress-log".to_owned(), move || {
        access_log::write(&blocks, &lost);
        Ok(())
    })?;
    let (streams, wanted_streams) = watch::channel(Arc::default());
    let (missing, unbound) = watch::channel(AllUnbound::new());
    if config_has_streams {
        let counters = Arc::new(ThreadCounters::new());
        running.counters.threads.push(counters.clone());
        let (settings, cancel) = (settings.clone(), running.cancel.clone());
        running.spawn("ingress-streams".to_owned(), move || {
            streams::run(settings, counters, (timer, addresses), wanted_streams, &missing, &cancel)
        })?;
    }
    let external_names_allowed = !settings.load().external_names.is_empty();
    let (looked_up, names_known) = watch::channel(!external_names_allowed);
    if external_names_allowed {
        let asker = Asker {
            planner: planner.clone(),
            snapshots: snapshots.clone(),
            node: settings.load().node_name.as_ref().map(|name| Key::new("", name.clone())),
            is_node_expected: settings.load().is_node_expected,
            planned: revision.subscribe(),
            looked_up,
        };
        let cancel = running.cancel.clone();
        running.spawn("ingress-names".to_owned(), move || names::run(asker, &cancel))?;
    }
    let holder_of = settings.load().holder_of;
    let outlets = Outlets {
        planner,
        routes,
        resolver,
        handshakes,
        settings,
        streams,
        unbound,
        holder_of,
        go,
        revision,
    };
    let cancel = running.cancel.clone();
    running.spawn("ingress-plan".to_owned(), move || {
        plan(&outlets, snapshots, names_known, &cancel)
    })?;
    Ok(running)
}

fn plan(
    outlets: &Outlets,
    mut snapshots: Snapshots,
    names_known: watch::Receiver<bool>,
    cancel: &CancellationToken,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let following = async {
        snapshots.mark_changed();
        // An error means that the source is gone: the last snapshot stays in force.
        while snapshots.changed().await.is_ok() {
            let newest = snapshots.borrow_and_update().clone();
            if let Some(snapshot) = newest {
                outlets.put_in_force(&snapshot);
            }
        }
        std::future::pending::<()>().await;
    };
    runtime.block_on(cancel.run_until_cancelled(async {
        tokio::join!(following, outlets.open(names_known), outlets.tell_unbound())
    }));
    Ok(())
}

impl Outlets {
    fn put_in_force(&self, snapshot: &fairlead_state::Snapshot) {
        let begun = Instant::now();
        let mut planner = lock(&self.planner);
        let known = planner.revision();
        let planned = planner.apply(snapshot);
        if planned.settings {
            self.put_settings(planner.config());
        }
        // Certificates first: a new host's first handshake finds its own.
        if planned.certificates {
            self.resolver.replace(planner.certificates().clone());
        }
        if planned.routes {
            self.routes.store(Arc::new(planner.routes().clone()));
        }
        if planned.streams && *self.go.borrow() {
            self.streams.send_replace(planner.streams().clone());
        }
        drop(planner);
        self.revision.send_replace(snapshot.revision());
        // Endpoints are not among it: they come and go.
        if planned.settings || planned.certificates || planned.routes || planned.streams {
            let (revision, elapsed) = (snapshot.revision(), begun.elapsed());
            let changed = snapshot.changes_since(known);
            tracing::info!(revision, %changed, ?elapsed, "Ingress: in force");
        }
    }

    /// Serving begins with routes that lead somewhere: whoever served before goes on until then.
    async fn open(&self, mut names_known: watch::Receiver<bool>) {
        let mut planned = self.revision.subscribe();
        // They fail if nobody can say it any more; why not is that thread's to tell.
        let _ = planned.wait_for(|revision| *revision > 0).await;
        let _ = names_known.wait_for(|known| *known).await;
        self.streams.send_replace(lock(&self.planner).streams().clone());
        self.go.send_replace(true);
    }

    /// Whoever wrote an entry learns that its port waits, and for whom; and that it no longer does.
    async fn tell_unbound(&self) {
        let mut unbound = self.unbound.clone();
        // It fails where there are no such ports.
        while unbound.changed().await.is_ok() {
            let missing = unbound.borrow_and_update().clone();
            let why = |(port, unbound)| (port, self.why_unbound(port, &unbound));
            let missing: BTreeMap<StreamPort, Arc<str>> = missing.into_iter().map(why).collect();
            lock(&self.planner).learn_unbound(missing);
        }
    }

    fn why_unbound(&self, port: StreamPort, unbound: &Unbound) -> Arc<str> {
        let Unbound { address, reason, is_taken } = unbound;
        let kind = if port.udp { "UDP" } else { "TCP" };
        let holder = is_taken.then(|| (self.holder_of)(*address, port.udp)).flatten();
        let cure = match (is_taken, holder) {
            (true, Some(holder)) => {
                format!("the port is held by {holder}: stop that, or take another port")
            }
            (true, None) => "stop what holds it, or take another port".to_owned(),
            (false, _) => "it is tried again".to_owned(),
        };
        format!("{kind} {address} cannot be listened on: {reason}; {cure}").into()
    }

    fn put_settings(&self, config: &Arc<IngressConfig>) {
        self.settings.store(config.clone());
        if self.handshakes.load().settings == config.tls {
            return;
        }
        match Handshakes::new(&self.resolver, config.tls) {
            Ok(handshakes) => self.handshakes.store(Arc::new(handshakes)),
            Err(error) => tracing::error!("{error}; handshakes go on as before"),
        }
    }
}

impl Running {
    fn spawn(
        &mut self,
        name: String,
        body: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), IngressError> {
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let spawned = thread::Builder::new().name(name.clone()).spawn(move || {
            let _guard = guard;
            body()
        });
        let handle =
            spawned.map_err(|source| IngressError::Thread { name: name.clone(), source })?;
        self.threads.push(Thread { name, ended, handle });
        Ok(())
    }

    /// Where plain HTTP is served, ports as taken.
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Where HTTPS is served, ports as taken.
    pub fn https(&self) -> &[SocketAddr] {
        &self.https
    }

    /// True once all threads listen, after the first snapshot and the first look-ups of names outside; false
    /// again when draining begins.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Revision of the snapshot in force; 0 before the first.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }

    /// Sums of all threads.
    pub fn counters(&self) -> Counters {
        self.counters.read()
    }

    /// As [`Running::counters`], for a metrics page that is not tied to the borrow.
    pub fn meter(&self) -> impl Fn() -> Counters + Send + Sync + use<> {
        let counters = self.counters.clone();
        move || counters.read()
    }

    /// What each route served, for a metrics page that is not tied to the borrow.
    pub fn route_meter(&self) -> impl Fn() -> Vec<RouteCounters> + Send + Sync + use<> {
        let register = lock(&self.planner).register().clone();
        move || register.read()
    }

    /// When the certificates in force end, for a metrics page that is not tied to the borrow.
    pub fn expiry_meter(&self) -> impl Fn() -> Vec<Expiry> + Send + Sync + use<> {
        let resolver = self.resolver.clone();
        move || resolver.expiries()
    }

    /// Explains what is in force; usable for longer than the borrow.
    pub fn explainer(&self) -> Explainer {
        Explainer::of(self.planner.clone())
    }

    /// What is in force. Costs a walk over all routes.
    pub fn status(&self) -> Status {
        let planner = lock(&self.planner);
        Status {
            revision: planner.revision(),
            hosts: planner.routes().host_count(),
            routes: planner.routes().route_count(),
            certificates: planner.certificates().len(),
            findings: planner.findings(),
        }
    }

    /// All routes, sorted by host and path.
    pub fn routes(&self) -> Vec<RouteRow> {
        // Cloned out, so that planning does not wait for whoever prints.
        let routes = lock(&self.planner).routes().clone();
        routes.rows()
    }

    /// Waits until every thread ended: after cancelling, when all is drained.
    ///
    /// # Errors
    /// As soon as one thread ends by a panic or an error; the others are drained then.
    pub async fn ended(&mut self) -> Result<(), IngressError> {
        let threads = std::mem::take(&mut self.threads);
        let mut ending: FuturesUnordered<_> = threads.into_iter().map(Thread::ended).collect();
        while let Some(outcome) = ending.next().await {
            if outcome.is_err() {
                self.cancel.cancel();
            }
            outcome?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Thread {
    async fn ended(self) -> Result<(), IngressError> {
        self.ended.cancelled().await;
        match self.handle.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(IngressError::Thread { name: self.name, source }),
            Err(_) => Err(IngressError::BrokeDown(self.name)),
        }
    }
}

/// A planner that panicked is as good as its last finished step; its thread's end is reported.
fn lock(planner: &Mutex<Planner>) -> MutexGuard<'_, Planner> {
    planner.lock().unwrap_or_else(PoisonError::into_inner)
}
