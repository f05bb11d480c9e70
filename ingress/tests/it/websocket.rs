//! WebSockets: a tunnel after both sides agreed, and not before.

use std::{sync::Arc, time::Duration};

use fairlead_ingress::{IngressConfig, Timeouts};
use fairlead_state::Object;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    PATIENCE, World,
    client::{read_to_close, read_until, tls, trusting_anybody},
    config,
    objects::{IngressExt, backend, ingress},
    upstream::{Counts, Upstream},
};

const ASK: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     Sec-WebSocket-Version: 13\r\n\r\n";

/// Agrees, says hello in the same breath, then sends back what it gets.
async fn echoing() -> Upstream {
    Upstream::raw(|mut stream, counts: Arc<Counts>| async move {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
        assert!(head.contains("upgrade: websocket\r\n"), "{head}");
        assert!(head.contains("connection: Upgrade\r\n"), "{head}");
        assert!(head.contains("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "{head}");
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
                       Connection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello";
        stream.write_all(agreed).await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
    })
    .await
}

fn web(upstream: &Upstream) -> Vec<Object> {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    objects
}

#[tokio::test]
async fn bytes_pass_both_ways_after_the_upstream_agreed() {
    let upstream = echoing().await;
    let world = World::new(web(&upstream)).await;
    let plain = TcpStream::connect(world.http()).await.unwrap();
    talk(plain).await;
    let encrypted = tls(world.https(), "a.example", trusting_anybody()).await.unwrap();
    talk(encrypted).await;
    assert_eq!(world.running.counters().tunnels, 2);
    assert_eq!(world.running.counters().responses[&101], 2);
}

async fn talk<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: S) {
    stream.write_all(ASK).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for field in
        ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-accept: x\r\n"]
    {
        assert!(head.contains(field), "{field} in {head}");
    }
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    for size in [1, 100, 100_000] {
        let sent = vec![b'x'; size];
        let mut received = vec![0; size];
        let (mut reading, mut writing) = tokio::io::split(&mut stream);
        let (written, read) =
            tokio::join!(writing.write_all(&sent), reading.read_exact(&mut received));
        written.unwrap();
        read.unwrap();
        assert!(sent == received);
    }
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_close(&mut stream).await, "");
}

/// CVE-2026-2833: bytes that follow the request before the 101 are not yet the tunnel's.
#[tokio::test]
async fn a_request_behind_a_refused_upgrade_is_a_request_of_its_own() {
    let upstream = Upstream::echo("web").await;
    let world = World::new(web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    let next = b"GET /next HTTP/1.1\r\nHost: unknown.example\r\nConnection: close\r\n\r\n";
    stream.write_all(next).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.contains("GET /chat\n") && answer.contains("HTTP/1.1 404"), "{answer}");
    assert_eq!((upstream.requests(), world.running.counters().tunnels), (1, 0));
}

#[tokio::test]
async fn a_websocket_lives_until_the_drain_time_is_over() {
    let upstream = echoing().await;
    let timeouts =
        Timeouts { drain_accept_ms: 20, drain_linger_ms: 20, drain_ms: 600, ..Timeouts::default() };
    let config = IngressConfig { timeouts, ..config() };
    let mut world = World::with(config, web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    read_until(&mut stream, "\r\n\r\nhello").await;
    let begun = tokio::time::Instant::now();
    world.cancel.cancel();
    let mut echo = [0; 4];
    // Well past the time idle connections are given.
    while begun.elapsed() < Duration::from_millis(300) {
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut echo).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(600));
    assert_eq!(read_to_close(&mut stream).await, "");
}

#[tokio::test]
async fn a_silent_websocket_is_closed() {
    let upstream = echoing().await;
    let timeouts = Timeouts { tunnel_idle_ms: 100, ..Timeouts::default() };
    let world = World::with(IngressConfig { timeouts, ..config() }, web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    let all = read_to_close(&mut stream).await;
    assert!(all.ends_with("hello"), "{all}");
}
