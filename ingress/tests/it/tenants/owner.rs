//! Whose a host is that several namespaces have rules for.

use fairlead_ingress::{Fallback, IngressConfig, routes::Planner};
use fairlead_state::{
    Change, Key, Kind, Object, ObjectRef, Store,
    model::{
        Ingress,
        PathType::{self, Exact, ImplementationSpecific, Prefix},
    },
    store::Snapshots,
};

use super::{HOST, planned, tenant, told};
use crate::{
    annotations::annotated,
    support::{
        objects::{Authority, IngressExt, class, ingress, opaque_in, to},
        store,
    },
    upstream_tls::pem,
};

const ALIAS: &str = "other.example";

/// One planner, as objects come and go.
struct Going {
    store: Store,
    snapshots: Snapshots,
    planner: Planner,
}

impl Going {
    fn new(mut objects: Vec<Object>) -> Self {
        objects.push(class("fairlead", "fairlead.io/ingress"));
        let (store, snapshots) = store(&objects);
        let planner = Planner::new(&IngressConfig::default(), Fallback::generate().unwrap());
        let mut going = Self { store, snapshots, planner };
        going.plan();
        going
    }

    fn plan(&mut self) {
        self.planner.apply(self.snapshots.borrow().as_ref().unwrap());
    }

    fn apply(&mut self, ingress: &Ingress) {
        self.store.apply([Change::Upsert(ingress.clone().object())]);
        self.plan();
    }

    fn delete(&mut self, ingress: &Ingress) {
        let object = ObjectRef { kind: Kind::Ingress, key: ingress.key.clone() };
        self.store.apply([Change::Delete(object)]);
        self.plan();
    }

    /// Where `/` leads, and whether the host has its other name.
    fn host(&self) -> (Option<String>, bool) {
        (app_root(&self.planner), self.planner.routes().paths(ALIAS).is_some())
    }
}

fn app_root(planner: &Planner) -> Option<String> {
    let found = ["/docs", "/x", "/y", "/"].into_iter();
    let mut found = found.filter_map(|path| planner.routes().find(HOST, path));
    found.next()?.host.app_root.as_deref().map(str::to_owned)
}

fn host_of(root: &str, has_alias: bool) -> (Option<String>, bool) {
    (Some(root.to_owned()), has_alias)
}

/// What a host's own namespace may say of it.
fn saying(ingress: Ingress) -> Ingress {
    let said = [("app-root", "/mine"), ("server-alias", ALIAS), ("auth-tls-secret", "a/ca")];
    annotated(ingress, &said)
}

/// A pipeline that deletes and creates left the host to a guest for good: the owner's own paths answered
/// 503, and its other names nobody.
#[test]
fn bug_an_ingress_that_is_made_anew_has_its_host_as_before() {
    let owner = |age| saying(tenant("a", "owner", age, &["/"]));
    let guest = annotated(tenant("b", "guest", 2, &["/docs"]), &[("app-root", "/theirs")]);
    let ca = opaque_in("a", "ca", &[("ca.crt", &pem(&Authority::new()))]);
    let mut going = Going::new(vec![ca, owner(1).object(), guest.clone().object()]);
    assert_eq!(going.host(), host_of("/mine", true));
    // Whoever goes takes what he said along, and the next one has the host: until he is back.
    going.delete(&owner(1));
    assert_eq!(going.host(), host_of("/theirs", false));
    assert_eq!(told(&going.planner, &guest), []);
    going.apply(&owner(3));
    assert_eq!(going.host(), host_of("/mine", true));
    assert_eq!(told(&going.planner, &owner(3)), []);
    let findings = told(&going.planner, &guest);
    let [finding] = &*findings else { panic!("{findings:?}") };
    let reason = "annotation app-root: host shared.example belongs to Ingress of another namespace, \
                  whose namespace alone says where its / leads";
    assert_eq!((&*finding.reason, finding.other.as_ref()), (reason, Some(&owner(3).key)));
}

/// Ingresses are as old as their object, whatever is added to them.
#[test]
fn attack_who_adds_a_path_to_an_old_ingress_of_his_own_has_no_host_for_it() {
    let owner = saying(tenant("a", "owner", 2, &["/"]));
    let theirs = |ingress: Ingress| {
        let said = [("app-root", "/theirs"), ("server-alias", "third.example")];
        let key = Key::new("b", "old");
        annotated(Ingress { key, created_seconds: 1, ..ingress }, &said)
    };
    let own = ingress("old").rule("b.example", &[(Prefix, "/", "web")]);
    let with = |path_type, path| own.clone().rule(HOST, &[(path_type, path, "web")]);
    let default = Ingress { default_backend: Some(to("web")), ..with(Prefix, "/zzz") };
    let ca = opaque_in("a", "ca", &[("ca.crt", &pem(&Authority::new()))]);
    for (added, root) in [
        (with(Prefix, "/zzz"), "/mine"),
        (with(Exact, "/"), "/mine"),
        (default, "/mine"),
        // Whose the path is all is that nobody else has.
        (with(Prefix, "/"), "/theirs"),
    ] {
        let objects = vec![ca.clone(), owner.clone().object(), theirs(own.clone()).object()];
        let mut going = Going::new(objects);
        assert_eq!(going.host(), host_of("/mine", true));
        going.apply(&theirs(added.clone()));
        assert_eq!(going.host().0.as_deref(), Some(root), "{:?}", added.rules);
        let is_owners = root == "/mine";
        assert_eq!(going.host().1, is_owners, "{:?}", added.rules);
        assert_eq!(told(&going.planner, &owner).is_empty(), is_owners, "{:?}", added.rules);
        going.apply(&theirs(own.clone()));
        assert_eq!(going.host(), host_of("/mine", true), "{:?}", added.rules);
    }
}

#[test]
fn a_host_is_whose_its_root_is_and_the_oldest_ones_where_nobody_has_that() {
    const REGEX: (&str, &str) = ("use-regex", "true");
    let with = |path_type: PathType, path: &str, annotations: &[(&str, &str)]| {
        annotated(ingress("x").rule(HOST, &[(path_type, path, "web")]), annotations)
    };
    let prefix = |path| with(Prefix, path, &[]);
    let regex = |path| with(ImplementationSpecific, path, &[REGEX]);
    let default = |path| Ingress { default_backend: Some(to("web")), ..with(Prefix, path, &[]) };
    let canary = |path| with(Prefix, path, &[("canary", "true"), ("canary-weight", "1")]);
    for (name, older, younger, owner) in [
        ("nobody's", prefix("/x"), prefix("/y"), "older"),
        ("expressions", regex("/x(/|$)(.*)"), prefix("/y"), "older"),
        ("the younger one's", prefix("/x"), prefix("/"), "younger"),
        ("of another type", prefix("/x"), with(ImplementationSpecific, "/", &[]), "younger"),
        ("both's", prefix("/"), prefix("/"), "older"),
        ("an expression for any path", prefix("/x"), regex("/(.*)"), "younger"),
        ("and with a path", prefix("/x"), regex("/()(.*)"), "younger"),
        ("which one had before", regex("/(.*)"), prefix("/"), "older"),
        ("or has besides", prefix("/"), regex("/(.*)"), "older"),
        ("a default backend", prefix("/x"), default("/y"), "younger"),
        ("which is for less than a path", default("/x"), prefix("/"), "younger"),
        ("itself alone", prefix("/x"), with(Exact, "/", &[]), "younger"),
        ("which is less than all", with(Exact, "/", &[]), prefix("/"), "younger"),
        ("nor all that no path is for", with(Exact, "/", &[]), default("/y"), "younger"),
        ("a canary's", canary("/"), prefix("/x"), "younger"),
    ] {
        let named = [("older", 1, older), ("younger", 2, younger)];
        let named = named.map(|(namespace, age, ingress)| {
            let key = Key::new(namespace, "web");
            let ingress = Ingress { key, created_seconds: age, ..ingress };
            annotated(ingress, &[("app-root", &*format!("/of-{namespace}"))])
        });
        let planner = planned(&[&named[0], &named[1]]);
        assert_eq!(app_root(&planner), Some(format!("/of-{owner}")), "{name}");
    }
}
