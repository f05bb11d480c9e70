//! A balancer in front that says who connected to it.

use fairlead_ingress::{IngressConfig, ProxyProtocol, Refused, Timeouts};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    World,
    client::{Answer, http1, read_to_close, request, send, tls_on, trusting_anybody},
    config,
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.2 40000 443\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc6\x33\x64\x02\x9c\x40\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

async fn world(upstream: &Upstream, trusted: &[&str]) -> World {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
    let proxy_protocol = Some(ProxyProtocol { trusted });
    let timeouts = Timeouts { tls_handshake_ms: 500, ..Timeouts::default() };
    World::with(IngressConfig { proxy_protocol, timeouts, ..config() }, objects).await
}

/// A request behind a header that comes in these pieces.
async fn asked(world: &World, pieces: &[&[u8]], is_tls: bool) -> Answer {
    let address = if is_tls { world.https() } else { world.http() };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let mut sender = if is_tls {
        http1(tls_on(stream, "a.example", trusting_anybody()).await.unwrap()).await
    } else {
        http1(stream).await
    };
    send(&mut sender, request("a.example", "/")).await
}

#[tokio::test]
async fn an_upstream_hears_of_the_client_a_balancer_names() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream, &[]).await;
    let bytes: Vec<&[u8]> = V1.chunks(1).collect();
    for (name, pieces, client) in [
        ("version 1", &[V1][..], "203.0.113.7"),
        ("version 1, byte by byte", &bytes, "203.0.113.7"),
        ("version 2", &[V2], "203.0.113.7"),
        ("version 2 in pieces", &[&V2[..3], &V2[3..20], &V2[20..]], "203.0.113.7"),
        ("a health check of the balancer's own", &[LOCAL], "127.0.0.1"),
        ("unknown", &[b"PROXY UNKNOWN\r\n"], "127.0.0.1"),
    ] {
        for is_tls in [false, true] {
            let answer = asked(&world, pieces, is_tls).await;
            assert_eq!(answer.saw("x-real-ip"), Some(client), "{name}, TLS: {is_tls}");
            if client != "127.0.0.1" {
                assert_eq!(answer.saw("x-forwarded-port"), Some("443"), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn the_header_and_the_first_request_may_come_together() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream, &[]).await;
    for header in [V1, V2] {
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        let request = b"GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
        stream.write_all(&[header, request].concat()).await.unwrap();
        let answer = read_to_close(&mut stream).await;
        assert!(answer.contains("GET /x\n"), "{answer}");
        assert!(answer.contains("x-real-ip: 203.0.113.7\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_header_of_somebody_else_is_required_and_not_believed() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream, &["198.51.100.0/24"]).await;
    assert_eq!(asked(&world, &[V1], false).await.saw("x-real-ip"), Some("127.0.0.1"));
}

#[tokio::test]
async fn without_a_header_a_connection_is_closed_without_a_word() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream, &[]).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"[..],
        b"PROXY TCP4 203.0.113.7 nonsense 1 2\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"PROXY TCP4 203.0.11",
        b"",
    ] {
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert_eq!(read_to_close(&mut stream).await, "");
    }
    assert_eq!(world.running.counters().refused[&Refused::ProxyHeader], 4);
    assert_eq!(upstream.requests(), 0);
}
