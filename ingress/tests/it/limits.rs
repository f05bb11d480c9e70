//! How large a request's body may be.

use fairlead_ingress::{IngressConfig, Limits};
use fairlead_state::Object;
use http::{Method, Request, Version};
use http_body_util::{Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    World,
    client::{connect, get, read_to_close, request, send},
    config,
    frames::{END_HEADERS, Field, HEADERS, Outcome, answered, block, frame},
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

const SIZE: &str = "nginx.ingress.kubernetes.io/proxy-body-size";
const MAX: usize = 1000;

async fn world(upstream: &Upstream) -> World {
    let mut objects: Vec<Object> = backend("web", &[upstream.address]);
    objects.extend([
        ingress("default").host("default.example", "web").object(),
        ingress("more").host("more.example", "web").annotation(SIZE, "2k").object(),
        ingress("any").host("any.example", "web").annotation(SIZE, "0").object(),
        ingress("bad").host("bad.example", "web").annotation(SIZE, "2x").object(),
    ]);
    let limits = Limits { body_bytes_max: MAX as u64, ..Limits::default() };
    World::with(IngressConfig { limits, threads: Some(1), ..config() }, objects).await
}

#[tokio::test]
async fn a_body_is_limited_to_the_byte_however_its_length_is_told() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    for (host, size, expected) in [
        ("default.example", MAX, 200),
        ("default.example", MAX + 1, 413),
        ("more.example", 2048, 200),
        ("more.example", 2049, 413),
        ("any.example", 300_000, 200),
        ("bad.example", MAX + 1, 413),
    ] {
        let body = vec![b'x'; size];
        let reached = upstream.requests();
        let mut post = request(host, "/");
        *post.method_mut() = Method::POST;
        *post.body_mut() = Full::from(body.clone());
        let answer = send(&mut connect(world.http()).await, post).await;
        assert_eq!(answer.status, expected, "{host}, {size} announced");
        assert_eq!(upstream.requests() - reached, usize::from(expected == 200), "{host}, {size}");

        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n"
        );
        stream.write_all(&[head.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()).await.unwrap();
        let answer = read_to_close(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{host}, {size} in chunks");

        let status = by_http2(&world, host, body).await;
        assert_eq!(status, expected, "{host}, {size} by HTTP/2");
    }
    let reason = "refused: annotation nginx.ingress.kubernetes.io/proxy-body-size \"2x\" is no \
                  size; give bytes, or a number with k, m or g";
    assert_eq!(world.reasons("bad"), [reason]);
    assert_eq!(get(world.http(), "default.example", "/").await.status, 200);
}

/// In two parts, without a length.
async fn by_http2(world: &World, host: &str, body: Vec<u8>) -> u16 {
    let stream = TcpStream::connect(world.http()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let body = Bytes::from(body);
    let (first, second) = (body.slice(..body.len() / 2), body.slice(body.len() / 2..));
    let frames = [first, second].map(|part| Ok::<_, std::convert::Infallible>(Frame::data(part)));
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{host}/"))
        .body(StreamBody::new(futures::stream::iter(frames)))
        .unwrap();
    sender.send_request(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_client_that_asks_first_is_spared_a_body_that_is_too_large() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: default.example\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        MAX + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    // Over HTTP/2 a body that may come is asked for.
    for (length, expected) in [(MAX + 1, 413), (MAX, 100)] {
        let length = length.to_string();
        let fields: [Field<'_>; 6] = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"default.example"),
            (b":path", b"/"),
            (b"content-length", length.as_bytes()),
            (b"expect", b"100-continue"),
        ];
        let head = frame(HEADERS, END_HEADERS, 1, &block(&fields));
        let first = answered(world.http(), &head).await;
        assert_eq!(first, Outcome::Status(expected), "{length}");
    }
    assert!(upstream.requests() <= 1, "{}", upstream.requests());
}
