//! How many connections one client's address may have.

use std::net::SocketAddr;

use fairlead_ingress::{ForwardedHeaders, IngressConfig, ProxyProtocol, Refused};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use crate::support::{
    World,
    client::{Sender, http1, read_to_close, request, send},
    config,
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

const MAX: usize = 2;
const FIRST: [u8; 4] = [127, 0, 0, 1];
const SECOND: [u8; 4] = [127, 0, 0, 2];

/// Two threads: what one of them counts the other one knows.
async fn world(upstream: &Upstream, config: IngressConfig) -> World {
    let mut config = config;
    config.limits.client_connections_max = std::num::NonZero::new(MAX);
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    World::with(config, objects).await
}

async fn from(world: &World, address: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((address, 0))).unwrap();
    socket.connect(world.http()).await.unwrap()
}

/// A connection that was answered, and is still there.
async fn served(stream: TcpStream) -> Sender {
    let mut sender = http1(stream).await;
    assert_eq!(send(&mut sender, request("a.example", "/")).await.status, 200);
    sender
}

fn refused(world: &World) -> u64 {
    world.running.counters().refused[&Refused::ClientConnectionLimit]
}

#[tokio::test]
async fn attack_connections_of_one_address_above_the_limit_are_closed_and_others_are_served() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream, config()).await;
    let mut held = Vec::new();
    for _ in 0..MAX {
        held.push(served(from(&world, FIRST).await).await);
    }
    for above in 1..=3 {
        assert_eq!(read_to_close(&mut from(&world, FIRST).await).await, "");
        assert_eq!(refused(&world), above);
    }
    drop(served(from(&world, SECOND).await).await);
    // What ends makes room.
    drop(held);
    world.eventually(|counters| counters.connections_open == 0).await;
    drop(served(from(&world, FIRST).await).await);
    assert_eq!(refused(&world), 3);
}

#[tokio::test]
async fn of_a_named_balancer_any_number_is_served_and_of_others_that_say_the_same_it_is_not() {
    let upstream = Upstream::echo("web").await;
    let mut config = config();
    config.forwarded_headers = ForwardedHeaders::Trust;
    config.trusted_proxies = ["127.0.0.1/32".parse().unwrap()].into_iter().collect();
    let world = world(&upstream, config).await;
    let mut held = Vec::new();
    for _ in 0..2 * MAX {
        held.push(served(from(&world, FIRST).await).await);
    }
    for _ in 0..MAX {
        held.push(served(from(&world, SECOND).await).await);
    }
    assert_eq!(read_to_close(&mut from(&world, SECOND).await).await, "");
    assert_eq!(refused(&world), 1);
}

#[tokio::test]
async fn behind_a_proxy_header_that_is_believed_the_client_it_names_is_counted() {
    for (trusted, is_believed) in [("127.0.0.0/8", true), ("192.0.2.1/32", false)] {
        let upstream = Upstream::echo("web").await;
        let trusted = [trusted.parse().unwrap()].into_iter().collect();
        let proxy_protocol = Some(ProxyProtocol { trusted });
        let world = world(&upstream, IngressConfig { proxy_protocol, ..config() }).await;
        let naming = async |client: usize| {
            let mut stream = from(&world, FIRST).await;
            let header = format!("PROXY TCP4 203.0.113.{client} 198.51.100.2 40000 80\r\n");
            stream.write_all(header.as_bytes()).await.unwrap();
            stream
        };
        let mut held = Vec::new();
        for client in 0..MAX {
            held.push(served(naming(client).await).await);
        }
        // All of them came from one address, which counts only if nobody is believed.
        let mut other = naming(MAX).await;
        if is_believed {
            held.push(served(other).await);
            held.push(served(naming(0).await).await);
            assert_eq!(read_to_close(&mut naming(0).await).await, "");
        } else {
            assert_eq!(read_to_close(&mut other).await, "");
        }
        assert_eq!(refused(&world), 1, "{is_believed}");
    }
}

/// Their headers are not believed: it is known whose they are before those come.
#[tokio::test]
async fn attack_silent_connections_of_a_peer_that_is_not_believed_count_from_the_first_moment() {
    let upstream = Upstream::echo("web").await;
    let proxy_protocol =
        Some(ProxyProtocol { trusted: ["192.0.2.1/32".parse().unwrap()].into_iter().collect() });
    let world =
        world(&upstream, IngressConfig { proxy_protocol, threads: Some(1), ..config() }).await;
    let mut held = Vec::new();
    for _ in 0..MAX {
        held.push(from(&world, FIRST).await);
    }
    assert_eq!(read_to_close(&mut from(&world, FIRST).await).await, "");
    assert_eq!(refused(&world), 1);
    drop(held);
    world.eventually(|counters| counters.connections_open == 0).await;
    drop(from(&world, FIRST).await);
    world.eventually(|counters| counters.connections == MAX as u64 + 2).await;
    assert_eq!(refused(&world), 1);
}
