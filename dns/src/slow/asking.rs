//! From the cache, or from an upstream into the cache.

use std::{
    sync::{
        Arc,
        atomic::Ordering::{self, Relaxed},
    },
    time::Instant,
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RecordType},
    serialize::binary::BinEncodable,
};
use hickory_server::{net::xfer::Protocol, server::Request};
use tokio::time::timeout;

use super::{
    Asked, Place, SlowPath,
    chain::{Course, plain_query},
    message,
    upstreams::{TIMEOUT, Wishes, failure},
};
use crate::{
    cache::{Cache, Entry, Flavour, Freshness, only_what_was_asked},
    counters::{CacheUse, Counters, Plugin},
    policy::Site,
    wire::{
        name::LowerName,
        question::{Question, Shape, with_family},
        reply::opt_record,
        room::with_room,
    },
};

/// What comes of upstreams that do not answer.
const SILENT: Result<Message, ResponseCode> = Err(ResponseCode::ServFail);
/// The lower byte of ARCOUNT.
const ADDITIONAL_COUNT_AT: usize = 11;

/// What is asked of others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'n> {
    pub(super) name: &'n Name,
    /// The same name, lower case.
    pub(super) lower: &'n LowerName,
    pub(super) qtype: RecordType,
    pub(super) wishes: Wishes,
}

/// Since when the upstreams are being asked again for a kept answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    Now,
    Before,
}

/// What a request wants of upstreams.
pub(super) fn wishes(request: &Request) -> Wishes {
    Wishes {
        recursion_desired: request.metadata.recursion_desired,
        authentic_data: request.metadata.authentic_data,
        flavour: Flavour {
            dnssec_ok: request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
            checking_disabled: request.metadata.checking_disabled,
            subnet: None,
        },
    }
}

impl SlowPath {
    /// An answer that is kept and good, else the upstreams', else one that was good once.
    pub(super) async fn ask(
        &self,
        course: &Course<'_>,
        site: &Site,
        wanted: Wanted<'_>,
    ) -> Result<(Message, Plugin), ResponseCode> {
        let counters = course.counters;
        let Wanted { lower, qtype, wishes, .. } = wanted;
        // Names outside of its zones pass it untouched, as in CoreDNS's handler.go.
        let is_for = |cache: &&Cache| wishes.recursion_desired && cache.is_for(lower);
        let cache = site.cache.as_deref().filter(is_for);
        let now = Instant::now();
        let kept = cache.and_then(|cache| cache.find(lower, qtype.into(), wishes.flavour, now));
        let book = site.ledger.book(counters.shared).filter(|_| cache.is_some());
        let note = |entry: &Entry, is_stale| {
            book.into_iter().for_each(|book| book.kept(entry.is_denial(), is_stale));
        };
        if kept.is_none() {
            book.into_iter().for_each(|book| book.cached(CacheUse::Miss));
        }
        let mut stale = None;
        if let Some((entry, freshness)) = kept {
            let is_stale = matches!(freshness, Freshness::Stale(_));
            // RFC 9520 §3.2.
            if entry.is_failure() {
                note(&entry, false);
                return Err(ResponseCode::ServFail);
            }
            if self.is_good(course, site, wanted, (&entry, freshness))
                && let Some(message) = kept_message(&entry, wanted, now)
            {
                note(&entry, is_stale);
                return Ok((message, Plugin::Cache));
            }
            stale = is_stale.then_some(entry);
        }
        let asked = self.ask_upstreams(site, wanted, cache, (course.place, counters));
        let most = cache.and_then(Cache::stale).map(|stale| stale.verify_timeout);
        let asked = match (&stale, most.filter(|most| !most.is_zero())) {
            (Some(stale), Some(most)) => timeout(most, asked).await.unwrap_or_else(|_| {
                self.ask_meanwhile(course, site, wanted, stale);
                Err(ResponseCode::ServFail)
            }),
            _ => asked.await,
        };
        match (asked, stale) {
            // RFC 8767 §4.
            (Err(code), Some(stale)) => {
                note(&stale, true);
                // Upstreams may have taken their time to fail.
                stale.note_failure(Instant::now());
                let kept = kept_message(&stale, wanted, now);
                kept.map(|message| (message, Plugin::Cache)).ok_or(code)
            }
            (asked, stale) => {
                // As CoreDNS counts: it was there.
                stale.into_iter().for_each(|stale| note(&stale, false));
                asked.map(|message| (message, Plugin::Forward))
            }
        }
    }

    /// Whether a kept answer is told as it is: as on the fast path. One that is about to end, or past
    /// its end, is asked for meanwhile.
    fn is_good(
        &self,
        course: &Course<'_>,
        site: &Site,
        wanted: Wanted<'_>,
        (entry, freshness): (&Entry, Freshness),
    ) -> bool {
        let stale = site.cache.as_deref().and_then(Cache::stale);
        match freshness {
            Freshness::Fresh => true,
            Freshness::Prefetch => {
                if self.ask_meanwhile(course, site, wanted, entry) == Some(Begun::Now) {
                    let book = site.ledger.book(course.counters.shared);
                    book.into_iter().for_each(|book| book.cached(CacheUse::Prefetch));
                }
                true
            }
            Freshness::Stale(_) if entry.failed_lately(Instant::now()) => true,
            Freshness::Stale(_) => {
                stale.is_some_and(|stale| !stale.verify)
                    && self.ask_meanwhile(course, site, wanted, entry).is_some()
            }
        }
    }

    /// Has the upstreams asked without a client that waits; `None` if nobody asks them.
    fn ask_meanwhile(
        &self,
        course: &Course<'_>,
        site: &Site,
        wanted: Wanted<'_>,
        entry: &Entry,
    ) -> Option<Begun> {
        // A network's own answer is asked for by that network's next question.
        if wanted.wishes.flavour.subnet.is_some() {
            return None;
        }
        if entry.refreshing.swap(true, Relaxed) {
            return Some(Begun::Before);
        }
        let asks = self.ask_on(course, site, wanted);
        if !asks {
            entry.refreshing.store(false, Relaxed);
        }
        asks.then_some(Begun::Now)
    }

    /// Asks for what a client waits for no longer; whether it does. Of a name that `rewrite` has made
    /// another server block's upstreams would be asked, and its cache filled.
    fn ask_on(&self, course: &Course<'_>, site: &Site, wanted: Wanted<'_>) -> bool {
        let Ok(name) = wanted.name.to_bytes() else { return false };
        let mut query = plain_query(0, wanted.wishes, &name, wanted.qtype);
        if wanted.wishes.flavour.dnssec_ok {
            query.extend_from_slice(&opt_record(0, true));
            if let Some(additional) = query.get_mut(ADDITIONAL_COUNT_AT) {
                *additional = 1;
            }
        }
        let mut question = Question::new();
        if question.read(&query) != Shape::Plain {
            return false;
        }
        let asking = course.asking(&question, &query);
        let chosen = course.policy.site(course.group, asking);
        let is_same = chosen.is_some_and(|known| Arc::ptr_eq(&known.forwards, &site.forwards));
        if is_same {
            self.refresh(course.group, asking, course.counters);
        }
        is_same
    }

    async fn ask_upstreams(
        &self,
        site: &Site,
        wanted: Wanted<'_>,
        cache: Option<&Cache>,
        (place, counters): (&Place, &Counters),
    ) -> Result<Message, ResponseCode> {
        if site.forwards(wanted.lower).next().is_none() {
            return Err(ResponseCode::Refused);
        }
        // What is kept is for those who understand AD as well (RFC 6840 §5.7); the reply is made for the
        // client.
        let authentic_data = wanted.wishes.authentic_data || cache.is_some();
        let wishes = Wishes { authentic_data, ..wanted.wishes };
        let asking = async {
            let mut left = TIMEOUT;
            let mut lines = site.forwards(wanted.lower).peekable();
            while let Some(forward) = lines.next() {
                forward.reread_if_none();
                let mut asked = Err(ResponseCode::Refused);
                if forward.any() {
                    counters.forwarded.fetch_add(1, Ordering::Relaxed);
                    // A line that is silent leaves time for those that are asked instead.
                    let is_last = lines.peek().is_none() || !forward.passes_on(&SILENT);
                    let most = if is_last { left } else { left / 2 };
                    let begun = Instant::now();
                    asked = forward.ask(wanted.name.clone(), wanted.qtype, wishes, most).await;
                    left = left.saturating_sub(begun.elapsed());
                }
                if site.errors && matches!(asked, Err(ResponseCode::ServFail)) {
                    forward.say_failed(wanted.name, wanted.qtype);
                }
                if lines.peek().is_none() || !forward.passes_on(&asked) {
                    return asked;
                }
            }
            Err(ResponseCode::Refused)
        };
        // As beyond `max_concurrent`: a client then asks its next server.
        let asked = place.wait(asking, counters).await.map_err(|_| ResponseCode::Refused)?;
        let mut reply = match asked {
            Ok(reply) => reply,
            // What fails is not asked again at once by everyone (RFC 9520 §3.2).
            Err(ResponseCode::ServFail) => failure(),
            Err(code) => return Err(code),
        };
        only_what_was_asked(&mut reply, wanted.name, wanted.qtype);
        // It may be that to the same question in another letter case, which was under way.
        let of_asked = reply.answers.iter_mut().filter(|record| record.name == *wanted.name);
        of_asked.for_each(|record| record.name = wanted.name.clone());
        reply.edns = None;
        reply.queries = vec![Query::query(wanted.name.clone(), wanted.qtype)];
        if let Some(cache) = cache {
            let now = Instant::now();
            let flavour = wanted.wishes.flavour;
            let entry = Entry::new(wanted.lower, wanted.qtype.into(), flavour, &reply, now);
            let is_denial = entry.as_ref().is_some_and(Entry::is_denial);
            // A failure must not take the place of what may still be served stale; any answer ends that.
            let is_failure = reply.metadata.response_code == ResponseCode::ServFail;
            let is_kept = || cache.keeps(wanted.lower, wanted.qtype.into(), flavour, now);
            match entry.filter(|_| !is_failure || !is_kept()) {
                Some(entry) => cache.insert(wanted.lower, entry),
                None if is_failure || reply.metadata.truncation => {}
                None => cache.forget(wanted.lower, wanted.qtype.into(), flavour),
            }
            for record in reply.answers.iter_mut().chain(&mut reply.authorities) {
                record.ttl = cache.ttl(record.ttl, is_denial);
            }
        }
        match reply.metadata.response_code {
            ResponseCode::ServFail => Err(ResponseCode::ServFail),
            _ => Ok(reply),
        }
    }

    /// Asks again for a question that the cache has just answered.
    pub(super) async fn ask_again(
        &self,
        asked: Asked<'_>,
        place: Option<Place>,
        counters: &Counters,
    ) {
        let policy = self.0.policy.load_full();
        let query = with_family(asked.query);
        let query = &*query;
        let mut question = Question::new();
        if question.read(query) != Shape::Plain {
            return;
        }
        let Some(site) = policy.site(asked.group, asked.asking(&question)) else { return };
        let request = Request::from_bytes(query.to_vec(), asked.source, asked.transport);
        let mut failed = false;
        if let (Some(place), Ok(request)) = (&place, request)
            && let Some(asked) = request.queries.queries().first()
        {
            let name = asked.original().name().clone();
            let wanted = Wanted {
                name: &name,
                lower: &question.name,
                qtype: asked.query_type(),
                wishes: wishes(&request),
            };
            let cache = site.cache.as_deref();
            failed = self.ask_upstreams(site, wanted, cache, (place, counters)).await.is_err();
        }
        // A refreshed entry is another one; this is for an attempt that failed.
        let Some(cache) = &site.cache else { return };
        let flavour = Flavour {
            dnssec_ok: question.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: query.get(3).is_some_and(|flags| flags & 0x10 != 0),
            subnet: None,
        };
        let kept = cache.find(&question.name, question.qtype, flavour, Instant::now());
        if let Some((entry, _)) = kept {
            if failed {
                entry.note_failure(Instant::now());
            }
            entry.refreshing.store(false, Relaxed);
        }
    }
}

/// A kept answer as records.
fn kept_message(entry: &Entry, wanted: Wanted<'_>, now: Instant) -> Option<Message> {
    let query = plain_query(0, wanted.wishes, &wanted.name.to_bytes().ok()?, wanted.qtype);
    let mut question = Question::new();
    if question.read(&query) != Shape::Plain {
        return None;
    }
    let reply = with_room(|buffer| {
        let (bytes, _) = entry.answer(&question, &query, buffer, usize::from(u16::MAX), now, 0)?;
        Message::from_vec(buffer.get(..bytes)?).ok()
    })?;
    (reply.metadata.response_code != ResponseCode::ServFail).then_some(reply)
}

/// A message's size limit is the slow path's affair.
pub(super) fn site_limit(request: &Request, site: &Site) -> u16 {
    let own = u16::try_from(site.udp_bytes_max).unwrap_or(u16::MAX);
    match request.protocol() {
        Protocol::Udp => message::reply_bytes_max(request).min(own),
        _ => u16::MAX,
    }
}
