//! Where objects come from, and the one loop that turns what a source says into snapshots.

pub mod directory;
mod health;
pub mod kubernetes;
mod referred;

use std::{
    collections::BTreeSet, future::Future, io, panic::resume_unwind, path::PathBuf, sync::Arc,
    time::Instant,
};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use crate::{
    change::Change,
    decode::is_object_name,
    model::{Ingress, Key, Kind, ObjectRef},
    snapshot::Snapshot,
    store::{Snapshots, Store},
};

pub use health::{KindHealth, SourceHealth};

/// Batches between a source and the store; a source that is faster waits.
const BATCHES_MAX: usize = 64;
/// Changes applied as one revision when several batches are waiting.
const COALESCED_CHANGES_MAX: usize = 16_384;
/// Changes that a runtime thread sorts or applies itself, in a millisecond or two. A list of all Services of a large
/// cluster takes a hundred times as long, and everything else of that thread would wait.
const APPLIED_AT_ONCE_MAX: usize = 1024;

/// Something that knows a cluster's objects and follows their changes.
pub trait Source: Send + 'static {
    /// Runs until `cancel`, sending each kind's [`Change::Replace`] once it is complete and every
    /// change after that. It outlives whatever it reads from: an outage is reported and waited out.
    ///
    /// # Errors
    /// What no waiting will cure.
    fn run(
        self,
        sink: Sink,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;
}

/// Why a source cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The kubeconfig file cannot be read or says nothing usable.
    #[error("--kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// The kubeconfig wants the API server to be reached by a proxy.
    #[error(
        "--kubeconfig {}: proxy-url of its cluster is not followed here: leave it out, and name an address \
         that is reached without a proxy (server, or --api-server HOST:PORT)",
        path.display()
    )]
    ProxyUrl {
        /// The file.
        path: PathBuf,
    },
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no API server to read from: this is no pod of a cluster ({source}); \
         give --kubeconfig FILE or --manifests DIR"
    )]
    NotInCluster {
        /// What is missing.
        source: Box<kube::config::InClusterError>,
    },
    /// `--api-server` names no address.
    #[error(
        "--api-server {text:?}: give HOST:PORT, for example 192.0.2.1:6443 or \
         [2001:db8::1]:6443"
    )]
    ApiServer {
        /// As given.
        text: String,
    },
    /// Certificates or credentials of the configuration cannot be used.
    #[error("credentials for the API server {server}: {reason}")]
    Credentials {
        /// The server's address.
        server: Arc<str>,
        /// What is wrong with them.
        reason: String,
    },
    /// The manifests directory cannot be read.
    #[error("--manifests {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file or directory that is read once cannot be read.
    #[error("reading {}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The kernel gives no more inotify instances or watches.
    #[error(
        "--manifests {}: cannot be watched: {source}; raise fs.inotify.max_user_instances or \
         fs.inotify.max_user_watches (sysctl)",
        path.display()
    )]
    Watch {
        /// The directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A task of the source ended by itself.
    #[error("the source stopped: {0}")]
    Stopped(String),
}

/// The store is gone: nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody takes changes any more")]
pub struct Closed;

/// Where a source puts what it learns.
#[derive(Clone, Debug)]
pub struct Sink {
    wanted: Arc<BTreeSet<Kind>>,
    batches: mpsc::Sender<Vec<Change>>,
    health: Arc<watch::Sender<SourceHealth>>,
    snapshots: Snapshots,
}

/// A started source.
#[derive(Debug)]
pub struct Running {
    /// The newest snapshot; `None` until every wanted kind is complete.
    pub snapshots: Snapshots,
    /// How the source fares.
    pub health: watch::Receiver<SourceHealth>,
    /// Ends with the source. The last snapshot stays readable.
    pub task: JoinHandle<Result<(), SourceError>>,
}

/// Starts `source` for `kinds` and the store it feeds. Needs a tokio runtime.
pub fn start<S: Source>(
    source: S,
    kinds: impl IntoIterator<Item = Kind>,
    cancel: CancellationToken,
) -> Running {
    let wanted: Arc<BTreeSet<Kind>> = Arc::new(kinds.into_iter().collect());
    let (store, snapshots) = Store::new(wanted.iter().copied());
    let (health, health_seen) = watch::channel(SourceHealth::of(&wanted));
    let health = Arc::new(health);
    let (batches, received) = mpsc::channel(BATCHES_MAX);
    let sink = Sink { wanted, batches, health: health.clone(), snapshots: snapshots.clone() };
    let task = tokio::spawn(async move {
        let (ended, ()) =
            tokio::join!(source.run(sink, cancel), apply_all(store, received, &health));
        ended
    });
    Running { snapshots, health: health_seen, task }
}

/// Secrets for TLS to endpoints, passwords and clients' certificates, `NAMESPACE/NAME` or `NAME`.
const SECRETS: [&str; 3] = [
    "nginx.ingress.kubernetes.io/proxy-ssl-secret",
    "nginx.ingress.kubernetes.io/auth-secret",
    "nginx.ingress.kubernetes.io/auth-tls-secret",
];

/// ConfigMaps with names and texts of fields.
const CONFIG_MAPS: [&str; 2] = [
    "nginx.ingress.kubernetes.io/custom-headers",
    "nginx.ingress.kubernetes.io/auth-proxy-set-headers",
];

/// Which other objects an Ingress needs: certificates, authorities, passwords and fields, of its own
/// namespace.
pub fn references(ingress: &Ingress) -> BTreeSet<ObjectRef> {
    let namespace = &ingress.key.namespace;
    let secrets = ingress.tls.iter().filter_map(|tls| tls.secret_name.clone());
    let named = |annotation: &&str| {
        // Blanks are no part of it (ingress-nginx: parser.normalizeString).
        let text = ingress.annotations.get(*annotation)?.trim();
        // Another namespace's is never read.
        let name = text.strip_prefix(&**namespace).and_then(|rest| rest.strip_prefix('/'));
        let name = name.unwrap_or(text);
        // A server answers 400 to a selector that is none, and everybody would wait for this object.
        is_object_name(name).then(|| crate::Name::from(name))
    };
    let of = |kind| move |name| ObjectRef { kind, key: Key { namespace: namespace.clone(), name } };
    let secrets = secrets.chain(SECRETS.iter().filter_map(named)).map(of(Kind::Secret));
    secrets.chain(CONFIG_MAPS.iter().filter_map(named).map(of(Kind::ConfigMap))).collect()
}

/// Ends when the source has dropped its sinks.
async fn apply_all(
    mut store: Store,
    mut batches: mpsc::Receiver<Vec<Change>>,
    health: &watch::Sender<SourceHealth>,
) {
    while let Some(mut batch) = batches.recv().await {
        while batch.len() < COALESCED_CHANGES_MAX
            && let Ok(more) = batches.try_recv()
        {
            batch.extend(more);
        }
        let has_list = batch.iter().any(|change| matches!(change, Change::Replace { .. }));
        store = if has_list || batch.len() > APPLIED_AT_ONCE_MAX {
            let Ok(store) = aside(move || applied(store, batch)).await else { return };
            store
        } else {
            applied(store, batch)
        };
        health.send_if_modified(|health| health.set_synced(store.missing()));
    }
}

/// Does what takes long where no runtime thread waits for it.
///
/// # Errors
/// The runtime is ending.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Closed> {
    spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(_) => Closed,
    })
}

fn applied(mut store: Store, batch: Vec<Change>) -> Store {
    store.apply(batch);
    store
}

impl Sink {
    /// The kinds somebody reads.
    pub fn wanted(&self) -> &BTreeSet<Kind> {
        &self.wanted
    }

    /// What was published last.
    pub(crate) fn newest(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.borrow().clone()
    }

    /// Hands a batch over; its changes become visible together.
    ///
    /// # Errors
    /// Nobody takes changes any more.
    pub async fn send(&self, batch: Vec<Change>) -> Result<(), Closed> {
        if batch.is_empty() {
            return Ok(());
        }
        self.batches.send(batch).await.map_err(|_| Closed)
    }

    /// The kind's state is as of now.
    pub fn contact(&self, kind: Kind) {
        self.health.send_if_modified(|health| health.contact(kind, Instant::now()));
    }

    /// The kind cannot be followed, and why.
    pub fn failed(&self, kind: Kind, reason: &str) {
        self.health.send_if_modified(|health| health.failed(kind, reason));
    }

    /// Something is wrong at `place` (a file, an object), or no longer.
    pub fn problem(&self, place: &str, reason: Option<&str>) {
        self.health.send_if_modified(|health| health.problem(place, reason));
    }
}
