//! Clients that read slowly, and are waited for as long as they read.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use fairlead_ingress::{IngressConfig, Timeouts};
use fairlead_state::Object;
use futures::future::{LocalBoxFuture, join_all};
use http::Response;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::{sleep, timeout},
};

use crate::support::{
    PATIENCE, World,
    client::{Stream, read_until, tls_on, trusting_anybody},
    config, frames,
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

/// More than the kernel keeps of an answer for a client that does not read.
pub(crate) const LONG_BYTES: usize = 6 << 20;
/// Of a client that reads slowly: two MiB a second. The kernel tells of room when a third of its
/// buffer is free, which takes him longer than he has for a write.
const SIP_BYTES: usize = 16 << 10;
const SIP_PAUSE: Duration = Duration::from_millis(8);
const WRITE_MS: u64 = 300;
/// Beside some sips he may be kept from this is what remains of that.
const STALL_MAX: Duration = Duration::from_millis(WRITE_MS / 3);
const ROOM_BYTES: u32 = 128 << 10;
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// Of every connection, before anybody says otherwise (RFC 9113 6.9.2).
const WINDOW: u32 = 65_535;
/// RFC 9113 6.5.2.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// What became of an answer that was not whole.
struct Broken {
    how: String,
    /// For how long its client was kept from reading, at most.
    stall: Duration,
}

type Sipping<'a> = LocalBoxFuture<'a, Result<(), Broken>>;

fn web(upstream: &Upstream) -> Vec<Object> {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    objects
}

async fn world(upstream: &Upstream, timeouts: Timeouts) -> World {
    World::with(IngressConfig { threads: Some(1), timeouts, ..config() }, web(upstream)).await
}

/// Answers with so many bytes as the path says, in pieces if it has a query.
pub(crate) async fn saying() -> Upstream {
    Upstream::serve(|request| async move {
        let path = request.uri().path().trim_start_matches('/');
        let bytes = path.parse().unwrap_or_default();
        let body = Bytes::from(vec![b'x'; bytes]);
        match request.uri().query() {
            None => Response::new(Full::new(body).boxed()),
            Some(_) => {
                let pieces = (0..bytes).step_by(1_000).map(move |start| {
                    let piece = body.slice(start..body.len().min(start + 1_000));
                    Ok::<_, Infallible>(Frame::data(piece))
                });
                Response::new(StreamBody::new(futures::stream::iter(pieces)).boxed())
            }
        }
    })
    .await
}

/// With little room for what it does not read. `None`: without TLS.
pub(crate) async fn thirsty(world: &World, alpn: Option<&str>) -> Box<dyn Stream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(ROOM_BYTES).unwrap();
    let address = if alpn.is_some() { world.https() } else { world.http() };
    let stream = socket.connect(address).await.unwrap();
    let Some(alpn) = alpn else { return Box::new(stream) };
    let mut config = trusting_anybody();
    config.alpn_protocols = vec![alpn.into()];
    Box::new(tls_on(stream, "a.example", config).await.unwrap())
}

/// Reads until `take` has enough or nothing more comes. Returns for how long it was kept from that, at most.
async fn sip(
    stream: &mut Box<dyn Stream>,
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<Duration, Broken> {
    let mut sip = vec![0; SIP_BYTES];
    let (mut stall, mut last) = (Duration::ZERO, Instant::now());
    loop {
        stall = stall.max(last.elapsed());
        let read = timeout(PATIENCE, stream.read(&mut sip)).await.unwrap();
        last = Instant::now();
        let read = read.map_err(|error| Broken { how: error.to_string(), stall })?;
        if read == 0 || take(&sip[..read]) {
            return Ok(stall);
        }
        sleep(SIP_PAUSE).await;
    }
}

/// A long answer to a client that sips it.
async fn sipped(world: &World, tls: bool, query: &str, connection: &str) -> Result<(), Broken> {
    let mut stream = thirsty(world, tls.then_some("http/1.1")).await;
    let get = format!(
        "GET /{LONG_BYTES}{query} HTTP/1.1\r\nHost: a.example\r\nConnection: {connection}\r\n\r\n"
    );
    stream.write_all(get.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let mut body = Vec::new();
    let stall = sip(&mut stream, |bytes| {
        body.extend_from_slice(bytes);
        connection != "close" && body.len() >= LONG_BYTES
    });
    let stall = stall.await?;
    let is_whole = match query {
        "" => body.len() == LONG_BYTES,
        _ => body.ends_with(b"\r\n0\r\n\r\n"),
    };
    is_whole.then_some(()).ok_or_else(|| Broken { how: format!("{} bytes", body.len()), stall })
}

/// The same by HTTP/2, whose windows have room for all of it.
async fn sipped2(world: &World, tls: bool) -> Result<(), Broken> {
    let mut stream = thirsty(world, tls.then_some("h2")).await;
    let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &WINDOW_MAX.to_be_bytes()].concat();
    let path = format!("/{LONG_BYTES}");
    let fields: [frames::Field<'_>; 4] = [
        (b":method", b"GET"),
        (b":scheme", if tls { b"https" } else { b"http" }),
        (b":authority", b"a.example"),
        (b":path", path.as_bytes()),
    ];
    let flags = frames::END_HEADERS | frames::END_STREAM;
    let said = [
        frames::begin(),
        frames::frame(frames::SETTINGS, 0, 0, &setting),
        frames::frame(frames::WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - WINDOW).to_be_bytes()),
        frames::frame(frames::HEADERS, flags, 1, &frames::block(&fields)),
    ];
    stream.write_all(&said.concat()).await.unwrap();
    let mut came = frames::Came::default();
    let stall = sip(&mut stream, |bytes| {
        came.take(bytes);
        came.is_over
    });
    let stall = stall.await?;
    let is_whole = came.is_over && came.data_bytes == LONG_BYTES;
    is_whole.then_some(()).ok_or_else(|| Broken { how: format!("{came:?}"), stall })
}

/// Each gets all of it. One that a busy machine keeps from reading for as long as it may be silent is no slow one:
/// what becomes of it proves nothing, and all are asked again.
async fn all_are_whole<'a>(world: &'a World, all: impl Fn() -> Vec<Sipping<'a>>) {
    const ATTEMPTS: usize = 10;
    let mut told = Vec::new();
    for _ in 0..ATTEMPTS {
        let outcomes = join_all(all()).await.into_iter().enumerate();
        let broken = outcomes.filter_map(|(place, outcome)| Some((place, outcome.err()?)));
        let broken: Vec<(usize, Broken)> = broken.collect();
        if broken.is_empty() {
            let responses = world.running.counters().responses;
            assert!(responses.keys().eq([&200]), "{responses:?}");
            return;
        }
        for (place, Broken { how, stall }) in broken {
            let text = format!("{place}: {how}, kept from reading for {stall:?}");
            assert!(stall >= STALL_MAX, "{text}");
            told.push(text);
        }
    }
    assert!(told.is_empty(), "the machine never let a client read for long enough: {told:?}");
}

/// Also when all of the answer is with us, or with the kernel.
#[tokio::test]
async fn bug_who_reads_slowly_gets_every_byte_also_of_a_connections_last_answer() {
    let upstream = saying().await;
    let timeouts =
        Timeouts { client_send_ms: WRITE_MS, keep_alive_idle_ms: WRITE_MS, ..Timeouts::default() };
    let world = &world(&upstream, timeouts).await;
    let all = || -> Vec<Sipping<'_>> {
        vec![
            Box::pin(sipped(world, false, "", "close")),
            Box::pin(sipped(world, false, "", "keep-alive")),
            Box::pin(sipped(world, false, "?chunks", "close")),
            Box::pin(sipped(world, true, "", "close")),
            Box::pin(sipped(world, true, "", "keep-alive")),
        ]
    };
    all_are_whole(world, all).await;
}

/// The kernel said nothing of room for as long as a write may take, and the connection ended with all its streams.
#[tokio::test]
async fn bug_over_http2_who_takes_a_little_is_not_taken_for_one_that_takes_nothing() {
    let upstream = saying().await;
    let timeouts = Timeouts { client_send_ms: WRITE_MS, ..Timeouts::default() };
    let world = &world(&upstream, timeouts).await;
    let all = || -> Vec<Sipping<'_>> {
        vec![Box::pin(sipped2(world, false)), Box::pin(sipped2(world, true))]
    };
    all_are_whole(world, all).await;
}
