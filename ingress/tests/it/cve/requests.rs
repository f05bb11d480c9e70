//! What clients send and are told: where a request ends, who is let in, what is nobody's business.

use http::{HeaderMap, StatusCode};

use super::ask;
use crate::{
    annotations::site,
    support::{
        World,
        client::{get, raw},
        objects::{IngressExt, backend},
        upstream::Upstream,
    },
};

/// The default backend told everybody its metrics.
#[tokio::test]
async fn cve_2018_1002104_clients_are_told_nothing_about_us() {
    let world = World::new(vec![]).await;
    for path in ["/metrics", "/healthz", "/nginx_status", "/debug/pprof/", "/status"] {
        let answer = get(world.http(), "nobody.example", path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.contains("fairlead_"), "{path}: {}", answer.body);
    }
}

/// A redirect was sent without a look at the request's body, which was the next request then.
#[tokio::test]
async fn cve_2019_20372_the_body_of_what_is_redirected_is_no_request() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("moved", &[("permanent-redirect", "https://b.example/")]).object());
    objects.push(site("web", &[]).object());
    let world = World::single(objects).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: web.example\r\n\r\n";
    let length = hidden.len();
    let head = format!("GET / HTTP/1.1\r\nHost: moved.example\r\nContent-Length: {length}\r\n\r\n");
    let next = "GET /next HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n";
    let answer = raw(world.http(), format!("{head}{hidden}{next}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
    assert!(!answer.contains("/hidden"), "{answer}");
    assert!(upstream.requests() <= 1, "{answer}");
}

/// Of HTTP/1.0 with a coding, or of two lengths, one end was believed, and what came behind it was the
/// next request to whoever believed the other.
#[tokio::test]
async fn cve_2026_2835_a_body_has_one_end_or_is_refused() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("web", &[]).object());
    let world = World::single(objects).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: web.example\r\n\r\n";
    for (version, fields) in [
        ("1.0", "Transfer-Encoding: chunked\r\n"),
        ("1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"),
        ("1.0", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("1.1", "Transfer-Encoding: identity\r\nContent-Length: 5\r\n"),
        ("1.1", "Transfer-Encoding: chunked, identity\r\n"),
        ("1.1", "Content-Length: 5\r\nContent-Length: 50\r\n"),
    ] {
        let head = format!("POST / HTTP/{version}\r\nHost: web.example\r\n{fields}\r\n");
        let answer = raw(world.http(), format!("{head}0\r\n\r\n{hidden}").as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{version} {fields:?}: {answer}");
        let is_refused = [" 400 ", " 501 "].iter().any(|status| answer.contains(status));
        assert!(is_refused, "{version} {fields:?}: {answer}");
        assert_eq!(upstream.requests(), 0, "{version} {fields:?}");
    }
}

/// A cache's key without the host gave one site's answer to another's clients.
#[tokio::test]
async fn cve_2026_2836_who_is_let_in_to_one_host_is_not_let_in_to_another() {
    let upstream = Upstream::echo("web").await;
    let is_known = |fields: &HeaderMap| {
        let url = fields.get("x-original-url");
        url.is_some_and(|url| url.as_bytes().starts_with(b"http://one.example/"))
    };
    let authority = Upstream::knowing(is_known, StatusCode::FORBIDDEN).await;
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/", authority.address);
    let own = site("one", &[("auth-url", &url), ("auth-cache-key", "$http_x_token")]);
    objects.push(own.host("two.example", "web").object());
    let world = World::single(objects).await;
    for (host, status) in [("one.example", 200), ("two.example", 403), ("one.example", 200)] {
        assert_eq!(ask(&world, host, "x-token", "t").await.status, status, "{host}");
    }
    assert_eq!(authority.requests(), 2, "answers are remembered");
}
