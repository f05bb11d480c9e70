//! WebSockets: a tunnel after both sides agreed, and not before.

use std::{sync::Arc, time::Duration};

use fairlead_ingress::{IngressConfig, Timeouts};
use fairlead_state::Object;
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    annotations::site,
    support::{
        PATIENCE, World,
        client::{Answer, read_to_close, read_until, tls, trusting_anybody},
        config, frames,
        objects::{IngressExt, backend, ingress},
        upstream::{Counts, Upstream},
    },
};

pub(crate) const ASK: &[u8] =
    b"GET /chat HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                     Sec-WebSocket-Version: 13\r\n\r\n";

/// Agrees, says hello in the same breath, then sends back what it gets.
pub(crate) async fn echoing() -> Upstream {
    Upstream::raw(|mut stream, counts: Arc<Counts>| async move {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
        assert!(head.contains("upgrade: websocket\r\n"), "{head}");
        assert!(head.contains("connection: Upgrade\r\n"), "{head}");
        assert!(head.contains("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "{head}");
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\
                       Connection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello";
        stream.write_all(agreed).await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
    })
    .await
}

fn web(upstream: &Upstream) -> Vec<Object> {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    objects
}

#[tokio::test]
async fn bytes_pass_both_ways_after_the_upstream_agreed() {
    let upstream = echoing().await;
    let world = World::new(web(&upstream)).await;
    let plain = TcpStream::connect(world.http()).await.unwrap();
    talk(plain).await;
    let encrypted = tls(world.https(), "a.example", trusting_anybody()).await.unwrap();
    talk(encrypted).await;
    assert_eq!(world.running.counters().tunnels, 2);
    assert_eq!(world.running.counters().responses[&101], 2);
}

/// Some clients say that their handshake has no body: it was served as any other request, without an upgrade.
#[tokio::test]
async fn bug_a_handshake_that_says_it_has_no_body_is_upgraded() {
    let upstream = echoing().await;
    let world = World::new(web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let asks = String::from_utf8_lossy(ASK).replace("Upgrade: ", "Content-Length: 0\r\nUpgrade: ");
    stream.write_all(asks.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\nhello").await;
    stream.write_all(b"ping").await.unwrap();
    read_until(&mut stream, "ping").await;
    assert_eq!(world.running.counters().tunnels, 1);
}

async fn talk<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: S) {
    stream.write_all(ASK).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for field in
        ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-accept: x\r\n"]
    {
        assert!(head.contains(field), "{field} in {head}");
    }
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    for size in [1, 100, 100_000] {
        let sent = vec![b'x'; size];
        let mut received = vec![0; size];
        let (mut reading, mut writing) = tokio::io::split(&mut stream);
        let (written, read) =
            tokio::join!(writing.write_all(&sent), reading.read_exact(&mut received));
        written.unwrap();
        read.unwrap();
        assert!(sent == received);
    }
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_close(&mut stream).await, "");
}

/// CVE-2026-2833: bytes that follow the request before the 101 are not yet the tunnel's.
#[tokio::test]
async fn cve_2026_2833_a_request_behind_a_refused_upgrade_is_a_request_of_its_own() {
    let upstream = Upstream::echo("web").await;
    let world = World::new(web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    let next = b"GET /next HTTP/1.1\r\nHost: unknown.example\r\nConnection: close\r\n\r\n";
    stream.write_all(next).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.contains("GET /chat\n") && answer.contains("HTTP/1.1 404"), "{answer}");
    assert_eq!((upstream.requests(), world.running.counters().tunnels), (1, 0));
}

#[tokio::test]
async fn a_websocket_lives_until_the_drain_time_is_over() {
    let upstream = echoing().await;
    let timeouts =
        Timeouts { drain_accept_ms: 20, drain_linger_ms: 20, drain_ms: 600, ..Timeouts::default() };
    let config = IngressConfig { timeouts, ..config() };
    let mut world = World::with(config, web(&upstream)).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    read_until(&mut stream, "\r\n\r\nhello").await;
    let begun = tokio::time::Instant::now();
    world.cancel.cancel();
    let mut echo = [0; 4];
    // Well past the time idle connections are given.
    while begun.elapsed() < Duration::from_millis(300) {
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut echo).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::timeout(PATIENCE, world.running.ended()).await.unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(600));
    assert_eq!(read_to_close(&mut stream).await, "");
}

#[tokio::test]
async fn bug_a_silent_websocket_lives_as_long_as_the_endpoints_timeout_says() {
    let upstream = echoing().await;
    // Everybody else's; what an Ingress says is in whole seconds.
    let timeouts = Timeouts { upstream_read_ms: 400, ..Timeouts::default() };
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    objects.push(site("b", &[("proxy-read-timeout", "3600")]).object());
    let world = World::with(IngressConfig { timeouts, ..config() }, objects).await;
    let mut patient = TcpStream::connect(world.http()).await.unwrap();
    let asks = String::from_utf8_lossy(ASK).replace("a.example", "b.example");
    patient.write_all(asks.as_bytes()).await.unwrap();
    read_until(&mut patient, "\r\n\r\nhello").await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    let all = read_to_close(&mut stream).await;
    assert!(all.ends_with("hello"), "{all}");
    // The other one was silent for longer.
    patient.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    patient.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
}

/// Agrees as RFC 6455 wants it, or as given; then sends back what it gets.
async fn agreeing(accept: Option<&'static str>) -> Upstream {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    use base64::{Engine, engine::general_purpose::STANDARD};

    Upstream::raw(move |mut stream, counts: Arc<Counts>| async move {
        let head = read_until(&mut stream, "\r\n\r\n").await;
        counts.request();
        if head.starts_with("GET /plain ") {
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            return stream.write_all(answer.as_bytes()).await.unwrap();
        }
        if head.starts_with("GET /missing ") {
            let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            return stream.write_all(answer.as_bytes()).await.unwrap();
        }
        assert!(head.starts_with("GET /chat?x HTTP/1.1\r\n"), "{head}");
        for field in ["host: a.example", "sec-websocket-version: 13", "upgrade: websocket"] {
            assert!(head.contains(&format!("{field}\r\n")), "{field} in {head}");
        }
        let field = |line: &str| Some(line.strip_prefix("sec-websocket-key: ")?.to_owned());
        let key = head.lines().find_map(field).unwrap();
        let key = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        let proper = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes()));
        let agreed = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: {}\r\n\r\nhello",
            accept.unwrap_or(&proper)
        );
        stream.write_all(agreed.as_bytes()).await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
    })
    .await
}

fn connect(path: &str) -> http::Request<Full<Bytes>> {
    http::Request::connect(format!("https://a.example{path}"))
        .version(http::Version::HTTP_2)
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Full::default())
        .unwrap()
}

async fn h2(world: &World) -> crate::support::client::Sender2 {
    let mut config = trusting_anybody();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut sender =
        crate::support::client::http2(tls(world.https(), "a.example", config).await.unwrap()).await;
    // The server's settings, which allow extended CONNECT, have come with the answer.
    assert_eq!(crate::support::client::get2(&mut sender, "none.example", "/").await.status, 404);
    sender
}

/// RFC 8441: to the upstream it is a handshake of HTTP/1.
#[tokio::test]
async fn over_http2_bytes_pass_both_ways_in_several_streams_of_one_connection() {
    let upstream = agreeing(None).await;
    let timeouts = Timeouts { keep_alive_idle_ms: 100, ..Timeouts::default() };
    let world = World::with(IngressConfig { timeouts, ..config() }, web(&upstream)).await;
    let mut sender = h2(&world).await;
    let mut tunnels = Vec::new();
    for _ in 0..3 {
        let response = sender.send_request(connect("/chat?x")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        for gone in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!response.headers().contains_key(gone), "{gone}");
        }
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        tunnels.push(hyper_util::rt::TokioIo::new(upgraded));
    }
    // An HTTP/2 connection with a tunnel in it is not idle.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for tunnel in &mut tunnels {
        let mut hello = [0; 5];
        tunnel.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        for size in [1, 100_000] {
            let (sent, mut received) = (vec![b'x'; size], vec![0; size]);
            let (mut reading, mut writing) = tokio::io::split(&mut *tunnel);
            let (written, read) =
                tokio::join!(writing.write_all(&sent), reading.read_exact(&mut received));
            written.unwrap();
            read.unwrap();
            assert!(sent == received);
        }
    }
    drop(tunnels);
    drop(sender);
    world.eventually(|counters| counters.connections_open == 0).await;
    assert_eq!(world.running.counters().tunnels, 3);
}

/// As over HTTP/1 (and by nginx): what is in a tunnel is no answer's body.
#[tokio::test]
async fn over_http2_no_rate_of_bodies_slows_a_tunnel_down() {
    const BYTES: usize = 100_000;
    let upstream = agreeing(None).await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[("limit-rate", "1")]).object());
    let world = World::new(objects).await;
    let mut sender = h2(&world).await;
    let response = sender.send_request(connect("/chat?x")).await.unwrap();
    let upgraded = hyper::upgrade::on(response).await.unwrap();
    let mut tunnel = hyper_util::rt::TokioIo::new(upgraded);
    let talking = async {
        tunnel.read_exact(&mut [0; 5]).await.unwrap();
        let (sent, mut received) = (vec![b'x'; BYTES], vec![0; BYTES]);
        let (mut reading, mut writing) = tokio::io::split(&mut tunnel);
        let (written, read) =
            tokio::join!(writing.write_all(&sent), reading.read_exact(&mut received));
        written.unwrap();
        read.unwrap();
        assert!(sent == received);
    };
    // By its rate it would take a minute and a half.
    tokio::time::timeout(PATIENCE, talking).await.unwrap();
}

#[tokio::test]
async fn over_http2_only_a_proper_101_is_a_yes() {
    for (name, accept, path, expected) in [
        ("another key's answer", Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "/chat?x", 502),
        ("an answer that is no handshake", None, "/plain", 502),
    ] {
        let upstream = agreeing(accept).await;
        let world = World::new(web(&upstream)).await;
        let response = h2(&world).await.send_request(connect(path)).await.unwrap();
        assert_eq!(response.status(), expected, "{name}");
        assert_eq!(world.running.counters().tunnels, 0, "{name}");
    }
}

/// Whoever is asked judges what the endpoint is sent.
#[tokio::test]
async fn over_http2_whoever_is_asked_sees_the_get_of_http1() {
    let asked = Upstream::serve(|request| async move {
        let is_get = request.headers().get("x-original-method").is_some_and(|name| name == "GET");
        let status = if is_get { 200_u16 } else { 403 };
        http::Response::builder().status(status).body(Full::<Bytes>::default()).unwrap()
    })
    .await;
    let upstream = agreeing(None).await;
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/", asked.address);
    objects.push(site("a", &[("auth-url", &url)]).object());
    let world = World::new(objects).await;
    let mut sender = h2(&world).await;
    assert_eq!(sender.send_request(connect("/chat?x")).await.unwrap().status(), 200);
    assert_eq!(asked.requests(), 1);
}

/// An error's page with 200 would be a yes.
#[tokio::test]
async fn over_http2_no_page_of_an_error_opens_a_tunnel() {
    let (upstream, pages) = (agreeing(None).await, Upstream::echo("pages").await);
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(backend("pages", &[pages.address]));
    let annotations = [("default-backend", "pages"), ("custom-http-errors", "404")];
    objects.push(site("a", &annotations).object());
    let world = World::new(objects).await;
    let mut sender = h2(&world).await;
    let response = sender.send_request(connect("/missing")).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, Answer::read(response)).await.unwrap();
    assert_eq!(answer.who(), (502, "pages"));
    assert_eq!(answer.body.lines().nth(1), Some("GET /"));
    assert_eq!(world.running.counters().tunnels, 0);
}

/// A tunnel that ended with its connection had that wait for another request, as long as one may take to come.
#[tokio::test]
async fn bug_over_http2_a_connection_that_ends_by_a_mistake_does_not_linger_for_its_tunnels() {
    let upstream = agreeing(None).await;
    let timeouts = Timeouts { keep_alive_idle_ms: 10 * 60 * 1000, ..Timeouts::default() };
    let world = World::with(IngressConfig { timeouts, ..config() }, web(&upstream)).await;
    let mut stream = tokio::net::TcpStream::connect(world.http()).await.unwrap();
    let block = frames::block(&[
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"http"),
        (b":authority", b"a.example"),
        (b":path", b"/chat?x"),
        (b"sec-websocket-version", b"13"),
    ]);
    let connect = frames::frame(frames::HEADERS, frames::END_HEADERS, 1, &block);
    stream.write_all(&[frames::begin(), connect].concat()).await.unwrap();
    assert_eq!(frames::outcome(&mut stream).await, frames::Outcome::Status(200));
    world.eventually(|counters| counters.tunnels == 1).await;
    // RFC 9113 6.5: of a stream there are none.
    stream.write_all(&frames::frame(frames::SETTINGS, 0, 1, &[])).await.unwrap();
    world.eventually(|counters| counters.connections_open == 0).await;
}
