//! Which source, and which kinds the running roles need of it.

use std::{collections::BTreeSet, sync::Arc};

use fairlead_state::{
    Key, Kind, ObjectRef, Running,
    source::{
        directory::{Directory, DirectoryOptions},
        kubernetes::{Kubernetes, KubernetesOptions},
    },
};
use tokio_util::sync::CancellationToken;

use super::args::{Args, Roles};
use crate::exit::BadConfiguration;

/// Starts reading. Fails only for what no waiting cures: an unreachable API server is waited for.
pub(crate) async fn start(
    args: &Args,
    node_name: &Arc<str>,
    cancel: CancellationToken,
) -> anyhow::Result<Running> {
    let kinds = kinds(args.roles);
    let always = default_certificate(args)?
        .map(|key| ObjectRef { kind: Kind::Secret, key })
        .into_iter()
        .collect::<BTreeSet<_>>();
    let bad = |error| BadConfiguration(crate::exit::one_line(&anyhow::Error::new(error)));
    if let Some(path) = args.source.manifests.clone() {
        let node_name = Some(node_name.clone());
        let options = DirectoryOptions { path, node_name, always };
        let source = Directory::new(options).map_err(bad)?;
        return Ok(fairlead_state::start(source, kinds, cancel));
    }
    let state_dir = args.source.state_dir.clone();
    let options = KubernetesOptions {
        kubeconfig: args.source.kubeconfig.clone(),
        api_servers: args.source.api_server.clone(),
        state_dir: state_dir.clone(),
        node_name: node_name.clone(),
        always,
    };
    let source = Kubernetes::new(options).await.map_err(bad)?;
    tracing::info!(server = %source.server(), "reading the API server");
    let addresses = source.addresses();
    let running = fairlead_state::start(source, kinds, cancel);
    tokio::spawn(addresses.follow(running.snapshots.clone(), state_dir));
    Ok(running)
}

/// Whether the API server is the one of the pod this runs in.
pub(crate) fn is_in_cluster(args: &Args) -> bool {
    args.source.kubeconfig.is_none() && args.source.manifests.is_none()
}

/// `--default-certificate NS/NAME`.
pub(crate) fn default_certificate(args: &Args) -> anyhow::Result<Option<Key>> {
    let Some(text) = &args.ingress.default_certificate else { return Ok(None) };
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(Some(Key::new(namespace, name)))
        }
        _ => Err(BadConfiguration(format!(
            "--default-certificate {text:?}: give the Secret as NAMESPACE/NAME"
        ))
        .into()),
    }
}

fn kinds(roles: Roles) -> BTreeSet<Kind> {
    let mut kinds = BTreeSet::from([Kind::Service, Kind::EndpointSlice]);
    if roles.proxy() {
        kinds.extend([Kind::Node, Kind::ServiceCidr]);
    }
    if roles.dns() {
        kinds.insert(Kind::Namespace);
    }
    if roles.ingress() {
        kinds.extend([Kind::Ingress, Kind::IngressClass, Kind::Secret]);
    }
    kinds
}
