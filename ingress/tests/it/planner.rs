//! Snapshots to routes: what is refused, and that small steps lead where one big step does.

mod classes;
mod ports;

use std::{net::SocketAddr, sync::Arc};

use fairlead_ingress::{Fallback, IngressConfig, routes::Planner};
use fairlead_state::{
    Change, Key, Kind, Object, ObjectRef,
    model::{
        EndpointPort, Ingress,
        PathType::{Exact, ImplementationSpecific, Prefix},
        Protocol::{Tcp, Udp},
        TargetPort,
    },
};
use proptest::prelude::*;

use crate::support::{
    objects::{
        Authority, IngressExt, Pod, class, ingress, ingress_ref, secret, secret_ref, service,
        service_ref, slice, slice_ref, to,
    },
    store,
};

fn planned(objects: &[Object]) -> Planner {
    let (_store, snapshots) = store(objects);
    let mut planner = Planner::new(&IngressConfig::default(), Fallback::generate().unwrap());
    planner.apply(snapshots.borrow().as_ref().unwrap());
    planner
}

/// Everything a planner holds, as text.
fn text(planner: &Planner) -> String {
    let rows: Vec<String> = planner.routes().rows().iter().map(|row| format!("{row:?}")).collect();
    let findings: Vec<String> = planner.findings().iter().map(ToString::to_string).collect();
    let shown = ["a.example", "b.example", "c.example"].map(|name| planner.certificate(name));
    let (rows, findings) = (rows.join("\n"), findings.join("\n"));
    format!("{rows}\n{findings}\n{shown:?}\n{:?}", sorted(planner))
}

fn sorted(planner: &Planner) -> Vec<String> {
    let text = format!("{:?}", planner.certificates());
    let mut names: Vec<String> = text.split(['[', ']', ',']).map(|s| s.trim().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_is_refused_of_an_ingress_leaves_the_rest_in_force() {
    for (name, bad, reason) in [
        (
            "empty element",
            ingress("web").rule("a.example", &[(Prefix, "/a//b", "web")]),
            "path \"/a//b\" is not in normal form; write \"/a/b\"",
        ),
        (
            "dot segment",
            ingress("web").rule("a.example", &[(Exact, "/a/../b", "web")]),
            "path \"/a/../b\" is not in normal form; write \"/b\"",
        ),
        (
            "encoded letter",
            ingress("web").rule("a.example", &[(Exact, "/%61", "web")]),
            "path \"/%61\" is not in normal form; write \"/a\"",
        ),
        (
            "no slash",
            ingress("web").rule("a.example", &[(ImplementationSpecific, "a", "web")]),
            "path \"a\" does not begin with /",
        ),
        (
            "bare wildcard",
            ingress("web").rule("*.", &[(Prefix, "/", "web")]),
            "host \"*.\" is neither a DNS name nor *. and a DNS name",
        ),
        (
            "wildcard inside",
            ingress("web").rule("a.*.b", &[(Prefix, "/", "web")]),
            "host \"a.*.b\" is neither a DNS name nor *. and a DNS name",
        ),
        (
            "newline in the path (CVE-2026-24512 and its like)",
            ingress("web").rule("a.example", &[(Prefix, "/a\n}\nserver {", "web")]),
            "path \"/a\\n}\\nserver {\" holds a control character or a backslash",
        ),
        (
            "redirect setting",
            ingress("web").annotation("nginx.ingress.kubernetes.io/ssl-redirect", "nope"),
            "annotation nginx.ingress.kubernetes.io/ssl-redirect \"nope\" is neither \"true\" nor \
             \"false\"",
        ),
    ] {
        let good = bad.rule("good.example", &[(Prefix, "/", "web")]);
        let planner =
            planned(&[class("fairlead", "fairlead.io/ingress"), service("web"), good.object()]);
        let rows = planner.routes().rows();
        assert_eq!(
            rows.iter().map(|row| row.host.as_str()).collect::<Vec<_>>(),
            ["good.example"],
            "{name}"
        );
        let findings = planner.findings();
        assert_eq!(findings.iter().map(|f| &*f.reason).collect::<Vec<_>>(), [reason], "{name}");
    }
}

/// Threads take new routes when they next look, and a request keeps those it began with. They found a
/// Service without endpoints (503) from when another plan no longer led there, before that was in force.
#[test]
fn bug_whoever_goes_by_the_routes_of_before_finds_the_endpoints_of_before() {
    let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
    let leads = |service: &str| ingress("web").host("a.example", service).object();
    let mut objects = vec![class("fairlead", "fairlead.io/ingress"), leads("first")];
    for (name, port) in [("first", 1), ("second", 2)] {
        objects.extend([service(name), slice(name, "a", address(port), Pod::Ready)]);
    }
    let (mut store, snapshots) = store(&objects);
    let mut planner = Planner::new(&IngressConfig::default(), Fallback::generate().unwrap());
    planner.apply(snapshots.borrow().as_ref().unwrap());
    let before = planner.routes().clone();
    for next in [Change::Upsert(leads("second")), Change::Delete(ingress_ref("web"))] {
        store.apply([next]);
        planner.apply(snapshots.borrow().as_ref().unwrap());
        let upstream = before.find("a.example", "/").unwrap().route.upstream.clone().unwrap();
        assert_eq!(upstream.addresses(), [address(1)]);
    }
    let upstream = before.find("a.example", "/").unwrap().route.upstream.clone().unwrap();
    let endpoint = upstream.endpoints().list[0].clone();
    drop(upstream);
    assert!(!endpoint.is_gone());
    // Nobody goes by them any more, and nobody else leads there.
    drop(before);
    assert!(endpoint.is_gone(), "idle connections would be kept");
}

#[test]
fn annotations_without_effect_are_told() {
    let web = ingress("web")
        .host("a.example", "web")
        .annotation("nginx.ingress.kubernetes.io/rewrite-goal", "/$1")
        .annotation("nginx.ingress.kubernetes.io/ssl-redirect", "false")
        .annotation("example.com/else", "x");
    let planner =
        planned(&[class("fairlead", "fairlead.io/ingress"), service("web"), web.object()]);
    let findings: Vec<String> = planner.findings().iter().map(ToString::to_string).collect();
    assert_eq!(
        findings,
        ["Ingress default/web differs: annotation nginx.ingress.kubernetes.io/rewrite-goal has \
          no effect here"]
    );
}

/// Whoever opens the page or reads the log need not be somebody who may read Ingresses.
#[test]
fn passwords_and_tokens_in_annotations_are_not_repeated() {
    const WORD: &str = "s3cret";
    let annotate = |ingress: Ingress, name: &str, value: &str| {
        ingress.annotation(&format!("nginx.ingress.kubernetes.io/{name}"), value)
    };
    let good = [
        ("auth-url", "http://auth.example/?key=s3cret"),
        ("configuration-snippet", "proxy_set_header Authorization \"Bearer s3cret\";"),
        ("mirror-target", "https://b.example/?token=s3cret"),
        ("proxy-body-size", "2m"),
    ];
    let bad = [
        ("auth-request-redirect", "s3cret"),
        ("configuration-snippet", "more_set_headers \"Authorization Bearer s3cret\";"),
        ("mirror-target", "s3cret"),
        ("server-snippet", "set $password s3cret; unknown;"),
        ("auth-snippet", "s3cret"),
        ("proxy-read-timeout", "soon"),
    ];
    let [good, bad] = [("good", &good[..]), ("bad", &bad[..])].map(|(name, annotations)| {
        let ingress = ingress(name).host(&format!("{name}.example"), "web");
        annotations.iter().fold(ingress, |ingress, (name, value)| annotate(ingress, name, value))
    });
    let objects =
        [class("fairlead", "fairlead.io/ingress"), service("web"), good.object(), bad.object()];
    let planner = planned(&objects);
    let key = |name| Key::new("default", name);
    let acting = planner.annotations(&key("good")).join(" ");
    assert!(!acting.contains(WORD) && acting.contains("proxy-body-size=2m"), "{acting}");
    for name in ["auth-url", "configuration-snippet", "mirror-target"] {
        assert!(acting.split(' ').any(|shown| shown == name), "{name}: {acting}");
    }
    let findings: Vec<String> = planner.findings().iter().map(ToString::to_string).collect();
    let findings = findings.join("\n");
    assert!(!findings.contains(WORD), "{findings}");
    for part in ["/server-snippet ", "/auth-snippet ", "/proxy-read-timeout \"soon\" "] {
        assert!(findings.contains(part), "{part}: {findings}");
    }
}

#[test]
fn a_change_costs_what_it_touches() {
    let authority = Authority::new();
    let address = |i: u16| SocketAddr::from(([10, 0, 0, 1], i));
    let mut objects = vec![class("fairlead", "fairlead.io/ingress"), service("web")];
    objects.extend((0..100).map(|i| {
        let host = format!("h{i}.example");
        ingress(&format!("i{i}")).host(&host, "web").tls(&[&host], &format!("t{i}")).object()
    }));
    let (mut store, snapshots) = store(&objects);
    let config = IngressConfig::default();
    let mut planner = Planner::new(&config, Fallback::generate().unwrap());
    planner.apply(snapshots.borrow().as_ref().unwrap());
    let before = planner.routes().clone();
    let other_ingress = ingress("i7").host("h7.example", "other").object();
    for (what, object, routes, certificates) in [
        ("an endpoint", slice("web", "a", address(80), Pod::Ready), false, false),
        ("a Secret", authority.secret("t3", &["h3.example"]), false, true),
        ("a Secret nobody refers to", authority.secret("x", &["x.example"]), false, false),
        ("a Service nobody refers to", service("x"), false, false),
        ("an Ingress", other_ingress, true, true),
    ] {
        store.apply([Change::Upsert(object)]);
        let planned = planner.apply(snapshots.borrow().as_ref().unwrap());
        assert_eq!((planned.routes, planned.certificates), (routes, certificates), "{what}");
    }
    for i in 0..100 {
        let host = format!("h{i}.example");
        let (old, new) =
            (before.find(&host, "/").unwrap(), planner.routes().find(&host, "/").unwrap());
        assert_eq!(Arc::ptr_eq(old.route, new.route), i != 7, "{host}");
    }
    let untouched = before.find("h0.example", "/").unwrap().route.upstream.clone().unwrap();
    assert_eq!(untouched.addresses(), [address(80)]);
}

/// Of a wildcard's TLS section it is whose it is that hosts below it go by.
#[test]
fn a_change_of_a_wildcard_touches_those_below_it_that_go_by_it() {
    let authority = Authority::new();
    let of = |namespace: &str, name: &str, host: &str, service: &str| Ingress {
        key: Key::new(namespace, name),
        ..ingress(name).host(host, service)
    };
    let wild = |service| {
        of("own", "wild", "*.wild.example", service).tls(&["*.wild.example"], "wild").object()
    };
    let shown = || {
        let (certificate, key) = authority.issue(&["*.wild.example"]);
        secret(Key::new("own", "wild"), &certificate, &key)
    };
    let mut objects = vec![class("fairlead", "fairlead.io/ingress")];
    for i in 0..50 {
        let (own, other) = (format!("a{i}.wild.example"), format!("b{i}.wild.example"));
        objects.push(of("own", &format!("i{i}"), &own, "web").object());
        objects.push(of("other", &format!("i{i}"), &other, "web").object());
        let far = format!("c{i}.x.wild.example");
        objects.push(of("own", &format!("far{i}"), &far, "web").object());
    }
    let (mut store, snapshots) = store(&objects);
    let mut planner = Planner::new(&IngressConfig::default(), Fallback::generate().unwrap());
    planner.apply(snapshots.borrow().as_ref().unwrap());
    let gone = ObjectRef { kind: Kind::Ingress, key: Key::new("own", "wild") };
    for (what, change, is_touched) in [
        ("its section comes", Change::Upsert(wild("web")), true),
        ("its Secret comes", Change::Upsert(shown()), false),
        ("another one comes", Change::Upsert(shown()), false),
        ("it leads elsewhere", Change::Upsert(wild("other")), false),
        ("it goes", Change::Delete(gone), true),
    ] {
        let before = planner.routes().clone();
        store.apply([change]);
        planner.apply(snapshots.borrow().as_ref().unwrap());
        for row in before.rows().iter().filter(|row| !row.host.starts_with('*')) {
            let old = before.find(&row.host, "/").unwrap();
            let new = planner.routes().find(&row.host, "/").unwrap();
            let goes_by_it = is_touched && row.host.starts_with('a');
            assert_eq!(!Arc::ptr_eq(old.route, new.route), goes_by_it, "{what}: {}", row.host);
        }
    }
}

/// Whoever writes Events and addresses looks at all Ingresses when this grows, and not before.
#[test]
fn what_is_told_of_ingresses_is_looked_at_again_when_it_may_have_changed() {
    let authority = Authority::new();
    let address = |i: u16| SocketAddr::from(([10, 0, 0, 1], i));
    let web = ingress("web").host("a.example", "web").tls(&["a.example"], "t").object();
    let mut theirs = ingress("theirs").host("b.example", "web");
    theirs.class_name = Some("other".into());
    let objects = [class("fairlead", "fairlead.io/ingress"), service("web"), web.clone()];
    let (mut store, snapshots) = store(&objects);
    let mut planner = Planner::new(&IngressConfig::default(), Fallback::generate().unwrap());
    planner.apply(snapshots.borrow().as_ref().unwrap());
    let mut told = planner.told();
    assert!(told > 0);
    let slice = |i, pod| Change::Upsert(slice("web", "a", address(i), pod));
    for (what, change, grows) in [
        ("an endpoint comes", slice(80, Pod::Ready), false),
        ("another one instead", slice(81, Pod::Ready), false),
        ("it is not ready", slice(81, Pod::NotReady), false),
        ("its Secret comes", Change::Upsert(authority.secret("t", &["a.example"])), true),
        ("a Secret nobody names", Change::Upsert(authority.secret("x", &["x.example"])), false),
        ("another's Ingress", Change::Upsert(theirs.object()), false),
        ("another's Ingress goes", Change::Delete(ingress_ref("theirs")), false),
        ("its Service goes", Change::Delete(service_ref("web")), true),
        ("a Service nobody names", Change::Upsert(service("x")), false),
        ("its Service is back", Change::Upsert(service("web")), true),
        ("another class", Change::Upsert(class("other", "example.com/other")), true),
        ("the Ingress goes", Change::Delete(ingress_ref("web")), true),
        ("and is back", Change::Upsert(web), true),
    ] {
        store.apply([change]);
        planner.apply(snapshots.borrow().as_ref().unwrap());
        assert_eq!(planner.told() > told, grows, "{what}");
        told = planner.told();
    }
}

/// One random step on few enough names that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Ingress { name: u8, age: i64, host: u8, path: u8, service: u8, tls: u8, foreign: bool },
    DropIngress(u8),
    Service(u8),
    Slice { service: u8, suffix: u8, port: u16, ready: bool },
    DropSlice { service: u8, suffix: u8 },
    Secret { name: u8, good: bool },
    DropSecret(u8),
    Class { ours: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, 0i64..3, 0u8..4, 0u8..4, 0u8..3, 0u8..5, prop::bool::weighted(0.2)).prop_map(
            |(name, age, host, path, service, tls, foreign)| Step::Ingress {
                name, age, host, path, service, tls, foreign
            }
        ),
        1 => (0u8..4).prop_map(Step::DropIngress),
        1 => (0u8..3).prop_map(Step::Service),
        3 => (0u8..3, 0u8..3, 1u16..4, any::<bool>()).prop_map(
            |(service, suffix, port, ready)| Step::Slice { service, suffix, port, ready }
        ),
        1 => (0u8..3, 0u8..3).prop_map(|(service, suffix)| Step::DropSlice { service, suffix }),
        2 => (0u8..3, any::<bool>()).prop_map(|(name, good)| Step::Secret { name, good }),
        1 => (0u8..3).prop_map(Step::DropSecret),
        1 => any::<bool>().prop_map(|ours| Step::Class { ours }),
    ]
}

/// Of two namespaces.
fn ingress_of(name: u8) -> ObjectRef {
    let namespace = if name == 0 { "other" } else { "default" };
    ObjectRef { kind: Kind::Ingress, key: Key::new(namespace, format!("i{name}")) }
}

fn change(step: &Step, authority: &Authority) -> Change {
    let host = |i: u8| ["a.example", "b.example", "*.example", "*"][usize::from(i)];
    match step {
        Step::Ingress { name, age, host: h, path, service, tls, foreign } => {
            let path = ["/", "/x", "/x/", "/x//bad"][usize::from(*path)];
            let mut ingress = ingress(&format!("i{name}"))
                .rule(host(*h), &[(Prefix, path, &format!("s{service}")), (Exact, "/e", "s0")]);
            ingress.key = ingress_of(*name).key;
            ingress.created_seconds = *age;
            if *foreign {
                ingress.class_name = Some("other".into());
            }
            ingress.default_backend = (*age == 0).then(|| to("s1"));
            let ingress = match tls {
                0 => ingress,
                1 => ingress.tls(&[], "t0"),
                n => ingress.tls(&["a.example", "*.example"], &format!("t{}", n - 1)),
            };
            Change::Upsert(ingress.object())
        }
        Step::DropIngress(name) => Change::Delete(ingress_of(*name)),
        Step::Service(name) => Change::Upsert(service(&format!("s{name}"))),
        Step::Slice { service, suffix, port, ready } => {
            let pod = if *ready { Pod::Ready } else { Pod::Terminating };
            let address = SocketAddr::from(([10, 0, 0, *suffix], *port));
            Change::Upsert(slice(&format!("s{service}"), &suffix.to_string(), address, pod))
        }
        Step::DropSlice { service, suffix } => {
            Change::Delete(slice_ref(&format!("s{service}"), &suffix.to_string()))
        }
        Step::Secret { name, good: true } => {
            let names: &[&str] = if *name == 0 { &["a.example"] } else { &["*.example"] };
            Change::Upsert(authority.secret(&format!("t{name}"), names))
        }
        // Never good: one that was would be served on, and how long is a matter of history.
        Step::Secret { good: false, .. } => {
            Change::Upsert(secret(secret_ref("t3").key, "not", "PEM"))
        }
        Step::DropSecret(name) => Change::Delete(secret_ref(&format!("t{name}"))),
        Step::Class { ours } => {
            let controller = if *ours { "fairlead.io/ingress" } else { "example.com/other" };
            Change::Upsert(class("other", controller))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn small_steps_lead_where_one_big_step_does(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..16)
    ) {
        let authority = Authority::new();
        let fallback = Fallback::generate().unwrap();
        let config = IngressConfig::default();
        let objects = vec![class("fairlead", "fairlead.io/ingress"), service("s0")];
        let (mut store, snapshots) = store(&objects);
        let mut stepwise = Planner::new(&config, fallback.clone());
        for batch in &batches {
            store.apply(batch.iter().map(|step| change(step, &authority)));
            let snapshot = snapshots.borrow().clone().unwrap();
            stepwise.apply(&snapshot);
            let mut at_once = Planner::new(&config, fallback.clone());
            at_once.apply(&snapshot);
            prop_assert_eq!(text(&stepwise), text(&at_once));
        }
    }
}
