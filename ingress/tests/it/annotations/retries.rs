//! Which endpoint is asked next, and how long one is waited for.

use std::time::{Duration, Instant};

use fairlead_ingress::{IngressConfig, Timeouts};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{annotated, site};
use crate::{
    change::silent_address,
    support::{
        PATIENCE, World,
        client::{connect, get, read_until, request, send},
        config,
        objects::{IngressExt, backend, ingress},
        upstream::Upstream,
    },
};

async fn answering(name: &'static str, status: u16) -> Upstream {
    Upstream::serve(move |_| async move {
        let mut response = Response::new(Full::new(Bytes::from(format!("{name}\n"))));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    })
    .await
}

/// Takes requests and never answers.
async fn silent() -> Upstream {
    Upstream::raw(|stream, counts| async move {
        counts.request();
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

#[tokio::test]
async fn an_answer_that_is_to_be_passed_over_is_while_there_is_another() {
    let (bad, good) = (answering("bad", 503).await, answering("good", 200).await);
    let mut objects = backend("web", &[bad.address, good.address]);
    let next = |when: &'static str| ("proxy-next-upstream", when);
    objects.extend(
        [
            site("default", &[]),
            site("next", &[next("error http_503")]),
            site("any", &[next("error http_503 non_idempotent")]),
            site("once", &[next("error http_503"), ("proxy-next-upstream-tries", "1")]),
            site("wrong", &[next("http_418")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::single(objects).await;
    for (name, method, bad_expected) in [
        ("default", Method::GET, 2),
        ("next", Method::GET, 0),
        // It may have been acted on.
        ("next", Method::POST, 2),
        ("any", Method::POST, 0),
        ("once", Method::GET, 2),
        ("wrong", Method::GET, 2),
    ] {
        let mut sender = connect(world.http()).await;
        let mut bad_seen = 0;
        for _ in 0..4 {
            let mut request = request(&format!("{name}.example"), "/");
            *request.method_mut() = method.clone();
            bad_seen += usize::from(send(&mut sender, request).await.status == 503);
        }
        assert_eq!(bad_seen, bad_expected, "{name} {method}");
    }
    assert_eq!(world.reasons("wrong").len(), 1);
}

/// nginx: invalid_header, which is none of its default reasons.
#[tokio::test]
async fn an_answer_that_cannot_be_believed_is_passed_over_if_that_is_wished() {
    let bad = Upstream::raw(|mut stream, counts| async move {
        let _ = read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let good = answering("good", 200).await;
    let mut objects = backend("web", &[bad.address, good.address]);
    objects.extend(backend("alone", &[bad.address]));
    let wished = "nginx.ingress.kubernetes.io/proxy-next-upstream";
    let alone = ingress("alone").host("alone.example", "alone");
    objects.extend(
        [
            site("default", &[]),
            site("wished", &[("proxy-next-upstream", "invalid_header")]),
            alone.annotation(wished, "invalid_header"),
        ]
        .map(IngressExt::object),
    );
    let world = World::single(objects).await;
    for (name, method, bad_expected, asked_expected) in [
        ("default", Method::GET, 2, 2),
        ("wished", Method::GET, 0, 2),
        ("wished", Method::POST, 2, 2),
        // Nobody is asked twice.
        ("alone", Method::GET, 4, 4),
    ] {
        let asked = bad.requests();
        let mut sender = connect(world.http()).await;
        let mut bad_seen = 0;
        for _ in 0..4 {
            let mut request = request(&format!("{name}.example"), "/");
            *request.method_mut() = method.clone();
            bad_seen += usize::from(send(&mut sender, request).await.status == 502);
        }
        assert_eq!(bad_seen, bad_expected, "{name} {method}");
        assert_eq!(bad.requests() - asked, asked_expected, "{name} {method}");
    }
}

#[tokio::test]
async fn the_last_answer_is_passed_on_however_bad() {
    let (a, b) = (answering("a", 503).await, answering("b", 503).await);
    let mut objects = backend("web", &[a.address, b.address]);
    objects.push(site("next", &[("proxy-next-upstream", "http_503")]).object());
    let world = World::single(objects).await;
    let answer = get(world.http(), "next.example", "/").await;
    assert!([(503, "a"), (503, "b")].contains(&answer.who()), "{answer:?}");
    assert_eq!(a.requests() + b.requests(), 2);
}

#[tokio::test]
async fn who_does_not_answer_in_the_time_of_the_annotation_is_given_up() {
    let (mute, good) = (silent().await, answering("good", 200).await);
    let mut objects = backend("web", &[mute.address, good.address]);
    let wait = ("proxy-read-timeout", "1");
    objects.extend(
        [
            site("next", &[wait]),
            site("off", &[wait, ("proxy-next-upstream", "off")]),
            site("late", &[wait, ("proxy-next-upstream-timeout", "1")]),
            site("zero", &[("proxy-read-timeout", "0")]),
        ]
        .map(IngressExt::object),
    );
    // The clock is as fine as the shortest timeout wants it.
    let timeouts = Timeouts { upstream_connect_ms: 400, ..Timeouts::default() };
    let config = IngressConfig { threads: Some(1), timeouts, ..config() };
    let world = World::with(config, objects).await;
    for (name, timed_out) in [("next", 0), ("off", 1), ("late", 1)] {
        let mut seen = 0;
        for _ in 0..2 {
            let answer = get(world.http(), &format!("{name}.example"), "/").await;
            seen += usize::from(answer.status == 504);
        }
        assert_eq!(seen, timed_out, "{name}");
    }
    assert_eq!(world.reasons("zero").len(), 1);
}

/// The role's own times are far longer.
#[tokio::test]
async fn an_endpoint_has_the_time_of_the_annotation_to_connect_and_to_take_a_request() {
    let (unreachable, _held) = silent_address().await;
    let deaf = silent().await;
    let mut objects = backend("unreachable", &[unreachable]);
    objects.extend(backend("deaf", &[deaf.address]));
    let once = ("proxy-next-upstream", "off");
    let ingress = |name: &str| ingress(name).host(&format!("{name}.example"), name);
    objects.extend([
        annotated(ingress("unreachable"), &[once, ("proxy-connect-timeout", "1")]).object(),
        annotated(ingress("deaf"), &[("proxy-send-timeout", "1"), ("proxy-body-size", "0")])
            .object(),
    ]);
    // A connection at rest is nobody's here: it makes the clock fine.
    let timeouts = Timeouts {
        upstream_connect_ms: 60_000,
        upstream_send_ms: 60_000,
        upstream_idle_ms: 400,
        ..Timeouts::default()
    };
    let config = IngressConfig { threads: Some(1), timeouts, ..config() };
    let world = World::with(config, objects).await;
    let start = Instant::now();
    assert_eq!(get(world.http(), "unreachable.example", "/").await.status, 504);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());

    let start = Instant::now();
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let endless = async {
        let head = b"POST / HTTP/1.1\r\nHost: deaf.example\r\nContent-Length: 1073741824\r\n\r\n";
        let mut sent = writing.write_all(head).await;
        while sent.is_ok() {
            sent = writing.write_all(&[b'x'; 64 << 10]).await;
        }
        // What ends it is read by the other half.
        std::future::pending::<()>().await;
    };
    let mut answer = [0; 12];
    let answered = async {
        tokio::select! {
            () = endless => {}
            read = reading.read_exact(&mut answer) => { read.unwrap(); }
        }
    };
    timeout(PATIENCE, answered).await.expect("no answer in time");
    assert_eq!(std::str::from_utf8(&answer), Ok("HTTP/1.1 504"));
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(world.running.counters().upstream_timeouts, 1);
}
