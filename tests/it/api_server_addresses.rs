//! An API server is found at the addresses the cluster gave when the configured one does not work,
//! as a Service's does not before anything serves it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_state::{
    Kind, Running, Snapshot,
    source::kubernetes::{Kubernetes, KubernetesOptions},
    start,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{kubernetes_source::options, support::apiserver::ApiServer};

/// Longest wait for something that must happen.
const LIMIT: Duration = Duration::from_secs(30);

/// A source, as the agent runs it.
struct Followed {
    running: Running,
    _stop: DropGuard,
}

impl Followed {
    async fn start(server: &ApiServer, state_dir: Option<&Path>, named: &[String]) -> Self {
        let options = KubernetesOptions {
            api_servers: named.to_vec(),
            state_dir: state_dir.map(Path::to_owned),
            ..options(server.kubeconfig())
        };
        let cancel = CancellationToken::new();
        let source = Kubernetes::new(options).await.unwrap();
        let addresses = source.addresses();
        let running = start(source, [Kind::Service, Kind::EndpointSlice], cancel.clone());
        let following = addresses.follow(running.snapshots.clone(), state_dir.map(Path::to_owned));
        tokio::spawn(following);
        Self { running, _stop: cancel.drop_guard() }
    }

    async fn until(&mut self, what: &str, wished: impl Fn(&Snapshot) -> bool) {
        let is_so = |snapshot: &Option<Arc<Snapshot>>| snapshot.as_deref().is_some_and(&wished);
        let seen = timeout(LIMIT, self.running.snapshots.wait_for(is_so)).await;
        seen.unwrap_or_else(|_| panic!("{what}: not seen")).unwrap();
    }
}

fn has(name: &'static str) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| snapshot.services().values().any(|service| *service.key.name == *name)
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]},
    })
}

/// What API servers say about themselves.
fn endpoints(servers: &[SocketAddr]) -> impl Iterator<Item = Value> {
    servers.iter().map(|server| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("kubernetes-{}", server.port()), "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [server.ip()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": server.port(), "protocol": "TCP"}],
        })
    })
}

async fn await_file(directory: &Path, wanted: &[SocketAddr]) {
    let mut lines: Vec<_> = wanted.iter().map(|address| format!("{address}\n")).collect();
    lines.sort();
    let deadline = Instant::now() + LIMIT;
    loop {
        let text = fs::read_to_string(directory.join("apiserver")).unwrap_or_default();
        let mut found: Vec<_> = text.split_inclusive('\n').map(str::to_owned).collect();
        found.sort();
        if found == lines {
            return;
        }
        assert!(Instant::now() < deadline, "remembered {found:?}, not {lines:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_configured_address_finds_the_remembered_one_by_its_certificate() {
    // Its certificate is for 127.0.0.1 alone; the peer's is the same.
    let configured = ApiServer::start_with_tls().await;
    let peer = configured.peer("127.0.0.2");
    peer.resume();
    configured.put_all(endpoints(&[peer.address()]).chain([service("first")]));
    let state = TempDir::new().unwrap();
    let mut followed = Followed::start(&configured, Some(state.path()), &[]).await;
    followed.until("in sync", has("first")).await;
    await_file(state.path(), &[peer.address()]).await;
    drop(followed);

    configured.pause();
    let mut followed = Followed::start(&configured, Some(state.path()), &[]).await;
    followed.until("by the remembered address", has("first")).await;
    configured.put(service("second"));
    followed.until("and it is followed", has("second")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_one_server_moves_watches_to_another_and_back() {
    let configured = ApiServer::start_with_tls().await;
    let peer = configured.peer("127.0.0.2");
    peer.resume();
    configured.put_all(endpoints(&[peer.address()]).chain([service("first")]));
    let mut followed = Followed::start(&configured, None, &[]).await;
    followed.until("in sync", has("first")).await;

    configured.pause();
    configured.put(service("second"));
    followed.until("read at the other server", has("second")).await;

    configured.resume();
    peer.pause();
    configured.put(service("third"));
    followed.until("read at the configured one again", has("third")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_and_says_nothing_is_passed_over() {
    let configured = ApiServer::start_with_tls().await;
    let hanging = TcpListener::bind("127.0.0.3:0").await.unwrap();
    let named = [hanging.local_addr().unwrap().to_string()];
    configured.put(service("first"));
    let began = Instant::now();
    let mut followed = Followed::start(&configured, None, &named).await;
    followed.until("in sync", has("first")).await;
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_address_works_without_the_configured_one() {
    let configured = ApiServer::start_with_tls().await;
    let peer = configured.peer("127.0.0.2");
    peer.resume();
    configured.pause();
    configured.put(service("first"));
    let named = [peer.address().to_string()];
    let mut followed = Followed::start(&configured, None, &named).await;
    followed.until("in sync", has("first")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impostor_at_a_remembered_address_is_not_talked_to() {
    let configured = ApiServer::start_with_tls().await;
    let impostor = ApiServer::start_with_tls().await;
    configured.pause();
    let state = TempDir::new().unwrap();
    fs::write(state.path().join("apiserver"), format!("{}\n", impostor.address())).unwrap();
    let mut followed = Followed::start(&configured, Some(state.path()), &[]).await;
    let failing = |health: &fairlead_state::SourceHealth| {
        let errors = health.kinds.values().filter_map(|kind| kind.last_error.as_deref());
        errors.into_iter().any(|error| {
            error.contains(&configured.address().to_string())
                && error.contains(&impostor.address().to_string())
                && error.contains("certificate")
        })
    };
    let seen = timeout(LIMIT, followed.running.health.wait_for(failing)).await;
    drop(seen.expect("both addresses are named").unwrap());
    assert_eq!(impostor.requests().paths.len(), 0, "no token was sent");
}
