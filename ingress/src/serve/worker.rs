//! One data thread: its state, its life from first snapshot to drained.

use std::{
    cell::{Cell, RefCell},
    io,
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Cache};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, watch},
    task::spawn_local,
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, accept,
    addresses::{Addresses, Seat},
    buffer::Budget,
    clock::Clock,
    listen::{Listener, Listening},
    mirror::Shares,
    pool::Pool,
    splice::Pipes,
};
use crate::{
    access_log::{Lines, Queue},
    config::IngressConfig,
    counters::{Refused, ThreadCounters},
    routes::Routes,
};

/// What all threads keep of bodies that may have to be sent again, in bytes. Where there is no room one
/// is sent once.
const REPEATED_BYTES_MAX: usize = 32 << 20;

/// How far a thread is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Not on its way.
    Serving,
    /// What is answered is the last of its connection. New ones are accepted until others have
    /// taken over; idle HTTP/1 connections may bring one more request.
    Draining,
    /// Idle connections are closed.
    Closing,
}

/// Everything the connections of one thread share. Never leaves its thread.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Its number among the data threads.
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Arc<ThreadCounters>,
    pub(crate) routes: RefCell<Cache<Arc<ArcSwap<Routes>>, Arc<Routes>>>,
    pub(crate) pool: Pool,
    /// For bodies that are held.
    pub(crate) buffers: Budget,
    /// What is kept of bodies that may have to be sent again.
    pub(crate) repeats: Budget,
    /// For copies: a mirror that is slow takes nobody else's room.
    pub(crate) copied: Shares,
    pub(crate) pipes: Pipes,
    pub(crate) lines: Lines,
    settings: RefCell<Settings>,
    pub(crate) clock: Clock,
    pub(crate) stage: Cell<Stage>,
    pub(crate) connections_max: usize,
    one_closed: Notify,
}

/// The settings in force, in this thread's own copy: who takes a reference to it touches nothing
/// that other threads touch.
#[derive(Debug)]
struct Settings {
    newest: Cache<Arc<ArcSwap<IngressConfig>>, Arc<IngressConfig>>,
    copied: Arc<IngressConfig>,
    own: Rc<IngressConfig>,
}

impl Settings {
    fn new(shared: &Arc<ArcSwap<IngressConfig>>) -> Self {
        let copied = shared.load_full();
        let own = Rc::new((*copied).clone());
        Self { newest: Cache::new(shared.clone()), copied, own }
    }

    fn in_force(&mut self) -> Rc<IngressConfig> {
        let newest = self.newest.load();
        if !Arc::ptr_eq(newest, &self.copied) {
            self.own = Rc::new((**newest).clone());
            self.copied = newest.clone();
        }
        self.own.clone()
    }
}

/// Counts one open connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct Open {
    worker: Rc<Worker>,
    /// Among those of its client's address.
    seat: Option<Seat>,
}

/// When a data thread begins, and when it ends.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// True once routes are known.
    pub(crate) go: watch::Receiver<bool>,
    pub(crate) readiness: Readiness,
    pub(crate) cancel: CancellationToken,
}

/// Ready is when all threads listen and none is on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    waiting_for: Arc<AtomicUsize>,
    ready: Arc<watch::Sender<bool>>,
    cancel: CancellationToken,
}

impl Readiness {
    pub(crate) fn new(threads: usize, cancel: &CancellationToken) -> (Self, watch::Receiver<bool>) {
        let (ready, is_ready) = watch::channel(false);
        let waiting_for = Arc::new(AtomicUsize::new(threads));
        (Self { waiting_for, ready: Arc::new(ready), cancel: cancel.clone() }, is_ready)
    }

    /// The thread that comes last runs `all_here` before anybody is told.
    fn reached(&self, all_here: impl FnOnce()) {
        if self.waiting_for.fetch_sub(1, Ordering::AcqRel) == 1 {
            all_here();
            self.ready.send_replace(!self.cancel.is_cancelled());
        }
    }

    fn lost(&self) {
        self.ready.send_if_modified(|ready| std::mem::replace(ready, false));
    }
}

/// Runs one data thread until it is drained.
///
/// # Errors
/// If the runtime cannot be made or a socket will not listen.
pub(crate) fn run(
    index: usize,
    shared: Arc<Shared>,
    counters: Arc<ThreadCounters>,
    listeners: Vec<Listener>,
    log: Queue,
    life: Life,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build_local(LocalOptions::default())?;
    let worker = Rc::new(Worker::new(index, shared, counters, log));
    let outcome = runtime.block_on(worker.clone().live(listeners, life));
    // Requests that are cut end here, and so do their lines. Look-ups and hashes cannot be given up; nobody waits
    // for them.
    runtime.shutdown_background();
    worker.lines.flush(&worker.counters);
    outcome
}

impl Worker {
    pub(super) fn new(
        index: usize,
        shared: Arc<Shared>,
        counters: Arc<ThreadCounters>,
        log: Queue,
    ) -> Self {
        let config = shared.config.load();
        let limits = &config.limits;
        Self {
            index,
            routes: RefCell::new(Cache::new(shared.routes.clone())),
            pool: Pool::new(index),
            buffers: Budget::new(limits.buffered_bytes_max / shared.threads),
            repeats: Budget::new(REPEATED_BYTES_MAX / shared.threads),
            copied: Shares::new(limits.copied_bytes_max / shared.threads),
            pipes: Pipes::default(),
            lines: Lines::new(log),
            settings: RefCell::new(Settings::new(&shared.config)),
            clock: Clock::new(config.timeouts.shortest_ms()),
            stage: Cell::new(Stage::Serving),
            connections_max: limits.connections_max.div_ceil(shared.threads),
            one_closed: Notify::new(),
            counters,
            shared,
        }
    }

    async fn live(self: Rc<Self>, listeners: Vec<Listener>, life: Life) -> io::Result<()> {
        let Life { mut go, readiness, cancel } = life;
        tokio::select! {
            routes_known = go.wait_for(|go| *go) => if routes_known.is_err() { return Ok(()) },
            () = cancel.cancelled() => return Ok(()),
        }
        let ticking = spawn_local(tick(self.clone()));
        let leave = CancellationToken::new();
        let inbox = self.shared.crew.joins(self.index);
        let taking = spawn_local(accept::take_over(self.clone(), inbox, leave.clone()));
        let listening: Vec<Listening> =
            listeners.into_iter().map(Listener::listen).collect::<io::Result<_>>()?;
        let accepting = listening.iter().map(|listening| {
            spawn_local(accept::run(self.clone(), listening.clone(), leave.clone()))
        });
        let accepting: Vec<_> = accepting.chain([taking]).collect();
        readiness.reached(|| {
            for Listening { socket, group, .. } in &listening {
                group.arrive(&**socket);
            }
        });
        // Each task closes its socket.
        drop(listening);
        cancel.cancelled().await;
        readiness.lost();
        let start = Instant::now();
        self.enter(Stage::Draining);
        self.shared.timer.sleep(self.config().timeouts.drain_accept()).await;
        leave.cancel();
        for task in accepting {
            // Each ends once it has taken what the kernel, or another thread, still held for it.
            let _ = task.await;
        }
        self.drain(start).await;
        ticking.abort();
        Ok(())
    }

    async fn drain(&self, start: Instant) {
        let config = self.config();
        let (timeouts, timer) = (&config.timeouts, &self.shared.timer);
        if timer.timeout(timeouts.drain_linger(), self.all_closed()).await.is_some() {
            return;
        }
        self.enter(Stage::Closing);
        let left = Duration::from_millis(timeouts.drain_ms).saturating_sub(start.elapsed());
        if timer.timeout(left, self.all_closed()).await.is_none() {
            tracing::warn!(
                open = self.open_count(),
                "connections cut: still open after the drain time"
            );
        }
    }

    /// The settings in force. What began with some goes on with them.
    pub(crate) fn config(&self) -> Rc<IngressConfig> {
        self.settings.borrow_mut().in_force()
    }

    fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.clock.wake_all();
    }

    async fn all_closed(&self) {
        while self.open_count() > 0 {
            self.one_closed.notified().await;
        }
    }

    /// Counts a connection; `None` above the limit.
    pub(crate) fn open(self: &Rc<Self>) -> Option<Open> {
        if self.open_count() >= self.connections_max {
            return None;
        }
        self.shared.crew.opened(self.index);
        self.counters.connections.add();
        Some(Open { worker: self.clone(), seat: None })
    }

    fn open_count(&self) -> usize {
        self.shared.crew.open(self.index)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.stage.get() >= Stage::Draining
    }
}

impl Open {
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Counts it as one of this client's. `None`, and counted as refused: that one has all it may have.
    pub(super) fn of(mut self, client: IpAddr) -> Option<Self> {
        let addresses = self.worker.shared.addresses.as_ref();
        let Ok(seat) = Addresses::seat(addresses, &self.worker.config(), client) else {
            self.worker.counters.refused(Refused::ClientConnectionLimit);
            return None;
        };
        self.seat = seat;
        Some(self)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.shared.crew.closed(self.worker.index);
        self.worker.counters.connections_closed.add();
        self.worker.one_closed.notify_one();
    }
}

async fn tick(worker: Rc<Worker>) {
    loop {
        worker.clock.tick();
        let idle_ms = worker.config().timeouts.upstream_idle_ms;
        worker.pool.sweep(worker.clock.now_ms(), idle_ms);
        worker.lines.flush(&worker.counters);
        // A thread without requests must not hold on to old routes.
        worker.routes.borrow_mut().load();
        worker.shared.timer.sleep(worker.clock.tick_interval()).await;
    }
}
