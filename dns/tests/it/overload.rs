//! More questions than there is time for, from everybody or from one client.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket as Blocking},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use fairlead_dns::{DnsConfig, DropReason, Upstreams};
use hickory_proto::{op::Message, rr::RecordType};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use crate::{
    contract::objects,
    world::{PATIENCE, World, query, service, slice, tcp_receive, tcp_send},
};

const NAME: &str = "web.demo.svc.cluster.local.";

async fn world(client_rate: Option<u32>) -> World {
    let config = DnsConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        upstreams: Upstreams::Addresses(vec![]),
        client_rate: client_rate.map(|rate| NonZeroU32::new(rate).unwrap()),
        threads: Some(1),
        ..DnsConfig::default()
    };
    World::unsynced(&config).synced(objects()).await
}

fn dropped(world: &World, reason: DropReason) -> u64 {
    let place = DropReason::ALL.iter().position(|known| *known == reason).unwrap();
    world.running.counts().dropped[place]
}

/// Asks from an address of its own; how many of so many questions are answered.
async fn answered(server: SocketAddr, client: u8, count: usize) -> usize {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, client), 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    let asked = query(NAME, RecordType::A).to_vec().unwrap();
    let mut buffer = [0; 512];
    let mut answered = 0;
    for _ in 0..count {
        socket.send(&asked).await.unwrap();
        let received = timeout(Duration::from_millis(200), socket.recv(&mut buffer)).await;
        let Ok(received) = received else { continue };
        assert_eq!(Message::from_vec(&buffer[..received.unwrap()]).unwrap().answers.len(), 1);
        answered += 1;
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_queue_has_room_for_is_counted_and_afterwards_all_is_well() {
    let world = world(None).await;
    let (server, asked) = (world.v4(), query(NAME, RecordType::A).to_vec().unwrap());
    let begun = Instant::now();
    while dropped(&world, DropReason::QueueFull) == 0 {
        assert!(begun.elapsed() < PATIENCE, "nothing is lost");
        let asked = asked.clone();
        let flood = tokio::task::spawn_blocking(move || {
            let socket = Blocking::bind("127.0.0.1:0").unwrap();
            for _ in 0..20_000 {
                // Refused by nobody: what is lost is lost at the server.
                let _ = socket.send_to(&asked, server);
            }
        });
        flood.await.unwrap();
    }
    // What was in the queue is done with at once.
    let calm = async { while answered(server, 9, 1).await == 0 {} };
    timeout(PATIENCE, calm).await.expect("the server answers");
    // What a stalled server has kept waiting is dropped on purpose for a while.
    let calm = async { while answered(server, 9, 20).await < 20 {} };
    timeout(PATIENCE, calm).await.expect("all are answered");
    world.end().await;
}

#[tokio::test]
async fn a_client_beyond_its_rate_is_not_answered_and_others_are() {
    let world = world(Some(20)).await;
    let server = world.v4();
    let greedy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let asked = query(NAME, RecordType::A).to_vec().unwrap();
    for _ in 0..1000 {
        greedy.send_to(&asked, server).await.unwrap();
    }
    let refused = async {
        while dropped(&world, DropReason::ClientRate) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("questions are dropped");
    // Its first second's worth, and what more there is in the time this takes.
    let mut answers = 0;
    let mut buffer = [0; 512];
    while greedy.try_recv(&mut buffer).is_ok() {
        answers += 1;
    }
    assert!(answers < 500, "{answers} of 1000 questions were answered");
    let others = async { while answered(server, 2, 10).await < 10 {} };
    timeout(PATIENCE, others).await.expect("all of theirs are answered");
    world.end().await;
}

#[tokio::test]
async fn a_connection_is_no_way_around_a_client_s_rate() {
    let world = world(Some(1)).await;
    let mut stream = TcpStream::connect(world.v4()).await.unwrap();
    let asked = query(NAME, RecordType::A).to_vec().unwrap();
    for _ in 0..100 {
        tcp_send(&mut stream, &asked).await;
    }
    assert_eq!(tcp_receive(&mut stream).await.answers.len(), 1);
    let read = async {
        while world.running.counts().tcp_queries < 100 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, read).await.expect("all are read");
    // Neither is one protocol a way around that of the other.
    let before = dropped(&world, DropReason::ClientRate);
    assert!(before > 50, "{before} of 100 questions were dropped");
    let by_udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..20 {
        by_udp.send_to(&asked, world.v4()).await.unwrap();
    }
    let refused = async {
        while dropped(&world, DropReason::ClientRate) < before + 10 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("both are counted together");
    let others = async { while answered(world.v4(), 2, 1).await == 0 {} };
    timeout(PATIENCE, others).await.expect("others are answered");
    // The connection lives on: what comes in time is answered.
    let later = async {
        loop {
            tcp_send(&mut stream, &asked).await;
            if timeout(Duration::from_millis(100), stream.peek(&mut [0])).await.is_ok() {
                break tcp_receive(&mut stream).await;
            }
        }
    };
    let reply = timeout(PATIENCE, later).await.expect("a reply in its time");
    assert_eq!(reply.answers.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn no_client_has_a_rate_unless_it_is_wanted() {
    let world = world(None).await;
    assert_eq!(answered(world.v4(), 1, 200).await, 200);
    assert_eq!(dropped(&world, DropReason::ClientRate), 0);
    world.end().await;
}

#[tokio::test]
async fn who_pipelines_questions_for_the_largest_answers_and_reads_none_holds_two_of_them() {
    const ENDPOINTS: usize = 3000;
    const QUESTIONS: usize = 600;
    let name = "crowd.demo.svc.cluster.local.";
    let addresses: Vec<_> =
        (0..ENDPOINTS).map(|n| format!("10.2.{}.{}", n / 250, n % 250)).collect();
    let endpoints: Vec<_> = addresses.iter().map(|ip| (ip.as_str(), "", true)).collect();
    let mut things = objects();
    things.push(service("demo", "crowd", &[], &[("http", 80)]));
    things.push(slice("demo", "crowd", "crowd-1", &[("http", 80)], &endpoints));
    let world = World::with(things, vec![]).await;
    let asked = query(name, RecordType::A).to_vec().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(world.v4()).await.unwrap();
    tcp_send(&mut stream, &asked).await;
    assert_eq!(tcp_receive(&mut stream).await.answers.len(), ENDPOINTS);
    let framed = [&u16::try_from(asked.len()).unwrap().to_be_bytes()[..], &asked].concat();
    stream.write_all(&framed.repeat(QUESTIONS)).await.unwrap();
    let closed = async {
        while dropped(&world, DropReason::NotTaken) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(3 * PATIENCE, closed).await.expect("who takes no replies is closed");
    // 32 replies of 48 KiB had room before, each of a connection's, of 200 that a client may have.
    let lost = dropped(&world, DropReason::NotTaken);
    assert!(lost <= 2, "{lost} replies waited");
    let read = world.running.counts().tcp_queries;
    assert!(read < QUESTIONS as u64, "{read} were read, with no room for their replies");
    // Others are answered, over TCP too.
    let mut other = TcpStream::connect(world.v4()).await.unwrap();
    tcp_send(&mut other, &asked).await;
    assert_eq!(tcp_receive(&mut other).await.answers.len(), ENDPOINTS);
    world.end().await;
}
