//! What a client's connection holds while nobody asks anything, as the allocator counts it: exact,
//! and the same on every machine. One test, since all of a process are counted together.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

#[path = "it/support.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod support;

use std::{io::Write as _, time::Duration};

use fairlead_ingress::{IngressConfig, Timeouts};
use fairlead_state::Key;
use peak_alloc::PeakAlloc;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::support::{
    PATIENCE, World,
    client::{read_until, tls, trusting_anybody},
    config,
    frames::{self, Field, Outcome},
    objects::{IngressExt, backend, config_map, ingress},
    upstream::Upstream,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const CONNECTIONS: usize = 200;
/// The socket in the runtime, the task, who the client is, its deadlines. On 64 bits, as the next.
const PLAIN_BYTES_MAX: usize = 1_500;
/// Besides, rustls: 4 KiB to read into, keys, secrets, the state of both directions.
const TLS_BYTES_MAX: usize = 8_500;
/// Besides the plain connection's: fields that have numbers, windows, what is left of streams.
const HTTP2_BYTES_MAX: usize = 5_000;
/// Of a TCP service: both its sockets in the runtime, their task, and the endpoint of this test.
const STREAM_BYTES_MAX: usize = 4_000;
/// Enough for it to be taken for bulk.
const MUCH_BYTES: usize = 64 << 10;
/// What is allocated once is no connection's.
const WARM_UP: usize = 10;
/// The allocator tells nobody that something was freed.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n";
/// Answered before its body is looked at.
const UNWANTED: &[u8] = b"HEAD / HTTP/1.1\r\nHost: nobody.example\r\nContent-Length: 3\r\n\r\nabc";

/// What a client speaks.
#[derive(Clone, Copy, Debug)]
enum Speaks {
    Http1,
    Tls,
    /// Without encryption, which would be TLS's memory once more.
    Http2,
}

/// How a client comes to be idle.
#[derive(Clone, Copy, Debug)]
enum Idle {
    /// It connected, or shook hands, and that is all.
    Silent,
    /// It was answered once.
    Asked,
    /// It was answered once more, before that with a body that nobody wanted.
    AskedInVain,
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    say(stream, HEAD, "HTTP/1.1 200 ").await;
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8], answer: &str) {
    stream.write_all(bytes).await.unwrap();
    let head = read_until(stream, "\r\n\r\n").await;
    assert!(head.starts_with(answer), "{head}");
}

async fn become_idle<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, idle: Idle) {
    if let Idle::AskedInVain = idle {
        say(stream, UNWANTED, "HTTP/1.1 404 ").await;
    }
    if let Idle::Asked | Idle::AskedInVain = idle {
        ask(stream).await;
    }
}

/// The other side is this process, too: only its socket is kept.
async fn open(world: &World, speaks: Speaks, idle: Idle) -> std::net::TcpStream {
    if let Speaks::Http2 = speaks {
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        let fields: [Field<'_>; 4] = [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":authority", b"a.example"),
            (b":path", b"/"),
        ];
        if let Idle::Asked = idle {
            let asked = frames::ask(&mut stream, &fields, 1);
            assert_eq!(timeout(PATIENCE, asked).await.unwrap(), [Outcome::Status(200)]);
        }
        return stream.into_std().unwrap();
    }
    if let Speaks::Http1 = speaks {
        let mut stream = TcpStream::connect(world.http()).await.unwrap();
        become_idle(&mut stream, idle).await;
        return stream.into_std().unwrap();
    }
    let mut stream = tls(world.https(), "a.example", trusting_anybody()).await.unwrap();
    become_idle(&mut stream, idle).await;
    stream.into_inner().0.into_std().unwrap()
}

/// A port that is free now.
async fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn open_many(
    world: &World,
    count: usize,
    speaks: Speaks,
    idle: Idle,
) -> Vec<std::net::TcpStream> {
    let before = world.running.counters().connections;
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(open(world, speaks, idle).await);
    }
    world.eventually(|counters| counters.connections >= before + count as u64).await;
    streams
}

async fn close_all(world: &World, streams: Vec<std::net::TcpStream>) {
    let left = world.running.counters().connections_open - streams.len() as u64;
    drop(streams);
    world.eventually(|counters| counters.connections_open == left).await;
}

/// Takes all it is told and has no room for it; counts whoever has told much.
async fn taking() -> Upstream {
    Upstream::raw(|mut stream, counts| async move {
        let (mut bytes, mut taken) = ([0; 256], 0);
        while let Ok(n @ 1..) = stream.read(&mut bytes).await {
            taken += n;
            if taken == MUCH_BYTES {
                counts.request();
            }
        }
    })
    .await
}

/// Connections of a TCP service: silent from the beginning, and after much.
async fn each_stream_holds_little(port: u16, upstream: &Upstream) {
    let before = ALLOCATOR.current_usage();
    let each = || ALLOCATOR.current_usage().saturating_sub(before) / CONNECTIONS;
    let settled = async |told: usize| {
        let settling = async {
            while (upstream.connections(), upstream.requests()) != (CONNECTIONS, told)
                || each() > STREAM_BYTES_MAX
            {
                sleep(LOOK_AGAIN).await;
            }
        };
        let is_settled = timeout(PATIENCE, settling).await.is_ok();
        assert!(is_settled, "{told} told much: {} bytes a connection", each());
    };
    let mut streams = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        streams.push(stream.into_std().unwrap());
    }
    settled(0).await;
    let much = vec![7; MUCH_BYTES];
    for stream in &mut streams {
        stream.set_nonblocking(false).unwrap();
        stream.write_all(&much).unwrap();
    }
    drop(much);
    settled(CONNECTIONS).await;
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffers_and_answers_when_it_is_asked_again() {
    let cases = [
        (Speaks::Http1, Idle::Silent, PLAIN_BYTES_MAX),
        (Speaks::Http1, Idle::Asked, PLAIN_BYTES_MAX),
        (Speaks::Http1, Idle::AskedInVain, PLAIN_BYTES_MAX),
        (Speaks::Tls, Idle::Silent, TLS_BYTES_MAX),
        (Speaks::Tls, Idle::Asked, TLS_BYTES_MAX),
        (Speaks::Tls, Idle::AskedInVain, TLS_BYTES_MAX),
        (Speaks::Http2, Idle::Asked, HTTP2_BYTES_MAX),
    ];
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    let (taking, port) = (taking().await, port().await);
    objects.extend(backend("taking", &[taking.address]));
    objects.push(config_map("tcp", &[(&port.to_string(), "default/taking:80")]));
    // Ticks are eighths of the shortest.
    let timeouts = Timeouts { upstream_send_ms: 200, ..Timeouts::default() };
    let tcp_services = Some(Key::new("default", "tcp"));
    let config = IngressConfig { timeouts, threads: Some(1), tcp_services, ..config() };
    let world = World::with(config, objects).await;
    let mut plain = TcpStream::connect(world.http()).await.unwrap();
    let mut encrypted = tls(world.https(), "a.example", trusting_anybody()).await.unwrap();
    for (speaks, idle, bytes_max) in cases {
        // As many as are counted: tables keep the size they once had.
        let warm = open_many(&world, CONNECTIONS + WARM_UP, speaks, idle).await;
        close_all(&world, warm).await;
        ask(&mut plain).await;
        ask(&mut encrypted).await;
        let before = ALLOCATOR.current_usage();
        let streams = open_many(&world, CONNECTIONS, speaks, idle).await;
        let each = || ALLOCATOR.current_usage().saturating_sub(before) / CONNECTIONS;
        let settling = async {
            while each() > bytes_max {
                sleep(LOOK_AGAIN).await;
            }
        };
        let is_settled = timeout(PATIENCE, settling).await.is_ok();
        assert!(is_settled, "{speaks:?}, {idle:?}: {} bytes a connection", each());
        close_all(&world, streams).await;
    }
    each_stream_holds_little(port, &taking).await;
    // These have been at rest meanwhile.
    ask(&mut plain).await;
    ask(&mut encrypted).await;
}
