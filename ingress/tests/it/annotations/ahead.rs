//! Answers that are read ahead of their clients.

use std::sync::Arc;

use fairlead_ingress::{IngressConfig, Limits};
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
    time::timeout,
};

use super::site;
use crate::{
    support::{
        PATIENCE, World,
        client::{get, http2, read_to_close, read_until},
        config,
        objects::{IngressExt, backend},
        upstream::Upstream,
    },
    websocket,
};

const ON: (&str, &str) = ("proxy-buffering", "on");
/// More than the kernel and HTTP/1 hold for a client that does not read.
const LARGE: usize = 12 << 20;
/// All of that.
const MUCH: [(&str, &str); 2] = [("proxy-buffer-size", "1m"), ("proxy-buffers-number", "12")];

/// Answers `/PATH` with so many bytes and closes; tells when it is let go. `/no` is not to be buffered.
async fn large(let_go: mpsc::UnboundedSender<()>) -> Upstream {
    Upstream::raw(move |mut stream, counts| {
        let let_go = let_go.clone();
        async move {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            counts.request();
            let says = if head.starts_with("GET /no ") { "X-Accel-Buffering: No\r\n" } else { "" };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n{says}Connection: close\r\n\r\n"
            );
            let body = vec![b'x'; LARGE];
            let (mut reading, mut writing) = stream.split();
            let sending = async {
                writing.write_all(head.as_bytes()).await?;
                writing.write_all(&body).await
            };
            // It is let go when the other side closes, having read everything or nothing more.
            let mut none = [0];
            let (_, _) = tokio::join!(sending, reading.read(&mut none));
            let _ = let_go.send(());
        }
    })
    .await
}

/// Asks, reads the answer's head, and lets the rest be.
async fn asked_and_left(world: &World, host: &str, path: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let asks = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(asks.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    (stream, head)
}

async fn world(large: &Upstream, config: IngressConfig) -> World {
    let mut objects = backend("web", &[large.address]);
    let [size, number] = MUCH;
    objects
        .extend([site("ahead", &[ON, size, number]), site("beside", &[])].map(IngressExt::object));
    World::with(IngressConfig { threads: Some(1), ..config }, objects).await
}

#[tokio::test]
async fn an_answer_read_ahead_leaves_its_endpoint_while_its_client_is_slow() {
    let (let_go, mut is_let_go) = mpsc::unbounded_channel();
    let upstream = large(let_go).await;
    let world = world(&upstream, config()).await;
    for (host, path, is_ahead) in [
        ("ahead.example", "/", true),
        // The endpoint says otherwise, as to nginx.
        ("ahead.example", "/no", false),
        ("beside.example", "/", false),
    ] {
        let (mut stream, head) = asked_and_left(&world, host, path).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains(&format!("content-length: {LARGE}\r\n")), "{head}");
        assert!(!head.contains("accel"), "{head}");
        if is_ahead {
            timeout(PATIENCE, is_let_go.recv()).await.expect("is held").unwrap();
        }
        let body = read_to_close(&mut stream).await;
        assert!(body.len() == LARGE && body.bytes().all(|byte| byte == b'x'), "{host}{path}");
        if !is_ahead {
            timeout(PATIENCE, is_let_go.recv()).await.expect("is held").unwrap();
        }
    }
    assert_eq!(world.running.counters().answers_unbuffered, 0);
}

#[tokio::test]
async fn what_is_not_read_ahead_holds_its_endpoint() {
    let (let_go, mut is_let_go) = mpsc::unbounded_channel();
    let upstream = large(let_go).await;
    let world = world(&upstream, config()).await;
    for (host, path) in [("ahead.example", "/no"), ("beside.example", "/")] {
        let (stream, _) = asked_and_left(&world, host, path).await;
        // Meanwhile somebody else's answer is read whole.
        let (mut other, _) = asked_and_left(&world, "ahead.example", "/").await;
        timeout(PATIENCE, is_let_go.recv()).await.expect("is held").unwrap();
        assert_eq!(read_to_close(&mut other).await.len(), LARGE);
        assert!(is_let_go.try_recv().is_err(), "{host}{path}");
        drop(stream);
        timeout(PATIENCE, is_let_go.recv()).await.expect("is held").unwrap();
    }
}

#[tokio::test]
async fn attack_answers_nobody_takes_hold_so_much_and_clients_that_leave_make_room() {
    let (let_go, mut is_let_go) = mpsc::unbounded_channel();
    let upstream = large(let_go).await;
    let limits = Limits { buffered_bytes_max: LARGE + (1 << 20), ..Limits::default() };
    let world = world(&upstream, IngressConfig { limits, ..config() }).await;
    for round in 1..=2 {
        let (first, _) = asked_and_left(&world, "ahead.example", "/").await;
        timeout(PATIENCE, is_let_go.recv()).await.expect("there is room").unwrap();
        let (mut second, _) = asked_and_left(&world, "ahead.example", "/").await;
        world.eventually(|counters| counters.answers_unbuffered == round).await;
        assert!(is_let_go.try_recv().is_err(), "there is no room");
        // It has no less of its answer for that.
        assert_eq!(read_to_close(&mut second).await.len(), LARGE);
        timeout(PATIENCE, is_let_go.recv()).await.unwrap().unwrap();
        drop(first);
        world.eventually(|counters| counters.connections_open == 0).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_what_is_read_for_it() {
    let (let_go, mut is_let_go) = mpsc::unbounded_channel();
    let upstream = large(let_go).await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("little", &[ON, ("proxy-max-temp-file-size", "0")]).object());
    let world = World::single(objects).await;
    let (stream, _) = asked_and_left(&world, "little.example", "/").await;
    assert!(is_let_go.try_recv().is_err());
    drop(stream);
    timeout(PATIENCE, is_let_go.recv()).await.expect("goes on for nobody").unwrap();
    assert_eq!(world.running.counters().answers_unbuffered, 0, "its own bound is no lack of room");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_so_behind_all_that_came() {
    let upstream = Upstream::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        for _ in 0..10 {
            stream.write_all(&[b'x'; 10_000]).await.unwrap();
        }
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("ahead", &[ON]).object());
    let world = World::single(objects).await;
    let (mut stream, head) = asked_and_left(&world, "ahead.example", "/").await;
    assert!(head.contains("content-length: 200000\r\n"), "{head}");
    assert_eq!(read_to_close(&mut stream).await.len(), 100_000);
}

/// Answers in parts, each when it is told to, with trailers behind them.
async fn in_parts(next: Arc<Notify>) -> Upstream {
    Upstream::raw(move |mut stream, counts| {
        let next = next.clone();
        async move {
            for _ in 0..2 {
                read_until(&mut stream, "\r\n\r\n").await;
                counts.request();
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                             Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
                stream.write_all(head).await.unwrap();
                for part in ["1\r\na\r\n", "2\r\nbc\r\n", "0\r\nX-Sum: 1\r\n\r\n"] {
                    next.notified().await;
                    stream.write_all(part.as_bytes()).await.unwrap();
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn events_come_when_they_are_said_and_the_endpoint_is_asked_again() {
    let next = Arc::new(Notify::new());
    let upstream = in_parts(next.clone()).await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("ahead", &[ON]).object());
    let world = World::single(objects).await;
    let mut sender = http2(TcpStream::connect(world.http()).await.unwrap()).await;
    for _ in 0..2 {
        let asks = Request::get("http://ahead.example/").version(Version::HTTP_2);
        let asks = asks.body(Full::default()).unwrap();
        let mut body = sender.send_request(asks).await.unwrap().into_body();
        for expected in ["a", "bc"] {
            next.notify_one();
            let frame = timeout(PATIENCE, body.frame()).await.expect("is held back");
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), expected);
        }
        next.notify_one();
        let frame = timeout(PATIENCE, body.frame()).await.expect("is held back");
        assert_eq!(frame.unwrap().unwrap().into_trailers().unwrap()["x-sum"], "1");
        assert!(timeout(PATIENCE, body.frame()).await.unwrap().is_none());
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 2));
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_whatever_is_buffered() {
    let upstream = websocket::echoing().await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[ON, ("proxy-request-buffering", "on")]).object());
    let world = World::single(objects).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(websocket::ASK).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\nhello").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(b"ping").await.unwrap();
    assert_eq!(read_until(&mut stream, "ping").await, "ping");
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_close(&mut stream).await, "");
}

#[tokio::test]
async fn short_answers_come_as_they_are() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("ahead", &[ON]).object());
    let world = World::single(objects).await;
    for _ in 0..3 {
        assert_eq!(get(world.http(), "ahead.example", "/").await.who(), (200, "web"));
    }
    assert_eq!(upstream.connections(), 1);
}
