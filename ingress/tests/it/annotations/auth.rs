//! Who is let in: somebody else is asked.

use std::time::{Duration, Instant};

use fairlead_ingress::IngressConfig;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

use super::{annotated, site};
use crate::support::{
    PATIENCE, World,
    client::{Answer, connect, raw, request, send},
    config,
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

pub(super) async fn ask(
    world: &World,
    name: &str,
    path: &str,
    fields: &[(&'static str, &str)],
) -> Answer {
    let mut request = request(&format!("{name}.example"), path);
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    send(&mut connect(world.http()).await, request).await
}

/// Lets in who sends `x-token: good`; says who it is, and sets a cookie, but for what is asked of `/plain`. Has
/// the field that `x-say` (`NAME=VALUE`) tells it to have.
pub(super) async fn authority() -> Upstream {
    Upstream::serve(|request| async move {
        let token = request.headers().get("x-token").map(|value| value.as_bytes().to_vec());
        let mut response = Response::new(Full::new(Bytes::from("auth\n")));
        let headers = response.headers_mut();
        for name in ["x-original-url", "x-original-method", "x-auth-request-redirect", "host"] {
            let seen = request.headers().get(name).cloned();
            headers.insert(
                http::HeaderName::try_from(format!("x-saw-{name}")).unwrap(),
                seen.unwrap_or(http::HeaderValue::from_static("nothing")),
            );
        }
        headers.insert("x-saw-path", request.uri().to_string().parse().unwrap());
        headers.insert("x-saw-method", request.method().as_str().parse().unwrap());
        if request.uri().path() != "/plain" {
            headers.append("set-cookie", "session=1".parse().unwrap());
        }
        let say = request.headers().get("x-say").and_then(|say| say.to_str().ok());
        if let Some((name, value)) = say.and_then(|say| say.split_once('=')) {
            let name = http::HeaderName::try_from(name).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        match token.as_deref() {
            Some(b"good") => _ = headers.insert("x-user", "ann".parse().unwrap()),
            Some(b"forbidden") => *response.status_mut() = StatusCode::FORBIDDEN,
            Some(b"broken") => *response.status_mut() = StatusCode::NOT_FOUND,
            _ => {
                headers.insert("www-authenticate", "Bearer".parse().unwrap());
                *response.status_mut() = StatusCode::UNAUTHORIZED;
            }
        }
        response
    })
    .await
}

#[tokio::test]
async fn somebody_else_is_asked_and_decides() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/verify?for=$http_host", authority.address);
    let url = ("auth-url", url.as_str());
    let saw = "X-User, X-Saw-X-Original-Url, X-Saw-X-Original-Method, X-Saw-Path, X-Saw-Host, \
               X-Saw-X-Auth-Request-Redirect";
    objects.extend(
        [
            site("auth", &[url, ("auth-response-headers", saw)]),
            site("signin", &[url, ("auth-signin", "https://login.example/start?x=1")]),
            site("gone", &[("auth-url", "http://127.0.0.1:1/")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::single(objects).await;
    for (name, token, status) in [
        ("auth", "good", 200),
        ("auth", "forbidden", 403),
        ("auth", "broken", 500),
        ("auth", "", 401),
        ("signin", "good", 200),
        ("signin", "", 302),
        ("signin", "forbidden", 403),
        ("gone", "good", 500),
    ] {
        let reached = upstream.requests();
        let answer = ask(&world, name, "/x/../a?b=c", &[("x-token", token)]).await;
        assert_eq!(answer.status, status, "{name} {token}");
        assert_eq!(upstream.requests() - reached, usize::from(status == 200), "{name} {token}");
    }
    let answer = ask(&world, "auth", "/a?b", &[("x-token", "good"), ("x-user", "root")]).await;
    let path = "/verify?for=auth.example";
    let host = authority.address.to_string();
    for (field, value) in [
        // What the client claims to be is not believed.
        ("x-user", "ann"),
        ("x-saw-x-original-url", "http://auth.example/a?b"),
        ("x-saw-x-original-method", "GET"),
        ("x-saw-x-auth-request-redirect", "/a?b"),
        ("x-saw-path", path),
        ("x-saw-host", &host),
    ] {
        assert_eq!(answer.saw(field), Some(value), "{field}");
    }
    assert_eq!(answer.headers["set-cookie"], "session=1");
    let answer = ask(&world, "auth", "/", &[]).await;
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    let answer = ask(&world, "signin", "/a?b=c", &[]).await;
    let location = "https://login.example/start?x=1&rd=http://signin.example%2Fa%3Fb%3Dc";
    assert_eq!(answer.headers["location"], location);
    assert!(authority.connections() < authority.requests(), "connections are kept");
}

#[tokio::test]
async fn a_question_and_what_comes_of_it_are_as_the_annotations_say() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let missing = Upstream::serve(|_| async {
        let mut response = Response::new(Full::new(Bytes::from("missing\n")));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(backend("missing", &[missing.address]));
    let url = format!("http://{}/", authority.address);
    let url = ("auth-url", url.as_str());
    let saw = ("auth-response-headers", "X-Saw-Method, X-Saw-X-Auth-Request-Redirect");
    let to_missing = |name: &str, annotations: &[(&str, &str)]| {
        annotated(ingress(name).host(&format!("{name}.example"), "missing"), annotations)
    };
    objects.extend(
        [
            site("plain", &[url, saw]),
            site("method", &[url, saw, ("auth-method", "POST")]),
            site("redirect", &[url, saw, ("auth-request-redirect", "https://a$request_uri")]),
            site(
                "param",
                &[
                    url,
                    ("auth-signin", "https://login.example/start"),
                    ("auth-signin-redirect-param", "back"),
                ],
            ),
            to_missing("seldom", &[url]),
            to_missing("always", &[url, ("auth-always-set-cookie", "true")]),
            site(
                "kept",
                &[
                    url,
                    ("auth-keepalive", "2"),
                    ("auth-keepalive-requests", "100"),
                    ("auth-keepalive-timeout", "60"),
                    ("auth-keepalive-share-vars", "true"),
                ],
            ),
        ]
        .map(IngressExt::object),
    );
    let world = World::single(objects).await;
    let good = [("x-token", "good")];
    for (name, method, redirect) in
        [("plain", "GET", "/a?b"), ("method", "POST", "/a?b"), ("redirect", "GET", "https://a/a?b")]
    {
        let answer = ask(&world, name, "/a?b", &good).await;
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.saw("x-saw-method"), Some(method), "{name}");
        assert_eq!(answer.saw("x-saw-x-auth-request-redirect"), Some(redirect), "{name}");
    }
    let answer = ask(&world, "param", "/a?b", &[]).await;
    let location = "https://login.example/start?back=http://param.example%2Fa%3Fb";
    assert_eq!((answer.status, &answer.headers["location"]), (302, &location.parse().unwrap()));
    // nginx's add_header leaves errors alone unless it is told `always`.
    for (name, has_cookie) in [("seldom", false), ("always", true)] {
        let answer = ask(&world, name, "/", &good).await;
        assert_eq!(answer.who(), (404, "missing"), "{name}");
        assert_eq!(answer.headers.contains_key("set-cookie"), has_cookie, "{name}");
    }
    let before = authority.connections();
    for _ in 0..4 {
        assert_eq!(ask(&world, "kept", "/", &good).await.status, 200);
    }
    assert_eq!(authority.connections() - before, 1, "one connection for all questions");
    for name in ["method", "redirect", "param", "always", "kept"] {
        assert_eq!(world.reasons(name), Vec::<String>::new(), "{name}");
    }
}

/// The Ingress `auth`: `upstream` is told these fields as `authority` says them.
async fn taking(fields: &str, authority: &Upstream, upstream: &Upstream) -> World {
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/", authority.address);
    objects.push(site("auth", &[("auth-url", &url), ("auth-response-headers", fields)]).object());
    World::new(objects).await
}

#[tokio::test]
async fn a_field_that_the_authority_does_not_send_is_taken_from_the_client() {
    let (upstream, silent) = (Upstream::echo("web").await, Upstream::echo("auth").await);
    let world = taking("X-User", &silent, &upstream).await;
    let answer = ask(&world, "auth", "/", &[("x-user", "root")]).await;
    assert_eq!((answer.status, answer.saw("x-user")), (200, None));
}

/// Hop-by-hop fields end here (RFC 9110 7.6.1); a client has no say in which of ours are.
#[tokio::test]
async fn attack_a_connection_field_takes_nothing_away_that_the_authority_said() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let world = taking("X-User", &authority, &upstream).await;
    let fields = [("x-token", "good"), ("x-own", "1"), ("connection", "X-User, X-Own")];
    let answer = ask(&world, "auth", "/", &fields).await;
    assert_eq!((answer.status, answer.saw("x-user")), (200, Some("ann")));
    assert_eq!(answer.saw("x-own"), None);
}

/// nginx would tell the endpoint a length that is another body's.
#[tokio::test]
async fn attack_smuggling_who_is_asked_says_nothing_of_lengths_and_connections() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let names = "X-User, Content-Length, Connection";
    let world = taking(names, &authority, &upstream).await;
    let mut request = request("auth.example", "/");
    *request.method_mut() = http::Method::POST;
    *request.body_mut() = Full::from("longer than what the authority says");
    request.headers_mut().insert("x-token", "good".parse().unwrap());
    let answer = send(&mut connect(world.http()).await, request).await;
    assert_eq!((answer.status, answer.saw("x-user")), (200, Some("ann")));
    assert!(answer.body.ends_with("\nlonger than what the authority says"), "{}", answer.body);
    let reasons = world.reasons("auth");
    let is_said = |reason: &String| reason.contains("names content-length, connection: ");
    assert!(reasons.iter().any(is_said), "{reasons:?}");
}

/// Some take trailers for fields nobody has looked at (CVE-2013-5704).
#[tokio::test]
async fn attack_a_trailer_says_nothing_that_the_authority_is_asked_for() {
    let (upstream, silent) = (Upstream::echo("web").await, Upstream::echo("auth").await);
    let world = taking("X-User", &silent, &upstream).await;
    let answer = raw(
        world.http(),
        b"POST / HTTP/1.1\r\nHost: auth.example\r\nTransfer-Encoding: chunked\r\n\
          Trailer: X-User\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\nX-User: root\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\na"), "{answer}");
    assert!(!answer.contains("root"), "{answer}");
}

/// Everybody was asked about again whenever anything of the Ingress changed.
#[tokio::test]
async fn bug_answers_are_remembered_when_an_ingress_is_read_again() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/plain", authority.address);
    let [url, key] = [("auth-url", url.as_str()), ("auth-cache-key", "$http_x_token")];
    let with = |change| site("cached", &[url, key, change]).object();
    objects.push(with(("proxy-body-size", "1m")));
    let mut world = World::new(objects).await;
    for (change, asked) in [
        (("proxy-body-size", "2m"), 1),
        (("proxy-read-timeout", "3"), 1),
        // Who is asked otherwise may say something else.
        (("auth-method", "POST"), 2),
    ] {
        world.apply(vec![with(change)]).await;
        assert_eq!(ask(&world, "cached", "/", &[("x-token", "good")]).await.status, 200);
        assert_eq!(authority.requests(), asked, "{change:?}");
    }
}

#[tokio::test]
async fn answers_are_remembered_under_their_key_and_as_long_as_is_said() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/plain", authority.address);
    let url = ("auth-url", url.as_str());
    let key = ("auth-cache-key", "$http_x_token");
    objects.extend(
        [
            site("cached", &[url, key]),
            site("only-200", &[url, key, ("auth-cache-duration", "200 5m")]),
            site("brief", &[url, key, ("auth-cache-duration", "200 1s")]),
            site("not", &[url]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    for (name, token, status, asked) in [
        ("cached", "good", 200, 1),
        ("cached", "bad", 401, 1),
        ("cached", "forbidden", 403, 3),
        ("only-200", "good", 200, 1),
        ("only-200", "bad", 401, 3),
        ("not", "good", 200, 3),
    ] {
        let before = authority.requests();
        for _ in 0..3 {
            assert_eq!(ask(&world, name, "/", &[("x-token", token)]).await.status, status);
        }
        assert_eq!(authority.requests() - before, asked, "{name} {token}");
    }
    // No longer than its giver says.
    for (said, asked) in [
        ("cache-control=no-store", 3),
        ("cache-control=private", 3),
        ("x-accel-expires=0", 3),
        ("set-cookie=sid=1", 3),
        ("vary=*", 3),
        ("vary=x-token", 1),
        ("cache-control=max-age=60", 1),
    ] {
        let (before, token) = (authority.requests(), said.len().to_string());
        for _ in 0..3 {
            // A key of its own.
            let fields = [("x-token", &*token), ("x-say", said)];
            assert_eq!(ask(&world, "cached", "/", &fields).await.status, 401, "{said}");
        }
        assert_eq!(authority.requests() - before, asked, "{said}");
    }
    // Until its time is over.
    let (before, start) = (authority.requests(), Instant::now());
    while authority.requests() - before < 2 {
        assert_eq!(ask(&world, "brief", "/", &[("x-token", "good")]).await.status, 200);
        assert!(start.elapsed() < PATIENCE, "it is remembered for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

/// With a key that many share, whoever came second got the first one's session.
#[tokio::test]
async fn attack_a_cookie_for_one_client_is_not_given_to_the_next() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/plain", authority.address);
    objects.push(site("a", &[("auth-url", &url), ("auth-cache-key", "$host")]).object());
    let world = World::new(objects).await;
    let good = ("x-token", "good");
    let first = ask(&world, "a", "/", &[good, ("x-say", "set-cookie=sid=ann")]).await;
    assert_eq!((first.status, first.headers["set-cookie"].as_bytes()), (200, &b"sid=ann"[..]));
    let second = ask(&world, "a", "/", &[good]).await;
    assert_eq!((second.status, second.headers.get("set-cookie")), (200, None));
    let by_field = [good, ("x-say", "vary=x-user")];
    assert_eq!(ask(&world, "a", "/", &by_field).await.status, 200, "it is remembered by now");
    assert_eq!(authority.requests(), 2);
}

/// A key that is too long is cut, and with it what tells clients apart.
#[tokio::test]
async fn attack_under_a_key_that_was_cut_nobody_is_let_in_by_anothers_answer() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/plain", authority.address);
    let key = ("auth-cache-key", "$http_x_pad$http_x_token");
    objects.push(site("cached", &[("auth-url", &url), key]).object());
    let world = World::new(objects).await;
    let pad = "x".repeat(17 << 10);
    for (token, status) in [("good", 200), ("bad", 401)] {
        let answer = ask(&world, "cached", "/", &[("x-pad", &pad), ("x-token", token)]).await;
        assert_eq!(answer.status, status, "{token}");
    }
}

/// To a template a field that is no text is as good as none: an answer would be everybody's.
#[tokio::test]
async fn attack_who_says_nothing_is_not_let_in_by_the_answer_to_words_that_are_no_text() {
    let upstream = Upstream::echo("web").await;
    let is_known =
        |fields: &HeaderMap| fields.values().any(|value| value.as_bytes() == b"sid=\xe9ve");
    let authority = Upstream::knowing(is_known, StatusCode::UNAUTHORIZED).await;
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/", authority.address);
    for (name, key) in [("field", "$http_x_token"), ("cookie", "$cookie_sid")] {
        objects.push(site(name, &[("auth-url", &url), ("auth-cache-key", key)]).object());
    }
    let world = World::new(objects).await;
    for (name, field) in [("field", "X-Token"), ("cookie", "Cookie")] {
        let head = format!("GET / HTTP/1.1\r\nHost: {name}.example\r\nConnection: close\r\n");
        let words = [head.as_bytes(), field.as_bytes(), b": sid=\xe9ve\r\n\r\n"].concat();
        let nothing = format!("{head}\r\n");
        for (bytes, status) in [(&words[..], 200), (nothing.as_bytes(), 401), (&words[..], 200)] {
            let answer = raw(world.http(), bytes).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        }
    }
}

/// CVE-2026-24513: an error page must not stand in for what was kept from the client.
#[tokio::test]
async fn cve_2026_24513_an_error_page_never_lets_in_who_was_kept_out() {
    let (upstream, pages, authority) =
        (Upstream::echo("web").await, Upstream::echo("pages").await, authority().await);
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(backend("pages", &[pages.address]));
    let url = format!("http://{}/verify", authority.address);
    let with = [
        ("auth-url", url.as_str()),
        ("custom-http-errors", "401,403,404"),
        ("default-backend", "pages"),
    ];
    objects.push(site("a", &with).object());
    let world = World::new(objects).await;
    for (token, status) in [("", 401), ("forbidden", 403)] {
        let answer = ask(&world, "a", "/", &[("x-token", token)]).await;
        assert_eq!(answer.who(), (status, "pages"));
    }
    assert_eq!(upstream.requests(), 0);
}

/// What was asked was the beginning of an address: another one.
#[tokio::test]
async fn attack_an_address_that_would_be_cut_is_not_asked_and_nobody_is_sent_to_one() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let mut objects = backend("web", &[upstream.address]);
    let thrice = "$http_x_pad$http_x_pad$http_x_pad";
    let url = format!("http://{}/plain", authority.address);
    let long = format!("{url}?{thrice}");
    let signin = format!("https://login.example/?{thrice}");
    let location = format!("https://b.example/{thrice}");
    objects.extend([
        site("asked", &[("auth-url", &long)]).object(),
        site("signin", &[("auth-url", &url), ("auth-signin", &signin)]).object(),
        site("elsewhere", &[("temporal-redirect", &location)]).object(),
        site("rewritten", &[("rewrite-target", &format!("/{thrice}"))]).object(),
    ]);
    let world = World::new(objects).await;
    for (name, short, long) in [
        ("asked", 401, 500),
        ("signin", 302, 500),
        ("elsewhere", 302, 414),
        ("rewritten", 200, 414),
    ] {
        for (pad, status) in [("x".repeat(100), short), ("x".repeat(6 << 10), long)] {
            let before = (upstream.requests(), authority.requests());
            let answer = ask(&world, name, "/", &[("x-pad", &pad)]).await;
            assert_eq!(answer.status, status, "{name} {}", pad.len());
            let is_asked = authority.requests() > before.1;
            assert!(status != 500 || name == "signin" || !is_asked, "{name} {}", pad.len());
            assert_eq!(upstream.requests() > before.0, status == 200, "{name} {}", pad.len());
        }
    }
}

/// Each request was answered 500, and the log said once that it leads to this node.
#[tokio::test]
async fn an_url_with_an_address_that_is_kept_has_a_finding_with_the_cure() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(
        [
            site("asked", &[("auth-url", "http://127.0.0.1:30080/verify")]),
            site("copied", &[("mirror-target", "https://[::ffff:169.254.169.254]$request_uri")]),
            site(
                "fine",
                &[("auth-url", "http://192.0.2.1:4180/"), ("mirror-target", "http://a.b/")],
            ),
            // A request says which one it is.
            site("open", &[("auth-url", "http://$http_x_host/")]),
        ]
        .map(IngressExt::object),
    );
    let config = IngressConfig { inside_allowed: Vec::new(), ..config() };
    let world = World::with(config, objects).await;
    let kept = |place: &str| {
        format!(
            "it has only addresses of this node, its links or a cloud's metadata, where nobody is \
             led ({place}): of the node's own, ports 80, 443 and those of Ingress alone are \
             reached, unless --inside-networks has the address"
        )
    };
    let asked = kept("127.0.0.1:30080");
    let asked =
        format!("refused: auth-url leads nowhere: {asked}; its paths answer 500 until then");
    assert_eq!(world.reasons("asked"), [asked]);
    let copied = kept("169.254.169.254:443");
    let copied =
        format!("refused: mirror-target leads nowhere: {copied}; nothing is copied until then");
    assert_eq!(world.reasons("copied"), [copied]);
    for name in ["fine", "open"] {
        assert_eq!(world.reasons(name), [""; 0], "{name}");
    }
    assert_eq!(ask(&world, "asked", "/", &[]).await.status, 500);
    assert_eq!(ask(&world, "copied", "/", &[]).await.status, 200);
}
