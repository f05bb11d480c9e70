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
}

impl DropReason {
    /// Every reason, in the order of [`Counts::dropped`].
    pub const ALL: [DropReason; 7] = [
        DropReason::Short,
        DropReason::Oversized,
        DropReason::NotAQuery,
        DropReason::SourcePortZero,
        DropReason::SlowPathFull,
        DropReason::SendFailed,
        DropReason::TcpConnections,
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
        }
    }
}

/// Response codes that are counted one by one; those above are counted as the last.
pub const RCODES: usize = 24;

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
    replies: [AtomicU64; RCODES],
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Counters {
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
    pub(crate) fn add(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
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
