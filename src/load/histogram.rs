//! Latencies in a fixed amount of memory.

/// Sub-buckets per power of two: values are kept to 1/32, about 3 %.
const SUB_BITS: u32 = 5;
const SUB_BUCKETS: u64 = 1 << SUB_BITS;
/// Up to 2^40 microseconds.
const BUCKETS: usize = ((40 - SUB_BITS as usize) + 1) << SUB_BITS;

/// Counts by magnitude; values are microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Adds one value.
    pub(crate) fn add(&mut self, value: u64) {
        let index = bucket(value).min(BUCKETS - 1);
        if let Some(count) = self.counts.get_mut(index) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// The largest value, exactly.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The lower bound of the bucket in which the given share (per mille) of all values is reached;
    /// 0 when empty.
    pub(crate) fn per_mille(&self, share: u64) -> u64 {
        let wanted = (self.total * share).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return lower_bound(index);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    let magnitude = value.max(1).ilog2();
    let shift = magnitude.saturating_sub(SUB_BITS);
    let index = u64::from(shift) * SUB_BUCKETS + (value >> shift);
    usize::try_from(index).unwrap_or(usize::MAX)
}

fn lower_bound(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index / SUB_BUCKETS).saturating_sub(1);
    (index - shift * SUB_BUCKETS) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_begins_at_most_a_32nd_below_its_values() {
        for value in [0, 1, 31, 32, 33, 63, 64, 100, 1_000, 12_345, 1 << 39] {
            let low = lower_bound(bucket(value));
            assert!(low <= value && value - low <= value / 32, "{value}: {low}");
        }
    }

    #[test]
    fn shares_of_a_uniform_distribution() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.add(value));
        for (share, low, high) in [(500, 480, 500), (990, 960, 990), (1000, 968, 1000)] {
            let value = histogram.per_mille(share);
            assert!((low..=high).contains(&value), "{share}: {value}");
        }
        assert_eq!(histogram.max(), 1000);
    }

    #[test]
    fn nothing_measured_is_zero() {
        assert_eq!(Histogram::default().per_mille(990), 0);
    }
}
