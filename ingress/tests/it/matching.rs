//! The surprises of ingress-nginx, and strict matching without them.

use fairlead_ingress::{IngressConfig, Matching, explain::differences};
use fairlead_state::{
    Object,
    model::PathType::{self, Exact, ImplementationSpecific, Prefix},
};

use crate::support::{
    World,
    client::{get, raw},
    config,
    objects::{IngressExt, backend, class, ingress},
    store,
    upstream::Upstream,
};

const REGEX: (&str, &str) = ("nginx.ingress.kubernetes.io/use-regex", "true");
const REWRITE: &str = "nginx.ingress.kubernetes.io/rewrite-target";

/// One host a surprise, two Ingresses each where one makes the other's paths expressions.
fn surprises() -> Vec<Object> {
    let exact =
        |name: &str, host: &str, path: &str| ingress(name).rule(host, &[(Exact, path, "web")]);
    [
        exact("case", "case.example", "/Api/v[12]").annotation(REGEX.0, REGEX.1),
        ingress("regex")
            .rule("mixed.example", &[(ImplementationSpecific, "/r/[0-9]+", "web")])
            .annotation(REGEX.0, REGEX.1),
        exact("other", "mixed.example", "/exact"),
        ingress("rewrite")
            .rule("rewrite.example", &[(Prefix, "/old", "web")])
            .annotation(REWRITE, "/new"),
        exact("slash", "slash.example", "/dir/"),
        ingress("tree").rule("slash.example", &[(Prefix, "/tree/", "web"), (Prefix, "/", "web")]),
        ingress("free").rule("free.example", &[(ImplementationSpecific, "/dir/", "web")]),
        ingress("plain").rule("plain.example", &[(Prefix, "/p", "web")]),
    ]
    .map(IngressExt::object)
    .into()
}

async fn world(matching: Matching, upstream: &Upstream) -> World {
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(surprises());
    World::with(IngressConfig { matching, ..config() }, objects).await
}

#[tokio::test]
async fn each_surprise_is_there_in_compat_and_not_in_strict() {
    let upstream = Upstream::echo("web").await;
    let compat = world(Matching::Compat, &upstream).await;
    let strict = world(Matching::Strict, &upstream).await;
    for (host, path, in_compat, in_strict) in [
        // 1: expressions ignore case and are beginnings.
        ("mixed.example", "/r/12", 200, 200),
        ("mixed.example", "/R/12/more", 200, 404),
        // Strict: an Exact path is none.
        ("case.example", "/api/V1", 200, 404),
        // 2: one Ingress makes expressions of all paths of its host.
        ("mixed.example", "/exact", 200, 200),
        ("mixed.example", "/exactly", 200, 404),
        // 3: rewriting does so, too.
        ("rewrite.example", "/old", 200, 200),
        ("rewrite.example", "/OLDer", 200, 404),
        // 4: the missing slash.
        ("slash.example", "/dir/", 200, 200),
        ("slash.example", "/dir", 301, 200),
        ("slash.example", "/tree/", 200, 200),
        ("slash.example", "/tree/x", 200, 200),
        ("slash.example", "/tree", 301, 200),
        ("slash.example", "/treetop", 200, 200),
        ("free.example", "/dir", 301, 200),
        ("free.example", "/directory", 404, 404),
        // 5: what is resolved before it is compared.
        ("plain.example", "/p", 200, 200),
        ("plain.example", "/x/../p", 200, 400),
        ("plain.example", "//p", 200, 400),
        ("plain.example", "/%70", 200, 200),
    ] {
        assert_eq!(get(compat.http(), host, path).await.status, in_compat, "{host}{path}");
        assert_eq!(get(strict.http(), host, path).await.status, in_strict, "{host}{path}");
    }
    let moved = get(compat.http(), "slash.example", "/dir?a=b").await;
    assert_eq!(moved.headers["location"], "http://slash.example/dir/?a=b");
    let rewritten = get(strict.http(), "rewrite.example", "/old/x").await;
    assert_eq!(rewritten.body.lines().nth(1), Some("GET /new"));
}

#[test]
fn what_strict_would_answer_otherwise_is_found_beforehand() {
    let mut objects = backend("web", &[]);
    objects.extend(surprises());
    objects.push(class("fairlead", "fairlead.io/ingress"));
    let (_store, snapshots) = store(&objects);
    let snapshot = snapshots.borrow().clone().unwrap();
    let found = differences(&config(), &snapshot).unwrap();
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(found.iter().all(|found| found.compat != found.strict));
    for expected in [
        "mixed.example/exactx: default/other path /exact; strict: 404",
        "rewrite.example/OLD: default/rewrite path /old; strict: 404",
        "slash.example/dir: 301 to /dir/; strict: default/tree path /",
        "slash.example/tree: 301 to /tree/; strict: default/tree path /tree/",
        "free.example/dir: 301 to /dir/; strict: default/free path /dir/",
    ] {
        assert!(told.iter().any(|line| line == expected), "{expected}: {told:#?}");
    }
}

/// They were accepted and never met: requests have such characters encoded.
#[tokio::test]
async fn bug_a_path_with_characters_that_requests_encode_is_met_by_them() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let of = |name: &str, paths: &[(PathType, &str, &str)]| {
        ingress(name).rule(&format!("{name}.example"), paths)
    };
    let plain = [
        (ImplementationSpecific, "/über", "web"),
        (Prefix, "/a b", "web"),
        (Exact, "/日本", "web"),
    ];
    let expressions = [(ImplementationSpecific, "/über(/|$)(.*)", "web")];
    objects.extend([
        of("plain", &plain).object(),
        of("regex", &expressions).annotation(REWRITE, "/$2").object(),
        of("class", &[(ImplementationSpecific, "/[üa]", "web")])
            .annotation(REGEX.0, REGEX.1)
            .object(),
    ]);
    for matching in [Matching::Compat, Matching::Strict] {
        let world = World::with(IngressConfig { matching, ..config() }, objects.clone()).await;
        for (path, seen) in [
            ("/%C3%BCber", Some("/%C3%BCber")),
            ("/%c3%bcber/x", Some("/%C3%BCber/x")),
            ("/über", Some("/%C3%BCber")),
            ("/a%20b/c", Some("/a%20b/c")),
            ("/%E6%97%A5%E6%9C%AC", Some("/%E6%97%A5%E6%9C%AC")),
            ("/%E6%97%A5%E6%9C%AC/x", None),
            ("/uber", None),
        ] {
            let asks =
                format!("GET {path} HTTP/1.1\r\nHost: plain.example\r\nConnection: close\r\n\r\n");
            let answer = raw(world.http(), asks.as_bytes()).await;
            match seen {
                Some(seen) => assert!(answer.contains(&format!("web\nGET {seen}\n")), "{answer}"),
                None => {
                    assert!(answer.starts_with("HTTP/1.1 404 "), "{matching:?} {path}: {answer}");
                }
            }
        }
        assert_eq!(world.reasons("plain"), Vec::<String>::new());
        let reasons = world.reasons("class");
        assert!(reasons.iter().any(|reason| reason.contains("(ü|ä)")), "{reasons:?}");
        // Strict: rewriting makes no expression.
        if matching == Matching::Compat {
            let answer = get(world.http(), "regex.example", "/%C3%BCber/a%20b").await;
            assert_eq!(answer.body.lines().nth(1), Some("GET /a%20b"));
        }
    }
}
