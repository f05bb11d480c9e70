//! What each route served: counted per thread and summed when asked, as everything else is.
//!
//! A route holds its series, so a request finds them without a look-up, and they go with the last
//! request of the last route that has them.

mod histogram;
mod shard;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use fairlead_state::Name;

pub use self::histogram::{DURATION_BOUNDS_US, Histogram, LENGTH_BOUNDS, SIZE_BOUNDS};
use self::shard::Shard;
pub(crate) use self::shard::{Asked, Sample, method_name, method_slot};

/// Routes with series of their own; what others serve is counted together.
pub const SERIES_ROUTES_MAX: usize = 1_000;
/// What those that are counted together are called.
const REST: &str = "other";

/// What a route's series are called, as ingress-nginx does.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesLabels {
    /// As in the rules; `*` for all.
    pub host: Name,
    /// As written; empty for a default backend.
    pub path: Name,
    /// Of the Ingress.
    pub namespace: Name,
    /// The Ingress.
    pub ingress: Name,
    /// The Service; empty without one that is served.
    pub service: Name,
    /// The Service under trial and its port, `NAMESPACE-SERVICE-PORT`; empty without one.
    pub canary: Name,
}

/// What the requests of a route are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKind {
    /// The answer's status code; below 10 its first digit, of kinds that came after a route had its fill
    /// of them.
    pub status: u16,
    /// Methods nobody registered are `other`.
    pub method: &'static str,
    /// The Service under trial was taken.
    pub is_canary: bool,
}

/// What one route served since its series began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCounters {
    /// What it is called.
    pub labels: SeriesLabels,
    /// From a request's head to its answer's last byte, in microseconds.
    pub requests: BTreeMap<RequestKind, Histogram>,
    /// Until endpoints were connected to, in microseconds; 0 where they were already.
    pub connect: Histogram,
    /// Until endpoints answered, in microseconds.
    pub header: Histogram,
    /// Until endpoints had answered, in microseconds.
    pub response: Histogram,
    /// Requests as received, bytes.
    pub request_bytes: Histogram,
    /// Answers as sent, bytes.
    pub response_bytes: Histogram,
}

/// One route's series.
#[derive(Debug)]
pub(crate) struct RouteSeries {
    labels: SeriesLabels,
    /// By thread. Only that thread writes, and makes it when it first has something to count.
    shards: Box<[OnceLock<Box<Shard>>]>,
    gone: Arc<AtomicUsize>,
}

/// All series there are.
#[derive(Debug)]
pub(crate) struct Register {
    threads: usize,
    known: Mutex<BTreeMap<SeriesLabels, Weak<RouteSeries>>>,
    /// Of those in `known`, how many are no more.
    gone: Arc<AtomicUsize>,
    rest: Arc<RouteSeries>,
}

impl RequestKind {
    /// `404`, or `4xx` where no more is known.
    pub fn status_label(&self) -> String {
        match self.status {
            0 => REST.to_owned(),
            class @ 1..10 => format!("{class}xx"),
            status => status.to_string(),
        }
    }

    /// `4xx`.
    pub fn class_label(&self) -> String {
        let class = if self.status < 10 { self.status } else { self.status / 100 };
        Self { status: class, ..*self }.status_label()
    }
}

impl SeriesLabels {
    fn rest() -> Self {
        let rest = || Name::from(REST);
        Self {
            host: rest(),
            path: rest(),
            namespace: rest(),
            ingress: rest(),
            service: rest(),
            canary: Name::from(""),
        }
    }
}

impl RouteSeries {
    fn new(labels: SeriesLabels, threads: usize, gone: &Arc<AtomicUsize>) -> Arc<Self> {
        let shards = (0..threads).map(|_| OnceLock::new()).collect();
        Arc::new(Self { labels, shards, gone: gone.clone() })
    }

    /// The Service.
    pub(crate) fn service(&self) -> &Name {
        &self.labels.service
    }

    /// Counts a request of the thread with this number.
    pub(crate) fn count(&self, thread: usize, sample: &Sample) {
        if let Some(shard) = self.shards.get(thread) {
            shard.get_or_init(Box::default).count(sample);
        }
    }

    /// `None`: there was no request yet.
    fn read(&self) -> Option<RouteCounters> {
        let mut shards = self.shards.iter().filter_map(OnceLock::get).peekable();
        shards.peek()?;
        let mut counters = RouteCounters {
            labels: self.labels.clone(),
            requests: BTreeMap::new(),
            connect: Histogram::default(),
            header: Histogram::default(),
            response: Histogram::default(),
            request_bytes: Histogram::default(),
            response_bytes: Histogram::default(),
        };
        shards.for_each(|shard| shard.add_to(&mut counters));
        Some(counters)
    }
}

impl Drop for RouteSeries {
    fn drop(&mut self) {
        self.gone.fetch_add(1, Relaxed);
    }
}

impl Register {
    /// For so many threads.
    pub(crate) fn new(threads: usize) -> Self {
        let gone = Arc::default();
        let rest = RouteSeries::new(SeriesLabels::rest(), threads, &gone);
        Self { threads, known: Mutex::default(), gone, rest }
    }

    /// The series of that name, those that are there already if some are.
    pub(crate) fn series(&self, labels: SeriesLabels) -> Arc<RouteSeries> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(&labels).and_then(Weak::upgrade) {
            return series;
        }
        if known.len() >= SERIES_ROUTES_MAX && self.gone.swap(0, Relaxed) > 0 {
            known.retain(|_, series| series.strong_count() > 0);
        }
        // Under the same name there may still be some that ended just now.
        if known.len() >= SERIES_ROUTES_MAX && !known.contains_key(&labels) {
            return self.rest.clone();
        }
        let series = RouteSeries::new(labels.clone(), self.threads, &self.gone);
        known.insert(labels, Arc::downgrade(&series));
        series
    }

    /// What was served, by route; those without a request are left out.
    pub(crate) fn read(&self) -> Vec<RouteCounters> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = known.values().filter_map(Weak::upgrade).collect();
        drop(known);
        all.push(self.rest.clone());
        all.iter().filter_map(|series| series.read()).collect()
    }
}

#[cfg(test)]
mod tests;
