//! Whatever is let through is to every peer behind as many requests as it is here.

#[path = "../it/attacks/table.rs"]
pub(crate) mod over_h1;
#[path = "../it/attacks2/table.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
pub(crate) mod over_h2;

use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;

use self::{
    over_h1::ATTACKS,
    over_h2::{AUTHORITY, FIELDS, HEADS, METHOD, PATH, SCHEME},
};
use crate::{
    backends::{Front, Peer},
    support::{
        World,
        client::raw,
        frames::{Field, request},
        upstream::Upstream,
    },
    world,
};

/// Targets of the requests that were complete, in order.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

pub(crate) async fn origin(seen: &Seen) -> Upstream {
    let seen = seen.clone();
    Upstream::serve(move |request| {
        let seen = seen.clone();
        async move {
            let target = format!("{} {}", request.method(), request.uri());
            if request.into_body().collect().await.is_ok() {
                seen.0.lock().unwrap().push(target);
            }
            http::Response::new("done".to_owned())
        }
    })
    .await
}

/// Name, bytes, and what of them are requests: the same to us and to everybody behind.
pub(crate) const H1: &[(&str, &str, &[&str])] = &[
    (
        "two requests in one piece",
        "GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["GET /1", "GET /2"],
    ),
    (
        "CL.0: a body of nothing, then a request",
        "POST /1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["POST /1", "GET /2"],
    ),
    (
        "a request in a body",
        "POST /1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 39\r\n\r\n\
         GET /evil HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["POST /1", "GET /2"],
    ),
    (
        "a request in a chunk",
        "POST /1 HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
         27\r\nGET /evil HTTP/1.1\r\nHost: a.example\r\n\r\n\r\n0\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["POST /1", "GET /2"],
    ),
    (
        "a GET with a body",
        "GET /1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 39\r\n\r\n\
         GET /evil HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["GET /1", "GET /2"],
    ),
    (
        "extensions and trailers of chunks",
        "POST /1 HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
         3;a=b\r\nabc\r\n0\r\nContent-Length: 50\r\nX: y\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["POST /1", "GET /2"],
    ),
    (
        "an upgrade nobody grants, then a request",
        "GET /1 HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["GET /1", "GET /2"],
    ),
    (
        "Connection names what frames the message",
        "POST /1 HTTP/1.1\r\nHost: a.example\r\nConnection: content-length, host\r\n\
         Content-Length: 39\r\n\r\nGET /evil HTTP/1.1\r\nHost: a.example\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["POST /1", "GET /2"],
    ),
    (
        "Connection names the coding",
        "POST /1 HTTP/1.1\r\nHost: a.example\r\nConnection: transfer-encoding\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["POST /1", "GET /2"],
    ),
    (
        "an expectation",
        "POST /1 HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n\
         abcGET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["POST /1", "GET /2"],
    ),
    ("absolute form", "GET http://a.example/1 HTTP/1.1\r\nHost: a.example\r\n", &["GET /1"]),
    (
        "HEAD, then a request",
        "HEAD /1 HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["HEAD /1", "GET /2"],
    ),
    // RFC 9112 2.2 allows it, nginx and HAProxy do it: each line by LF alone, behind us by CRLF.
    (
        "lines by bare LF",
        "GET /1 HTTP/1.1\nHost: a.example\n\nGET /2 HTTP/1.1\nHost: a.example\n",
        &["GET /1", "GET /2"],
    ),
    (
        "a length in a line by bare LF",
        "POST /1 HTTP/1.1\nHost: a.example\nContent-Length: 39\n\n\
         GET /evil HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\nHost: a.example\n",
        &["POST /1", "GET /2"],
    ),
    (
        "a length behind a bare LF within a line",
        "POST /1 HTTP/1.1\r\nHost: a.example\r\nX: y\nContent-Length: 39\r\n\r\n\
         GET /evil HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\n",
        &["POST /1", "GET /2"],
    ),
    (
        "a coding in a line by bare LF",
        "POST /1 HTTP/1.1\nHost: a.example\nTransfer-Encoding: chunked\n\n\
         3\r\nabc\r\n0\r\n\r\nGET /2 HTTP/1.1\nHost: a.example\n",
        &["POST /1", "GET /2"],
    ),
    (
        "a query that looks like more",
        "GET /1?a%20HTTP/1.1%0d%0aX:y HTTP/1.1\r\nHost: a.example\r\n",
        &["GET /1?a%20HTTP/1.1%0d%0aX:y"],
    ),
];

async fn check_h1(world: &World, peer: &Peer, seen: &Seen, wrong: &mut Vec<String>) {
    for (name, head, _) in ATTACKS {
        raw(world.http(), &[head, &b"Connection: close\r\n\r\n"[..]].concat()).await;
        note(peer, name, seen, &[], wrong);
    }
    for (name, bytes, expected) in H1 {
        raw(world.http(), format!("{bytes}Connection: close\r\n\r\n").as_bytes()).await;
        note(peer, name, seen, expected, wrong);
    }
}

async fn check_h2(world: &World, peer: &Peer, seen: &Seen, wrong: &mut Vec<String>) {
    let usual = [METHOD, SCHEME, AUTHORITY, PATH];
    for (name, more, _) in FIELDS {
        request(world.http(), &[&usual, *more].concat(), None).await;
        note(peer, name, seen, &[], wrong);
    }
    for (name, fields, _) in HEADS {
        request(world.http(), fields, None).await;
        note(peer, name, seen, &[], wrong);
    }
    let evil = b"GET /evil HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let post: Field<'_> = (b":method", b"POST");
    let length: Field<'_> = (b"content-length", b"39");
    for (name, more, body, expected) in [
        ("a request in a body", &[length][..], Some(&evil[..]), &["POST /"][..]),
        ("a request in a body without length", &[], Some(evil), &["POST /"]),
        (
            "a body that looks like chunks",
            &[],
            Some(b"0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n"),
            &["POST /"],
        ),
        ("less than announced", &[length], Some(b"abc"), &[]),
        ("more than announced", &[(&b"content-length"[..], &b"3"[..])], Some(evil), &[]),
        ("te: trailers", &[(b"te", b"trailers")], None, &["POST /"]),
    ] {
        let fields = [&[post, SCHEME, AUTHORITY, PATH][..], more].concat();
        request(world.http(), &fields, body).await;
        note(peer, name, seen, expected, wrong);
    }
}

fn note(peer: &Peer, name: &str, seen: &Seen, expected: &[&str], wrong: &mut Vec<String>) {
    let seen = seen.take();
    if seen != expected {
        wrong.push(format!("{name}, behind {}: {seen:?} instead of {expected:?}", peer.name));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_peer_sees_more_or_other_requests_than_were_let_through() {
    let seen = Seen::default();
    let origin = origin(&seen).await;
    let mut wrong = Vec::new();
    let at = origin.address;
    for peer in [
        Peer::nginx(at, Front::Http1).await,
        Peer::haproxy(at, Front::Http1).await,
        Peer::node(at).await,
        Peer::gunicorn(at).await,
        Peer::uvicorn(at).await,
    ] {
        let world = world(&[peer.address]).await;
        check_h1(&world, &peer, &seen, &mut wrong).await;
        check_h2(&world, &peer, &seen, &mut wrong).await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
