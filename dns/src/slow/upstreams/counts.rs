//! What is counted of questions to upstreams.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hickory_proto::op::ResponseCode;

use super::Forward;
use crate::counters::{
    DURATION_BOUNDS, ForwardReport, Histogram, HistogramReport, RCODES, nanoseconds,
};

/// What became of questions to upstreams.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By response code.
    durations: [OnceLock<Box<Histogram<{ DURATION_BOUNDS.len() }>>>; RCODES],
    /// Questions asked while no upstream was known to answer.
    pub(super) broken: AtomicU64,
    pub(super) failed_probes: Mutex<BTreeMap<SocketAddr, u64>>,
}

impl Counts {
    pub(super) fn took(&self, code: ResponseCode, duration: Duration) {
        let code = usize::from(u16::from(code)).min(RCODES - 1);
        if let Some(histogram) = self.durations.get(code) {
            let histogram = histogram.get_or_init(Box::default);
            histogram.observe(&DURATION_BOUNDS, nanoseconds(duration));
        }
    }
}

impl Forward {
    /// What became of its questions.
    pub(crate) fn report(&self) -> ForwardReport {
        let counts = &self.pool.counts;
        let durations = (0_u16..).zip(&counts.durations).filter_map(|(code, histogram)| {
            let mut report = HistogramReport::default();
            histogram.get()?.add_to(&mut report);
            Some((code, report))
        });
        let failed = counts.failed_probes.lock().unwrap_or_else(PoisonError::into_inner);
        ForwardReport {
            to: self.targets().join(","),
            rejects: self.rejects.load(Ordering::Relaxed),
            broken: counts.broken.load(Ordering::Relaxed),
            durations: durations.collect(),
            failed_probes: failed.iter().map(|(server, count)| (*server, *count)).collect(),
        }
    }
}
