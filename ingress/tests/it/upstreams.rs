//! Connections to endpoints: reused, given up, tried elsewhere.

use std::{sync::Arc, time::Duration};

use fairlead_ingress::{IngressConfig, Timeouts};
use fairlead_state::Object;
use http::{Method, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::support::{
    PATIENCE, World,
    client::{connect, get, read_until, request, send},
    config, frames,
    objects::{IngressExt, backend, ingress},
    upstream::{Counts, Upstream, dead},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn web(addresses: &[std::net::SocketAddr]) -> Vec<Object> {
    let mut objects = backend("web", addresses);
    objects.push(ingress("web").host("a.example", "web").object());
    objects
}

#[tokio::test]
async fn connections_are_reused_across_clients() {
    let upstream = Upstream::echo("web").await;
    let world = World::single(web(&[upstream.address])).await;
    for _ in 0..20 {
        assert_eq!(get(world.http(), "a.example", "/").await.who(), (200, "web"));
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 20));
    assert_eq!(world.running.counters().upstream_reuses, 19);
}

/// Two Services of different tenants may select one pod; their requests never share a connection.
#[tokio::test]
async fn services_that_share_a_pod_do_not_share_its_connections() {
    let upstream = Upstream::echo("web").await;
    let mut objects = web(&[upstream.address]);
    objects.extend(backend("other", &[upstream.address]));
    objects.push(ingress("other").host("b.example", "other").object());
    let world = World::single(objects).await;
    for _ in 0..3 {
        assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
        assert_eq!(get(world.http(), "b.example", "/").await.status, 200);
    }
    assert_eq!((upstream.connections(), upstream.requests()), (2, 6));
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over_whatever_the_method() {
    let upstream = Upstream::echo("web").await;
    let world = World::single(web(&[dead().await, dead().await, upstream.address])).await;
    for _ in 0..6 {
        let mut request = request("a.example", "/");
        *request.method_mut() = Method::POST;
        *request.body_mut() = Full::from("body");
        let answer = send(&mut connect(world.http()).await, request).await;
        assert_eq!(answer.who(), (200, "web"));
        assert!(answer.body.ends_with("\nbody"));
    }
    assert!(world.running.counters().upstream_retries > 0);
}

#[tokio::test]
async fn no_more_than_three_endpoints_are_tried() {
    let mut addresses = Vec::new();
    for _ in 0..5 {
        addresses.push(dead().await);
    }
    let world = World::single(web(&addresses)).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 502);
    assert_eq!(world.running.counters().upstream_connect_failures, 3);
}

/// Answers one request per connection as if it would keep it, and closes when the next one comes.
async fn closes_on_second_request() -> Upstream {
    Upstream::raw(|mut stream, counts: Arc<Counts>| async move {
        let _ = read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
        stream.write_all(OK).await.unwrap();
        let _ = read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
    })
    .await
}

#[tokio::test]
async fn a_connection_closed_just_as_it_is_reused_does_not_fail_the_request() {
    let upstream = closes_on_second_request().await;
    let world = World::single(web(&[upstream.address])).await;
    for _ in 0..5 {
        assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    }
    assert_eq!(world.running.counters().upstream_retries, 4);
}

/// The upstream may have acted on it: RFC 9110 9.2.2.
#[tokio::test]
async fn a_post_on_a_connection_closed_as_it_is_reused_is_never_sent_twice() {
    let upstream = closes_on_second_request().await;
    let world = World::single(web(&[upstream.address])).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    let mut request = request("a.example", "/");
    *request.method_mut() = Method::POST;
    *request.body_mut() = Full::from("once");
    let answer = send(&mut connect(world.http()).await, request).await;
    assert_eq!(answer.status, 502);
    assert_eq!(upstream.requests(), 2);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_noticed_for_any_method() {
    let upstream = Upstream::raw(|mut stream, counts: Arc<Counts>| async move {
        let _ = read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let world = World::single(web(&[upstream.address])).await;
    for _ in 0..5 {
        let mut request = request("a.example", "/");
        *request.method_mut() = Method::POST;
        assert_eq!(send(&mut connect(world.http()).await, request).await.status, 200);
        // The upstream's FIN is on loopback: there before the next request is.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((upstream.connections(), upstream.requests()), (5, 5));
}

#[tokio::test]
async fn an_idempotent_request_goes_to_another_endpoint_when_one_dies_on_it() {
    let dying = Upstream::raw(|mut stream, counts: Arc<Counts>| async move {
        let _ = read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
    })
    .await;
    let upstream = Upstream::echo("web").await;
    let world = World::single(web(&[dying.address, upstream.address])).await;
    for _ in 0..4 {
        assert_eq!(get(world.http(), "a.example", "/").await.who(), (200, "web"));
    }
    assert!(dying.requests() > 0);
}

/// Answers, but for one path, at which it closes without a word: as a handler that panics.
async fn with_a_path_that_fails() -> Upstream {
    Upstream::raw(|mut stream, counts: Arc<Counts>| async move {
        loop {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            if !head.ends_with("\r\n\r\n") || head.contains(" /fails ") {
                return;
            }
            counts.request();
            if stream.write_all(OK).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Three endpoints a request were taken for ones that cannot be reached, and everybody was led to the rest.
#[tokio::test]
async fn attack_a_path_at_which_endpoints_close_leads_nobody_away_from_them() {
    let mut endpoints = Vec::new();
    for _ in 0..4 {
        endpoints.push(with_a_path_that_fails().await);
    }
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    let world = World::single(web(&addresses)).await;
    assert_eq!(get(world.http(), "a.example", "/fails").await.status, 502);
    for _ in 0..8 {
        assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    }
    let asked: Vec<_> = endpoints.iter().map(Upstream::requests).collect();
    assert_eq!(asked, [2; 4]);
}

/// `proxy-next-upstream-tries: "0"` asked the only endpoint for as long as the client stayed.
#[tokio::test]
async fn bug_with_tries_without_end_each_endpoint_is_asked_once_and_one_of_them_again() {
    for count in [1, 3] {
        let mut endpoints = Vec::new();
        for _ in 0..count {
            endpoints.push(with_a_path_that_fails().await);
        }
        let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        let mut objects = backend("web", &addresses);
        let tries = "nginx.ingress.kubernetes.io/proxy-next-upstream-tries";
        objects.push(ingress("web").host("a.example", "web").annotation(tries, "0").object());
        let world = World::single(objects).await;
        let answer = timeout(PATIENCE, get(world.http(), "a.example", "/fails")).await;
        assert_eq!(answer.expect("an answer").status, 502, "{count}");
        let asked: usize = endpoints.iter().map(Upstream::connections).sum();
        assert_eq!(asked, count + 1, "{count}");
    }
}

#[tokio::test]
async fn connections_with_unread_or_unasked_bytes_are_not_reused() {
    for (name, answer) in [
        (
            "more than announced (response queue poisoning)",
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
               HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"[..],
        ),
        (
            "Connection: close",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        ),
    ] {
        let upstream = Upstream::raw(move |mut stream, counts: Arc<Counts>| async move {
            loop {
                let _ = read_until(&mut stream, "\r\n\r\n").await;
                counts.request();
                stream.write_all(answer).await.unwrap();
            }
        })
        .await;
        let world = World::single(web(&[upstream.address])).await;
        for _ in 0..4 {
            let answer = get(world.http(), "a.example", "/").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{name}");
        }
        assert_eq!(upstream.connections(), 4, "{name}");
    }
}

#[tokio::test]
async fn cve_2025_4366_an_early_answer_to_an_unfinished_upload_is_passed_on_and_nothing_is_reused()
{
    let upstream = Upstream::raw(|mut stream, counts: Arc<Counts>| async move {
        let _ = read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
        let early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig";
        stream.write_all(early).await.unwrap();
        let _ = read_until(&mut stream, "never").await;
    })
    .await;
    let world = World::single(web(&[upstream.address])).await;
    let mut stream = tokio::net::TcpStream::connect(world.http()).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\nabc";
    stream.write_all(head).await.unwrap();
    let answer = crate::support::client::read_to_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("big"), "{answer}");
    assert_eq!(get(world.http(), "a.example", "/").await.status, 413);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn bug_an_early_answer_is_not_held_back_for_a_request_that_is_only_a_body_begun() {
    let upstream = Upstream::raw(|mut stream, _| async move {
        let _ = read_until(&mut stream, "hello").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        let _ = read_until(&mut stream, "never").await;
    })
    .await;
    let world = World::single(web(&[upstream.address])).await;
    for begun in ["4", "4\r\n", "4\r\nab", ""] {
        let mut stream = tokio::net::TcpStream::connect(world.http()).await.unwrap();
        let head = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}5\r\nhello\r\n{begun}").as_bytes()).await.unwrap();
        let answer = crate::support::client::read_to_close(&mut stream).await;
        let is_whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok");
        assert!(is_whole, "{begun:?}: {answer:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_in_time_is_504() {
    let upstream = Upstream::serve(|_| std::future::pending::<Response<Full<Bytes>>>()).await;
    let timeouts = Timeouts { upstream_read_ms: 100, ..Timeouts::default() };
    let config = IngressConfig { timeouts, ..config() };
    let world = World::with(config, web(&[upstream.address])).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 504);
    assert_eq!(world.running.counters().upstream_timeouts, 1);
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn nonsense_from_an_endpoint_is_502() {
    for nonsense in [
        &b"SSH-2.0-OpenSSH\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"",
    ] {
        let upstream = Upstream::raw(move |mut stream, _| async move {
            let _ = read_until(&mut stream, "\r\n\r\n").await;
            let _ = stream.write_all(nonsense).await;
        })
        .await;
        let world = World::single(web(&[upstream.address])).await;
        let answer = get(world.http(), "a.example", "/").await;
        assert_eq!(answer.status, 502, "{}", String::from_utf8_lossy(nonsense));
    }
}

#[tokio::test]
async fn idle_connections_to_endpoints_are_closed_in_time() {
    let upstream = Upstream::raw(|mut stream, counts: Arc<Counts>| async move {
        let _ = read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(OK).await.unwrap();
        let mut rest = Vec::new();
        // Counts the close, not a request.
        if tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await.is_ok() {
            counts.request();
        }
    })
    .await;
    let timeouts = Timeouts { upstream_idle_ms: 80, ..Timeouts::default() };
    let config = IngressConfig { threads: Some(1), timeouts, ..config() };
    let world = World::with(config, web(&[upstream.address])).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    let closed = async {
        while upstream.requests() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, closed).await.unwrap();
}

/// Nobody asked a body for its end that was over already: the endpoint had the time there is for taking a request, not
/// that for an answer.
#[tokio::test]
async fn bug_an_empty_body_that_ends_while_its_endpoint_is_dialled_is_sent() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // One has room, and whoever comes then is asked to come again.
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let filling = TcpStream::connect(address).await.unwrap();
    let mut objects = backend("web", &[address]);
    objects.push(ingress("web").host("a.example", "web").object());
    let timeouts = Timeouts { upstream_send_ms: 100, ..Timeouts::default() };
    let world = World::with(IngressConfig { timeouts, ..config() }, objects).await;

    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let block = frames::block(&[
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"a.example"),
        (b":path", b"/"),
    ]);
    let head = frames::frame(frames::HEADERS, frames::END_HEADERS, 1, &block);
    stream.write_all(&[frames::begin(), head].concat()).await.unwrap();
    // A PING is answered behind what was said before it.
    stream.write_all(&frames::frame(frames::PING, 0, 0, &[0; 8])).await.unwrap();
    frames::ponged(&mut stream).await;
    stream.write_all(&frames::frame(frames::DATA, frames::END_STREAM, 1, &[])).await.unwrap();
    stream.write_all(&frames::frame(frames::PING, 0, 0, &[0; 8])).await.unwrap();
    frames::ponged(&mut stream).await;

    drop((listener.accept().await.unwrap(), filling));
    let (mut endpoint, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let asked = read_until(&mut endpoint, "\r\n\r\n").await;
    assert!(asked.starts_with("POST / HTTP/1.1\r\n"), "{asked}");
    // Longer than it may take to take a request.
    sleep(Duration::from_millis(500)).await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    endpoint.write_all(answer).await.unwrap();
    let outcome = timeout(PATIENCE, frames::outcome(&mut stream)).await.unwrap();
    assert_eq!(outcome, frames::Outcome::Status(200));
}
