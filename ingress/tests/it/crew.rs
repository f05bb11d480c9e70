//! The kernel gives connections to threads by hash, whatever each has already.

use std::{net::SocketAddr, time::Duration};

use fairlead_ingress::{IngressConfig, Limits, ProxyProtocol, Refused, Timeouts};
use fairlead_state::Object;
use nix::{
    libc::{self, sock_filter, sock_fprog},
    sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
};
use socket2::{Domain, Socket, Type};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::support::{
    PATIENCE, World,
    client::{connect, http1, read_to_close, request, send, tls_on, trusting_anybody},
    config,
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

fn web(upstream: &Upstream) -> Vec<Object> {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    objects
}

/// From now on all connections to an address are given to the thread that listened there first.
fn pile_up(address: SocketAddr) {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    // Any listening member of the group may say for all, and what it said stays in force.
    socket.listen(1).unwrap();
    let code = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap();
    let mut first = [sock_filter { code, jt: 0, jf: 0, k: 0 }];
    let program = sock_fprog { len: 1, filter: first.as_mut_ptr() };
    setsockopt(&socket, AttachReusePortCbpf, &program).unwrap();
}

#[tokio::test]
async fn reuseport_imbalance_long_connections_given_to_one_thread_are_spread_over_all() {
    const CONNECTIONS: u64 = 80;
    let upstream = Upstream::echo("web").await;
    // Half of it per thread: one thread alone could not hold them.
    let limits = Limits { connections_max: 100, ..Limits::default() };
    let world = World::with(IngressConfig { limits, ..config() }, web(&upstream)).await;
    pile_up(world.http());
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut sender = connect(world.http()).await;
        assert_eq!(send(&mut sender, request("a.example", "/")).await.who(), (200, "web"));
        held.push(sender);
    }
    let counters = world.running.counters();
    assert_eq!(counters.refused[&Refused::ConnectionLimit], 0);
    assert_eq!((counters.connections, counters.connections_open), (CONNECTIONS, CONNECTIONS));
    // The first thread has all but those: at most a quarter and eight, and one, more.
    let moved = counters.connections_moved;
    assert!((31..=33).contains(&moved), "{moved} of {CONNECTIONS}");
    // Each goes on where it is.
    for sender in &mut held {
        assert_eq!(send(sender, request("a.example", "/")).await.status, 200);
    }
    assert_eq!(world.running.counters().connections_moved, moved);
    drop(held);
    world.eventually(|counters| counters.connections_open == 0).await;
}

#[tokio::test]
async fn reuseport_imbalance_one_thread_is_full_while_another_has_room() {
    let upstream = Upstream::echo("web").await;
    let limits = Limits { connections_max: 6, ..Limits::default() };
    let world = World::with(IngressConfig { limits, ..config() }, web(&upstream)).await;
    pile_up(world.http());
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut sender = connect(world.http()).await;
        assert_eq!(send(&mut sender, request("a.example", "/")).await.status, 200);
        held.push(sender);
    }
    let mut above = TcpStream::connect(world.http()).await.unwrap();
    assert_eq!(read_to_close(&mut above).await, "");
    let counters = world.running.counters();
    assert_eq!((counters.connections_moved, counters.refused[&Refused::ConnectionLimit]), (3, 1));
}

#[tokio::test]
async fn a_connection_that_moves_brings_all_it_was_sent() {
    const CONNECTIONS: usize = 30;
    let upstream = Upstream::echo("web").await;
    let proxy_protocol = Some(ProxyProtocol::default());
    let world = World::with(IngressConfig { proxy_protocol, ..config() }, web(&upstream)).await;
    for address in [world.http(), world.https()] {
        pile_up(address);
        let before = world.running.counters().connections_moved;
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"PROXY TCP4 203.0.113.7 198.51.100.2 40000 443\r\n").await.unwrap();
            let mut sender = if address == world.https() {
                http1(tls_on(stream, "a.example", trusting_anybody()).await.unwrap()).await
            } else {
                http1(stream).await
            };
            let answer = send(&mut sender, request("a.example", "/")).await;
            assert_eq!(answer.saw("x-real-ip"), Some("203.0.113.7"));
            held.push(sender);
        }
        assert!(world.running.counters().connections_moved > before + 5);
        drop(held);
        world.eventually(|counters| counters.connections_open == 0).await;
    }
}

#[tokio::test]
async fn connections_on_their_way_to_another_thread_when_draining_begins_are_answered() {
    const CONNECTIONS: usize = 60;
    let upstream = Upstream::echo("web").await;
    let timeouts = Timeouts {
        drain_accept_ms: 1_000,
        drain_linger_ms: u64::try_from(PATIENCE.as_millis()).unwrap(),
        ..Timeouts::default()
    };
    let mut moved = 0;
    // Each time at another moment of their way.
    for connected_before in [CONNECTIONS, 20] {
        let config = IngressConfig { timeouts: timeouts.clone(), ..config() };
        let mut world = World::with(config, web(&upstream)).await;
        pile_up(world.http());
        let mut clients = Vec::new();
        for i in 0..CONNECTIONS {
            if i == connected_before {
                world.cancel.cancel();
            }
            clients.push(TcpStream::connect(world.http()).await.unwrap());
        }
        world.cancel.cancel();
        for client in &mut clients {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
            let answer = read_to_close(client).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{connected_before}: {answer:?}");
        }
        timeout(PATIENCE + Duration::from_secs(1), world.running.ended()).await.unwrap().unwrap();
        moved += world.running.counters().connections_moved;
    }
    assert!(moved > 0);
}
