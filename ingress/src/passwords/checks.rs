//! How many slow hashes are computed at once. Whoever guesses passwords may leave as soon as it has asked,
//! but a hash that was begun goes on, so what counts it is given to the hash and not to who waits for it.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use fairlead_state::Name;
use tokio::sync::Semaphore;

use crate::fair::Queue;

/// Slow hashes computed at once for one Ingress: who guesses does not get all processors.
const AT_ONCE: usize = 2;
/// Requests of one Ingress that wait for one or have one computed; more are answered 503.
const WAITING_MAX: usize = 64;

/// Slow hashes computed at once in the whole process, namespaces by turns: a hundred Ingresses of one of them,
/// or one that changes again and again and is counted anew each time, keep others' hashes waiting for one at
/// most.
static OF_ALL: LazyLock<Queue> = LazyLock::new(|| {
    Queue::new(of_processors(thread::available_parallelism().map_or(1, usize::from)))
});

/// The other half is for those who have been let in.
fn of_processors(processors: usize) -> usize {
    (processors / 2).max(1)
}

/// Counts those of one Ingress.
pub(super) struct Checks {
    namespace: Name,
    own: Arc<Semaphore>,
    of_all: Queue,
    waiting: Arc<AtomicUsize>,
}

/// Too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

impl Checks {
    /// Those of an Ingress of this namespace.
    pub(super) fn new(namespace: Name) -> Self {
        Self::beside(OF_ALL.clone(), namespace)
    }

    fn beside(of_all: Queue, namespace: Name) -> Self {
        let own = Arc::new(Semaphore::new(AT_ONCE));
        Self { namespace, own, of_all, waiting: Arc::default() }
    }

    /// Does it in its turn, never on a thread that serves. Once begun it is done, whoever waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        check: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let waiting = Waiting::among(&self.waiting).ok_or(Busy)?;
        // Its own first: of those who wait for the process no Ingress is more than its share.
        let own = self.own.clone().acquire_owned().await.map_err(|_| Busy)?;
        let of_all = self.of_all.place(&self.namespace).await.ok_or(Busy)?;
        let begun = tokio::task::spawn_blocking(move || {
            let _counted = (waiting, own, of_all);
            check()
        });
        begun.await.map_err(|_| Busy)
    }
}

/// Counts one that waits.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn among(waiting: &Arc<AtomicUsize>) -> Option<Self> {
        let one = Self(waiting.clone());
        (waiting.fetch_add(1, Relaxed) < WAITING_MAX).then_some(one)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
    use tokio::sync::{
        Mutex,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    };

    use super::*;

    /// Checks that say when they begin, and end when they are told to.
    struct Held {
        begin: UnboundedSender<mpsc::Sender<()>>,
        begun: UnboundedReceiver<mpsc::Sender<()>>,
    }

    impl Held {
        fn new() -> Self {
            let (begin, begun) = unbounded_channel();
            Self { begin, begun }
        }

        fn check(&self) -> impl FnOnce() + Send + 'static {
            let begin = self.begin.clone();
            move || {
                let (end, ended) = mpsc::channel();
                begin.send(end).unwrap();
                let _ = ended.recv();
            }
        }

        /// A client that asks and is gone at once.
        fn ask_and_leave(&self, checks: &Checks) {
            assert_eq!(checks.run(self.check()).now_or_never(), None);
        }
    }

    fn checks(of_all: &Queue, namespace: &str) -> Checks {
        Checks::beside(of_all.clone(), namespace.into())
    }

    #[tokio::test]
    async fn attack_clients_that_leave_do_not_begin_more_hashes_than_two() {
        let (checks, mut held) = (checks(&Queue::new(8), "shop"), Held::new());
        for _ in 0..200 {
            held.ask_and_leave(&checks);
        }
        let ends = [held.begun.recv().await.unwrap(), held.begun.recv().await.unwrap()];
        assert_eq!(checks.own.available_permits(), 0);
        assert_eq!(checks.waiting.load(Relaxed), AT_ONCE, "they are hashes, not who waits");
        drop(ends);
        let both = u32::try_from(AT_ONCE).unwrap();
        drop(checks.own.acquire_many(both).await.unwrap());
        assert!(held.begun.try_recv().is_err(), "a third one began");
        assert_eq!(checks.run(|| 1).await, Ok(1), "whoever stays has its turn");
    }

    #[test]
    fn hashes_leave_half_of_the_processors_to_those_who_serve() {
        for (processors, at_once) in [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (96, 48)] {
            assert_eq!(of_processors(processors), at_once, "{processors}");
        }
    }

    #[tokio::test]
    async fn attack_many_ingresses_of_many_namespaces_begin_no_more_hashes_than_the_process_may() {
        let (of_all, mut held) = (Queue::new(3), Held::new());
        for number in 0..10 {
            let checks = checks(&of_all, &format!("shop-{number}"));
            held.ask_and_leave(&checks);
            held.ask_and_leave(&checks);
        }
        let mut ends = Vec::new();
        for _ in 0..3 {
            ends.push(held.begun.recv().await.unwrap());
        }
        let waiting = checks(&of_all, "last");
        let mut waiting = Box::pin(waiting.run(|| 1));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        assert!(held.begun.try_recv().is_err(), "a fourth one began");
        drop(ends);
        assert_eq!(waiting.await, Ok(1));
    }

    /// A hundred Ingresses of a tenant, each with as many guesses as are taken.
    #[tokio::test]
    async fn attack_hashes_of_one_namespace_keep_another_s_waiting_for_no_more_than_one() {
        for places in [1, 2, 4] {
            let (of_all, mut held) = (Queue::new(places), Held::new());
            let tenants: Vec<_> = (0..100).map(|_| checks(&of_all, "tenant")).collect();
            let guesses = tenants.iter().flat_map(|checks| [checks, checks]);
            let mut guesses: FuturesUnordered<_> =
                guesses.map(|checks| checks.run(held.check())).collect();
            assert_eq!(guesses.next().now_or_never(), None);
            let first = held.begun.recv().await.unwrap();
            let other = checks(&of_all, "other");
            let mut other = Box::pin(other.run(|| "let in"));
            if places == 1 {
                assert_eq!(other.as_mut().now_or_never(), None);
                drop(first);
            }
            // None of the others ends before.
            assert_eq!(other.await, Ok("let in"), "{places}");
        }
    }

    #[tokio::test]
    async fn more_than_may_wait_are_told_so_and_the_others_have_their_turn() {
        let checks = checks(&Queue::new(8), "shop");
        let all_have_asked = Arc::new(Mutex::new(()));
        let asking = all_have_asked.clone().lock_owned().await;
        let mut asked: FuturesUnordered<_> = (0..WAITING_MAX + 5)
            .map(|_| {
                let all_have_asked = all_have_asked.clone();
                checks.run(move || drop(all_have_asked.blocking_lock()))
            })
            .collect();
        // Nobody's hash ends before, so no place becomes free.
        for _ in 0..5 {
            assert_eq!(asked.next().await, Some(Err(Busy)));
        }
        drop(asking);
        assert_eq!(asked.collect::<Vec<_>>().await, [Ok(()); WAITING_MAX]);
        assert_eq!(checks.run(|| ()).await, Ok(()));
    }
}
