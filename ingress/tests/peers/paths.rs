//! The rules of ingress-controller-conformance's `path_rules.feature`, as ingress-nginx gives them to nginx
//! (its `location.go`): what nginx makes of each request is what is made of it here.

use std::{collections::BTreeSet, fmt::Write as _, net::SocketAddr};

use fairlead_ingress::{IngressConfig, Matching};
use fairlead_state::model::PathType::{self, Exact, Prefix};

use crate::{
    backends::Peer,
    support::{
        World,
        client::get,
        config,
        objects::{IngressExt, backend, ingress},
        upstream::Upstream,
    },
};

type Rule = (PathType, &'static str, &'static str);

const HOSTS: &[(&str, &[Rule])] = &[
    ("exact-path-rules", &[(Exact, "/foo", "foo-exact")]),
    (
        "prefix-path-rules",
        &[
            (Prefix, "/foo", "foo-prefix"),
            (Prefix, "/aaa/bbb", "aaa-slash-bbb-prefix"),
            (Prefix, "/aaa", "aaa-prefix"),
        ],
    ),
    (
        "mixed-path-rules",
        &[(Prefix, "/foo", "mixed-foo-prefix"), (Exact, "/foo", "mixed-foo-exact")],
    ),
    (
        "trailing-slash-path-rules",
        &[(Prefix, "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"), (Exact, "/foo/", "foo-slash-exact")],
    ),
];

/// Host, path, who is to answer by the feature (`None`: nobody, 404), and whether ingress-nginx sends it
/// to the path with a slash instead: the feature's client follows that, and the last one fails there.
const SCENARIOS: &[(&str, &str, Option<&str>, bool)] = &[
    ("exact-path-rules", "/foo", Some("foo-exact"), false),
    ("exact-path-rules", "/foo/", None, false),
    ("exact-path-rules", "/FOO", None, false),
    ("exact-path-rules", "/bar", None, false),
    ("prefix-path-rules", "/foo", Some("foo-prefix"), false),
    ("prefix-path-rules", "/foo/", Some("foo-prefix"), false),
    ("prefix-path-rules", "/FOO", None, false),
    ("prefix-path-rules", "/aaa/bbb", Some("aaa-slash-bbb-prefix"), false),
    ("prefix-path-rules", "/aaa/bbb/", Some("aaa-slash-bbb-prefix"), false),
    ("prefix-path-rules", "/aaa/bbb/ccc", Some("aaa-slash-bbb-prefix"), false),
    ("prefix-path-rules", "/aaa/ccc", Some("aaa-prefix"), false),
    ("prefix-path-rules", "/aaaccc", None, false),
    ("mixed-path-rules", "/foo", Some("mixed-foo-exact"), false),
    ("trailing-slash-path-rules", "/aaa/bbb/", Some("aaa-slash-bbb-slash-prefix"), false),
    ("trailing-slash-path-rules", "/aaa/bbb", Some("aaa-slash-bbb-slash-prefix"), true),
    ("trailing-slash-path-rules", "/foo", None, true),
];

/// A prefix ends in a slash, and the same path without it is matched as a whole, unless a rule says so.
fn locations(rules: &[Rule], address: &impl Fn(&str) -> SocketAddr) -> String {
    let exact: BTreeSet<&str> =
        rules.iter().filter(|rule| rule.0 == Exact).map(|rule| rule.1).collect();
    let mut text = String::new();
    for (path_type, path, service) in rules {
        let pass = format!("{{ proxy_pass http://{}; }}", address(service));
        if *path_type == Prefix {
            let _ = write!(text, "location \"{}/\" {pass} ", path.trim_end_matches('/'));
        }
        if *path_type == Exact || !exact.contains(path) {
            let _ = write!(text, "location = \"{path}\" {pass} ");
        }
    }
    text
}

/// Status, and who answered.
async fn asked(to: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let answer = get(to, host, path).await;
    let who = if answer.status == 200 { answer.who().1 } else { "" };
    (answer.status, who.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_rules_of_the_conformance_suite_are_what_ingress_nginx_makes_of_them() {
    let rules = HOSTS.iter().flat_map(|(_, rules)| *rules);
    let mut upstreams = Vec::new();
    for (_, _, service) in rules {
        upstreams.push((*service, Upstream::echo(service).await));
    }
    let address = |service: &str| {
        let found = upstreams.iter().find(|(name, _)| *name == service);
        found.map(|(_, upstream)| upstream.address).unwrap()
    };
    let nginx = Peer::nginx_with(|at| {
        let server = |(host, rules): &(&str, &[Rule])| {
            let locations = locations(rules, &address);
            format!("server {{ listen {at}; server_name {host}; location / {{ return 404; }} {locations} }} ")
        };
        HOSTS.iter().map(server).collect()
    })
    .await;
    let objects = || {
        let mut objects: Vec<_> =
            upstreams.iter().flat_map(|(name, it)| backend(name, &[it.address])).collect();
        let rules = HOSTS.iter().fold(ingress("rules"), |all, (host, rules)| all.rule(host, rules));
        objects.push(rules.object());
        objects
    };
    let compat = World::with(config(), objects()).await;
    let matching = Matching::Strict;
    let strict = World::with(IngressConfig { matching, ..config() }, objects()).await;
    for (host, path, who, is_sent_on) in SCENARIOS {
        let said = match who {
            Some(who) => (200, (*who).to_owned()),
            None => (404, String::new()),
        };
        let until_then = if *is_sent_on { (301, String::new()) } else { said.clone() };
        assert_eq!(asked(nginx.address, host, path).await, until_then, "nginx: {host}{path}");
        assert_eq!(asked(compat.http(), host, path).await, until_then, "compat: {host}{path}");
        assert_eq!(asked(strict.http(), host, path).await, said, "strict: {host}{path}");
    }
}
