//! Connections to upstreams that die without a word: a firewall or a balancer has forgotten them.

use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::{
    forward::{both, reply_to},
    tls::{acceptor, certificate},
    world::World,
};

/// What is asked by a connection that is alive takes less: one that is silent is noticed after 1 s.
const QUICK: Duration = Duration::from_millis(900);

/// An upstream whose first connection answers one question and then nothing. By UDP it cuts every reply.
async fn dying(last: u8, tls: Option<TlsAcceptor>) -> SocketAddr {
    let (tcp, udp) = both().await;
    let address = tcp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (bytes, from) = udp.recv_from(&mut buffer).await.unwrap();
            let asked = Message::from_vec(&buffer[..bytes]).unwrap();
            let mut cut = reply_to(&asked, ResponseCode::NoError);
            cut.metadata.truncation = true;
            udp.send_to(&cut.to_vec().unwrap(), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        let mut answers_once = true;
        loop {
            let (stream, _) = tcp.accept().await.unwrap();
            let most = if std::mem::take(&mut answers_once) { 1 } else { usize::MAX };
            let tls = tls.clone();
            tokio::spawn(async move {
                let Some(tls) = tls else {
                    return answer(stream, most, last, After::Silence).await;
                };
                // Clients may have left by then.
                if let Ok(stream) = tls.accept(stream).await {
                    answer(stream, most, last, After::Silence).await;
                }
            });
        }
    });
    address
}

/// What becomes of a connection that has answered what it answers.
#[derive(Clone, Copy)]
enum After {
    Silence,
    Close,
}

/// Answers so many questions.
async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    most: usize,
    last: u8,
    after: After,
) {
    for _ in 0..most {
        let Ok(length) = stream.read_u16().await else { return };
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        let asked = Message::from_vec(&bytes).unwrap();
        let mut reply = reply_to(&asked, ResponseCode::NoError);
        let data = RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
        reply.answers = vec![Record::from_rdata(asked.queries[0].name().clone(), 0, data)];
        let reply = reply.to_vec().unwrap();
        stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&reply).await.unwrap();
        stream.flush().await.unwrap();
    }
    match after {
        After::Silence => pending().await,
        After::Close => {}
    }
}

/// Who answers, and after what time.
async fn asked(world: &World, number: usize) -> (String, Duration) {
    let begun = Instant::now();
    let reply = world.ask(&format!("n{number}.example."), RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{number}: {reply}");
    (reply.answers[0].data.to_string(), begun.elapsed())
}

/// An upstream by TCP whose connections answer so many questions each, one connection after the other, and how many
/// it has taken.
async fn counting(most: &'static [usize], after: After) -> (SocketAddr, Arc<AtomicUsize>) {
    let (tcp, _) = both().await;
    let (address, taken) = (tcp.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let taking = taken.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = tcp.accept().await.unwrap();
            let at = taking.fetch_add(1, Relaxed).min(most.len() - 1);
            tokio::spawn(answer(stream, most[at], 1, after));
        }
    });
    (address, taken)
}

async fn forcing(to: SocketAddr) -> World {
    World::by(&format!(".:53 {{\n forward . {to} {{\n  force_tcp\n }}\n}}\n"), vec![]).await
}

/// Each question was sent by it, and waited 2 s for the next upstream; where that was the only one all failed.
#[tokio::test]
async fn an_upstream_whose_connection_died_is_asked_by_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let made = certificate(dir.path(), "server", &["127.0.0.1"]);
    let tls = acceptor(&made, None, &[]);
    let trusted = format!("tls {}", dir.path().join("server").display());
    let forwards = [
        (dying(1, None).await.to_string(), dying(2, None).await.to_string(), "force_tcp"),
        (dying(1, None).await.to_string(), dying(2, None).await.to_string(), ""),
        (dying(1, None).await.to_string(), String::new(), "force_tcp"),
        (format!("tls://{}", dying(1, Some(tls)).await), String::new(), &*trusted),
    ];
    for (first, second, option) in forwards {
        let case = format!("{first} {second} {option}");
        let corefile = format!(
            ".:53 {{\n forward . {first} {second} {{\n  policy sequential\n  {option}\n }}\n}}\n"
        );
        let world = World::by(&corefile, vec![]).await;
        let (who, took) = asked(&world, 0).await;
        assert_eq!(who, "192.0.2.1", "{case}");
        assert!(took < QUICK, "{case}: {took:?}");
        // Its connection dies here: what waits on it is asked anew before anybody else is asked.
        let (who, took) = asked(&world, 1).await;
        assert_eq!(who, "192.0.2.1", "{case}");
        assert!(took < Duration::from_millis(3900), "{case}: {took:?}");
        for number in 2..6 {
            let (who, took) = asked(&world, number).await;
            assert_eq!(who, "192.0.2.1", "{case}");
            assert!(took < QUICK, "{case}: {took:?}");
        }
        world.end().await;
    }
}

/// Each that waited made a connection of its own, once a second: more than upstreams take of a client (BIND's 150 in all,
/// Unbound's 10 of a thread), so that a pause became an outage.
#[tokio::test]
async fn bug_each_question_on_a_silent_connection_made_one_of_its_own() {
    const AT_ONCE: usize = 40;
    let (to, taken) = counting(&[0], After::Silence).await;
    let world = forcing(to).await;
    let names: Vec<_> = (0..AT_ONCE).map(|number| format!("n{number}.example.")).collect();
    let asking = names.iter().map(|name| world.ask(name, RecordType::A));
    for reply in join_all(asking).await {
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{reply}");
    }
    let taken = taken.load(Relaxed);
    assert!((2..=6).contains(&taken), "{taken} connections in 4 s, one a second and all ask by it");
    world.end().await;
}

/// What was closed meanwhile was known by the first question's failure, and then all made a connection each.
#[tokio::test]
async fn a_connection_that_its_upstream_closes_costs_no_answer_and_one_more_connection() {
    const AT_ONCE: usize = 12;
    let (to, taken) = counting(&[1, 3, usize::MAX], After::Close).await;
    let world = forcing(to).await;
    let (who, _) = asked(&world, 0).await;
    assert_eq!(who, "192.0.2.1");
    // The second connection is closed amid these.
    let asking = (1..=AT_ONCE).map(|number| asked(&world, number));
    for (who, took) in join_all(asking).await {
        assert_eq!(who, "192.0.2.1");
        assert!(took < QUICK, "{took:?}");
    }
    assert_eq!(taken.load(Relaxed), 3);
    world.end().await;
}
