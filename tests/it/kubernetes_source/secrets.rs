//! Secrets are asked for one by one, while something refers to them.

use std::{collections::BTreeSet, net::IpAddr};

use fairlead_state::{Key, Kind, ObjectRef, Snapshot, source::kubernetes::KubernetesOptions};
use serde_json::{Value, json};

use super::{Followed, ingress, options, secret};
use crate::support::apiserver::ApiServer;

fn secret_text(snapshot: &Snapshot, name: &str) -> Option<String> {
    let secret = snapshot.secrets().get(&Key::new("default", name))?;
    Some(String::from_utf8(secret.data.get("tls.crt")?.to_vec()).unwrap())
}

#[tokio::test]
async fn secrets_are_read_one_by_one_and_only_while_something_refers_to_them() {
    let server = ApiServer::start().await;
    server.put_all([secret("cert", "one"), secret("other", "two")]);
    let mut followed = Followed::start(&server, [Kind::Ingress, Kind::Secret]).await;
    let snapshot = followed.until("in sync without references", |_| true).await;
    assert!(snapshot.secrets().is_empty());
    assert!(!server.requests().paths.keys().any(|path| path.ends_with("secrets")));
    server.put(ingress("i", "cert"));
    followed.until("the certificate", |s| secret_text(s, "cert").is_some()).await;
    server.put(secret("cert", "renewed"));
    followed
        .until("the renewed one", |s| secret_text(s, "cert").as_deref() == Some("renewed"))
        .await;
    server.put(ingress("i", "other"));
    followed.until("the other one", |s| secret_text(s, "other").is_some()).await;
    let snapshot = followed.until("only that", |s| s.secrets().len() == 1).await;
    assert!(secret_text(&snapshot, "cert").is_none());
    server.delete("Secret", "default", "other");
    followed.until("deleted", |s| s.secrets().is_empty()).await;
    server.put(secret("other", "back"));
    followed.until("back", |s| secret_text(s, "other").as_deref() == Some("back")).await;
    server.delete("Ingress", "default", "i");
    followed.until("nothing refers to it", |s| s.secrets().is_empty()).await;
}

#[tokio::test]
async fn a_secret_of_two_ingresses_is_followed_by_one_watch_until_neither_names_it() {
    let server = ApiServer::start().await;
    server.put_all([ingress("i", "shared"), ingress("j", "shared"), secret("shared", "one")]);
    let mut followed = Followed::start(&server, [Kind::Ingress, Kind::Secret]).await;
    followed.until("in sync", |s| secret_text(s, "shared").is_some()).await;
    let asked = || {
        let requests = server.requests();
        let of_secrets = requests.paths.iter().filter(|(path, _)| path.ends_with("/secrets"));
        of_secrets.map(|(_, times)| times).sum::<usize>()
    };
    server.put(ingress("j", "own"));
    server.put(secret("own", "one"));
    let snapshot = followed.until("another's", |s| secret_text(s, "own").is_some()).await;
    assert!(secret_text(&snapshot, "shared").is_some(), "the other still names it");
    server.put(ingress("j", "shared"));
    followed.until("only the shared one", |s| s.secrets().len() == 1).await;
    server.delete("Ingress", "default", "i");
    server.put(secret("shared", "two"));
    let is_renewed = |s: &Snapshot| secret_text(s, "shared").as_deref() == Some("two");
    followed.until("renewed, for the one that is left", is_renewed).await;
    assert_eq!(asked(), 2, "one watch of each");
    server.delete("Ingress", "default", "j");
    followed.until("nobody names it", |s| s.secrets().is_empty()).await;
}

#[tokio::test]
async fn a_secret_that_does_not_exist_holds_nothing_up() {
    let server = ApiServer::start().await;
    server.put(ingress("i", "missing"));
    let mut followed = Followed::start(&server, [Kind::Ingress, Kind::Secret]).await;
    let snapshot = followed.until("in sync", |_| true).await;
    assert_eq!((snapshot.ingresses().len(), snapshot.secrets().len()), (1, 0));
    server.put(secret("missing", "here"));
    followed.until("created later", |s| secret_text(s, "missing").is_some()).await;
}

/// A selector that is none is answered by 400, and an object that does not answer holds everything up.
#[tokio::test]
async fn attack_an_annotation_that_is_more_than_a_name_is_asked_for_nowhere_and_holds_nothing_up() {
    let server = ApiServer::start().await;
    for (name, secret) in
        [("a", "x,foo"), ("b", "cert,metadata.name!=y"), ("c", "x\\"), ("d", "x y")]
    {
        let mut ingress = ingress(name, "cert");
        ingress["spec"]["tls"] = Value::Null;
        let annotations = json!({
            "nginx.ingress.kubernetes.io/auth-secret": secret,
            "nginx.ingress.kubernetes.io/custom-headers": secret,
        });
        ingress["metadata"]["annotations"] = annotations;
        server.put(ingress);
    }
    let kinds = [Kind::Ingress, Kind::Secret, Kind::ConfigMap];
    let mut followed = Followed::start(&server, kinds).await;
    let snapshot = followed.until("in sync", |_| true).await;
    assert_eq!((snapshot.ingresses().len(), snapshot.secrets().len()), (4, 0));
    let is_asked = |path: &String| path.ends_with("secrets") || path.ends_with("configmaps");
    assert!(!server.requests().paths.keys().any(is_asked), "{:?}", server.requests());
}

#[tokio::test]
async fn a_secret_that_may_not_be_read_is_refused_with_the_cure_and_holds_nothing_up() {
    let server = ApiServer::start().await;
    server.put_all([ingress("i", "cert"), secret("cert", "x")]);
    server.forbid(&["secrets"]);
    let mut followed = Followed::start(&server, [Kind::Ingress, Kind::Secret]).await;
    let snapshot = followed.until("in sync", |_| true).await;
    let refusal = snapshot.refused().values().next().unwrap();
    assert_eq!(
        &*refusal.reason,
        "it answered 403: User \"test\" cannot list resource \"secrets\"; \
         grant this account list and watch on secrets (RBAC)"
    );
    assert_eq!(refusal.object.to_string(), "Secret default/cert");
    server.forbid(&[]);
    let snapshot = followed.until("granted", |s| secret_text(s, "cert").is_some()).await;
    assert!(snapshot.refused().is_empty());
    assert!(followed.running.health.borrow().problems.is_empty());
}

/// A role that needs its own Node alone does not read a large cluster's.
#[tokio::test]
async fn of_a_kind_that_is_read_by_name_nothing_else_is_read() {
    let server = ApiServer::start().await;
    let node = |name: &str, ip: &str| {
        let addresses = json!([{"type": "InternalIP", "address": ip}]);
        let status = json!({"addresses": addresses});
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status})
    };
    server.put_all([node("node-1", "10.0.0.7"), node("node-2", "10.0.0.8")]);
    let key = Key::new("", "node-1");
    let wanted = ObjectRef { kind: Kind::Node, key: key.clone() };
    let options = || {
        let always = BTreeSet::from([wanted.clone()]);
        KubernetesOptions { always, ..options(server.kubeconfig()) }
    };
    let mut followed = Followed::start_with(options(), [Kind::Ingress, Kind::Node]).await;
    let snapshot = followed.until("in sync", |_| true).await;
    assert_eq!(snapshot.nodes().keys().collect::<Vec<_>>(), [&key]);
    server.put(node("node-1", "10.0.0.9"));
    let has = |ip: [u8; 4]| {
        let key = key.clone();
        move |snapshot: &Snapshot| {
            snapshot.nodes().get(&key).is_some_and(|node| *node.addresses == [IpAddr::from(ip)])
        }
    };
    followed.until("another address", has([10, 0, 0, 9])).await;

    server.forbid(&["nodes"]);
    let mut unread = Followed::start_with(options(), [Kind::Ingress, Kind::Node]).await;
    let snapshot = unread.until("in sync without the right to it", |_| true).await;
    assert!(snapshot.nodes().is_empty() && snapshot.refused().len() == 1);
}

#[tokio::test]
async fn what_is_always_wanted_needs_no_reference() {
    let server = ApiServer::start().await;
    server.put(secret("default-cert", "x"));
    let wanted = ObjectRef { kind: Kind::Secret, key: Key::new("default", "default-cert") };
    for kinds in [vec![Kind::Secret], vec![Kind::Ingress, Kind::Secret]] {
        let always = BTreeSet::from([wanted.clone()]);
        let options = KubernetesOptions { always, ..options(server.kubeconfig()) };
        let mut followed = Followed::start_with(options, kinds).await;
        let snapshot = followed.until("in sync", |_| true).await;
        assert_eq!(secret_text(&snapshot, "default-cert").as_deref(), Some("x"));
    }
}
