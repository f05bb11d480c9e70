//! Several that could let a request in, of which one is enough (nginx: satisfy any).

use fairlead_state::model::PathType::Prefix;

use super::{
    annotated,
    auth::{ask, authority},
    passwords::{ANN, RIGHT},
    site,
};
use crate::support::{
    World,
    objects::{IngressExt, backend, ingress, opaque},
    upstream::Upstream,
};

const GOOD: (&str, &str) = ("x-token", "good");
const FORBIDDEN: (&str, &str) = ("x-token", "forbidden");
const BROKEN: (&str, &str) = ("x-token", "broken");
const OWN: (&str, &str) = ("allowlist-source-range", "127.0.0.0/8");
const OTHER: (&str, &str) = ("allowlist-source-range", "192.0.2.0/24");
const NOT_OTHER: (&str, &str) = ("denylist-source-range", "192.0.2.0/24");
const NOT_OWN: (&str, &str) = ("denylist-source-range", "127.0.0.0/8");
const ANY: (&str, &str) = ("satisfy", "any");
const PASSWORD: &[(&str, &str)] = &[("auth-type", "basic"), ("auth-secret", "file")];

/// Whom whoever is asked names is known by fields: a client that came in another way set them itself.
#[tokio::test]
async fn attack_nobody_names_himself_whatever_lets_him_in() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let mut objects = backend("web", &[upstream.address]);
    objects.push(opaque("file", &[("auth", ANN)]));
    let url = format!("http://{}/", authority.address);
    let url = [("auth-url", url.as_str()), ("auth-response-headers", "X-User")];
    for (name, annotations) in [
        ("address", [&url[..], &[OWN, ANY]].concat()),
        ("address-or-password", [&url[..], PASSWORD, &[OWN, ANY]].concat()),
        ("password", [&url[..], PASSWORD, &[OTHER, ANY]].concat()),
        ("both", [&url[..], PASSWORD].concat()),
        ("password-alone", PASSWORD.to_vec()),
    ] {
        objects.push(site(name, &annotations).object());
    }
    let world = World::new(objects).await;
    let claim = ("x-user", "root");
    for (name, fields, user, authorization) in [
        ("address", &[][..], None, Some(RIGHT.1)),
        ("address-or-password", &[], None, None),
        ("password", &[], None, None),
        ("password", &[GOOD], None, None),
        ("both", &[GOOD], Some("ann"), None),
        ("password-alone", &[], Some("root"), None),
    ] {
        let fields = [&[claim, RIGHT], fields].concat();
        let answer = ask(&world, name, "/", &fields).await;
        assert_eq!(answer.who(), (200, "web"), "{name}");
        assert_eq!(answer.saw("x-user"), user, "{name} {fields:?}");
        assert_eq!(answer.saw("authorization"), authorization, "{name} {fields:?}");
    }
    let by_authority = ask(&world, "password", "/", &[claim, GOOD]).await;
    assert_eq!(by_authority.saw("x-user"), Some("ann"));
}

/// Paths of certificate authorities ask nobody, and believe nobody either.
#[tokio::test]
async fn attack_nobody_names_himself_where_nobody_is_asked() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let open = [(Prefix, "/.well-known/acme-challenge", "web"), (Prefix, "/", "web")];
    let asking = [("auth-url", "http://127.0.0.1:1/"), ("auth-response-headers", "X-User")];
    let ingress = annotated(ingress("acme").rule("acme.example", &open), &asking);
    objects.push(ingress.object());
    let world = World::new(objects).await;
    let claim = [("x-user", "root"), RIGHT];
    let answer = ask(&world, "acme", "/.well-known/acme-challenge/x", &claim).await;
    assert_eq!(answer.who(), (200, "web"));
    assert_eq!((answer.saw("x-user"), answer.saw("authorization")), (None, Some(RIGHT.1)));
    assert_eq!(ask(&world, "acme", "/x", &claim).await.status, 500);
}

#[tokio::test]
async fn one_of_address_password_and_authority_is_enough() {
    let (upstream, authority) = (Upstream::echo("web").await, authority().await);
    let mut objects = backend("web", &[upstream.address]);
    objects.push(opaque("file", &[("auth", ANN)]));
    let url = format!("http://{}/", authority.address);
    let url = ("auth-url", url.as_str());
    let signin = ("auth-signin", "https://login.example/");
    for (name, annotations) in [
        ("any", [PASSWORD, &[url, ANY]].concat()),
        ("any-other", [PASSWORD, &[url, ANY, OTHER]].concat()),
        ("any-own", [PASSWORD, &[url, ANY, OWN]].concat()),
        ("any-not-other", [PASSWORD, &[url, ANY, NOT_OTHER]].concat()),
        ("any-not-own", [PASSWORD, &[url, ANY, NOT_OWN]].concat()),
        ("any-signin", [PASSWORD, &[url, ANY, signin]].concat()),
        ("any-password", [PASSWORD, &[ANY, NOT_OTHER]].concat()),
        ("all", [PASSWORD, &[url]].concat()),
        ("all-own", [PASSWORD, &[url, OWN]].concat()),
        ("all-not-own", [PASSWORD, &[url, NOT_OWN]].concat()),
    ] {
        objects.push(site(name, &annotations).object());
    }
    let world = World::new(objects).await;
    let (none, both) = (&[][..], &[RIGHT, GOOD][..]);
    for (name, fields, status) in [
        ("any", none, 401),
        ("any", &[RIGHT], 200),
        ("any", &[GOOD], 200),
        ("any", both, 200),
        ("any", &[FORBIDDEN], 401),
        ("any", &[BROKEN], 500),
        ("any", &[RIGHT, FORBIDDEN], 200),
        ("any-other", none, 401),
        ("any-other", &[GOOD], 200),
        ("any-own", none, 200),
        // Who is on no list is let in by none.
        ("any-not-other", none, 401),
        ("any-not-other", &[RIGHT], 200),
        ("any-not-own", &[GOOD], 200),
        ("any-signin", none, 302),
        ("any-signin", &[RIGHT], 200),
        ("any-password", none, 401),
        ("any-password", &[RIGHT], 200),
        ("all", none, 401),
        ("all", &[RIGHT], 401),
        ("all", &[GOOD], 401),
        ("all", both, 200),
        ("all-own", both, 200),
        ("all-own", none, 401),
        ("all-not-own", both, 403),
    ] {
        let answer = ask(&world, name, "/", fields).await;
        assert_eq!(answer.status, status, "{name} {fields:?}");
    }
    // Both ways in are told of.
    let answer = ask(&world, "any", "/", &[]).await;
    let ways: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(ways, ["Bearer", "Basic realm=\"Authentication Required\""]);
    // A wrong password costs whoever is asked nothing.
    let asked = authority.requests();
    assert_eq!(ask(&world, "all", "/", &[GOOD]).await.status, 401);
    assert_eq!(authority.requests(), asked);
}
