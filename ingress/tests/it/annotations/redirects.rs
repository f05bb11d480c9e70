//! Requests that are sent somewhere else.

use fairlead_ingress::{IngressConfig, Refused};
use fairlead_state::model::PathType::Prefix;
use http::Method;

use super::site;
use crate::support::{
    World,
    client::{Answer, connect, get, request, send},
    config,
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

fn moved(answer: &Answer) -> (u16, Option<&str>) {
    let location = answer.headers.get("location");
    (answer.status, location.map(|value| value.to_str().unwrap()))
}

#[tokio::test]
async fn annotations_send_requests_elsewhere() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let to = "https://b.example/x";
    objects.extend(
        [
            site("permanent", &[("permanent-redirect", to)]),
            site("code", &[("permanent-redirect", to), ("permanent-redirect-code", "308")]),
            site("bad-code", &[("permanent-redirect", to), ("permanent-redirect-code", "200")]),
            site("temporal", &[("temporal-redirect", to), ("permanent-redirect", "https://c/")]),
            site("seeother", &[("temporal-redirect", to), ("temporal-redirect-code", "303")]),
            site("same", &[("permanent-redirect", "https://b.example$request_uri")]),
            site("path", &[("permanent-redirect", "/new")]),
            site("relative", &[("permanent-redirect", "/new"), ("relative-redirects", "true")]),
            site("bad", &[("permanent-redirect", "javascript:alert(1)")]),
            site("root", &[("app-root", "/app?x=1")]),
            site("bad-root", &[("app-root", "//evil.example")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    for (name, path, expected) in [
        ("permanent", "/a", (301, Some(to))),
        ("code", "/a", (308, Some(to))),
        ("bad-code", "/a", (301, Some(to))),
        ("temporal", "/a", (302, Some(to))),
        ("seeother", "/a", (303, Some(to))),
        ("same", "/a/../b?c=d", (301, Some("https://b.example/b?c=d"))),
        ("path", "/a", (301, Some("http://path.example/new"))),
        ("relative", "/a", (301, Some("/new"))),
        ("bad", "/a", (200, None)),
        ("root", "/", (302, Some("http://root.example/app?x=1"))),
        ("root", "/app", (200, None)),
        ("bad-root", "/", (200, None)),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), path).await;
        assert_eq!(moved(&answer), expected, "{name} {path}");
    }
    assert_eq!(world.reasons("bad-code").len(), 1);
    assert_eq!(world.reasons("bad").len(), 1);
    assert_eq!(world.reasons("bad-root").len(), 1);
}

#[tokio::test]
async fn a_redirect_to_https_keeps_what_it_is_told_to_keep() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let force = ("force-ssl-redirect", "true");
    objects.extend(
        [
            site("plain", &[force]),
            site("keep", &[force, ("preserve-trailing-slash", "true")]),
            site("port", &[force, ("use-port-in-redirects", "true")]),
            site("moved", &[force, ("permanent-redirect", "https://b.example")]),
        ]
        .map(IngressExt::object),
    );
    let config = IngressConfig { https_redirect_port: Some(443), ..config() };
    let world = World::with(config, objects).await;
    for (name, path, location) in [
        ("plain", "/a/", "https://plain.example/a"),
        ("plain", "/", "https://plain.example/"),
        ("plain", "/a/?b=/", "https://plain.example/a/?b=/"),
        ("keep", "/a/", "https://keep.example/a/"),
        ("port", "/a", "https://port.example:443/a"),
        // nginx's `return` comes before the redirect to HTTPS.
        ("moved", "/a", "https://b.example"),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), path).await;
        assert_eq!(moved(&answer).1, Some(location), "{name} {path}");
    }
}

/// Each row as nginx 1.22 answered it, by the locations and directives ingress-nginx makes.
#[tokio::test]
async fn a_missing_slash_is_added_for_any_method_and_the_query_stays() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let dir = |name: &str, annotations: &[(&str, &str)]| {
        let host = format!("{name}.example");
        super::annotated(ingress(name).rule(&host, &[(Prefix, "/d/", "web")]), annotations).object()
    };
    objects.extend([
        dir("plain", &[]),
        dir("relative", &[("relative-redirects", "true")]),
        dir("port", &[("use-port-in-redirects", "true")]),
    ]);
    let world = World::new(objects).await;
    let with_port = format!("http://port.example:{}/d/", world.http().port());
    for (method, host, path, location) in [
        (Method::GET, "plain.example", "/d", "http://plain.example/d/"),
        (Method::GET, "plain.example", "/d?a=b", "http://plain.example/d/?a=b"),
        (Method::GET, "plain.example", "/x/../d", "http://plain.example/d/"),
        (Method::HEAD, "plain.example", "/d", "http://plain.example/d/"),
        (Method::POST, "plain.example", "/d?a=b", "http://plain.example/d/?a=b"),
        (Method::PUT, "plain.example", "/d", "http://plain.example/d/"),
        (Method::DELETE, "plain.example", "/d", "http://plain.example/d/"),
        (Method::OPTIONS, "plain.example", "/d", "http://plain.example/d/"),
        // A port is named where it is asked for, and it is the listener's.
        (Method::GET, "plain.example:8443", "/d", "http://plain.example/d/"),
        (Method::GET, "port.example:8443", "/d", &*with_port),
        (Method::GET, "relative.example", "/d", "/d/"),
        (Method::GET, "relative.example", "/d?a=b", "/d/?a=b"),
    ] {
        let mut asked = request(host, path);
        *asked.method_mut() = method.clone();
        let answer = send(&mut connect(world.http()).await, asked).await;
        assert_eq!(moved(&answer), (301, Some(location)), "{method} {host}{path}");
    }
    assert_eq!(upstream.requests(), 0);
}

/// ingress-nginx: a denied location is `return 503` and nothing else.
#[tokio::test]
async fn a_path_nobody_is_let_in_to_is_503_and_sends_nobody_elsewhere() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let shut = ("denylist-source-range", "everybody");
    let dir = ingress("dir").rule("dir.example", &[(Prefix, "/d/", "web")]);
    objects.extend([
        site("https", &[shut, ("force-ssl-redirect", "true")]).object(),
        site("moved", &[shut, ("permanent-redirect", "https://b.example")]).object(),
        site("rewritten", &[shut, ("rewrite-target", "https://b.example/")]).object(),
        site("said", &[shut, ("configuration-snippet", "return 403 no;")]).object(),
        super::annotated(dir, &[shut]).object(),
    ]);
    let world = World::new(objects).await;
    let paths = [
        ("https", "/a"),
        ("moved", "/a"),
        ("rewritten", "/a"),
        ("said", "/a"),
        ("dir", "/d"),
        ("dir", "/d/"),
    ];
    for (name, path) in paths {
        let answer = get(world.http(), &format!("{name}.example"), path).await;
        assert_eq!(moved(&answer), (503, None), "{name} {path}");
        assert!(answer.body.contains("nobody is let in"), "{name}: {}", answer.body);
    }
    assert_eq!(upstream.requests(), 0);
    assert_eq!(world.running.counters().refused[&Refused::Misconfigured], paths.len() as u64);
}

/// ingress-nginx: createServers.
#[tokio::test]
async fn bug_a_host_without_paths_is_led_away() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let to = ("permanent-redirect", "https://new.example$request_uri");
    let without = |name: &str, host| super::annotated(ingress(name).rule(host, &[]), &[to]);
    let some = ingress("some").rule("some.example", &[(Prefix, "/a", "web")]);
    objects.extend([
        without("old", "old.example").object(),
        without("wild", "*.wild.example").object(),
        without("any", "*").object(),
        super::annotated(some, &[to]).object(),
        ingress("main").host("taken.example", "web").object(),
        without("zz", "taken.example").object(),
        ingress("bare").rule("bare.example", &[]).object(),
    ]);
    let world = World::new(objects).await;
    for (host, path, expected) in [
        ("old.example", "/", (301, Some("https://new.example/"))),
        ("old.example", "/a?b", (301, Some("https://new.example/a?b"))),
        ("x.wild.example", "/a", (301, Some("https://new.example/a"))),
        ("some.example", "/a", (301, Some("https://new.example/a"))),
        ("some.example", "/", (301, Some("https://new.example/"))),
        ("taken.example", "/", (200, None)),
        ("bare.example", "/", (404, None)),
        ("other.example", "/", (404, None)),
    ] {
        let answer = get(world.http(), host, path).await;
        assert_eq!(moved(&answer), expected, "{host}{path}");
    }
    let taken = "refused: host taken.example belongs to default/main, and no path of it is this \
                 one's: it redirects nobody";
    assert_eq!(world.reasons("zz"), [taken]);
    let bare = "differs: host bare.example has neither a path nor a default backend: it is answered \
                404";
    assert_eq!(world.reasons("bare"), [bare]);
    assert_eq!(world.reasons("any"), [bare.replace("bare.example", "*")]);
    for name in ["old", "wild", "some"] {
        assert!(world.reasons(name).is_empty(), "{name}: {:?}", world.reasons(name));
    }
}

#[tokio::test]
async fn www_and_the_bare_name_lead_to_the_one_that_has_rules() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let www = [("from-to-www-redirect", "true")];
    objects.extend([
        site("bare", &www).object(),
        super::annotated(ingress("with").host("www.with.example", "web"), &www).object(),
        super::annotated(ingress("both").host("both.example", "web"), &www).object(),
        ingress("own").host("www.both.example", "web").object(),
    ]);
    let mut world = World::new(objects).await;
    let port = world.http().port();
    for (host, path, expected) in [
        ("bare.example", "/", None),
        ("www.bare.example", "/a/?b", Some(format!("http://bare.example:{port}/a/?b"))),
        ("with.example", "/a", Some(format!("http://www.with.example:{port}/a"))),
        ("www.with.example", "/a", None),
        // Whoever has rules keeps them.
        ("www.both.example", "/", None),
        ("both.example", "/", None),
    ] {
        let answer = get(world.http(), host, path).await;
        let status = if expected.is_some() { 308 } else { 200 };
        assert_eq!(moved(&answer), (status, expected.as_deref()), "{host}");
    }
    world.delete(crate::support::objects::ingress_ref("own")).await;
    assert_eq!(get(world.http(), "www.both.example", "/").await.status, 308);
    world.delete(crate::support::objects::ingress_ref("both")).await;
    assert_eq!(get(world.http(), "www.both.example", "/").await.status, 404);
}

#[tokio::test]
async fn an_alias_is_served_as_its_host_unless_it_has_rules() {
    let (web, other) = (Upstream::echo("web").await, Upstream::echo("other").await);
    let mut objects = backend("web", &[web.address]);
    objects.extend(backend("other", &[other.address]));
    let alias = [("server-alias", "alias.example, *.wild.example, taken.example")];
    objects.extend([
        site("main", &alias).object(),
        ingress("more").rule("main.example", &[(Prefix, "/other", "other")]).object(),
        ingress("taken").host("taken.example", "other").object(),
        site("regex", &[("server-alias", "~^www\\d+\\.example$")]).object(),
        site("mixed", &[("server-alias", "x.example, ~^www\\d+\\.example$, y.example")]).object(),
    ]);
    let mut world = World::new(objects).await;
    for (host, path, expected) in [
        ("alias.example", "/", "web"),
        ("alias.example", "/other", "other"),
        ("a.wild.example", "/", "web"),
        ("taken.example", "/", "other"),
        // An expression takes no other alias with it.
        ("x.example", "/", "web"),
        ("y.example", "/", "web"),
        ("main.example", "/", "web"),
    ] {
        assert_eq!(get(world.http(), host, path).await.who(), (200, expected), "{host}{path}");
    }
    assert_eq!(
        world.reasons("main"),
        ["refused: alias taken.example has rules of its own, which are served"]
    );
    for name in ["regex", "mixed"] {
        let reasons = world.reasons(name);
        let is_named = reasons.iter().all(|reason| reason.contains("host \"~^www"));
        assert!(reasons.len() == 1 && is_named, "{name}: {reasons:?}");
    }
    // A path added later to the host is one of its aliases, too.
    let more = ingress("more")
        .rule("main.example", &[(fairlead_state::model::PathType::Prefix, "/later", "other")]);
    world.apply(vec![more.object()]).await;
    assert_eq!(get(world.http(), "alias.example", "/later").await.who(), (200, "other"));
    assert_eq!(get(world.http(), "alias.example", "/other").await.who(), (200, "web"));
}
