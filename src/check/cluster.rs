//! What a live cluster has, by its API server. Nothing is written there.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use fairlead_ingress::KINDS;
use fairlead_state::{
    Key, Kind, ObjectRef, Running, Snapshot, SourceHealth,
    source::kubernetes::{Kubernetes, KubernetesOptions},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::exit::BadConfiguration;

/// Longest wait for all lists: those of a large cluster take a part of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where kubeadm keeps the configurations of what Fairlead takes the place of.
const CONFIGURATIONS: [&str; 2] = ["coredns", "kube-proxy"];

fn key(name: &str) -> Key {
    Key::new("kube-system", name)
}

/// One snapshot of everything that is judged.
///
/// # Errors
/// The kubeconfig cannot be used, or the API server says no or nothing; in one line.
pub(super) fn read(
    kubeconfig: &Path,
    named: impl Iterator<Item = ObjectRef>,
) -> anyhow::Result<Arc<Snapshot>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the runtime")?.block_on(read_all(kubeconfig, named))
}

async fn read_all(
    kubeconfig: &Path,
    named: impl Iterator<Item = ObjectRef>,
) -> anyhow::Result<Arc<Snapshot>> {
    let object = |name: &&str| ObjectRef { kind: Kind::ConfigMap, key: key(name) };
    let options = KubernetesOptions {
        kubeconfig: Some(kubeconfig.to_owned()),
        api_servers: Vec::new(),
        state_dir: None,
        node_name: "".into(),
        all_pods: false,
        labels: false,
        always: CONFIGURATIONS.iter().map(object).chain(named).collect(),
    };
    let bad = |error| BadConfiguration(crate::exit::one_line(&anyhow::Error::new(error)));
    let source = Kubernetes::new(options).await.map_err(bad)?;
    let server = source.server().clone();
    let stop = CancellationToken::new();
    // Services and Ingresses are judged, and Service ranges by the Nodes; zones of DNS have the Namespaces.
    let more = [Kind::Namespace, Kind::Node, Kind::ServiceCidr];
    let kinds: BTreeSet<Kind> = KINDS.into_iter().chain(more).collect();
    let running = fairlead_state::start(source, kinds, stop.clone());
    let Running { mut snapshots, mut health, .. } = running;
    let _guard = stop.drop_guard();
    let known = async { snapshots.wait_for(Option::is_some).await.ok()?.clone() };
    let failure = async {
        let failed = health.wait_for(|health| problem(health).is_some()).await;
        failed.ok().and_then(|health| problem(&health))
    };
    tokio::select! {
        biased;
        snapshot = known => snapshot.context("the source ended"),
        problem = failure => anyhow::bail!("{}", problem.unwrap_or_default()),
        () = tokio::time::sleep(PATIENCE) => {
            anyhow::bail!("the API server {server} has not listed everything in {PATIENCE:?}")
        }
    }
}

/// Why something cannot be read. A kind that cannot be read is waited for by an agent, not here.
fn problem(health: &SourceHealth) -> Option<String> {
    let mut kinds = health.kinds.iter();
    kinds.find_map(|(kind, health)| Some(format!("{kind}: {}", health.last_error.as_deref()?)))
}

/// ConfigMaps with configurations, as `kubectl get -o json` prints them.
pub(super) fn configurations(snapshot: &Snapshot) -> Vec<Value> {
    let found = CONFIGURATIONS.iter().filter_map(|name| snapshot.config_maps().get(&key(name)));
    let document = |object: &Arc<fairlead_state::model::ConfigMap>| {
        json!({
            "kind": "ConfigMap",
            "metadata": { "name": &*object.key.name, "namespace": &*object.key.namespace },
            "data": object.data.iter().map(|(k, v)| (k.to_string(), json!(&**v))).collect::<serde_json::Map<_, _>>(),
        })
    };
    found.map(document).collect()
}
