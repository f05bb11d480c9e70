//! Some requests go to a Service under trial.

use std::collections::BTreeSet;

use fairlead_state::{
    Object,
    model::{
        Ingress,
        PathType::{Exact, ImplementationSpecific, Prefix},
    },
};

use super::{annotated, site};
use crate::support::{
    World,
    client::{connect, get, request, send},
    objects::{IngressExt, Pod, backend, ingress, ingress_ref, service, slice},
    upstream::Upstream,
};

const AFFINITY: (&str, &str) = ("affinity", "cookie");

fn canary(annotations: &[(&str, &str)]) -> Ingress {
    let ingress = ingress("canary").host("main.example", "trial");
    annotated(annotated(ingress, &[("canary", "true")]), annotations)
}

async fn world(main: Ingress, canary: Ingress) -> (World, [Upstream; 2]) {
    let upstreams = [Upstream::echo("main").await, Upstream::echo("trial").await];
    let mut objects: Vec<Object> = backend("web", &[upstreams[0].address]);
    objects.extend(backend("trial", &[upstreams[1].address]));
    objects.extend([main.object(), canary.object()]);
    (World::new(objects).await, upstreams)
}

async fn asked(world: &World, fields: &[(&'static str, &str)]) -> (String, Option<String>) {
    let mut request = request("main.example", "/");
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let answer = send(&mut connect(world.http()).await, request).await;
    let cookie = answer.headers.get("set-cookie");
    let cookie = cookie.and_then(|value| value.to_str().unwrap().split(';').next());
    (answer.who().1.to_owned(), cookie.map(str::to_owned))
}

#[tokio::test]
async fn header_cookie_and_weight_choose_the_service() {
    let by_header = [("canary-by-header", "X-Canary")];
    let by_value = [("canary-by-header", "X-Canary"), ("canary-by-header-value", "yes")];
    let by_pattern = [("canary-by-header", "X-Canary"), ("canary-by-header-pattern", "^v\\d+$")];
    let by_cookie = [("canary-by-cookie", "canary")];
    let all = [("canary-weight", "100")];
    for (rules, fields, expected) in [
        (&by_header[..], &[("x-canary", "always")][..], "trial"),
        (&by_header, &[("x-canary", "never")], "main"),
        (&by_header, &[], "main"),
        (&by_value, &[("x-canary", "yes")], "trial"),
        (&by_value, &[("x-canary", "always")], "main"),
        (&by_pattern, &[("x-canary", "v12")], "trial"),
        (&by_pattern, &[("x-canary", "w12")], "main"),
        (&by_cookie, &[("cookie", "canary=always")], "trial"),
        (&by_cookie, &[("cookie", "canary=never")], "main"),
        (&all, &[], "trial"),
        (&[], &[], "main"),
    ] {
        let (world, _upstreams) = world(site("main", &[]), canary(rules)).await;
        assert_eq!(asked(&world, fields).await.0, expected, "{rules:?} {fields:?}");
        assert!(world.reasons("canary").is_empty(), "{:?}", world.reasons("canary"));
    }
}

/// Scaled to nothing, not ready, or not there at all: its share is served by the others.
#[tokio::test]
async fn bug_a_canary_without_endpoints_takes_nothing() {
    let upstream = Upstream::echo("main").await;
    let mut objects = backend("web", &[upstream.address]);
    let all = [("canary-weight", "100"), ("canary-by-header", "X-Canary")];
    objects.extend([site("main", &[]).object(), canary(&all).object()]);
    let mut world = World::new(objects).await;
    let always = [("x-canary", "always")];
    let trial = Upstream::echo("trial").await;
    for (name, change, expected) in [
        ("no Service", vec![], "main"),
        ("no endpoints", vec![service("trial")], "main"),
        ("none ready", vec![slice("trial", "0", trial.address, Pod::NotReady)], "main"),
        ("one ready", vec![slice("trial", "0", trial.address, Pod::Ready)], "trial"),
    ] {
        world.apply(change).await;
        for fields in [&[][..], &always] {
            assert_eq!(asked(&world, fields).await.0, expected, "{name}: {fields:?}");
        }
    }
}

/// ingress-nginx: buildProxyPass. A gRPC Service's canary was spoken to by HTTP/1.1.
#[tokio::test]
async fn bug_a_canary_is_spoken_to_as_the_service_whose_path_it_is_tried_at() {
    let upstreams = [Upstream::echo("trial").await, Upstream::echo2("trial2").await];
    let mut objects = backend("trial", &[upstreams[0].address]);
    objects.extend(backend("trial2", &[upstreams[1].address]));
    objects.extend(backend("web", &[upstreams[0].address]));
    let mut world = World::new(objects).await;
    let grpc = ("backend-protocol", "GRPC");
    let all = [("canary", "true"), ("canary-weight", "100")];
    let of = |service| ingress("canary").host("main.example", service).host("own.example", service);
    for (main, own, expected) in [
        (&[][..], &[][..], "trial"),
        (&[grpc], &[], "trial2"),
        (&[], &[grpc], "trial"),
        (&[grpc], &[grpc], "trial2"),
        (&[], &[], "trial"),
        (&[grpc], &[], "trial2"),
    ] {
        let canary = annotated(annotated(of(expected), &all), own);
        world.apply(vec![site("main", main).object(), canary.object()]).await;
        let answer = get(world.http(), "main.example", "/").await;
        assert_eq!(answer.who(), (200, expected), "{main:?}, canary {own:?}");
    }
    // What was tried is its own now.
    world.apply(vec![annotated(of("trial2"), &[grpc]).object()]).await;
    assert_eq!(get(world.http(), "own.example", "/").await.who(), (200, "trial2"));
}

#[tokio::test]
async fn a_weight_is_a_share_of_the_requests() {
    let weight = [("canary-weight", "500"), ("canary-weight-total", "1000")];
    let (world, upstreams) = world(site("main", &[]), canary(&weight)).await;
    for _ in 0..100 {
        assert_eq!(get(world.http(), "main.example", "/").await.status, 200);
    }
    let shares = upstreams.each_ref().map(Upstream::requests);
    assert!(shares.iter().all(|share| (20..=80).contains(share)), "{shares:?}");
}

#[tokio::test]
async fn a_canary_is_nothing_by_itself_and_needs_to_be_called_one() {
    let (mut world, _upstreams) =
        world(site("main", &[]), canary(&[("canary-weight", "100")])).await;
    assert_eq!(get(world.http(), "main.example", "/").await.who(), (200, "trial"));
    world.delete(ingress_ref("main")).await;
    assert_eq!(get(world.http(), "main.example", "/").await.status, 404);
    assert_eq!(world.reasons("canary").len(), 1);
    world.apply(vec![site("main", &[]).object()]).await;
    assert_eq!(get(world.http(), "main.example", "/").await.who(), (200, "trial"));
    assert!(world.reasons("canary").is_empty());
    let other_path = ingress("canary").rule("main.example", &[(Prefix, "/other", "trial")]);
    let other_path = annotated(other_path, &[("canary", "true"), ("canary-weight", "100")]);
    world.apply(vec![other_path.object()]).await;
    assert_eq!(get(world.http(), "main.example", "/other").await.who(), (200, "main"));
    assert_eq!(world.reasons("canary").len(), 1);
    let forgotten = annotated(ingress("canary"), &[("canary-weight", "100")]);
    world.apply(vec![forgotten.object()]).await;
    assert_eq!(
        world.reasons("canary"),
        ["refused: its canary-* annotations have no effect without canary: \"true\""]
    );
}

/// ingress-nginx writes Prefix over ImplementationSpecific before it looks for the canary's path.
#[tokio::test]
async fn a_canary_needs_the_same_path_and_prefix_is_the_same_type_as_implementation_specific() {
    let all = [("canary", "true"), ("canary-weight", "100")];
    for (main, trial, expected) in [
        (Prefix, Prefix, "trial"),
        (Prefix, ImplementationSpecific, "trial"),
        (ImplementationSpecific, Prefix, "trial"),
        (Exact, Exact, "trial"),
        (Exact, Prefix, "main"),
        (Prefix, Exact, "main"),
    ] {
        let of = |name, path_type, service: &str| {
            ingress(name).rule("main.example", &[(path_type, "/", service)])
        };
        let canary = annotated(of("canary", trial, "trial"), &all);
        let (world, _upstreams) = world(of("main", main, "web"), canary).await;
        assert_eq!(asked(&world, &[]).await.0, expected, "{main:?}, canary {trial:?}");
        let told = usize::from(expected == "main");
        assert_eq!(world.reasons("canary").len(), told, "{main:?}, canary {trial:?}");
    }
}

#[tokio::test]
async fn a_path_has_one_canary_and_whoever_comes_second_is_told() {
    let all = [("canary", "true"), ("canary-weight", "100")];
    let twice = [(Prefix, "/", "trial"), (ImplementationSpecific, "/", "web"), (Exact, "/", "web")];
    let canary = annotated(ingress("canary").rule("main.example", &twice), &all);
    let main = ingress("main").rule("main.example", &[(Prefix, "/", "web")]);
    let (mut world, _upstreams) = world(main, canary).await;
    let waits = "waiting: canary: no other Ingress serves the same path of host main.example (Exact \
                 is met by Exact, Prefix and ImplementationSpecific by either)";
    let second = "refused: canary: path / of host main.example is there twice, Prefix and \
                  ImplementationSpecific are one: the first is served";
    let mut reasons = world.reasons("canary");
    reasons.sort();
    assert_eq!(reasons, [second, waits]);
    assert_eq!(asked(&world, &[]).await.0, "trial");
    let younger = ingress("zz").host("main.example", "web");
    world.apply(vec![annotated(younger, &all).object()]).await;
    let younger =
        "refused: canary: path / of host main.example belongs to the older default/canary";
    assert!(world.reasons("zz")[0].starts_with(younger), "{:?}", world.reasons("zz"));
    assert_eq!(asked(&world, &[]).await.0, "trial");
}

#[tokio::test]
async fn a_cookie_keeps_a_client_with_its_service() {
    let half = [("canary-weight", "50")];
    let (sticky, _upstreams) = world(site("main", &[AFFINITY]), canary(&half)).await;
    for _ in 0..10 {
        let (first, cookie) = asked(&sticky, &[]).await;
        let cookie = cookie.unwrap();
        for _ in 0..5 {
            assert_eq!(asked(&sticky, &[("cookie", &cookie)]).await.0, first);
        }
    }
}

/// ingress-nginx asks the canary (mergeAlternativeBackend), whose clients get no cookie then; with that of the
/// other Service they stay there (route_to_alternative_balancer). test/e2e/annotations/canary.go.
#[tokio::test]
async fn bug_it_is_the_canary_that_says_that_it_is_legacy() {
    let legacy = ("affinity-canary-behavior", "legacy");
    let weight = ("canary-weight", "50");
    let (drawn, _upstreams) = world(site("main", &[AFFINITY]), canary(&[weight, legacy])).await;
    let mut main = None;
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let (who, cookie) = asked(&drawn, &[]).await;
        assert_eq!(cookie.is_some(), who == "main", "{who}");
        main = cookie.or(main);
        seen.insert(who);
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    let main = main.unwrap();
    for _ in 0..20 {
        assert_eq!(asked(&drawn, &[("cookie", &main)]).await.0, "main");
    }
    let (sticky, _upstreams) = world(site("main", &[AFFINITY, legacy]), canary(&[weight])).await;
    let (first, cookie) = asked(&sticky, &[]).await;
    let cookie = cookie.unwrap();
    for _ in 0..20 {
        assert_eq!(asked(&sticky, &[("cookie", &cookie)]).await.0, first);
    }
}
