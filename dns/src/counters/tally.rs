//! What server blocks were asked and answered, by CoreDNS's labels. Each UDP thread has counters of
//! its own, which nobody else writes; all other ways in share one set each.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::histogram::{DURATION_BOUNDS, Histogram, HistogramReport, SIZE_BOUNDS};

/// Types counted one by one, with their names: CoreDNS's. The rest are `other`.
pub const QTYPES: [(u16, &str); 19] = [
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
    (64, "SVCB"),
    (43, "DS"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
];

/// Each type below 256 in [`QTYPES`].
#[expect(clippy::cast_possible_truncation, reason = "the list is short")]
const PLACES: [u8; 256] = {
    let mut places = [QTYPES.len() as u8; 256];
    let mut at = 0;
    while at < QTYPES.len() {
        #[expect(clippy::indexing_slicing, reason = "computed by the compiler")]
        {
            places[QTYPES[at].0 as usize] = at as u8;
        }
        at += 1;
    }
    places
};

/// Response codes that are counted one by one; those above are counted as the last, BADVERS.
pub const RCODES: usize = 17;

/// Who made a reply: CoreDNS's label `plugin`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plugin {
    /// The server itself.
    #[default]
    None,
    /// The cluster's names.
    Kubernetes,
    /// A kept answer.
    Cache,
    /// Upstreams.
    Forward,
    /// `hosts`.
    Hosts,
    /// `template`.
    Template,
    /// `acl`.
    Acl,
    /// `any`.
    Any,
    /// `whoami`.
    Whoami,
    /// `k8s_external`.
    External,
}

impl Plugin {
    /// Every one, in the order of [`SiteCounts::replies`].
    pub const ALL: [Plugin; 10] = [
        Plugin::None,
        Plugin::Kubernetes,
        Plugin::Cache,
        Plugin::Forward,
        Plugin::Hosts,
        Plugin::Template,
        Plugin::Acl,
        Plugin::Any,
        Plugin::Whoami,
        Plugin::External,
    ];

    /// As CoreDNS writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Plugin::None => "",
            Plugin::Kubernetes => "kubernetes",
            Plugin::Cache => "cache",
            Plugin::Forward => "forward",
            Plugin::Hosts => "hosts",
            Plugin::Template => "template",
            Plugin::Acl => "acl",
            Plugin::Any => "any",
            Plugin::Whoami => "whoami",
            Plugin::External => "k8s_external",
        }
    }
}

/// Where queries come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// TCP, not UDP.
    pub tcp: bool,
    /// IPv6, not IPv4.
    pub ipv6: bool,
}

impl Way {
    /// Every one, in the order of [`SiteCounts::requests`].
    pub const ALL: [Way; 4] = [
        Way { tcp: false, ipv6: false },
        Way { tcp: false, ipv6: true },
        Way { tcp: true, ipv6: false },
        Way { tcp: true, ipv6: true },
    ];

    fn index(self) -> usize {
        usize::from(self.tcp) * 2 + usize::from(self.ipv6)
    }
}

/// What tells server blocks' counters apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// `dns://:53`.
    pub server: String,
    /// With the final dot; `dropped` for questions that no server block takes.
    pub zone: String,
    /// Of `view`; empty without.
    pub view: String,
}

/// Which counters a thread may write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    index: usize,
    /// Nobody else writes them.
    alone: bool,
}

impl Slot {
    /// Those that all who take queries of one way share.
    pub(crate) fn shared(way: Way) -> Self {
        Self { index: way.index(), alone: false }
    }

    /// Those of one UDP thread.
    pub(crate) fn of_worker(number: usize) -> Self {
        Self { index: Way::ALL.len() + number, alone: true }
    }
}

/// Counters of one server block and zone, filled by one thread or one way in.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Tally {
    types: [AtomicU64; QTYPES.len() + 1],
    replies: [[AtomicU64; RCODES]; Plugin::ALL.len()],
    durations: Histogram<{ DURATION_BOUNDS.len() }>,
    request_bytes: Histogram<{ SIZE_BOUNDS.len() }>,
    response_bytes: Histogram<{ SIZE_BOUNDS.len() }>,
    dnssec_ok: AtomicU64,
    cache: [AtomicU64; CacheUse::COUNT],
    walks: AtomicU64,
    /// By type, of what templates answered.
    templates: [AtomicU64; QTYPES.len() + 1],
    dropped: AtomicU64,
    translated: AtomicU64,
}

/// A question and its answer, as they are counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) qtype: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) query_bytes: usize,
    pub(crate) by: Plugin,
    pub(crate) code: u16,
    pub(crate) reply_bytes: usize,
}

/// What became of a question to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheUse {
    /// Answered by a kept answer.
    Success,
    /// Answered by a kept denial.
    Denial,
    /// Not in the cache.
    Miss,
    /// Answered past its time.
    Stale,
    /// Fetched again before its time.
    Prefetch,
}

impl CacheUse {
    const COUNT: usize = 5;
}

/// The right to write one set of counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Book<'t> {
    tally: &'t Tally,
    alone: bool,
}

impl Book<'_> {
    fn add(self, counter: &AtomicU64, count: u64) {
        if self.alone {
            // The only writer needs no locked instruction.
            counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
        } else {
            counter.fetch_add(count, Relaxed);
        }
    }

    /// Whether both write the same.
    pub(crate) fn is_same(self, other: Self) -> bool {
        std::ptr::eq(self.tally, other.tally)
    }

    pub(crate) fn answered(self, answered: Answered) {
        let Answered { qtype, dnssec_ok, query_bytes, by, code, reply_bytes } = answered;
        self.by_type(&self.tally.types, qtype);
        if dnssec_ok {
            self.add(&self.tally.dnssec_ok, 1);
        }
        self.size(&self.tally.request_bytes, query_bytes);
        let code = usize::from(code).min(RCODES - 1);
        if let Some(counter) = self.tally.replies.get(by as usize).and_then(|all| all.get(code)) {
            self.add(counter, 1);
        }
        if by == Plugin::Template {
            self.by_type(&self.tally.templates, qtype);
        }
        self.size(&self.tally.response_bytes, reply_bytes);
    }

    /// `acl` said drop.
    pub(crate) fn dropped(self) {
        self.add(&self.tally.dropped, 1);
    }

    /// `dns64` made an answer of IPv4 addresses.
    pub(crate) fn translated(self) {
        self.add(&self.tally.translated, 1);
    }

    /// So many answers took so long each.
    pub(crate) fn took(self, nanoseconds: u64, answers: u64) {
        let [count, sum] = self.tally.durations.places(&DURATION_BOUNDS, nanoseconds);
        self.add(count, answers);
        self.add(sum, nanoseconds.saturating_mul(answers));
    }

    pub(crate) fn cached(self, what: CacheUse) {
        if let Some(counter) = self.tally.cache.get(what as usize) {
            self.add(counter, 1);
        }
    }

    /// Answered by a kept answer or denial, perhaps past its time.
    pub(crate) fn kept(self, is_denial: bool, is_stale: bool) {
        self.cached(if is_denial { CacheUse::Denial } else { CacheUse::Success });
        if is_stale {
            self.cached(CacheUse::Stale);
        }
    }

    /// `autopath` has found a name further along the search path.
    pub(crate) fn walked(self) {
        self.add(&self.tally.walks, 1);
    }

    fn by_type(self, counters: &[AtomicU64; QTYPES.len() + 1], qtype: u16) {
        let place = PLACES.get(usize::from(qtype)).map_or(QTYPES.len(), |place| (*place).into());
        if let Some(counter) = counters.get(place) {
            self.add(counter, 1);
        }
    }

    fn size(self, histogram: &Histogram<{ SIZE_BOUNDS.len() }>, bytes: usize) {
        let [count, sum] = histogram.places(&SIZE_BOUNDS, bytes as u64);
        self.add(count, 1);
        self.add(sum, bytes as u64);
    }
}

/// All threads' counters of one server block and zone.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) labels: Labels,
    /// Made when they are first needed.
    slots: Box<[OnceLock<Box<Tally>>]>,
}

impl Ledger {
    /// `None` where nothing is counted.
    pub(crate) fn book(&self, slot: Slot) -> Option<Book<'_>> {
        let tally = self.slots.get(slot.index)?.get_or_init(Box::default);
        Some(Book { tally, alone: slot.alone })
    }
}

/// All server blocks', old and new: what a block has counted stays when it is configured anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledgers {
    /// The way in of each slot.
    ways: Arc<[Way]>,
    known: Arc<Mutex<Vec<Arc<Ledger>>>>,
}

impl Ledgers {
    /// For UDP threads of these ways in.
    pub(crate) fn new(workers: impl IntoIterator<Item = Way>) -> Self {
        let ways = Way::ALL.into_iter().chain(workers).collect();
        Self { ways, known: Arc::default() }
    }

    /// The counters with these labels.
    pub(crate) fn of(&self, labels: Labels) -> Arc<Ledger> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ledger) = known.iter().find(|ledger| ledger.labels == labels) {
            return ledger.clone();
        }
        let slots = self.ways.iter().map(|_| OnceLock::new()).collect();
        let ledger = Arc::new(Ledger { labels, slots });
        known.push(ledger.clone());
        ledger
    }

    pub(crate) fn sum(&self) -> Vec<SiteCounts> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|ledger| ledger.sum(&self.ways)).collect()
    }
}

/// What one server block and zone was asked and answered since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteCounts {
    /// Which.
    pub labels: Labels,
    /// Questions by way in and type: in the orders of [`Way::ALL`] and [`QTYPES`], then all others.
    pub requests: [[u64; QTYPES.len() + 1]; 4],
    /// Questions with the DO bit.
    pub dnssec_ok: u64,
    /// Replies by who made them, in the order of [`Plugin::ALL`], and response code; the last also
    /// counts all codes above.
    pub replies: [[u64; RCODES]; Plugin::ALL.len()],
    /// Nanoseconds from question to reply, by [`DURATION_BOUNDS`].
    pub durations: HistogramReport,
    /// Bytes of questions by UDP and TCP, by [`SIZE_BOUNDS`].
    pub request_bytes: [HistogramReport; 2],
    /// Bytes of replies.
    pub response_bytes: [HistogramReport; 2],
    /// Questions answered by a kept answer, by a kept denial, not in the cache, answered past their
    /// time, and fetched again before it.
    pub cache: [u64; CacheUse::COUNT],
    /// Answers that `autopath` found further along the search path.
    pub walks: u64,
    /// Answers of `template` by type: in the order of [`QTYPES`], then all others.
    pub templates: [u64; QTYPES.len() + 1],
    /// Questions that `acl` dropped: there is neither a request nor a reply of theirs.
    pub dropped: u64,
    /// Answers that `dns64` made of IPv4 addresses.
    pub translated: u64,
}

impl Ledger {
    pub(crate) fn sum(&self, ways: &[Way]) -> SiteCounts {
        let mut sum = SiteCounts { labels: self.labels.clone(), ..SiteCounts::default() };
        for (way, slot) in ways.iter().zip(&self.slots) {
            let Some(tally) = slot.get() else { continue };
            if let Some(requests) = sum.requests.get_mut(way.index()) {
                add(requests, &tally.types);
            }
            for (replies, counters) in sum.replies.iter_mut().zip(&tally.replies) {
                add(replies, counters);
            }
            sum.dnssec_ok += tally.dnssec_ok.load(Relaxed);
            tally.durations.add_to(&mut sum.durations);
            let proto = usize::from(way.tcp);
            for (histogram, reports) in [
                (&tally.request_bytes, &mut sum.request_bytes),
                (&tally.response_bytes, &mut sum.response_bytes),
            ] {
                if let Some(report) = reports.get_mut(proto) {
                    histogram.add_to(report);
                }
            }
            add(&mut sum.cache, &tally.cache);
            sum.walks += tally.walks.load(Relaxed);
            add(&mut sum.templates, &tally.templates);
            sum.dropped += tally.dropped.load(Relaxed);
            sum.translated += tally.translated.load(Relaxed);
        }
        sum
    }
}

fn add(sums: &mut [u64], counters: &[AtomicU64]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.load(Relaxed);
    }
}
