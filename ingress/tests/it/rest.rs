//! Between two requests a connection gives back its buffers: nobody is to notice.

use std::time::Duration;

use fairlead_ingress::{IngressConfig, Refused, Timeouts};
use fairlead_state::Object;
use http::{Request, Response};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::{Bytes, Incoming};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::support::{
    PATIENCE, World,
    client::{get2, http2, read_to_close, read_until, tls, trusting_anybody},
    config,
    objects::{IngressExt, backend, ingress, service_speaking},
    upstream::Upstream,
};

/// An eighth of the shortest timeout; a connection rests after one or two.
const TICK: Duration = Duration::from_millis(5);
/// Longer than that, on a busy machine too. Nothing tells that a connection is at rest: a test
/// that is too early asserts the same of a connection that is not.
const PAUSE: Duration = Duration::from_millis(60);

const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n";

async fn world(upstream: &Upstream, timeouts: Timeouts) -> World {
    world_of(backend("web", &[upstream.address]), timeouts).await
}

async fn world_of(mut objects: Vec<Object>, timeouts: Timeouts) -> World {
    objects.push(ingress("web").host("a.example", "web").object());
    // No test opens a stream.
    let timeouts = Timeouts { stream_idle_ms: 40, ..timeouts };
    World::with(IngressConfig { timeouts, threads: Some(1), ..config() }, objects).await
}

/// Both kinds of connections, asked once.
async fn both(world: &World) -> [(&'static str, Box<dyn Stream>); 2] {
    let mut plain = TcpStream::connect(world.http()).await.unwrap();
    ask(&mut plain).await;
    let mut encrypted = tls(world.https(), "a.example", trusting_anybody()).await.unwrap();
    ask(&mut encrypted).await;
    [("plain", Box::new(plain)), ("TLS", Box::new(encrypted))]
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    stream.write_all(HEAD).await.unwrap();
    answered(stream).await;
}

async fn answered<S: AsyncRead + Unpin>(stream: &mut S) {
    let answer = read_until(stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_request_is_answered_whenever_it_comes_and_in_how_many_pieces() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream, Timeouts::default()).await;
    let mut asked = 2;
    for (name, mut stream) in both(&world).await {
        for pause_ms in 0..20 {
            let pause = Duration::from_millis(pause_ms);
            for cut in [0, 1, HEAD.len() - 1] {
                sleep(pause).await;
                let (first, second) = HEAD.split_at(cut);
                stream.write_all(first).await.unwrap();
                stream.flush().await.unwrap();
                sleep(pause).await;
                stream.write_all(second).await.unwrap();
                answered(&mut stream).await;
                asked += 1;
            }
        }
        assert_eq!(upstream.requests(), asked, "{name}");
    }
    assert_eq!(world.running.counters().connections, 2);
}

#[tokio::test]
async fn empty_lines_between_requests_do_no_harm() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream, Timeouts::default()).await;
    for (_, mut stream) in both(&world).await {
        for between in ["\r\n", "\r\n\r\n"] {
            stream.write_all(&[HEAD, between.as_bytes()].concat()).await.unwrap();
            answered(&mut stream).await;
            sleep(PAUSE).await;
            ask(&mut stream).await;
        }
    }
    assert_eq!(upstream.requests(), 10);
}

/// Whoever reads slowly still has the end of an answer coming after the request is over for us.
#[tokio::test]
async fn an_answer_that_is_not_written_yet_is_no_rest() {
    let upstream = Upstream::serve(|request| async move {
        let bytes = request.uri().path().trim_start_matches('/').parse().unwrap_or_default();
        Response::new(Full::new(Bytes::from(vec![b'x'; bytes])))
    })
    .await;
    let world = world(&upstream, Timeouts::default()).await;
    // Somewhere between them it is the kernel's buffers that are full, and then ours.
    for bytes in [100_000, 1_000_000, 2_500_000, 3_000_000, 3_500_000, 5_000_000] {
        for (name, mut stream) in both(&world).await {
            let get = format!("GET /{bytes} HTTP/1.1\r\nHost: a.example\r\n\r\n");
            stream.write_all(get.as_bytes()).await.unwrap();
            sleep(PAUSE).await;
            let head = read_until(&mut stream, "\r\n\r\n").await;
            assert!(head.contains(&format!("content-length: {bytes}\r\n")), "{name}: {head}");
            let mut body = vec![0; bytes];
            timeout(PATIENCE, stream.read_exact(&mut body)).await.unwrap().unwrap();
            assert!(body.iter().all(|byte| *byte == b'x'), "{name}, {bytes} bytes");
            ask(&mut stream).await;
        }
    }
}

/// CVE-2019-20372 and its like: what is looked for in a connection's first request is looked for
/// in its last.
#[tokio::test]
async fn a_smuggled_request_is_refused_after_a_rest_too() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream, Timeouts::default()).await;
    let two_lengths = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\
                       Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (name, mut stream) in both(&world).await {
        sleep(PAUSE).await;
        ask(&mut stream).await;
        sleep(PAUSE).await;
        let reached = upstream.requests();
        stream.write_all(two_lengths.as_bytes()).await.unwrap();
        let answer = read_to_close(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
        assert_eq!(upstream.requests(), reached, "{name}");
    }
    assert_eq!(world.running.counters().refused[&Refused::LengthAndCoding], 2);
}

/// An endpoint may answer first and read on: over HTTP/2 the one does not end the other.
#[tokio::test]
async fn attack_smuggling_the_rest_of_a_body_is_no_request_however_long_it_takes() {
    const EARLY: &str = "early";
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let (told, mut bodies) = mpsc::unbounded_channel();
    let upstream = Upstream::serve2(move |request: Request<Incoming>| {
        let told = told.clone();
        async move {
            tokio::spawn(async move {
                let body = request.into_body().collect().await;
                let _ = told.send(body.map(Collected::to_bytes).ok());
            });
            Response::new(Full::new(Bytes::from(EARLY)))
        }
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(service_speaking("web", "kubernetes.io/h2c"));
    let world = world_of(objects, Timeouts::default()).await;
    let plain = TcpStream::connect(world.http()).await.unwrap();
    let encrypted = tls(world.https(), "a.example", trusting_anybody()).await.unwrap();
    let streams: [(&str, Box<dyn Stream>); 2] =
        [("plain", Box::new(plain)), ("TLS", Box::new(encrypted))];
    let mut asked = 0;
    for (name, mut stream) in streams {
        for _ in 0..2 {
            let length = 1 + hidden.len();
            let head =
                format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n");
            stream.write_all(format!("{head}\r\n-").as_bytes()).await.unwrap();
            answered(&mut stream).await;
            let mut early = vec![0; EARLY.len()];
            timeout(PATIENCE, stream.read_exact(&mut early)).await.unwrap().unwrap();
            assert_eq!(early, EARLY.as_bytes(), "{name}");
            sleep(PAUSE).await;
            stream.write_all(hidden.as_bytes()).await.unwrap();
            let body = timeout(PATIENCE, bodies.recv()).await.unwrap().unwrap();
            assert_eq!(body, Some(Bytes::from(format!("-{hidden}"))), "{name}");
            asked += 1;
            assert_eq!(upstream.requests(), asked, "{name}");
        }
    }
}

#[tokio::test]
async fn a_request_head_has_its_time_from_its_first_byte() {
    let upstream = Upstream::echo("web").await;
    let timeouts = Timeouts { header_read_ms: 100, ..Timeouts::default() };
    let world = world(&upstream, timeouts).await;
    for (name, mut stream) in both(&world).await {
        // Longer than a head may take, and none has begun.
        sleep(2 * Duration::from_millis(100)).await;
        ask(&mut stream).await;
        sleep(PAUSE).await;
        stream.write_all(b"GET").await.unwrap();
        assert_eq!(read_to_close(&mut stream).await, "", "{name}");
    }
    assert_eq!(world.running.counters().client_timeouts, 2);
}

#[tokio::test]
async fn a_connection_at_rest_ends_with_its_client() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream, Timeouts::default()).await;
    let streams = both(&world).await;
    sleep(PAUSE).await;
    drop(streams);
    world.eventually(|counters| counters.connections_open == 0).await;
    assert_eq!(world.running.counters().client_timeouts, 0);
}

#[tokio::test]
async fn a_connection_at_rest_is_told_that_it_ends() {
    let upstream = Upstream::echo("web").await;
    let timeouts = Timeouts { drain_accept_ms: 10, drain_linger_ms: 10, ..Timeouts::default() };
    let mut world = world(&upstream, timeouts).await;
    let streams = both(&world).await;
    sleep(PAUSE).await;
    world.cancel.cancel();
    for (name, mut stream) in streams {
        // Without TLS's own end this would be an error.
        let read = timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
        assert_eq!(read.unwrap(), 0, "{name}");
    }
    timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
    assert_eq!(upstream.requests(), 2);
}

/// RFC 9113 3.3: nobody knows what a silent client will speak.
#[tokio::test]
async fn http2_begins_after_any_silence() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream, Timeouts::default()).await;
    for silence in [Duration::ZERO, TICK, PAUSE] {
        let stream = TcpStream::connect(world.http()).await.unwrap();
        sleep(silence).await;
        let mut sender = http2(stream).await;
        assert_eq!(get2(&mut sender, "a.example", "/").await.status, 200, "{silence:?}");
    }
}
