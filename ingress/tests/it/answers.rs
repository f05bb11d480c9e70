//! What endpoints answer over HTTP/1.1: passed on as it was meant, or not believed.

use std::{net::SocketAddr, sync::Arc};

use fairlead_ingress::{IngressConfig, Timeouts};
use fairlead_state::Object;
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{
        Notify,
        mpsc::{Receiver, channel},
    },
    time::timeout,
};

use crate::support::{
    PATIENCE, World,
    client::{Answer, connect, get, raw, read_to_close, read_until, request, send},
    config,
    objects::{IngressExt, backend, ingress},
    upstream::{Counts, Upstream},
};

const ASK_TO_CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

fn web(addresses: &[SocketAddr]) -> Vec<Object> {
    let mut objects = backend("web", addresses);
    objects.push(ingress("web").host("a.example", "web").object());
    objects
}

/// Answers each request with these bytes, in pieces of so many, and goes on listening.
async fn saying(answer: &'static [u8], step: usize) -> Upstream {
    Upstream::raw(move |mut stream, counts: Arc<Counts>| async move {
        stream.set_nodelay(true).unwrap();
        let mut head = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            head.push(byte);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            head.clear();
            counts.request();
            for piece in answer.chunks(step) {
                if stream.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn hostile_answers_are_502_and_nobody_else_is_asked() {
    for (name, answer) in [
        ("another protocol", &b"SSH-2.0-OpenSSH_9.6\r\n"[..]),
        ("an empty line first", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("obs-fold", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
        ("NUL in a value", b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 0\r\n\r\n"),
        ("a space before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
        (
            "the same length twice",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        ),
        ("a list of lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 0, 0\r\n\r\n"),
        ("a signed length", b"HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n"),
        (
            "length and coding",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("gzip", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("chunked in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked, chunked",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "an interim answer with a body",
            b"HTTP/1.1 100 Continue\r\nContent-Length: 38\r\n\r\n\
              HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        ("101 to nobody", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
    ] {
        let (a, b) = (saying(answer, answer.len()).await, saying(answer, answer.len()).await);
        let world = World::single(web(&[a.address, b.address])).await;
        assert_eq!(get(world.http(), "a.example", "/").await.status, 502, "{name}");
        assert_eq!(a.requests() + b.requests(), 1, "{name}");
    }
}

#[tokio::test]
async fn an_answer_is_the_same_in_whatever_pieces_it_comes() {
    const INTERIM: &[u8] =
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                             1;x=y\r\no\r\n1\r\nk\r\n0\r\nX-Sum: 1\r\n\r\n";
    for (name, answer) in [("interim", INTERIM), ("chunked", CHUNKED)] {
        for step in [1, 7, answer.len()] {
            let upstream = saying(answer, step).await;
            let world = World::single(web(&[upstream.address])).await;
            let mut sender = connect(world.http()).await;
            for _ in 0..3 {
                let answer: Answer = send(&mut sender, request("a.example", "/")).await;
                assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{name} {step}");
                assert!(!answer.headers.contains_key("link"), "{name} {step}");
            }
            let seen = (upstream.connections(), upstream.requests());
            assert_eq!(seen, (1, 3), "{name} {step}: reused behind a complete answer");
        }
    }
}

#[tokio::test]
async fn an_answer_without_a_body_has_none_and_its_connection_is_reused() {
    const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    const UNKNOWN: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    const NOT_MODIFIED: &[u8] = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n";
    const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
    for (method, answer, status) in [
        (Method::HEAD, LENGTH, 200),
        (Method::HEAD, UNKNOWN, 200),
        (Method::GET, NOT_MODIFIED, 304),
        (Method::GET, NO_CONTENT, 204),
    ] {
        let upstream = saying(answer, answer.len()).await;
        let world = World::single(web(&[upstream.address])).await;
        let mut sender = connect(world.http()).await;
        for _ in 0..3 {
            let mut request = request("a.example", "/");
            *request.method_mut() = method.clone();
            let answer = send(&mut sender, request).await;
            assert_eq!((answer.status, answer.body.as_str()), (status, ""), "{method} {status}");
        }
        assert_eq!((upstream.connections(), upstream.requests()), (1, 3), "{method} {status}");
    }
}

/// It may send it after all, and that would be the next client's answer.
#[tokio::test]
async fn attack_a_204_that_announces_a_body_has_none_and_its_connection_is_not_reused() {
    const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\nContent-Length: 1000\r\n\r\n";
    let upstream = saying(NO_CONTENT, NO_CONTENT.len()).await;
    let world = World::single(web(&[upstream.address])).await;
    for _ in 0..3 {
        let answer = get(world.http(), "a.example", "/").await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        assert!(!answer.headers.contains_key("content-length"));
    }
    assert_eq!((upstream.connections(), upstream.requests()), (3, 3));
}

/// The endpoint may be the only one who knows what it did with the request.
#[tokio::test]
async fn who_has_begun_to_answer_is_the_last_one_asked() {
    for (begun, goes_on, status) in [
        (&b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"[..], false, 502),
        (b"HTTP/1.1 20", false, 502),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", true, 504),
        (b"HTTP/1.1 20", true, 504),
    ] {
        let beginning = || {
            Upstream::raw(move |mut stream, counts: Arc<Counts>| async move {
                let _ = read_until(&mut stream, "\r\n\r\n").await;
                counts.request();
                stream.write_all(begun).await.unwrap();
                if goes_on {
                    let _ = stream.read_u8().await;
                }
            })
        };
        let (a, b) = (beginning().await, beginning().await);
        let timeouts = Timeouts { upstream_read_ms: 100, ..Timeouts::default() };
        let config = IngressConfig { threads: Some(1), timeouts, ..config() };
        let world = World::with(config, web(&[a.address, b.address])).await;
        let name = String::from_utf8_lossy(begun);
        assert_eq!(get(world.http(), "a.example", "/").await.status, status, "{name}");
        assert_eq!(a.requests() + b.requests(), 1, "{name}");
    }
}

/// Response queue poisoning: the second answer would be the next client's.
#[tokio::test]
async fn attack_an_answer_that_comes_unasked_on_an_idle_connection_is_nobodys() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const EVIL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    // One may be sent again, the other one may not.
    for method in [Method::GET, Method::POST] {
        let (wished, said) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wish, saying) = (wished.clone(), said.clone());
        let upstream = Upstream::raw(move |mut stream, counts: Arc<Counts>| {
            let (wish, saying) = (wish.clone(), saying.clone());
            async move {
                let _ = read_until(&mut stream, "\r\n\r\n").await;
                counts.request();
                stream.write_all(OK).await.unwrap();
                wish.notified().await;
                stream.write_all(EVIL).await.unwrap();
                saying.notify_one();
                let _ = read_to_close(&mut stream).await;
            }
        })
        .await;
        let world = World::single(web(&[upstream.address])).await;
        let first = get(world.http(), "a.example", "/").await;
        assert_eq!((first.status, first.body.as_str()), (200, "ok"));
        wished.notify_one();
        timeout(PATIENCE, said.notified()).await.unwrap();
        let mut request = request("a.example", "/");
        *request.method_mut() = method.clone();
        let second = send(&mut connect(world.http()).await, request).await;
        assert_eq!((second.status, second.body.as_str()), (200, "ok"), "{method}");
        assert_eq!((upstream.connections(), upstream.requests()), (2, 2), "{method}");
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_whole() {
    for head in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"] {
        let upstream = Upstream::raw(move |mut stream, counts: Arc<Counts>| async move {
            let _ = read_until(&mut stream, "\r\n\r\n").await;
            counts.request();
            stream.write_all(head.as_bytes()).await.unwrap();
            for piece in ["all", " of", " it"] {
                stream.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
        .await;
        let world = World::single(web(&[upstream.address])).await;
        let mut sender = connect(world.http()).await;
        for _ in 0..3 {
            let answer = send(&mut sender, request("a.example", "/")).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "all of it"), "{head}");
        }
        assert_eq!((upstream.connections(), upstream.requests()), (3, 3), "{head}");
    }
}

#[tokio::test]
async fn fields_of_one_name_reach_the_client_each_and_in_their_order() {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nSET-COOKIE: a=1\r\nX-Own: x\r\nset-cookie: b=2\r\n\
                            Content-Length: 0\r\nSet-Cookie: c=3\r\nConnection: X-Own\r\n\r\n";
    let upstream = saying(ANSWER, ANSWER.len()).await;
    let world = World::single(web(&[upstream.address])).await;
    let answer = get(world.http(), "a.example", "/").await;
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2", "c=3"]);
    assert!(!answer.headers.contains_key("x-own"), "it ends here (RFC 9110 7.6.1)");
}

/// What was begun for a client is nobody else's.
#[tokio::test]
async fn a_client_that_leaves_takes_its_endpoints_connection_with_it() {
    for (name, begun) in [
        ("before an answer", ""),
        ("amid one", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart"),
    ] {
        let (arrived, mut arrivals) = channel(2);
        let upstream = Upstream::raw(move |mut stream, _| {
            let arrived = arrived.clone();
            async move {
                let head = read_until(&mut stream, "\r\n\r\n").await;
                stream.write_all(begun.as_bytes()).await.unwrap();
                arrived.send(head).await.unwrap();
                arrived.send(read_to_close(&mut stream).await).await.unwrap();
            }
        })
        .await;
        let world = World::single(web(&[upstream.address])).await;
        let mut client = TcpStream::connect(world.http()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        if !begun.is_empty() {
            read_until(&mut client, "part").await;
        }
        next(&mut arrivals).await;
        drop(client);
        assert_eq!(next(&mut arrivals).await, "", "{name}");
    }
}

/// The client must not take the part for the whole.
#[tokio::test]
async fn an_answer_that_is_cut_off_or_goes_wrong_is_cut_off_for_the_client() {
    for (name, answer) in [
        ("length", &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart"[..]),
        ("chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\npart"),
        ("no end", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"),
        (
            "a chunk without size",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nx\r\n0\r\n\r\n",
        ),
        (
            "LF behind a chunk",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\n0\r\n\r\n",
        ),
    ] {
        let upstream = Upstream::raw(move |mut stream, counts: Arc<Counts>| async move {
            let _ = read_until(&mut stream, "\r\n\r\n").await;
            counts.request();
            let _ = stream.write_all(answer).await;
        })
        .await;
        let world = World::single(web(&[upstream.address])).await;
        let seen = raw(world.http(), ASK_TO_CLOSE).await;
        let body = seen.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(!seen.ends_with("0\r\n\r\n"), "{name}: {seen}");
        assert!(
            body.len() < "part".len() * 4 && !seen.contains("content-length: 4"),
            "{name}: {seen}"
        );
        assert_eq!(upstream.requests(), 1, "{name}");
    }
}

async fn next(arrivals: &mut Receiver<String>) -> String {
    timeout(PATIENCE, arrivals.recv()).await.expect("nothing arrives").unwrap()
}

/// A body goes on its way piece by piece: the endpoint has the first one while the client still
/// holds back the second.
#[tokio::test]
async fn a_body_is_passed_on_as_it_comes_in_the_coding_it_came_in() {
    for (name, coding, pieces, seen) in [
        ("length", "Content-Length: 6", ["abc", "def"], ["abc", "def"]),
        (
            "chunks",
            "Transfer-Encoding: chunked",
            ["3\r\nabc\r\n", "3\r\ndef\r\n0\r\n\r\n"],
            ["3\r\nabc\r\n", "3\r\ndef\r\n0\r\n\r\n"],
        ),
    ] {
        let (arrived, mut arrivals) = channel(2);
        let upstream = Upstream::raw(move |mut stream, counts: Arc<Counts>| {
            let arrived = arrived.clone();
            async move {
                let head = read_until(&mut stream, "\r\n\r\n").await;
                counts.request();
                arrived.send(head).await.unwrap();
                for piece in seen {
                    arrived.send(read_until(&mut stream, piece).await).await.unwrap();
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                let _ = stream.read_u8().await;
            }
        })
        .await;
        let world = World::single(web(&[upstream.address])).await;
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nHost: a.example\r\n{coding}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            if piece == pieces[0] {
                let head = next(&mut arrivals).await;
                assert!(head.contains(&coding.to_lowercase()), "{name}: {head}");
            }
            // Before the client sends the next one.
            let _ = next(&mut arrivals).await;
        }
        let answer = read_to_close(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{name}: {answer}");
    }
}

/// What follows would be taken for the rest of it, or for another request.
#[tokio::test]
async fn a_body_the_client_breaks_off_is_not_made_whole() {
    for coding in ["Content-Length: 6\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    {
        let (arrived, mut arrivals) = channel(2);
        let upstream = Upstream::raw(move |mut stream, _| {
            let arrived = arrived.clone();
            async move {
                arrived.send(read_until(&mut stream, "\r\n\r\n").await).await.unwrap();
                arrived.send(read_to_close(&mut stream).await).await.unwrap();
            }
        })
        .await;
        let world = World::single(web(&[upstream.address])).await;
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        let request = format!("POST / HTTP/1.1\r\nHost: a.example\r\n{coding}");
        stream.write_all(request.as_bytes()).await.unwrap();
        next(&mut arrivals).await;
        stream.shutdown().await.unwrap();
        let seen = next(&mut arrivals).await;
        assert!(!seen.ends_with("0\r\n\r\n"), "{seen}");
        assert!(seen.len() < "3\r\nabc\r\n0\r\n".len(), "{seen}");
    }
}
