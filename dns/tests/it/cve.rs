//! Known holes of CoreDNS, its library and hickory, one by one: whether they are here.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use fairlead_dns::DropReason;
use futures::future::join_all;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{CNAME, TSIG, tsig::TsigAlgorithm},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    contract::objects,
    forward::{address, knows, reply_to, upstream},
    world::{PATIENCE, World, namespace, query, service, tcp, tcp_send, text, udp, udp_bytes},
};

const A: RecordType = RecordType::A;

/// An upstream that answers when it is let, and notes what it was sent: id and port.
async fn held(gate: Arc<Semaphore>) -> (SocketAddr, Arc<Mutex<Vec<(u16, u16)>>>) {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    let seen = Arc::<Mutex<Vec<(u16, u16)>>>::default();
    let noted = seen.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (bytes, from) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..bytes]).unwrap();
            noted.lock().unwrap().push((asked.metadata.id, from.port()));
            let (socket, gate) = (socket.clone(), gate.clone());
            tokio::spawn(async move {
                drop(gate.acquire().await);
                let reply = knows(&asked).remove(0).to_vec().unwrap();
                socket.send_to(&reply, from).await.unwrap();
            });
        }
    });
    (address, seen)
}

async fn counted(world: &World, reason: DropReason, least: u64) {
    let place = DropReason::ALL.iter().position(|known| *known == reason).unwrap();
    let reached = async {
        while world.running.counts().dropped[place] < least {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, reached).await.expect("dropped and counted");
}

#[tokio::test]
async fn ids_and_ports_of_questions_cannot_be_guessed_go_2022_0368() {
    let (to, seen) = held(Arc::new(Semaphore::new(1))).await;
    let world = World::with(vec![], vec![to]).await;
    for number in 0..64 {
        world.ask(&format!("n{number}.example."), A).await;
    }
    let seen = seen.lock().unwrap().clone();
    let ids: BTreeSet<_> = seen.iter().map(|(id, _)| id).collect();
    let ports: BTreeSet<_> = seen.iter().map(|(_, port)| port).collect();
    let steps: BTreeSet<_> = seen.windows(2).map(|two| two[1].0.wrapping_sub(two[0].0)).collect();
    assert!(ids.len() > 60 && steps.len() > 60, "{seen:?}");
    assert!(ports.len() > 48, "each question leaves from a port of its own: {seen:?}");
    world.end().await;
}

#[tokio::test]
async fn equal_questions_in_flight_are_one_cve_2023_30464() {
    // Many at once would give a forger as many ids to guess (birthday attack).
    let gate = Arc::new(Semaphore::new(0));
    let (to, seen) = held(gate.clone()).await;
    let world = World::with(vec![], vec![to]).await;
    let asking = join_all((0..50).map(|_| world.ask("www.example.", A)));
    let opening = async {
        while world.running.counts().slow_queries < 50 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
    };
    let (replies, ()) = tokio::join!(asking, opening);
    assert!(replies.iter().all(|reply| reply.answers.len() == 2));
    assert_eq!(seen.lock().unwrap().len(), 1);
    world.end().await;
}

#[tokio::test]
async fn questions_that_wait_are_bounded_cve_2025_47950_cve_2026_32934() {
    let (to, _) = held(Arc::new(Semaphore::new(0))).await;
    let world = World::with(objects(), vec![to]).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(world.v4()).await.unwrap();
    // The socket has no room for some of them while others want the processor.
    let crowded = async {
        for number in 0.. {
            let asked = query(&format!("n{number}.example."), A);
            client.send(&asked.to_vec().unwrap()).await.unwrap();
            if number % 10 == 0 {
                tokio::task::yield_now().await;
                if world.running.counts().crowded != [0, 0] {
                    break;
                }
            }
        }
    };
    timeout(PATIENCE, crowded).await.expect("refused and counted");
    let waiting = world.running.counts().forwarded;
    assert!(waiting <= 1000, "{waiting} wait for their upstream");
    // Names of the cluster need no place among those that wait.
    assert_eq!(world.ask("web.demo.svc.cluster.local.", A).await.answers.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn connections_are_bounded_cve_2025_68151() {
    let world = World::with(objects(), vec![]).await;
    let mut open = vec![];
    // One client has 200 of 1000.
    for client in 1..=6 {
        for _ in 0..201 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind((Ipv4Addr::new(127, 0, 0, client), 0).into()).unwrap();
            open.push(socket.connect(world.v4()).await.unwrap());
        }
        counted(&world, DropReason::ClientConnections, u64::from(client).min(5)).await;
    }
    counted(&world, DropReason::TcpConnections, 201).await;
    let dropped = world.running.counts().dropped;
    assert_eq!(dropped.iter().sum::<u64>(), 6 * 201 - 1000, "as many are open as may be");
    drop(open);
    world.end().await;
}

#[tokio::test]
async fn a_length_is_checked_before_anything_is_read_cve_2026_32936() {
    let world = World::with(objects(), vec![]).await;
    let mut stream = TcpStream::connect(world.v4()).await.unwrap();
    // Nothing follows: who reads the message first waits for it until the connection is idle.
    let begun = Instant::now();
    stream.write_u16(60_000).await.unwrap();
    counted(&world, DropReason::Oversized, 1).await;
    let closed = timeout(PATIENCE, stream.read_u8()).await.expect("closed at once");
    assert!(closed.is_err() && begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    world.end().await;
}

#[tokio::test]
async fn times_to_live_of_others_are_clamped_cve_2025_58063() {
    let to = upstream(|asked| {
        let mut reply = reply_to(asked, ResponseCode::NoError);
        reply.answers = vec![address("www.example.", u32::MAX, 1)];
        vec![reply]
    })
    .await;
    let world = World::by(&format!(".:53 {{\n cache\n forward . {to}\n}}\n"), vec![]).await;
    for _ in 0..2 {
        let reply = world.ask("www.example.", A).await;
        assert!(reply.answers[0].ttl <= 3600, "{reply}");
    }
    world.end().await;
}

/// An upstream that knows names, and notes those by which a server looks for loops.
async fn probed() -> (SocketAddr, Arc<Mutex<Vec<Name>>>) {
    let probes = Arc::<Mutex<Vec<Name>>>::default();
    let noted = probes.clone();
    let to = upstream(move |asked| {
        let question = &asked.queries[0];
        if question.query_type() == RecordType::HINFO {
            noted.lock().unwrap().push(question.name().clone());
            return vec![reply_to(asked, ResponseCode::NXDomain)];
        }
        knows(asked)
    })
    .await;
    (to, probes)
}

#[tokio::test]
async fn no_question_ends_the_server_or_its_forwarding_cve_2026_26018() {
    // CoreDNS's `loop` ended the process when its own probe, whose name could be guessed, came in: it was made
    // of the time of the start.
    let (to, probes) = probed().await;
    let corefile = format!(".:53 {{\n loop\n kubernetes cluster.local\n forward . {to}\n}}\n");
    let mut known = vec![Name::from_ascii("3894567890123456789.2345678901234567890.").unwrap()];
    for _ in 0..3 {
        let before = probes.lock().unwrap().len();
        let world = World::by(&corefile, objects()).await;
        let probing = async {
            while probes.lock().unwrap().len() <= before {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, probing).await.expect("the upstream is probed");
        let newest = probes.lock().unwrap()[before].clone();
        // Those of earlier starts are nobody's probes now.
        for name in &known {
            world.ask(&name.to_ascii(), RecordType::HINFO).await;
        }
        assert_eq!(world.ask("web.demo.svc.cluster.local.", A).await.answers.len(), 1);
        let others = world.ask("www.example.", A).await;
        assert_eq!(others.metadata.response_code, ResponseCode::NoError, "the upstream is asked");
        assert!(!known.contains(&newest), "{newest} again: {known:?}");
        // Of 128 bits, as hexadecimal digits.
        let digits: Vec<_> = newest.iter().map(<[u8]>::len).collect();
        assert_eq!(digits, [16, 16], "{newest}");
        known.push(newest);
        world.end().await;
    }
}

#[tokio::test]
async fn a_signature_is_never_taken_for_verified_cve_2026_33190_cve_2026_35579() {
    let world = World::with(objects(), vec![]).await;
    let bytes = signed("web.demo.svc.cluster.local.").to_vec().unwrap();
    let by_udp = Message::from_vec(&udp_bytes(world.v4(), &bytes).await).unwrap();
    let mut stream = TcpStream::connect(world.v4()).await.unwrap();
    tcp_send(&mut stream, &bytes).await;
    let by_tcp = crate::world::tcp_receive(&mut stream).await;
    for reply in [by_udp, by_tcp] {
        assert_eq!(reply.metadata.response_code, ResponseCode::NotAuth, "{reply}");
        assert!(reply.answers.is_empty(), "{reply}");
    }
    world.end().await;
}

/// Policy was asked of what is looked up alone; whom it drops learned that somebody is here.
#[tokio::test]
async fn no_kind_of_question_is_a_way_around_acl_cve_2026_26017() {
    let web = "web.demo.svc.cluster.local.";
    let of_type = |code: u16| query(web, RecordType::from(code));
    let rows = [
        ("OPT", of_type(41), ResponseCode::FormErr),
        ("TKEY", of_type(249), ResponseCode::NotImp),
        ("TSIG", of_type(250), ResponseCode::FormErr),
        ("IXFR", of_type(251), ResponseCode::Refused),
        ("AXFR", of_type(252), ResponseCode::Refused),
        ("MAILB", of_type(253), ResponseCode::NotImp),
        ("MAILA", of_type(254), ResponseCode::NotImp),
        ("signed", signed(web), ResponseCode::NotAuth),
    ];
    let by_acl = |action: &str| {
        format!(
            ".:53 {{\n acl cluster.local {{\n {action} net 127.0.0.0/8\n }}\n \
             kubernetes cluster.local\n}}\n"
        )
    };
    let world = World::by(&by_acl("filter"), objects()).await;
    for (what, asked, code) in &rows {
        let filtered = udp(world.v4(), asked).await;
        assert_eq!(filtered.metadata.response_code, ResponseCode::NoError, "{what}: {filtered}");
        let passed = udp(world.v6(), asked).await;
        assert_eq!(passed.metadata.response_code, *code, "{what}: {passed}");
    }
    world.end().await;
    let world = World::by(&by_acl("drop"), objects()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for (dropped, (_, asked, _)) in (1..).zip(&rows) {
        client.send_to(&asked.to_vec().unwrap(), world.v4()).await.unwrap();
        counted(&world, DropReason::Policy, dropped).await;
    }
    world.end().await;
}

/// A question with a signature by a key that nobody has.
fn signed(name: &str) -> Message {
    let mut asked = query(name, A);
    let key = Name::from_ascii("key.example.").unwrap();
    let signature = TSIG::new(
        TsigAlgorithm::HmacSha256,
        1_800_000_000,
        300,
        vec![7; 32],
        asked.metadata.id,
        None,
        vec![],
    );
    let mut record = Record::from_rdata(key, 0, signature);
    record.dns_class = DNSClass::ANY;
    asked.signature = Some(Box::new(record));
    asked
}

#[tokio::test]
async fn a_namespace_named_like_a_domain_takes_no_name_of_it_cve_2022_2835_cve_2022_2837() {
    let mut things = objects();
    things.push(namespace("example"));
    things.push(service("example", "www", &["10.96.9.9"], &[]));
    let world = World::with(things, vec![upstream(knows).await]).await;
    for name in ["www.example.", "WWW.example."] {
        let reply = world.ask(name, A).await;
        assert!(text(&reply.answers).concat().contains("192.0.2.1"), "{reply}");
    }
    let ours = world.ask("www.example.svc.cluster.local.", A).await;
    assert_eq!(text(&ours.answers), ["www.example.svc.cluster.local. A 10.96.9.9"]);
    world.end().await;
}

#[tokio::test]
async fn a_reply_of_many_names_is_encoded_in_no_time_rustsec_2026_0119() {
    // Compression that looks at every name before for every name took seconds.
    let to = upstream(|asked| {
        let label = |number: usize| Name::from_ascii(format!("n{number}.example.")).unwrap();
        let mut reply = reply_to(asked, ResponseCode::NoError);
        reply.answers = (0..1200)
            .map(|number| {
                let target = RData::CNAME(CNAME(label(number + 1)));
                Record::from_rdata(label(number), 60, target)
            })
            .collect();
        vec![reply]
    })
    .await;
    let world = World::with(vec![], vec![to]).await;
    let begun = Instant::now();
    let reply = tcp(world.v4(), &query("n0.example.", A)).await;
    assert!(!reply.answers.is_empty());
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    world.end().await;
}

#[tokio::test]
async fn malformed_replies_are_waited_past_coredns_8287() {
    // Anybody who could reach the port with a few bytes took the true answer away.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (bytes, from) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..bytes]).unwrap();
            let good = knows(&asked).remove(0).to_vec().unwrap();
            let mut other_id = good.clone();
            other_id[0] ^= 1;
            // A name that points at itself.
            let endless = [&other_id[..12], &[0xc0, 0x0c, 0, 1, 0, 1]].concat();
            let cut = &other_id[..other_id.len() - 3];
            let replies: [&[u8]; 7] =
                [&[], &good[..1], &other_id[..11], cut, &endless, &[0xff; 600], &good];
            for reply in replies {
                socket.send_to(reply, from).await.unwrap();
            }
        }
    });
    let world = World::with(vec![], vec![to]).await;
    assert_eq!(world.ask("www.example.", A).await.answers.len(), 2);
    world.end().await;
}

#[tokio::test]
async fn replies_from_other_ports_addresses_and_of_another_class_are_waited_past_cve_2023_28452() {
    // Each has the right id, which a forger who sees or guesses it has, too.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = socket.local_addr().unwrap();
    let other_port = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other_address = UdpSocket::bind(("127.0.0.77", to.port())).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (bytes, from) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..bytes]).unwrap();
            let good = knows(&asked).remove(0);
            let mut forged = good.clone();
            forged.answers = vec![address("www.example.", 60, 66)];
            for stranger in [&other_port, &other_address] {
                // Refused, where the kernel itself takes from nobody else.
                let _ = stranger.send_to(&forged.to_vec().unwrap(), from).await;
            }
            forged.queries[0].set_query_class(DNSClass::CH);
            for reply in [forged, good] {
                socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    let world = World::with(vec![], vec![to]).await;
    let reply = world.ask("www.example.", A).await;
    let true_answers = ["web.example. A 192.0.2.1", "www.example. CNAME web.example."];
    assert_eq!(text(&reply.answers), true_answers);
    world.end().await;
}

#[tokio::test]
async fn another_class_is_another_question_coredns_8272() {
    // The class was not part of the cache's key: CH answers were given to IN questions.
    let asked = Arc::new(AtomicUsize::new(0));
    let noted = asked.clone();
    let to = upstream(move |message| {
        noted.fetch_add(1, Ordering::SeqCst);
        knows(message)
    })
    .await;
    let world = World::with(vec![], vec![to]).await;
    let mut chaos = query("www.example.", A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(udp(world.v4(), &chaos).await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert_eq!(world.ask("www.example.", A).await.answers.len(), 2);
    assert_eq!(udp(world.v4(), &chaos).await.metadata.response_code, ResponseCode::Refused);
    world.end().await;
}
