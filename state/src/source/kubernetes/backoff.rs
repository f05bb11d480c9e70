//! How long to wait before trying again.

use std::time::Duration;

/// The first wait, before jitter.
const BASE_MS: u64 = 200;
/// The longest wait, before jitter.
const CAP_MS: u64 = 30_000;

/// Waits that double, each shortened by a random part so that nodes do not come back in step.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(super) fn next(&mut self) -> Duration {
        let doubled = BASE_MS.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.min(CAP_MS);
        Duration::from_millis(rand::random_range(wait / 2..=wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_never_vanish() {
        let mut backoff = Backoff::default();
        for expected in [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            let wait = backoff.next().as_millis();
            assert!((expected / 2..=expected).contains(&wait), "{wait} ms for {expected}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(200));
    }
}
