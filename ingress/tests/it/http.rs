//! What passes between client and upstream: fields, bodies, statuses, versions.

use std::{sync::Arc, time::Duration};

use fairlead_ingress::{ForwardedHeaders, IngressConfig, Limits, Timeouts};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

use crate::support::{
    PATIENCE, World,
    client::{
        Answer, connect, get, get2, http2, raw, read_to_close, read_until, request, send, tls,
        trusting_anybody,
    },
    config,
    frames::{Field, Outcome, PING, ask, frame, goaway},
    objects::{IngressExt, backend, ingress},
    upstream::{Counts, Upstream},
};

fn web(upstream: &Upstream) -> Vec<fairlead_state::Object> {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    objects
}

fn quick(timeouts: Timeouts) -> IngressConfig {
    IngressConfig { threads: Some(1), timeouts, ..config() }
}

#[tokio::test]
async fn an_upstream_sees_the_request_and_who_sent_it() {
    let upstream = Upstream::echo("web").await;
    let world = World::new(web(&upstream)).await;
    let port = world.http().port().to_string();
    let mut sender = connect(world.http()).await;
    let mut request = request("a.example", "/x/../y?q=1&r=%20#f");
    *request.method_mut() = http::Method::POST;
    *request.body_mut() = Full::from("hello");
    request.headers_mut().insert("x-forwarded-for", "203.0.113.9".parse().unwrap());
    request.headers_mut().insert("user-agent", "test".parse().unwrap());
    let answer = send(&mut sender, request).await;
    assert_eq!(answer.body.lines().nth(1), Some("POST /y?q=1&r=%20"));
    assert!(answer.body.ends_with("\nhello"), "{}", answer.body);
    for (field, value) in [
        ("host", "a.example"),
        ("user-agent", "test"),
        ("content-length", "5"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-original-forwarded-for", "203.0.113.9"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-host", "a.example"),
        ("x-forwarded-port", port.as_str()),
        ("x-forwarded-proto", "http"),
        ("x-scheme", "http"),
    ] {
        assert_eq!(answer.saw(field), Some(value), "{field} in {}", answer.body);
    }
    assert_eq!(answer.saw("x-request-id").map(str::len), Some(32));
    assert_eq!(answer.saw("connection"), None);
}

#[tokio::test]
async fn http2_and_http1_reach_an_upstream_alike() {
    let upstream = Upstream::echo("web").await;
    let world = World::new(vec![
        web(&upstream)[0].clone(),
        web(&upstream)[1].clone(),
        ingress("web").host("a.example", "web").object(),
    ])
    .await;
    for (alpn, is_h2) in [(&["h2", "http/1.1"][..], true), (&["http/1.1"], false), (&[], false)] {
        let mut config = trusting_anybody();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = tls(world.https(), "a.example", config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol() == Some(b"h2"), is_h2);
        let answer = if is_h2 {
            get2(&mut http2(stream).await, "a.example", "/x").await
        } else {
            let mut sender = crate::support::client::http1(stream).await;
            send(&mut sender, request("a.example", "/x")).await
        };
        assert_eq!(answer.who(), (200, "web"));
        assert_eq!(answer.saw("host"), Some("a.example"));
        assert_eq!(answer.saw("x-forwarded-proto"), Some("https"));
        assert_eq!(answer.body.lines().nth(1), Some("GET /x"));
    }
}

/// RFC 9113 3.3; curl --http2-prior-knowledge, and gRPC clients without TLS.
#[tokio::test]
async fn http2_without_encryption_is_served_to_clients_that_begin_with_it() {
    let upstream = Upstream::echo("web").await;
    let world = World::single(web(&upstream)).await;
    let mut sender = http2(TcpStream::connect(world.http()).await.unwrap()).await;
    let request = || {
        let uri = "http://a.example/x";
        let request = Request::builder().version(Version::HTTP_2).uri(uri);
        request.body(Full::<Bytes>::default()).unwrap()
    };
    let answers = futures::future::join_all((0..10).map(|_| {
        let answer = sender.send_request(request());
        async { Answer::read(answer.await.unwrap()).await }
    }));
    for answer in timeout(PATIENCE, answers).await.unwrap() {
        assert_eq!(answer.who(), (200, "web"));
        assert_eq!(answer.saw("x-forwarded-proto"), Some("http"));
    }
    let counters = world.running.counters();
    assert_eq!((counters.connections, counters.requests()), (1, 10));
    assert_eq!(counters.refused[&fairlead_ingress::Refused::Malformed], 0);
}

#[tokio::test]
async fn a_trusted_balancer_in_front_is_believed() {
    let upstream = Upstream::echo("web").await;
    let config = IngressConfig { forwarded_headers: ForwardedHeaders::Trust, ..config() };
    let world = World::with(config, web(&upstream)).await;
    let mut request = request("a.example", "/");
    request.headers_mut().insert("x-forwarded-for", "203.0.113.9".parse().unwrap());
    let answer = send(&mut connect(world.http()).await, request).await;
    assert_eq!(answer.saw("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
}

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    const SIZE: usize = 8 << 20;
    let upstream = Upstream::serve(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::new(body))
    })
    .await;
    let limits = Limits { body_bytes_max: SIZE as u64, ..Limits::default() };
    let world = World::with(IngressConfig { limits, ..config() }, web(&upstream)).await;
    let sent: Bytes = (0..SIZE).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<u8>>().into();
    for is_tls in [false, true] {
        let mut sender = if is_tls {
            let stream = tls(world.https(), "a.example", trusting_anybody()).await.unwrap();
            crate::support::client::http1(stream).await
        } else {
            connect(world.http()).await
        };
        let mut request = request("a.example", "/");
        *request.method_mut() = http::Method::PUT;
        *request.body_mut() = Full::new(sent.clone());
        let response = sender.send_request(request).await.unwrap();
        let received = response.into_body().collect().await.unwrap().to_bytes();
        assert!(received == sent, "tls: {is_tls}");
    }
}

#[tokio::test]
async fn chunked_requests_and_their_trailers_get_through() {
    let upstream = Upstream::echo("web").await;
    let world = World::new(web(&upstream)).await;
    let answer = raw(
        world.http(),
        b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\
          Connection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    assert!(answer.contains("trailer \"x-sum\": 5"), "{answer}");
    assert!(answer.ends_with("abcde"), "{answer}");
}

/// Some take trailers for fields nobody has looked at (CVE-2013-5704).
#[tokio::test]
async fn attack_trailers_say_nothing_that_is_looked_at_in_heads() {
    let upstream = Upstream::echo("web").await;
    let world = World::new(web(&upstream)).await;
    let answer = raw(
        world.http(),
        b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\
          Trailer: X-Sum, X-Forwarded-For, X_Real_IP, Authorization, Forwarded, Host\r\n\r\n\
          1\r\na\r\n0\r\nX-Sum: 5\r\nX-Forwarded-For: 10.0.0.1\r\nX_Real_IP: 10.0.0.1\r\n\
          Authorization: Basic eA==\r\nForwarded: for=10.0.0.1\r\nHost: b.example\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\na"), "{answer}");
    assert!(answer.contains("trailer \"x-sum\": 5"), "{answer}");
    assert_eq!(answer.matches("trailer \"").count(), 1, "{answer}");
}

#[tokio::test]
async fn response_trailers_get_through_to_who_asks_for_them() {
    let upstream = Upstream::serve(|_| async {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "5".parse().unwrap());
        let frames = [Frame::data(Bytes::from_static(b"abcde")), Frame::trailers(trailers)];
        let frames = frames.into_iter().map(Ok::<_, std::convert::Infallible>);
        let body = StreamBody::new(futures::stream::iter(frames));
        Response::builder().header("trailer", "x-sum").body(body).unwrap()
    })
    .await;
    let world = World::new(web(&upstream)).await;
    let mut config = trusting_anybody();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut sender = http2(tls(world.https(), "a.example", config).await.unwrap()).await;
    let request = Request::builder()
        .version(Version::HTTP_2)
        .uri("https://a.example/")
        .header("te", "trailers")
        .body(Full::default())
        .unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "5");
}

#[tokio::test]
async fn answers_without_body_keep_their_length_and_the_connection() {
    let upstream = Upstream::serve(|request| async move {
        let status = if request.uri().path() == "/304" { 304 } else { 200 };
        Response::builder().status(status).body(Full::from("0123456789")).unwrap()
    })
    .await;
    let world = World::single(web(&upstream)).await;
    let mut sender = connect(world.http()).await;
    for (method, path, status, length) in
        [("HEAD", "/", 200, Some("10")), ("GET", "/304", 304, None), ("GET", "/", 200, Some("10"))]
    {
        let mut request = request("a.example", path);
        *request.method_mut() = method.parse().unwrap();
        let answer = send(&mut sender, request).await;
        assert_eq!(answer.status, status, "{method} {path}");
        let seen = answer.headers.get("content-length").map(|v| v.to_str().unwrap());
        assert_eq!(seen, length, "{method} {path}");
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 3));
}

#[tokio::test]
async fn http10_clients_are_served_and_may_omit_the_host() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("*", "web").object());
    let world = World::new(objects).await;
    let answer = raw(world.http(), b"GET /health HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("GET /health\n"), "{answer}");
    assert!(!answer.contains("transfer-encoding"), "{answer}");
}

#[tokio::test]
async fn a_client_that_expects_100_is_told_to_go_on() {
    let upstream = Upstream::echo("web").await;
    let world = World::new(web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\
                 Expect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ok").await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    assert!(!answer.contains("expect:"), "{answer}");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_upstream_request_along() {
    /// Tells when the request's future is dropped.
    struct Left(Arc<Notify>);
    impl Drop for Left {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (arrived, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signals = (arrived.clone(), left.clone());
    let upstream = Upstream::serve(move |_| {
        let (arrived, left) = signals.clone();
        async move {
            let _left = Left(left);
            arrived.notify_one();
            std::future::pending::<Response<Full<Bytes>>>().await
        }
    })
    .await;
    let world = World::new(web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    timeout(PATIENCE, arrived.notified()).await.unwrap();
    drop(stream);
    timeout(PATIENCE, left.notified()).await.unwrap();
}

#[tokio::test]
async fn slowloris_a_head_that_never_ends_is_cut() {
    let upstream = Upstream::echo("web").await;
    let timeouts = Timeouts { header_read_ms: 100, ..Timeouts::default() };
    let world = World::with(quick(timeouts), web(&upstream)).await;
    let mut silent = TcpStream::connect(world.http()).await.unwrap();
    let mut slow = TcpStream::connect(world.http()).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nX-A: ").await.unwrap();
    // Each byte is progress for a socket and none for a head.
    let (mut reading, mut writing) = slow.split();
    let trickle = async {
        while writing.write_all(b"b").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        answer = read_to_close(&mut reading) => assert_eq!(answer, ""),
        () = trickle => {}
    }
    assert_eq!(read_to_close(&mut silent).await, "");
    world.eventually(|counters| counters.client_timeouts == 2).await;
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn slow_post_a_body_that_never_ends_is_answered_408() {
    let upstream = Upstream::echo("web").await;
    let timeouts = Timeouts { client_body_ms: 100, ..Timeouts::default() };
    let world = World::with(quick(timeouts), web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\nabc";
    stream.write_all(head).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn slow_read_a_client_that_does_not_read_is_cut() {
    let upstream = Upstream::serve(|_| async {
        let frames = futures::stream::repeat_with(|| {
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(&[b'x'; 16 << 10])))
        });
        Response::new(StreamBody::new(frames))
    })
    .await;
    let timeouts = Timeouts { client_send_ms: 200, ..Timeouts::default() };
    let world = World::with(quick(timeouts), web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    world.eventually(|counters| counters.client_timeouts == 1).await;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[tokio::test]
async fn idle_connections_are_closed_after_the_keep_alive_time() {
    let upstream = Upstream::echo("web").await;
    let timeouts = Timeouts { keep_alive_idle_ms: 100, ..Timeouts::default() };
    let world = World::with(quick(timeouts), web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// RFC 9113 6.8: who is told knows that what came too late is to be sent again. A reset for it, on bytes
/// nobody read, could take that away.
#[tokio::test]
async fn an_idle_http2_connection_is_told_that_it_ends_and_is_not_reset_for_what_comes_then() {
    let upstream = Upstream::echo("web").await;
    let timeouts = Timeouts { keep_alive_idle_ms: 100, ..Timeouts::default() };
    let world = World::with(quick(timeouts), web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let fields: [Field<'_>; 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"a.example"),
        (b":path", b"/"),
    ];
    assert_eq!(ask(&mut stream, &fields, 1).await, [Outcome::Status(200)]);
    assert_eq!(timeout(PATIENCE, goaway(&mut stream)).await.unwrap(), Some(0));
    // The first one would be answered by a reset, and the second would not get out.
    for _ in 0..2 {
        stream.write_all(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
    }
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_and_counted() {
    let upstream = Upstream::echo("web").await;
    let mut config = quick(Timeouts::default());
    config.limits.connections_max = 2;
    let world = World::with(config, web(&upstream)).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut sender = connect(world.http()).await;
        assert_eq!(send(&mut sender, request("a.example", "/")).await.status, 200);
        held.push(sender);
    }
    let mut third = TcpStream::connect(world.http()).await.unwrap();
    assert_eq!(read_to_close(&mut third).await, "");
    let counters = world.running.counters();
    assert_eq!(counters.refused[&fairlead_ingress::Refused::ConnectionLimit], 1);
    drop(held);
}

#[tokio::test]
async fn counters_tell_what_happened() {
    let upstream = Upstream::echo("web").await;
    let world = World::single(web(&upstream)).await;
    let mut sender = connect(world.http()).await;
    for (host, path) in [("a.example", "/"), ("a.example", "/2"), ("b.example", "/"), ("a b", "/")]
    {
        let _ = send(&mut sender, request(host, path)).await;
    }
    let counters = world.running.counters();
    assert_eq!(counters.responses, [(200, 2), (400, 1), (404, 1)].into());
    assert_eq!(
        (counters.connections, counters.upstream_connects, counters.upstream_reuses),
        (1, 1, 1)
    );
    assert_eq!(counters.refused[&fairlead_ingress::Refused::HostInvalid], 1);
    let status = world.running.status();
    assert_eq!((status.hosts, status.routes, status.certificates), (1, 1, 0));
}

/// A response without length ends with its connection; the client gets it in chunks.
#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_passed_on() {
    let upstream = Upstream::raw(|mut stream, counts: Arc<Counts>| async move {
        let _ = read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    })
    .await;
    let world = World::new(web(&upstream)).await;
    let answer: Answer = get(world.http(), "a.example", "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "until the end"));
}
