//! HTTP/1 as clients speak it: what is said in which order, when a connection goes on, and how it ends.

use std::{convert::Infallible, time::Duration};

use fairlead_ingress::{IngressConfig, Limits, Refused, Timeouts};
use fairlead_state::Object;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    slow_readers::{LONG_BYTES, saying, thirsty},
    support::{
        PATIENCE, World,
        client::{get, raw, read_to_close, read_until},
        config,
        objects::{IngressExt, backend, ingress},
        upstream::Upstream,
    },
};

const HOST: &str = "Host: a.example\r\n";
const BACKEND_PROTOCOL: &str = "nginx.ingress.kubernetes.io/backend-protocol";
fn web(upstream: &Upstream) -> Vec<Object> {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    objects
}

/// The same by HTTP/2, for another host.
fn web2(upstream: &Upstream) -> Vec<Object> {
    let mut objects = backend("web2", &[upstream.address]);
    let ingress = ingress("web2").host("c.example", "web2");
    objects.push(ingress.annotation(BACKEND_PROTOCOL, "GRPC").object());
    objects
}

/// Bodies of all answers that say how long they are.
fn answers(text: &str) -> Vec<(u16, String)> {
    let (mut rest, mut all) = (text, Vec::new());
    while let Some((head, behind)) = rest.split_once("\r\n\r\n") {
        let status = head[9..12].parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        all.push((status, behind[..length].to_owned()));
        rest = &behind[length..];
    }
    assert_eq!(rest, "");
    all
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order_however_they_come() {
    let upstream = Upstream::serve(|request| async move {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        if path == "/slow" {
            sleep(Duration::from_millis(30)).await;
        }
        Response::new(Full::from([path.as_bytes(), &body].concat()))
    })
    .await;
    let world = World::single(web(&upstream)).await;
    let requests = [
        ("GET /slow", String::new(), (200, "/slow")),
        ("POST /b", "Content-Length: 5\r\n\r\nGET /".to_owned(), (200, "/bGET /")),
        (
            "POST /c",
            "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n".to_owned(),
            (200, "/cab"),
        ),
        ("DELETE /d", String::new(), (200, "/d")),
        // Nobody reads what is sent with it.
        ("POST /..", "Content-Length: 3\r\n\r\nabc".to_owned(), (400, "")),
        ("GET /e", "Connection: close\r\n\r\n".to_owned(), (200, "/e")),
    ];
    let request = |(line, rest, _): &(&str, String, (u16, &str))| {
        let rest = if rest.is_empty() { "\r\n" } else { rest };
        format!("{line} HTTP/1.1\r\n{HOST}{rest}")
    };
    let bytes: String = requests.iter().map(request).collect();
    for step in [1, 50, bytes.len()] {
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in bytes.as_bytes().chunks(step) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let answers = answers(&read_to_close(&mut stream).await);
        let expected = requests.iter().map(|(_, _, expected)| *expected);
        for ((status, body), expected) in answers.iter().zip(expected) {
            assert_eq!(*status, expected.0, "{step}");
            assert!(expected.0 != 200 || body == expected.1, "{step}: {body}");
        }
        assert_eq!(answers.len(), requests.len(), "{step}");
    }
}

/// Without a pause for those that need nobody else, and without holding anybody up.
#[tokio::test]
async fn many_requests_in_one_piece_are_answered_and_others_are_served_meanwhile() {
    let upstream = Upstream::echo("web").await;
    let world = World::single(web(&upstream)).await;
    let many = 5_000;
    let one = "GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n";
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let asking = async {
        writing.write_all(one.repeat(many).as_bytes()).await.unwrap();
        writing.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
    };
    let (text, ()) = tokio::join!(read_to_close(&mut reading), asking);
    let answers = answers(&text);
    assert_eq!(answers.iter().filter(|(status, _)| *status == 404).count(), many);
    assert_eq!(answers.last().unwrap().0, 400);
}

#[tokio::test]
async fn http10_goes_on_if_it_is_asked_to_and_its_bodies_may_end_with_the_connection() {
    let upstream = saying().await;
    let world = World::single(web(&upstream)).await;
    let ask =
        |path: &str, connection: &str| format!("GET {path} HTTP/1.0\r\n{HOST}{connection}\r\n");
    let kept = ask("/3", "Connection: Keep-Alive\r\n") + &ask("/2", "");
    let text = raw(world.http(), kept.as_bytes()).await;
    assert_eq!(answers(&text), [(200, "xxx".to_owned()), (200, "xx".to_owned())], "{text}");
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
    assert_eq!(text.matches("connection: keep-alive\r\n").count(), 1, "{text}");
    assert_eq!(text.matches("connection: close\r\n").count(), 1, "{text}");
    // Nobody knows how long it is: what is asked behind it is not answered.
    let chunks = ask("/2500?chunks", "Connection: keep-alive\r\n") + &ask("/2", "");
    let text = raw(world.http(), chunks.as_bytes()).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
    assert_eq!(body, "x".repeat(2_500));
}

/// Nothing else tells that it is not whole.
#[tokio::test]
async fn attack_truncation_a_body_that_would_end_with_its_connection_and_broke_off_ends_by_a_reset()
{
    let upstream = Upstream::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let part = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
        stream.write_all(part).await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let timeouts = Timeouts { upstream_read_ms: 100, ..Timeouts::default() };
    let config = IngressConfig { threads: Some(1), timeouts, ..config() };
    let world = World::with(config, web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let get = format!("GET / HTTP/1.0\r\n{HOST}\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "part").await.starts_with("HTTP/1.0 200 "));
    let end = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

/// RFC 9110 10.1.1.
#[tokio::test]
async fn a_client_is_told_to_go_on_once_somebody_wants_its_body_and_if_it_waits() {
    let (upstream, upstream2) = (Upstream::echo("web").await, Upstream::echo2("web2").await);
    let world = World::single([web(&upstream), web2(&upstream2)].concat()).await;
    let expect = "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    for host in ["a.example", "c.example", "a.example", "c.example"] {
        let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\n{expect}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let told = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(told, "HTTP/1.1 100 Continue\r\n\r\n", "{host}");
        stream.write_all(b"ok").await.unwrap();
        assert!(read_until(&mut stream, "\n\nok").await.starts_with("HTTP/1.1 200 "), "{host}");
    }
    // It does not wait, or nobody wants it.
    for (host, body, status) in
        [("a.example", "ok", "200"), ("c.example", "ok", "200"), ("b.example", "", "404")]
    {
        let bytes =
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{expect}{body}");
        let answer = raw(world.http(), bytes.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
}

/// Answers GET; takes this much of a body and never more, and says nothing to it.
async fn narrow(bytes_max: u32, arrived: mpsc::UnboundedSender<()>) -> Upstream {
    Upstream::raw(move |stream, _| {
        let arrived = arrived.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let arrived = arrived.clone();
            async move {
                if request.method() == Method::POST {
                    _ = arrived.send(());
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok"))))
            }
        });
        async move {
            let mut server = http2::Builder::new(TokioExecutor::new());
            server.initial_stream_window_size(bytes_max);
            _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

/// A task of the endpoint's connection reads the body behind it, until that takes no more.
#[tokio::test]
async fn bug_what_is_still_to_be_written_goes_on_whoever_reads_the_next_requests_body() {
    let long = 3 * LONG_BYTES;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (upstream, upstream2) = (saying().await, narrow(4, arrived).await);
    let limits = Limits { buffer_bytes_max: 4 * long, ..Limits::default() };
    let config = IngressConfig { threads: Some(1), limits, ..config() };
    let world = World::with(config, [web(&upstream), web2(&upstream2)].concat()).await;
    // Its window is known from then on.
    let first = get(world.http(), "c.example", "/").await;
    assert_eq!(first.body, "ok");
    let mut stream = thirsty(&world, None).await;
    let body = vec![b'x'; 64 << 10];
    let both = format!(
        "GET /{long}?chunks HTTP/1.1\r\n{HOST}\r\n\
         POST / HTTP/1.1\r\nHost: c.example\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(both.as_bytes()).await.unwrap();
    timeout(PATIENCE, arrivals.recv()).await.unwrap().unwrap();
    stream.write_all(&body).await.unwrap();
    let (mut read, mut end) = (vec![0; 64 << 10], Vec::new());
    while !end.ends_with(b"\r\n0\r\n\r\n") {
        let bytes = timeout(PATIENCE, stream.read(&mut read)).await.expect("it is stuck").unwrap();
        assert_ne!(bytes, 0, "it is cut off");
        end.extend_from_slice(&read[..bytes]);
        end.drain(..end.len().saturating_sub(7));
    }
}

/// It is not idle: what came of the next request while another one was served has begun it.
#[tokio::test]
async fn slowloris_a_head_begun_behind_another_request_has_a_heads_time_and_no_more() {
    let upstream = Upstream::echo("web").await;
    let timeouts = Timeouts { header_read_ms: 100, ..Timeouts::default() };
    let config = IngressConfig { threads: Some(1), timeouts, ..config() };
    let world = World::with(config, web(&upstream)).await;
    for behind in ["G", "GET / HTTP/1.1\r\nHost: a.exam"] {
        let before = world.running.counters().client_timeouts;
        let get = format!("GET / HTTP/1.1\r\n{HOST}\r\n{behind}");
        let text = raw(world.http(), get.as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\n\n"), "{behind}: {text}");
        assert_eq!(world.running.counters().client_timeouts, before + 1, "{behind}");
    }
}

/// What is left of a request that nobody reads on is not taken for another one.
#[tokio::test]
async fn attack_smuggling_a_connection_goes_on_behind_a_refusal_if_the_rest_of_its_request_is_here()
{
    let upstream = Upstream::echo("web").await;
    let world = World::single(web(&upstream)).await;
    let hidden = format!("GET /hidden HTTP/1.1\r\n{HOST}\r\n");
    let post =
        format!("POST / HTTP/1.1\r\nHost: b.example\r\nContent-Length: {}\r\n\r\n", hidden.len());
    let next = format!("GET /next HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n");
    let text = raw(world.http(), format!("{post}{hidden}{next}").as_bytes()).await;
    let all = answers(&text);
    let seen: Vec<_> = all.iter().map(|(status, body)| (*status, body.lines().nth(1))).collect();
    assert_eq!(seen, [(404, None), (200, Some("GET /next"))], "{text}");
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(post.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    stream.write_all(format!("{hidden}{next}").as_bytes()).await.unwrap();
    let rest = read_to_close(&mut stream).await;
    assert!(!rest.contains("HTTP/1.1"), "{rest}");
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn trailers_of_an_answer_reach_who_says_he_reads_them() {
    let upstream = Upstream::serve(|_| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "5".parse().unwrap());
        let frames = [Frame::data(Bytes::from_static(b"abcde")), Frame::trailers(trailers)];
        let frames = frames.into_iter().map(Ok::<_, Infallible>);
        let body = StreamBody::new(futures::stream::iter(frames));
        Response::builder().header("trailer", "x-sum").body(body).unwrap()
    })
    .await;
    let world = World::single(web(&upstream)).await;
    for (te, end) in [
        ("TE: trailers\r\nConnection: TE, close\r\n", "5\r\nabcde\r\n0\r\nx-sum: 5\r\n\r\n"),
        ("Connection: close\r\n", "5\r\nabcde\r\n0\r\n\r\n"),
    ] {
        let get = format!("GET / HTTP/1.1\r\n{HOST}{te}\r\n");
        let answer = raw(world.http(), get.as_bytes()).await;
        assert!(answer.ends_with(&format!("\r\n\r\n{end}")), "{te}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_head_is_answered_and_counted_at_once() {
    let upstream = Upstream::echo("web").await;
    let world = World::single(web(&upstream)).await;
    for (name, bytes, status, reason) in [
        ("TLS", &b"\x16\x03\x01\x02\x00\x01"[..], 400, Refused::Malformed),
        ("HTTP/0.9", b"GET /\r\n", 400, Refused::Malformed),
        ("obs-fold", b"GET / HTTP/1.1\r\nHost: a.example\r\n x\r\n\r\n", 400, Refused::Malformed),
        ("the beginning of a preface", b"PRI * HTTP/2.0\r\n\r\nGET", 400, Refused::Malformed),
        ("no end", &[b'x'; 40 << 10], 431, Refused::FieldsTooMany),
    ] {
        let before = world.running.counters().refused[&reason];
        // The other side stays open: nobody has to wait for its end.
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let answer = read_to_close(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{name}: {answer}");
        assert_eq!(world.running.counters().refused[&reason], before + 1, "{name}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn chunks_that_are_none_are_counted() {
    let upstream = Upstream::echo("web").await;
    let world = World::single(web(&upstream)).await;
    let bytes =
        format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n");
    let answer = raw(world.http(), bytes.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(world.running.counters().refused[&Refused::Malformed], 1);
}
