//! A data thread for tests: nobody connects to it, and its time passes when a test says so.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Wake,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::sleep;

use super::{
    Addresses, Shared, client::Client, clock::Clock, crew::Crew, preamble::Ends, worker::Worker,
};
use crate::{
    access_log,
    config::{IngressConfig, Timeouts},
    counters::ThreadCounters,
    routes::Planner,
    timer::timer,
    tls::{Fallback, Handshakes, Resolver},
    traces,
};

/// Nothing in a test takes this long unless it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// How often somebody was woken.
#[derive(Default)]
pub(super) struct Woken(AtomicUsize);

impl Woken {
    pub(super) fn times(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A client of a thread of its own.
pub(super) fn client(timeouts: Timeouts) -> Rc<Client> {
    let config = IngressConfig { timeouts, threads: Some(1), ..IngressConfig::default() };
    let planner = Planner::new(&config, Fallback::generate().unwrap());
    let resolver = Arc::new(Resolver::new(planner.certificates().clone(), Arc::default()));
    let handshakes = Handshakes::new(&resolver, config.tls).unwrap();
    let (timer, keeper) = timer().unwrap();
    // Ends with the timer.
    std::thread::spawn(move || keeper.run());
    let shared = Shared {
        tls: Arc::new(ArcSwap::from_pointee(handshakes)),
        routes: Arc::default(),
        https: None,
        threads: 1,
        crew: Crew::new(1),
        addresses: None,
        headerless: Addresses::headerless(config.limits.connections_max),
        traces: traces::queue().0,
        timer,
        config: Arc::new(ArcSwap::from_pointee(config)),
    };
    let counters = Arc::new(ThreadCounters::new());
    let worker = Rc::new(Worker::new(0, Arc::new(shared), counters, access_log::queue().0));
    let ends = Ends { client: SocketAddr::from(([192, 0, 2, 7], 1_024)), balancer: None, port: 80 };
    Client::new(worker.open().unwrap(), ends, false)
}

/// Time passes, a tick at a time.
pub(super) async fn pass(clock: &Clock, ticks: usize) {
    for _ in 0..ticks {
        sleep(clock.tick_interval()).await;
        clock.tick();
    }
}

/// The same where nobody needs it: no test waits for it.
pub(super) fn pass_at_once(clock: &Clock, ticks: usize) {
    let tick_ms = u64::try_from(clock.tick_interval().as_millis()).unwrap();
    for _ in 0..ticks {
        clock.tick_at(clock.now_ms() + tick_ms);
    }
}
