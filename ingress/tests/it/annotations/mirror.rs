//! Copies of requests.

use fairlead_ingress::Uncopied;
use http::{Method, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::site;
use crate::support::{
    PATIENCE, World,
    client::{connect, get, request, send},
    objects::{IngressExt, backend},
    upstream::{Upstream, dead},
};

#[tokio::test]
async fn requests_are_copied_and_nobody_waits_for_it() {
    let upstream = Upstream::echo("web").await;
    let (seen, mut copies) = mpsc::unbounded_channel();
    // Tells what it got and never answers.
    let mirror = Upstream::serve(move |request| {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let _ = seen.send(format!("{} {} {host}", request.method(), request.uri()));
        async {
            std::future::pending::<()>().await;
            Response::new(Full::new(Bytes::new()))
        }
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}$request_uri", mirror.address);
    let target = ("mirror-target", url.as_str());
    objects.extend(
        [
            site("a", &[target]),
            site("off", &[target, ("mirror-request-body", "off"), ("mirror-host", "m.example")]),
            site("closed", &[target, ("denylist-source-range", "127.0.0.0/8")]),
            site("bad", &[("mirror-target", "ftp://x")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    let own = mirror.address.to_string();
    for (name, method, body, status, expected) in [
        ("a", Method::GET, "", 200, Some(format!("GET /x?y {own}"))),
        ("a", Method::POST, "b", 200, None),
        ("off", Method::POST, "b", 200, Some("POST /x?y m.example".to_owned())),
        ("closed", Method::GET, "", 403, None),
        ("bad", Method::GET, "", 200, None),
    ] {
        let mut request = request(&format!("{name}.example"), "/x?y");
        *request.method_mut() = method.clone();
        *request.body_mut() = Full::from(body);
        let answer = send(&mut connect(world.http()).await, request).await;
        assert_eq!(answer.status, status, "{name} {method}");
        let Some(expected) = expected else { continue };
        let copy = tokio::time::timeout(PATIENCE, copies.recv()).await.unwrap();
        assert_eq!(copy.as_deref(), Some(expected.as_str()), "{name} {method}");
    }
    // Had one of the others been copied, it would have come before this one.
    assert_eq!(get(world.http(), "a.example", "/last").await.status, 200);
    let copy = tokio::time::timeout(PATIENCE, copies.recv()).await.unwrap().unwrap();
    assert!(copy.starts_with("GET /last "), "{copy}");
    assert_eq!(world.reasons("bad").len(), 1);
}

#[tokio::test]
async fn copies_that_are_not_made_are_counted_with_their_reason() {
    /// One more than may be under way.
    const REQUESTS: usize = 257;
    let upstream = Upstream::echo("web").await;
    let answering = Upstream::echo("mirror").await;
    let silent = Upstream::raw(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    let url = |address| format!("http://{address}/");
    for (name, target) in [
        ("good", url(answering.address)),
        ("gone", url(dead().await)),
        ("nowhere", "http://$arg_to/".to_owned()),
        ("silent", url(silent.address)),
    ] {
        objects.push(site(name, &[("mirror-target", &target)]).object());
    }
    let world = World::single(objects).await;
    let mut client = connect(world.http()).await;
    let mut post = request("good.example", "/");
    *post.method_mut() = Method::POST;
    *post.body_mut() = Full::from("b");
    assert_eq!(send(&mut client, post).await.status, 200);
    for (name, count) in [("good", 1), ("gone", 1), ("nowhere", 1), ("silent", REQUESTS)] {
        for _ in 0..count {
            let answer = send(&mut client, request(&format!("{name}.example"), "/")).await;
            assert_eq!(answer.status, 200, "{name}");
        }
    }
    world
        .eventually(|counters| {
            counters.copies == 1
                && Uncopied::ALL.iter().all(|reason| counters.uncopied[reason] == 1)
        })
        .await;
}
