//! Copies of requests.

use http::{Method, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::site;
use crate::support::{
    PATIENCE, World,
    client::{connect, get, request, send},
    objects::{IngressExt, backend},
    upstream::Upstream,
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
