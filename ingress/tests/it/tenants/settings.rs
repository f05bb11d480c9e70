//! What holds for a host as a whole is for the namespace to say that has it.

use std::time::{Duration, Instant};

use fairlead_ingress::{Finding, Severity, routes::Planner};
use fairlead_state::{Key, model::Ingress};

use super::{HOST, planned, planned_with, tenant, told, web};
use crate::{
    annotations::annotated,
    support::{
        World, client,
        objects::{Authority, IngressExt, opaque_in, secret},
        upstream::Upstream,
    },
    upstream_tls::pem,
};

/// What becomes of requests for `a/elder`'s paths.
fn seen(planner: &Planner) -> Vec<&'static str> {
    let routes = planner.routes();
    let elder = routes.find(HOST, "/elder").unwrap();
    let is_elders =
        |path| routes.find(HOST, path).is_some_and(|found| &*found.route.ingress.name == "elder");
    let all = [
        ("app-root", elder.host.app_root.is_some()),
        ("https", elder.redirects(false, "/elder")),
        ("expressions", is_elders("/ELDER")),
        ("alias", routes.find("other.example", "/elder").is_some()),
        (
            "www",
            routes.find("www.shared.example", "/elder").is_none()
                && routes.paths("www.shared.example").is_some(),
        ),
    ];
    all.into_iter().filter(|(_, is_so)| *is_so).map(|(what, _)| what).collect()
}

/// Where the oldest Ingress said nothing of it anybody's word was taken, for everybody's paths.
#[test]
fn attack_what_holds_for_a_host_is_said_by_no_other_namespace() {
    type Says<'a> = &'a [(&'a str, &'a str)];
    const REGEX: &str = "use-regex, rewrite-target: host shared.example belongs to ";
    for (annotations, tls, of_own, reason, severity) in [
        (
            &[("app-root", "/mine")][..],
            false,
            "app-root",
            "annotation app-root: ",
            Severity::Refused,
        ),
        (&[("use-regex", "true")], false, "expressions", REGEX, Severity::Differs),
        (&[("rewrite-target", "/$1")], false, "expressions", REGEX, Severity::Differs),
        (
            &[("server-alias", "other.example")],
            false,
            "alias",
            "annotation server-alias: ",
            Severity::Refused,
        ),
        (
            &[("from-to-www-redirect", "true")],
            false,
            "www",
            "annotation from-to-www-redirect: ",
            Severity::Refused,
        ),
        (&[], true, "https", "", Severity::Refused),
    ]
        as [(Says<'_>, bool, &str, &str, Severity); 6]
    {
        for namespace in ["a", "b"] {
            let elder = tenant("a", "elder", 1, &["/elder"]);
            let younger = annotated(tenant(namespace, "younger", 2, &["/younger"]), annotations);
            let younger = if tls { younger.tls(&[HOST], "certificate") } else { younger };
            let planner = planned(&[&elder, &younger]);
            let is_own = namespace == "a";
            let expected: &[&str] = if is_own { &[of_own] } else { &[] };
            assert_eq!(seen(&planner), expected, "{namespace} {annotations:?}");
            let own = planner.routes().find(HOST, "/younger").unwrap();
            assert_eq!(own.redirects(false, "/younger"), tls, "its own are as it says");
            let findings = told(&planner, &younger);
            let is_told = findings.iter().any(|told| {
                told.severity == severity
                    && told.reason.starts_with(reason)
                    && told.reason.contains("belongs to Ingress of another namespace")
                    && told.in_full().ends_with("(a/elder)")
            });
            assert_eq!(is_told, !is_own && !tls, "{annotations:?}: {findings:?}");
        }
    }
}

/// One answer of a guest's path kept browsers from the paths of the host, which are served by plain HTTP,
/// and from all hosts below it.
#[tokio::test]
async fn attack_a_guests_tls_section_gives_the_host_no_hsts() {
    let upstreams = [Upstream::echo("a").await, Upstream::echo("b").await];
    let elder = || tenant("a", "elder", 1, &["/elder"]);
    let younger = || tenant("b", "younger", 2, &["/younger"]);
    let with = |ingress: Ingress| ingress.tls(&[HOST], "");
    for (ingresses, is_told) in [
        ([elder(), younger()], false),
        ([elder(), with(younger())], false),
        ([with(elder()), younger()], true),
        ([with(elder()), with(younger())], true),
    ] {
        let mut objects = [web("a", upstreams[0].address), web("b", upstreams[1].address)].concat();
        objects.extend(ingresses.map(IngressExt::object));
        let world = World::single(objects).await;
        for path in ["/elder", "/younger"] {
            let stream = client::tls(world.https(), HOST, client::trusting_anybody());
            let mut sender = client::http1(stream.await.unwrap()).await;
            let answer = client::send(&mut sender, client::request(HOST, path)).await;
            assert_eq!(answer.status, 200, "{path}");
            let hsts = answer.headers.get("strict-transport-security");
            assert_eq!(hsts.is_some(), is_told, "{path}");
        }
    }
}

#[test]
fn a_certificate_is_that_of_the_namespace_that_has_the_host_if_it_brings_one() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&[HOST]);
    let with = |namespace, name, age| tenant(namespace, name, age, &[&format!("/{name}")]);
    let elder = with("a", "elder", 1);
    let theirs = with("b", "theirs", 2).tls(&[HOST], "certificate");
    let own = with("a", "own", 3).tls(&[HOST], "certificate");
    let default = with("a", "default", 3).tls(&[HOST], "none");
    let trial = with("b", "trial", 0).tls(&[HOST], "certificate");
    let trial = annotated(trial, &[("canary", "true"), ("canary-weight", "1")]);
    for (ingresses, shown) in [
        (&[&elder, &theirs][..], Some("b")),
        (&[&elder, &theirs, &own], Some("a")),
        (&[&theirs, &own], Some("b")),
        // A canary has no host.
        (&[&trial, &own], Some("a")),
        // There is none, and the default one is shown, as the host's own namespace has it.
        (&[&elder, &theirs, &default], None),
    ] {
        let secrets = ["a", "b"]
            .map(|namespace| secret(Key::new(namespace, "certificate"), &certificate, &key));
        let planner = planned_with(ingresses, secrets.into());
        let found = planner.certificate(HOST).secret.map(|secret| secret.namespace.to_string());
        assert_eq!(found.as_deref(), shown);
    }
}

/// An expression is its own namespace's, and takes no requests that another one's path says more of.
#[test]
fn attack_an_expression_takes_no_paths_of_another_namespace() {
    let elder = tenant("a", "elder", 1, &["/", "/api", "/long/name"]);
    for (expression, taken, left) in [
        ("/shop(/|$)(.*)", &["/shop", "/shop/x", "/SHOP/x"][..], &["/sho", "/", "/api/shop"][..]),
        ("/api/v1/.*", &["/api/v1/x"], &["/api", "/api/v2"]),
        ("/api(/|$)(.*){1,99}", &[], &["/api", "/api/x"]),
        ("/.{0,99}.{0,99}.{0,99}", &[], &["/", "/x"]),
        ("/(.*){1,9}(.*){1,9}(.*){1,9}", &[], &["/", "/x", "/long/name/x"]),
        ("/a[[](]]|/.*", &[], &["/", "/x", "/api", "/long/name"]),
    ] {
        let younger = annotated(tenant("b", "younger", 2, &[expression]), &[("use-regex", "true")]);
        let planner = planned(&[&elder, &younger]);
        for (paths, name) in [(taken, "younger"), (left, "elder")] {
            for path in paths {
                let found = planner.routes().find(HOST, path).unwrap();
                assert_eq!(&*found.route.ingress.name, name, "{expression}: {path}");
            }
        }
    }
    // Its own are as ingress-nginx has them: the longer text is asked first.
    let guest = |name, age, path: &str, on| {
        annotated(tenant("b", name, age, &[path]), &[("use-regex", on)])
    };
    let (regex, plain) =
        (guest("regex", 2, "/b(/|$)(.*)", "true"), guest("plain", 3, "/b", "false"));
    let planner = planned(&[&elder, &regex, &plain]);
    assert_eq!(&*planner.routes().find(HOST, "/b/x").unwrap().route.ingress.name, "regex");
}

/// A long path took seconds of a thread that all share.
#[test]
fn attack_costly_expressions_of_one_namespace_take_no_requests_of_others() {
    let costly: Vec<String> = (0..50).map(|i| format!("/([a-z/]{{1,60}}a){{1,9}}x{i}")).collect();
    let costly: Vec<&str> = costly.iter().map(String::as_str).collect();
    let long = format!("/{}", "a".repeat(8000));
    let beside = format!("/c{long}");
    let elder = tenant("a", "elder", 1, &["/", "/api"]);
    let on = |ingress| annotated(ingress, &[("use-regex", "true")]);
    let guest = on(tenant("b", "guest", 2, &costly));
    let plain = tenant("b", "plain", 3, &["/aa"]);
    let other = on(tenant("c", "other", 4, &["/c/a{2,}b?"]));
    let planner = planned(&[&elder, &guest, &plain, &other]);
    let routes = planner.routes();
    let found = |path: &str| Some(routes.find(HOST, path)?.route.ingress.name.to_string());
    // By HTTP/1 in a release a path of this length is compared in some 5 ms, whatever is written.
    let begun = Instant::now();
    for (path, name) in [("/", "elder"), (&long, "elder"), (&beside, "other"), ("/api/x", "elder")]
    {
        assert_eq!(found(path).as_deref(), Some(name), "{path:.9}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Whose steps are taken may have meant it to be guarded.
    assert_eq!(found("/aa"), Some("plain".to_owned()));
    assert_eq!(found(&format!("/aa{long}")), None);
    for (ingress, is_told) in [(&elder, false), (&guest, true), (&other, false)] {
        let findings = told(&planner, ingress);
        let is_costly = |told: &Finding| told.reason.contains("takes more steps than a request");
        assert_eq!(findings.iter().any(is_costly), is_told, "{findings:?}");
    }
}

/// Another tenant's clients were asked for certificates that none of them has, or all turned away.
#[tokio::test]
async fn attack_client_certificates_are_asked_for_by_no_other_namespace() {
    const ASKS: &[(&str, &str)] = &[("auth-tls-secret", "b/ca")];
    const ASKS_OWN: &[(&str, &str)] = &[("auth-tls-secret", "a/ca")];
    const OFF: &[(&str, &str)] = &[("auth-tls-secret", "b/ca"), ("auth-tls-verify-client", "off")];
    let upstreams = [Upstream::echo("a").await, Upstream::echo("b").await];
    for (namespace, annotations, of_elder, of_younger, is_told) in [
        ("b", ASKS, 200, 503, true),
        ("b", OFF, 200, 200, false),
        // There is no such Secret, and nobody is let in.
        ("a", ASKS_OWN, 403, 403, false),
    ] {
        let mut objects = [web("a", upstreams[0].address), web("b", upstreams[1].address)].concat();
        objects.push(tenant("a", "elder", 1, &["/elder"]).object());
        let younger = tenant(namespace, "younger", 2, &["/younger"]);
        objects.push(annotated(younger, annotations).object());
        let world = World::single(objects).await;
        for (path, status) in [("/elder", of_elder), ("/younger", of_younger)] {
            let answer = client::get(world.http(), HOST, path).await;
            assert_eq!(answer.status, status, "{namespace} {annotations:?} {path}");
        }
        let reasons = world.reasons("younger");
        let of_host = "annotation auth-tls-secret: host shared.example belongs to Ingress of another \
                       namespace, whose namespace alone says whose certificates it takes: this one's \
                       paths of it answer 503";
        assert_eq!(reasons.iter().any(|told| told.contains(of_host)), is_told, "{reasons:?}");
    }
}

/// Endpoints go by `ssl-client-*`: those of a guest had them as the client wrote them, or heard of
/// certificates of the host's authorities as if they were of their own.
#[tokio::test]
async fn attack_nobody_names_himself_to_a_guest_that_asks_for_certificates() {
    type Says<'a> = &'a [(&'a str, &'a str)];
    const NOTHING: Says<'_> = &[];
    const ON_A: Says<'_> = &[("auth-tls-secret", "a/ca")];
    const ON_B: Says<'_> = &[("auth-tls-secret", "b/ca")];
    const OPTIONAL_B: Says<'_> =
        &[("auth-tls-secret", "b/ca"), ("auth-tls-verify-client", "optional")];
    const ANY_B: Says<'_> =
        &[("auth-tls-secret", "b/ca"), ("auth-tls-verify-client", "optional_no_ca")];
    let (ca_of_a, ca_of_b) = (Authority::new(), Authority::named("b"));
    let (certificate, key) = ca_of_a.issue(&["client"]);
    let of_a = client::showing(&certificate, &key);
    let upstreams = [Upstream::echo("a").await, Upstream::echo("b").await];
    for (of_elder, of_guest, config, at_elder, at_guest) in [
        (NOTHING, OPTIONAL_B, client::trusting_anybody(), 200, 503),
        (NOTHING, ANY_B, client::trusting_anybody(), 200, 503),
        (NOTHING, ON_B, client::trusting_anybody(), 200, 503),
        (ON_A, ON_B, of_a.clone(), 200, 503),
        (ON_A, OPTIONAL_B, of_a.clone(), 200, 503),
        // Who asks for nothing is told of those whom the host lets in.
        (ON_A, NOTHING, of_a, 200, 200),
    ] {
        let mut objects = [web("a", upstreams[0].address), web("b", upstreams[1].address)].concat();
        objects.extend([
            opaque_in("a", "ca", &[("ca.crt", &pem(&ca_of_a))]),
            opaque_in("b", "ca", &[("ca.crt", &pem(&ca_of_b))]),
            annotated(tenant("a", "elder", 1, &["/elder"]), of_elder).object(),
            annotated(tenant("b", "younger", 2, &["/younger"]), of_guest).object(),
        ]);
        let world = World::single(objects).await;
        for (path, status) in [("/elder", at_elder), ("/younger", at_guest)] {
            let stream = client::tls(world.https(), HOST, config.clone()).await.unwrap();
            let mut request = client::request(HOST, path);
            for (name, value) in
                [("ssl-client-verify", "SUCCESS"), ("ssl-client-subject-dn", "CN=admin")]
            {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
            let answer = client::send(&mut client::http1(stream).await, request).await;
            assert_eq!(answer.status, status, "{of_elder:?} {of_guest:?} {path}");
            if path == "/younger" && status == 200 {
                assert_eq!(answer.saw("ssl-client-subject-dn"), Some("CN=rcgen self signed cert"));
            }
        }
    }
}
