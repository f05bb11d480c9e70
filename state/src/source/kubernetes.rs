//! The Kubernetes API as a source.
//!
//! A list-and-watch per kind ([`reflector`]), one per referenced Secret and ConfigMap and for the own
//! Node ([`referenced`]). Each item of a list and each event is decoded by itself, so that an object
//! this version does not understand stands in no other's way.

mod addresses;
pub(crate) mod api;
mod backoff;
mod dial;
mod identity;
mod outage;
mod referenced;
mod reflector;
mod streams;
mod targets;
mod transport;
mod wire;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    api::{Api, Query},
    outage::Outage,
    referenced::Referenced,
    reflector::Reflector,
    targets::{Published, WholeKind},
};
use super::{Closed, Sink, Source, SourceError, referred::References};
use crate::{
    model::{Kind, Name, ObjectRef},
    write::Writer,
};

pub use addresses::Addresses;

/// How to reach a cluster, and which node's pods to follow.
#[derive(Clone, Debug)]
pub struct KubernetesOptions {
    /// A kubeconfig file; without one the service account of the pod this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Where API servers listen (`HOST:PORT`), tried in this order before the configured address.
    pub api_servers: Vec<String>,
    /// Where addresses of API servers are remembered over restarts; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// The own node.
    pub node_name: Name,
    /// Pods of every node are followed, where pods are; else only those of the own node.
    pub all_pods: bool,
    /// Labels of Services and Namespaces are kept.
    pub labels: bool,
    /// Objects to follow though no Ingress refers to them. Of their kinds no others are, but for Secrets and
    /// ConfigMaps that Ingresses refer to.
    pub always: BTreeSet<ObjectRef>,
}

/// A configured connection to an API server. Nothing is sent before [`Source::run`].
#[derive(Debug)]
pub struct Kubernetes {
    api: Arc<Api>,
    outage: Arc<Outage>,
    addresses: Addresses,
    writer: Writer,
    /// Whose pods are followed; `None`: every node's.
    pods_of: Option<Name>,
    labels: bool,
    always: BTreeSet<ObjectRef>,
}

impl Kubernetes {
    /// Reads the configuration. Needs a tokio runtime; does not need the server to answer.
    ///
    /// # Errors
    /// The configuration is missing or wrong.
    pub async fn new(options: KubernetesOptions) -> Result<Self, SourceError> {
        let KubernetesOptions { kubeconfig, api_servers, state_dir, .. } = options;
        let is_in_cluster = kubeconfig.is_none();
        let addresses = Addresses::remembered_in(state_dir.as_deref());
        let (client, server) =
            transport::connect(kubeconfig, &api_servers, addresses.clone()).await?;
        Ok(Self {
            writer: Writer::new(client.clone()),
            api: Arc::new(Api::new(client, server.clone())),
            outage: Arc::new(Outage::new(server, is_in_cluster)),
            addresses,
            pods_of: (!options.all_pods).then_some(options.node_name),
            labels: options.labels,
            always: options.always,
        })
    }

    /// The API server's address.
    pub fn server(&self) -> &Arc<str> {
        self.api.server()
    }

    /// For what is written there.
    pub fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Its other addresses; [`Addresses::follow`] keeps them up to date.
    pub fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }
}

impl Source for Kubernetes {
    async fn run(self, sink: Sink, cancel: CancellationToken) -> Result<(), SourceError> {
        let mut tasks = JoinSet::new();
        let named: BTreeSet<Kind> = self.always.iter().map(|object| object.kind).collect();
        let whole =
            |kind: &Kind| !matches!(kind, Kind::Secret | Kind::ConfigMap) && !named.contains(kind);
        // Without Ingresses nothing but these is ever referred to.
        let known = !sink.wanted().contains(&Kind::Ingress);
        let references = References::new(self.always);
        let (publisher, wanted) = watch::channel(known.then(|| references.all().clone()));
        let mut references = Some(Published::new(references, publisher));
        for kind in sink.wanted().iter().copied().filter(whole) {
            let query = Query::whole_kind(kind, self.pods_of.as_deref());
            let references = references.take_if(|_| kind == Kind::Ingress);
            let target = WholeKind::new(kind, sink.clone(), self.outage.clone(), references);
            let reflector = Reflector::new(self.api.clone(), query, target);
            tasks.spawn(reflector.with_labels(self.labels).run());
        }
        let single: BTreeSet<Kind> =
            sink.wanted().iter().copied().filter(|kind| !whole(kind)).collect();
        if !single.is_empty() {
            let referenced = Referenced::new(self.api, self.outage, sink, single);
            tasks.spawn(referenced.run(wanted));
        }
        let ended = tokio::select! {
            () = cancel.cancelled() => Ok(()),
            Some(ended) = tasks.join_next() => match ended {
                Ok(Closed) => Ok(()),
                Err(error) => Err(SourceError::Stopped(error.to_string())),
            },
        };
        tasks.shutdown().await;
        ended
    }
}
