//! The Kubernetes source against a list/watch server that can be made to misbehave.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod connections;
mod gaps;
mod secrets;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_state::{
    Key, Kind, Running, Snapshot, SourceHealth,
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
pub(crate) fn options(kubeconfig: PathBuf) -> KubernetesOptions {
    KubernetesOptions {
        kubeconfig: Some(kubeconfig),
        api_servers: Vec::new(),
        state_dir: None,
        node_name: "node-1".into(),
        all_pods: false,
        labels: false,
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
        Self::start_with(options(server.kubeconfig()), kinds).await
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
        let options = KubernetesOptions { all_pods, ..options(server.kubeconfig()) };
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
    followed.until_health("in sync, and known to be", SourceHealth::is_synced).await;
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
