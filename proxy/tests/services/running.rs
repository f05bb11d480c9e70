//! The loop around the synchroniser.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use fairlead_proxy::{
    delta::Step,
    maps::{
        Capacities, Entry, MapError, Maps, ServiceCounts, faulty::FaultyMaps, memory::MemoryMaps,
    },
    run::run,
    sync::{ProxyStatus, Synchroniser},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::objects::{Cluster, NODE, put_service, put_slice, service, slice};

const LIMIT: Duration = Duration::from_secs(20);

/// Maps the test keeps a hand on.
#[derive(Clone)]
struct Shared(Arc<Mutex<FaultyMaps<MemoryMaps>>>);

impl Shared {
    fn new(faults_per_thousand: u32) -> Self {
        let maps = FaultyMaps::new(MemoryMaps::default(), 7, faults_per_thousand);
        Self(Arc::new(Mutex::new(maps)))
    }

    fn with<T>(&self, look: impl FnOnce(&mut FaultyMaps<MemoryMaps>) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

impl Maps for Shared {
    fn each(&self, take: &mut dyn FnMut(Entry)) -> Result<(), MapError> {
        self.with(|maps| maps.each(take))
    }

    fn apply(&mut self, step: &Step) -> Result<(), MapError> {
        self.with(|maps| maps.apply(step))
    }

    fn capacities(&self) -> Capacities {
        self.with(|maps| maps.capacities())
    }

    fn counters(&self) -> Result<BTreeMap<u32, ServiceCounts>, MapError> {
        self.with(|maps| maps.counters())
    }

    fn named_by_connections(&self) -> Result<BTreeSet<u32>, MapError> {
        self.with(|maps| maps.named_by_connections())
    }
}

async fn until(status: &mut watch::Receiver<ProxyStatus>, wished: impl Fn(&ProxyStatus) -> bool) {
    let seen = timeout(LIMIT, status.wait_for(|status| wished(status))).await;
    assert!(matches!(seen, Ok(Ok(_))), "not in time, or the proxy ended");
}

#[tokio::test]
async fn follows_snapshots_retries_failures_and_ends_when_told() {
    let mut cluster = Cluster::new();
    let maps = Shared::new(1000);
    let (status, mut seen) = watch::channel(ProxyStatus::default());
    let cancel = CancellationToken::new();
    let sync = Synchroniser::new(maps.clone(), NODE);
    let running = tokio::spawn(run(sync, cluster.snapshots(), status, cancel.clone()));

    cluster.apply([put_service(service("a", "10.96.0.1"))]);
    until(&mut seen, |status| status.last_error.is_some()).await;
    assert!(!seen.borrow().is_current);
    maps.with(|maps| maps.revive(0));
    until(&mut seen, |status| status.is_current).await;
    assert_eq!((seen.borrow().frontends, seen.borrow().last_error.clone()), (2, None));

    let revision = cluster.apply([put_slice(slice("a", "a", &["10.1.0.1"]))]).revision();
    until(&mut seen, |status| status.revision == revision && status.backends == 1).await;
    assert!(maps.with(|maps| maps.inner().image().backends.len() == 1));

    // The source is gone: what is there stays, and the loop waits to be told to end.
    drop(cluster);
    tokio::task::yield_now().await;
    assert!(!running.is_finished());
    cancel.cancel();
    timeout(LIMIT, running).await.expect("did not end").unwrap().unwrap();
    assert!(maps.with(|maps| maps.inner().image().frontends.len() == 2));
}
