//! Many regular expressions, and large ones.

use std::time::{Duration, Instant};

use fairlead_ingress::{Fallback, IngressConfig, Refused, routes::Planner};
use fairlead_state::model::{
    Ingress,
    PathType::{Exact, ImplementationSpecific},
};

use crate::{
    annotations::annotated,
    support::{
        World, client,
        objects::{IngressExt, backend, class, ingress},
        store,
        upstream::Upstream,
    },
};

const HOST: &str = "a.example";
/// Of one Ingress, and of one host.
const EXPRESSIONS_MAX: usize = 2048;

fn site(name: &str, age: i64, paths: &[String], more: &[(&str, &str)]) -> Ingress {
    let rule: Vec<_> = paths.iter().map(|p| (ImplementationSpecific, &**p, "web")).collect();
    let ingress = annotated(ingress(name).rule(HOST, &rule), &[("use-regex", "true")]);
    Ingress { created_seconds: age, ..annotated(ingress, more) }
}

fn planned(ingresses: Vec<Ingress>) -> Planner {
    let mut objects: Vec<_> = ingresses.into_iter().map(IngressExt::object).collect();
    objects.push(class("fairlead", "fairlead.io/ingress"));
    let (_store, snapshots) = store(&objects);
    let mut planner = Planner::new(&IngressConfig::default(), Fallback::generate().unwrap());
    planner.apply(snapshots.borrow().as_ref().unwrap());
    planner
}

/// Of one Ingress.
fn told(planner: &Planner, name: &str) -> Vec<String> {
    let findings = planner.findings().into_iter().filter(|f| *f.object.key.name == *name);
    let reasons = findings.map(|finding| finding.reason.to_string());
    reasons.filter(|reason| reason.contains("are served of")).collect()
}

fn served(planner: &Planner, path: &str) -> Option<String> {
    let found = planner.routes().find(HOST, path)?;
    Some(found.route.ingress.name.to_string())
}

/// Thousands of them took gigabytes, and minutes each time anything of the host changed.
#[test]
fn attack_expressions_of_an_ingress_are_bounded_and_the_rest_is_served() {
    let small: Vec<String> = (0..EXPRESSIONS_MAX + 9).map(|i| format!("/p{i}/(a|b)$")).collect();
    // Of some 100 KiB each.
    let large: Vec<String> = (0..200).map(|i| format!("/p{i}/(a{{50}}){{25}}")).collect();
    let target = [("rewrite-target", "/$1")];
    for (name, paths, more, expected, why) in [
        ("number", &small, &[][..], EXPRESSIONS_MAX, "and 8 more"),
        // Each path has two.
        ("rewritten", &small, &target, EXPRESSIONS_MAX / 2, "more: no more than 2048"),
        ("size", &large, &[], 200, "and 8 MiB of them, are served of an Ingress"),
    ] {
        let other = ingress("other").host("b.example", "web");
        let planner = planned(vec![site(name, 1, paths, more), other]);
        let rows = planner.routes().rows();
        let of_host = rows.iter().filter(|row| row.host == HOST).count();
        let is_expected =
            if name == "size" { (40..expected).contains(&of_host) } else { of_host == expected };
        assert!(is_expected, "{name}: {of_host} are served");
        let reasons = told(&planner, name);
        assert_eq!(reasons.len(), 1, "{name}: {reasons:?}");
        assert!(reasons[0].contains(why), "{name}: {reasons:?}");
        assert!(planner.routes().find("b.example", "/").is_some(), "{name}");
    }
}

#[test]
fn attack_a_hosts_expressions_are_its_oldest_ingresses() {
    let paths = |name: &str, count: usize| -> Vec<String> {
        (0..count).map(|i| format!("/{name}{i}/(a|b)$")).collect()
    };
    let (elder, younger, last) = (paths("e", 1500), paths("y", 1500), paths("l", 1));
    let planner = planned(vec![
        site("last", 3, &last, &[]),
        site("younger", 2, &younger, &[]),
        site("elder", 1, &elder, &[]),
    ]);
    assert_eq!(planner.routes().rows().len(), EXPRESSIONS_MAX);
    for (path, name) in [
        ("/e1499/a", Some("elder")),
        ("/y547/a", Some("younger")),
        ("/y548/a", None),
        // Once there is no room there is none for whatever comes later.
        ("/l0/a", None),
    ] {
        assert_eq!(served(&planner, path).as_deref(), name, "{path}");
    }
    assert_eq!(told(&planner, "elder"), Vec::<String>::new());
    // What is no expression needs no room.
    let mut plain = ingress("plain").rule(HOST, &[(Exact, "/plain", "web")]);
    plain.created_seconds = 4;
    let all = [site("elder", 1, &elder, &[]), site("younger", 2, &younger, &[]), plain];
    assert_eq!(served(&planned(all.into()), "/plain").as_deref(), Some("plain"));
    for name in ["younger", "last"] {
        let reasons = told(&planner, name);
        assert!(reasons[0].starts_with("host a.example: path "), "{reasons:?}");
    }
}

/// Plain paths among expressions are as many as they like, and mean what they did.
/// A canary with nothing but `canary-*`, and a second Ingress of a host whose paths are expressions by the first.
#[test]
fn bug_a_backslash_may_stand_where_another_ingress_makes_expressions_of_all_paths() {
    let plain = |host| ingress("plain").rule(host, &[(ImplementationSpecific, "/a/\\d+", "web")]);
    let first = |path: &str| site("first", 0, &[path.to_owned()], &[]);
    let canary = annotated(plain(HOST), &[("canary", "true")]);
    let refused = "path \"/a/\\\\d+\" holds a control character or a backslash";
    for (what, ingresses, by, told) in [
        ("another path", vec![first("/z/(a|b)"), plain(HOST)], Some("plain"), None),
        ("nobody's", vec![plain(HOST)], None, Some(refused)),
        ("another host", vec![first("/z/(a|b)"), plain("b.example")], None, Some(refused)),
        ("a canary", vec![first("/a/\\d+"), canary], Some("first"), None),
    ] {
        let planner = planned(ingresses);
        assert_eq!(served(&planner, "/a/42").as_deref(), by, "{what}");
        let findings = planner.findings();
        let reasons = findings.iter().map(|finding| &*finding.reason);
        let about: Vec<&str> = reasons.filter(|why| !why.contains("does not exist")).collect();
        assert_eq!(about, Vec::from_iter(told), "{what}");
    }
}

#[test]
fn plain_paths_of_a_host_with_expressions_need_no_room() {
    let plain: Vec<String> = (0..2 * EXPRESSIONS_MAX).map(|i| format!("/plain-{i:04}")).collect();
    let rule: Vec<_> = plain.iter().map(|p| (ImplementationSpecific, &**p, "web")).collect();
    let plain = ingress("plain").rule(HOST, &rule);
    let dotted = ingress("dotted").rule(HOST, &[(ImplementationSpecific, "/v1.0", "web")]);
    let planner = planned(vec![plain, dotted, site("one", 1, &["/x[0-9]".to_owned()], &[])]);
    for (path, name) in [
        ("/plain-4095", Some("plain")),
        ("/PLAIN-0001/x", Some("plain")),
        ("/plain-00012", Some("plain")),
        ("/plain-000", None),
        // An expression: any character is a dot.
        ("/v1x0", Some("dotted")),
        ("/x7", Some("one")),
    ] {
        assert_eq!(served(&planner, path).as_deref(), name, "{path}");
    }
    assert_eq!(told(&planner, "plain"), Vec::<String>::new());
}

/// It took seconds, in which nobody else of the thread was answered.
#[tokio::test]
async fn attack_a_path_that_costs_too_many_steps_is_refused() {
    let upstream = Upstream::echo("web").await;
    let paths: Vec<String> = (0..50).map(|i| format!("/([a-z]{{1,60}}a){{1,9}}x{i}")).collect();
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("costly", 1, &paths, &[]).object());
    objects.push(
        site("cheap", 2, &["/(.*)\\.(png|jpg)$".to_owned(), "/api(/|$)(.*)".to_owned()], &[])
            .object(),
    );
    // It is met at once, and what is captured is long.
    let path = "/r((.*[a-z]{1,60}a){1,9})";
    let rewritten =
        ingress("rewritten").rule("b.example", &[(ImplementationSpecific, path, "web")]);
    objects.push(annotated(rewritten, &[("rewrite-target", "/$1")]).object());
    let told = ingress("told").rule("c.example", &[(ImplementationSpecific, path, "web")]);
    let snippet = ("configuration-snippet", "proxy_set_header X-A $1;");
    objects.push(annotated(told, &[("use-regex", "true"), snippet]).object());
    let world = World::single(objects).await;
    let long = "a".repeat(7000);
    for (host, path, status) in [
        (HOST, "/api/x", 200),
        (HOST, "/a.png", 200),
        (HOST, "/q", 404),
        (HOST, &format!("/{long}"), 503),
        ("b.example", "/raa", 200),
        ("b.example", &format!("/r{long}"), 503),
        ("c.example", "/raa", 200),
        ("c.example", &format!("/r{long}"), 503),
    ] {
        let answer = client::get(world.http(), host, path).await;
        assert_eq!(answer.status, status, "{host}{path:.9}");
    }
    world.eventually(|counters| counters.refused[&Refused::Expressions] == 3).await;
}

/// Conditions were asked for thrice, at any cost. What they would have kept out is not let in for it.
#[tokio::test]
async fn attack_a_snippet_that_costs_too_many_steps_is_refused() {
    let upstream = Upstream::echo("web").await;
    let condition =
        |i: usize| format!("if ($http_x ~ \"([a-z]{{1,60}}a){{1,9}}x{i}\") {{ return 403; }}\n");
    let snippet: String = (0..20).map(condition).collect();
    let mut objects = backend("web", &[upstream.address]);
    let site = ingress("web").host(HOST, "web");
    objects.push(annotated(site, &[("configuration-snippet", &snippet)]).object());
    let world = World::single(objects).await;
    for (field, status) in
        [("", 200), ("bax7", 403), ("bay7", 200), (&*format!("{}x7", "a".repeat(7000)), 503)]
    {
        let mut request = client::request(HOST, "/");
        request.headers_mut().insert("x", field.parse().unwrap());
        let answer = client::send(&mut client::connect(world.http()).await, request).await;
        assert_eq!(answer.status, status, "{field:.9}");
    }
    world.eventually(|counters| counters.refused[&Refused::Expressions] == 1).await;
}

/// Each was charged what it might have cost, so that the next condition had no steps left: 503.
#[tokio::test]
async fn bug_a_snippet_that_captures_thrice_of_a_long_cookie_is_acted_on() {
    let upstream = Upstream::echo("web").await;
    let captured = |field: &str| {
        format!("if ($http_cookie ~ \"tenant=([^;]+)\") {{ proxy_set_header {field} $1; }}\n")
    };
    let mut snippet: String = ["X-A", "X-B", "X-C"].map(captured).concat();
    snippet.push_str("if ($http_cookie ~ \"(x{1,6})y\") { return 403; }");
    let mut objects = backend("web", &[upstream.address]);
    let site = ingress("web").host(HOST, "web");
    objects.push(annotated(site, &[("configuration-snippet", &snippet)]).object());
    let world = World::single(objects).await;
    let long = "x".repeat(8_000);
    for (cookie, status) in [
        ("tenant=ann".to_owned(), 200),
        (format!("tenant=ann; {long}"), 200),
        (format!("{long}; tenant=ann"), 200),
        (format!("{long}y; tenant=ann"), 403),
    ] {
        let mut request = client::request(HOST, "/");
        request.headers_mut().insert("cookie", cookie.parse().unwrap());
        let answer = client::send(&mut client::connect(world.http()).await, request).await;
        assert_eq!(answer.status, status, "{cookie:.12}");
        for field in ["x-a", "x-b", "x-c"] {
            let expected = (status == 200).then_some("ann");
            assert_eq!(answer.saw(field), expected, "{cookie:.12} {field}");
        }
    }
}

/// The worst that is allowed is planned in seconds, even unoptimised, and a request is answered in less.
#[test]
fn the_worst_that_is_allowed_is_planned_and_asked_in_time() {
    let paths: Vec<String> =
        (0..EXPRESSIONS_MAX).map(|i| format!("/p{i}/([a-z]{{9}}|b)*$")).collect();
    let begun = Instant::now();
    let planner = planned(vec![site("worst", 1, &paths, &[])]);
    let planned = begun.elapsed();
    let begun = Instant::now();
    assert_eq!(served(&planner, "/q"), None);
    let asked = begun.elapsed();
    println!("{} paths: planned in {planned:?}, asked in {asked:?}", planner.routes().rows().len());
    assert!(planned < Duration::from_secs(20), "{planned:?}");
    assert!(asked < Duration::from_secs(2), "{asked:?}");
}
