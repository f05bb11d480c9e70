//! Copies that have a body.

use std::convert::Infallible;

use fairlead_ingress::{IngressConfig, Uncopied};
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{Mirror, mirrored};
use crate::support::{
    PATIENCE, World,
    client::{Answer, connect, read_to_close, read_until, send},
    config,
    objects::backend,
    upstream::{Upstream, dead},
};

const MIB: usize = 1 << 20;
/// What is read of a request where proxy-request-buffering is on and nothing else is said.
const READ: usize = MIB + (8 << 10);
const PIECE_BYTES: usize = 7_001;

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// HTTP/1, Content-Length.
    Length,
    /// The same, once the client is told to go on.
    Continue,
    /// HTTP/1, with a trailer behind it.
    Chunks,
    /// HTTP/2, content-length.
    Length2,
    /// HTTP/2, as long as it is.
    Stream2,
}

/// Whatever is lost, doubled or displaced of it is seen.
pub(super) fn text(bytes: usize) -> String {
    let letters =
        (0..bytes).map(|at| char::from(b'a' + u8::try_from((at / 3 + at % 7) % 26).unwrap()));
    letters.collect()
}

async fn post(world: &World, host: &str, how: How, body: &str) -> Answer {
    let body = Bytes::copy_from_slice(body.as_bytes());
    match how {
        How::Length2 => post2(world, host, &[], Full::new(body)).await,
        How::Stream2 => {
            let pieces: Vec<_> = body.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect();
            let pieces = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
            post2(world, host, &[], StreamBody::new(stream::iter(pieces))).await
        }
        How::Length | How::Continue | How::Chunks => post1(world, host, how, &body).await,
    }
}

async fn post1(world: &World, host: &str, how: How, body: &[u8]) -> Answer {
    let mut sent = Vec::new();
    let fields = match how {
        How::Chunks => {
            for piece in body.chunks(PIECE_BYTES) {
                sent.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                sent.extend_from_slice(piece);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
            "Transfer-Encoding: chunked\r\nTrailer: X-Sum".to_owned()
        }
        how => {
            sent.extend_from_slice(body);
            let expects = if how == How::Continue { "Expect: 100-continue\r\n" } else { "" };
            format!("{expects}Content-Length: {}", body.len())
        }
    };
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: {host}\r\nConnection: close, te\r\nTE: trailers\r\n{fields}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    if how == How::Continue {
        assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    }
    stream.write_all(&sent).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let headers = http::HeaderMap::new();
    Answer { status: status.unwrap_or(0), headers, body: body.to_owned() }
}

async fn post2<B>(world: &World, host: &str, fields: &[(&str, &str)], body: B) -> Answer
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let io = TokioIo::new(TcpStream::connect(world.http()).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{host}/x"));
    let request =
        fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.body(body).unwrap();
    let answer = async { Answer::read(sender.send_request(request).await.unwrap()).await };
    timeout(PATIENCE, answer).await.expect("no answer in time")
}

/// Says how much it was sent, if that is as it was: answers are short.
async fn weighing() -> Upstream {
    Upstream::serve(|request| async move {
        let sent = request.into_body().collect().await.unwrap().to_bytes();
        let is_whole = sent == text(sent.len()).as_bytes();
        Response::new(Full::<Bytes>::from(if is_whole {
            sent.len().to_string()
        } else {
            "?".into()
        }))
    })
    .await
}

async fn world(mirror: &Mirror, endpoints: &[std::net::SocketAddr]) -> World {
    let mut objects = backend("web", endpoints);
    let url = mirror.url();
    objects.extend([
        mirrored("a", &url, &[]),
        mirrored("read", &url, &[("proxy-request-buffering", "on")]),
        mirrored("off", &url, &[("mirror-request-body", "off")]),
    ]);
    World::with(IngressConfig { threads: Some(1), ..config() }, objects).await
}

#[tokio::test]
async fn a_body_is_copied_whole_however_it_comes_and_goes_on_as_it_comes() {
    let upstream = weighing().await;
    let mut mirror = Mirror::new(true).await;
    let world = world(&mirror, &[upstream.address]).await;
    for host in ["a.example", "read.example"] {
        for (how, bytes) in [
            (How::Length, 1),
            // Long enough to go on within the kernel, if nobody wanted to see it.
            (How::Length, 600_000),
            (How::Length, MIB),
            (How::Continue, 5),
            (How::Continue, 200_000),
            (How::Chunks, 0),
            (How::Chunks, 5),
            (How::Chunks, MIB),
            (How::Length2, 5),
            (How::Length2, MIB),
            (How::Stream2, 5),
            (How::Stream2, MIB),
        ] {
            let sent = text(bytes);
            let answer = post(&world, host, how, &sent).await;
            let what = format!("{host}, {how:?}, {bytes}");
            assert_eq!(answer.who(), (200, &*bytes.to_string()), "{what}");
            let copy = mirror.next().await;
            assert_eq!(copy.asks, "POST /x", "{what}");
            assert!(copy.body.is_some_and(|body| body == sent.as_bytes()), "{what}");
            let length = copy.headers["content-length"].to_str().unwrap();
            assert_eq!(length, bytes.to_string(), "{what}");
            for name in ["transfer-encoding", "te", "trailer", "expect", "connection"] {
                assert!(!copy.headers.contains_key(name), "{what}: {name}");
            }
        }
    }
    let counters = world.running.counters();
    assert_eq!(counters.spliced_bytes, 0, "what is copied is seen");
    assert_eq!(counters.uncopied.values().sum::<u64>(), 0);
    mirror.nothing_but(&world, "a.example").await;
}

/// HTTP/2 says in a frame of its own that there is no more; an endpoint goes by the length.
#[tokio::test]
async fn bug_a_body_whose_end_is_told_late_is_copied_once_its_length_is_there() {
    let upstream = weighing().await;
    let mut mirror = Mirror::new(true).await;
    let world = world(&mirror, &[upstream.address]).await;
    for bytes in [5, 200_000] {
        let sent = text(bytes);
        let data = Bytes::copy_from_slice(sent.as_bytes());
        let pieces: Vec<_> = data.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect();
        let pieces = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let body = StreamBody::new(stream::iter(pieces).chain(stream::pending()));
        let length = bytes.to_string();
        let answer = post2(&world, "a.example", &[("content-length", &length)], body).await;
        assert_eq!(answer.who(), (200, &*length));
        let copy = mirror.next().await;
        assert_eq!(copy.field("content-length"), Some(&*length));
        assert!(copy.body.is_some_and(|body| body == sent.as_bytes()), "{bytes}");
    }
    assert_eq!(world.running.counters().uncopied[&Uncopied::CutOff], 0);
    mirror.nothing_but(&world, "a.example").await;
}

#[tokio::test]
async fn a_larger_body_goes_on_alone_and_a_known_length_within_the_kernel() {
    let upstream = weighing().await;
    let mut mirror = Mirror::new(true).await;
    let world = world(&mirror, &[upstream.address]).await;
    for (host, how, bytes, is_spliced) in [
        ("a.example", How::Length, MIB + 1, true),
        ("a.example", How::Chunks, MIB + 1, false),
        ("a.example", How::Stream2, MIB + 1, false),
        ("a.example", How::Length2, 3 * MIB, false),
        ("read.example", How::Chunks, READ + 1, false),
        ("read.example", How::Length, READ + 1, true),
    ] {
        let before = world.running.counters();
        let answer = post(&world, host, how, &text(bytes)).await;
        let what = format!("{host}, {how:?}, {bytes}");
        assert_eq!(answer.who(), (200, &*bytes.to_string()), "{what}");
        let after = world.running.counters();
        let lost = |counters: &fairlead_ingress::Counters| counters.uncopied[&Uncopied::TooLarge];
        assert_eq!(lost(&after) - lost(&before), 1, "{what}");
        assert_eq!(after.spliced_bytes > before.spliced_bytes, is_spliced, "{what}");
    }
    // Without bodies there is none that is too large.
    let answer = post(&world, "off.example", How::Length, &text(3 * MIB)).await;
    assert_eq!(answer.status, 200);
    let copy = mirror.next().await;
    assert_eq!((copy.field("content-length"), copy.body.as_deref()), (None, Some(&b""[..])));
    mirror.nothing_but(&world, "a.example").await;
}

/// `read.example` may be sent again once its endpoint had all of it.
#[tokio::test]
async fn a_request_that_is_sent_again_is_copied_once() {
    const REQUESTS: usize = 6;
    let upstream = Upstream::echo("web").await;
    // Reads a whole request, and goes away.
    let leaving = Upstream::raw(|mut stream, counts| async move {
        read_until(&mut stream, "hello").await;
        counts.request();
    })
    .await;
    let mut mirror = Mirror::new(true).await;
    let world = world(&mirror, &[dead().await, leaving.address, upstream.address]).await;
    for _ in 0..REQUESTS {
        let request = Request::put("/x").header("host", "read.example").body(Full::from("hello"));
        let mut sender = connect(world.http()).await;
        let answer = send(&mut sender, request.unwrap()).await;
        assert_eq!(answer.who(), (200, "web"));
        assert_eq!(mirror.next().await.body.as_deref(), Some(&b"hello"[..]));
    }
    assert!(leaving.requests() > 0 && world.running.counters().upstream_retries > 0);
    assert_eq!(mirror.upstream.requests(), REQUESTS);
    mirror.nothing_but(&world, "a.example").await;
}

#[tokio::test]
async fn an_endpoint_has_a_body_as_it_comes_and_a_mirror_once_it_is_whole() {
    let upstream = Upstream::echo("web").await;
    let mut mirror = Mirror::new(true).await;
    let world = world(&mirror, &[upstream.address]).await;
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let head = "POST /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\
                Content-Length: 6\r\n\r\nhal";
    stream.write_all(head.as_bytes()).await.unwrap();
    // The endpoint has the beginning, the mirror hears of nothing.
    world.eventually(|_| upstream.requests() == 1).await;
    assert_eq!(mirror.upstream.connections(), 0);
    stream.write_all(b"ves").await.unwrap();
    assert!(read_to_close(&mut stream).await.ends_with("\n\nhalves"));
    assert_eq!(mirror.next().await.body.as_deref(), Some(&b"halves"[..]));
}
