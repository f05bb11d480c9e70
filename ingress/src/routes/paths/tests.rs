use std::{cell::Cell, sync::Arc};

use fairlead_state::{Key, model::PathType};

use super::{super::annotations::NamedFields, *};
use crate::{
    config::IngressConfig,
    series::{Register, SeriesLabels},
};

fn paths(rules: &[(PathType, &str)]) -> Paths {
    let mut builder = Builder::default();
    for (path_type, path) in rules {
        builder.add(route(*path_type, path));
    }
    builder.build()
}

fn route(path_type: PathType, path: &str) -> Arc<Route> {
    let key = Key::new("default", "web");
    let policy = annotations::Annotations::default()
        .policy(&IngressConfig::default(), None, None, NamedFields::default(), &key)
        .0;
    Arc::new(Route {
        ingress: key,
        path: path.into(),
        key: path.into(),
        path_type,
        upstream: None,
        policy: Arc::new(policy),
        rewrite: None,
        pattern: None,
        captures: false,
        fallback: None,
        canary: None,
        tls: false,
        series: Register::new(1).series(SeriesLabels::default()),
    })
}

fn check(rules: &[(PathType, &str)], request: &str, expected: Option<(PathType, &str)>) {
    let paths = paths(rules);
    let found = paths.find(request).map(|route| (route.path_type, &*route.path));
    assert_eq!(found, expected, "{request} among {rules:?}");
}

use PathType::{Exact, ImplementationSpecific, Prefix};

/// The table of KEP-1453, row by row.
#[test]
fn kep_1453_examples() {
    let three = [(Prefix, "/"), (Prefix, "/aaa"), (Prefix, "/aaa/bbb")];
    check(&[(Prefix, "/")], "/any/path", Some((Prefix, "/")));
    check(&[(Prefix, "/")], "/", Some((Prefix, "/")));
    check(&[(Exact, "/foo")], "/foo", Some((Exact, "/foo")));
    check(&[(Exact, "/foo")], "/bar", None);
    check(&[(Exact, "/foo")], "/foo/", None);
    check(&[(Exact, "/foo/")], "/foo", None);
    check(&[(Prefix, "/foo")], "/foo", Some((Prefix, "/foo")));
    check(&[(Prefix, "/foo")], "/foo/", Some((Prefix, "/foo")));
    check(&[(Prefix, "/foo/")], "/foo", Some((Prefix, "/foo/")));
    check(&[(Prefix, "/foo/")], "/foo/", Some((Prefix, "/foo/")));
    check(&[(Prefix, "/aaa/bb")], "/aaa/bbb", None);
    check(&[(Prefix, "/aaa/bbb")], "/aaa/bbb", Some((Prefix, "/aaa/bbb")));
    check(&[(Prefix, "/aaa/bbb/")], "/aaa/bbb", Some((Prefix, "/aaa/bbb/")));
    check(&[(Prefix, "/aaa/bbb")], "/aaa/bbb/", Some((Prefix, "/aaa/bbb")));
    check(&[(Prefix, "/aaa/bbb")], "/aaa/bbb/ccc", Some((Prefix, "/aaa/bbb")));
    check(&[(Prefix, "/aaa/bbb")], "/aaa/bbbxyz", None);
    check(&[(Prefix, "/"), (Prefix, "/aaa")], "/aaa/ccc", Some((Prefix, "/aaa")));
    check(&three, "/aaa/bbb", Some((Prefix, "/aaa/bbb")));
    check(&three, "/ccc", Some((Prefix, "/")));
    check(&[(Prefix, "/aaa")], "/ccc", None);
    check(&[(Exact, "/foo"), (Prefix, "/foo")], "/foo", Some((Exact, "/foo")));
}

/// ingress-controller-conformance, path_rules.feature.
#[test]
fn conformance_path_rules() {
    let exact = [(Exact, "/foo")];
    for (path, matches) in [("/foo", true), ("/foo/", false), ("/FOO", false), ("/bar", false)] {
        check(&exact, path, matches.then_some((Exact, "/foo")));
    }
    let prefix = [(Prefix, "/foo")];
    for (path, matches) in [("/foo", true), ("/foo/", true), ("/FOO", false)] {
        check(&prefix, path, matches.then_some((Prefix, "/foo")));
    }
    let longest = [(Prefix, "/aaa"), (Prefix, "/aaa/bbb")];
    check(&longest, "/aaa/bbb/ccc", Some((Prefix, "/aaa/bbb")));
    check(&longest, "/aaaccc", None);
    check(&[(Prefix, "/foo"), (Exact, "/foo")], "/foo", Some((Exact, "/foo")));
    check(&[(Prefix, "/aaa/bbb/")], "/aaa/bbb/", Some((Prefix, "/aaa/bbb/")));
    check(&[(Exact, "/foo/")], "/foo", None);
}

#[test]
fn of_foo_and_foo_slash_the_one_as_requested_wins() {
    let both = [(Prefix, "/foo"), (Prefix, "/foo/")];
    check(&both, "/foo", Some((Prefix, "/foo")));
    check(&both, "/foo/", Some((Prefix, "/foo/")));
    check(&both, "/foo/bar", Some((Prefix, "/foo/")));
}

/// ingress-nginx writes Prefix over it before it makes locations (`SetDefaultNGINXPathType`): there
/// is no `location /foo` that /foobar begins with.
#[test]
fn implementation_specific_is_a_prefix_and_shares_its_place() {
    let foo = Some((ImplementationSpecific, "/foo"));
    for (request, expected) in [("/foo", foo), ("/foo/", foo), ("/foo/bar", foo), ("/foobar", None)]
    {
        check(&[(ImplementationSpecific, "/foo")], request, expected);
    }
    check(&[(ImplementationSpecific, "/")], "/x", Some((ImplementationSpecific, "/")));
    for path in ["/", "/foo", "/foo/"] {
        for (first, second) in [(Prefix, ImplementationSpecific), (ImplementationSpecific, Prefix)]
        {
            let mut builder = Builder::default();
            builder.add(route(first, path));
            let first = builder.holder(path, second).cloned();
            builder.add(route(second, path));
            assert!(
                first.is_some_and(|first| Arc::ptr_eq(
                    &first,
                    builder.holder(path, second).unwrap()
                )),
                "{second:?} {path}"
            );
            builder.add(route(Exact, path));
        }
    }
}

#[test]
fn an_exact_path_beats_a_longer_looking_prefix_and_prefixes_end_at_elements() {
    let rules = [(Exact, "/a/b"), (Prefix, "/a"), (Prefix, "/a/b/c")];
    check(&rules, "/a/b", Some((Exact, "/a/b")));
    check(&rules, "/a/b/c/d", Some((Prefix, "/a/b/c")));
    check(&rules, "/a/b/", Some((Prefix, "/a")));
    check(&rules, "/ab", None);
}

/// ingress-nginx, docs/user-guide/ingress-path-matching.md, and what its blog warns of.
#[test]
fn one_regular_expression_makes_expressions_of_all_paths_of_its_host() {
    let rules = [
        (ImplementationSpecific, "/foo/bar"),
        (ImplementationSpecific, "/foo/bar/[A-Z0-9]{3}"),
        (ImplementationSpecific, "/foo/bar/bar"),
        (Exact, "/exact"),
        (Prefix, "/a(b"),
    ];
    let mut builder = Builder::default();
    for (path_type, path) in rules {
        builder.add(route(path_type, path));
    }
    let (paths, literal) = builder.build_patterns(&mut Budget::of_host());
    assert_eq!(literal.iter().map(|route| &*route.path).collect::<Vec<_>>(), ["/a(b"]);
    for (request, expected) in [
        ("/foo/bar", Some("/foo/bar")),
        ("/foo/barrow", Some("/foo/bar")),
        ("/foo/bar/xyz", Some("/foo/bar/[A-Z0-9]{3}")),
        ("/FOO/BAR/xyz", Some("/foo/bar/[A-Z0-9]{3}")),
        // The longer text is asked first, although /foo/bar/bar fits better.
        ("/foo/bar/bar", Some("/foo/bar/[A-Z0-9]{3}")),
        ("/EXACTLY", Some("/exact")),
        ("/a(b/c", Some("/a(b")),
        ("/other", None),
    ] {
        let found = paths.find(request).map(|route| &*route.path);
        assert_eq!(found, expected, "{request}");
    }
}

/// nginx: a location that ends with a slash is redirected to, whatever else the request's path
/// begins with, unless another is there without the slash. Of a path with a slash ingress-nginx makes
/// none without, whatever the type; asked of nginx with the same locations.
#[test]
fn requests_are_sent_to_a_slash_that_nothing_else_is_there_without() {
    let rules = [
        (ImplementationSpecific, "/a/"),
        (Exact, "/b/"),
        (Exact, "/b"),
        (Exact, "/c/"),
        (Prefix, "/c"),
        (Prefix, "/d/"),
        (Prefix, "/e/"),
        (Exact, "/e"),
        (Prefix, "/f"),
        (Prefix, "/f/g/"),
        (Exact, "/h/"),
        (Prefix, "/i/"),
        (Exact, "/i/"),
        (ImplementationSpecific, "/"),
    ];
    let mut builder = Builder::default();
    for (path_type, path) in rules {
        builder.add(route(path_type, path));
    }
    let paths = builder.build_compat();
    for (request, expected) in [
        ("/a", Some((ImplementationSpecific, "/a/"))),
        ("/a/", None),
        ("/b", None),
        ("/c", None),
        ("/d", Some((Prefix, "/d/"))),
        ("/d/", None),
        ("/d/x", None),
        ("/dx", None),
        ("/D", None),
        ("/e", None),
        ("/f", None),
        ("/f/g", Some((Prefix, "/f/g/"))),
        ("/h", Some((Exact, "/h/"))),
        // The settings of the redirect are those of `= /i/`.
        ("/i", Some((Exact, "/i/"))),
        ("/", None),
        ("/x", None),
    ] {
        let found = paths.wants_slash(request).map(|route| (route.path_type, &*route.path));
        assert_eq!(found, expected, "{request}");
    }
}

#[test]
fn strict_matching_sends_nobody_to_a_slash() {
    let mut builder = Builder::default();
    builder.add(route(Prefix, "/d/"));
    let paths = builder.build_strict();
    assert!(paths.wants_slash("/d").is_none());
    assert_eq!(paths.find("/d").map(|route| &*route.path), Some("/d/"));
}

#[test]
fn a_path_of_a_host_is_looked_up_once_for_its_slash_however_many_there_are() {
    const PATHS: usize = 500;
    let routes: Vec<_> = (0..PATHS).map(|i| route(Exact, &format!("/{i}/"))).collect();
    let looks = Cell::new(0);
    let found = slashed(routes.iter(), |_| {
        looks.set(looks.get() + 1);
        false
    });
    assert_eq!((found.len(), looks.get()), (PATHS, PATHS));
}
