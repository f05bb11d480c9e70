//! The cache of upstreams' answers, as clients see it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fairlead_dns::CacheReport;
use hickory_proto::{
    op::{Edns, Message, ResponseCode},
    rr::RecordType,
};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    forward::{address, knows, reply_to, upstream},
    world::{PATIENCE, World, query, tcp, tcp_receive, tcp_send, text, udp},
};

/// Counts questions; answers as `knows` while it lives, SERVFAIL when not.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicBool>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let lives = Arc::new(AtomicBool::new(true));
    let (count, alive) = (asked.clone(), lives.clone());
    let address = upstream(move |message| {
        count.fetch_add(1, Ordering::SeqCst);
        match alive.load(Ordering::SeqCst) {
            true => knows(message),
            false => vec![reply_to(message, ResponseCode::ServFail)],
        }
    })
    .await;
    (address, asked, lives)
}

/// Answers as `knows`, and nothing at all while the flag is set.
async fn silenceable() -> (SocketAddr, Arc<AtomicBool>) {
    let silent = Arc::new(AtomicBool::new(false));
    let mute = silent.clone();
    let address = upstream(move |message| match mute.load(Ordering::SeqCst) {
        true => vec![],
        false => knows(message),
    })
    .await;
    (address, silent)
}

fn corefile(to: SocketAddr, cache: &str) -> String {
    format!(".:53 {{\n forward . {to}\n {cache}\n}}\n")
}

#[tokio::test]
async fn what_was_asked_once_is_not_asked_again() {
    let (to, asked, _) = counting().await;
    let world = World::by(&corefile(to, "cache"), vec![]).await;
    let names = [("www.example.", RecordType::A), ("nope.example.", RecordType::A)];
    for (name, rtype) in names {
        let fresh = world.ask(name, rtype).await;
        let before = asked.load(Ordering::SeqCst);
        for message in [query(name, rtype), query(&name.to_uppercase(), rtype)] {
            for kept in [udp(world.v4(), &message).await, tcp(world.v4(), &message).await] {
                assert_eq!(kept.metadata.response_code, fresh.metadata.response_code);
                assert_eq!(kept.answers.len(), fresh.answers.len());
                assert_eq!(kept.authorities.len(), fresh.authorities.len());
                assert!(kept.metadata.recursion_available && !kept.metadata.authoritative);
            }
        }
        assert_eq!(asked.load(Ordering::SeqCst), before, "{name} came from the cache");
    }
    let kept = udp(world.v4(), &query("WWW.Example.", RecordType::A)).await;
    assert_eq!(
        text(&kept.answers),
        ["WWW.Example. CNAME web.Example.", "web.Example. A 192.0.2.1"],
        "names that end as the question does are pointers into it"
    );
    let report = report(&world);
    assert_eq!(report.entries, [1, 1]);
    assert!(report.hits[0] >= 4 && report.hits[1] >= 4 && report.misses > 0, "{report:?}");
    world.end().await;
}

#[tokio::test]
async fn flags_that_change_the_answer_are_part_of_the_key_cve_2024_0874() {
    // CD was not, and one client's unchecked answer was everyone's.
    let (to, asked, _) = counting().await;
    let world = World::by(&corefile(to, "cache"), vec![]).await;
    let plain = query("www.example.", RecordType::A);
    let mut unchecked = plain.clone();
    unchecked.metadata.checking_disabled = true;
    let mut signed = plain.clone();
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    signed.edns = Some(edns);
    let mut other_type = plain.clone();
    other_type.queries[0].set_query_type(RecordType::AAAA);
    for (number, message) in [plain, unchecked, signed, other_type].iter().enumerate() {
        udp(world.v4(), message).await;
        udp(world.v4(), message).await;
        assert_eq!(asked.load(Ordering::SeqCst), number + 1);
    }
    world.end().await;
}

#[tokio::test]
async fn flags_of_kept_answers_are_those_of_the_upstream_as_far_as_the_client_wants_them() {
    // AA was clear from the second answer on. And AD, which upstreams tell only those who ask for it
    // (RFC 6840 §5.7), was nobody's where the first who asked did not want it.
    let to = upstream(|asked| {
        let mut reply = knows(asked).remove(0);
        reply.metadata.authoritative = asked.queries[0].query_type() == RecordType::A;
        reply.metadata.authentic_data = asked.metadata.authentic_data;
        vec![reply]
    })
    .await;
    for log in ["", "log"] {
        let world = World::by(&corefile(to, &format!("{log}\n cache")), vec![]).await;
        for wants_ad in [false, true, false, true] {
            let mut asked = query("www.example.", RecordType::A);
            asked.metadata.authentic_data = wants_ad;
            for reply in [udp(world.v4(), &asked).await, tcp(world.v4(), &asked).await] {
                assert!(reply.metadata.authoritative, "{reply}");
                assert_eq!(reply.metadata.authentic_data, wants_ad, "{reply}");
            }
        }
        assert_eq!(report(&world).misses, 1, "{log}");
        world.end().await;
    }
}

#[tokio::test]
async fn what_upstreams_deny_without_an_soa_is_not_answered_stale() {
    let is_gone = Arc::new(AtomicBool::new(false));
    let gone = is_gone.clone();
    let to = upstream(move |asked| match gone.load(Ordering::SeqCst) {
        true => vec![reply_to(asked, ResponseCode::NXDomain)],
        false => knows(asked),
    })
    .await;
    let cache = "cache {\n success 100 1 0\n serve_stale 1h immediate\n }";
    let world = World::by(&corefile(to, cache), vec![]).await;
    assert_eq!(world.ask("www.example.", RecordType::A).await.answers.len(), 2);
    is_gone.store(true, Ordering::SeqCst);
    let denied = async {
        while world.ask("www.example.", RecordType::A).await.metadata.response_code
            != ResponseCode::NXDomain
        {}
    };
    timeout(PATIENCE, denied).await.expect("the upstream's word counts");
    world.end().await;
}

#[tokio::test]
async fn loadbalance_turns_addresses_of_upstreams_and_of_hosts_too() {
    let to = upstream(|asked| {
        let mut reply = reply_to(asked, ResponseCode::NoError);
        reply.answers = (1..=3).map(|last| address("www.example.", 60, last)).collect();
        vec![reply]
    })
    .await;
    let hosts = "hosts {\n 192.0.2.1 host.test\n 192.0.2.2 host.test\n 192.0.2.3 host.test\n \
                 fallthrough\n }";
    // Questions that are logged go the slow path.
    for (loadbalance, wanted) in [("loadbalance", 3), ("loadbalance\n log", 3), ("", 1)] {
        let corefile = corefile(to, &format!("cache\n {hosts}\n {loadbalance}"));
        let world = World::by(&corefile, vec![]).await;
        for name in ["www.example.", "host.test."] {
            // From the cache from here on.
            world.ask(name, RecordType::A).await;
            let mut first = BTreeSet::new();
            for _ in 0..60 {
                let reply = world.ask(name, RecordType::A).await;
                assert_eq!(text(&reply.answers).len(), 3);
                first.insert(reply.answers[0].data.to_string());
            }
            assert_eq!(first.len(), wanted, "{name} {loadbalance}: {first:?}");
        }
        world.end().await;
    }
}

#[tokio::test]
async fn records_that_merely_came_along_are_neither_kept_nor_told() {
    // Poisoning by out-of-bailiwick records (Kaminsky; unbound, BIND and others since).
    let to = upstream(|asked| {
        let mut reply = knows(asked).remove(0);
        reply.answers.push(address("bank.example.", 9999, 66));
        reply.authorities.push(address("bank.example.", 9999, 66));
        reply.additionals.push(address("bank.example.", 9999, 66));
        vec![reply]
    })
    .await;
    let world = World::by(&corefile(to, "cache"), vec![]).await;
    for _ in 0..2 {
        let reply = world.ask("www.example.", RecordType::A).await;
        let all = [&reply.answers[..], &reply.authorities, &reply.additionals].concat();
        assert!(!text(&all).iter().any(|line| line.contains("bank")), "{reply}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_kept_answer_that_does_not_fit_is_cut_and_whole_by_tcp() {
    let (to, asked, _) = counting().await;
    let world = World::by(&corefile(to, "cache"), vec![]).await;
    let big = query("big.example.", RecordType::A);
    assert_eq!(tcp(world.v4(), &big).await.answers.len(), 200);
    let before = asked.load(Ordering::SeqCst);
    let cut = udp(world.v4(), &big).await;
    assert!(cut.metadata.truncation && !cut.answers.is_empty());
    assert!(cut.to_vec().unwrap().len() <= 512);
    assert_eq!(tcp(world.v4(), &big).await.answers.len(), 200);
    assert_eq!(asked.load(Ordering::SeqCst), before);
    world.end().await;
}

#[tokio::test]
async fn disabled_zones_are_not_kept() {
    let (to, asked, _) = counting().await;
    let cache = "cache {\n disable success example\n }";
    let world = World::by(&corefile(to, cache), vec![]).await;
    for _ in 0..3 {
        world.ask("www.example.", RecordType::A).await;
        world.ask("nope.example.", RecordType::A).await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3 + 1);
    assert_eq!(report(&world).entries, [0, 1]);
    world.end().await;
}

/// Of the one cache.
fn report(world: &World) -> CacheReport {
    let [report] = &world.running.counts().caches[..] else { panic!("one cache") };
    report.clone()
}

/// Asks until a reply is as wanted.
#[tokio::test]
async fn bug_names_that_the_cache_is_not_for_were_told_its_times_to_live() {
    let to = upstream(|asked| {
        let mut reply = reply_to(asked, ResponseCode::NoError);
        let owner = asked.queries[0].name().to_string();
        let ttl = if owner.starts_with("short") { 0 } else { 600 };
        reply.answers = vec![address(&owner, ttl, 1)];
        vec![reply]
    });
    let world = World::by(&corefile(to.await, "cache 30 example."), vec![]).await;
    for (name, ttl) in
        [("short.other.", 0), ("long.other.", 600), ("short.example.", 5), ("long.example.", 30)]
    {
        assert_eq!(world.ask(name, RecordType::A).await.answers[0].ttl, ttl, "{name}");
    }
    let report = report(&world);
    assert_eq!((report.entries, report.misses), ([2, 0], 2), "others are no misses");
    world.end().await;
}

async fn until(world: &World, name: &str, wanted: impl Fn(&Message) -> bool) {
    let asking = async { while !wanted(&world.ask(name, RecordType::A).await) {} };
    timeout(PATIENCE, asking).await.expect("in time");
}

#[tokio::test]
async fn stale_answers_outlive_their_upstream() {
    for mode in ["immediate", "verify"] {
        let (to, asked, lives) = counting().await;
        let cache =
            format!("cache {{\n success 100 1 0\n denial 100 1 0\n serve_stale 1h {mode}\n }}");
        let world = World::by(&corefile(to, &cache), vec![]).await;
        assert_eq!(world.ask("www.example.", RecordType::A).await.answers.len(), 2);
        lives.store(false, Ordering::SeqCst);
        let before = asked.load(Ordering::SeqCst);
        until(&world, "www.example.", |reply| {
            assert_eq!(reply.answers.len(), 2, "{mode}: {reply}");
            reply.answers.iter().all(|record| record.ttl == 0)
                && asked.load(Ordering::SeqCst) > before
        })
        .await;
        assert!(report(&world).served_stale > 0);
        world.end().await;
    }
}

#[tokio::test]
async fn verify_waits_for_silent_upstreams_no_longer_than_it_is_told() {
    let (to, silent) = silenceable().await;
    let cache = "cache {\n success 100 1 0\n serve_stale 1h verify 50ms 7s 1s\n }";
    let world = World::by(&corefile(to, cache), vec![]).await;
    assert_eq!(world.ask("www.example.", RecordType::A).await.answers.len(), 2);
    silent.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    until(&world, "www.example.", |reply| {
        assert_eq!(reply.answers.len(), 2, "{reply}");
        reply.answers.iter().all(|record| record.ttl == 7)
    })
    .await;
    assert!(begun.elapsed() < Duration::from_millis(4900), "its second and 50 ms, not 4 s more");
    silent.store(false, Ordering::SeqCst);
    until(&world, "www.example.", |reply| reply.answers.iter().all(|record| record.ttl < 7)).await;
    world.end().await;
}

#[tokio::test]
async fn silent_upstreams_are_waited_for_once_on_the_slow_path_too() {
    // Each question that was logged waited for them, whatever serve_stale said; and each of any kind did
    // with a FAILURE_RECHECK of 0, or when they took longer to fail than it is long.
    const QUESTIONS: u64 = 30;
    for (log, mode) in [
        ("log", "immediate"),
        ("log", "verify 1s 7s 1m"),
        ("log", "verify 1s 7s 0"),
        ("", "verify 1s 7s 0"),
        ("", "verify 1s 7s 500ms"),
    ] {
        let (to, silent) = silenceable().await;
        let cache = format!("{log}\n cache {{\n success 100 1 0\n serve_stale 1h {mode}\n }}");
        let world = World::by(&corefile(to, &cache), vec![]).await;
        assert_eq!(world.ask("www.example.", RecordType::A).await.answers.len(), 2);
        assert_eq!(report(&world).misses, 1, "{log} {mode}");
        silent.store(true, Ordering::SeqCst);
        until(&world, "www.example.", |_| report(&world).served_stale > 0).await;
        let (begun, before) = (Instant::now(), report(&world));
        for _ in 0..QUESTIONS {
            assert_eq!(world.ask("www.example.", RecordType::A).await.answers.len(), 2);
        }
        assert!(begun.elapsed() < PATIENCE, "{log} {mode}: {:?}", begun.elapsed());
        let now = report(&world);
        assert_eq!(now.hits[0] - before.hits[0], QUESTIONS, "{log} {mode}");
        assert_eq!(now.served_stale - before.served_stale, QUESTIONS, "{log} {mode}");
        world.end().await;
    }
}

#[tokio::test]
async fn a_stale_answer_that_must_be_made_anew_or_is_cut_first_is_asked_for_again() {
    // The fast path said that the upstreams were being asked, and then left the question to the slow path,
    // or to a larger buffer: nobody asked, and the answer was stale for as long as it may be.
    let cache = "cache {\n success 100 1 0\n denial 100 1 0\n serve_stale 1h immediate\n }";
    let dns64 = "dns64 {\n allow_ipv4\n }";
    for (plugin, name, rtype, answers, (place, hits_each)) in [
        // Each asks for IPv4 addresses, too.
        (dns64, "www.example.", RecordType::AAAA, 2, (0, 1)),
        (dns64, "empty.example.", RecordType::AAAA, 0, (1, 2)),
        ("errors", "big.example.", RecordType::A, 200, (0, 1)),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let to = upstream(move |message| {
            let is_it = message.queries[0].query_type() == rtype;
            count.fetch_add(is_it.into(), Ordering::SeqCst);
            knows(message)
        })
        .await;
        let world = World::by(&corefile(to, &format!("{plugin}\n {cache}")), vec![]).await;
        let message = query(name, rtype).to_vec().unwrap();
        // One for all: each of its own would leave a port that nobody may take for a minute.
        let mut stream = TcpStream::connect(world.v4()).await.unwrap();
        tcp_send(&mut stream, &message).await;
        assert_eq!(tcp_receive(&mut stream).await.answers.len(), answers, "{name}");
        let before = asked.load(Ordering::SeqCst);
        let again = async {
            while asked.load(Ordering::SeqCst) == before {
                let hits = report(&world).hits[place];
                tcp_send(&mut stream, &message).await;
                assert_eq!(tcp_receive(&mut stream).await.answers.len(), answers, "{name}");
                assert!(report(&world).hits[place] <= hits + hits_each, "{name}: counted twice");
            }
        };
        timeout(PATIENCE, again).await.unwrap_or_else(|_| panic!("{name} is not asked for again"));
        drop(stream);
        world.end().await;
    }
}

#[tokio::test]
async fn what_a_rewrite_asks_for_is_asked_on_by_no_other_server_block() {
    let (to, silent) = silenceable().await;
    let (other, asked, _) = counting().await;
    let text = format!(
        "intern.test:53 {{\n rewrite name exact old.intern.test www.example\n forward . {to}\n cache {{\n \
         success 100 1 0\n serve_stale 1h verify 50ms 7s 1s\n }}\n}}\n{}",
        corefile(other, "")
    );
    let world = World::by(&text, vec![]).await;
    assert_eq!(world.ask("old.intern.test.", RecordType::A).await.answers.len(), 2);
    silent.store(true, Ordering::SeqCst);
    until(&world, "old.intern.test.", |reply| {
        assert_eq!(reply.answers.len(), 2, "{reply}");
        reply.answers.iter().all(|record| record.ttl == 7)
    })
    .await;
    assert_eq!(world.ask("www.example.", RecordType::A).await.answers.len(), 2);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "this one question");
    world.end().await;
}

#[tokio::test]
async fn without_serve_stale_a_dead_upstream_is_a_failure_and_kept_as_one() {
    a_failure_is_kept("cache {\n success 100 1 0\n }").await;
}

/// With `serve_stale` none ever was: each question took one of the waiting places (RFC 9520 §3.2).
#[tokio::test]
async fn bug_with_serve_stale_a_name_that_was_never_answered_is_a_failure_and_kept_as_one() {
    for mode in ["immediate", "verify"] {
        a_failure_is_kept(&format!("cache {{\n serve_stale 1h {mode}\n servfail 10s\n }}")).await;
    }
}

async fn a_failure_is_kept(cache: &str) {
    let (to, asked, lives) = counting().await;
    let world = World::by(&corefile(to, cache), vec![]).await;
    lives.store(false, Ordering::SeqCst);
    let failed = ResponseCode::ServFail;
    assert_eq!(world.ask("www.example.", RecordType::A).await.metadata.response_code, failed);
    let before = asked.load(Ordering::SeqCst);
    assert_eq!(world.ask("www.example.", RecordType::A).await.metadata.response_code, failed);
    assert_eq!(asked.load(Ordering::SeqCst), before, "failures are not asked for at once");
    world.end().await;
}

#[tokio::test]
async fn popular_names_are_fetched_before_they_end() {
    let (to, asked, _) = counting().await;
    let cache = "cache {\n success 100 3 0\n prefetch 3 1m 90%\n }";
    let world = World::by(&corefile(to, cache), vec![]).await;
    until(&world, "www.example.", |reply| {
        assert_eq!(reply.answers.len(), 2);
        assert!(reply.answers[0].ttl > 0, "never at its end: {reply}");
        report(&world).prefetches > 0 && asked.load(Ordering::SeqCst) > 1
    })
    .await;
    world.end().await;
}
