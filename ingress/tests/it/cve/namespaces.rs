//! What is of another namespace stays out of reach, whatever names it.

use std::collections::BTreeSet;

use fairlead_ingress::ANNOTATIONS;
use fairlead_state::{
    Key, Object,
    model::{ConfigMap, Ingress},
    source::references,
};

use super::{ANN, ask};
use crate::{
    annotations::site,
    support::{
        World,
        client::get,
        objects::{Authority, IngressExt, backend, opaque_in, secret},
        upstream::Upstream,
    },
    tls::shown,
    upstream_tls::pem,
};

/// What Secrets and ConfigMaps are named by.
const NAMED: [&str; 5] = [
    "auth-proxy-set-headers",
    "auth-secret",
    "auth-tls-secret",
    "custom-headers",
    "proxy-ssl-secret",
];

/// Passwords were files named after namespace and Ingress, and `a-b` with `c` was `a` with `b-c`.
#[tokio::test]
async fn cve_2020_8553_passwords_of_one_namespace_open_no_other() {
    let auth = [("auth-type", "basic"), ("auth-secret", "users"), ("auth-secret-type", "auth-map")];
    let one = Ingress { key: Key::new("a", "b-c"), ..site("one", &auth) };
    let two = Ingress { key: Key::new("a-b", "c"), ..site("two", &auth) };
    let world = World::new(vec![
        opaque_in("a", "users", &[("ann", "{PLAIN}one")]),
        opaque_in("a-b", "users", &[("ann", "{PLAIN}two")]),
        one.object(),
        two.object(),
    ])
    .await;
    // Of "ann:two"; there is no Service behind.
    let (one, two) = (ANN, "Basic YW5uOnR3bw==");
    for (host, words, status) in [
        ("one.example", one, 503),
        ("one.example", two, 401),
        ("two.example", two, 503),
        ("two.example", one, 401),
    ] {
        let answer = ask(&world, host, "authorization", words).await;
        assert_eq!(answer.status, status, "{host}: {words}");
    }
}

/// A name of a Secret was a part of a path of a file.
#[tokio::test]
async fn cve_2025_24513_a_secrets_name_leads_out_of_no_namespace() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(opaque_in("other", "users", &[("ann", "{PLAIN}one")]));
    let names =
        ["other/users", "../other/users", "default/../other/users", "/etc/passwd", "..%2Fx"];
    for (i, name) in names.iter().enumerate() {
        let auth =
            [("auth-type", "basic"), ("auth-secret", *name), ("auth-secret-type", "auth-map")];
        objects.push(site(&format!("s{i}"), &auth).object());
    }
    let world = World::new(objects).await;
    for (i, name) in names.iter().enumerate() {
        let host = format!("s{i}.example");
        let answer = ask(&world, &host, "authorization", ANN).await;
        assert_eq!(answer.status, 503, "{name}");
    }
    assert_eq!(upstream.requests(), 0);
}

/// Whatever an Ingress says in whatever annotation, objects that are watched for it are of its own
/// namespace.
#[test]
fn no_annotation_has_an_object_of_another_namespace_read() {
    let mut followed = BTreeSet::new();
    for annotation in &*ANNOTATIONS {
        let own = site("own", &[(annotation.name, "default/own")]);
        if references(&own).iter().any(|object| &*object.key.name == "own") {
            followed.insert(annotation.name);
        }
        for text in [
            "other/x",
            "../other/x",
            "default/../other/x",
            "/x",
            "defaulted/x",
            "//x",
            "",
            // Of a selector these would be more than a name, or make it none.
            "x,foo",
            "x,metadata.namespace=other",
            "default/x,metadata.name!=y",
            "=x",
            "x\\",
            "x y",
            "x\ny",
            "X",
        ] {
            let refers = references(&site("own", &[(annotation.name, text)]));
            assert!(refers.is_empty(), "{} {text:?}: {refers:?}", annotation.name);
        }
    }
    assert_eq!(followed.into_iter().collect::<Vec<_>>(), NAMED);
}

/// They are all held, because an Ingress of their own namespace is served by them.
#[tokio::test]
async fn an_object_of_another_namespace_is_never_served_whatever_names_it() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["own.example"]);
    let theirs = |name: &str| Key::new("other", name);
    let own = [
        ("auth-type", "basic"),
        ("auth-secret", "other/users"),
        ("auth-tls-secret", "other/ca"),
        ("auth-tls-verify-client", "optional"),
        ("proxy-ssl-secret", "other/ca"),
        ("custom-headers", "other/headers"),
        ("auth-url", "http://127.0.0.1:1/"),
        ("auth-proxy-set-headers", "other/headers"),
    ];
    let own = Ingress { key: theirs("own"), ..site("own", &own).tls(&["own.example"], "cert") };
    let headers = [("X-Theirs".into(), "1".into())].into();
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        opaque_in("other", "users", &[("auth", "ann:{PLAIN}one")]),
        opaque_in("other", "ca", &[("ca.crt", &pem(&authority))]),
        secret(theirs("cert"), &certificate, &key),
        Object::ConfigMap(ConfigMap { key: theirs("headers"), data: headers }.into()),
        own.object(),
        site("good", &[]).object(),
    ]);
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);
    let cases: [Case<'_>; 5] = [
        ("auth-secret", &[("auth-type", "basic"), ("auth-secret", "other/users")], 503),
        ("auth-tls-secret", &[("auth-tls-secret", "other/ca")], 503),
        (
            "proxy-ssl-secret",
            &[
                ("backend-protocol", "HTTPS"),
                ("proxy-ssl-verify", "on"),
                ("proxy-ssl-secret", "other/ca"),
            ],
            503,
        ),
        (
            "auth-proxy-set-headers",
            &[("auth-url", "http://127.0.0.1:1/"), ("auth-proxy-set-headers", "other/headers")],
            503,
        ),
        ("custom-headers", &[("custom-headers", "other/headers")], 200),
    ];
    let tried: BTreeSet<&str> = cases.iter().map(|(name, ..)| *name).collect();
    assert_eq!(tried.into_iter().collect::<Vec<_>>(), NAMED);
    objects.extend(cases.map(|(name, annotations, _)| site(name, annotations).object()));
    let sections = [("slash", "other/cert"), ("up", "../other/cert"), ("bare", "cert")];
    for (name, secret) in sections {
        objects.push(site(name, &[]).tls(&[&format!("{name}.example")], secret).object());
    }
    let world = World::single(objects).await;
    let of_own = world.reasons("own");
    let has_none = |reason: &String| reason.contains("Secret") || reason.contains("ConfigMap");
    assert!(!of_own.iter().any(has_none), "it has all it names: {of_own:?}");
    let (own, default) = (shown(&world, "own.example").await, shown(&world, "x.example").await);
    assert_ne!(own, default);
    for (name, _, status) in cases {
        let answer = ask(&world, &format!("{name}.example"), "authorization", ANN).await;
        assert_eq!(answer.status, status, "{name}");
        assert!(!answer.headers.contains_key("x-theirs"), "{name}");
        let is_told = |reason: &String| reason.contains("of another namespace and never read");
        assert!(world.reasons(name).iter().any(is_told), "{name}: {:?}", world.reasons(name));
    }
    for (name, secret) in sections {
        assert_eq!(shown(&world, &format!("{name}.example")).await, default, "{name}");
        let missing = format!("Secret default/{secret} does not exist");
        let reasons = world.reasons(name);
        assert!(reasons.iter().any(|reason| reason.contains(&missing)), "{name}: {reasons:?}");
    }
    assert_eq!(get(world.http(), "good.example", "/").await.who(), (200, "web"));
}
