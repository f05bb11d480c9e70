//! Questions that wait for others, upstreams or the client itself, and those that need not.

use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    sync::Arc,
    time::Instant,
};

use fairlead_dns::{Crowded, DropReason};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    contract::objects,
    forward::{knows, upstream},
    sockets::{BIG, BIG_ENDPOINTS, big},
    world::{PATIENCE, World, query, tcp, tcp_receive, tcp_send},
};

const A: RecordType = RecordType::A;
const WEB: &str = "web.demo.svc.cluster.local.";
/// An alias inside the zone: the slow path follows it without asking anyone.
const INSIDE: &str = "inside.demo.svc.cluster.local.";
/// What a socket has room for in any case.
const AT_ONCE: u64 = 50;

/// An upstream that has no answer for names that begin with `slow`.
async fn deaf_to_slow() -> SocketAddr {
    let is_slow = |asked: &Message| asked.queries[0].name().to_ascii().starts_with("slow");
    upstream(move |asked| if is_slow(asked) { vec![] } else { knows(asked) }).await
}

/// An upstream whose answers for names that begin with `slow` come once they are let.
pub async fn gated(gate: Arc<Semaphore>) -> SocketAddr {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (bytes, from) = socket.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..bytes]).unwrap();
            let (socket, gate) = (socket.clone(), gate.clone());
            tokio::spawn(async move {
                if asked.queries[0].name().to_ascii().starts_with("slow") {
                    drop(gate.acquire().await);
                }
                let reply = knows(&asked).remove(0).to_vec().unwrap();
                socket.send_to(&reply, from).await.unwrap();
            });
        }
    });
    address
}

/// A client with an address of its own.
async fn client(world: &World, last: u8) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).await.unwrap();
    socket.connect(world.v4()).await.unwrap();
    socket
}

async fn receive(client: &UdpSocket) -> Message {
    let mut buffer = [0; 4096];
    let received = timeout(PATIENCE, client.recv(&mut buffer)).await.expect("a reply").unwrap();
    Message::from_vec(&buffer[..received]).unwrap()
}

async fn ask(client: &UdpSocket, name: &str) -> Message {
    client.send(&query(name, A).to_vec().unwrap()).await.unwrap();
    receive(client).await
}

/// Asks for names that nobody answers, by their numbers, no faster than they are read.
async fn fill(world: &World, client: &UdpSocket, numbers: Range<u64>) {
    let read = || {
        let counts = world.running.counts();
        let lost = DropReason::ALL.iter().position(|reason| *reason == DropReason::QueueFull);
        counts.udp_queries + counts.dropped[lost.unwrap()]
    };
    let mut sent = read();
    for number in numbers {
        let asked = query(&format!("slow-{number}.example."), A).to_vec().unwrap();
        client.send(&asked).await.unwrap();
        sent += 1;
        while sent % AT_ONCE == 0 && read() < sent {
            tokio::task::yield_now().await;
        }
    }
}

fn crowded(world: &World, reason: Crowded) -> u64 {
    let place = Crowded::ALL.iter().position(|known| *known == reason).unwrap();
    world.running.counts().crowded[place]
}

#[tokio::test]
async fn one_client_whose_upstream_is_silent_keeps_no_other_client_out() {
    let world = World::with(objects(), vec![deaf_to_slow().await]).await;
    let (greedy, other) = (client(&world, 1).await, client(&world, 2).await);
    let begun = Instant::now();
    // On a machine that has no time at all, places may be free again by themselves.
    for round in 0.. {
        fill(&world, &greedy, round * 1500..(round + 1) * 1500).await;
        // What needs no upstream needs no place among those that wait for one.
        let alias = ask(&other, INSIDE).await;
        assert_eq!(alias.answers.len(), 2, "{alias}");
        let others = ask(&other, &format!("n{round}.example.")).await;
        assert_eq!(others.metadata.response_code, ResponseCode::NXDomain, "{others}");
        if crowded(&world, Crowded::Full) > 0 && crowded(&world, Crowded::GaveWay) > 0 {
            break;
        }
        assert!(begun.elapsed() < 3 * PATIENCE, "nobody has ever waited for room");
    }
    world.end().await;
}

#[tokio::test]
async fn what_finds_no_room_is_refused_and_counted() {
    let world = World::with(objects(), vec![deaf_to_slow().await]).await;
    let greedy = client(&world, 1).await;
    let (begun, mut refused, mut failed) = (Instant::now(), 0, 0);
    // On a machine that has no time at all, places may be free again by themselves.
    for round in 0.. {
        fill(&world, &greedy, round * 1500..(round + 1) * 1500).await;
        // Nobody else wants anything: all places are this client's, and what comes then is refused.
        let asked = ask(&greedy, &format!("slow-{round}.other.example.")).await;
        let mut buffer = [0; 4096];
        let mut codes = vec![asked.metadata.response_code];
        while let Ok(received) = greedy.try_recv(&mut buffer) {
            codes.push(Message::from_vec(&buffer[..received]).unwrap().metadata.response_code);
        }
        let count = |wanted| codes.iter().filter(|code| **code == wanted).count();
        refused += count(ResponseCode::Refused);
        failed += count(ResponseCode::ServFail);
        assert_eq!(count(ResponseCode::Refused) + count(ResponseCode::ServFail), codes.len());
        if refused > 0 {
            break;
        }
        assert!(begun.elapsed() < 3 * PATIENCE, "none of {failed} was refused");
    }
    assert!(crowded(&world, Crowded::Full) >= refused as u64, "as beyond max_concurrent");
    assert_eq!(crowded(&world, Crowded::GaveWay), 0);
    world.end().await;
}

#[tokio::test]
async fn replies_on_a_connection_come_as_they_are_ready_rfc_7766_6_2_1_1() {
    let gate = Arc::new(Semaphore::new(0));
    let world = World::with(objects(), vec![gated(gate.clone()).await]).await;
    let mut stream = TcpStream::connect(world.v4()).await.unwrap();
    let slow: Vec<_> = (0..100).map(|n| query(&format!("slow-{n}.example."), A)).collect();
    for asked in &slow {
        tcp_send(&mut stream, &asked.to_vec().unwrap()).await;
    }
    // Of all kinds: answered at once, along an alias, by the upstream.
    for name in [WEB, INSIDE, "www.example."] {
        let asked = query(name, A);
        tcp_send(&mut stream, &asked.to_vec().unwrap()).await;
        let reply = tcp_receive(&mut stream).await;
        assert_eq!(reply.metadata.id, asked.metadata.id, "{name} does not wait for others");
        assert!(!reply.answers.is_empty(), "{reply}");
    }
    gate.add_permits(1);
    for _ in &slow {
        let reply = tcp_receive(&mut stream).await;
        let is_its = |asked: &&Message| asked.metadata.id == reply.metadata.id;
        assert!(slow.iter().filter(is_its).any(|asked| asked.queries == reply.queries), "{reply}");
    }
    world.end().await;
}

#[tokio::test]
async fn who_takes_no_replies_is_read_from_no_more_and_then_closed() {
    const OTHERS: u64 = 20;
    let world = World::with(big(), vec![]).await;
    let asked = query(BIG, A).to_vec().unwrap();
    let framed = [&u16::try_from(asked.len()).unwrap().to_be_bytes(), &asked[..]].concat();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(world.v4()).await.unwrap();
    let asking = async { while stream.write_all(&framed).await.is_ok() {} };
    let others = async {
        for _ in 0..OTHERS {
            let reply = tcp(world.v4(), &query(BIG, A)).await;
            assert_eq!(reply.answers.len(), BIG_ENDPOINTS, "others are answered meanwhile");
        }
    };
    let (closed, ()) = tokio::join!(timeout(3 * PATIENCE, asking), others);
    closed.expect("the connection ends");
    // What the kernel keeps of replies of 5 KB for a client that takes none, and the queue.
    let read = world.running.counts().tcp_queries - OTHERS;
    assert!(read < 4000, "{read} questions of a client that takes no replies were read");
    world.end().await;
}

/// Both are one question to the upstream, and both were answered in the letter case of the first.
#[tokio::test]
async fn who_asks_in_another_letter_case_while_the_same_is_asked_has_its_own_back() {
    let gate = Arc::new(Semaphore::new(0));
    let world = World::with(vec![], vec![gated(gate.clone()).await]).await;
    let (one, other) = (client(&world, 1).await, client(&world, 2).await);
    let asked = [(&one, "slow.example."), (&other, "SLOW.Example.")];
    for (sent, (client, name)) in (1..).zip(asked) {
        client.send(&query(name, A).to_vec().unwrap()).await.unwrap();
        while world.running.counts().forwarded < sent {
            tokio::task::yield_now().await;
        }
    }
    gate.add_permits(1);
    for (client, name) in asked {
        let reply = receive(client).await;
        assert_eq!(reply.answers[0].name.to_ascii(), name, "{reply}");
    }
    world.end().await;
}
