//! How much one client may ask for.

use std::time::{Duration, Instant};

use fairlead_ingress::Refused;
use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::site;
use crate::support::{
    World,
    client::{connect, get, read_until, request, send},
    objects::{IngressExt, backend},
    upstream::Upstream,
};
use crate::websocket::{ASK, echoing};

#[tokio::test]
async fn requests_above_the_rate_and_its_burst_are_503() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let (minute, burst) = (("limit-rpm", "2"), ("limit-burst-multiplier", "2"));
    objects.extend(
        [
            site("minute", &[minute, burst]),
            site("exempt", &[minute, ("limit-whitelist", "127.0.0.0/8")]),
            site("exempt-too", &[minute, ("limit-allowlist", "127.0.0.0/8")]),
            site("other", &[minute, ("limit-allowlist", "192.0.2.0/24"), burst]),
            site("bad", &[("limit-rpm", "two")]),
        ]
        .map(IngressExt::object),
    );
    // Two threads: the count is one.
    let mut world = World::new(objects).await;
    for (name, expected) in
        [("minute", 5), ("exempt", 8), ("exempt-too", 8), ("other", 5), ("bad", 8)]
    {
        let mut let_through = 0;
        for _ in 0..8 {
            let answer = get(world.http(), &format!("{name}.example"), "/").await;
            assert!([200, 503].contains(&answer.status), "{name}: {}", answer.status);
            let_through += usize::from(answer.status == 200);
        }
        assert_eq!(let_through, expected, "{name}");
    }
    world.eventually(|counters| counters.refused[&Refused::RequestRate] == 6).await;
    assert_eq!(world.reasons("bad").len(), 1);
    // A change of something else forgives nothing.
    let changed = site("minute", &[minute, burst, ("proxy-body-size", "2m")]);
    world.apply(vec![changed.object()]).await;
    assert_eq!(get(world.http(), "minute.example", "/").await.status, 503);
    let changed = site("minute", &[("limit-rpm", "3"), burst]);
    world.apply(vec![changed.object()]).await;
    assert_eq!(get(world.http(), "minute.example", "/").await.status, 200);
}

#[tokio::test]
async fn requests_of_a_second_are_counted_as_those_of_a_minute() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let second = [("limit-rps", "1"), ("limit-burst-multiplier", "2")];
    objects.push(site("a", &second).object());
    let world = World::new(objects).await;
    let start = Instant::now();
    let mut let_through = 0;
    for _ in 0..30 {
        let answer = get(world.http(), "a.example", "/").await;
        assert!([200, 503].contains(&answer.status), "{}", answer.status);
        let_through += u64::from(answer.status == 200);
    }
    // The first, two of the burst, and one for each second it took.
    let most = 3 + start.elapsed().as_secs() + 1;
    assert!((3..=most).contains(&let_through), "{let_through} of {most}");
}

#[tokio::test]
async fn requests_in_service_are_counted_until_they_end() {
    let open = tokio_util::sync::CancellationToken::new();
    let wait = open.clone();
    let upstream = Upstream::serve(move |_| {
        let wait = wait.clone();
        async move {
            wait.cancelled().await;
            Response::new(Full::new(Bytes::from("web\n")))
        }
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[("limit-connections", "2")]).object());
    let world = World::new(objects).await;
    let address = world.http();
    let held: Vec<_> =
        (0..2).map(|_| tokio::spawn(async move { get(address, "a.example", "/").await })).collect();
    while upstream.requests() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(address, "a.example", "/").await.status, 503);
    open.cancel();
    for answer in held {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(get(address, "a.example", "/").await.status, 200);
    world.eventually(|counters| counters.refused[&Refused::ClientConnections] == 1).await;
}

#[tokio::test]
async fn a_websocket_is_counted_until_it_ends() {
    let upstream = echoing().await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[("limit-connections", "1")]).object());
    let world = World::single(objects).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    assert_eq!(get(world.http(), "a.example", "/").await.status, 503);
    drop(stream);
    let answered = async {
        while get(world.http(), "a.example", "/").await.status == 503 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, answered).await.unwrap();
}

#[tokio::test]
async fn a_body_goes_out_no_faster_than_it_may() {
    let upstream =
        Upstream::serve(|_| async { Response::new(Full::new(Bytes::from(vec![b'x'; 48 << 10]))) })
            .await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(
        [
            // 16 KiB at once as nginx's head start, the rest takes two seconds.
            site("slow", &[("limit-rate", "16")]),
            site("after", &[("limit-rate", "16"), ("limit-rate-after", "40")]),
            site("free", &[]),
        ]
        .map(IngressExt::object),
    );
    let world = World::single(objects).await;
    for (name, at_least, at_most) in
        [("slow", 1_900, 10_000), ("after", 0, 1_500), ("free", 0, 1_500)]
    {
        let start = Instant::now();
        let mut sender = connect(world.http()).await;
        let answer = send(&mut sender, request(&format!("{name}.example"), "/")).await;
        assert_eq!((answer.status, answer.body.len()), (200, 48 << 10), "{name}");
        // What follows on the connection tells that the body's end has come out.
        assert_eq!(send(&mut sender, request("free.example", "/")).await.status, 200);
        let (least, most) = (Duration::from_millis(at_least), Duration::from_millis(at_most));
        let took = start.elapsed();
        assert!(took >= least && took <= most, "{name} took {took:?}");
    }
}

/// nginx: X-Accel-Limit-Rate. Nothing of X-Accel-* is for clients: X-Accel-Redirect names what only some may see.
#[tokio::test]
async fn an_endpoint_says_how_fast_its_answer_goes_out_and_clients_do_not_see_it() {
    let upstream = Upstream::serve(|request| async move {
        let mut response = Response::new(Full::new(Bytes::from(vec![b'x'; 48 << 10])));
        let rate = request.uri().path().trim_start_matches('/').parse();
        if let Ok(rate) = rate {
            response.headers_mut().insert("x-accel-limit-rate", rate);
        }
        response.headers_mut().insert("x-accel-redirect", "/protected/a".parse().unwrap());
        response
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    let slow = site("slow", &[("limit-rate", "16")]);
    let ahead = site("ahead", &[("proxy-buffering", "on"), ("proxy-buffer-size", "64k")]);
    objects.extend([slow, ahead, site("free", &[])].map(IngressExt::object));
    let world = World::single(objects).await;
    for (name, path, at_least, at_most) in [
        ("free", "/16384", 1_900, 10_000),
        ("ahead", "/16384", 1_900, 10_000),
        ("slow", "/0", 0, 1_500),
        ("slow", "/1000000", 0, 1_500),
    ] {
        let start = Instant::now();
        let mut sender = connect(world.http()).await;
        let answer = send(&mut sender, request(&format!("{name}.example"), path)).await;
        assert_eq!((answer.status, answer.body.len()), (200, 48 << 10), "{name}{path}");
        let told = answer.headers.keys().find(|field| field.as_str().starts_with("x-accel-"));
        assert_eq!(told, None, "{name}{path}");
        assert_eq!(send(&mut sender, request("free.example", "/")).await.status, 200);
        let (least, most) = (Duration::from_millis(at_least), Duration::from_millis(at_most));
        let took = start.elapsed();
        assert!(took >= least && took <= most, "{name}{path} took {took:?}");
    }
}
