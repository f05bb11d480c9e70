//! How fast an endpoint answers, the latest answers counting most (ingress-nginx: ewma.lua).

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// An answer counts for 1/e after this.
const DECAY_SECONDS: f64 = 10.0;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Written by the threads that go by it; what two write at once counts once.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// Seconds, as the bits of a number.
    average: AtomicU64,
    /// Microseconds since the start; 0: never.
    at_us: AtomicU64,
}

impl Latency {
    pub(super) fn answered_in(&self, took: Duration) {
        let now = now_us();
        self.add(took, self.weight(now), now);
    }

    /// It has not answered for so long, and is as slow at least. What it was before counts as little as
    /// after that time.
    pub(super) fn silent_for(&self, time: Duration) {
        if self.average().is_none_or(|average| average < time.as_secs_f64()) {
            let now = now_us();
            self.add(time, self.weight(now).min(left_of(time)), now);
        }
    }

    /// `weight`: that of what is known.
    fn add(&self, took: Duration, weight: f64, now_us: u64) {
        let before = self.last().unwrap_or(took.as_secs_f64());
        let average = before * weight + took.as_secs_f64() * (1.0 - weight);
        self.average.store(average.to_bits(), Relaxed);
        self.at_us.store(now_us, Relaxed);
    }

    /// `None`: it has answered nothing yet.
    pub(super) fn average(&self) -> Option<f64> {
        let now = now_us();
        // Nobody asks who is slow: with time it is tried again.
        self.last().map(|average| average * self.weight(now))
    }

    fn last(&self) -> Option<f64> {
        (self.at_us.load(Relaxed) != 0).then(|| f64::from_bits(self.average.load(Relaxed)))
    }

    fn weight(&self, now_us: u64) -> f64 {
        left_of(Duration::from_micros(now_us.saturating_sub(self.at_us.load(Relaxed))))
    }
}

/// How much an answer counts after so long.
fn left_of(age: Duration) -> f64 {
    (-age.as_secs_f64() / DECAY_SECONDS).exp()
}

fn now_us() -> u64 {
    u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX - 1) + 1
}
