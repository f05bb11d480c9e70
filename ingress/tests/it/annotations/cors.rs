//! Pages of other sites (CORS), and answers that are told otherwise.

use http::{Method, Response};
use http_body_util::Full;
use hyper::body::Bytes;

use super::site;
use crate::support::{
    World,
    client::{Answer, connect, get, request, send},
    objects::{IngressExt, backend},
    upstream::Upstream,
};

const ORIGIN: &str = "access-control-allow-origin";

async fn ask(world: &World, name: &str, method: Method, origin: &str) -> Answer {
    let mut request = request(&format!("{name}.example"), "/");
    *request.method_mut() = method;
    if !origin.is_empty() {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    send(&mut connect(world.http()).await, request).await
}

#[tokio::test]
async fn pages_of_listed_sites_may_ask_and_others_may_not() {
    let upstream = Upstream::serve(|_| async {
        let mut response = Response::new(Full::new(Bytes::from("web\n")));
        // The endpoint's own is replaced, as more_set_headers does.
        response.headers_mut().insert(ORIGIN, "https://endpoint.example".parse().unwrap());
        response
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    let on = ("enable-cors", "true");
    let list = ("cors-allow-origin", "https://a.example, https://*.b.example:8443");
    objects.extend(
        [
            site("any", &[on]),
            site("list", &[on, list, ("cors-allow-credentials", "false")]),
            site("off", &[list]),
            site("bad", &[on, ("cors-allow-origin", "a.example")]),
            site("closed", &[on, list, ("denylist-source-range", "127.0.0.0/8")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    let own = Some("https://endpoint.example");
    for (name, origin, status, allowed) in [
        ("any", "", 200, Some("*")),
        ("any", "https://x.example", 200, Some("*")),
        ("list", "https://a.example", 200, Some("https://a.example")),
        ("list", "https://x.b.example:8443", 200, Some("https://x.b.example:8443")),
        ("list", "https://x.example", 200, own),
        ("list", "https://a.example.evil.com", 200, own),
        ("off", "https://a.example", 200, own),
        ("bad", "https://a.example", 200, own),
        ("closed", "https://a.example", 403, Some("https://a.example")),
    ] {
        let answer = ask(&world, name, Method::GET, origin).await;
        assert_eq!(answer.status, status, "{name} {origin}");
        let field = answer.headers.get(ORIGIN).map(|value| value.to_str().unwrap());
        assert_eq!(field, allowed, "{name} {origin}");
    }
    assert_eq!(world.reasons("bad").len(), 1);
}

#[tokio::test]
async fn a_preflight_is_answered_before_anybody_is_asked_who_he_is() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let on = ("enable-cors", "true");
    let list = ("cors-allow-origin", "https://a.example");
    objects.extend(
        [
            site("default", &[on]),
            site("list", &[on, list, ("denylist-source-range", "127.0.0.0/8")]),
            site("denied", &[on, list, ("denylist-source-range", "everybody")]),
            site(
                "all",
                &[
                    on,
                    ("cors-allow-methods", "GET, PUT"),
                    ("cors-allow-headers", "X-A, X-B"),
                    ("cors-expose-headers", "X-C"),
                    ("cors-allow-credentials", "false"),
                    ("cors-max-age", "600"),
                ],
            ),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    let default = ask(&world, "default", Method::OPTIONS, "https://x.example").await;
    let all = ask(&world, "all", Method::OPTIONS, "https://x.example").await;
    for (answer, field, value) in [
        (&default, "allow-origin", Some("*")),
        (&default, "allow-credentials", Some("true")),
        (&default, "allow-methods", Some("GET, PUT, POST, DELETE, PATCH, OPTIONS")),
        (&default, "max-age", Some("1728000")),
        (&default, "expose-headers", None),
        (&all, "allow-credentials", None),
        (&all, "allow-methods", Some("GET, PUT")),
        (&all, "allow-headers", Some("X-A, X-B")),
        (&all, "expose-headers", Some("X-C")),
        (&all, "max-age", Some("600")),
    ] {
        assert_eq!(answer.status, 204);
        let found = answer.headers.get(format!("access-control-{field}"));
        assert_eq!(found.map(|value| value.to_str().unwrap()), value, "{field}");
    }
    assert_eq!(ask(&world, "list", Method::OPTIONS, "https://a.example").await.status, 204);
    // ingress-nginx: a denied location has nothing of CORS.
    assert_eq!(ask(&world, "denied", Method::OPTIONS, "https://a.example").await.status, 503);
    assert_eq!(upstream.requests(), 0);
    // Somebody else's OPTIONS is a request like any other.
    assert_eq!(ask(&world, "list", Method::OPTIONS, "https://x.example").await.status, 403);
}

#[tokio::test]
async fn cookies_and_redirects_of_endpoints_are_told_otherwise() {
    let upstream = Upstream::serve(|_| async {
        let mut response = Response::new(Full::new(Bytes::from("web\n")));
        let headers = response.headers_mut();
        headers.append("set-cookie", "a=1; Domain=inner.example; Path=/one/x".parse().unwrap());
        headers.append("set-cookie", "b=2".parse().unwrap());
        headers.insert("location", "http://inner.example/one/y".parse().unwrap());
        response
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(
        [
            site(
                "all",
                &[
                    ("proxy-cookie-domain", "inner.example all.example"),
                    ("proxy-cookie-path", "/one/ /"),
                    ("proxy-redirect-from", "http://inner.example/one/"),
                    ("proxy-redirect-to", "https://all.example/"),
                ],
            ),
            site("off", &[("proxy-cookie-path", "off"), ("proxy-redirect-from", "off")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    for (name, cookie, location) in [
        ("all", "a=1; Domain=all.example; Path=/x", "https://all.example/y"),
        ("off", "a=1; Domain=inner.example; Path=/one/x", "http://inner.example/one/y"),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), "/").await;
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, [cookie, "b=2"], "{name}");
        assert_eq!(answer.headers["location"], location, "{name}");
    }
}
