//! What options of `forward` do: how many questions wait, by which protocol they are asked, and of whom first.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    sync::Semaphore,
    time::timeout,
};

use crate::{
    forward::{both, knows, reply_to, soa, upstream},
    waiting::gated,
    world::{PATIENCE, World, query, udp},
};

const A: RecordType = RecordType::A;

/// A server that forwards by these options.
async fn forwarding(to: &[SocketAddr], options: &str) -> World {
    let to: Vec<_> = to.iter().map(ToString::to_string).collect();
    let to = to.join(" ");
    World::by(&format!(".:53 {{\n forward . {to} {{\n  {options}\n }}\n}}\n"), vec![]).await
}

#[tokio::test]
async fn beyond_max_concurrent_questions_are_refused_until_there_is_room_again() {
    const MOST: usize = 3;
    let gate = Arc::new(Semaphore::new(0));
    let world = forwarding(&[gated(gate.clone()).await], &format!("max_concurrent {MOST}")).await;
    let server = world.v4();
    let asking: Vec<_> = (0..MOST)
        .map(|n| {
            let asked = query(&format!("slow-{n}.example."), A);
            tokio::spawn(async move { udp(server, &asked).await.metadata.response_code })
        })
        .collect();
    let all_wait = async {
        while world.running.counts().forwarded < MOST as u64 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, all_wait).await.expect("they are asked");
    for _ in 0..2 {
        let refused = world.ask("www.example.", A).await;
        assert_eq!(refused.metadata.response_code, ResponseCode::Refused, "{refused}");
    }
    assert_eq!(world.running.counts().forwards[0].rejects, 2);
    gate.add_permits(1);
    for reply in asking {
        assert_eq!(reply.await.unwrap(), ResponseCode::NXDomain, "none that waited was given up");
    }
    let answered = world.ask("www.example.", A).await;
    assert_eq!(answered.metadata.response_code, ResponseCode::NoError, "{answered}");
    assert_eq!(world.running.counts().forwards[0].rejects, 2);
    world.end().await;
}

/// An upstream that answers by TCP only, and whose socket for UDP shows what came there.
async fn by_tcp_only() -> (SocketAddr, UdpSocket) {
    let (tcp, udp) = both().await;
    let address = tcp.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut bytes = vec![0; length.into()];
                    stream.read_exact(&mut bytes).await.unwrap();
                    let reply = knows(&Message::from_vec(&bytes).unwrap()).remove(0);
                    let reply = reply.to_vec().unwrap();
                    stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
            });
        }
    });
    (address, udp)
}

#[tokio::test]
async fn force_tcp_asks_by_tcp_and_nothing_else_does() {
    let (to, udp) = by_tcp_only().await;
    let world = forwarding(&[to], "force_tcp").await;
    for _ in 0..3 {
        let reply = world.ask("www.example.", A).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{reply}");
    }
    let by_udp = udp.try_recv(&mut [0; 512]);
    assert_eq!(by_udp.unwrap_err().kind(), ErrorKind::WouldBlock, "nothing came by UDP");
    world.end().await;
    let world = forwarding(&[to], "prefer_udp").await;
    let server = world.v4();
    let asking = tokio::spawn(async move { udp_reply(server).await });
    let mut buffer = [0; 512];
    let (bytes, from) = timeout(PATIENCE, udp.recv_from(&mut buffer)).await.unwrap().unwrap();
    let reply = knows(&Message::from_vec(&buffer[..bytes]).unwrap()).remove(0);
    udp.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
    assert_eq!(asking.await.unwrap(), ResponseCode::NoError);
    world.end().await;
}

async fn udp_reply(server: SocketAddr) -> ResponseCode {
    udp(server, &query("www.example.", A)).await.metadata.response_code
}

#[tokio::test]
async fn a_policy_chooses_who_is_asked_first() {
    const QUESTIONS: usize = 30;
    for (policy, is_fair) in [("round_robin", true), ("sequential", false)] {
        let asked: Vec<Arc<AtomicUsize>> = (0..3).map(|_| Arc::default()).collect();
        let mut to = vec![];
        for asked in &asked {
            let asked = asked.clone();
            let counted = move |question: &Message| {
                asked.fetch_add(1, Ordering::Relaxed);
                knows(question)
            };
            to.push(upstream(counted).await);
        }
        let world = forwarding(&to, &format!("policy {policy}")).await;
        for number in 0..QUESTIONS {
            let reply = world.ask(&format!("n{number}.example."), A).await;
            assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "{reply}");
        }
        let counts: Vec<_> = asked.iter().map(|asked| asked.load(Ordering::Relaxed)).collect();
        if is_fair {
            let least = QUESTIONS / 3;
            assert!(counts.iter().all(|count| *count >= least), "{policy}: {counts:?}");
        } else {
            assert!(counts[0] >= QUESTIONS && counts[1..] == [0, 0], "{policy}: {counts:?}");
        }
        world.end().await;
    }
}

/// Two were asked at once, and what came first was the answer: a denial or a failure of the second, too.
#[tokio::test]
async fn what_the_first_upstream_says_is_the_answer_and_the_second_is_not_asked() {
    for code in [
        ResponseCode::NoError,
        ResponseCode::NXDomain,
        ResponseCode::ServFail,
        ResponseCode::Refused,
    ] {
        let second_was_asked: Arc<AtomicUsize> = Arc::default();
        let count = second_was_asked.clone();
        let first = upstream(move |asked| vec![reply_to(asked, code)]).await;
        let second = upstream(move |asked| {
            count.fetch_add(1, Ordering::Relaxed);
            knows(asked)
        });
        let world = forwarding(&[first, second.await], "policy sequential").await;
        let reply = world.ask("www.example.", A).await;
        assert_eq!(reply.metadata.response_code, code, "{reply}");
        assert_eq!(second_was_asked.load(Ordering::Relaxed), 0, "{code}");
        world.end().await;
    }
}

/// hickory looks at the id of a reply by TCP alone, and an id is soon another question's.
#[tokio::test]
async fn replies_by_tcp_to_another_question_are_waited_past() {
    type Change = fn(&mut Message);
    let late: [(&str, Change); 3] = [
        ("another name's denial", |reply| {
            reply.queries[0].set_name("late.example.".parse().unwrap());
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.authorities = vec![soa("example.")];
        }),
        ("another name's failure", |reply| {
            reply.queries[0].set_name("late.example.".parse().unwrap());
            reply.metadata.response_code = ResponseCode::ServFail;
        }),
        ("another type's records", |reply| {
            reply.queries[0].set_query_type(RecordType::AAAA);
        }),
    ];
    for (what, change) in late {
        let to = upstream(move |asked| {
            let mut late = reply_to(asked, ResponseCode::NoError);
            change(&mut late);
            vec![late, knows(asked).remove(0)]
        });
        let world = forwarding(&[to.await], "force_tcp").await;
        let reply = world.ask("www.example.", A).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{what}: {reply}");
        assert_eq!(reply.answers.len(), 2, "{what}: {reply}");
        world.end().await;
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_an_opt_record_is_asked_without_one() {
    for refusal in [ResponseCode::FormErr, ResponseCode::NotImp] {
        let old = upstream(move |asked| match asked.edns {
            Some(_) => vec![reply_to(asked, refusal)],
            None => knows(asked),
        });
        let to = old.await;
        for option in ["prefer_udp", "force_tcp"] {
            let world = forwarding(&[to], option).await;
            let reply = world.ask("www.example.", A).await;
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{refusal}: {reply}");
            world.end().await;
        }
        let never = upstream(move |asked| vec![reply_to(asked, refusal)]).await;
        let world = forwarding(&[never], "prefer_udp").await;
        let reply = world.ask("www.example.", A).await;
        assert_eq!(reply.metadata.response_code, refusal, "{reply}");
        world.end().await;
    }
}

#[tokio::test]
async fn the_first_line_that_takes_a_name_is_asked_and_next_asks_those_behind_it() {
    let denies = upstream(|question| {
        let mut reply = knows(question).remove(0);
        reply.answers.clear();
        reply.metadata.response_code = ResponseCode::NXDomain;
        vec![reply]
    });
    let empty = upstream(|question| {
        let mut reply = knows(question).remove(0);
        reply.answers.clear();
        reply.metadata.response_code = ResponseCode::NoError;
        vec![reply]
    });
    let (denies, empty, knows) = (denies.await, empty.await, upstream(knows).await);
    let (yes, no) = (ResponseCode::NoError, ResponseCode::NXDomain);
    // The lines; what www.example is answered, and with how many records.
    let rows = [
        (format!("forward . {denies}\nforward . {knows}"), no, 0),
        // As in CoreDNS, a closer zone does not go first.
        (format!("forward . {denies}\nforward example {knows}"), no, 0),
        (format!("forward example {knows}\nforward . {denies}"), yes, 2),
        (format!("forward . {denies} {{\nexcept www.example\n}}\nforward . {knows}"), yes, 2),
        (format!("forward . {denies} {{\nnext NXDOMAIN\n}}\nforward . {knows}"), yes, 2),
        (format!("forward . {denies} {{\nnext SERVFAIL\n}}\nforward . {knows}"), no, 0),
        (format!("forward . {denies} {{\nnext NXDOMAIN\n}}\nforward other {knows}"), no, 0),
        (format!("forward . {denies} {{\nnext nxdomain\n}}"), no, 0),
        (format!("forward . {empty}\nforward . {knows}"), yes, 0),
        (format!("forward . {empty} {{\nnext_on_nodata\n}}\nforward . {knows}"), yes, 2),
        (
            format!(
                "forward . {denies} {{\nnext NXDOMAIN\n}}\n\
                 forward . {empty} {{\nnext_on_nodata\n}}\nforward . {knows}"
            ),
            yes,
            2,
        ),
    ];
    for (lines, code, records) in rows {
        let world = World::by(&format!(".:53 {{\n{lines}\n}}\n"), vec![]).await;
        let reply = world.ask("www.example.", A).await;
        let got = (reply.metadata.response_code, reply.answers.len());
        assert_eq!(got, (code, records), "{lines}: {reply}");
        world.end().await;
    }
}

/// Each line's time came on top of that of those before it.
#[tokio::test]
async fn lines_that_are_silent_one_after_the_other_fail_before_the_client_gives_up() {
    let silent = upstream(|_| vec![]).await;
    let passing = format!("forward . {silent} {{\nnext SERVFAIL\n}}\n");
    let (yes, failed) = (ResponseCode::NoError, ResponseCode::ServFail);
    let rows = [
        (format!("{passing}forward . {}", upstream(knows).await), yes),
        (format!("{passing}{passing}{passing}forward . {silent}"), failed),
    ];
    for (lines, code) in rows {
        let world = World::by(&format!(".:53 {{\n{lines}\n}}\n"), vec![]).await;
        let begun = Instant::now();
        let reply = world.ask("www.example.", A).await;
        assert_eq!(reply.metadata.response_code, code, "{lines}: {reply}");
        // A client waits 5 s, of which 4 are taken; one more line with its own 4 would be 8.
        assert!(begun.elapsed() < Duration::from_millis(7500), "{lines}: {:?}", begun.elapsed());
        world.end().await;
    }
}
