//! What clients saw.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use super::upstreams::LETTERS;
use crate::support::world::comes_true;

/// Failures that are shown of each kind.
const SHOWN: usize = 5;

/// Kinds of traffic, as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// Requests over kept connections, HTTP/1.
    Kept,
    /// The same over HTTP/2 and TLS.
    Streams,
    /// Handshakes, with a request each.
    Handshakes,
    /// Calls of one message, with trailers.
    Calls,
    /// Messages of WebSockets that came back.
    WebSockets,
    /// Messages of streams of calls that came back, and trailers of those that ended.
    GrpcStreams,
}

const ALL: [What; 6] =
    [What::Kept, What::Streams, What::Handshakes, What::Calls, What::WebSockets, What::GrpcStreams];

/// Shared by all clients.
#[derive(Clone)]
pub(super) struct Seen(Arc<Shared>);

struct Shared {
    begun: Instant,
    ended: AtomicBool,
    counts: Mutex<BTreeMap<What, Count>>,
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

#[derive(Clone, Default)]
struct Count {
    good: u64,
    by: [u64; LETTERS.len()],
    failures: Vec<String>,
}

/// What was seen from begin to end.
pub(super) struct Sum {
    counts: BTreeMap<What, Count>,
    took: Duration,
}

impl Seen {
    pub(super) fn start() -> Self {
        Self(Arc::new(Shared {
            begun: Instant::now(),
            ended: AtomicBool::new(false),
            counts: Mutex::default(),
            tasks: Mutex::default(),
        }))
    }

    /// Runs until clients are told to end.
    pub(super) fn run(&self, client: impl Future<Output = ()> + Send + 'static) {
        lock(&self.0.tasks).push(tokio::spawn(client));
    }

    /// Clients are to end what they have begun.
    pub(super) fn is_over(&self) -> bool {
        self.0.ended.load(SeqCst)
    }

    /// `Ok`: who answered, where that is told.
    pub(super) fn count(&self, what: What, outcome: Result<Option<u8>, String>) {
        let mut counts = lock(&self.0.counts);
        let count = counts.entry(what).or_default();
        match outcome {
            Ok(letter) => {
                count.good += 1;
                let place = letter.and_then(|letter| LETTERS.iter().position(|it| *it == letter));
                if let Some(place) = place {
                    count.by[place] += 1;
                }
            }
            Err(error) => count.failures.push(error),
        }
    }

    /// Waits until there was something of every kind.
    pub(super) fn await_flowing(&self) {
        let are_all = || lock(&self.0.counts).len() == ALL.len();
        assert!(comes_true(Duration::from_secs(20), are_all), "not all of the traffic flows");
    }

    pub(super) async fn end(&self) -> Sum {
        let took = self.0.begun.elapsed();
        self.0.ended.store(true, SeqCst);
        let tasks = std::mem::take(&mut *lock(&self.0.tasks));
        for task in tasks {
            task.await.expect("no panic");
        }
        Sum { counts: lock(&self.0.counts).clone(), took }
    }
}

impl Sum {
    /// Nothing failed, and there were so many requests a second.
    pub(super) fn assert_flawless(&self, requests_min: f64) {
        let mut requests = 0;
        for what in ALL {
            let Count { good, by, failures } = &self.counts[&what];
            println!("{what:?}: {good} good ({by:?}), {} failed", failures.len());
            for failure in failures.iter().take(SHOWN) {
                println!("  {failure}");
            }
            if matches!(what, What::Kept | What::Streams) {
                requests += good;
            }
        }
        let reached = requests as f64 / self.took.as_secs_f64();
        println!("{reached:.0} requests a second, {:.1?}", self.took);
        for (what, Count { by, failures, .. }) in &self.counts {
            assert_eq!(failures.first(), None, "{what:?}: {}", failures.len());
            let is_told = matches!(what, What::Kept | What::Streams | What::Calls);
            // Changes that nobody noticed would harm nobody.
            assert!(!is_told || by.iter().all(|count| *count > 0), "{what:?}: {by:?}");
        }
        assert!(reached >= requests_min, "{reached:.0} of {requests_min:.0} a second");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
