//! Copies of requests.

mod bodies;
mod losses;
mod secrets;

use fairlead_state::Object;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use tokio::{sync::mpsc, time::timeout};

use super::site;
use crate::support::{
    PATIENCE, World,
    client::{connect, get, request, send},
    objects::{IngressExt, backend},
    upstream::Upstream,
};

/// A request as it came to a mirror.
#[derive(Debug)]
struct Copied {
    /// Method and target.
    asks: String,
    headers: HeaderMap,
    /// `None`: it broke off.
    body: Option<Bytes>,
}

impl Copied {
    async fn read(request: Request<Incoming>) -> Self {
        let (head, body) = request.into_parts();
        let asks = format!("{} {}", head.method, head.uri);
        let body = body.collect().await.ok().map(http_body_util::Collected::to_bytes);
        Self { asks, headers: head.headers, body }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Somebody who tells what comes.
struct Mirror {
    upstream: Upstream,
    copies: mpsc::UnboundedReceiver<Copied>,
}

impl Mirror {
    /// Answers, or never does.
    async fn new(answers: bool) -> Self {
        let (seen, copies) = mpsc::unbounded_channel();
        let upstream = Upstream::serve(move |request| {
            let seen = seen.clone();
            async move {
                let _ = seen.send(Copied::read(request).await);
                if !answers {
                    std::future::pending::<()>().await;
                }
                Response::new(Full::new(Bytes::new()))
            }
        })
        .await;
        Self { upstream, copies }
    }

    /// Where everything is copied to under its own path.
    fn url(&self) -> String {
        format!("http://{}$request_uri", self.upstream.address)
    }

    async fn next(&mut self) -> Copied {
        timeout(PATIENCE, self.copies.recv()).await.expect("no copy comes").unwrap()
    }

    /// Had there been others before, they would have come before the copy of this request.
    async fn nothing_but(&mut self, world: &World, host: &str) {
        assert_eq!(get(world.http(), host, "/last").await.status, 200);
        assert_eq!(self.next().await.asks, "GET /last");
    }
}

/// `NAME.example`, copied to `url`, with bodies of any size.
fn mirrored(name: &str, url: &str, more: &[(&str, &str)]) -> Object {
    let usual = [("mirror-target", url), ("proxy-body-size", "0")];
    site(name, &[&usual, more].concat()).object()
}

#[tokio::test]
async fn requests_are_copied_and_nobody_waits_for_it() {
    let upstream = Upstream::echo("web").await;
    let mut mirror = Mirror::new(false).await;
    let mut objects = backend("web", &[upstream.address]);
    let url = mirror.url();
    let target = ("mirror-target", url.as_str());
    objects.extend(
        [
            site("a", &[target]),
            site("off", &[target, ("mirror-request-body", "off"), ("mirror-host", "m.example")]),
            site("vars", &[target, ("mirror-host", "$service_name.$namespace.svc")]),
            site("closed", &[target, ("denylist-source-range", "127.0.0.0/8")]),
            site("bad", &[("mirror-target", "ftp://x")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    let own = mirror.upstream.address.to_string();
    for (name, method, body, status, expected) in [
        ("a", Method::GET, "", 200, Some((own.as_str(), ""))),
        ("a", Method::POST, "b", 200, Some((own.as_str(), "b"))),
        ("off", Method::POST, "b", 200, Some(("m.example", ""))),
        ("vars", Method::GET, "", 200, Some(("web.default.svc", ""))),
        ("closed", Method::GET, "", 403, None),
        ("closed", Method::POST, "b", 403, None),
        ("bad", Method::GET, "", 200, None),
    ] {
        let mut request = request(&format!("{name}.example"), "/x?y");
        *request.method_mut() = method.clone();
        *request.body_mut() = Full::from(body);
        let answer = send(&mut connect(world.http()).await, request).await;
        assert_eq!(answer.status, status, "{name} {method}");
        let Some((host, body)) = expected else { continue };
        let copy = mirror.next().await;
        assert_eq!(copy.asks, format!("{method} /x?y"), "{name}");
        assert_eq!(copy.field("host"), Some(host), "{name}");
        let length = (!body.is_empty()).then_some("1");
        assert_eq!(copy.field("content-length"), length, "{name} {method}");
        assert_eq!(copy.body.as_deref(), Some(body.as_bytes()), "{name} {method}");
    }
    mirror.nothing_but(&world, "a.example").await;
    assert_eq!(world.reasons("bad").len(), 1);
}
