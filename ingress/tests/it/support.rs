//! A world for tests: objects, a store, the role on free ports.

#[path = "support/client.rs"]
pub(crate) mod client;
#[path = "support/frames.rs"]
pub(crate) mod frames;
#[path = "support/objects.rs"]
pub(crate) mod objects;
#[path = "support/upstream.rs"]
pub(crate) mod upstream;

use std::{net::SocketAddr, time::Duration};

use fairlead_ingress::{Counters, IngressConfig, KINDS, Running, start};
use fairlead_state::{Change, Object, ObjectRef, Store, store::Snapshots};
use tokio_util::sync::CancellationToken;

/// Nothing in a test takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Counters tell nobody that they changed.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) snapshots: Snapshots,
    pub(crate) running: Running,
    pub(crate) cancel: CancellationToken,
}

/// A store that has seen a list of every kind, of these objects.
pub(crate) fn store(objects: &[Object]) -> (Store, Snapshots) {
    let (mut store, snapshots) = Store::new(KINDS);
    let lists = KINDS.map(|kind| {
        let objects = objects.iter().filter(|object| object.kind() == kind).cloned().collect();
        Change::Replace { kind, objects, refused: vec![] }
    });
    store.apply(lists);
    (store, snapshots)
}

pub(crate) fn config() -> IngressConfig {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    IngressConfig {
        http_listen: vec![any],
        https_listen: vec![any],
        threads: Some(2),
        // Everybody's endpoints are here.
        inside_allowed: vec!["127.0.0.0/8".parse().unwrap()],
        ..IngressConfig::default()
    }
}

impl World {
    pub(crate) async fn new(objects: Vec<Object>) -> Self {
        Self::with(config(), objects).await
    }

    /// With one thread: what one connection leaves behind is what the next one finds.
    pub(crate) async fn single(objects: Vec<Object>) -> Self {
        Self::with(IngressConfig { threads: Some(1), ..config() }, objects).await
    }

    pub(crate) async fn with(config: IngressConfig, mut objects: Vec<Object>) -> Self {
        objects.push(objects::class("fairlead", "fairlead.io/ingress"));
        let (store, snapshots) = store(&objects);
        let cancel = CancellationToken::new();
        let running = start(config, snapshots.clone(), cancel.clone()).unwrap();
        let world = Self { store, snapshots, running, cancel };
        world.settled().await;
        let mut ready = world.running.ready();
        tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
        world
    }

    pub(crate) async fn apply(&mut self, objects: Vec<Object>) {
        self.store.apply(objects.into_iter().map(Change::Upsert));
        self.settled().await;
    }

    pub(crate) async fn delete(&mut self, object: ObjectRef) {
        self.store.apply([Change::Delete(object)]);
        self.settled().await;
    }

    /// Until what the store holds is in force.
    async fn settled(&self) {
        let wanted = self.snapshots.borrow().as_ref().unwrap().revision();
        let mut revision = self.running.revision();
        let reached = revision.wait_for(|revision| *revision >= wanted);
        tokio::time::timeout(PATIENCE, reached).await.unwrap().unwrap();
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.running.http()[0]
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.running.https()[0]
    }

    /// Until the counters say so.
    pub(crate) async fn eventually(&self, reached: impl Fn(&Counters) -> bool) {
        let looking = async {
            while !reached(&self.running.counters()) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let counted = tokio::time::timeout(PATIENCE, looking).await;
        assert!(counted.is_ok(), "{:#?}", self.running.counters());
    }

    /// All reasons given for one Ingress.
    pub(crate) fn reasons(&self, name: &str) -> Vec<String> {
        let findings = self.running.status().findings.into_iter();
        let own = findings.filter(|finding| *finding.object.key.name == *name);
        own.map(|finding| format!("{}: {}", finding.severity.as_str(), finding.reason)).collect()
    }
}

/// The page of docs ends with the generated table; with `FAIRLEAD_WRITE_DOCS` set it is written.
pub(crate) fn page_ends_with(page: &str, name: &str, table: &str) {
    const WRITE: &str = "FAIRLEAD_WRITE_DOCS";
    let begin = format!("<!-- generated: {name} -->\n");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, written) = text.split_once(&begin).unwrap();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, format!("{before}{begin}{table}")).unwrap();
        return;
    }
    assert_eq!(written, table, "docs/{page} is out of date: set {WRITE}=1 and run this test once");
}
