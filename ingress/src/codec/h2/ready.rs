//! Which of a connection's streams can go on. Each has a waker of its own, kept for its successors;
//! waking is a bit, and the connection's task only if it is not at work already.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

use futures::task::AtomicWaker;

const BITS: usize = 64;

/// The streams that were woken. Wakers may be anybody's, on any thread.
#[derive(Debug)]
pub(super) struct Ready {
    woken: Box<[AtomicU64]>,
    /// The connection looks at the bits before it rests.
    at_work: AtomicBool,
    task: AtomicWaker,
}

#[derive(Debug)]
struct One {
    ready: Arc<Ready>,
    slot: usize,
}

impl Ready {
    /// For so many streams.
    pub(super) fn new(slots: usize) -> Arc<Self> {
        let woken = (0..slots.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { woken, at_work: AtomicBool::new(false), task: AtomicWaker::new() })
    }

    /// The waker of one stream.
    pub(super) fn waker(self: &Arc<Self>, slot: usize) -> Waker {
        Waker::from(Arc::new(One { ready: self.clone(), slot }))
    }

    /// The connection's task is about to look.
    pub(super) fn work(&self, task: &Waker) {
        self.task.register(task);
        self.at_work.store(true, SeqCst);
    }

    /// It is about to wait; false: somebody was woken meanwhile, and it is not.
    pub(super) fn rest(&self) -> bool {
        self.at_work.store(false, SeqCst);
        let is_quiet = self.woken.iter().all(|word| word.load(SeqCst) == 0);
        if !is_quiet {
            self.at_work.store(true, SeqCst);
        }
        is_quiet
    }

    /// Takes those that were woken.
    pub(super) fn take(&self, into: &mut Vec<usize>) {
        for (i, word) in self.woken.iter().enumerate() {
            // Looking is cheaper than taking, and there is nothing nearly always.
            let mut bits = if word.load(SeqCst) == 0 { 0 } else { word.swap(0, SeqCst) };
            while bits != 0 {
                into.push(i * BITS + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    fn wake(&self, slot: usize) {
        let Some(word) = self.woken.get(slot / BITS) else { return };
        let bit = 1 << (slot % BITS);
        let before = word.fetch_or(bit, SeqCst);
        // In one order for all: whoever rests has seen the bit, or is seen resting.
        if before & bit == 0 && !self.at_work.load(SeqCst) {
            self.task.wake();
        }
    }
}

impl Wake for One {
    fn wake(self: Arc<Self>) {
        self.ready.wake(self.slot);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.wake(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn the_task_is_woken_once_and_only_at_rest() {
        let (ready, task) = (Ready::new(130), Arc::new(Task::default()));
        let woken = || task.0.load(SeqCst);
        ready.work(&task.clone().into());
        ready.waker(3).wake();
        assert_eq!(woken(), 0, "it is at work");
        assert!(!ready.rest(), "somebody waits");
        let mut all = Vec::new();
        ready.take(&mut all);
        assert_eq!(all, [3]);
        assert!(ready.rest());
        for slot in [129, 64, 64, 0] {
            ready.waker(slot).wake_by_ref();
        }
        // A waker is taken by its first use; the task registers again when it runs.
        assert_eq!(woken(), 1);
        all.clear();
        ready.take(&mut all);
        assert_eq!(all, [0, 64, 129]);
        ready.waker(1_000).wake();
        assert!(ready.rest(), "nobody has this number");
    }

    #[test]
    fn no_wake_is_lost_between_threads() {
        const WAKES: usize = 20_000;
        let ready = Ready::new(64);
        let waker = ready.waker(7);
        let (told, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (ours, theirs) = (told.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            for n in 1..=WAKES {
                ours.store(n, SeqCst);
                waker.wake_by_ref();
                while theirs.load(SeqCst) < n {
                    std::thread::yield_now();
                }
            }
        });
        let unpark = Arc::new(Unpark(std::thread::current()));
        let mut all = Vec::new();
        while seen.load(SeqCst) < WAKES {
            ready.work(&unpark.clone().into());
            loop {
                ready.take(&mut all);
                if all.pop().is_some() {
                    seen.store(told.load(SeqCst), SeqCst);
                } else if ready.rest() {
                    break;
                }
            }
            if seen.load(SeqCst) < WAKES {
                std::thread::park();
            }
        }
        thread.join().unwrap();
    }

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
}
