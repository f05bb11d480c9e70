//! Namespaces that share a host: what one of them may do to another.

use std::sync::Arc;

use fairlead_ingress::{Fallback, Finding, IngressConfig, routes::Planner};
use fairlead_state::{
    Key, Object,
    model::{Ingress, PathType::Prefix},
};

use crate::support::{
    objects::{IngressExt, class, ingress},
    store,
};

const HOST: &str = "shared.example";

/// The Ingress `NAMESPACE/NAME`; who has the lower number is older.
fn tenant(namespace: &str, name: &str, age: i64, paths: &[&str]) -> Ingress {
    let paths: Vec<_> = paths.iter().map(|path| (Prefix, *path, "web")).collect();
    let key = Key::new(namespace, name);
    Ingress { key, created_seconds: age, ..ingress(name).rule(HOST, &paths) }
}

fn planned(ingresses: &[&Ingress]) -> Planner {
    let mut objects: Vec<Object> =
        ingresses.iter().map(|ingress| Object::Ingress(Arc::new((*ingress).clone()))).collect();
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
            "path / of host shared.example belongs to an older Ingress of another namespace",
            "path / of host shared.example belongs to an older Ingress of another namespace \
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
