//! The Kubernetes source against a list/watch server that can be made to misbehave.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_state::{
    Key, Kind, ObjectRef, Running, Snapshot, SourceHealth,
    source::kubernetes::{Kubernetes, KubernetesOptions},
    start,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::apiserver::ApiServer;

/// Longest wait for something that must happen.
const LIMIT: Duration = Duration::from_secs(30);

/// Of node-1.
fn options(server: &ApiServer) -> KubernetesOptions {
    KubernetesOptions {
        kubeconfig: Some(server.kubeconfig()),
        api_servers: Vec::new(),
        state_dir: None,
        node_name: "node-1".into(),
        all_pods: false,
        always: BTreeSet::new(),
    }
}

/// A source that runs, and every snapshot it was seen to publish.
struct Followed {
    running: Running,
    history: Vec<Arc<Snapshot>>,
    _stop: DropGuard,
}

impl Followed {
    async fn start(server: &ApiServer, kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self::start_with(options(server), kinds).await
    }

    async fn start_with(options: KubernetesOptions, kinds: impl IntoIterator<Item = Kind>) -> Self {
        let cancel = CancellationToken::new();
        let source = Kubernetes::new(options).await.unwrap();
        let running = start(source, kinds, cancel.clone());
        Self { running, history: Vec::new(), _stop: cancel.drop_guard() }
    }

    /// Waits until a snapshot is as wished; remembers all on the way.
    async fn until(&mut self, what: &str, wished: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let newest = self.running.snapshots.borrow_and_update().clone();
            if let Some(snapshot) = newest {
                self.history.push(snapshot.clone());
                if wished(&snapshot) {
                    return snapshot;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let changed = timeout(left, self.running.snapshots.changed()).await;
            let last = || self.history.last().map(|snapshot| services(snapshot));
            changed.unwrap_or_else(|_| panic!("{what}: not seen; last {:?}", last())).unwrap();
        }
    }

    async fn until_health(&mut self, what: &str, wished: impl FnMut(&SourceHealth) -> bool) {
        let seen = timeout(LIMIT, self.running.health.wait_for(wished)).await;
        let _ = seen.unwrap_or_else(|_| panic!("{what}: not seen")).unwrap();
    }

    fn is_published(&self) -> bool {
        self.running.snapshots.borrow().is_some()
    }
}

fn services(snapshot: &Snapshot) -> Vec<String> {
    let services = snapshot.services().values();
    services.map(|service| format!("{}:{}", service.key.name, service.ports[0].port)).collect()
}

fn service(name: &str, port: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": port}]},
    })
}

fn ingress(name: &str, secret: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "tls": [{"secretName": secret}],
            "defaultBackend": {"service": {"name": "a", "port": {"number": 80}}},
        },
    })
}

fn secret(name: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"},
        "type": "kubernetes.io/tls", "stringData": {"tls.crt": text},
    })
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node}, "status": {"podIP": "10.244.1.5"},
    })
}

fn secret_text(snapshot: &Snapshot, name: &str) -> Option<String> {
    let secret = snapshot.secrets().get(&Key::new("default", name))?;
    Some(String::from_utf8(secret.data.get("tls.crt")?.to_vec()).unwrap())
}

#[tokio::test]
async fn one_streaming_list_brings_everything_and_then_each_change() {
    let server = ApiServer::start().await;
    server.put_all((0..1200).map(|i| service(&format!("s{i}"), 80)));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    let first = followed.until("in sync", |_| true).await;
    assert_eq!((first.services().len(), first.revision()), (1200, 1));
    server.put(service("s7", 81));
    server.delete("Service", "default", "s8");
    followed
        .until("both changes", |s| {
            services(s).contains(&"s7:81".to_owned()) && s.services().len() == 1199
        })
        .await;
    let requests = server.requests();
    assert_eq!((requests.streaming_lists, requests.lists, requests.watches), (1, 0, 0));
}

#[tokio::test]
async fn a_server_without_streaming_lists_is_read_page_by_page() {
    let server = ApiServer::start().await;
    server.without_streaming_lists();
    server.put_all((0..1200).map(|i| service(&format!("s{i}"), 80)));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    let first = followed.until("in sync", |_| true).await;
    assert_eq!(first.services().len(), 1200);
    server.put(service("s7", 81));
    followed.until("a change", |s| services(s).contains(&"s7:81".to_owned())).await;
    let requests = server.requests();
    assert_eq!((requests.lists, requests.pages, requests.watches), (1, 2, 1));
}

#[tokio::test]
async fn pods_of_every_node_are_followed_where_that_is_wanted() {
    let server = ApiServer::start().await;
    server.put_all([pod("here", "node-1"), pod("there", "node-2")]);
    for (all_pods, wanted) in [(false, 1), (true, 2)] {
        let options = KubernetesOptions { all_pods, ..options(&server) };
        let mut followed = Followed::start_with(options, [Kind::Pod]).await;
        let snapshot = followed.until("in sync", |_| true).await;
        assert_eq!(snapshot.pods().len(), wanted, "{all_pods}");
    }
}

#[tokio::test]
async fn every_kind_is_asked_for_where_the_api_has_it() {
    let server = ApiServer::start().await;
    server.put_all([
        service("a", 80),
        ingress("i", "cert"),
        secret("cert", "x"),
        secret("unused", "y"),
        pod("here", "node-1"),
        pod("there", "node-2"),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "a-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "a"},
            },
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.244.1.5"]}],
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": "fairlead"}, "spec": {"controller": "fairlead.io/ingress"},
        }),
        service_cidr(),
    ]);
    let mut followed = Followed::start(&server, Kind::ALL).await;
    let snapshot = followed.until("in sync", |_| true).await;
    assert_eq!(services(&snapshot), ["a:80"]);
    assert_eq!(snapshot.slices_of(&Key::new("default", "a")).count(), 1);
    let counts = [
        snapshot.nodes().len(),
        snapshot.namespaces().len(),
        snapshot.pods().len(),
        snapshot.ingresses().len(),
        snapshot.ingress_classes().len(),
        snapshot.secrets().len(),
        snapshot.service_cidrs().len(),
    ];
    assert_eq!(counts, [1; 7], "of two pods the own node's, of two secrets the one referred to");
    let paths: Vec<String> = server.requests().paths.into_keys().collect();
    let expected = [
        "/api/v1/namespaces",
        "/api/v1/namespaces/default/secrets",
        "/api/v1/nodes",
        "/api/v1/pods",
        "/api/v1/services",
        "/apis/discovery.k8s.io/v1/endpointslices",
        "/apis/multicluster.x-k8s.io/v1alpha1/serviceimports",
        "/apis/networking.k8s.io/v1/ingressclasses",
        "/apis/networking.k8s.io/v1/ingresses",
        "/apis/networking.k8s.io/v1/servicecidrs",
    ];
    assert_eq!(paths, expected);
    assert!(followed.running.health.borrow().is_synced());
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_where_it_broke_off() {
    let server = ApiServer::start().await;
    server.put(service("a", 80));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    followed.until("in sync", |_| true).await;
    for port in 81..84 {
        server.disconnect_all();
        server.put(service("a", port));
        let expected = [format!("a:{port}")];
        followed.until("the change", |s| services(s) == expected).await;
    }
    let requests = server.requests();
    assert_eq!((requests.streaming_lists, requests.lists), (1, 0), "nothing was listed again");
    assert!(requests.watches >= 3);
}

#[tokio::test]
async fn a_watch_the_server_ends_is_taken_up_from_its_last_bookmark() {
    let server = ApiServer::start().await;
    server.put(service("a", 80));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    followed.until("in sync", |_| true).await;
    // Versions move on by objects this watch does not see; the bookmark tells it.
    server.put_all((0..10).map(|i| secret(&format!("s{i}"), "x")));
    let before = followed.running.health.borrow().kinds[&Kind::Service].last_contact;
    server.bookmark();
    let limit = Instant::now() + LIMIT;
    while followed.running.health.borrow().kinds[&Kind::Service].last_contact == before {
        assert!(Instant::now() < limit, "the bookmark is a contact");
        tokio::task::yield_now().await;
    }
    server.compact();
    server.end_watches();
    server.put(service("a", 81));
    followed.until("the change", |s| services(s) == ["a:81"]).await;
    let requests = server.requests();
    assert_eq!(requests.streaming_lists + requests.lists, 1, "410 was avoided by the bookmark");
}

/// An update lost with a compacted history must be found by listing, and nothing may flicker.
#[tokio::test]
async fn after_410_gone_a_new_list_replaces_everything_in_one_step() {
    for streaming in [true, false] {
        let server = ApiServer::start().await;
        if !streaming {
            server.without_streaming_lists();
        }
        server.put_all((0..900).map(|i| service(&format!("old{i}"), 80)));
        server.put(service("stays", 80));
        let mut followed = Followed::start(&server, [Kind::Service]).await;
        followed.until("in sync", |_| true).await;
        server.pause();
        for i in 0..900 {
            server.delete("Service", "default", &format!("old{i}"));
        }
        server.put_all((0..700).map(|i| service(&format!("new{i}"), 80)));
        server.compact();
        server.resume();
        followed.until("the new ones", |s| s.services().len() == 701).await;
        let sizes: BTreeSet<usize> =
            followed.history.iter().map(|snapshot| snapshot.services().len()).collect();
        assert_eq!(sizes, BTreeSet::from([701, 901]), "old or new, never in between");
        let stays = Key::new("default", "stays");
        assert!(followed.history.iter().all(|s| s.services().contains_key(&stays)));
        assert_eq!(followed.history.last().unwrap().revision(), 2);
    }
}

#[tokio::test]
async fn a_list_that_expires_between_its_pages_is_begun_again() {
    let server = ApiServer::start().await;
    server.without_streaming_lists();
    server.put_all((0..600).map(|i| service(&format!("s{i}"), 80)));
    // Each page is answered and at once forgotten.
    let compacting = async {
        loop {
            server.compact();
            tokio::task::yield_now().await;
        }
    };
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    tokio::select! {
        () = compacting => {}
        snapshot = followed.until("in sync", |_| true) => {
            assert_eq!(snapshot.services().len(), 600);
            let requests = server.requests();
            assert!(requests.pages >= 1 && requests.lists >= 2, "{requests:?}");
        }
    }
}

#[tokio::test]
async fn one_bad_object_stands_in_no_others_way() {
    for streaming in [true, false] {
        let server = ApiServer::start().await;
        if !streaming {
            server.without_streaming_lists();
        }
        let mut mistyped = service("mistyped", 80);
        mistyped["spec"]["ports"] = json!("eighty");
        server.put_all([service("a", 80), mistyped, service("bad", 99999), service("z", 80)]);
        let mut followed = Followed::start(&server, [Kind::Service]).await;
        let snapshot = followed.until("in sync", |_| true).await;
        assert_eq!(services(&snapshot), ["a:80", "z:80"]);
        let refused: Vec<String> = snapshot.refused().values().map(ToString::to_string).collect();
        let url = server.url();
        assert_eq!(
            refused,
            [
                format!(
                    "Service default/bad refused: spec.ports[0].port 99999 is not a port (1-65535) \
                     ({url})"
                ),
                format!(
                    "Service default/mistyped refused: spec.ports: invalid type: string \
                     \"eighty\", expected a sequence ({url})"
                ),
            ]
        );
        server.put(service("a", 70000));
        let snapshot = followed.until("the refusal", |s| s.refused().len() == 3).await;
        assert_eq!(services(&snapshot), ["a:80", "z:80"], "the last good version stays");
        server.put(service("a", 81));
        let snapshot = followed.until("the cure", |s| s.refused().len() == 2).await;
        assert_eq!(services(&snapshot), ["a:81", "z:80"]);
    }
}

#[tokio::test]
async fn a_slice_that_loses_its_label_leaves_its_service() {
    let server = ApiServer::start().await;
    let slice = |labels: Value| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "a-1", "namespace": "default", "labels": labels},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.244.1.5"]}],
        })
    };
    server.put(slice(json!({"kubernetes.io/service-name": "a"})));
    let mut followed = Followed::start(&server, [Kind::EndpointSlice]).await;
    followed.until("in sync", |s| s.endpoint_slices().len() == 1).await;
    server.put(slice(json!({})));
    followed.until("gone", |s| s.endpoint_slices().is_empty()).await;
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
async fn a_secret_that_does_not_exist_holds_nothing_up() {
    let server = ApiServer::start().await;
    server.put(ingress("i", "missing"));
    let mut followed = Followed::start(&server, [Kind::Ingress, Kind::Secret]).await;
    let snapshot = followed.until("in sync", |_| true).await;
    assert_eq!((snapshot.ingresses().len(), snapshot.secrets().len()), (1, 0));
    server.put(secret("missing", "here"));
    followed.until("created later", |s| secret_text(s, "missing").is_some()).await;
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
         grant this account get, list and watch on secrets (RBAC)"
    );
    assert_eq!(refusal.object.to_string(), "Secret default/cert");
    server.forbid(&[]);
    let snapshot = followed.until("granted", |s| secret_text(s, "cert").is_some()).await;
    assert!(snapshot.refused().is_empty());
    assert!(followed.running.health.borrow().problems.is_empty());
}

#[tokio::test]
async fn what_is_always_wanted_needs_no_reference() {
    let server = ApiServer::start().await;
    server.put(secret("default-cert", "x"));
    let wanted = ObjectRef { kind: Kind::Secret, key: Key::new("default", "default-cert") };
    for kinds in [vec![Kind::Secret], vec![Kind::Ingress, Kind::Secret]] {
        let always = BTreeSet::from([wanted.clone()]);
        let options = KubernetesOptions { always, ..options(&server) };
        let mut followed = Followed::start_with(options, kinds).await;
        let snapshot = followed.until("in sync", |_| true).await;
        assert_eq!(secret_text(&snapshot, "default-cert").as_deref(), Some("x"));
    }
}

#[tokio::test]
async fn a_server_that_comes_up_later_is_waited_for() {
    let server = ApiServer::start_unreachable();
    server.put(service("a", 80));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    followed.until_health("refused", |h| h.kinds[&Kind::Service].last_error.is_some()).await;
    let error = followed.running.health.borrow().kinds[&Kind::Service].last_error.clone();
    assert!(error.unwrap().contains("Connection refused"), "the cause is named");
    assert!(!followed.is_published());
    server.resume();
    let snapshot = followed.until("in sync", |_| true).await;
    assert_eq!(services(&snapshot), ["a:80"]);
    let health = followed.running.health.borrow().clone();
    assert_eq!(health.stale_for(Instant::now()), None);
}

#[tokio::test]
async fn an_outage_keeps_the_last_snapshot_and_says_how_old_it_is() {
    let server = ApiServer::start().await;
    server.put(service("a", 80));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    followed.until("in sync", |_| true).await;
    server.pause();
    followed.until_health("cut off", |h| h.kinds[&Kind::Service].last_error.is_some()).await;
    let health = followed.running.health.borrow().clone();
    assert!(health.stale_for(Instant::now()).is_some());
    assert!(health.is_synced());
    assert!(followed.is_published());
    server.put(service("a", 81));
    server.resume();
    followed.until("the change", |s| services(s) == ["a:81"]).await;
    followed.until_health("back", |h| h.stale_for(Instant::now()).is_none()).await;
}

#[tokio::test]
async fn a_server_that_answers_503_is_asked_again() {
    let server = ApiServer::start().await;
    server.put(service("a", 80));
    server.answer_with(Some(503));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    followed.until_health("503", |h| h.kinds[&Kind::Service].last_error.is_some()).await;
    server.answer_with(None);
    followed.until("in sync", |_| true).await;
}

#[tokio::test]
async fn a_kind_the_server_lacks_or_withholds_holds_up_nothing_if_it_is_optional() {
    for is_absent in [true, false] {
        let server = ApiServer::start().await;
        server.put_all([service("a", 80), service_cidr()]);
        if is_absent {
            server.without(&["servicecidrs"]);
        } else {
            server.forbid(&["servicecidrs"]);
        }
        let mut followed = Followed::start(&server, [Kind::Service, Kind::ServiceCidr]).await;
        let snapshot = followed.until("in sync", |_| true).await;
        assert_eq!((services(&snapshot), snapshot.service_cidrs().len()), (vec!["a:80".into()], 0));
        server.forbid(&[]);
        if !is_absent {
            followed.until("the range", |s| s.service_cidrs().len() == 1).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_published_while_one_kind_is_forbidden() {
    let server = ApiServer::start().await;
    server.put(service("a", 80));
    server.forbid(&["nodes"]);
    let mut followed = Followed::start(&server, [Kind::Service, Kind::Node]).await;
    followed.until_health("403", |h| h.kinds[&Kind::Node].last_error.is_some()).await;
    followed.until_health("the rest", |h| h.kinds[&Kind::Service].synced).await;
    assert!(!followed.is_published());
    server.forbid(&[]);
    followed.until("in sync", |_| true).await;
}

fn service_cidr() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ["10.96.0.0/16", "fd00:10:96::/112"]},
    })
}
