//! Requests that are read whole before an endpoint hears of them.

use std::convert::Infallible;

use fairlead_ingress::{IngressConfig, Limits, Timeouts};
use futures::channel::mpsc;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::site;
use crate::support::{
    PATIENCE, World,
    client::{Answer, connect, get, read_to_close, read_until, request, send},
    config,
    objects::{IngressExt, backend, ingress},
    upstream::{Upstream, dead},
};

const ON: (&str, &str) = ("proxy-request-buffering", "on");
/// What is held of a request where nothing else is said.
const HELD: usize = (1 << 20) + (8 << 10);

type Parts = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

/// `buffered.example`, `streamed.example` and, with somebody else behind it, `other.example`.
async fn world(web: &Upstream, other: &Upstream, config: IngressConfig) -> World {
    let mut objects = backend("web", &[web.address]);
    objects.extend(backend("other", &[other.address]));
    let any = ("proxy-body-size", "0");
    objects.extend(
        [
            site("buffered", &[ON, any]),
            site("limited", &[ON, ("proxy-body-size", "1000")]),
            site("streamed", &[("proxy-request-buffering", "off"), any]),
            ingress("other").host("other.example", "other"),
        ]
        .map(IngressExt::object),
    );
    World::with(IngressConfig { threads: Some(1), ..config }, objects).await
}

/// Whatever was sent before has been looked at: the one thread has answered somebody else since.
async fn caught_up(world: &World) {
    for _ in 0..2 {
        assert_eq!(get(world.http(), "other.example", "/").await.status, 200);
    }
}

/// Sends bytes, and leaves the rest for later.
async fn begin(world: &World, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

fn post(host: &str, fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n")
}

/// A request over HTTP/2 whose body comes as it is sent.
async fn begin2(
    world: &World,
    host: &str,
    fields: &[(&str, &str)],
) -> (Parts, tokio::task::JoinHandle<Answer>) {
    let stream = TcpStream::connect(world.http()).await.unwrap();
    let (parts, body) = mpsc::unbounded();
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{host}/"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(StreamBody::new(body)).unwrap();
    let answer = async move { Answer::read(sender.send_request(request).await.unwrap()).await };
    (parts, tokio::spawn(answer))
}

fn part(bytes: &'static [u8]) -> Result<Frame<Bytes>, Infallible> {
    Ok(Frame::data(Bytes::from_static(bytes)))
}

#[tokio::test]
async fn attack_a_slow_upload_holds_no_endpoint() {
    let (web, other) = (Upstream::echo("web").await, Upstream::echo("other").await);
    let world = world(&web, &other, config()).await;
    let whole: &[&str] = &["hello"];
    let chunks: &[&str] = &["2\r\nhe\r\n", "3\r\nllo\r\n", "0\r\n\r\n"];
    let trailed: &[&str] = &["5\r\nhello\r\n", "0\r\n", "X-Sum: 1\r\n\r\n"];
    for (fields, pieces, sees) in [
        ("Content-Length: 5\r\n", &["hel", "lo"][..], "content-length: 5\n"),
        ("Content-Length: 5\r\n", &["h", "e", "l", "l", "o"], "content-length: 5\n"),
        ("Content-Length: 5\r\n", whole, "content-length: 5\n"),
        // How long it is is known when it is whole.
        ("Transfer-Encoding: chunked\r\n", chunks, "content-length: 5\n"),
        ("Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n", trailed, "trailer \"x-sum\": 1\n"),
    ] {
        let reached = web.requests();
        let mut stream = begin(&world, post("buffered.example", fields).as_bytes()).await;
        for piece in pieces {
            caught_up(&world).await;
            assert_eq!(web.requests(), reached, "{fields}before {piece:?}");
            assert!(reached > 0 || web.connections() == 0, "{fields}before {piece:?}");
            stream.write_all(piece.as_bytes()).await.unwrap();
        }
        let answer = read_to_close(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains(sees) && answer.ends_with("\n\nhello"), "{answer}");
        assert_eq!(web.requests(), reached + 1, "{fields}");
    }
    assert_eq!(world.running.counters().requests_unbuffered, 0);

    // The same, not buffered, is at the endpoint from the beginning.
    let reached = web.requests();
    let head = post("streamed.example", "Content-Length: 5\r\n");
    let mut stream = begin(&world, head.as_bytes()).await;
    stream.write_all(b"hel").await.unwrap();
    world.eventually(|_| web.requests() == reached + 1).await;
    stream.write_all(b"lo").await.unwrap();
    assert!(read_to_close(&mut stream).await.ends_with("\n\nhello"));
}

#[tokio::test]
async fn a_slow_upload_over_http2_holds_no_endpoint() {
    let (web, other) = (Upstream::echo("web").await, Upstream::echo("other").await);
    let world = world(&web, &other, config()).await;
    let (parts, answer) = begin2(&world, "buffered.example", &[("trailer", "x-sum")]).await;
    for piece in [&b"he"[..], b"", b"llo"] {
        parts.unbounded_send(part(piece)).unwrap();
        caught_up(&world).await;
        assert_eq!(web.connections(), 0);
    }
    let sum = [("x-sum".parse().unwrap(), "1".parse().unwrap())];
    parts.unbounded_send(Ok(Frame::trailers(sum.into_iter().collect()))).unwrap();
    drop(parts);
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert!(answer.body.ends_with("\n\nhello"), "{answer:?}");
    assert_eq!(answer.saw("trailer \"x-sum\""), Some("1"));
}

/// Its messages go both ways: who waits for the last one waits for ever.
#[tokio::test]
async fn a_call_of_grpc_is_not_waited_for() {
    let other = Upstream::echo("other").await;
    let web = Upstream::serve(|_| async { Response::new(Full::new(Bytes::from("early"))) }).await;
    let world = world(&web, &other, config()).await;
    let grpc = [("content-type", "application/grpc+proto")];
    let (parts, answer) = begin2(&world, "buffered.example", &grpc).await;
    parts.unbounded_send(part(b"hel")).unwrap();
    let answer = timeout(PATIENCE, answer).await.expect("is waited for").unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "early"));
    drop(parts);
}

#[tokio::test]
async fn what_is_too_large_late_or_broken_off_reaches_no_endpoint() {
    let (web, other) = (Upstream::echo("web").await, Upstream::echo("other").await);
    let timeouts = Timeouts { client_body_ms: 100, ..Timeouts::default() };
    let world = world(&web, &other, IngressConfig { timeouts, ..config() }).await;
    let more = "x".repeat(1001);
    let chunk = format!("3e9\r\n{more}\r\n");
    let half = format!("1f4\r\n{}\r\n", &more[..500]);
    for (fields, body, expected) in [
        ("Content-Length: 1001\r\n", more.as_str(), "HTTP/1.1 413 "),
        ("Transfer-Encoding: chunked\r\n", &chunk, "HTTP/1.1 413 "),
        // It stays away with the rest.
        ("Content-Length: 1000\r\n", &more[..999], "HTTP/1.1 408 "),
        ("Transfer-Encoding: chunked\r\n", &half, "HTTP/1.1 408 "),
        ("Transfer-Encoding: chunked\r\n", "zz\r\n", "HTTP/1.1 400 "),
    ] {
        let head = post("limited.example", fields);
        let mut stream = begin(&world, format!("{head}{body}").as_bytes()).await;
        let answer = read_to_close(&mut stream).await;
        assert!(answer.starts_with(expected), "{fields}{answer}");
    }
    let head = post("limited.example", "Content-Length: 1000\r\n");
    drop(begin(&world, format!("{head}half of it").as_bytes()).await);
    world.eventually(|counters| counters.connections_open == 0).await;
    assert_eq!((web.connections(), web.requests()), (0, 0));
}

#[tokio::test]
async fn what_is_larger_than_may_be_held_goes_on_as_it_comes() {
    let (web, other) = (Upstream::echo("web").await, Upstream::echo("other").await);
    let world = world(&web, &other, config()).await;
    for (size, unbuffered) in [(HELD, 0), (HELD + 1, 1), (3 * HELD, 1)] {
        let before = world.running.counters().requests_unbuffered;
        let body: String = ('a'..='z').cycle().take(size).collect();
        let mut announced = request("buffered.example", "/");
        *announced.method_mut() = Method::POST;
        *announced.body_mut() = Full::from(body.clone());
        let answer = send(&mut connect(world.http()).await, announced).await;
        assert!(answer.body.ends_with(&format!("\n\n{body}")), "{size} announced");

        let head = post("buffered.example", "Transfer-Encoding: chunked\r\n");
        let mut stream = begin(&world, format!("{head}{size:x}\r\n").as_bytes()).await;
        let (mut reading, mut writing) = stream.split();
        let reached = web.requests();
        let sending = async {
            writing.write_all(body.as_bytes()).await.unwrap();
            // The endpoint hears of it before it is whole, or not.
            if unbuffered == 1 {
                world.eventually(|_| web.requests() > reached).await;
            } else {
                caught_up(&world).await;
                assert_eq!(web.requests(), reached);
            }
            writing.write_all(b"\r\n0\r\n\r\n").await.unwrap();
        };
        let ((), answer) = tokio::join!(sending, read_to_close(&mut reading));
        assert!(answer.ends_with(&format!("\n\n{body}")), "{size} in one chunk");
        let now = world.running.counters().requests_unbuffered;
        assert_eq!(now - before, 2 * unbuffered, "{size}");
    }
}

#[tokio::test]
async fn attack_many_slow_uploads_hold_so_much_and_those_above_it_go_on_as_they_come() {
    let (web, other) = (Upstream::echo("web").await, Upstream::echo("other").await);
    let limits = Limits { buffered_bytes_max: 15_000, ..Limits::default() };
    let world = world(&web, &other, IngressConfig { limits, ..config() }).await;
    let body = "x".repeat(8_000);
    let head = post("buffered.example", "Content-Length: 8001\r\n");
    let half = format!("{head}{body}");
    let mut first = begin(&world, half.as_bytes()).await;
    caught_up(&world).await;
    let mut second = begin(&world, half.as_bytes()).await;
    world.eventually(|counters| counters.requests_unbuffered == 1 && web.requests() == 1).await;
    for stream in [&mut second, &mut first] {
        stream.write_all(b"y").await.unwrap();
        assert!(read_to_close(stream).await.ends_with("xxy"));
    }
    assert_eq!(web.requests(), 2);
    // Both gave back what they held.
    let mut third = begin(&world, half.as_bytes()).await;
    caught_up(&world).await;
    assert_eq!((web.requests(), world.running.counters().requests_unbuffered), (2, 1));
    third.write_all(b"y").await.unwrap();
    assert!(read_to_close(&mut third).await.ends_with("xxy"));
}

/// Takes whole requests of one length and hangs up.
async fn hanging_up() -> Upstream {
    Upstream::raw(|mut stream, counts| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
        let mut body = [0; 5];
        let _ = stream.read_exact(&mut body).await;
    })
    .await
}

#[tokio::test]
async fn what_was_read_whole_is_sent_again_where_that_does_no_harm() {
    let busy = Upstream::serve(|request: Request<_>| async move {
        let _ = BodyExt::collect(request.into_body()).await;
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
    .await;
    let (gone, broken, good) = (dead().await, hanging_up().await, Upstream::echo("good").await);
    for (name, bad, next, method, buffered, unbuffered) in [
        // Nothing of it was sent.
        ("gone", gone, "error", Method::POST, 0, 0),
        ("gone", gone, "error", Method::PUT, 0, 0),
        // It may have been acted on: then only what may be acted on twice.
        ("broken", broken.address, "error", Method::POST, 1, 1),
        ("broken", broken.address, "error", Method::PUT, 0, 1),
        ("broken", broken.address, "error non_idempotent", Method::POST, 0, 1),
        ("busy", busy.address, "http_503", Method::POST, 1, 1),
        ("busy", busy.address, "http_503", Method::PUT, 0, 1),
        ("busy", busy.address, "http_503 non_idempotent", Method::POST, 0, 1),
    ] {
        let mut objects = backend("web", &[bad, good.address]);
        let next = ("proxy-next-upstream", next);
        objects.push(site("buffered", &[ON, next]).object());
        objects.push(site("streamed", &[next]).object());
        let world = World::single(objects).await;
        for (site, failed) in [("streamed", unbuffered), ("buffered", buffered)] {
            let mut seen = 0;
            // Each endpoint's turn.
            for _ in 0..2 {
                let mut request = request(&format!("{site}.example"), "/");
                *request.method_mut() = method.clone();
                *request.body_mut() = Full::from("hello");
                let answer = send(&mut connect(world.http()).await, request).await;
                match answer.status {
                    200 => assert!(answer.body.ends_with("\n\nhello"), "{answer:?}"),
                    _ => seen += 1,
                }
            }
            assert_eq!(seen, failed, "{name} {method} {next:?} {site}");
        }
    }
}

/// Annotation, value, how much there is to say about it.
const SAID: [(&str, &str, &str, usize); 11] = [
    ("on", "proxy-buffering", "on", 0),
    ("off", "proxy-buffering", "off", 0),
    ("neither", "proxy-buffering", "true", 1),
    ("ask-on", "proxy-request-buffering", "on", 0),
    ("ask-off", "proxy-request-buffering", "off", 0),
    ("size", "proxy-buffer-size", "8k", 0),
    ("number", "proxy-buffers-number", "4", 0),
    ("none", "proxy-buffers-number", "0", 1),
    ("busy", "proxy-busy-buffers-size", "16k", 1),
    ("file", "proxy-max-temp-file-size", "1024m", 0),
    ("body", "client-body-buffer-size", "8k", 0),
];

#[tokio::test]
async fn what_is_said_of_buffers_is_read() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    for (name, annotation, value, _) in SAID {
        objects.push(site(name, &[(annotation, value)]).object());
    }
    let world = World::new(objects).await;
    for (name, annotation, _, says) in SAID {
        let answer = get(world.http(), &format!("{name}.example"), "/").await;
        assert_eq!(answer.status, 200, "{annotation}");
        assert_eq!(world.reasons(name).len(), says, "{annotation}: {:?}", world.reasons(name));
    }
}
