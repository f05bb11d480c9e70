//! What requests found out about an endpoint before its EndpointSlice said so.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// An endpoint that could not be reached is asked last for this long.
const AVOIDED_MS: u64 = 1_000;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Written when a connection cannot be made, and with the first that can again. 0: nothing known.
#[derive(Debug, Default)]
pub(super) struct Health {
    first_failure_ms: AtomicU64,
    last_failure_ms: AtomicU64,
}

impl Health {
    pub(super) fn failed(&self) {
        let now = now_ms();
        self.last_failure_ms.store(now, Relaxed);
        let _ = self.first_failure_ms.compare_exchange(0, now, Relaxed, Relaxed);
    }

    pub(super) fn worked(&self) {
        // Read first: a line all threads write to is slow.
        if self.first_failure_ms.load(Relaxed) != 0 {
            self.first_failure_ms.store(0, Relaxed);
            self.last_failure_ms.store(0, Relaxed);
        }
    }

    pub(super) fn is_avoided(&self) -> bool {
        let last = self.last_failure_ms.load(Relaxed);
        last != 0 && now_ms().saturating_sub(last) < AVOIDED_MS
    }

    pub(super) fn failing_for_ms(&self) -> Option<u64> {
        let first = self.first_failure_ms.load(Relaxed);
        (first != 0).then(|| now_ms().saturating_sub(first))
    }
}

/// Since the first call, and never 0.
fn now_ms() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}
