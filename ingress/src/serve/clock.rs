//! Timeouts without a timer per request: deadlines are plain numbers, looked at once a tick.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use futures::task::AtomicWaker;
use http::HeaderValue;

const NEVER: u64 = u64::MAX;
const TICK_MS_MIN: u64 = 5;
const TICK_MS_MAX: u64 = 1_000;
/// Ticks in the shortest timeout: how precise timeouts are.
const TICKS_PER_TIMEOUT: u64 = 8;

/// One thread's time and everything in it that may time out.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    tick_ms: u64,
    now_ms: Arc<AtomicU64>,
    watches: RefCell<Vec<Weak<Watch>>>,
    /// As of which tick, and what it is.
    date: RefCell<(u64, HeaderValue)>,
}

/// Deadlines of one connection. `Send`, because hyper wants that of upgradable connections.
#[derive(Debug)]
pub(crate) struct Watch {
    now_ms: Arc<AtomicU64>,
    tick_ms: u64,
    /// What the connection as a whole waits for.
    phase_ms: AtomicU64,
    /// A write that does not get through.
    write_ms: AtomicU64,
    /// When it may give back what it needs only at work.
    rest_ms: AtomicU64,
    each_tick: AtomicBool,
    waker: AtomicWaker,
    /// Whose waker that is, by the address of his task; 0: nobody's. It holds the task, so no other
    /// one has the address.
    task: AtomicUsize,
}

impl Clock {
    pub(crate) fn new(shortest_timeout_ms: u64) -> Self {
        Self {
            started: Instant::now(),
            tick_ms: (shortest_timeout_ms / TICKS_PER_TIMEOUT).clamp(TICK_MS_MIN, TICK_MS_MAX),
            now_ms: Arc::default(),
            watches: RefCell::default(),
            date: RefCell::new((NEVER, HeaderValue::from_static(""))),
        }
    }

    pub(crate) fn tick_interval(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    /// Milliseconds since the thread began, as of the last tick.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Relaxed)
    }

    /// What a field says of the time, made once a tick.
    pub(crate) fn date(&self) -> HeaderValue {
        let mut date = self.date.borrow_mut();
        let now = self.now_ms();
        if date.0 != now
            && let Ok(text) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
        {
            *date = (now, text);
        }
        date.1.clone()
    }

    /// A new set of deadlines, none of them set.
    pub(crate) fn watch(&self) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            now_ms: self.now_ms.clone(),
            tick_ms: self.tick_ms,
            phase_ms: AtomicU64::new(NEVER),
            write_ms: AtomicU64::new(NEVER),
            rest_ms: AtomicU64::new(NEVER),
            each_tick: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            task: AtomicUsize::new(0),
        });
        self.watches.borrow_mut().push(Arc::downgrade(&watch));
        watch
    }

    /// Wakes whoever is past a deadline or may rest, forgets who is gone.
    pub(crate) fn tick(&self) {
        self.tick_at(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER - 1));
    }

    /// The same, so many milliseconds after the thread began.
    pub(crate) fn tick_at(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Relaxed);
        self.watches.borrow_mut().retain(|watch| {
            let Some(watch) = watch.upgrade() else { return false };
            if watch.expired() || watch.may_rest() || watch.each_tick.load(Relaxed) {
                watch.wake();
            }
            true
        });
    }

    /// Wakes everybody: something about the thread changed.
    pub(crate) fn wake_all(&self) {
        for watch in self.watches.borrow().iter().filter_map(Weak::upgrade) {
            watch.wake();
        }
    }
}

impl Watch {
    /// Who is woken; call before looking at [`Watch::expired`]. A connection's task says so each time
    /// it runs, and nearly always again.
    pub(crate) fn register(&self, waker: &Waker) {
        let task = waker.data().addr();
        if task == 0 || self.task.load(Relaxed) != task {
            self.waker.register(waker);
            self.task.store(task, Relaxed);
        }
    }

    /// Nobody is woken until somebody registers; a task that is over is not held any longer.
    pub(crate) fn forget(&self) {
        self.task.store(0, Relaxed);
        self.waker.take();
    }

    /// Whoever registered stays so.
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            self.waker.register(&waker);
        }
    }

    /// For whoever waits for something that wakes nobody.
    pub(crate) fn wake_each_tick(&self) {
        self.each_tick.store(true, Relaxed);
    }

    pub(crate) fn wake_when_expired(&self) {
        self.each_tick.store(false, Relaxed);
    }

    pub(crate) fn arm(&self, timeout_ms: u64) {
        self.phase_ms.store(self.after(timeout_ms), Relaxed);
    }

    /// The first call counts, until it is disarmed.
    pub(crate) fn arm_once(&self, timeout_ms: u64) {
        if self.phase_ms.load(Relaxed) == NEVER {
            self.arm(timeout_ms);
        }
    }

    /// Counts from now, if it counts.
    pub(crate) fn rearm(&self, timeout_ms: u64) {
        if self.phase_ms.load(Relaxed) != NEVER {
            self.arm(timeout_ms);
        }
    }

    pub(crate) fn disarm(&self) {
        self.phase_ms.store(NEVER, Relaxed);
    }

    /// Work is over, and the next piece probably a while away: one tick at least, two at most.
    pub(crate) fn rest_soon(&self) {
        self.rest_ms.store(self.after(self.tick_ms), Relaxed);
    }

    /// There is work.
    pub(crate) fn stay(&self) {
        self.rest_ms.store(NEVER, Relaxed);
    }

    /// Nothing came for long enough, and everything that was to be written is.
    pub(crate) fn may_rest(&self) -> bool {
        self.rest_ms.load(Relaxed) <= self.now_ms.load(Relaxed)
            && self.write_ms.load(Relaxed) == NEVER
    }

    /// A write is stuck; the first call counts.
    pub(crate) fn write_blocked(&self, timeout_ms: u64) {
        if self.write_ms.load(Relaxed) == NEVER {
            self.write_ms.store(self.after(timeout_ms), Relaxed);
        }
    }

    pub(crate) fn written(&self) {
        if self.write_ms.load(Relaxed) != NEVER {
            self.write_ms.store(NEVER, Relaxed);
        }
    }

    /// Waits for `future` no longer than to the next deadline; `None` if that came first. It is pinned by who made it: taken by
    /// value it would have its room twice, as an argument and as what is polled.
    pub(crate) async fn limit<F: Future>(&self, mut future: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| {
            self.register(cx.waker());
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if self.expired() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    pub(crate) fn expired(&self) -> bool {
        let now = self.now_ms.load(Relaxed);
        self.phase_ms.load(Relaxed) <= now || self.write_ms.load(Relaxed) <= now
    }

    /// Nothing but a write is late.
    pub(crate) fn awaits_write(&self) -> bool {
        self.phase_ms.load(Relaxed) > self.now_ms.load(Relaxed)
    }

    /// Time stands still between ticks, so one more makes sure that nothing ends early.
    fn after(&self, timeout_ms: u64) -> u64 {
        let now = self.now_ms.load(Relaxed);
        now.saturating_add(timeout_ms).saturating_add(self.tick_ms).min(NEVER - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::alone::Woken;

    #[test]
    fn who_registered_last_is_woken_each_time_and_nobody_else() {
        let clock = Clock::new(1_000);
        let watch = clock.watch();
        let [first, second] = [Arc::<Woken>::default(), Arc::<Woken>::default()];
        let counts = || [first.times(), second.times()];
        clock.wake_all();
        assert_eq!(counts(), [0, 0]);
        for (registers, expected) in
            [(&first, [1, 0]), (&first, [2, 0]), (&second, [2, 1]), (&second, [2, 2])]
        {
            // Each with a waker of its own, as tasks are polled with.
            watch.register(&registers.clone().into());
            clock.wake_all();
            assert_eq!(counts(), expected);
        }
        clock.wake_all();
        assert_eq!(counts(), [2, 3], "without being told again");
    }

    #[test]
    fn who_is_forgotten_is_not_held_and_can_come_again() {
        let clock = Clock::new(1_000);
        let (watch, woken) = (clock.watch(), Arc::<Woken>::default());
        for expected in [1, 2] {
            watch.register(&woken.clone().into());
            assert_eq!(Arc::strong_count(&woken), 2);
            clock.wake_all();
            watch.forget();
            assert_eq!(Arc::strong_count(&woken), 1);
            clock.wake_all();
            assert_eq!(woken.times(), expected);
        }
    }
}
