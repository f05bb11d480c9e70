//! Keeps the zone at the newest snapshot, and settings at the newest.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use fairlead_state::{Snapshot, store::Snapshots};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

use super::serial;
use crate::{
    policy::Policy,
    programming::Programming,
    zone::{Origin, Zone},
};

/// Until it is looked whether the past is still held. A thread that is asked nothing looks up as often.
const RETIRED_PAUSE: Duration = Duration::from_secs(1);

/// Settings that take the place of those in force.
#[derive(Debug)]
pub(super) struct Renewal {
    pub(super) policy: Arc<Policy>,
    pub(super) origin: Arc<Origin>,
}

/// What is to be answered by, besides snapshots.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) renewals: watch::Receiver<Option<Arc<Renewal>>>,
    pub(super) stand_ins: watch::Receiver<Option<Arc<Snapshot>>>,
}

/// What UDP threads and connections read.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) zone: Arc<ArcSwap<Zone>>,
    pub(super) policy: Arc<ArcSwap<Policy>>,
    pub(super) programming: Arc<Programming>,
}

/// What nobody is answered by any more, until the last thread has let go of it. To drop the last reference
/// frees a whole zone or cache and may give memory back to the system: no work for a thread that answers.
#[derive(Debug, Default)]
struct Retired {
    zones: Vec<Arc<Zone>>,
    policies: Vec<Arc<Policy>>,
}

impl Retired {
    fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.policies.is_empty()
    }

    /// Frees what nobody else holds; returns the rest, which costs nobody more than its holder.
    fn still_held(mut self) -> Self {
        self.zones.retain(|zone| Arc::strong_count(zone) > 1);
        self.policies.retain(|policy| Arc::strong_count(policy) > 1);
        self
    }
}

/// Keeps the zone at the newest snapshot and by the newest settings.
pub(super) async fn follow(
    serving: Serving,
    mut snapshots: Snapshots,
    mut orders: Orders,
    announce: watch::Sender<Option<u64>>,
    cancel: CancellationToken,
) {
    snapshots.mark_changed();
    let mut store_lives = true;
    // Names of an earlier run are nothing to derive the next ones from.
    let mut known = serving.zone.load_full();
    let mut is_said = false;
    // Of the names that are answered.
    let mut before: Option<Arc<Snapshot>> = None;
    let mut retired = Retired::default();
    loop {
        let renewal = tokio::select! {
            () = cancel.cancelled() => return,
            changed = snapshots.changed(), if store_lives => {
                // The store is gone: its last word stands until the end.
                store_lives = changed.is_ok();
                None
            }
            changed = orders.renewals.changed() => {
                if changed.is_err() {
                    return;
                }
                orders.renewals.borrow_and_update().clone()
            }
            Ok(()) = orders.stand_ins.changed() => {
                let kept = orders.stand_ins.borrow_and_update().clone();
                stand_in(&serving, &known, kept).await;
                continue;
            }
            () = sleep(RETIRED_PAUSE), if !retired.is_empty() => {
                let past = std::mem::take(&mut retired);
                retired = spawn_blocking(|| past.still_held()).await.unwrap_or_default();
                continue;
            }
        };
        let newest: Option<Arc<Snapshot>> = snapshots.borrow_and_update().clone();
        let (old, begun) = (known.clone(), Instant::now());
        let origin = renewal.as_ref().map(|renewal| renewal.origin.clone());
        // A first snapshot is tens of milliseconds of work, too long for a runtime thread.
        let (snapshot, past) = (newest.clone(), std::mem::take(&mut retired));
        let update = spawn_blocking(move || {
            let next = next_zone(&old, origin, snapshot);
            (next, past.still_held())
        });
        let updated = update.await.map(|(next, held)| {
            retired = held;
            next
        });
        if let Some(renewal) = renewal {
            retired.policies.push(serving.policy.swap(renewal.policy.clone()));
            renewal.policy.watch_loops();
            tracing::info!("DNS: new settings are in force");
        }
        match updated {
            Ok(Some(updated)) => {
                let revision = updated.revision();
                if let Some(newest) = &newest {
                    tracing::debug!(
                        revision,
                        changed = %newest.changes_since(known.revision().unwrap_or(0)),
                        elapsed = ?begun.elapsed(),
                        "DNS: names in force"
                    );
                }
                // Also where they were there before the server.
                if revision.is_some() && !std::mem::replace(&mut is_said, true) {
                    tracing::info!(services = updated.service_count(), "DNS: names are in sync");
                }
                known = Arc::new(updated);
                retired.zones.push(serving.zone.swap(known.clone()));
                if let (Some(before), Some(now)) = (&before, &newest) {
                    serving.programming.observe(before, now);
                }
                before = newest.or(before);
                announce.send_replace(revision);
            }
            Ok(None) => {}
            Err(error) => tracing::error!("DNS: names were not updated: {error}"),
        }
    }
}

/// Answers by what was kept, unless something better is there.
async fn stand_in(serving: &Serving, known: &Arc<Zone>, kept: Option<Arc<Snapshot>>) {
    let Some(kept) = kept.filter(|_| known.revision().is_none()) else { return };
    let known = known.clone();
    match spawn_blocking(move || known.stand_in(&kept, serial())).await {
        Ok(zone) => serving.zone.store(Arc::new(zone)),
        Err(error) => tracing::error!("DNS: names of the last run are not answered: {error}"),
    }
}

/// The zone at the newest snapshot; `None` if it is the old one.
fn next_zone(
    old: &Zone,
    origin: Option<Arc<Origin>>,
    newest: Option<Arc<Snapshot>>,
) -> Option<Zone> {
    let origin = origin.filter(|origin| *origin != *old.origin());
    match (origin, newest) {
        (None, None) => None,
        (None, Some(snapshot)) => Some(old.updated(&snapshot, serial())),
        (Some(origin), None) => Some(Zone::unsynced(origin, serial())),
        (Some(origin), Some(snapshot)) => Some(Zone::renewed(origin, &snapshot, serial())),
    }
}

#[cfg(test)]
mod tests {
    use fairlead_state::{
        Change, Store,
        model::{Key, Kind, Namespace, Object},
    };
    use tokio::time::timeout;

    use super::*;
    use crate::{config::DnsConfig, server::origin};

    #[tokio::test]
    async fn no_thread_that_answers_frees_a_zone() {
        let (mut store, snapshots) = Store::new([Kind::Service]);
        let first = Zone::unsynced(origin(&DnsConfig::default()).unwrap(), serial());
        let zone = Arc::new(ArcSwap::from_pointee(first));
        let serving = Serving {
            zone: zone.clone(),
            policy: Arc::new(ArcSwap::from_pointee(Policy::default())),
            programming: Arc::default(),
        };
        let ((_renew, renewals), (_kept, stand_ins)) = (watch::channel(None), watch::channel(None));
        let (announce, mut revisions) = watch::channel(None);
        let cancel = CancellationToken::new();
        let orders = Orders { renewals, stand_ins };
        let following = tokio::spawn(follow(serving, snapshots, orders, announce, cancel.clone()));
        let nothing = Change::Replace { kind: Kind::Service, objects: vec![], refused: vec![] };
        let namespace = |name: &str| {
            let key = Key::new("", name);
            Change::Upsert(Object::Namespace(Arc::new(Namespace { key, labels: [].into() })))
        };
        assert!(store.apply([nothing]));
        revisions.wait_for(|revision| *revision == Some(1)).await.unwrap();
        // As a thread that has not looked since.
        let held = zone.load_full();
        let past = Arc::downgrade(&held);
        assert!(store.apply([namespace("a")]));
        revisions.wait_for(|revision| *revision == Some(2)).await.unwrap();
        assert_eq!(Arc::strong_count(&held), 2, "it is not the last who holds it");
        drop(held);
        assert!(store.apply([namespace("b")]));
        revisions.wait_for(|revision| *revision == Some(3)).await.unwrap();
        assert!(past.upgrade().is_none(), "what nobody holds does not stay");
        // Nor has anything to change.
        let past = Arc::downgrade(&zone.load_full());
        assert!(store.apply([namespace("c")]));
        revisions.wait_for(|revision| *revision == Some(4)).await.unwrap();
        let freed = async {
            while past.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(10 * RETIRED_PAUSE, freed).await.expect("it is freed soon");
        cancel.cancel();
        following.await.unwrap();
    }
}
