//! Namespaces that share a host: what one of them may do to another.

mod certificates;
mod owner;
mod settings;

use std::{net::SocketAddr, sync::Arc};

use fairlead_ingress::{Fallback, Finding, IngressConfig, routes::Planner};
use fairlead_state::{
    Key, Object,
    model::{EndpointSlice, Ingress, PathType::Prefix, Service},
};

use crate::{
    annotations::annotated,
    passthrough::encrypted,
    support::{
        World, client,
        objects::{Authority, IngressExt, backend, class, ingress},
        store,
        upstream::Upstream,
    },
};

const HOST: &str = "shared.example";

/// The Ingress `NAMESPACE/NAME`; who has the lower number is older.
fn tenant(namespace: &str, name: &str, age: i64, paths: &[&str]) -> Ingress {
    let paths: Vec<_> = paths.iter().map(|path| (Prefix, *path, "web")).collect();
    let key = Key::new(namespace, name);
    Ingress { key, created_seconds: age, ..ingress(name).rule(HOST, &paths) }
}

/// The Service `NAMESPACE/web` and its endpoint.
fn web(namespace: &str, address: SocketAddr) -> Vec<Object> {
    moved(namespace, backend("web", &[address]))
}

/// The same in another namespace.
fn moved(namespace: &str, objects: Vec<Object>) -> Vec<Object> {
    let moved = objects.into_iter().map(|object| match object {
        Object::Service(service) => {
            let key = Key::new(namespace, service.key.name.clone());
            Object::Service(Arc::new(Service { key, ..(*service).clone() }))
        }
        Object::EndpointSlice(slice) => {
            let key = Key::new(namespace, slice.key.name.clone());
            let service = Key::new(namespace, slice.service.name.clone());
            Object::EndpointSlice(Arc::new(EndpointSlice { key, service, ..(*slice).clone() }))
        }
        other => other,
    });
    moved.collect()
}

fn planned(ingresses: &[&Ingress]) -> Planner {
    planned_with(ingresses, Vec::new())
}

fn planned_with(ingresses: &[&Ingress], mut objects: Vec<Object>) -> Planner {
    objects.extend(ingresses.iter().map(|ingress| Object::Ingress(Arc::new((*ingress).clone()))));
    objects.push(class("fairlead", "fairlead.io/ingress"));
    let (_store, snapshots) = store(&objects);
    let mut planner = Planner::new(&IngressConfig::default(), Fallback::generate().unwrap());
    planner.apply(snapshots.borrow().as_ref().unwrap());
    planner
}

/// What is refused of an Ingress, or waits.
fn told(planner: &Planner, of: &Ingress) -> Vec<Finding> {
    let findings = planner.findings().into_iter();
    // There are no Services here.
    let is_told = |f: &Finding| f.object.key == of.key && !f.reason.contains("Service ");
    findings.filter(is_told).collect()
}

/// Whoever may read the Events of a namespace may not be allowed to know what others have.
#[test]
fn attack_by_asking_for_others_paths_nobody_learns_their_names() {
    let elder = tenant("a", "secret-project", 1, &["/"]);
    for (namespace, reason, in_full) in [
        (
            "a",
            "path / of host shared.example belongs to the older a/secret-project",
            "path / of host shared.example belongs to the older a/secret-project",
        ),
        (
            "b",
            "path / of host shared.example belongs to the older Ingress of another namespace",
            "path / of host shared.example belongs to the older Ingress of another namespace \
             (a/secret-project)",
        ),
    ] {
        let younger = tenant(namespace, "younger", 2, &["/"]);
        let planner = planned(&[&elder, &younger]);
        let findings = told(&planner, &younger);
        let [finding] = &*findings else { panic!("{findings:?}") };
        assert_eq!((&*finding.reason, &*finding.in_full()), (reason, in_full));
        assert!(finding.to_string().ends_with(in_full), "the log has the name: {finding}");
        assert_eq!(told(&planner, &elder), []);
    }
}

/// Whoever had the host's `/` refused to it had its TLS passed on to itself, all paths of it.
#[tokio::test]
async fn attack_ssl_passthrough_takes_no_host_of_another_namespace() {
    const ON: &[(&str, &str)] = &[("ssl-passthrough", "true")];
    const OFF: &[(&str, &str)] = &[];
    const REGEX: &[(&str, &str)] = &[("use-regex", "true")];
    let (a, b) = (Authority::new(), Authority::new());
    let (of_a, of_b) = (encrypted(&a, HOST).await, encrypted(&b, HOST).await);
    let elsewhere = "annotation ssl-passthrough: path / of host shared.example belongs to Ingress \
                     of another namespace, which alone decides where TLS ends";
    let theirs = "annotation ssl-passthrough: host shared.example belongs to Ingress of another \
                  namespace, whose paths would not be served any more";
    let beside = "annotation ssl-passthrough: path / of host shared.example belongs to a/elder, which \
                  alone decides where TLS ends";
    type Says<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)]);
    for (elder, other, ends, reason) in [
        (("a", &["/"][..], OFF), ("b", &["/"][..], ON), "here", elsewhere),
        (("a", &["/"], OFF), ("b", &["/x"], ON), "here", elsewhere),
        (("a", &["/(.*)"], REGEX), ("b", &["/"], ON), "here", theirs),
        // Who has `/` has the host, whoever was there before.
        (("a", &["/x"], OFF), ("b", &["/"], ON), "b", ""),
        (("a", &["/x"], ON), ("b", &["/"], ON), "b", ""),
        (("b", &["/x"], OFF), ("a", &["/"], ON), "a", ""),
        (("a", &["/"], ON), ("b", &["/"], ON), "a", elsewhere),
        (("a", &["/"], ON), ("b", &["/x"], OFF), "a", ""),
        (("a", &["/"], OFF), ("a", &["/x"], ON), "here", beside),
        (("a", &["/x"], OFF), ("a", &["/"], ON), "a", ""),
    ] as [(Says<'_>, Says<'_>, &str, &str); 10]
    {
        let mut objects = [web("a", of_a.address), web("b", of_b.address)].concat();
        let named = [("elder", 1, elder), ("other", 2, other)];
        let named = named.map(|(name, age, (namespace, paths, annotations))| {
            annotated(tenant(namespace, name, age, paths), annotations)
        });
        objects.extend(named.map(IngressExt::object));
        let world = World::single(objects).await;
        let mut ended = "here";
        for (name, authority) in [("a", &a), ("b", &b)] {
            let config = client::trusting(authority.der(), &[]);
            if client::tls(world.https(), HOST, config).await.is_ok() {
                ended = name;
            }
        }
        assert_eq!(ended, ends, "{elder:?} {other:?}");
        let reasons = world.reasons("other");
        let is_told = reasons.iter().any(|told| told.contains("ssl-passthrough"));
        assert_eq!(is_told, !reason.is_empty(), "{elder:?} {other:?}: {reasons:?}");
        assert!(reasons.iter().any(|told| told.contains(reason)) || !is_told, "{reasons:?}");
    }
}

/// A canary of weight 100 had all requests of a path that its own Ingress would have been refused.
#[tokio::test]
async fn attack_a_canary_takes_no_requests_of_another_namespace() {
    const CANARY: &[(&str, &str)] = &[("canary", "true"), ("canary-weight", "100")];
    let all = ["a", "b"];
    let upstreams = [Upstream::echo("a").await, Upstream::echo("b").await];
    let refused = "refused: canary: path / of host shared.example belongs to Ingress of another \
                   namespace: a canary gets requests of Ingresses of its own namespace alone";
    let waits = "waiting: canary: no other Ingress serves the same path";
    // Whose canary there is, whether one of theirs would have the path, too; who answers, what is told.
    for (namespace, path, has_own, answers, reason) in [
        ("a", "/", false, "a-canary", ""),
        ("b", "/", false, "a", refused),
        ("b", "/", true, "a", refused),
        ("b", "/x", false, "a", waits),
    ] {
        let canary_of_a = Upstream::echo("a-canary").await;
        let mut objects: Vec<Object> = Vec::new();
        for (name, upstream) in all.iter().zip(&upstreams) {
            objects.extend(web(name, upstream.address));
        }
        let mut canary = annotated(tenant(namespace, "canary", 0, &[path]), CANARY);
        if namespace == "a" {
            objects.extend(moved("a", backend("trial", &[canary_of_a.address])));
            canary.rules = ingress("x").rule(HOST, &[(Prefix, path, "trial")]).rules;
        }
        objects.push(canary.object());
        objects.push(tenant("a", "main", 1, &["/"]).object());
        if has_own {
            objects.push(tenant("b", "own", 2, &["/"]).object());
        }
        let world = World::single(objects).await;
        let answer = client::get(world.http(), HOST, "/").await;
        assert_eq!(answer.who(), (200, answers), "{namespace} {path} {has_own}");
        let reasons = world.reasons("canary");
        assert_eq!(reasons.len(), usize::from(!reason.is_empty()), "{reasons:?}");
        assert!(reasons.iter().all(|told| told.starts_with(reason)), "{reasons:?}");
    }
}

/// Of two namespaces each canary is tried at its own namespace's paths.
#[tokio::test]
async fn canaries_of_two_namespaces_do_not_meet() {
    let canary = |namespace, age| {
        let canary = tenant(namespace, "canary", age, &["/", "/b"]);
        annotated(canary, &[("canary", "true"), ("canary-weight", "100")])
    };
    let (main, trial) = (Upstream::echo("main").await, Upstream::echo("trial").await);
    let mut objects = [web("a", main.address), web("b", main.address)].concat();
    for namespace in ["a", "b"] {
        objects.extend(moved(namespace, backend("trial", &[trial.address])));
        let mut canary = canary(namespace, i64::from(namespace == "a"));
        canary.rules =
            ingress("x").rule(HOST, &[(Prefix, "/", "trial"), (Prefix, "/b", "trial")]).rules;
        objects.push(canary.object());
    }
    objects.push(tenant("a", "main", 1, &["/"]).object());
    objects.push(tenant("b", "main", 1, &["/b"]).object());
    let world = World::single(objects).await;
    for path in ["/", "/b"] {
        assert_eq!(client::get(world.http(), HOST, path).await.who(), (200, "trial"), "{path}");
    }
}
