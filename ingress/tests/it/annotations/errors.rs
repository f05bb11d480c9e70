//! A Service that answers instead of others.

use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

use super::{passwords::ANN, site};
use crate::support::{
    World,
    client::get,
    objects::{IngressExt, backend, opaque, service},
    upstream::Upstream,
};

/// Answers with the status its path names.
async fn failing() -> Upstream {
    Upstream::serve(|request| async move {
        let status = request.uri().path().trim_start_matches('/').parse().unwrap_or(200);
        let mut response = Response::new(Full::new(Bytes::from("web\n")));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    })
    .await
}

#[tokio::test]
async fn errors_are_answered_by_the_service_that_is_to() {
    let (web, pages) = (failing().await, Upstream::echo("pages").await);
    let mut objects = backend("web", &[web.address]);
    objects.extend(backend("pages", &[pages.address]));
    let pages = ("default-backend", "pages");
    let codes = ("custom-http-errors", "404, 503");
    objects.extend(
        [
            site("both", &[pages, codes]),
            site("own", &[pages, codes, ("disable-proxy-intercept-errors", "true")]),
            site("none", &[codes]),
            site("only", &[pages]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    for (name, path, expected) in [
        ("both", "/200", (200, "web")),
        ("both", "/404", (200, "pages")),
        ("both", "/503", (200, "pages")),
        ("both", "/500", (500, "web")),
        ("own", "/404", (404, "web")),
        ("none", "/404", (404, "web")),
        ("only", "/404", (404, "web")),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), path).await;
        assert_eq!(answer.who(), expected, "{name}{path}");
    }
    let page = get(world.http(), "both.example", "/404?q=1").await;
    assert_eq!(page.body.lines().nth(1), Some("GET /"));
    for (field, value) in [
        ("x-code", "404"),
        ("x-original-uri", "/404?q=1"),
        ("x-namespace", "default"),
        ("x-ingress-name", "both"),
        ("x-service-name", "web"),
        ("x-service-port", "80"),
        ("host", "both.example"),
        ("x-forwarded-for", "127.0.0.1"),
    ] {
        assert_eq!(page.saw(field), Some(value), "{field} in {}", page.body);
    }
    assert_eq!(world.reasons("none").len(), 1);
}

#[tokio::test]
async fn a_service_without_endpoints_is_stood_in_for() {
    let pages = Upstream::echo("pages").await;
    let mut objects = vec![service("web")];
    objects.extend(backend("pages", &[pages.address]));
    objects.push(site("a", &[("default-backend", "pages")]).object());
    objects.push(site("b", &[]).object());
    let mut world = World::new(objects).await;
    let answer = get(world.http(), "a.example", "/x?y").await;
    assert_eq!(answer.who(), (200, "pages"));
    assert_eq!(answer.body.lines().nth(1), Some("GET /x?y"));
    assert_eq!(answer.saw("x-code"), Some("503"));
    assert_eq!(get(world.http(), "b.example", "/").await.status, 503);
    let web = Upstream::echo("web").await;
    world.apply(backend("web", &[web.address])).await;
    assert_eq!(get(world.http(), "a.example", "/").await.who(), (200, "web"));
}

/// Without it no browser asks for a password: nobody could come in.
#[tokio::test]
async fn a_page_instead_of_401_still_says_how_to_come_in() {
    let web = Upstream::serve(|request| async move {
        let mut response = Response::new(Full::new(Bytes::from("web\n")));
        *response.status_mut() = match request.uri().path() {
            "/401" => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        };
        let headers = response.headers_mut();
        headers.append("www-authenticate", "Negotiate".parse().unwrap());
        headers.append("www-authenticate", "Basic realm=\"web\"".parse().unwrap());
        response
    })
    .await;
    let pages = Upstream::echo("pages").await;
    let mut objects = backend("web", &[web.address]);
    objects.extend(backend("pages", &[pages.address]));
    objects.push(opaque("users", &[("auth", ANN)]));
    let instead = [("default-backend", "pages"), ("custom-http-errors", "401,403")];
    let [page, codes] = instead;
    objects.push(site("endpoint", &instead).object());
    let guarded = [page, codes, ("auth-type", "basic"), ("auth-secret", "users")];
    objects.push(site("guarded", &guarded).object());
    let world = World::new(objects).await;
    for (name, path, expected) in [
        ("endpoint", "/401", &["Negotiate", "Basic realm=\"web\""][..]),
        ("endpoint", "/403", &[]),
        ("guarded", "/", &["Basic realm=\"Authentication Required\""]),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), path).await;
        assert_eq!(answer.who().1, "pages", "{name}{path}");
        let said: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
        assert_eq!(said, expected, "{name}{path}");
    }
}
