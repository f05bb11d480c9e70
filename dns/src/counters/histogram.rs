//! Histograms that threads fill and scrapes read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of durations, in nanoseconds: CoreDNS's, 0.25 ms doubled up to 8 s.
pub const DURATION_BOUNDS: [u64; 16] = doubled(250_000);
/// Upper bounds of messages' sizes, in bytes: CoreDNS's.
pub const SIZE_BOUNDS: [u64; 14] =
    [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000];
/// Upper bounds of the time a change takes to become names, in nanoseconds: 1 ms doubled up to
/// 17 minutes.
pub const PROGRAMMING_BOUNDS: [u64; 20] = doubled(1_000_000);

const fn doubled<const N: usize>(first: u64) -> [u64; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        #[expect(clippy::indexing_slicing, reason = "computed by the compiler")]
        {
            bounds[at] = bounds[at - 1] * 2;
        }
        at += 1;
    }
    bounds
}

/// Counts by upper bound; the last is of what lies above all.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    above: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; N],
            above: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// Where a value is counted, and the sum of values.
    pub(super) fn places(&self, bounds: &[u64; N], value: u64) -> [&AtomicU64; 2] {
        let place = bounds.partition_point(|bound| *bound < value);
        [self.counts.get(place).unwrap_or(&self.above), &self.sum]
    }

    /// Takes note of a value, in the unit of the bounds.
    pub fn observe(&self, bounds: &[u64; N], value: u64) {
        let [count, sum] = self.places(bounds, value);
        count.fetch_add(1, Relaxed);
        sum.fetch_add(value, Relaxed);
    }

    /// Adds what was counted so far to a report of the same bounds, or to an empty one.
    pub fn add_to(&self, report: &mut HistogramReport) {
        let counts = self.counts.iter().chain([&self.above]);
        report.counts.resize(N + 1, 0);
        for (sum, count) in report.counts.iter_mut().zip(counts) {
            *sum += count.load(Relaxed);
        }
        report.sum += self.sum.load(Relaxed);
    }
}

/// A histogram as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramReport {
    /// By upper bound, not cumulative; the last is of what lies above all. Empty: nothing yet.
    pub counts: Vec<u64>,
    /// Of all values, in the unit of the bounds.
    pub sum: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_below_the_first_bound_that_is_not_less() {
        let histogram = Histogram::default();
        for value in [0, 1, 100, 101, 511, 512, 64_000, 65_535] {
            histogram.observe(&SIZE_BOUNDS, value);
        }
        let mut report = HistogramReport::default();
        histogram.add_to(&mut report);
        assert_eq!(report.counts, [1, 2, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(report.sum, 1 + 100 + 101 + 511 + 512 + 64_000 + 65_535);
    }

    #[test]
    fn bounds_are_coredns() {
        assert_eq!(DURATION_BOUNDS.last(), Some(&8_192_000_000));
        assert_eq!(PROGRAMMING_BOUNDS.last(), Some(&524_288_000_000));
    }
}
