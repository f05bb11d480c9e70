//! What was asked, answered and dropped; one set per thread, summed when read.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Why a query got no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Shorter than a DNS header.
    Short,
    /// Longer than any query: the datagram did not fit the buffer, or the TCP length was absurd.
    Oversized,
    /// Marked as a reply: forged, or two servers talking to each other.
    NotAQuery,
    /// From UDP port 0, which nobody can receive on.
    SourcePortZero,
    /// Too many queries wait for the slow path and for upstreams.
    SlowPathFull,
    /// The kernel did not take the reply (no route, full buffer).
    SendFailed,
    /// More TCP connections than allowed; the newest was closed.
    TcpConnections,
    /// `acl` says drop.
    Policy,
}

impl DropReason {
    /// Every reason, in the order of [`Counts::dropped`].
    pub const ALL: [DropReason; 8] = [
        DropReason::Short,
        DropReason::Oversized,
        DropReason::NotAQuery,
        DropReason::SourcePortZero,
        DropReason::SlowPathFull,
        DropReason::SendFailed,
        DropReason::TcpConnections,
        DropReason::Policy,
    ];

    /// The reason as a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::Short => "short",
            DropReason::Oversized => "oversized",
            DropReason::NotAQuery => "not_a_query",
            DropReason::SourcePortZero => "source_port_zero",
            DropReason::SlowPathFull => "slow_path_full",
            DropReason::SendFailed => "send_failed",
            DropReason::TcpConnections => "tcp_connections",
            DropReason::Policy => "policy",
        }
    }
}

/// Types counted one by one, with their names; the rest are `other`.
pub const QTYPES: [(u16, &str); 11] = [
    (1, "A"),
    (28, "AAAA"),
    (33, "SRV"),
    (12, "PTR"),
    (5, "CNAME"),
    (2, "NS"),
    (6, "SOA"),
    (16, "TXT"),
    (15, "MX"),
    (65, "HTTPS"),
    (255, "ANY"),
];

/// Where a thread's queries come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// TCP, not UDP.
    pub tcp: bool,
    /// IPv6, not IPv4.
    pub ipv6: bool,
}

/// Queries of one way in, by type in the order of [`QTYPES`], then all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WayCounts {
    /// Which way.
    pub way: Way,
    /// How many.
    pub types: [u64; QTYPES.len() + 1],
}

/// Response codes that are counted one by one; those above are counted as the last.
pub const RCODES: usize = 24;

/// All caches together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// Answers and denials kept at this moment.
    pub entries: [u64; 2],
    /// Questions answered by a kept answer, and by a kept denial.
    pub hits: [u64; 2],
    /// Questions that were not in the cache.
    pub misses: u64,
    /// Answers given past their time.
    pub served_stale: u64,
    /// Answers fetched again before their time.
    pub prefetches: u64,
    /// Answers removed for others.
    pub evictions: u64,
}

/// Sums over all threads since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams received, whatever became of them.
    pub udp_queries: u64,
    /// Messages received by TCP.
    pub tcp_queries: u64,
    /// Queries handed to the slow path.
    pub slow_queries: u64,
    /// Queries sent to upstreams.
    pub forwarded: u64,
    /// Replies by response code (index); the last entry also counts all codes above.
    pub replies: [u64; RCODES],
    /// Queries without a reply, by the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Panics caught; each is a bug worth reporting.
    pub panics: u64,
    /// The caches.
    pub cache: CacheReport,
    /// Well-formed queries by way in and type.
    pub ways: Vec<WayCounts>,
}

/// Counters of one thread, alone on their cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    pub(crate) udp_queries: AtomicU64,
    pub(crate) tcp_queries: AtomicU64,
    pub(crate) slow_queries: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) panics: AtomicU64,
    way: Way,
    types: [AtomicU64; QTYPES.len() + 1],
    replies: [AtomicU64; RCODES],
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Counters {
    /// A query of this type was read.
    pub(crate) fn asked(&self, qtype: u16) {
        let index = QTYPES.iter().position(|(known, _)| *known == qtype).unwrap_or(QTYPES.len());
        if let Some(counter) = self.types.get(index) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn reply(&self, rcode: u16) {
        let index = usize::from(rcode).min(RCODES - 1);
        if let Some(counter) = self.replies.get(index) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn dropped(&self, reason: DropReason, count: u64) {
        if let Some(counter) = self.dropped.get(reason as usize) {
            counter.fetch_add(count, Relaxed);
        }
    }
}

/// All threads' counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Arc<Mutex<Vec<Arc<Counters>>>>);

impl Registry {
    /// Counters for one more thread.
    pub(crate) fn add(&self, way: Way) -> Arc<Counters> {
        let counters = Arc::new(Counters { way, ..Counters::default() });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(counters.clone());
        counters
    }

    pub(crate) fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        for one in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sum.udp_queries += one.udp_queries.load(Relaxed);
            sum.tcp_queries += one.tcp_queries.load(Relaxed);
            sum.slow_queries += one.slow_queries.load(Relaxed);
            sum.forwarded += one.forwarded.load(Relaxed);
            sum.panics += one.panics.load(Relaxed);
            let same = sum.ways.iter().position(|known| known.way == one.way);
            let place = same.unwrap_or_else(|| {
                sum.ways.push(WayCounts { way: one.way, types: [0; QTYPES.len() + 1] });
                sum.ways.len() - 1
            });
            if let Some(known) = sum.ways.get_mut(place) {
                add(&mut known.types, &one.types);
            }
            add(&mut sum.replies, &one.replies);
            add(&mut sum.dropped, &one.dropped);
        }
        sum
    }
}

fn add(sums: &mut [u64], counters: &[AtomicU64]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.load(Relaxed);
    }
}
