//! What was asked, answered and dropped; one set per thread, summed when read.

mod histogram;
mod tally;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub(crate) use self::tally::{Answered, Book, CacheUse, Ledger, Ledgers, Slot};
pub use self::{
    histogram::{DURATION_BOUNDS, Histogram, HistogramReport, PROGRAMMING_BOUNDS, SIZE_BOUNDS},
    tally::{Labels, Plugin, QTYPES, RCODES, SiteCounts, Way},
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
    /// Too many queries are in work in the slow path, of one client or of all.
    SlowPathFull,
    /// The kernel did not take the reply (no route, full buffer).
    SendFailed,
    /// More TCP connections than allowed; the newest was closed.
    TcpConnections,
    /// `acl` says drop.
    Policy,
    /// The kernel had no room for it: questions come faster than they are answered.
    QueueFull,
    /// It had waited for too long while there was no room for others.
    TooLate,
    /// More questions a second than one client is allowed.
    ClientRate,
    /// More TCP connections than one client is allowed; the newest was closed.
    ClientConnections,
    /// A reply over TCP that its client did not take in time; the connection was closed.
    NotTaken,
}

impl DropReason {
    /// Every reason, in the order of [`Counts::dropped`].
    pub const ALL: [DropReason; 13] = [
        DropReason::Short,
        DropReason::Oversized,
        DropReason::NotAQuery,
        DropReason::SourcePortZero,
        DropReason::SlowPathFull,
        DropReason::SendFailed,
        DropReason::TcpConnections,
        DropReason::Policy,
        DropReason::QueueFull,
        DropReason::TooLate,
        DropReason::ClientRate,
        DropReason::ClientConnections,
        DropReason::NotTaken,
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
            DropReason::QueueFull => "queue_full",
            DropReason::TooLate => "too_late",
            DropReason::ClientRate => "client_rate",
            DropReason::ClientConnections => "client_connections",
            DropReason::NotTaken => "not_taken",
        }
    }
}

/// Why a question for upstreams is refused without their answer: more wait for one than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// No other client has more questions waiting.
    Full,
    /// It had waited longest of the client that had most waiting, and another client had fewer.
    GaveWay,
}

impl Crowded {
    /// Every reason, in the order of [`Counts::crowded`].
    pub const ALL: [Crowded; 2] = [Crowded::Full, Crowded::GaveWay];

    /// The reason as a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Crowded::Full => "waiting_full",
            Crowded::GaveWay => "gave_way",
        }
    }
}

/// One server block's cache, and what became of questions to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheReport {
    /// `dns://:53`.
    pub server: String,
    /// The zones it is for, separated by commas, with their final dots.
    pub zones: String,
    /// The block's `view`; empty without.
    pub view: String,
    /// Answers and denials kept at this moment.
    pub entries: [u64; 2],
    /// Questions whose answer, or denial, was kept.
    pub hits: [u64; 2],
    /// Questions that were not in the cache.
    pub misses: u64,
    /// Answers given past their time.
    pub served_stale: u64,
    /// Answers fetched again before their time.
    pub prefetches: u64,
    /// Answers and denials removed for others.
    pub evictions: [u64; 2],
}

/// One `forward` and what became of its questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardReport {
    /// Whom it asks, separated by commas: addresses, and files that name them.
    pub to: String,
    /// Questions beyond `max_concurrent`.
    pub rejects: u64,
    /// Questions asked although no upstream was known to answer.
    pub broken: u64,
    /// Nanoseconds from question to reply by response code, by [`DURATION_BOUNDS`].
    pub durations: Vec<(u16, HistogramReport)>,
    /// Probes that failed, by upstream.
    pub failed_probes: Vec<(std::net::SocketAddr, u64)>,
}

/// The plugins of one server block in force that have a say in answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnabledReport {
    /// Which block and zone.
    pub labels: Labels,
    /// By name, as they are written.
    pub plugins: Vec<String>,
}

/// One `hosts` and its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostsReport {
    /// As it was named.
    pub file: String,
    /// Names of addresses and addresses of names, the Corefile's own included.
    pub entries: u64,
    /// When the file that is in force was changed last.
    pub modified: Option<std::time::SystemTime>,
}

/// Nanoseconds from a change's cause to its names, by [`PROGRAMMING_BOUNDS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgrammingReport {
    /// Of Services with an address of their own.
    pub cluster_ip: HistogramReport,
    /// Of headless ones with a selector.
    pub headless: HistogramReport,
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
    /// Questions without room among those that wait, by the order of [`Crowded::ALL`]. They are refused,
    /// but for those that a stale answer is kept for.
    pub crowded: [u64; Crowded::ALL.len()],
    /// Panics caught; each is a bug worth reporting.
    pub panics: u64,
    /// Every server block and zone there was since the start.
    pub sites: Vec<SiteCounts>,
    /// The caches in force.
    pub caches: Vec<CacheReport>,
    /// The forwarding in force.
    pub forwards: Vec<ForwardReport>,
    /// Server blocks in force, by zone.
    pub enabled: Vec<EnabledReport>,
    /// The `hosts` in force.
    pub hosts: Vec<HostsReport>,
    /// How late names are.
    pub programming: ProgrammingReport,
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
    /// Where it counts what it answers itself.
    pub(crate) slot: Slot,
    /// Where the slow path counts for it.
    pub(crate) shared: Slot,
    dropped: [AtomicU64; DropReason::ALL.len()],
    crowded: [AtomicU64; Crowded::ALL.len()],
}

impl Counters {
    pub(crate) fn dropped(&self, reason: DropReason, count: u64) {
        if let Some(counter) = self.dropped.get(reason as usize) {
            counter.fetch_add(count, Relaxed);
        }
    }

    pub(crate) fn crowded(&self, reason: Crowded) {
        if let Some(counter) = self.crowded.get(reason as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }
}

/// A duration as histograms count it.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// All threads' counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Arc<Mutex<Vec<Arc<Counters>>>>);

impl Registry {
    /// Counters for one more thread; `worker` is its number if it is a UDP thread.
    pub(crate) fn add(&self, way: Way, worker: Option<usize>) -> Arc<Counters> {
        let shared = Slot::shared(way);
        let slot = worker.map_or(shared, Slot::of_worker);
        let counters = Arc::new(Counters { slot, shared, ..Counters::default() });
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
            let dropped = sum.dropped.iter_mut().zip(&one.dropped);
            let crowded = sum.crowded.iter_mut().zip(&one.crowded);
            dropped.chain(crowded).for_each(|(sum, count)| *sum += count.load(Relaxed));
        }
        sum
    }
}
