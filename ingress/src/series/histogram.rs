//! Histograms: written by one thread, read by all.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Microseconds; ingress-nginx: `--time-buckets`.
pub const DURATION_BOUNDS_US: [u64; 11] = [
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];
/// Bytes; ingress-nginx: `--length-buckets`.
pub const LENGTH_BOUNDS: [u64; 10] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100];
/// Bytes; ingress-nginx: `--size-buckets`.
pub const SIZE_BOUNDS: [u64; 7] = [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// Both, so that an answer is looked up once.
pub(super) const SENT_BOUNDS: [u64; 15] =
    [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// How often a value was at most a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Ascending; none while nothing was counted.
    pub bounds: &'static [u64],
    /// Above the bound before and at most this one; the last is above all.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: u64,
}

impl Histogram {
    /// Of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Values at most each of `bounds`, which are among the histogram's own.
    pub fn cumulated<'a>(&'a self, bounds: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
        bounds.iter().map(move |bound| {
            let within = self.bounds.iter().take_while(|own| *own <= bound).count();
            self.counts.iter().take(within).sum()
        })
    }

    /// A value that `quantile`, 0 to 1, of all are at most; as Prometheus's `histogram_quantile`
    /// estimates it. `None`: there is no value.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = quantile * as_f64(count);
        let (mut below, mut low) = (0, 0);
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            let within = below + count;
            if *count > 0 && as_f64(within) >= rank {
                let share = (rank - as_f64(below)) / as_f64(*count);
                return Some(as_f64(low) + as_f64(bound - low) * share);
            }
            (below, low) = (within, *bound);
        }
        Some(as_f64(low))
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Histogram) {
        if self.counts.is_empty() {
            self.clone_from(other);
            return;
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, count)| *own += count);
        self.sum += other.sum;
    }
}

fn as_f64(number: u64) -> f64 {
    number as f64
}

/// `SLOTS`: one more than bounds.
#[derive(Debug)]
pub(super) struct Buckets<const SLOTS: usize> {
    counts: [AtomicU64; SLOTS],
    sum: AtomicU64,
}

impl<const SLOTS: usize> Default for Buckets<SLOTS> {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; SLOTS], sum: AtomicU64::new(0) }
    }
}

impl<const SLOTS: usize> Buckets<SLOTS> {
    pub(super) fn count(&self, bounds: &[u64], value: u64) {
        let slot = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        if let Some(count) = self.counts.get(slot) {
            add(count, 1);
        }
        add(&self.sum, value);
    }

    pub(super) fn read(&self, bounds: &'static [u64]) -> Histogram {
        let counts = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        Histogram { bounds, counts, sum: self.sum.load(Relaxed) }
    }
}

/// One writer: no locked instruction needed.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}
