//! As [`super::attacks`], over HTTP/2: what would be something else once written in HTTP/1.

mod table;

use self::table::{AUTHORITY, FIELDS, HEADS, METHOD, PATH, SCHEME};
use crate::support::{
    World,
    frames::{
        Field,
        Outcome::{Refused, Status},
        request, requests,
    },
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

async fn world(upstream: &Upstream) -> World {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("web").host("a.example", "web").object());
    World::single(objects).await
}

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
