//! One server takes over from another on the same port, and settings change, under queries.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use fairlead_dns::{DnsConfig, Upstreams, has_predecessor, start};
use fairlead_state::{Change, Store, model::Kind, store::Snapshots};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    contract::objects,
    world::{PATIENCE, World, query, service, tcp_receive, tcp_send, text, udp},
};

const WEB: &str = "web.demo.svc.cluster.local.";
/// Servers that take over, one after the other.
const ROUNDS: usize = 6;
/// Questions that must have been answered in each round before the old server ends, and after.
const ANSWERS_A_ROUND: u64 = 300;
/// Resolvers wait 5 s (resolv.conf(5)).
const REPLY_TIMEOUT: Duration = Duration::from_secs(4);

/// What clients have seen.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    lost: AtomicU64,
    wrong: AtomicU64,
    stop: AtomicBool,
}

impl Seen {
    fn count(&self, reply: Option<Message>) {
        let counter = match reply {
            None => &self.lost,
            Some(reply) if reply.answers.len() == 1 => &self.answered,
            Some(_) => &self.wrong,
        };
        counter.fetch_add(1, Relaxed);
    }

    async fn await_more(&self, count: u64) {
        let target = self.answered.load(Relaxed) + count;
        let reached = async {
            while self.answered.load(Relaxed) < target {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reached).await.expect("queries go on");
    }
}

/// A new socket for each question: each is the kernel's choice anew.
async fn ask_by_udp(server: SocketAddr) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(&query(WEB, RecordType::A).to_vec().ok()?).await.ok()?;
    let mut buffer = [0; 512];
    let received = timeout(REPLY_TIMEOUT, socket.recv(&mut buffer)).await.ok()?.ok()?;
    Message::from_vec(&buffer[..received]).ok()
}

async fn ask_by_tcp(server: SocketAddr) -> Option<Message> {
    let asking = async {
        let mut stream = TcpStream::connect(server).await.ok()?;
        let asked = query(WEB, RecordType::A).to_vec().ok()?;
        let length = u16::try_from(asked.len()).ok()?.to_be_bytes();
        stream.write_all(&[&length, &asked[..]].concat()).await.ok()?;
        let mut reply = vec![0; stream.read_u16().await.ok()?.into()];
        stream.read_exact(&mut reply).await.ok()?;
        Message::from_vec(&reply).ok()
    };
    timeout(REPLY_TIMEOUT, asking).await.ok()?
}

fn listening(address: &str) -> DnsConfig {
    DnsConfig {
        listen: vec![address.parse().unwrap()],
        upstreams: Upstreams::Addresses(vec![]),
        threads: Some(2),
        ..DnsConfig::default()
    }
}

fn store() -> (Store, Snapshots) {
    let (mut store, snapshots) = Store::new([Kind::Service]);
    let (services, others): (Vec<_>, Vec<_>) =
        objects().into_iter().partition(|object| object.kind() == Kind::Service);
    let replace = Change::Replace { kind: Kind::Service, objects: services, refused: vec![] };
    store.apply(others.into_iter().map(Change::Upsert).chain([replace]));
    (store, snapshots)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn servers_that_take_over_from_one_another_lose_no_query() {
    // A wildcard socket becomes one of an address when it is connected: both kinds matter.
    for listen in ["127.0.0.1", "0.0.0.0"] {
        let (_store, snapshots) = store();
        let mut cancel = CancellationToken::new();
        let config = listening(&format!("{listen}:0"));
        let mut running = start(&config, snapshots.clone(), cancel.clone()).unwrap();
        let port = running.addresses()[0].port();
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let config = listening(&format!("{listen}:{port}"));
        assert!(has_predecessor(&config), "the first one shares");

        let seen = Arc::new(Seen::default());
        let clients = (0..6).map(|index| {
            let seen = seen.clone();
            tokio::spawn(async move {
                while !seen.stop.load(Relaxed) {
                    let reply = match index {
                        0 | 1 => ask_by_tcp(server).await,
                        _ => ask_by_udp(server).await,
                    };
                    seen.count(reply);
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        for _ in 0..ROUNDS {
            seen.await_more(ANSWERS_A_ROUND).await;
            let next_cancel = CancellationToken::new();
            let next = start(&config, snapshots.clone(), next_cancel.clone()).unwrap();
            seen.await_more(ANSWERS_A_ROUND).await;
            cancel.cancel();
            timeout(PATIENCE, running.join()).await.expect("the old one ends");
            seen.await_more(ANSWERS_A_ROUND).await;
            (running, cancel) = (next, next_cancel);
        }
        seen.stop.store(true, Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        let (lost, wrong) = (seen.lost.load(Relaxed), seen.wrong.load(Relaxed));
        assert_eq!((lost, wrong), (0, 0), "of {} on {listen}", seen.answered.load(Relaxed));
        cancel.cancel();
        running.join().await;
    }
}

#[tokio::test]
async fn a_port_that_is_free_or_not_shared_has_no_predecessor() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    assert!(!has_predecessor(&listening(&taken)), "not shared");
    drop(holder);
    assert!(!has_predecessor(&listening(&taken)), "free");
}

#[tokio::test]
async fn a_connection_with_more_to_ask_is_served_while_the_server_ends() {
    let world = World::with(objects(), vec![]).await;
    let mut stream = TcpStream::connect(world.v4()).await.unwrap();
    tcp_send(&mut stream, &query(WEB, RecordType::A).to_vec().unwrap()).await;
    tcp_receive(&mut stream).await;
    world.cancel.cancel();
    for _ in 0..5 {
        tcp_send(&mut stream, &query(WEB, RecordType::A).to_vec().unwrap()).await;
        assert_eq!(tcp_receive(&mut stream).await.answers.len(), 1);
    }
    world.end().await;
}

/// Each question gave it another second, until the server was killed.
#[tokio::test]
async fn a_connection_that_is_never_idle_ends_in_order_with_the_server() {
    const UNREAD: usize = 8;
    let world = World::with(objects(), vec![]).await;
    let (mut reader, mut writer) = TcpStream::connect(world.v4()).await.unwrap().into_split();
    let asked = query(WEB, RecordType::A).to_vec().unwrap();
    let framed = [&u16::try_from(asked.len()).unwrap().to_be_bytes(), &asked[..]].concat();
    // Some are always on their way, so that the server has something to read when it closes.
    writer.write_all(&framed.repeat(UNREAD)).await.unwrap();
    let (mut answered, mut ending) = (0, Instant::now());
    let busy = async {
        loop {
            let length = match reader.read_u16().await {
                Ok(length) => length,
                Err(error) => return error.kind(),
            };
            reader.read_exact(&mut vec![0; length.into()]).await.unwrap();
            answered += 1;
            if answered == 100 {
                ending = Instant::now();
                world.cancel.cancel();
            }
            // It may be closed by now.
            let _ = writer.write_all(&framed).await;
        }
    };
    let ended = timeout(PATIENCE, busy).await.expect("an end");
    assert_eq!(ended, ErrorKind::UnexpectedEof, "closed, not reset");
    // An idle connection has 10 s.
    assert!(ending.elapsed() < Duration::from_secs(8), "{:?}", ending.elapsed());
    assert!(answered > 100, "it is served on for a moment");
    world.end().await;
}

#[tokio::test]
async fn times_to_live_and_upstreams_change_while_answering() {
    let world = World::with(objects(), vec![]).await;
    let (outside, absent) = ("www.example.com.", "nope.demo.svc.cluster.local.");
    let asked = |reply: &Message| reply.answers[0].ttl;
    assert_eq!(asked(&world.ask(WEB, RecordType::A).await), 30);
    let refused = world.ask(outside, RecordType::A).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);

    let upstream = World::with(vec![], vec![]).await;
    let other = DnsConfig {
        upstreams: Upstreams::Addresses(vec![upstream.v4()]),
        ttl_seconds: 7,
        negative_ttl_seconds: 3,
        ..world.config.clone()
    };
    world.running.renew(&other).unwrap();
    let tuned = async { while asked(&udp(world.v4(), &query(WEB, RecordType::A)).await) != 7 {} };
    timeout(PATIENCE, tuned).await.expect("names are made anew");
    let denied = world.ask(absent, RecordType::A).await;
    assert_eq!(denied.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(denied.authorities[0].ttl, 3);
    world.ask(outside, RecordType::A).await;
    assert_eq!(world.running.counts().forwarded, 1, "the new upstream was asked");
    upstream.end().await;
    world.end().await;
}

#[tokio::test]
async fn names_of_an_earlier_run_stand_in_until_there_are_new_ones() {
    let mut world = World::unsynced(&listening("127.0.0.1:0"));
    let nope = "nope.demo.svc.cluster.local.";
    let code = |reply: &Message| reply.metadata.response_code;
    assert_eq!(code(&world.ask(nope, RecordType::A).await), ResponseCode::ServFail);
    let (mut earlier, snapshots) = Store::new([Kind::Service]);
    let objects = vec![service("demo", "web", &["10.96.0.77"], &[])];
    earlier.apply(vec![Change::Replace { kind: Kind::Service, objects, refused: vec![] }]);
    let kept = snapshots.borrow().clone().unwrap();
    world.standing_in(kept.clone()).await;
    let reply = world.ask(WEB, RecordType::A).await;
    assert_eq!(text(&reply.answers), [format!("{WEB} A 10.96.0.77")]);
    assert!(reply.answers[0].ttl <= 5, "good for a moment: {reply}");
    // What is not there is denied: else no search path would work.
    assert_eq!(code(&world.ask(nope, RecordType::A).await), ResponseCode::NXDomain);
    assert_eq!(world.running.revision(), None, "not in sync");
    // New settings in the outage left nothing of them: every name was SERVFAIL until its end.
    for (ttl_seconds, shown) in [(3, 3), (30, 5)] {
        let config = DnsConfig { ttl_seconds, ..world.config.clone() };
        world.running.renew(&config).unwrap();
        let renewed = async {
            loop {
                let reply = world.ask(WEB, RecordType::A).await;
                assert_eq!(text(&reply.answers), [format!("{WEB} A 10.96.0.77")]);
                if reply.answers[0].ttl == shown {
                    break;
                }
            }
        };
        timeout(PATIENCE, renewed).await.expect("they are by the new settings");
    }
    // So does a server that takes this one's place.
    let successor = World::unsynced(&listening("127.0.0.1:0"));
    successor.standing_in(world.running.standing_in().expect("names of the last run")).await;
    successor.end().await;
    world = world.synced(self::objects()).await;
    assert!(!world.running.stands_in() && world.running.standing_in().is_none());
    let reply = world.ask(WEB, RecordType::A).await;
    assert_eq!(text(&reply.answers), [format!("{WEB} A 10.96.0.1")]);
    assert_eq!(reply.answers[0].ttl, 30);
    // Too late to matter.
    world.running.stand_in(kept);
    world.apply(vec![Change::Upsert(service("demo", "late", &["10.96.0.9"], &[]))]).await;
    let reply = world.ask(WEB, RecordType::A).await;
    assert_eq!(text(&reply.answers), [format!("{WEB} A 10.96.0.1")]);
    world.end().await;
}
