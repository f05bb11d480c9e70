//! As [`super::attacks`], over HTTP/2: what would be something else once written in HTTP/1.

use crate::support::{
    World,
    frames::{
        Field,
        Outcome::{self, Refused, Status},
        request,
    },
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

async fn world(upstream: &Upstream) -> World {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    World::single(objects).await
}

const METHOD: Field<'_> = (b":method", b"GET");
const SCHEME: Field<'_> = (b":scheme", b"http");
const AUTHORITY: Field<'_> = (b":authority", b"a.example");
const PATH: Field<'_> = (b":path", b"/");

/// Name, fields after the usual four, what becomes of it.
type Attack = (&'static str, &'static [Field<'static>], Outcome);

const FIELDS: &[Attack] = &[
    ("upper case in a name", &[(b"X-A", b"b")], Refused),
    ("line end in a name", &[(b"x-a: b\r\nx-b", b"c")], Refused),
    ("space in a name", &[(b"x a", b"b")], Refused),
    ("colon in a name", &[(b"x:a", b"b")], Refused),
    ("no name", &[(b"", b"b")], Refused),
    ("line end in a value", &[(b"x-a", b"b\r\nx-b: c")], Refused),
    ("request in a value", &[(b"x-a", b"b\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n")], Refused),
    ("LF in a value", &[(b"x-a", b"b\nx-b: c")], Refused),
    ("CR in a value", &[(b"x-a", b"b\rc")], Refused),
    ("NUL in a value", &[(b"x-a", b"b\0c")], Refused),
    ("transfer-encoding", &[(b"transfer-encoding", b"chunked")], Refused),
    ("connection", &[(b"connection", b"close")], Refused),
    ("keep-alive", &[(b"keep-alive", b"timeout=5")], Refused),
    ("proxy-connection", &[(b"proxy-connection", b"close")], Refused),
    ("upgrade", &[(b"upgrade", b"websocket")], Refused),
    ("te other than trailers", &[(b"te", b"gzip")], Refused),
    ("length without body", &[(b"content-length", b"5")], Refused),
    ("two lengths", &[(b"content-length", b"0"), (b"content-length", b"5")], Refused),
    ("the same length twice", &[(b"content-length", b"0"), (b"content-length", b"0")], Status(400)),
    ("list of lengths", &[(b"content-length", b"0, 0")], Refused),
    ("signed length", &[(b"content-length", b"+0")], Refused),
    ("another host", &[(b"host", b"b.example")], Status(400)),
    ("pseudo field behind others", &[(b"x-a", b"b"), (b":path", b"/evil")], Refused),
    ("second path", &[(b":path", b"/evil")], Refused),
    ("second method", &[(b":method", b"POST")], Refused),
    ("second authority", &[(b":authority", b"b.example")], Refused),
    ("unknown pseudo field", &[(b":evil", b"x")], Refused),
    ("response's pseudo field", &[(b":status", b"200")], Refused),
];

const HEADS: &[Attack] = &[
    ("no method", &[SCHEME, AUTHORITY, PATH], Refused),
    ("no path", &[METHOD, SCHEME, AUTHORITY], Refused),
    ("no scheme", &[METHOD, AUTHORITY, PATH], Refused),
    ("no authority, no host", &[METHOD, SCHEME, PATH], Status(400)),
    ("empty authority", &[METHOD, SCHEME, (b":authority", b""), PATH], Refused),
    (
        "user in the authority",
        &[METHOD, SCHEME, (b":authority", b"x@a.example"), PATH],
        Status(400),
    ),
    ("path in the authority", &[METHOD, SCHEME, (b":authority", b"a.example/x"), PATH], Refused),
    (
        "request in the method",
        &[(b":method", b"GET / HTTP/1.1\r\nHost: b\r\n\r\nGET"), SCHEME, AUTHORITY, PATH],
        Refused,
    ),
    ("space in the method", &[(b":method", b"GET /evil"), SCHEME, AUTHORITY, PATH], Refused),
    (
        "line end in the path",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"/ HTTP/1.1\r\nX: y")],
        Refused,
    ),
    ("space in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/ HTTP/1.1")], Refused),
    ("empty path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"")], Refused),
    ("path without slash", &[METHOD, SCHEME, AUTHORITY, (b":path", b"evil")], Refused),
    ("absolute form", &[METHOD, SCHEME, AUTHORITY, (b":path", b"http://b.example/")], Refused),
    ("above the root", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/../a")], Status(400)),
    (
        "asterisk form",
        &[(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")],
        Status(400),
    ),
    ("CONNECT", &[(b":method", b"CONNECT"), (b":authority", b"a.example:443")], Status(405)),
    (
        "extended CONNECT",
        &[(b":method", b"CONNECT"), (b":protocol", b"evil"), SCHEME, AUTHORITY, PATH],
        Status(405),
    ),
    ("TRACE", &[(b":method", b"TRACE"), SCHEME, AUTHORITY, PATH], Status(405)),
];

#[tokio::test]
async fn what_http1_could_not_say_does_not_become_http1() {
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

/// The library cuts it off before anybody here could see it; both sides see the path without it.
#[tokio::test]
async fn a_fragment_reaches_neither_matching_nor_the_upstream() {
    let upstream = Upstream::serve(|request| async move {
        let status = if request.uri() == "/a" { 200 } else { 500 };
        http::Response::builder().status(status).body(String::new()).unwrap()
    })
    .await;
    let world = world(&upstream).await;
    let fields = [METHOD, SCHEME, AUTHORITY, (&b":path"[..], &b"/a#b"[..])];
    assert_eq!(request(world.http(), &fields, None).await, Status(200));
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
