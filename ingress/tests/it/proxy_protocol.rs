//! A balancer in front that says who connected to it.

use std::net::SocketAddr;

use fairlead_ingress::{IngressConfig, Limits, Networks, ProxyProtocol, Refused, Timeouts};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

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
    world_by(upstream, trusted, Timeouts::default()).await
}

async fn world_by(upstream: &Upstream, trusted: &[&str], timeouts: Timeouts) -> World {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
    let proxy_protocol = Some(ProxyProtocol { trusted });
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
    let timeouts = Timeouts { tls_handshake_ms: 500, ..Timeouts::default() };
    let world = world_by(&upstream, &[], timeouts).await;
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

/// A connection that says nothing until it is told to.
async fn silent(world: &World, address: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((address, 0))).unwrap();
    socket.connect(world.http()).await.unwrap()
}

async fn served(mut stream: TcpStream) -> String {
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    stream.write_all(&[V1, request].concat()).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Nobody knows yet whose they are, so that no limit of a client's counted them.
#[tokio::test]
async fn attack_silent_connections_before_their_proxy_headers_leave_room_for_others() {
    const OK: &str = "HTTP/1.1 200 OK";
    let limits = Limits { connections_max: 16, ..Limits::default() };
    let (attacker, other) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    for (trusted, is_bounded) in [
        (&[][..], true),
        (&["0.0.0.0/0"], true),
        (&["192.0.2.1/32"], true),
        (&["127.0.0.1/32"], false),
    ] {
        let upstream = Upstream::echo("web").await;
        let mut objects = backend("web", &[upstream.address]);
        objects.push(ingress("web").host("a.example", "web").object());
        let trusted: Networks = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let proxy_protocol = Some(ProxyProtocol { trusted: trusted.clone() });
        let config =
            IngressConfig { proxy_protocol, limits: limits.clone(), threads: Some(1), ..config() };
        let world = World::with(config, objects).await;
        // An eighth of all.
        let held = [silent(&world, attacker).await, silent(&world, attacker).await];
        let mut third = silent(&world, attacker).await;
        if is_bounded {
            assert_eq!(read_to_close(&mut third).await, "", "{trusted:?}");
        } else {
            assert_eq!(served(third).await, OK, "{trusted:?}");
        }
        assert_eq!(served(silent(&world, other).await).await, OK, "{trusted:?}");
        // Whoever speaks is counted no more.
        for stream in held {
            assert_eq!(served(stream).await, OK, "{trusted:?}");
        }
        assert_eq!(served(silent(&world, attacker).await).await, OK, "{trusted:?}");
        let refused = world.running.counters().refused[&Refused::ProxyHeaderLimit];
        assert_eq!(refused, u64::from(is_bounded), "{trusted:?}");
    }
}
