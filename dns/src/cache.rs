//! Answers of upstreams, kept as wire bytes for the time they are good for.
//!
//! A fixed number of places, each replaced atomically: readers take no lock, and memory is bounded by
//! places and by bytes. Only what answers the question is kept (RFC 5452 §6): never a record that
//! merely came along.

mod entry;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use ipnetwork::IpNetwork;

pub(crate) use entry::{Entry, Freshness, only_what_was_asked};

use crate::{
    corefile::{CacheOptions, Stale},
    counters::{CacheReport, Labels},
    error::DnsError,
    policy::{ZoneName, with_dot, zone_names},
    wire::name::LowerName,
};

/// Places a name may be in.
const WAYS: usize = 4;
/// Largest reply that is kept, in bytes.
const ENTRY_BYTES_MAX: usize = 8192;
/// All entries of one half together, in bytes.
const BYTES_MAX: usize = 16 << 20;
/// Places emptied at most to make room for one entry.
const EVICTIONS_MAX: usize = 64;

/// What tells cached answers apart beside name and type (CVE-2024-0874: CD was forgotten).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Flavour {
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
    /// The network of the client that upstreams were told (RFC 7871 §7.3.1).
    pub(crate) subnet: Option<IpNetwork>,
}

/// A server block's cache.
#[derive(Debug)]
pub(crate) struct Cache {
    options: CacheOptions,
    zones: Box<[ZoneName]>,
    no_success: Box<[ZoneName]>,
    no_denial: Box<[ZoneName]>,
    success: Half,
    denial: Half,
    hasher: RandomState,
    /// Of answers and of denials.
    evictions: [AtomicU64; 2],
}

#[derive(Debug)]
struct Half {
    sets: Box<[[ArcSwapOption<Entry>; WAYS]]>,
    bytes: AtomicUsize,
    entries: AtomicUsize,
    /// Where room is made next.
    hand: AtomicUsize,
}

impl Cache {
    pub(crate) fn new(options: &CacheOptions) -> Result<Self, DnsError> {
        Ok(Self {
            zones: zone_names(&options.zones)?,
            no_success: zone_names(&options.no_success)?,
            no_denial: zone_names(&options.no_denial)?,
            success: Half::new(options.success.capacity),
            denial: Half::new(options.denial.capacity),
            hasher: RandomState::new(),
            evictions: Default::default(),
            options: options.clone(),
        })
    }

    /// How long after its time an entry may be served; `None`: never.
    pub(crate) fn stale(&self) -> Option<Stale> {
        self.options.stale
    }

    /// The entry for a question, as long as it may be served, stale or not.
    pub(crate) fn find(
        &self,
        name: &LowerName,
        qtype: u16,
        flavour: Flavour,
        now: Instant,
    ) -> Option<(Arc<Entry>, Freshness)> {
        let entry = self.served(name, qtype, flavour, now)?;
        let freshness = entry.freshness(now, self.options.prefetch.as_ref());
        Some((entry, freshness))
    }

    /// Whether there is an entry for a question that may be served, stale or not.
    pub(crate) fn keeps(
        &self,
        name: &LowerName,
        qtype: u16,
        flavour: Flavour,
        now: Instant,
    ) -> bool {
        self.served(name, qtype, flavour, now).is_some()
    }

    fn served(
        &self,
        name: &LowerName,
        qtype: u16,
        flavour: Flavour,
        now: Instant,
    ) -> Option<Arc<Entry>> {
        let hash = self.hash(name.as_bytes(), qtype, flavour);
        let period = self.options.stale.map_or(Duration::ZERO, |stale| stale.period);
        [&self.success, &self.denial].into_iter().find_map(|half| {
            let entry = half.find(hash, name.as_bytes(), qtype, flavour)?;
            // A failure is known for its time alone (RFC 9520 §3.2).
            let period = if entry.is_failure() { Duration::ZERO } else { period };
            let over = now.saturating_duration_since(entry.ends());
            (now < entry.ends() || over < period).then_some(entry)
        })
    }

    /// Keeps an answer, if it may be kept. What the name was before it is no more, whether or not: a name
    /// that is denied now, or whose addresses are good for this moment only, must not be answered stale.
    pub(crate) fn insert(&self, name: &LowerName, entry: Entry) {
        let (qtype, flavour, is_failure) = (entry.qtype, entry.flavour, entry.is_failure());
        let Some(mut entry) = self.admitted(name, entry) else {
            if !is_failure {
                self.forget(name, qtype, flavour);
            }
            return;
        };
        let hash = self.hash(name.as_bytes(), qtype, flavour);
        let [of_answers, of_denials] = &self.evictions;
        let (half, other, evictions) = match entry.is_denial() {
            true => (&self.denial, &self.success, of_denials),
            false => (&self.success, &self.denial, of_answers),
        };
        if let Some(before) = half.find(hash, name.as_bytes(), qtype, flavour) {
            entry.follow(&before);
        }
        if !is_failure {
            other.remove(hash, name.as_bytes(), qtype, flavour);
        }
        evictions.fetch_add(half.insert(hash, &Arc::new(entry)), Relaxed);
    }

    /// Forgets what a name was: upstreams say something else now that may not be kept.
    pub(crate) fn forget(&self, name: &LowerName, qtype: u16, flavour: Flavour) {
        let hash = self.hash(name.as_bytes(), qtype, flavour);
        for half in [&self.success, &self.denial] {
            half.remove(hash, name.as_bytes(), qtype, flavour);
        }
    }

    /// Whether a name is in the zones that the `cache` line names.
    pub(crate) fn is_for(&self, name: &LowerName) -> bool {
        self.zones.is_empty() || self.zones.iter().any(|zone| zone.holds(name))
    }

    /// An answer with this cache's bounds; `None` if it may not be kept.
    fn admitted(&self, name: &LowerName, mut entry: Entry) -> Option<Entry> {
        let in_zones = |zones: &[ZoneName]| zones.iter().any(|zone| zone.holds(name));
        let (bounds, disabled) = match entry.is_denial() {
            true => (self.options.denial, &self.no_denial),
            false => (self.options.success, &self.no_success),
        };
        if !self.is_for(name) || in_zones(disabled) || entry.bytes() > ENTRY_BYTES_MAX {
            return None;
        }
        if entry.is_failure() {
            entry.limit(0, u32::try_from(self.options.servfail.as_secs()).unwrap_or(0));
        } else {
            entry.limit(bounds.min_ttl_seconds, bounds.max_ttl_seconds);
        }
        if entry.lifetime().is_zero() {
            return None;
        }
        entry.keep_ttl = self.options.keep_ttl;
        if let Some(stale) = self.options.stale {
            entry.stale_ttl_seconds = stale.ttl_seconds;
            entry.recheck = stale.failure_recheck;
        }
        Some(entry)
    }

    /// A time to live as an answer that was not kept before is told it, in seconds: as the next one is.
    pub(crate) fn ttl(&self, ttl: u32, is_denial: bool) -> u32 {
        let half = if is_denial { self.options.denial } else { self.options.success };
        ttl.max(half.min_ttl_seconds).min(half.max_ttl_seconds)
    }

    /// What is kept; what became of questions is counted by server block.
    pub(crate) fn report(&self, labels: &Labels) -> CacheReport {
        let zones = match &self.options.zones[..] {
            [] => labels.zone.clone(),
            zones => zones.iter().map(|zone| with_dot(zone)).collect::<Vec<_>>().join(","),
        };
        CacheReport {
            server: labels.server.clone(),
            zones,
            view: labels.view.clone(),
            entries: [&self.success, &self.denial].map(|half| half.entries.load(Relaxed) as u64),
            evictions: self.evictions.each_ref().map(|count| count.load(Relaxed)),
            ..CacheReport::default()
        }
    }

    fn hash(&self, name: &[u8], qtype: u16, flavour: Flavour) -> u64 {
        self.hasher.hash_one((name, qtype, flavour))
    }
}

impl Half {
    fn new(capacity: usize) -> Self {
        let sets = (0..capacity.div_ceil(WAYS).max(1)).map(|_| Default::default());
        Self {
            sets: sets.collect(),
            bytes: AtomicUsize::new(0),
            entries: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    fn set(&self, hash: u64) -> &[ArcSwapOption<Entry>] {
        let index = usize::try_from(hash % self.sets.len() as u64).unwrap_or(0);
        self.sets.get(index).map_or(&[], |set| set)
    }

    fn find(&self, hash: u64, name: &[u8], qtype: u16, flavour: Flavour) -> Option<Arc<Entry>> {
        self.set(hash).iter().find_map(|place| {
            let entry = place.load();
            entry.as_ref().filter(|entry| entry.is_for(name, qtype, flavour)).cloned()
        })
    }

    fn remove(&self, hash: u64, name: &[u8], qtype: u16, flavour: Flavour) {
        for place in self.set(hash) {
            let is_it = place.load().as_ref().is_some_and(|e| e.is_for(name, qtype, flavour));
            if is_it {
                self.account(None, place.swap(None).as_deref());
            }
        }
    }

    /// Puts an entry in the place of its older self, into a free place, or into that of the one
    /// that ends first. Returns how many others went.
    fn insert(&self, hash: u64, new: &Arc<Entry>) -> u64 {
        let mut evicted = self.make_room(new.bytes());
        let set = self.set(hash);
        let worth = |place: &&ArcSwapOption<Entry>| {
            place
                .load()
                .as_ref()
                .map(|old| {
                    let same = old.is_for(new.name(), new.qtype, new.flavour);
                    (!same, Some(old.ends()))
                })
                .unwrap_or((true, None))
        };
        let Some(place) = set.iter().min_by_key(worth) else { return evicted };
        // Before anyone can find it, and take it out of the account.
        self.account(Some(new), None);
        let old = place.swap(Some(new.clone()));
        let same = |old: &Arc<Entry>| old.is_for(new.name(), new.qtype, new.flavour);
        evicted += u64::from(old.as_ref().is_some_and(|old| !same(old)));
        self.account(None, old.as_deref());
        evicted
    }

    /// Empties places in turn until so many bytes have room.
    fn make_room(&self, bytes: usize) -> u64 {
        let mut evicted = 0;
        for _ in 0..EVICTIONS_MAX {
            if self.bytes.load(Relaxed) + bytes <= BYTES_MAX {
                break;
            }
            let hand = self.hand.fetch_add(1, Relaxed);
            for place in self.sets.get(hand % self.sets.len()).into_iter().flatten() {
                let old = place.swap(None);
                evicted += u64::from(old.is_some());
                self.account(None, old.as_deref());
            }
        }
        evicted
    }

    fn account(&self, new: Option<&Entry>, old: Option<&Entry>) {
        if let Some(new) = new {
            self.bytes.fetch_add(new.bytes(), Relaxed);
            self.entries.fetch_add(1, Relaxed);
        }
        if let Some(old) = old {
            self.bytes.fetch_sub(old.bytes(), Relaxed);
            self.entries.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
