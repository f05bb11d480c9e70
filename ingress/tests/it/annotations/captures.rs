//! `$1` to `$9`: what a path's expression captures, wherever a text may say so.

use fairlead_state::model::{Ingress, PathType::ImplementationSpecific};

use super::annotated;
use crate::support::{
    World,
    client::get,
    objects::{IngressExt, backend, ingress},
    upstream::Upstream,
};

fn captured(name: &str, path: &str, annotations: &[(&str, &str)]) -> Ingress {
    let host = format!("{name}.example");
    annotated(ingress(name).rule(&host, &[(ImplementationSpecific, path, "web")]), annotations)
}

const REGEX: (&str, &str) = ("use-regex", "true");

/// They were empty but for rewrite-target and x-forwarded-prefix.
#[tokio::test]
async fn bug_what_a_path_captures_is_put_into_every_text() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let (snippet, to) = ("configuration-snippet", "https://new.example/$1");
    let within = "if ($request_uri ~* \"^/OLD/(.*)$\") { return 301 https://new.example/$1; }";
    let beside = "if ($http_x) { return 403; }\nreturn 301 https://new.example/$1;";
    let said = "proxy_set_header X-Tenant $1;\nadd_header X-Told \"$2-$1\";";
    objects.extend(
        [
            captured("moved", "/old/(.*)", &[REGEX, ("permanent-redirect", to)]),
            captured("within", "/", &[(snippet, within)]),
            captured("beside", "/old/(.*)", &[REGEX, (snippet, beside)]),
            captured("said", "/(\\w+)/(\\w+)", &[REGEX, (snippet, said)]),
            captured("vhost", "/(\\w+)", &[REGEX, ("upstream-vhost", "$1.internal")]),
            captured("literal", "/old", &[("permanent-redirect", to)]),
            // An expression by the other Ingress's word.
            captured("host", "/old/(.*)", &[("permanent-redirect", to)]),
            annotated(
                ingress("other").rule("host.example", &[(ImplementationSpecific, "/x", "web")]),
                &[REGEX],
            ),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    for (name, path, status, location) in [
        ("moved", "/old/a/b?c=d", 301, Some("https://new.example/a/b")),
        ("moved", "/old/a%20b%2Fc%3Fd", 301, Some("https://new.example/a%20b/c%3Fd")),
        ("within", "/old/page", 301, Some("https://new.example/page")),
        ("within", "/new/page", 200, None),
        ("beside", "/old/page", 301, Some("https://new.example/page")),
        ("literal", "/old/page", 301, Some("https://new.example/")),
        ("host", "/old/page", 301, Some("https://new.example/page")),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), path).await;
        let found = answer.headers.get("location").map(|value| value.to_str().unwrap());
        assert_eq!((answer.status, found), (status, location), "{name} {path}");
    }
    let answer = get(world.http(), "said.example", "/ann/x").await;
    assert_eq!(answer.who(), (200, "web"));
    assert_eq!(answer.saw("x-tenant"), Some("ann"));
    assert_eq!(answer.headers.get("x-told").unwrap(), "x-ann");
    let answer = get(world.http(), "vhost.example", "/ann").await;
    assert_eq!(answer.saw("host"), Some("ann.internal"));
    for (name, is_told) in [("literal", true), ("within", false), ("moved", false)] {
        let told = "differs: $1 to $9 stand for nothing in its annotations";
        let reasons = world.reasons(name);
        let found = reasons.iter().any(|reason| reason.starts_with(told));
        assert_eq!(found, is_told, "{name}: {reasons:?}");
    }
}

/// All requests went to one endpoint.
#[tokio::test]
async fn bug_requests_are_spread_by_what_a_path_captures() {
    let upstreams = [Upstream::echo("a").await, Upstream::echo("b").await];
    let mut objects = backend("web", &[upstreams[0].address, upstreams[1].address]);
    objects.push(captured("hash", "/(\\w+)", &[REGEX, ("upstream-hash-by", "$1")]).object());
    let world = World::new(objects).await;
    let mut met = std::collections::BTreeSet::new();
    for tenant in 0..32 {
        let path = format!("/tenant{tenant}");
        let first = get(world.http(), "hash.example", &path).await;
        let again = get(world.http(), "hash.example", &path).await;
        assert_eq!(first.who(), again.who(), "{path}");
        met.insert(first.who().1.to_owned());
    }
    assert_eq!(met.len(), 2);
}
