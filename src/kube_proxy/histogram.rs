//! Histograms with kube-proxy's buckets.

use std::fmt::Write as _;

/// Counts by upper bound.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    bounds: Vec<f64>,
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    fn with_bounds(bounds: Vec<f64>) -> Self {
        Self { counts: vec![0; bounds.len()], bounds, sum: 0.0, count: 0 }
    }

    /// How long a pass takes: 1 ms to 16.4 s, doubling.
    pub(crate) fn of_passes() -> Self {
        Self::with_bounds((0..15).map(|power| 0.001 * f64::from(1 << power)).collect())
    }

    /// How long a change takes to get from its cause to the packets
    /// (sig-scalability/slos/network_programming_latency.md).
    pub(crate) fn of_network_programming() -> Self {
        let seconds = (1..60).chain((60..=115).step_by(5)).chain((120..=300).step_by(30));
        // The first one is an accident of upstream's (k8s.io/component-base/metrics, MergeBuckets) that every kube-proxy tells.
        Self::with_bounds([0.0, 0.25, 0.5].into_iter().chain(seconds.map(f64::from)).collect())
    }

    /// Takes note of so many seconds.
    pub(crate) fn observe(&mut self, seconds: f64) {
        let buckets = self.bounds.iter().zip(&mut self.counts);
        for (_, count) in buckets.filter(|(bound, _)| seconds <= **bound) {
            *count += 1;
        }
        self.sum += seconds;
        self.count += 1;
    }

    /// As Prometheus reads it; `label` is `name="value"`.
    pub(crate) fn write(&self, text: &mut String, name: &str, label: &str) {
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}_bucket{{{label},le=\"{bound}\"}} {count}");
        }
        let Self { sum, count, .. } = self;
        let _ = writeln!(
            text,
            "{name}_bucket{{{label},le=\"+Inf\"}} {count}\n{name}_sum{{{label}}} {sum}\n\
             {name}_count{{{label}}} {count}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_upstreams() {
        let shown = |histogram: &Histogram| {
            histogram.bounds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            shown(&Histogram::of_passes()),
            "0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192 \
             16.384"
        );
        let programming = shown(&Histogram::of_network_programming());
        assert!(programming.starts_with("0 0.25 0.5 1 2 3 "), "{programming}");
        assert!(programming.contains(" 58 59 60 65 70 "), "{programming}");
        assert!(programming.ends_with(" 110 115 120 150 180 210 240 270 300"), "{programming}");
        assert_eq!(programming.split(' ').count(), 1 + 2 + 59 + 12 + 7);
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut histogram = Histogram::of_passes();
        [0.0005, 0.003, 20.0].into_iter().for_each(|seconds| histogram.observe(seconds));
        let mut text = String::new();
        histogram.write(&mut text, "a", "b=\"c\"");
        for line in [
            "a_bucket{b=\"c\",le=\"0.001\"} 1",
            "a_bucket{b=\"c\",le=\"0.004\"} 2",
            "a_bucket{b=\"c\",le=\"16.384\"} 2",
            "a_bucket{b=\"c\",le=\"+Inf\"} 3",
            "a_sum{b=\"c\"} 20.0035",
            "a_count{b=\"c\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
