//! As [`super::attacks`], over HTTP/2: what would be something else once written in HTTP/1.

pub(crate) mod table;

use self::table::{AUTHORITY, FIELDS, HEADS, METHOD, PATH, SCHEME};
use fairlead_ingress::Refused as Reason;
use fairlead_state::model::PathType::Prefix;
use http_body_util::Full;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::{
    attacks::SPELLINGS,
    support::{
        PATIENCE, World,
        client::{Answer, Sender2, get, http2},
        frames::{
            self, Field,
            Outcome::{Refused, Status},
            request, requests,
        },
        objects::{IngressExt, backend, ingress},
        upstream::Upstream,
    },
};

async fn world(upstream: &Upstream) -> World {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    World::single(objects).await
}

#[tokio::test]
async fn cve_2026_42926_what_http1_could_not_say_does_not_become_http1() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let usual = [METHOD, SCHEME, AUTHORITY, PATH];
    let mut wrong = Vec::new();
    for (name, more, expected) in FIELDS {
        let fields = [&usual, *more].concat();
        let outcome = request(world.http(), &fields, None).await;
        if outcome != *expected {
            wrong.push(format!("{name}: {outcome:?} instead of {expected:?}"));
        }
    }
    for (name, fields, expected) in HEADS {
        let outcome = request(world.http(), fields, None).await;
        if outcome != *expected {
            wrong.push(format!("{name}: {outcome:?} instead of {expected:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(upstream.requests(), 0);
    assert_eq!(request(world.http(), &usual, None).await, Status(200));
}

/// RFC 9113 8.1.1: a body longer or shorter than announced is no request.
#[tokio::test]
async fn a_body_of_another_length_than_announced_is_not_completed() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let post = (&b":method"[..], &b"POST"[..]);
    for (length, body) in [(&b"5"[..], &b"abc"[..]), (b"3", b"abcde")] {
        let fields = [post, SCHEME, AUTHORITY, PATH, (b"content-length", length)];
        let outcome = request(world.http(), &fields, Some(body)).await;
        assert!(matches!(outcome, Refused | Status(400 | 502)), "{length:?}: {outcome:?}");
    }
    let fields = [post, SCHEME, AUTHORITY, PATH, (b"content-length", b"3")];
    assert_eq!(request(world.http(), &fields, Some(b"abc")).await, Status(200));
}

/// RFC 9113 3.4: frames, whatever they would be as a request line.
#[tokio::test]
async fn what_comes_with_the_preface_is_not_read_as_http1() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let fields = [METHOD, SCHEME, AUTHORITY, PATH, (&b"x-own"[..], &b"#"[..])];
    assert_eq!(requests(world.http(), &fields, 4).await, [Status(200); 4]);
}

/// RFC 9113 8.2.3.
#[tokio::test]
async fn crumbs_of_a_cookie_are_one_field_to_an_upstream() {
    let upstream = Upstream::serve(|request| async move {
        let cookies: Vec<_> = request.headers().get_all("cookie").iter().collect();
        let status = if cookies == ["a=1; b=2; c=3"] { 200 } else { 500 };
        http::Response::builder().status(status).body(String::new()).unwrap()
    })
    .await;
    let world = world(&upstream).await;
    let crumbs: [Field<'_>; 3] = [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"cookie", b"c=3")];
    let fields = [&[METHOD, SCHEME, AUTHORITY, PATH][..], &crumbs].concat();
    assert_eq!(request(world.http(), &fields, None).await, Status(200));
}

/// As over HTTP/1: what is matched is what is forwarded.
#[tokio::test]
async fn no_spelling_of_a_protected_path_gets_around_its_rule() {
    let (open, guarded) = (Upstream::echo("open").await, Upstream::echo("guarded").await);
    let mut objects = backend("open", &[open.address]);
    objects.extend(backend("guarded", &[guarded.address]));
    let rule = [(Prefix, "/", "open"), (Prefix, "/admin", "guarded")];
    objects.push(ingress("web").rule("a.example", &rule).object());
    let world = World::single(objects).await;
    let mut sender = http2(TcpStream::connect(world.http()).await.unwrap()).await;
    for (path, forwarded) in SPELLINGS {
        let answer = asked(&mut sender, path, &[]).await;
        let seen = format!("guarded\nGET {forwarded}\n");
        assert!(answer.body.starts_with(&seen), "{path}: {}", answer.body);
    }
    assert_eq!(open.requests(), 0);
}

#[tokio::test]
async fn fields_a_client_may_not_set_are_not_what_the_upstream_sees() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let mut sender = http2(TcpStream::connect(world.http()).await.unwrap()).await;
    let fields = [
        ("x-forwarded-proto", "https"),
        ("x_forwarded_for", "10.0.0.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("proxy", "http://evil"),
        ("forwarded", "for=10.0.0.1"),
    ];
    let answer = asked(&mut sender, "/", &fields).await;
    for (field, seen) in [
        ("host", Some("a.example")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x_forwarded_for", None),
        ("proxy", None),
        ("forwarded", None),
    ] {
        assert_eq!(answer.saw(field), seen, "{field}: {}", answer.body);
    }
}

async fn asked(sender: &mut Sender2, path: &str, fields: &[(&'static str, &str)]) -> Answer {
    let uri = format!("http://a.example{path}");
    let mut request = http::Request::builder().version(http::Version::HTTP_2).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let sent = sender.send_request(request.body(Full::default()).unwrap());
    let answer = async { Answer::read(sent.await.unwrap()).await };
    timeout(PATIENCE, answer).await.expect("no answer in time")
}

#[tokio::test]
async fn a_target_is_limited_to_the_byte() {
    const URI_BYTES_MAX: usize = 8 << 10;
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    for (bytes, expected) in [(URI_BYTES_MAX, Status(200)), (URI_BYTES_MAX + 1, Status(414))] {
        let path = format!("/{}", "a".repeat(bytes - 1));
        let fields = [METHOD, SCHEME, AUTHORITY, (&b":path"[..], path.as_bytes())];
        assert_eq!(request(world.http(), &fields, None).await, expected, "{bytes}");
    }
    assert_eq!(upstream.requests(), 1);
}

/// RFC 9113 7.
const ENHANCE_YOUR_CALM: u32 = 11;

/// CVE-2023-44487: whoever asks only to give up again is sent away, and others notice nothing.
#[tokio::test]
async fn attack_rapid_reset_reaches_few_endpoints_and_ends_the_connection() {
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let head = frames::block(&[METHOD, SCHEME, AUTHORITY, PATH]);
    let flags = frames::END_HEADERS | frames::END_STREAM;
    let mut attack = frames::begin();
    for id in (1..).step_by(2).take(10_000) {
        attack.extend(frames::frame(frames::HEADERS, flags, id, &head));
        attack.extend(frames::frame(frames::RST_STREAM, 0, id, &[0, 0, 0, 8]));
    }
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    // It is not read to its end.
    let _ = timeout(PATIENCE, stream.write_all(&attack)).await.unwrap();
    let reason = timeout(PATIENCE, frames::goaway(&mut stream)).await.unwrap();
    assert_eq!(reason, Some(ENHANCE_YOUR_CALM));
    assert_eq!(world.running.counters().refused[&Reason::Flood], 1);
    // Those at the end of a read were begun before they were given up.
    assert!(upstream.requests() < 20, "{}", upstream.requests());
    assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
}

/// CVE-2019-9512: answers nobody asked a server for.
#[tokio::test]
async fn attack_pings_end_the_connection() {
    const PING: u8 = 6;
    let upstream = Upstream::echo("web").await;
    let world = world(&upstream).await;
    let pings = frames::frame(PING, 0, 0, &[7; 8]).repeat(20_000);
    let mut stream = TcpStream::connect(world.http()).await.unwrap();
    let attack = [frames::begin(), pings].concat();
    let (mut reading, mut writing) = stream.split();
    let mut scrap = Vec::new();
    // It is told so, or its connection is reset as it goes on.
    let _ = timeout(PATIENCE, async {
        tokio::join!(
            writing.write_all(&attack),
            tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut scrap)
        )
    })
    .await
    .unwrap();
    assert_eq!(world.running.counters().refused[&Reason::Flood], 1);
}
