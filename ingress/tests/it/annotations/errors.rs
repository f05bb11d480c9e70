//! A Service that answers instead of others.

use fairlead_ingress::{ForwardedHeaders, IngressConfig};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

use super::{
    auth::{ask, authority},
    passwords::ANN,
    site,
};
use crate::support::{
    World,
    client::{get, raw},
    config,
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
    objects.push(service("empty"));
    let pages = ("default-backend", "pages");
    let codes = ("custom-http-errors", "404, 503");
    objects.extend(
        [
            site("both", &[pages, codes]),
            site("own", &[pages, codes, ("disable-proxy-intercept-errors", "true")]),
            site("none", &[codes]),
            site("only", &[pages]),
            site("empty", &[("default-backend", "empty"), codes]),
            site("missing", &[("default-backend", "nowhere"), codes]),
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
        // A page that nobody shows was 503, whatever the endpoint had said.
        ("empty", "/404", (404, "web")),
        ("missing", "/404", (404, "web")),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), path).await;
        assert_eq!(answer.who(), expected, "{name}{path}");
    }
    let page = get(world.http(), "both.example", "/404?q=1").await;
    assert_eq!(page.body.lines().nth(1), Some("GET /?q=1"));
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

/// It saw neither who asked, nor in which language, nor the query; and whom a balancer in front names was the
/// balancer itself.
#[tokio::test]
async fn bug_a_page_sees_the_request_it_answers_but_for_what_guards_it() {
    let (web, pages, authority) =
        (failing().await, Upstream::echo("pages").await, authority().await);
    let mut objects = backend("web", &[web.address]);
    objects.extend(backend("pages", &[pages.address]));
    objects.push(opaque("users", &[("auth", ANN)]));
    let url = format!("http://{}/plain", authority.address);
    let [page, codes] = [("default-backend", "pages"), ("custom-http-errors", "401,404")];
    let asked = [("auth-url", url.as_str()), ("auth-response-headers", "X-User")];
    let password = [("auth-type", "basic"), ("auth-secret", "users")];
    objects.extend(
        [
            site("open", &[page, codes]),
            site("asked", &[page, codes, asked[0], asked[1]]),
            site("password", &[page, codes, password[0], password[1]]),
        ]
        .map(IngressExt::object),
    );
    let forwarded_headers = ForwardedHeaders::Trust;
    let world = World::with(IngressConfig { forwarded_headers, ..config() }, objects).await;
    let sent = [
        ("cookie", "a=b"),
        ("user-agent", "test"),
        ("accept-language", "de"),
        ("x-forwarded-for", "203.0.113.9"),
        ("connection", "x-own, x-code"),
        ("x-own", "1"),
        ("x-token", "good"),
        ("authorization", "Basic YW5uOndyb25n"),
        ("x-user", "root"),
        // Attack: what is told of the request is not the client's to say.
        ("x-code", "200"),
        ("x-format", "evil"),
        ("x-service-name", "evil"),
        ("x-original-uri", "/evil"),
    ];
    for (name, user, authorization) in [
        ("open", Some("root"), Some("Basic YW5uOndyb25n")),
        ("asked", None, Some("Basic YW5uOndyb25n")),
        ("password", Some("root"), None),
    ] {
        let answer = ask(&world, name, "/404?q=1", &sent).await;
        assert_eq!(answer.body.lines().nth(1), Some("GET /?q=1"), "{name}");
        let code = if name == "password" { "401" } else { "404" };
        for (field, value) in [
            ("cookie", Some("a=b")),
            ("user-agent", Some("test")),
            ("accept-language", Some("de")),
            ("x-forwarded-for", Some("203.0.113.9")),
            ("x-real-ip", Some("203.0.113.9")),
            ("x-own", None),
            ("authorization", authorization),
            ("x-user", user),
            ("x-code", Some(code)),
            ("x-format", None),
            ("x-service-name", Some("web")),
            ("x-original-uri", Some("/404?q=1")),
        ] {
            assert_eq!(answer.saw(field), value, "{name}: {field} in {}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_page_is_sent_no_body_and_nothing_that_frames_one() {
    let (web, pages) = (failing().await, Upstream::echo("pages").await);
    let mut objects = backend("web", &[web.address]);
    objects.extend(backend("pages", &[pages.address]));
    objects
        .push(site("a", &[("default-backend", "pages"), ("custom-http-errors", "404")]).object());
    let world = World::new(objects).await;
    for framing in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
    {
        let asks = "POST /404 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n";
        let answer = raw(world.http(), format!("{asks}{framing}").as_bytes()).await;
        assert!(answer.contains("POST /\n") && answer.contains("x-code: 404"), "{answer}");
        let (_, seen) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!seen.contains("content-length") && !seen.contains("chunked"), "{answer}");
    }
}

#[tokio::test]
async fn a_service_without_endpoints_is_stood_in_for() {
    let pages = Upstream::echo("pages").await;
    let mut objects = vec![service("web")];
    objects.extend(backend("pages", &[pages.address]));
    objects.push(site("a", &[("default-backend", "pages")]).object());
    objects.push(site("b", &[]).object());
    let mut world = World::new(objects).await;
    // What is told of the request is not the client's to say, nor to take off.
    let said = [("x-code", "200"), ("x-format", "evil"), ("connection", "x-code, x-namespace")];
    let answer = ask(&world, "a", "/x?y", &said).await;
    assert_eq!(answer.who(), (200, "pages"));
    assert_eq!(answer.body.lines().nth(1), Some("GET /x?y"));
    for (field, value) in
        [("x-code", Some("503")), ("x-format", None), ("x-namespace", Some("default"))]
    {
        assert_eq!(answer.saw(field), value, "{field}");
    }
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
