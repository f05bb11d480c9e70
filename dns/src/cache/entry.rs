//! One kept answer.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::Flavour;
use crate::{
    corefile::Prefetch,
    wire::{
        HEADER_BYTES,
        name::LowerName,
        question::Question,
        rcode,
        record::{each_record, owner_bytes},
        reply::{Flags, Reply},
        rtype,
    },
};

/// Aliases followed within one answer.
const ALIASES_MAX: usize = 16;
/// Type, algorithm, labels, time to live, two times and the key's tag stand before it.
const RRSIG_SIGNER_AT: usize = 18;

/// A reply without its header, question and OPT record.
#[derive(Debug)]
pub(crate) struct Entry {
    name: Box<[u8]>,
    pub(super) qtype: u16,
    pub(super) flavour: Flavour,
    code: u8,
    authoritative: bool,
    authentic: bool,
    /// No such name, no such record, or a failure; there may be aliases.
    denies: bool,
    /// Records as they stood behind header and question: compression pointers count from there.
    records: Box<[u8]>,
    answers: u16,
    turning: Turning,
    stored: Instant,
    lifetime_seconds: u32,
    /// The shortest time to live that is told while it is fresh.
    ttl_min: u32,
    /// The longest.
    ttl_max: u32,
    pub(super) keep_ttl: bool,
    /// The time to live that is told past the end.
    pub(super) stale_ttl_seconds: u32,
    /// After a failure stale answers are given without asking for so long.
    pub(super) recheck: Duration,
    /// Questions without a longer pause than `prefetch` allows.
    hits: AtomicU32,
    /// Seconds after `stored`.
    last_hit: AtomicU64,
    /// When the upstreams last failed, in milliseconds after `stored`, plus one; 0: never.
    failed: AtomicU64,
    /// Someone is asking again.
    pub(crate) refreshing: AtomicBool,
}

/// Addresses among the answers, of one length and in a row: the client's first may be any of them.
#[derive(Clone, Copy, Debug, Default)]
struct Turning {
    /// Where they begin in the records, in bytes.
    at: usize,
    /// Length of each.
    record_bytes: usize,
    count: usize,
}

/// How good an entry still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh,
    /// Popular and about to end: ask again meanwhile.
    Prefetch,
    /// Past its time, by so long.
    Stale(Duration),
}

impl Entry {
    /// From a complete reply with its own question; `None` if it must not be kept.
    pub(crate) fn new(
        name: &LowerName,
        qtype: u16,
        flavour: Flavour,
        reply: &Message,
        now: Instant,
    ) -> Option<Self> {
        let code = u8::try_from(u16::from(reply.metadata.response_code)).ok()?;
        let has_soa = reply.authorities.iter().any(|r| r.record_type() == RecordType::SOA);
        let is_asked = |record: &Record| u16::from(record.record_type()) == qtype;
        let denies = code != rcode::NO_ERROR || !reply.answers.iter().any(is_asked);
        let kept = match reply.metadata.response_code {
            // Aliases that lead to nothing are a denial, too (RFC 2308 §5).
            ResponseCode::NoError => !denies || has_soa,
            ResponseCode::NXDomain => has_soa,
            ResponseCode::ServFail => true,
            _ => false,
        };
        let bytes = reply.to_vec().ok()?;
        let records = bytes.get(HEADER_BYTES + name.len() + 4..)?;
        let answers = reply.answers.len();
        (kept && !reply.metadata.truncation).then(|| Self {
            name: name.as_bytes().into(),
            qtype,
            flavour,
            code,
            authoritative: reply.metadata.authoritative,
            authentic: reply.metadata.authentic_data,
            denies,
            records: records.into(),
            answers: u16::try_from(answers).unwrap_or(u16::MAX),
            turning: Turning::of(each_record(records).take(answers), qtype),
            stored: now,
            lifetime_seconds: lifetime(reply),
            ttl_min: 0,
            ttl_max: u32::MAX,
            keep_ttl: false,
            stale_ttl_seconds: 0,
            recheck: Duration::ZERO,
            hits: AtomicU32::new(0),
            last_hit: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refreshing: AtomicBool::new(false),
        })
    }

    pub(super) fn is_for(&self, name: &[u8], qtype: u16, flavour: Flavour) -> bool {
        self.qtype == qtype && self.flavour == flavour && *self.name == *name
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(crate) fn is_denial(&self) -> bool {
        self.denies
    }

    pub(crate) fn is_failure(&self) -> bool {
        self.code == rcode::SERVER_FAILURE
    }

    pub(super) fn bytes(&self) -> usize {
        self.records.len() + self.name.len() + size_of::<Self>()
    }

    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime_seconds.into())
    }

    pub(super) fn ends(&self) -> Instant {
        self.stored + self.lifetime()
    }

    pub(super) fn limit(&mut self, least: u32, most: u32) {
        self.lifetime_seconds = self.lifetime_seconds.max(least).min(most);
        (self.ttl_min, self.ttl_max) = (least, most);
    }

    /// Takes the place of an entry: of one that is asked for anew, it is as popular as that one.
    pub(super) fn follow(&mut self, before: &Self) {
        if before.refreshing.load(Relaxed) {
            *self.hits.get_mut() = before.hits.load(Relaxed);
        }
    }

    /// Remembers that the upstreams have no better answer just now.
    pub(crate) fn note_failure(&self, now: Instant) {
        self.failed.store(self.age_ms(now), Relaxed);
    }

    /// Whether the upstreams failed a moment ago, or are late and still being asked: nobody need wait
    /// for them once more.
    pub(crate) fn failed_lately(&self, now: Instant) -> bool {
        let failed = self.failed.load(Relaxed);
        if failed == 0 {
            return false;
        }
        let since = Duration::from_millis(self.age_ms(now).saturating_sub(failed));
        self.refreshing.load(Relaxed) || since < self.recheck
    }

    /// Plus one.
    fn age_ms(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.stored).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Counts a question and says how good the entry is.
    pub(super) fn freshness(&self, now: Instant, prefetch: Option<&Prefetch>) -> Freshness {
        let age = now.saturating_duration_since(self.stored);
        if age >= self.lifetime() {
            return Freshness::Stale(age - self.lifetime());
        }
        let Some(prefetch) = prefetch else { return Freshness::Fresh };
        let since_last = age.as_secs().saturating_sub(self.last_hit.swap(age.as_secs(), Relaxed));
        if since_last > prefetch.gap.as_secs() {
            self.hits.store(0, Relaxed);
        }
        let hits = self.hits.fetch_add(1, Relaxed) + 1;
        let left = (self.lifetime() - age).as_secs() * 100;
        let few = u64::from(self.lifetime_seconds) * u64::from(prefetch.percentage);
        if hits >= prefetch.amount && left <= few { Freshness::Prefetch } else { Freshness::Fresh }
    }

    /// The reply to a question this is the entry of, its addresses beginning with the `rotation`th; times
    /// to live are what is left of them.
    pub(crate) fn answer(
        &self,
        question: &Question,
        query: &[u8],
        buffer: &mut [u8],
        limit: usize,
        now: Instant,
        rotation: usize,
    ) -> Option<(usize, u8)> {
        let mut reply = Reply::begin(buffer, limit, query, question)?;
        let age = now.saturating_duration_since(self.stored).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        let is_over = age >= self.lifetime_seconds;
        for (number, record) in (0_u16..).zip(self.turned(rotation)) {
            let ttl_at = owner_bytes(record)? + 4;
            let ttl = record.get(ttl_at..)?.first_chunk().copied().map(u32::from_be_bytes)?;
            let whole = ttl.max(self.ttl_min).min(self.ttl_max);
            let ttl = match (is_over, self.stale_ttl_seconds) {
                (true, told @ 1..) => told,
                _ if self.keep_ttl => whole,
                (true, 0) => 0,
                (false, _) => whole.saturating_sub(age),
            };
            if !reply.aged(record, ttl_at, ttl, number < self.answers) {
                break;
            }
        }
        let wants_ad = query.get(3)? & 0x20 != 0 || self.flavour.dnssec_ok;
        let flags = Flags { authoritative: self.authoritative, recursion_available: true };
        let bytes = reply.finish(question, self.code, flags);
        if wants_ad && self.authentic {
            *buffer.get_mut(3)? |= 0x20;
        }
        Some((bytes, self.code))
    }

    /// All records, those that turn in turn.
    fn turned(&self, rotation: usize) -> impl Iterator<Item = &[u8]> {
        let Turning { at, record_bytes, count } = self.turning;
        let (before, rest) = self.records.split_at_checked(at).unwrap_or_default();
        let (all, after) = rest.split_at_checked(record_bytes * count).unwrap_or_default();
        let first = rotation % count.max(1) * record_bytes;
        let (later, sooner) = all.split_at_checked(first).unwrap_or_default();
        [before, sooner, later, after].into_iter().flat_map(each_record)
    }
}

impl Turning {
    /// Of answers of this type.
    fn of<'r>(answers: impl Iterator<Item = &'r [u8]>, qtype: u16) -> Self {
        let mut turning = Self::default();
        let is_address = [rtype::A, rtype::AAAA].contains(&qtype);
        for record in answers {
            // No name elsewhere can point into a record whose owner is a pointer.
            let head = record.first_chunk::<4>();
            let is_pointer = head.is_some_and(|[first, ..]| *first >= 0xc0);
            let rtype = head.map(|[.., high, low]| u16::from_be_bytes([*high, *low]));
            let turns = is_address && is_pointer && rtype == Some(qtype);
            let is_next = turning.count == 0 || record.len() == turning.record_bytes;
            match turns && is_next {
                true => {
                    turning.record_bytes = record.len();
                    turning.count += 1;
                }
                false if turning.count == 0 => turning.at += record.len(),
                false => break,
            }
        }
        turning
    }
}

/// The shortest time to live, in seconds; a denial's by RFC 2308 §5.
fn lifetime(reply: &Message) -> u32 {
    let of_record = |record: &Record| match &record.data {
        RData::SOA(soa) => record.ttl.min(soa.minimum),
        _ => record.ttl,
    };
    let all = reply.answers.iter().chain(&reply.authorities);
    // A failure has no records; its time is the cache's affair.
    all.map(of_record).min().unwrap_or(u32::MAX)
}

/// Leaves of an upstream's reply what answers the question: the chain of aliases from the name asked
/// and the records at its end, or the SOA of a denial, and what proves that there is no closer name (RFC 4035
/// §3.1.3). Anything else could be a poisoner's.
pub(crate) fn only_what_was_asked(reply: &mut Message, name: &Name, qtype: RecordType) {
    // Only updates have records without data (RFC 2136 §2.4), and hickory reads a reply as what it says
    // it is.
    for records in [&mut reply.answers, &mut reply.authorities] {
        records.retain(|record| !matches!(record.data, RData::Update0(_)));
    }
    let mut chain: BTreeSet<Name> = [name.to_lowercase()].into();
    for _ in 0..ALIASES_MAX {
        let before = chain.len();
        for record in &reply.answers {
            if let RData::CNAME(target) = &record.data
                && chain.contains(&record.name.to_lowercase())
            {
                chain.insert(target.0.to_lowercase());
            }
        }
        if chain.len() == before {
            break;
        }
    }
    reply.answers.retain(|record| {
        let rtype = record.record_type();
        let asked = rtype == qtype || matches!(rtype, RecordType::CNAME | RecordType::RRSIG);
        let in_chain = chain.contains(&record.name.to_lowercase());
        // A DNAME stands above the names it renames.
        let renames = rtype == RecordType::DNAME && chain.iter().any(|n| record.name.zone_of(n));
        (asked && in_chain) || renames
    });
    let is_final = reply.answers.iter().any(|record| record.record_type() == qtype);
    let is_above = |zone: &Name| chain.iter().any(|name| zone.zone_of(name));
    // Zones that say something of these names. A name that a wildcard stands for has no SOA.
    let zones: Vec<Name> = reply.authorities.iter().filter_map(zone_of).filter(is_above).collect();
    reply.authorities.retain(|record| {
        let rtype = match signature(record) {
            Some((covered, _)) => covered,
            None => record.record_type(),
        };
        match rtype {
            RecordType::SOA => !is_final && is_above(&record.name),
            RecordType::NSEC | RecordType::NSEC3 => {
                zones.iter().any(|zone| zone.zone_of(&record.name))
            }
            _ => false,
        }
    });
    reply.additionals.clear();
}

/// The zone a record of a denial or its proof is of, if it says so itself.
fn zone_of(record: &Record) -> Option<Name> {
    match record.record_type() {
        RecordType::SOA => Some(record.name.clone()),
        _ => signature(record).map(|(_, signer)| signer),
    }
}

/// What an RRSIG record covers, and the zone that has signed it (RFC 4034 §3.1).
fn signature(record: &Record) -> Option<(RecordType, Name)> {
    let RData::Unknown { code: RecordType::RRSIG, rdata } = &record.data else { return None };
    let (covered, _) = rdata.anything.split_first_chunk::<2>()?;
    let signer = rdata.anything.get(RRSIG_SIGNER_AT..)?;
    let signer = Name::read(&mut BinDecoder::new(signer)).ok()?;
    Some((u16::from_be_bytes(*covered).into(), signer))
}
