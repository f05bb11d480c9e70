//! Names of others: asked of upstreams, given back whole, never believed from a stranger.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fairlead_dns::DnsConfig;
use hickory_proto::{
    op::{Edns, Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, SOA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use crate::{
    contract::objects,
    world::{PATIENCE, World, by, external, namespace, query, tcp, text, udp},
};

/// One port by TCP and by UDP.
pub async fn both() -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // The kernel gave a port that is free by TCP; another test may have it by UDP.
        match UdpSocket::bind(tcp.local_addr().unwrap()).await {
            Ok(udp) => return (tcp, udp),
            Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}"),
        }
    }
}

/// An upstream that lives as long as the test's runtime. What it was asked is its answer's
/// business.
pub async fn upstream(
    answer: impl Fn(&Message) -> Vec<Message> + Send + Sync + 'static,
) -> SocketAddr {
    let answer = Arc::new(answer);
    let (tcp, udp) = both().await;
    let address = tcp.local_addr().unwrap();
    let by_udp = answer.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (received, from) = udp.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..received]).unwrap();
            for mut reply in by_udp(&asked) {
                // A whole reply beyond 512 bytes is for TCP only.
                if reply.to_vec().unwrap().len() > 512 {
                    reply.answers.clear();
                    reply.metadata.truncation = true;
                }
                udp.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    by_tcp(tcp, answer);
    address
}

/// Answers on connections.
fn by_tcp(
    listener: TcpListener,
    answer: Arc<impl Fn(&Message) -> Vec<Message> + Send + Sync + 'static>,
) {
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut bytes = vec![0; length.into()];
                    stream.read_exact(&mut bytes).await.unwrap();
                    for reply in answer(&Message::from_vec(&bytes).unwrap()) {
                        let reply = reply.to_vec().unwrap();
                        stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
                        stream.write_all(&reply).await.unwrap();
                    }
                }
            });
        }
    });
}

pub fn reply_to(asked: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(asked.metadata.id, OpCode::Query);
    reply.metadata.response_code = code;
    reply.metadata.recursion_available = true;
    reply.queries = asked.queries.clone();
    reply
}

pub fn address(owner: &str, ttl: u32, last: u8) -> Record {
    let data = RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
    Record::from_rdata(name(owner), ttl, data)
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

pub fn soa(zone: &str) -> Record {
    let data = SOA::new(name("ns.example."), name("admin.example."), 1, 2, 3, 4, 77);
    Record::from_rdata(name(zone), 77, RData::SOA(data))
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// What the upstream of most tests knows.
pub fn knows(asked: &Message) -> Vec<Message> {
    let question = &asked.queries[0];
    let mut reply = reply_to(asked, ResponseCode::NoError);
    match (question.name().to_lowercase().to_ascii().as_str(), question.query_type()) {
        ("www.example.", RecordType::A) => {
            reply.answers =
                vec![alias("www.example.", "web.example."), address("web.example.", 123, 1)];
        }
        ("www.example.", _) => {
            reply.answers = vec![alias("www.example.", "web.example.")];
            reply.authorities = vec![soa("example.")];
        }
        ("slow.example.", RecordType::A) => {
            reply.answers = vec![address(&question.name().to_ascii(), 5, 7)];
        }
        ("empty.example.", _) => reply.authorities = vec![soa("example.")],
        ("refused.example.", _) => reply.metadata.response_code = ResponseCode::Refused,
        ("broken.example.", _) => reply.metadata.response_code = ResponseCode::ServFail,
        ("big.example.", _) => {
            reply.answers = (0..200).map(|last| address("big.example.", 5, last)).collect();
        }
        ("1.2.0.192.in-addr.arpa.", _) => {
            let data = RData::PTR(hickory_proto::rr::rdata::PTR(name("www.example.")));
            reply.answers = vec![Record::from_rdata(question.name().clone(), 9, data)];
        }
        _ => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.authorities = vec![soa("example.")];
        }
    }
    vec![reply]
}

#[tokio::test]
async fn upstream_replies_come_back_whole() {
    let world = World::with(vec![], vec![upstream(knows).await]).await;
    let www = ["web.example. A 192.0.2.1", "www.example. CNAME web.example."];
    let cases: &[(&str, RecordType, ResponseCode, &[&str], usize)] = &[
        ("www.example.", RecordType::A, ResponseCode::NoError, &www, 0),
        ("www.example.", RecordType::AAAA, ResponseCode::NoError, &www[1..], 1),
        ("empty.example.", RecordType::A, ResponseCode::NoError, &[], 1),
        ("nope.example.", RecordType::A, ResponseCode::NXDomain, &[], 1),
        ("refused.example.", RecordType::A, ResponseCode::Refused, &[], 0),
        ("broken.example.", RecordType::A, ResponseCode::ServFail, &[], 0),
        // Not an address of the cluster.
        (
            "1.2.0.192.in-addr.arpa.",
            RecordType::PTR,
            ResponseCode::NoError,
            &["1.2.0.192.in-addr.arpa. PTR www.example."],
            0,
        ),
    ];
    for (name, rtype, code, answers, authorities) in cases {
        let asked = query(name, *rtype);
        for reply in [udp(world.v4(), &asked).await, tcp(world.v4(), &asked).await] {
            let what = format!("{name} {rtype}: {reply}");
            assert_eq!(reply.metadata.response_code, *code, "{what}");
            assert_eq!(text(&reply.answers), *answers, "{what}");
            assert_eq!(reply.authorities.len(), *authorities, "{what}");
            assert!(reply.metadata.recursion_available && !reply.metadata.authoritative, "{what}");
        }
    }
    let ttl = world.ask("www.example.", RecordType::A).await.answers[1].ttl;
    assert!((118..=123).contains(&ttl), "as the upstream said, {ttl}");
    let denied = world.ask("nope.example.", RecordType::A).await;
    let ttl = denied.authorities[0].ttl;
    assert!((72..=77).contains(&ttl), "{ttl}");
    assert!(world.running.counts().forwarded > 0);
    world.end().await;
}

#[tokio::test]
async fn a_cut_upstream_reply_is_fetched_by_tcp() {
    let world = World::with(vec![], vec![upstream(knows).await]).await;
    let asked = query("big.example.", RecordType::A);
    assert_eq!(tcp(world.v4(), &asked).await.answers.len(), 200);
    let cut = udp(world.v4(), &asked).await;
    assert!(cut.metadata.truncation && !cut.answers.is_empty(), "cut again for a UDP client");
    world.end().await;
}

/// Windows' servers heed no size of ours (coredns#5953): such names were SERVFAIL for good.
#[tokio::test]
async fn a_datagram_that_cannot_be_read_is_fetched_by_tcp() {
    for (what, sent) in [("larger than asked for, without TC", 3000), ("cut short", 100)] {
        let (tcp_socket, udp_socket) = both().await;
        let to = tcp_socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (bytes, from) = udp_socket.recv_from(&mut buffer).await.unwrap();
                let asked = Message::from_vec(&buffer[..bytes]).unwrap();
                let whole = knows(&asked).remove(0).to_vec().unwrap();
                udp_socket.send_to(&whole[..sent], from).await.unwrap();
            }
        });
        by_tcp(tcp_socket, Arc::new(knows));
        let world = World::with(vec![], vec![to]).await;
        let reply = tcp(world.v4(), &query("big.example.", RecordType::A)).await;
        let got = (reply.metadata.response_code, reply.answers.len());
        assert_eq!(got, (ResponseCode::NoError, 200), "{what}");
        world.end().await;
    }
}

#[tokio::test]
async fn the_clients_flags_reach_the_upstream_and_its_id_does_not() {
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let server = upstream(move |asked| {
        sender.send(asked.clone()).unwrap();
        knows(asked)
    });
    let world = World::with(vec![], vec![server.await]).await;
    let mut ids = vec![];
    for number in 0..4 {
        let name = format!("WwW{number}.example.");
        let mut asked = query(&name, RecordType::A);
        asked.metadata.checking_disabled = true;
        let mut edns = Edns::new();
        edns.set_dnssec_ok(true);
        asked.edns = Some(edns);
        let reply = udp(world.v4(), &asked).await;
        assert_eq!(reply.queries[0].name().to_ascii(), name);
        let forwarded = seen.recv().await.unwrap();
        assert!(forwarded.metadata.checking_disabled && forwarded.metadata.recursion_desired);
        assert!(forwarded.edns.as_ref().unwrap().flags().dnssec_ok);
        ids.push(forwarded.metadata.id);
    }
    ids.dedup();
    assert!(ids.len() > 1, "ids are random: {ids:?}");
    world.end().await;
}

#[tokio::test]
async fn forged_replies_are_waited_past_cve_2023_28452() {
    // TuDoor: one forged datagram made CoreDNS give up on the true one.
    let world = World::with(
        vec![],
        vec![
            upstream(|asked| {
                let mut wrong_id = knows(asked).remove(0);
                wrong_id.metadata.id ^= 1;
                wrong_id.answers = vec![address("www.example.", 1, 66)];
                let mut wrong_question = knows(asked).remove(0);
                wrong_question.queries[0].set_name(name("evil.example."));
                wrong_question.answers = vec![address("evil.example.", 1, 66)];
                let mut wrong_type = knows(asked).remove(0);
                wrong_type.queries[0].set_query_type(RecordType::TXT);
                vec![wrong_id, wrong_question, wrong_type, knows(asked).remove(0)]
            })
            .await,
        ],
    )
    .await;
    let reply = world.ask("www.example.", RecordType::A).await;
    assert_eq!(
        text(&reply.answers),
        ["web.example. A 192.0.2.1", "www.example. CNAME web.example."]
    );
    world.end().await;
}

#[tokio::test]
async fn names_are_asked_for_in_random_letter_case_where_that_is_wanted() {
    let spellings = Arc::<Mutex<BTreeSet<String>>>::default();
    let seen = spellings.clone();
    let exact = upstream(move |asked| {
        seen.lock().unwrap().insert(asked.queries[0].name().to_ascii());
        knows(asked)
    })
    .await;
    let forgetful = upstream(|asked| {
        let mut reply = knows(asked).remove(0);
        reply.queries.iter_mut().for_each(|query| query.name = query.name.to_lowercase());
        vec![reply]
    })
    .await;
    // By UDP a reply in another spelling may be a forger's; by TCP it is the upstream's.
    for (to, random_case) in [(exact, false), (exact, true), (forgetful, true)] {
        spellings.lock().unwrap().clear();
        let config = DnsConfig { random_case, ..by(&format!(".:53 {{\n forward . {to}\n}}\n")) };
        let world = World::unsynced(&config).synced(vec![]).await;
        for _ in 0..20 {
            let reply = world.ask("www.example.", RecordType::A).await;
            assert_eq!(
                text(&reply.answers),
                ["web.example. A 192.0.2.1", "www.example. CNAME web.example."],
                "the client sees nothing of it: {random_case}"
            );
        }
        let nothing = world.ask("nope.example.", RecordType::A).await;
        assert_eq!(nothing.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(nothing.authorities[0].name.to_ascii(), "example.");
        let asked = spellings.lock().unwrap().clone();
        if to == exact {
            let are_mixed = asked.iter().filter(|name| **name != name.to_lowercase()).count();
            assert_eq!(are_mixed > 10, random_case, "{asked:?}");
            assert!(random_case || are_mixed == 0, "{asked:?}");
        }
        world.end().await;
    }
}

/// BADVERS is 16: a client without an OPT record read the lower four bits, NOERROR, and so that there is no such
/// record.
#[tokio::test]
async fn what_an_upstream_says_of_our_opt_record_is_no_denial_for_a_client_without_one() {
    let picky = upstream(|asked| {
        let mut reply = reply_to(asked, ResponseCode::BADVERS);
        reply.edns = Some(Edns::new());
        vec![reply]
    });
    let world = World::with(vec![], vec![picky.await]).await;
    let plain = query("www.example.", RecordType::A);
    let mut with_edns = plain.clone();
    with_edns.edns = Some(Edns::new());
    for asked in [plain, with_edns] {
        let reply = udp(world.v4(), &asked).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{asked}: {reply}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_silent_upstream_is_a_server_failure_before_the_client_gives_up() {
    let world = World::with(vec![], vec![upstream(|_| vec![]).await]).await;
    let started = std::time::Instant::now();
    let reply = world.ask("www.example.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    // resolv.conf(5) gives us 5 s, of which 4 are taken; on a busy machine this client is late, too. Asked twice it would be 8.
    assert!(started.elapsed().as_secs_f32() < 7.5, "{:?}", started.elapsed());
    world.end().await;
}

#[tokio::test]
async fn a_dead_upstream_beside_a_live_one_costs_no_answer() {
    let dead = upstream(|_| vec![]).await;
    let world = World::with(vec![], vec![dead, upstream(knows).await]).await;
    for _ in 0..5 {
        let reply = world.ask("www.example.", RecordType::A).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    }
    world.end().await;
}

#[tokio::test]
async fn external_names_are_followed_out_of_the_zone() {
    let objects = vec![
        namespace("demo"),
        external("demo", "out", "www.example"),
        external("demo", "gone", "nope.example"),
        external("demo", "refused", "refused.example"),
    ];
    let world = World::with(objects, vec![upstream(knows).await]).await;
    let out = "out.demo.svc.cluster.local. CNAME www.example.";
    let www = ["web.example. A 192.0.2.1", "www.example. CNAME web.example."];
    let reply = world.ask("out.demo.svc.cluster.local.", RecordType::A).await;
    assert_eq!(text(&reply.answers), [out, www[0], www[1]]);
    assert!(reply.metadata.authoritative, "the first owner is ours");
    let reply = world.ask("out.demo.svc.cluster.local.", RecordType::AAAA).await;
    assert_eq!(text(&reply.answers), [out, www[1]]);
    // The code is that of the last name (RFC 6604).
    let reply = world.ask("gone.demo.svc.cluster.local.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(reply.answers.len(), 1);
    let reply = world.ask("refused.demo.svc.cluster.local.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    world.end().await;
}

/// An upstream that asks `next`, when it is known; once `ended` it answers by itself.
async fn relay(next: Arc<OnceLock<SocketAddr>>, ended: Arc<AtomicBool>) -> SocketAddr {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (bytes, from) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = buffer[..bytes].to_vec();
            let (socket, next, ended) = (socket.clone(), next.clone(), ended.clone());
            tokio::spawn(async move {
                while next.get().is_none() {
                    tokio::task::yield_now().await;
                }
                let reply = if ended.load(Ordering::Relaxed) {
                    knows(&Message::from_vec(&asked).unwrap()).remove(0).to_vec().unwrap()
                } else {
                    crate::world::udp_bytes(*next.get().unwrap(), &asked).await
                };
                socket.send_to(&reply, from).await.unwrap();
            });
        }
    });
    address
}

#[tokio::test]
async fn an_upstream_that_leads_back_is_left_out_until_it_leads_elsewhere() {
    let (next, ended) = (Arc::<OnceLock<SocketAddr>>::default(), Arc::<AtomicBool>::default());
    let to = relay(next.clone(), ended.clone()).await;
    let corefile = format!(".:53 {{\n loop\n kubernetes cluster.local\n forward . {to}\n}}\n");
    let world = World::by(&corefile, vec![namespace("demo")]).await;
    next.set(world.v4()).unwrap();
    let until = |wanted: ResponseCode| {
        let world = &world;
        async move {
            let asked = query("www.example.", RecordType::A);
            while udp(world.v6(), &asked).await.metadata.response_code != wanted {
                tokio::task::yield_now().await;
            }
        }
    };
    let out = tokio::time::timeout(PATIENCE, until(ResponseCode::Refused)).await;
    out.expect("there is nobody to ask");
    // Names of the cluster have never been anyone else's.
    let ours = world.ask("demo.svc.cluster.local.", RecordType::A).await;
    assert_eq!(ours.metadata.response_code, ResponseCode::NoError);
    ended.store(true, Ordering::Relaxed);
    let back = tokio::time::timeout(PATIENCE, until(ResponseCode::NoError)).await;
    back.expect("asked again");
    world.end().await;
}

#[tokio::test]
async fn any_is_answered_with_one_small_record_and_not_forwarded() {
    let world = World::with(vec![], vec![upstream(knows).await]).await;
    let reply = world.ask("big.example.", RecordType::ANY).await;
    assert_eq!(text(&reply.answers), ["big.example. HINFO RFC8482 "]);
    assert_eq!(world.running.counts().forwarded, 0);
    world.end().await;
}

#[tokio::test]
async fn with_the_plugin_any_is_one_small_record_for_names_of_the_cluster_too() {
    let hinfo = |name: &str| vec![format!("{name} HINFO RFC8482 ")];
    let (web, nobody) = ("web.demo.svc.cluster.local.", "nobody.demo.svc.cluster.local.");
    for (plugin, web_says, nobody_is) in
        [("any", hinfo(web), ResponseCode::NoError), ("minimal", vec![], ResponseCode::NXDomain)]
    {
        let corefile = format!(".:53 {{\n kubernetes cluster.local\n {plugin}\n}}\n");
        let world = World::by(&corefile, objects()).await;
        assert_eq!(text(&world.ask(web, RecordType::ANY).await.answers), web_says, "{plugin}");
        let reply = world.ask(nobody, RecordType::ANY).await;
        assert_eq!(reply.metadata.response_code, nobody_is, "{plugin}: {reply}");
        assert_eq!(world.ask(web, RecordType::A).await.answers.len(), 1, "{plugin}");
        world.end().await;
    }
}

#[tokio::test]
async fn without_upstreams_names_of_others_are_refused() {
    let world = World::with(vec![], vec![]).await;
    let reply = world.ask("www.example.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert!(!reply.metadata.recursion_available);
    world.end().await;
}

#[tokio::test]
async fn many_at_once_all_come_back() {
    let world = World::with(vec![], vec![upstream(knows).await]).await;
    let server = world.v4();
    let asking: Vec<_> = (0..300)
        .map(|i| {
            let asked = query(&format!("host-{i}.example."), RecordType::A);
            tokio::spawn(async move { udp(server, &asked).await.metadata.response_code })
        })
        .collect();
    for reply in asking {
        assert_eq!(reply.await.unwrap(), ResponseCode::NXDomain);
    }
    world.end().await;
}

#[tokio::test]
async fn upstreams_that_do_not_answer_are_left_out_and_come_back() {
    let hears = Arc::new(AtomicBool::new(false));
    let answer = |last: u8, asked: &Message| {
        let mut reply = reply_to(asked, ResponseCode::NoError);
        reply.answers = vec![address(&asked.queries[0].name().to_ascii(), 0, last)];
        vec![reply]
    };
    let deaf = || {
        let hears = hears.clone();
        upstream(move |asked| if hears.load(Ordering::Relaxed) { answer(1, asked) } else { vec![] })
    };
    let (one, two) = (deaf().await, deaf().await);
    let sound = upstream(move |asked| answer(2, asked)).await;
    let corefile = format!(
        ".:53 {{\n forward . {one} {two} {sound} {{\n  policy sequential\n  max_fails 1\n  \
         health_check 20ms domain probe.example\n }}\n}}\n"
    );
    let world = World::by(&corefile, vec![]).await;
    let first = async || {
        let reply = world.ask("www.example.", RecordType::A).await;
        reply.answers.first().map(|record| record.data.to_string())
    };
    let left_out = async { while first().await.as_deref() != Some("192.0.2.2") {} };
    tokio::time::timeout(2 * PATIENCE, left_out).await.expect("they are left out");
    let begun = Instant::now();
    assert_eq!(first().await.as_deref(), Some("192.0.2.2"));
    assert!(begun.elapsed() < Duration::from_millis(1900), "nobody waits for them");
    hears.store(true, Ordering::Relaxed);
    let back = async { while first().await.as_deref() != Some("192.0.2.1") {} };
    tokio::time::timeout(PATIENCE, back).await.expect("they are asked again");
    world.end().await;
}

#[tokio::test]
async fn fail_fast_does_not_wait_for_upstreams_that_are_all_down() {
    let deaf = upstream(|_| vec![]).await;
    let corefile = format!(
        ".:53 {{\n forward . {deaf} {{\n  max_fails 1\n  health_check 20ms\n  \
         failfast_all_unhealthy_upstreams\n }}\n}}\n"
    );
    let world = World::by(&corefile, vec![]).await;
    let failing = async {
        loop {
            let begun = Instant::now();
            let reply = world.ask("www.example.", RecordType::A).await;
            assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
            if begun.elapsed() < Duration::from_secs(1) {
                break;
            }
        }
    };
    tokio::time::timeout(2 * PATIENCE, failing).await.expect("an answer at once");
    world.end().await;
}
