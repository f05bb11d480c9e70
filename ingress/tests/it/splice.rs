//! Long bodies nothing is done to go from one connection to the other within the kernel.

use std::{convert::Infallible, time::Duration};

use fairlead_ingress::{IngressConfig, Timeouts};
use fairlead_state::{Key, Object};
use futures::stream;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};

use crate::{
    annotations::site,
    support::{
        PATIENCE, World,
        client::{Sender, connect, http1, http2, read_until, request, tls, trusting_anybody},
        objects::{IngressExt, backend, config_map},
        upstream::Upstream,
    },
};

const MIB: usize = 1 << 20;
/// Shorter bodies, and what comes with a head.
const COPIED_BYTES_MAX: u64 = 64 << 10;

/// Whatever is lost, doubled or displaced of it is seen.
fn body(bytes: usize) -> Bytes {
    let words = (0..MIB as u64 / 8).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut block: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    block.truncate(MIB - 3);
    let mut body = block.repeat(bytes / block.len() + 1);
    body.truncate(bytes);
    body.into()
}

/// As long as its path says, `/chunked` without saying so; or how much of such a body it was sent.
async fn pages() -> Upstream {
    Upstream::serve(|request: Request<hyper::body::Incoming>| async move {
        let (head, sent) = request.into_parts();
        let mut response = Response::new(());
        if head.method == Method::POST {
            let sent =
                sent.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            if sent != body(sent.len()) {
                *response.status_mut() = StatusCode::BAD_REQUEST;
            }
            return response.map(|()| Full::from(sent.len().to_string()).boxed_unsync());
        }
        response.headers_mut().insert(CONTENT_TYPE, "text/plain".parse().unwrap());
        let bytes = head.uri.path().trim_start_matches("/chunked").trim_start_matches('/');
        let said = body(bytes.parse().unwrap());
        let said: UnsyncBoxBody<Bytes, Infallible> = if head.uri.path().starts_with("/chunked") {
            StreamBody::new(stream::iter([Ok(Frame::data(said))])).boxed_unsync()
        } else {
            Full::new(said).boxed_unsync()
        };
        response.map(|()| said)
    })
    .await
}

async fn world(config: IngressConfig, site_of: &[(&str, &str)], upstream: &Upstream) -> World {
    let mut objects: Vec<Object> = backend("web", &[upstream.address]);
    objects.push(site("a", site_of).object());
    objects.push(config_map("nginx", &[("use-gzip", "true")]));
    let config_map = Some(Key::new("default", "nginx"));
    World::with(IngressConfig { threads: Some(1), config_map, ..config }, objects).await
}

async fn plain_world(upstream: &Upstream) -> World {
    world(crate::support::config(), &[], upstream).await
}

async fn get(sender: &mut Sender, path: &str, accepts: Option<&'static str>) -> Bytes {
    let mut request = request("a.example", path);
    if let Some(accepts) = accepts {
        request.headers_mut().insert("accept-encoding", accepts.parse().unwrap());
    }
    let answer = async {
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap().to_bytes()
    };
    timeout(PATIENCE, answer).await.unwrap()
}

fn spliced(world: &World) -> u64 {
    world.running.counters().spliced_bytes
}

#[tokio::test]
async fn a_long_answer_arrives_as_it_was_sent_and_both_connections_go_on() {
    let upstream = pages().await;
    let world = plain_world(&upstream).await;
    let mut sender = connect(world.http()).await;
    for bytes in [MIB, 100 * MIB, MIB + 1, 3] {
        let before = spliced(&world);
        assert!(get(&mut sender, &format!("/{bytes}"), None).await == body(bytes), "{bytes}");
        let copied = bytes as u64 - (spliced(&world) - before);
        assert!(copied <= COPIED_BYTES_MAX, "{copied} of {bytes} bytes were copied");
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 4));
}

#[tokio::test]
async fn what_is_done_to_a_body_is_done_to_all_of_it() {
    let bytes = 4 * MIB;
    let long = format!("/{bytes}");
    let chunked = format!("/chunked/{bytes}");
    let at_most = format!("/{}", COPIED_BYTES_MAX - 1);
    for (case, site_of, path, accepts) in [
        ("short", &[][..], &*at_most, None),
        ("in chunks", &[], &chunked, None),
        ("by gzip", &[], &long, Some("gzip")),
        ("no faster than", &[("limit-rate", "100000")], &long, None),
    ] {
        let upstream = pages().await;
        let world = world(crate::support::config(), site_of, &upstream).await;
        let said = get(&mut connect(world.http()).await, path, accepts).await;
        if accepts.is_some() {
            assert_ne!(said.len(), bytes, "{case}");
        } else {
            let bytes = path.rsplit('/').next().unwrap().parse().unwrap();
            assert!(said == body(bytes), "{case}");
        }
        assert_eq!(spliced(&world), 0, "{case}");
    }
}

#[tokio::test]
async fn what_is_encrypted_or_in_frames_is_copied() {
    let upstream = pages().await;
    let world = plain_world(&upstream).await;
    let stream = tls(world.https(), "a.example", trusting_anybody()).await.unwrap();
    let said = get(&mut http1(stream).await, "/4194304", None).await;
    assert!(said == body(4 * MIB));
    let mut sender = http2(TcpStream::connect(world.http()).await.unwrap()).await;
    let request = Request::get("http://a.example/4194304").body(Full::default()).unwrap();
    let said = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert!(said.to_bytes() == body(4 * MIB));
    assert_eq!(spliced(&world), 0);
}

#[tokio::test]
async fn what_was_spliced_is_part_of_what_is_counted() {
    let upstream = pages().await;
    let world = plain_world(&upstream).await;
    get(&mut connect(world.http()).await, "/1048576", None).await;
    let meter = world.running.route_meter();
    world.eventually(|_| meter().iter().any(|route| route.response_bytes.count() == 1)).await;
    let sum = meter()[0].response_bytes.sum;
    let head = sum - MIB as u64;
    assert!((50..500).contains(&head), "a head of {head} bytes");
}

/// Says half of what it announces, and then what it is told to.
async fn breaking(ends: bool) -> Upstream {
    Upstream::raw(move |mut stream, counts| async move {
        counts.request();
        read_until(&mut stream, "\r\n\r\n").await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * MIB);
        stream.write_all(&[head.as_bytes(), &body(MIB)].concat()).await.unwrap();
        if !ends {
            // Until the other side ends.
            _ = stream.read_u8().await;
        }
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_or_says_no_more_ends_the_answer_early() {
    for (ends, timeouts) in [(true, 0), (false, 1)] {
        let upstream = breaking(ends).await;
        let patience = Timeouts { upstream_read_ms: 1000, ..Timeouts::default() };
        let config = IngressConfig { timeouts: patience, ..crate::support::config() };
        let world = world(config, &[], &upstream).await;
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        let mut said = Vec::new();
        // All of what came, and then the end: by a reset or not.
        _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.unwrap();
        assert!(said == body(MIB), "{} bytes", said.len());
        assert!(spliced(&world) > 0);
        assert_eq!(world.running.counters().upstream_timeouts, timeouts, "{ends}");
    }
}

/// Announces more than anybody takes, and says when it could say no more.
async fn endless(gone: mpsc::UnboundedSender<()>) -> Upstream {
    Upstream::raw(move |mut stream, counts| {
        let gone = gone.clone();
        async move {
            counts.request();
            read_until(&mut stream, "\r\n\r\n").await;
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
            let mut sent = stream.write_all(head).await;
            while sent.is_ok() {
                sent = stream.write_all(&body(MIB)).await;
            }
            _ = gone.send(());
        }
    })
    .await
}

#[tokio::test]
async fn a_client_that_leaves_or_takes_no_more_ends_it_for_the_endpoint_too() {
    for (leaves, late) in [(true, 0), (false, 1)] {
        let (gone, mut is_gone) = mpsc::unbounded_channel();
        let upstream = endless(gone).await;
        let patience = Timeouts { client_send_ms: 200, ..Timeouts::default() };
        let config = IngressConfig { timeouts: patience, ..crate::support::config() };
        let world = world(config, &[], &upstream).await;
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        SockRef::from(&stream).set_recv_buffer_size(8 << 10).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        world.eventually(|counters| counters.spliced_bytes > 0).await;
        let stays = (!leaves).then_some(stream);
        timeout(PATIENCE, is_gone.recv()).await.expect("the endpoint is still read").unwrap();
        world.eventually(|counters| counters.client_timeouts == late).await;
        drop(stays);
        // Whoever comes next has nothing of it.
        let mut next = TcpStream::connect(world.http()).await.unwrap();
        next.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        read_until(&mut next, "\r\n\r\n").await;
        let mut first = [0; 1000];
        timeout(PATIENCE, next.read_exact(&mut first)).await.unwrap().unwrap();
        assert!(first[..] == body(1000)[..]);
        assert_eq!(upstream.connections(), 2);
    }
}

/// The kernel tells of room when a third of it is free.
#[tokio::test]
async fn a_client_that_takes_little_at_a_time_is_not_taken_for_one_that_takes_nothing() {
    let (gone, mut is_gone) = mpsc::unbounded_channel();
    let upstream = endless(gone).await;
    let patience = Timeouts { client_send_ms: 1000, ..Timeouts::default() };
    let config = IngressConfig { timeouts: patience, ..crate::support::config() };
    let world = world(config, &[], &upstream).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(world.http()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let mut said = vec![0; MIB];
    for piece in said.chunks_mut(8 << 10) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        timeout(PATIENCE, stream.read_exact(piece)).await.unwrap().unwrap();
    }
    assert!(said == body(MIB));
    assert_eq!(world.running.counters().client_timeouts, 0);
    drop(stream);
    timeout(PATIENCE, is_gone.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_endpoint_that_is_slow_but_not_too_slow_is_waited_for() {
    let upstream = Upstream::raw(|mut stream, counts| async move {
        counts.request();
        read_until(&mut stream, "\r\n\r\n").await;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MIB}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in body(MIB).chunks(MIB / 8) {
            tokio::time::sleep(Duration::from_millis(150)).await;
            stream.write_all(piece).await.unwrap();
        }
    })
    .await;
    let patience = Timeouts { upstream_read_ms: 1000, ..Timeouts::default() };
    let config = IngressConfig { timeouts: patience, ..crate::support::config() };
    let world = world(config, &[], &upstream).await;
    assert!(get(&mut connect(world.http()).await, "/", None).await == body(MIB));
    assert_eq!(spliced(&world), MIB as u64, "nothing came with the head");
}

#[tokio::test]
async fn a_long_request_arrives_as_it_was_sent_and_both_connections_go_on() {
    let upstream = pages().await;
    let world = world(crate::support::config(), &[("proxy-body-size", "0")], &upstream).await;
    let mut sender = connect(world.http()).await;
    for bytes in [MIB, 100 * MIB, MIB + 1, 3] {
        let before = spliced(&world);
        let mut post = request("a.example", "/");
        *post.method_mut() = Method::POST;
        *post.body_mut() = Full::new(body(bytes));
        let answer = crate::support::client::send(&mut sender, post).await;
        assert_eq!((answer.status, answer.body), (200, bytes.to_string()));
        let copied = bytes as u64 - (spliced(&world) - before);
        assert!(copied <= COPIED_BYTES_MAX, "{copied} of {bytes} bytes were copied");
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 4));
}

/// The bytes behind a body are the next request's, however they come.
#[tokio::test]
async fn smuggling_what_follows_a_spliced_request_is_not_part_of_it() {
    let upstream = pages().await;
    let world = plain_world(&upstream).await;
    let stream = TcpStream::connect(world.http()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let head = format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {MIB}\r\n\r\n");
    let next = b"GET /3 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    let all = [head.as_bytes(), &body(MIB), next].concat();
    let writing = tokio::spawn(async move {
        writer.write_all(&all).await.unwrap();
        writer
    });
    let mut said = Vec::new();
    timeout(PATIENCE, reader.read_to_end(&mut said)).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 2, "{said}");
    assert!(said.contains(&format!("\r\n\r\n{MIB}HTTP/1.1 200 OK")), "{said}");
    assert_eq!(upstream.requests(), 2);
    assert!(spliced(&world) > 0);
    writing.await.unwrap();
}
