//! Paths as upstreams see them, and paths that are regular expressions.

use fairlead_state::model::PathType::{Exact, ImplementationSpecific, Prefix};

use super::annotated;
use crate::support::{
    World,
    client::get,
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

#[tokio::test]
async fn a_path_is_rewritten_with_what_it_captured() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let path = |name: &str, path: &str, annotations: &[(&str, &str)]| {
        let host = format!("{name}.example");
        let ingress = ingress(name).rule(&host, &[(ImplementationSpecific, path, "web")]);
        annotated(ingress, annotations).object()
    };
    let target = ("rewrite-target", "/$2");
    objects.extend([
        path("nginx", "/something(/|$)(.*)", &[target]),
        path("prefix", "/app(/|$)(.*)", &[target, ("x-forwarded-prefix", "/app")]),
        path("query", "/item/(\\d+)", &[("rewrite-target", "/get?id=$1")]),
        path("dropped", "/item/(\\d+)", &[("rewrite-target", "/get?id=$1?")]),
        path("away", "/old/(.*)", &[("rewrite-target", "https://b.example/$1")]),
        path("further", "/old/(.*)", &[("rewrite-target", "https://b.example/?at=$1")]),
        path("alone", "/old/(.*)", &[("rewrite-target", "https://b.example/$1?")]),
        path("same", "/same", &[("rewrite-target", "/same")]),
        path("plain", "/a", &[("rewrite-target", "/b")]),
        path("bad", "/a/(.*)", &[("rewrite-target", "/\" ; return 200")]),
        path("look", "/a(?=b)", &[target]),
    ]);
    let world = World::new(objects).await;
    for (name, request, seen) in [
        ("nginx", "/something", "GET /"),
        ("nginx", "/something/new?a=b", "GET /new?a=b"),
        ("nginx", "/SOMEthing/a%2Fb", "GET /a%2Fb"),
        ("nginx", "/x/../something/./y", "GET /y"),
        ("prefix", "/app/x", "GET /x"),
        ("query", "/item/42", "GET /get?id=42"),
        ("query", "/item/42?v=1", "GET /get?id=42&v=1"),
        ("dropped", "/item/42?v=1", "GET /get?id=42"),
        ("same", "/same/x", "GET /same/x"),
        ("plain", "/a/x", "GET /b"),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), request).await;
        assert_eq!(answer.body.lines().nth(1), Some(seen), "{name} {request}");
        let prefix = (name == "prefix").then_some("/app");
        assert_eq!(answer.saw("x-forwarded-prefix"), prefix, "{name}");
    }
    for (name, request, expected) in [
        ("away", "/old/x", "https://b.example/x"),
        ("away", "/old/x?q=1", "https://b.example/x?q=1"),
        ("further", "/old/x?q=1", "https://b.example/?at=x&q=1"),
        ("alone", "/old/x?q=1", "https://b.example/x"),
    ] {
        let away = get(world.http(), &format!("{name}.example"), request).await;
        let seen = (away.status, away.headers["location"].to_str().unwrap());
        assert_eq!(seen, (302, expected), "{name} {request}");
    }
    for (name, status) in [("bad", 404), ("look", 404)] {
        let answer = get(world.http(), &format!("{name}.example"), "/other").await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(world.reasons(name).len(), 1, "{name}: {:?}", world.reasons(name));
    }
}

/// "Before You Migrate" (kubernetes.io, 2026-02-27): expressions are prefixes without case, and one
/// makes all paths of its host so, those of other Ingresses and of type Exact, too.
#[tokio::test]
async fn one_expression_makes_expressions_of_all_paths_of_its_host() {
    let (a, b) = (Upstream::echo("a").await, Upstream::echo("b").await);
    let mut objects = backend("a", &[a.address]);
    objects.extend(backend("b", &[b.address]));
    objects.extend([
        annotated(
            ingress("regex").rule("r.example", &[(ImplementationSpecific, "/v\\d+/api", "a")]),
            &[("use-regex", "true")],
        )
        .object(),
        ingress("exact").rule("r.example", &[(Exact, "/exact", "b")]).object(),
        ingress("apart").rule("p.example", &[(Exact, "/exact", "b")]).object(),
        ingress("odd").rule("r.example", &[(Prefix, "/a(b", "b")]).object(),
    ]);
    let mut world = World::new(objects).await;
    for (host, path, expected) in [
        ("r.example", "/v1/api", Some("a")),
        ("r.example", "/V22/APIs/x", Some("a")),
        ("r.example", "/v/api", None),
        ("r.example", "/exact", Some("b")),
        ("r.example", "/EXACTLY", Some("b")),
        ("r.example", "/a(b/c", Some("b")),
        ("p.example", "/exact", Some("b")),
        ("p.example", "/EXACT", None),
    ] {
        let answer = get(world.http(), host, path).await;
        match expected {
            Some(name) => assert_eq!(answer.who(), (200, name), "{host}{path}"),
            None => assert_eq!(answer.status, 404, "{host}{path}"),
        }
    }
    assert_eq!(world.reasons("odd").len(), 1);
    // Without the one that made them so they are plain paths again.
    world.delete(crate::support::objects::ingress_ref("regex")).await;
    assert_eq!(get(world.http(), "r.example", "/exact").await.who(), (200, "b"));
    assert_eq!(get(world.http(), "r.example", "/EXACT").await.status, 404);
}
