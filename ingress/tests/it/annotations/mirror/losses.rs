//! Copies that are not made, and mirrors that are no good: nobody else notices.

use std::{net::SocketAddr, sync::Arc};

use fairlead_ingress::{IngressConfig, Limits, Timeouts, Uncopied};
use fairlead_state::{
    Key, Object,
    model::{EndpointSlice, Ingress, Service},
};
use http::{Method, header::CONTENT_TYPE};
use http_body_util::Full;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{Mirror, bodies::text, mirrored};
use crate::{
    annotations::{annotated, site},
    support::{
        PATIENCE, World,
        client::{Answer, connect, read_to_close, read_until, request, send},
        config,
        objects::{IngressExt, backend, ingress},
        upstream::{Upstream, dead},
    },
};

/// Takes connections and says nothing, nor reads.
async fn silent() -> Upstream {
    Upstream::raw(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

/// Takes connections and closes them.
async fn closing() -> Upstream {
    Upstream::raw(|stream, _| async move { drop(stream) }).await
}

async fn post(world: &World, host: &str, kind: Option<&'static str>, body: String) -> Answer {
    let mut post = request(host, "/x");
    *post.method_mut() = Method::POST;
    if let Some(kind) = kind {
        post.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
    }
    *post.body_mut() = Full::from(body);
    send(&mut connect(world.http()).await, post).await
}

async fn single(objects: Vec<fairlead_state::Object>) -> World {
    World::with(IngressConfig { threads: Some(1), ..config() }, objects).await
}

#[tokio::test]
async fn copies_that_are_not_made_are_counted_with_their_reason() {
    /// One more than may be under way.
    const REQUESTS: usize = 257;
    const GRPC: Option<&str> = Some("application/grpc+proto");
    let upstream = Upstream::echo("web").await;
    let answering = Upstream::echo("mirror").await;
    let silent = silent().await;
    let mut objects = backend("web", &[upstream.address]);
    let url = |address: SocketAddr| format!("http://{address}/");
    for (name, target, more) in [
        ("good", url(answering.address), &[][..]),
        ("small", url(answering.address), &[("proxy-body-size", "9")]),
        ("gone", url(dead().await), &[]),
        ("nowhere", "http://$arg_to/".to_owned(), &[]),
        ("silent", url(silent.address), &[]),
    ] {
        objects.push(mirrored(name, &target, more));
    }
    let world = single(objects).await;
    for (name, kind, bytes, status) in [
        ("good", GRPC, 5, 200),
        ("good", None, (1 << 20) + 1, 200),
        ("small", None, 10, 413),
        ("good", None, 0, 200),
        ("gone", None, 0, 200),
        ("nowhere", None, 0, 200),
    ] {
        let answer = post(&world, &format!("{name}.example"), kind, text(bytes)).await;
        assert_eq!(answer.status, status, "{name}, {bytes}");
    }
    let mut client = connect(world.http()).await;
    for _ in 0..REQUESTS {
        assert_eq!(send(&mut client, request("silent.example", "/")).await.status, 200);
    }
    world
        .eventually(|counters| {
            counters.copies == 1
                && Uncopied::ALL.iter().all(|reason| counters.uncopied[reason] == 1)
        })
        .await;
}

#[tokio::test]
async fn a_body_that_does_not_come_to_its_end_is_not_copied() {
    let echo = Upstream::echo("web").await;
    // Does not wait for the body.
    let hasty = Upstream::raw(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhasty";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let mut mirror = Mirror::new(true).await;
    let url = mirror.url();
    let mut objects =
        [backend("web", &[echo.address]), backend("hasty", &[hasty.address])].concat();
    objects.extend([backend("gone", &[dead().await]), backend("none", &[])].concat());
    for service in ["web", "hasty", "gone", "none"] {
        let ingress = ingress(service).host(&format!("{service}.example"), service);
        objects.push(annotated(ingress, &[("mirror-target", &url)]).object());
    }
    let world = single(objects).await;
    for (lost, (host, fields, part, expected)) in (1..).zip([
        ("web", "Content-Length: 9\r\n", "half", None),
        ("web", "Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n", None),
        ("web", "Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\nx\r\n", Some("400")),
        ("hasty", "Content-Length: 9\r\n", "half", Some("200")),
        ("gone", "Content-Length: 4\r\n", "full", Some("502")),
        ("none", "Content-Length: 4\r\n", "full", Some("503")),
    ]) {
        let reached = echo.requests();
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        let head = format!(
            "POST /x HTTP/1.1\r\nHost: {host}.example\r\nConnection: close\r\n{fields}\r\n{part}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        match expected {
            Some(status) => {
                let answer = read_to_close(&mut stream).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
            }
            None => {
                world.eventually(|_| echo.requests() > reached).await;
                drop(stream);
            }
        }
        world.eventually(|counters| counters.uncopied[&Uncopied::CutOff] == lost).await;
    }
    assert_eq!(world.running.counters().copies, 0);
    mirror.nothing_but(&world, "web.example").await;
}

#[tokio::test]
async fn a_mirror_that_is_no_good_changes_nothing_for_clients() {
    let upstream = Upstream::echo("web").await;
    let (silent, closing) = (silent().await, closing().await);
    let failing = Upstream::knowing(|_| false, http::StatusCode::INTERNAL_SERVER_ERROR).await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("none", &[]).object());
    let url = |address: SocketAddr| format!("http://{address}/");
    for (name, target) in [
        ("silent", url(silent.address)),
        ("closing", url(closing.address)),
        ("failing", url(failing.address)),
        ("gone", url(dead().await)),
        ("nowhere", "http://$arg_to/".to_owned()),
    ] {
        objects.push(mirrored(name, &target, &[]));
    }
    let world = single(objects).await;
    let without = |answer: &Answer| {
        let own = |line: &&str| {
            !["host", "x-forwarded-host", "x-request-id"].iter().any(|name| line.starts_with(name))
        };
        answer.body.lines().filter(own).map(str::to_owned).collect::<Vec<_>>()
    };
    for bytes in [0, 5, 100_000, 900_000] {
        let expected = post(&world, "none.example", None, text(bytes)).await;
        assert_eq!(expected.status, 200);
        for name in ["silent", "closing", "failing", "gone", "nowhere"] {
            let answer = post(&world, &format!("{name}.example"), None, text(bytes)).await;
            assert_eq!(answer.status, 200, "{name}, {bytes}");
            assert!(without(&answer) == without(&expected), "{name}, {bytes}");
        }
    }
}

#[tokio::test]
async fn what_copies_hold_together_is_bounded_and_room_for_others_afterwards() {
    const ROOM: usize = 60_000;
    let upstream = Upstream::echo("web").await;
    let mut mirror = Mirror::new(true).await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(mirrored("a", &mirror.url(), &[]));
    let limits = Limits { copied_bytes_max: ROOM, ..Limits::default() };
    let world = World::with(IngressConfig { threads: Some(1), limits, ..config() }, objects).await;
    for lost in 1..=3 {
        assert_eq!(post(&world, "a.example", None, text(ROOM + 1)).await.status, 200);
        assert_eq!(world.running.counters().uncopied[&Uncopied::Busy], lost);
        // All of it is there again, if no copy held anything back.
        assert_eq!(post(&world, "a.example", None, text(ROOM * 3 / 4)).await.status, 200);
        assert_eq!(mirror.next().await.body.map(|body| body.len()), Some(ROOM * 3 / 4));
        world.eventually(|counters| counters.copies == lost).await;
    }
}

#[tokio::test]
async fn bug_a_mirror_that_does_not_answer_keeps_no_clients_connection_open() {
    let upstream = Upstream::echo("web").await;
    let mut mirror = Mirror::new(false).await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(mirrored("a", &mirror.url(), &[]));
    let timeouts = Timeouts { drain_accept_ms: 50, drain_linger_ms: 50, ..Timeouts::default() };
    let mut world = World::with(IngressConfig { timeouts, ..config() }, objects).await;
    for body in ["", "hello"] {
        assert_eq!(post(&world, "a.example", None, body.to_owned()).await.status, 200);
        assert_eq!(mirror.next().await.body.as_deref(), Some(body.as_bytes()));
    }
    world.eventually(|counters| counters.connections_open == 0).await;
    world.cancel.cancel();
    let ended = timeout(PATIENCE, world.running.ended()).await;
    ended.expect("the mirror is waited for").unwrap();
    // Nor are the copies forgotten.
    let counters = world.running.counters();
    assert_eq!((counters.copies, counters.uncopied[&Uncopied::Unanswered]), (0, 2));
}

#[tokio::test]
async fn grpc_is_not_copied_with_its_messages_or_without() {
    let upstream = Upstream::echo("web").await;
    let mut mirror = Mirror::new(true).await;
    let url = mirror.url();
    let mut objects = backend("web", &[upstream.address]);
    objects.push(mirrored("on", &url, &[]));
    objects.push(mirrored("off", &url, &[("mirror-request-body", "off")]));
    let world = single(objects).await;
    for (lost, (name, kind, bytes)) in (1..).zip([
        ("on", "application/grpc", 5),
        ("off", "application/grpc", 5),
        ("off", "Application/gRPC+proto", 5),
        ("off", "application/grpc-web", 0),
    ]) {
        let answer = post(&world, &format!("{name}.example"), Some(kind), text(bytes)).await;
        assert_eq!(answer.status, 200, "{name}, {kind}");
        assert_eq!(world.running.counters().uncopied[&Uncopied::Unfit], lost, "{name}, {kind}");
    }
    mirror.nothing_but(&world, "off.example").await;
}

/// The same object of another namespace.
fn moved(object: Object, namespace: &str) -> Object {
    let own = |key: &Key| Key::new(namespace, key.name.clone());
    match object {
        Object::Service(it) => {
            Object::Service(Arc::new(Service { key: own(&it.key), ..(*it).clone() }))
        }
        Object::EndpointSlice(it) => Object::EndpointSlice(Arc::new(EndpointSlice {
            key: own(&it.key),
            service: own(&it.service),
            ..(*it).clone()
        })),
        Object::Ingress(it) => {
            Object::Ingress(Arc::new(Ingress { key: own(&it.key), ..(*it).clone() }))
        }
        other => other,
    }
}

/// Whoever may write one Ingress may write a dozen.
#[tokio::test]
async fn attack_slow_bodies_of_one_namespace_take_a_share_of_the_room_and_leave_the_rest_to_others()
{
    const ROOM: usize = 8 << 20;
    const BODY: usize = 900_000;
    /// What a quarter has room for.
    const HELD: usize = 2;
    const REQUESTS: usize = 12;
    let upstream = Upstream::echo("web").await;
    let mut mirror = Mirror::new(true).await;
    let web = backend("web", &[upstream.address]);
    let others = web.iter().cloned().chain([mirrored("good", &mirror.url(), &[])]);
    let mut objects: Vec<Object> = others.map(|object| moved(object, "other")).collect();
    objects.extend(web);
    objects.push(mirrored("slow", &mirror.url(), &[]));
    objects.push(mirrored("slower", &mirror.url(), &[]));
    let limits = Limits { copied_bytes_max: ROOM, ..Limits::default() };
    let world = World::with(IngressConfig { threads: Some(1), limits, ..config() }, objects).await;
    let (mut streams, lost) = (Vec::new(), (REQUESTS - HELD) as u64);
    for host in ["slow", "slower"].into_iter().cycle().take(REQUESTS) {
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        let length = BODY + 1;
        let head =
            format!("POST /x HTTP/1.1\r\nHost: {host}.example\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(text(BODY).as_bytes()).await.unwrap();
        streams.push(stream);
    }
    world.eventually(|counters| counters.uncopied[&Uncopied::Busy] == lost).await;
    for _ in 0..3 {
        assert_eq!(post(&world, "good.example", None, text(BODY)).await.status, 200);
        assert_eq!(mirror.next().await.body.map(|body| body.len()), Some(BODY));
    }
    assert_eq!(world.running.counters().uncopied[&Uncopied::Busy], lost);
}

/// As many as may be under way: who waits for its body holds memory, too.
#[tokio::test]
async fn attack_copies_that_wait_for_slow_bodies_are_as_many_as_may_be_under_way() {
    const PLACES: usize = 256;
    let upstream = Upstream::echo("web").await;
    let mut mirror = Mirror::new(true).await;
    let mut objects = backend("web", &[upstream.address]);
    // Nor does it have an endpoint yet.
    let read = ("proxy-request-buffering", "on");
    objects.push(mirrored("slow", &mirror.url(), &[read]));
    objects.push(mirrored("other", &mirror.url(), &[]));
    let world = single(objects).await;
    let mut streams = Vec::new();
    for _ in 0..=PLACES {
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        let head = "POST /x HTTP/1.1\r\nHost: slow.example\r\nConnection: close\r\n\
                    Content-Length: 2\r\n\r\na";
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    world.eventually(|counters| counters.uncopied[&Uncopied::Busy] == 1).await;
    assert_eq!(mirror.upstream.requests(), 0);
    assert_eq!(post(&world, "other.example", None, text(2)).await.status, 200);
    assert_eq!(mirror.next().await.body.as_deref(), Some(text(2).as_bytes()));
    // Those that break off give their places back.
    drop(streams);
    world.eventually(|counters| counters.uncopied[&Uncopied::CutOff] == PLACES as u64).await;
    mirror.nothing_but(&world, "slow.example").await;
}
