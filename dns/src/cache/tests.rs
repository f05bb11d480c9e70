//! Time and room.

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, NULL, SOA},
    },
};

use super::*;
use crate::corefile::Prefetch;
use crate::wire::{name::WireName, question::Question, rtype};

const PLAIN: Flavour = Flavour { dnssec_ok: false, checking_disabled: false, subnet: None };

fn cache(change: impl FnOnce(&mut CacheOptions)) -> Cache {
    let mut options = CacheOptions::default();
    change(&mut options);
    Cache::new(&options).unwrap()
}

fn lower(name: &str) -> LowerName {
    let mut lower = LowerName::new();
    lower.read(WireName::from_text(name).unwrap().as_bytes()).unwrap();
    lower
}

fn reply(name: &str, ttl: u32, addresses: usize) -> Message {
    let owner = Name::from_ascii(format!("{name}.")).unwrap();
    let mut reply = Message::query();
    reply.queries.push(Query::query(owner.clone(), RecordType::A));
    for last in 0..addresses {
        let data = RData::A(A([192, 0, 2, u8::try_from(last % 256).unwrap()].into()));
        reply.answers.push(Record::from_rdata(owner.clone(), ttl, data));
    }
    reply
}

fn keep(cache: &Cache, name: &str, ttl: u32, addresses: usize, now: Instant) {
    let message = reply(name, ttl, addresses);
    let entry = Entry::new(&lower(name), rtype::A, PLAIN, &message, now).unwrap();
    cache.insert(&lower(name), entry);
}

/// The TTL told `after` so many seconds; `None` if the entry is not served.
fn ttl_after(cache: &Cache, name: &str, now: Instant, after: u64) -> Option<u32> {
    let later = now + Duration::from_secs(after);
    let (entry, _) = cache.find(&lower(name), rtype::A, PLAIN, later)?;
    let query = reply(name, 0, 0).to_vec().unwrap();
    let mut question = Question::new();
    question.read(&query);
    let mut buffer = [0; 512];
    let (bytes, _) = entry.answer(&question, &query, &mut buffer, 512, later, 0)?;
    Some(Message::from_vec(&buffer[..bytes]).unwrap().answers[0].ttl)
}

#[test]
fn times_to_live_count_down_within_their_bounds() {
    let now = Instant::now();
    let cases = [
        // told, asked after, seen
        (100, 0, Some(100)),
        (100, 99, Some(1)),
        (100, 100, None),
        // At most what `cache TTL` says.
        (5000, 0, Some(1000)),
        (5000, 999, Some(1)),
        (5000, 1000, None),
        // At least `MINTTL`, as CoreDNS tells it: clients come as seldom as it is asked for.
        (0, 0, Some(5)),
        (0, 4, Some(1)),
        (0, 5, None),
    ];
    for (ttl, after, wanted) in cases {
        let cache = cache(|options| options.success.max_ttl_seconds = 1000);
        keep(&cache, "a.example", ttl, 1, now);
        assert_eq!(ttl_after(&cache, "a.example", now, after), wanted, "{ttl} after {after} s");
    }
    let kept = cache(|options| options.keep_ttl = true);
    keep(&kept, "a.example", 100, 1, now);
    assert_eq!(ttl_after(&kept, "a.example", now, 50), Some(100));
}

#[test]
fn kept_addresses_take_turns_behind_their_aliases() {
    let cname = |from: &str, to: &str| {
        let [from, to] = [from, to].map(|name| Name::from_ascii(name).unwrap());
        Record::from_rdata(from, 50, RData::CNAME(hickory_proto::rr::rdata::CNAME(to)))
    };
    let mut aliased = reply("web.example", 100, 3);
    aliased.queries = reply("www.example", 0, 0).queries;
    aliased.answers.insert(0, cname("www.example.", "web.example."));
    let cases = [
        ("web.example", reply("web.example", 100, 3), 0, 3),
        ("web.example", reply("web.example", 100, 1), 0, 1),
        ("www.example", aliased, 1, 3),
    ];
    for (name, mut message, aliases, addresses) in cases {
        message.queries = reply(name, 0, 0).queries;
        let now = Instant::now();
        let entry = Entry::new(&lower(name), rtype::A, PLAIN, &message, now).unwrap();
        let query = reply(name, 0, 0).to_vec().unwrap();
        let mut question = Question::new();
        question.read(&query);
        for rotation in 0..7 {
            let mut buffer = [0; 512];
            let made = entry.answer(&question, &query, &mut buffer, 512, now, rotation);
            let told = Message::from_vec(&buffer[..made.unwrap().0]).unwrap();
            let mut wanted = message.answers.clone();
            wanted[aliases..].rotate_left(rotation % addresses);
            assert_eq!(told.answers, wanted, "{name} {rotation}");
        }
    }
}

#[test]
fn stale_entries_are_served_for_their_period_only() {
    let now = Instant::now();
    let period = Duration::from_secs(10);
    for ttl_seconds in [0, 30] {
        let stale = Stale {
            period,
            verify: false,
            verify_timeout: Duration::ZERO,
            ttl_seconds,
            failure_recheck: Duration::ZERO,
        };
        let cache = cache(|options| options.stale = Some(stale));
        keep(&cache, "a.example", 100, 1, now);
        assert_eq!(ttl_after(&cache, "a.example", now, 99), Some(1));
        assert_eq!(ttl_after(&cache, "a.example", now, 109), Some(ttl_seconds));
        assert_eq!(ttl_after(&cache, "a.example", now, 110), None);
    }
}

#[test]
fn what_is_stale_is_told_its_own_time_whatever_keepttl_says() {
    let now = Instant::now();
    for (keep_ttl, ttl_seconds, fresh, stale) in
        [(true, 33, 100, 33), (true, 0, 100, 100), (false, 33, 1, 33), (false, 0, 1, 0)]
    {
        let cache = cache(|options| {
            options.keep_ttl = keep_ttl;
            options.stale = Some(Stale {
                period: Duration::from_secs(3600),
                verify: false,
                verify_timeout: Duration::ZERO,
                ttl_seconds,
                failure_recheck: Duration::ZERO,
            });
        });
        keep(&cache, "a.example", 100, 1, now);
        let told = [99, 100].map(|after| ttl_after(&cache, "a.example", now, after));
        assert_eq!(told, [Some(fresh), Some(stale)], "{keep_ttl} {ttl_seconds}");
    }
}

#[test]
fn a_name_stays_as_popular_as_it_was_when_it_is_fetched_before_its_end() {
    let now = Instant::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    let (gap, percentage) = (Duration::from_secs(60), 10);
    let cache = cache(|options| {
        options.prefetch = Some(Prefetch { amount: 10, gap, percentage });
    });
    let find = |when| cache.find(&lower("a.example"), rtype::A, PLAIN, when).unwrap();
    keep(&cache, "a.example", 100, 1, now);
    (0..15).for_each(|_| assert_eq!(find(now).1, Freshness::Fresh));
    for seconds in [40, 80] {
        assert_eq!(find(at(seconds)).1, Freshness::Fresh);
    }
    let (entry, freshness) = find(at(95));
    assert_eq!(freshness, Freshness::Prefetch);
    entry.refreshing.store(true, Relaxed);
    keep(&cache, "a.example", 100, 1, at(95));
    for seconds in [130, 170] {
        assert_eq!(find(at(seconds)).1, Freshness::Fresh);
    }
    assert_eq!(find(at(190)).1, Freshness::Prefetch, "popular from before");
    // Whom nobody asked for anew has to become popular again.
    keep(&cache, "a.example", 100, 1, at(195));
    for seconds in [240, 290] {
        assert_eq!(find(at(seconds)).1, Freshness::Fresh, "after {seconds} s");
    }
}

#[test]
fn memory_is_bounded_by_places_and_by_bytes() {
    let now = Instant::now();
    let small = cache(|options| options.success.capacity = 64);
    for number in 0..10_000 {
        keep(&small, &format!("n{number}.example"), 100, 1, now);
    }
    let report = small.report(&Labels::default());
    assert!(report.entries[0] <= 64 && report.evictions[0] >= 9_000, "{report:?}");
    // An attacker's large answers for many names.
    let large = cache(|options| options.success.capacity = 100_000);
    for number in 0..6_000 {
        keep(&large, &format!("n{number}.example"), 100, 250, now);
    }
    assert!(large.success.bytes.load(Relaxed) <= BYTES_MAX);
    keep(&large, "last.example", 100, 1, now);
    assert_eq!(ttl_after(&large, "last.example", now, 0), Some(100), "the newest is kept");
    keep(&large, "huge.example", 100, 1000, now);
    assert_eq!(ttl_after(&large, "huge.example", now, 0), None, "beyond {ENTRY_BYTES_MAX}");
}

#[test]
fn a_failure_is_known_for_its_time_to_the_millisecond_and_while_upstreams_are_late() {
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    for (recheck_ms, after_ms, is_asked, wanted) in [
        (500, 499, false, true),
        (500, 500, false, false),
        (1000, 999, false, true),
        (0, 0, false, false),
        // Who asked first waits no longer, but an answer may still come.
        (0, 5000, true, true),
        (500, 5000, true, true),
    ] {
        let stale = Stale {
            period: Duration::from_secs(3600),
            verify: true,
            verify_timeout: Duration::ZERO,
            ttl_seconds: 0,
            failure_recheck: Duration::from_millis(recheck_ms),
        };
        let cache = cache(|options| options.stale = Some(stale));
        keep(&cache, "a.example", 100, 1, now);
        let (entry, _) = cache.find(&lower("a.example"), rtype::A, PLAIN, now).unwrap();
        entry.refreshing.store(is_asked, Relaxed);
        assert!(!entry.failed_lately(at(900)), "nothing has failed");
        entry.note_failure(at(900));
        let lately = entry.failed_lately(at(900 + after_ms));
        assert_eq!(lately, wanted, "{recheck_ms} ms, after {after_ms} ms, asked {is_asked}");
    }
}

/// With an SOA whose denials are good for 20 s.
fn denial(name: &str) -> Message {
    let mut denied = reply(name, 0, 0);
    denied.metadata.response_code = ResponseCode::NXDomain;
    let soa = hickory_proto::rr::rdata::SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, 20);
    let zone = Name::from_ascii("example.").unwrap();
    denied.authorities.push(Record::from_rdata(zone, 300, RData::SOA(soa)));
    denied
}

#[test]
fn an_answer_that_may_not_be_kept_ends_what_would_be_served_stale() {
    // An address that upstreams had taken back was told for as long as stale answers may be.
    let now = Instant::now();
    let stale = Stale {
        period: Duration::from_secs(3600),
        verify: false,
        verify_timeout: Duration::ZERO,
        ttl_seconds: 0,
        failure_recheck: Duration::ZERO,
    };
    let mut failed = reply("a.example", 0, 0);
    failed.metadata.response_code = ResponseCode::ServFail;
    let cases = [
        ("good for this moment only", reply("a.example", 0, 1), false),
        ("too large", reply("a.example", 100, 1000), false),
        ("denied, and denials are not kept", denial("a.example"), false),
        ("a failure", failed, true),
    ];
    for (what, message, is_served) in cases {
        let cache = cache(|options| {
            options.stale = Some(stale);
            options.success.min_ttl_seconds = 0;
            options.no_denial = vec![".".to_owned()];
        });
        keep(&cache, "a.example", 1, 1, now);
        assert_eq!(ttl_after(&cache, "a.example", now, 5), Some(0), "{what}");
        let entry = Entry::new(&lower("a.example"), rtype::A, PLAIN, &message, now).unwrap();
        cache.insert(&lower("a.example"), entry);
        let found = cache.find(&lower("a.example"), rtype::A, PLAIN, now);
        assert_eq!(found.is_some(), is_served, "{what}");
        assert_eq!(cache.success.bytes.load(Relaxed) > 0, is_served, "{what}");
    }
}

#[test]
fn room_is_never_accounted_below_none_however_many_threads_keep_and_forget() {
    // An entry could be forgotten before it was counted: the sum fell below zero, and with it all room.
    let cache = cache(|options| options.success.capacity = WAYS);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers = [0; 2].map(|_| {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    keep(&cache, "a.example", 100, 1, Instant::now());
                    cache.forget(&lower("a.example"), rtype::A, PLAIN);
                }
            })
        });
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                assert!(cache.success.bytes.load(Relaxed) <= BYTES_MAX);
            }
        });
        let ended = writers.map(std::thread::ScopedJoinHandle::join);
        is_over.store(true, Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    let half = &cache.success;
    assert_eq!([half.bytes.load(Relaxed), half.entries.load(Relaxed)], [0, 0]);
}

#[test]
fn a_denial_takes_the_place_of_an_answer() {
    let now = Instant::now();
    let cache = cache(|_| {});
    keep(&cache, "a.example", 100, 1, now);
    let denied = denial("a.example");
    let entry = Entry::new(&lower("a.example"), rtype::A, PLAIN, &denied, now).unwrap();
    assert_eq!(entry.lifetime(), Duration::from_secs(20), "RFC 2308 §5: the lesser of the two");
    cache.insert(&lower("a.example"), entry);
    let (found, _) = cache.find(&lower("a.example"), rtype::A, PLAIN, now).unwrap();
    assert!(found.is_denial());
}

#[test]
fn an_alias_that_leads_to_nothing_is_a_denial_and_kept_with_an_soa_only() {
    // RFC 2308 §5. One without an SOA was told for as long as the alias was good.
    let alias = |name: &str| {
        let target = hickory_proto::rr::rdata::CNAME(Name::from_ascii("web.example.").unwrap());
        Record::from_rdata(Name::from_ascii(name).unwrap(), 100, RData::CNAME(target))
    };
    let name = lower("www.example");
    for (has_soa, qtype, wanted) in [
        (false, RecordType::A, None),
        (true, RecordType::A, Some((true, 20))),
        (false, RecordType::CNAME, Some((false, 100))),
    ] {
        let mut message = if has_soa { denial("www.example") } else { reply("www.example", 0, 0) };
        message.metadata.response_code = ResponseCode::NoError;
        message.queries[0].set_query_type(qtype);
        message.answers.push(alias("www.example."));
        let entry = Entry::new(&name, qtype.into(), PLAIN, &message, Instant::now());
        let found = entry.map(|entry| (entry.is_denial(), entry.lifetime().as_secs()));
        assert_eq!(found, wanted, "{qtype} {has_soa}");
    }
}

#[test]
fn truncated_and_refused_replies_are_not_kept() {
    let mut cut = reply("a.example", 100, 1);
    cut.metadata.truncation = true;
    let mut refused = reply("a.example", 100, 0);
    refused.metadata.response_code = ResponseCode::Refused;
    let without_soa = reply("a.example", 100, 0);
    for message in [cut, refused, without_soa] {
        let name = lower("a.example");
        assert!(Entry::new(&name, rtype::A, PLAIN, &message, Instant::now()).is_none());
    }
}

#[test]
fn a_reply_that_calls_itself_an_update_leaves_no_record_without_data() {
    // Found by mutating replies: opcode UPDATE, and an MX record of no bytes.
    let bytes = b"\0\x07\xad\x80\0\x01\0\x01\0\0\0\0\x07example\x03com\0\0\x0f\0\x01\
                  \xc0\x0c\0\x0f\0\x01\0\0\x01\x2c\0\0";
    let mut reply = Message::from_vec(bytes).unwrap();
    assert_eq!(reply.answers.len(), 1);
    let name = reply.queries[0].name().clone();
    only_what_was_asked(&mut reply, &name, RecordType::MX);
    assert!(reply.answers.is_empty());
}

/// An RRSIG record or one of NSEC's, as hickory reads them without DNSSEC.
fn unread(owner: &str, code: RecordType, data: Vec<u8>) -> Record {
    let data = RData::Unknown { code, rdata: NULL::with(data) };
    Record::from_rdata(Name::from_ascii(owner).unwrap(), 60, data)
}

fn signed(owner: &str, covered: RecordType, signer: &str) -> Record {
    let signer = WireName::from_text(signer).unwrap();
    let fixed = [&u16::from(covered).to_be_bytes()[..], &[0; 16]].concat();
    unread(owner, RecordType::RRSIG, [&fixed, signer.as_bytes(), &[7; 64]].concat())
}

/// A wildcard's signed answer lost the proof that there is no closer name: bogus (RFC 4035 §5.3.4). A SOA of any
/// zone was kept as that of a denial.
#[test]
fn of_the_authority_section_is_kept_what_is_of_a_zone_of_the_name() {
    let soa = |zone: &str| {
        let root = Name::root();
        let data = RData::SOA(SOA::new(root.clone(), root, 1, 2, 3, 4, 5));
        Record::from_rdata(Name::from_ascii(zone).unwrap(), 60, data)
    };
    let nsec = |owner: &str| unread(owner, RecordType::NSEC, vec![0, 0]);
    let name = Name::from_ascii("a.b.example.").unwrap();
    let alias = RData::CNAME(CNAME(Name::from_ascii("c.other.").unwrap()));
    let alias = Record::from_rdata(name.clone(), 60, alias);
    let address = reply("a.b.example", 60, 1).answers.remove(0);
    let none: &[Record] = &[];
    let rows: [(&str, &[Record], Vec<Record>, usize); 11] = [
        ("a denial", none, vec![soa("example.")], 1),
        ("by the zone itself", none, vec![soa("A.b.Example.")], 1),
        ("by the root", none, vec![soa(".")], 1),
        ("by another zone", none, vec![soa("other."), soa("x.a.b.example.")], 0),
        ("of an alias' target", std::slice::from_ref(&alias), vec![soa("other.")], 1),
        (
            "with its proof",
            none,
            vec![
                soa("example."),
                signed("example.", RecordType::SOA, "example"),
                nsec("b.example."),
                signed("b.example.", RecordType::NSEC, "example"),
            ],
            4,
        ),
        ("with another's", none, vec![soa("example."), nsec("b.other.")], 1),
        (
            "a wildcard's record",
            std::slice::from_ref(&address),
            vec![nsec("b.example."), signed("b.example.", RecordType::NSEC, "example")],
            2,
        ),
        (
            "signed by another zone",
            std::slice::from_ref(&address),
            vec![nsec("b.other."), signed("b.other.", RecordType::NSEC, "other")],
            0,
        ),
        (
            "name servers",
            std::slice::from_ref(&address),
            vec![soa("example."), signed("example.", RecordType::NS, "example")],
            0,
        ),
        (
            "a signature that is cut",
            none,
            vec![unread("b.example.", RecordType::RRSIG, vec![0])],
            0,
        ),
    ];
    for (what, answers, authorities, kept) in rows {
        let mut made = reply("a.b.example", 60, 0);
        (made.answers, made.authorities) = (answers.to_vec(), authorities);
        only_what_was_asked(&mut made, &name, RecordType::A);
        assert_eq!(made.authorities.len(), kept, "{what}: {:?}", made.authorities);
    }
}
