//! A plain question and the zone make a reply: the same for UDP, TCP and the slow path.

mod records;

use std::{sync::atomic::Ordering::Relaxed, time::Instant};

use hickory_proto::op::ResponseCode;

use self::records::Records;
use crate::{
    cache::{Cache, Flavour, Freshness},
    corefile::AclAction,
    counters::{Book, CacheUse, Plugin},
    plugins::Claim,
    policy::{Asking, Site},
    wire::{
        question::Question,
        rcode,
        reply::{Flags, Reply},
    },
    zone::{Zone, lookup::Found},
};

/// What became of a plain question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is a reply.
    Reply(Made),
    /// As `Reply`, from the cache; the upstreams should be asked again meanwhile.
    Refresh(Made),
    /// The slow path must look further: an alias.
    Elsewhere,
    /// Not a name of the zone.
    Outside,
}

/// A reply in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) bytes: usize,
    /// Response code.
    pub(crate) code: u8,
    pub(crate) by: Plugin,
}

/// How replies of this server are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Largest reply, in bytes.
    pub(crate) limit: usize,
    /// RA flag: there are upstreams to ask.
    pub(crate) recursion_available: bool,
    /// Which of several addresses comes first; changes with every query.
    pub(crate) rotation: usize,
    /// Nothing beside the answer.
    pub(crate) minimal: bool,
}

/// Which address comes first in a thread's `turn`th reply. Turns are scattered, not counted
/// through: clients ask for A and AAAA in turn, so that each type would see every second rotation
/// only, and of two addresses always the same one. Whatever the number of addresses and however many turns lie
/// between a client's questions, each is first as often as by chance.
pub(crate) fn rotation(turn: u32) -> usize {
    // Once is not enough (Fibonacci hashing): of 21 addresses every 15th turn met one a sixth too seldom.
    let mixed = u64::from(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    usize::try_from(mixed >> 32).unwrap_or(0)
}

/// A plain question on its way through a server block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain<'q> {
    pub(crate) asking: Asking<'q>,
    /// Largest reply the client takes, in bytes.
    pub(crate) limit: usize,
    /// See [`rotation`].
    pub(crate) rotation: usize,
    /// Where what becomes of it is counted.
    pub(crate) book: Option<Book<'q>>,
}

/// Answers by the zone or from the cache what can be answered at once.
pub(crate) fn at_once(site: &Site, zone: &Zone, plain: Plain<'_>, buffer: &mut [u8]) -> Outcome {
    let Asking { question, query, source, .. } = plain.asking;
    let plain = Plain { rotation: if site.rotate { plain.rotation } else { 0 }, ..plain };
    let name = &question.name;
    // Policy first, whatever comes after it (CVE-2026-26017).
    let allowed = site.verdict(source.ip(), name, question.qtype) == AclAction::Allow;
    if !allowed || site.is_logged(name) {
        return Outcome::Elsewhere;
    }
    if let Some(plugins) = &site.plugins {
        if plugins.weigh(question.qtype) {
            return Outcome::Elsewhere;
        }
        match plugins.claim(plain.asking) {
            Claim::None => {}
            Claim::Code(code) => {
                let outcome = bare_code(site, plain, code, buffer);
                return completed(site, zone, plain.asking, outcome, buffer);
            }
            Claim::Slow => return Outcome::Elsewhere,
        }
    }
    if site.hosts_first(name) {
        return Outcome::Elsewhere;
    }
    let manner = Manner {
        limit: plain.limit,
        recursion_available: site.has_upstreams(),
        rotation: plain.rotation,
        minimal: site.minimal,
    };
    if site.kubernetes {
        let outcome = answer(zone, question, query, buffer, manner);
        if outcome != Outcome::Outside {
            return completed(site, zone, plain.asking, outcome, buffer);
        }
    }
    let cache = site.cache.as_deref();
    let kept = cache.and_then(|cache| from_cache((site, cache), zone, plain, buffer));
    kept.unwrap_or(Outcome::Elsewhere)
}

/// A reply with what plugins change of it; those that one has to make anew go the slow path.
fn completed(
    site: &Site,
    zone: &Zone,
    asking: Asking<'_>,
    outcome: Outcome,
    buffer: &mut [u8],
) -> Outcome {
    let (Outcome::Reply(made), Some(plugins)) = (outcome, &site.plugins) else { return outcome };
    let reply = buffer.get_mut(..made.bytes).unwrap_or_default();
    if plugins.finish(asking, zone, reply) { outcome } else { Outcome::Elsewhere }
}

/// A response code that a plugin gives without records.
fn bare_code(site: &Site, plain: Plain<'_>, code: ResponseCode, buffer: &mut [u8]) -> Outcome {
    let Plain { asking: Asking { question, query, .. }, limit, .. } = plain;
    let Some(reply) = Reply::begin(buffer, limit, query, question) else {
        return Outcome::Elsewhere;
    };
    let flags = Flags { authoritative: true, recursion_available: site.has_upstreams() };
    let code = code.low();
    let bytes = reply.finish(question, code, flags);
    Outcome::Reply(Made { bytes, code, by: Plugin::Template })
}

/// A kept answer. RD must be set: without it a client asks what this server knows by itself.
fn from_cache(
    (site, cache): (&Site, &Cache),
    zone: &Zone,
    plain: Plain<'_>,
    buffer: &mut [u8],
) -> Option<Outcome> {
    let Plain { asking: Asking { question, query, .. }, limit, rotation, book } = plain;
    if query.get(2)? & 0x01 == 0 {
        return None;
    }
    let flavour = Flavour {
        dnssec_ok: question.edns.is_some_and(|edns| edns.dnssec_ok),
        checking_disabled: query.get(3)? & 0x10 != 0,
        subnet: None,
    };
    let now = Instant::now();
    // A miss is the slow path's to count, which asks the upstreams then.
    let (entry, freshness) = cache.find(&question.name, question.qtype, flavour, now)?;
    let is_stale = matches!(freshness, Freshness::Stale(_));
    let ask_first = is_stale && cache.stale().is_some_and(|stale| stale.verify);
    let failed_lately = is_stale && entry.failed_lately(now);
    if ask_first && !failed_lately {
        return None;
    }
    let (bytes, code) = entry.answer(question, query, buffer, limit, now, rotation)?;
    let made = Made { bytes, code, by: Plugin::Cache };
    // Before anything is noted: the slow path comes by the entry once more.
    if completed(site, zone, plain.asking, Outcome::Reply(made), buffer) == Outcome::Elsewhere {
        return Some(Outcome::Elsewhere);
    }
    book.into_iter().for_each(|book| book.kept(entry.is_denial(), is_stale));
    if freshness == Freshness::Fresh || failed_lately || entry.refreshing.swap(true, Relaxed) {
        return Some(Outcome::Reply(made));
    }
    if freshness == Freshness::Prefetch {
        book.into_iter().for_each(|book| book.cached(CacheUse::Prefetch));
    }
    Some(Outcome::Refresh(made))
}

/// Answers `query`, which `question` has read, into `buffer`.
pub(crate) fn answer(
    zone: &Zone,
    question: &Question,
    query: &[u8],
    buffer: &mut [u8],
    manner: Manner,
) -> Outcome {
    let (found, authority) = zone.lookup(&question.name, question.qtype);
    match found {
        Found::Alias(_) => return Outcome::Elsewhere,
        Found::Outside => return Outcome::Outside,
        _ => {}
    }
    let Some(mut reply) = Reply::begin(buffer, manner.limit, query, question) else {
        return Outcome::Elsewhere;
    };
    reply.minimal = manner.minimal;
    let mut code = rcode::NO_ERROR;
    match found {
        Found::Soa => {
            authority.into_iter().for_each(|soa| soa.answer(&mut reply, &question.name));
        }
        Found::NoData | Found::NoName | Found::NotSynced => {
            code = match found {
                Found::NoName => rcode::NO_SUCH_NAME,
                Found::NotSynced => rcode::SERVER_FAILURE,
                _ => rcode::NO_ERROR,
            };
            authority.into_iter().for_each(|soa| soa.deny(&mut reply, &question.name));
        }
        found => {
            let rotation = manner.rotation;
            Records { reply: &mut reply, zone, question, rotation }.put(&found);
        }
    }
    let flags = Flags { authoritative: true, recursion_available: manner.recursion_available };
    let bytes = reply.finish(question, code, flags);
    Outcome::Reply(Made { bytes, code, by: Plugin::Kubernetes })
}

#[cfg(test)]
mod tests {
    use super::rotation;

    #[test]
    fn each_of_several_addresses_is_first_equally_often_in_every_nth_turn() {
        const TIMES: u32 = 200;
        for (addresses, stride) in (2..=64).flat_map(|n| (1..=32).map(move |stride| (n, stride))) {
            let mut first = vec![0_u32; addresses];
            for question in 0..TIMES * u32::try_from(addresses).unwrap() {
                first[rotation(question * stride) % addresses] += 1;
            }
            // Five standard deviations of chance.
            let spread = f64::from(TIMES).sqrt() * 5.0;
            let is_fair = |times: &u32| f64::from(times.abs_diff(TIMES)) < spread;
            assert!(first.iter().all(is_fair), "{addresses} addresses, every {stride}: {first:?}");
        }
    }
}
