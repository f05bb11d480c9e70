//! What is between a client and whoever guards a route: it is nothing for mirrors, nor can a client
//! tell a mirror what that one says.

use http::{HeaderMap, Method, Request};
use http_body_util::Full;

use super::{Mirror, mirrored};
use crate::{
    annotations::{
        auth::{ask, authority},
        client_tls::{self, CA, certificate},
        passwords::{ANN, ANN_OF_SHOP, RIGHT, digest},
    },
    support::{
        World,
        client::{connect, request, send},
        objects::{Authority, backend, opaque},
        upstream::Upstream,
    },
    upstream_tls::pem,
};

#[tokio::test]
async fn attack_a_password_that_opens_a_route_does_not_go_to_its_mirror() {
    let upstream = Upstream::echo("web").await;
    let mut mirror = Mirror::new(true).await;
    let url = mirror.url();
    let mut objects = backend("web", &[upstream.address]);
    let kind = |kind: &'static str| ("auth-type", kind);
    objects.extend([
        opaque("users", &[("auth", ANN)]),
        opaque("shop", &[("auth", ANN_OF_SHOP)]),
        mirrored("basic", &url, &[kind("basic"), ("auth-secret", "users")]),
        mirrored(
            "digest",
            &url,
            &[kind("digest"), ("auth-secret", "shop"), ("auth-realm", "shop")],
        ),
        mirrored("open", &url, &[]),
    ]);
    let world = World::new(objects).await;
    let asked = ask(&world, "digest", "/x", &[]).await;
    let challenge = asked.headers["www-authenticate"].to_str().unwrap().to_owned();
    let words = digest(&challenge, "/x", "secret");
    for (name, words, expected) in [
        ("basic", RIGHT.1, None),
        ("digest", &*words, None),
        // The endpoint's own: both are sent it.
        ("open", RIGHT.1, Some(RIGHT.1)),
    ] {
        let answer = ask(&world, name, "/x", &[("authorization", words)]).await;
        assert_eq!((answer.status, answer.saw("authorization")), (200, expected), "{name}");
        let copy = mirror.next().await;
        assert_eq!((&*copy.asks, copy.field("authorization")), ("GET /x", expected), "{name}");
    }
}

#[tokio::test]
async fn attack_a_client_does_not_tell_a_mirror_who_it_is_nor_is_the_mirror_told() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let mut mirror = Mirror::new(true).await;
    let url = mirror.url();
    let mut objects = backend("web", &[upstream.address]);
    let auth = format!("http://{}/", authority.address);
    let snippet = "proxy_set_header X-Role guest;\nproxy_set_header X-Secret \"\";\n";
    objects.push(mirrored(
        "a",
        &url,
        &[
            ("auth-url", &auth),
            ("auth-response-headers", "X-User, X-Missing"),
            ("configuration-snippet", snippet),
        ],
    ));
    let world = World::new(objects).await;
    let said: HeaderMap = ["x-user", "x-missing", "x-role", "x-secret", "x-other"]
        .map(|name| (name.parse().unwrap(), "root".parse().unwrap()))
        .into_iter()
        .collect();
    for (method, body, connection) in [
        (Method::GET, "", None),
        (Method::POST, "hello", None),
        (Method::POST, "hello", Some("x-user, x-role")),
    ] {
        let mut asks: Request<Full<_>> = request("a.example", "/x");
        asks.headers_mut().extend(said.clone());
        asks.headers_mut().insert("x-token", "good".parse().unwrap());
        if let Some(connection) = connection {
            asks.headers_mut().insert("connection", connection.parse().unwrap());
        }
        *asks.method_mut() = method.clone();
        *asks.body_mut() = Full::from(body);
        let answer = send(&mut connect(world.http()).await, asks).await;
        let copy = mirror.next().await;
        assert_eq!(copy.body.as_deref(), Some(body.as_bytes()), "{method}");
        for (name, told, copied) in [
            ("x-user", Some("ann"), None),
            ("x-missing", None, None),
            ("x-role", Some("guest"), None),
            ("x-secret", None, None),
            ("x-other", Some("root"), Some("root")),
        ] {
            assert_eq!(answer.saw(name), told, "{method}: {name}");
            assert_eq!(copy.field(name), copied, "{method}: {name}");
        }
    }
}

#[tokio::test]
async fn attack_a_client_does_not_tell_a_mirror_whose_certificate_it_has() {
    let ours = Authority::new();
    let upstream = Upstream::echo("web").await;
    let mut mirror = Mirror::new(true).await;
    let url = mirror.url();
    let target = ("mirror-target", url.as_str());
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        opaque("ca", &[("ca.crt", &pem(&ours))]),
        client_tls::secured("a", &[CA, target]),
    ]);
    let world = World::new(objects).await;
    // It sends fields of a certificate, each "forged".
    let answer = client_tls::ask(&world, "a.example", "a.example", certificate(&ours)).await;
    assert_eq!((answer.status, answer.saw("ssl-client-verify")), (200, Some("SUCCESS")));
    let copy = mirror.next().await;
    assert_eq!(copy.asks, "GET /");
    for field in ["verify", "subject-dn", "issuer-dn", "cert"] {
        assert_eq!(copy.field(&format!("ssl-client-{field}")), None, "{field}");
    }
}
