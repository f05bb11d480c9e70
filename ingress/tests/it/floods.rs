//! Floods of HTTP/2, by name: the connection ends, hardly anything reaches an endpoint, and others
//! on the same thread are served.

use std::{iter, sync::Arc};

use crate::{
    annotations::site,
    support::{
        World,
        client::get,
        frames::{
            CONTINUATION, DATA, END_HEADERS, END_STREAM, Field, HEADERS,
            Outcome::{Refused, Status},
            PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, answered, block, frame, is_cut, length,
        },
        objects::{IngressExt, backend, ingress},
        upstream::{Counts, Upstream},
    },
};

const GET: [Field<'static>; 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/")];
/// More than any limit.
const FRAMES: usize = 20_000;
/// Frames in one write.
const BURST: usize = 200;
/// Streams that were on their way before anybody could notice.
const REQUESTS_MAX: usize = 200;
/// RFC 9113 7: CANCEL.
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// RFC 9113 6.9: the largest.
const INCREMENT_MAX: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];

async fn world(upstream: &Upstream) -> World {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    World::single(objects).await
}

/// Clients' streams, one after the other.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2).take(FRAMES)
}

/// In writes of many.
fn bursts(frames: impl Iterator<Item = Vec<u8>>) -> impl Iterator<Item = Vec<u8>> {
    let mut frames = frames.peekable();
    iter::from_fn(move || {
        frames.peek()?;
        Some(frames.by_ref().take(BURST).flatten().collect())
    })
}

fn get_frame(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET))
}

async fn others_are_served(world: &World, upstream: &Upstream, by_then: usize) {
    let reached = upstream.requests();
    assert!(reached <= by_then, "{reached} requests reached the endpoint");
    assert_eq!(get(world.http(), "a.example", "/").await.who(), (200, "web"));
    world.eventually(|counters| counters.connections_open <= 1).await;
}

#[tokio::test]
async fn attack_rapid_reset_cve_2023_44487_ends_the_connection() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let frames =
        streams().map(|stream| [get_frame(stream), frame(RST_STREAM, 0, stream, &CANCEL)].concat());
    assert!(is_cut(world.http(), bursts(frames)).await);
    others_are_served(&world, &upstream, REQUESTS_MAX).await;
}

#[tokio::test]
async fn attack_made_you_reset_cve_2025_8671_ends_the_connection() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    // A window beyond its size is an error of the stream, which we have to reset.
    let frames = streams().map(|stream| {
        [get_frame(stream), frame(WINDOW_UPDATE, 0, stream, &INCREMENT_MAX)].concat()
    });
    assert!(is_cut(world.http(), bursts(frames)).await);
    others_are_served(&world, &upstream, REQUESTS_MAX).await;
}

#[tokio::test]
async fn attack_continuation_flood_cve_2024_27316_ends_the_connection() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    for field in [&b"b"[..], &[b'b'; 8 << 10]] {
        let begin = frame(HEADERS, END_STREAM, 1, &block(&GET));
        let more = frame(CONTINUATION, 0, 1, &block(&[(&b"x-a"[..], field)]));
        let frames = iter::once(begin).chain(iter::repeat_n(more, FRAMES));
        assert!(is_cut(world.http(), frames).await, "{} bytes", field.len());
    }
    others_are_served(&world, &upstream, 0).await;
}

/// CVE-2019-9518 and its heirs.
#[tokio::test]
async fn attack_empty_data_flood_ends_the_connection() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let mut fields = GET;
    fields[0].1 = b"POST";
    let begin = frame(HEADERS, END_HEADERS, 1, &block(&fields));
    let frames = iter::once(begin).chain(iter::repeat_n(frame(DATA, 0, 1, &[]), FRAMES));
    assert!(is_cut(world.http(), bursts(frames)).await);
    others_are_served(&world, &upstream, 1).await;
}

/// Each costs ten bytes to send and must not cost more to keep: as by nginx and HAProxy the bytes alone
/// are kept, as many as the window lets in. Here they wait because nobody has said yet that the request
/// may go on.
#[tokio::test]
async fn attack_one_byte_data_flood_that_nobody_reads_is_kept_as_its_bytes() {
    let upstream = Upstream::echo("web").await;
    let silent = Upstream::raw(|stream, counts: Arc<Counts>| async move {
        counts.request();
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let url = format!("http://{}/", silent.address);
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("guarded", &[("auth-url", &url)]).object());
    objects.push(site("a", &[]).object());
    let world = World::single(objects).await;
    let mut guarded = GET;
    guarded[0].1 = b"POST";
    guarded[2].1 = b"guarded.example";
    let begin = frame(HEADERS, END_HEADERS, 1, &block(&guarded));
    let data = frame(DATA, 0, 1, b"x").repeat(FRAMES);
    let other = frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&GET));
    let outcome = answered(world.http(), &[begin, data, other].concat()).await;
    assert_eq!(outcome, Status(200), "another stream of the same connection");
    assert_eq!(silent.requests(), 1);
    others_are_served(&world, &upstream, 1).await;
}

/// A field of the table, named ten thousand times by a byte: 40 MB out of 14 KB.
#[tokio::test]
async fn attack_hpack_bomb_is_refused() {
    const TIMES: usize = 10_000;
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let mut fields = block(&GET);
    // RFC 7541 6.2.1: literal, with a place in the table, which is the first dynamic one (62).
    fields.push(0x40);
    for text in [&b"x-a"[..], &[b'b'; 4_000]] {
        length(&mut fields, text.len());
        fields.extend_from_slice(text);
    }
    fields.extend([0x80 | 62; TIMES]);
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields);
    let outcome = answered(world.http(), &head).await;
    assert!(matches!(outcome, Refused | Status(431)), "{outcome:?}");
    others_are_served(&world, &upstream, 0).await;
}

/// CVE-2019-9512, CVE-2019-9515: each is to be answered.
#[tokio::test]
async fn attack_ping_and_settings_floods_hold_up_nobody_else() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    for (name, one) in
        [("PING", frame(PING, 0, 0, &[0; 8])), ("SETTINGS", frame(SETTINGS, 0, 0, &[]))]
    {
        let flood = is_cut(world.http(), bursts(iter::repeat_n(one, FRAMES)));
        let other = async {
            for _ in 0..50 {
                assert_eq!(get(world.http(), "a.example", "/").await.status, 200, "{name}");
            }
        };
        // Cut or not: it is the others who count.
        let flood = async {
            let _ = flood.await;
            std::future::pending::<()>().await;
        };
        tokio::select! { () = other => {}, () = flood => {} }
    }
    others_are_served(&world, &upstream, 100).await;
}

#[tokio::test]
async fn fields_are_counted_as_over_http1() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    for (count, expected) in [(100, Status(200)), (101, Status(431))] {
        let more = iter::repeat_n((&b"x-a"[..], &b"b"[..]), count);
        let fields: Vec<_> = GET.into_iter().chain(more).collect();
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields));
        assert_eq!(answered(world.http(), &head).await, expected, "{count}");
    }
    assert_eq!(upstream.requests(), 1);
}
