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
    /// Emptied once there is a snapshot: it may be as large as that one.
    pub(super) stand_ins: watch::Sender<Option<Arc<Snapshot>>>,
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

/// What a change leads to.
#[derive(Debug)]
struct Next {
    /// Of the newest snapshot, or before there is one; `None`: as it was.
    zone: Option<Zone>,
    /// Of an earlier run's, while there is no other.
    stand_in: Option<Zone>,
    retired: Retired,
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
    let mut stand_ins = orders.stand_ins.subscribe();
    stand_ins.mark_changed();
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
            Ok(()) = stand_ins.changed() => None,
            () = sleep(RETIRED_PAUSE), if !retired.is_empty() => {
                let past = std::mem::take(&mut retired);
                retired = spawn_blocking(|| past.still_held()).await.unwrap_or_default();
                continue;
            }
        };
        let newest: Option<Arc<Snapshot>> = snapshots.borrow_and_update().clone();
        let kept = stand_ins.borrow_and_update().clone();
        let (old, begun) = (known.clone(), Instant::now());
        let origin = renewal.as_ref().map(|renewal| renewal.origin.clone());
        // A first snapshot is tens of milliseconds of work, too long for a runtime thread.
        let (snapshot, past) = (newest.clone(), std::mem::take(&mut retired));
        let update = spawn_blocking(move || {
            let zone = next_zone(&old, origin, snapshot);
            // By settings that are new, too: a reload must not take away what an outage has left.
            let unsynced = zone.as_ref().unwrap_or(&old);
            let kept = kept.filter(|_| unsynced.revision().is_none());
            let stand_in = kept.map(|kept| unsynced.stand_in(&kept, serial()));
            Next { zone, stand_in, retired: past.still_held() }
        });
        let updated = update.await;
        if let Some(renewal) = renewal {
            retired.policies.push(serving.policy.swap(renewal.policy.clone()));
            renewal.policy.watch_loops();
            tracing::info!("DNS: new settings are in force");
        }
        let Next { zone, stand_in, retired: held } = match updated {
            Ok(next) => next,
            Err(error) => {
                tracing::error!("DNS: names were not updated: {error}");
                continue;
            }
        };
        retired.zones.extend(held.zones);
        retired.policies.extend(held.policies);
        let revision = zone.as_ref().and_then(Zone::revision);
        if let (Some(revision), Some(newest)) = (revision, &newest) {
            tracing::debug!(
                revision,
                changed = %newest.changes_since(known.revision().unwrap_or(0)),
                elapsed = ?begun.elapsed(),
                "DNS: names in force"
            );
        }
        let is_new = zone.is_some();
        known = zone.map_or(known, Arc::new);
        let shown = stand_in.map(Arc::new).or_else(|| is_new.then(|| known.clone()));
        if let Some(shown) = shown {
            retired.zones.push(serving.zone.swap(shown));
        }
        if known.revision().is_some() && stand_ins.borrow().is_some() {
            orders.stand_ins.send_replace(None);
            stand_ins.mark_unchanged();
        }
        if !is_new {
            continue;
        }
        // Also where they were there before the server.
        if revision.is_some() && !std::mem::replace(&mut is_said, true) {
            tracing::info!(services = known.service_count(), "DNS: names are in sync");
        }
        if let (Some(before), Some(now)) = (&before, &newest) {
            serving.programming.observe(before, now);
        }
        before = newest.or(before);
        announce.send_if_modified(|known| std::mem::replace(known, revision) != revision);
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
    use std::sync::Weak;

    use fairlead_state::{
        Change, Store,
        model::{Key, Kind, Namespace, Object},
    };
    use tokio::time::timeout;
    use tokio_util::sync::DropGuard;

    use super::*;
    use crate::{config::DnsConfig, server::origin};

    /// A zone that is kept up to date, and what it is told by.
    struct Followed {
        store: Store,
        zone: Arc<ArcSwap<Zone>>,
        stand_in: watch::Sender<Option<Arc<Snapshot>>>,
        revisions: watch::Receiver<Option<u64>>,
        _renew: watch::Sender<Option<Arc<Renewal>>>,
        _stop: DropGuard,
    }

    impl Followed {
        fn begin() -> Self {
            let (store, snapshots) = Store::new([Kind::Service]);
            let first = Zone::unsynced(origin(&DnsConfig::default()).unwrap(), serial());
            let zone = Arc::new(ArcSwap::from_pointee(first));
            let serving = Serving {
                zone: zone.clone(),
                policy: Arc::new(ArcSwap::from_pointee(Policy::default())),
                programming: Arc::default(),
            };
            let ((renew, renewals), (stand_in, _)) = (watch::channel(None), watch::channel(None));
            let (announce, revisions) = watch::channel(None);
            let cancel = CancellationToken::new();
            let orders = Orders { renewals, stand_ins: stand_in.clone() };
            tokio::spawn(follow(serving, snapshots, orders, announce, cancel.clone()));
            let (_renew, _stop) = (renew, cancel.drop_guard());
            Self { store, zone, stand_in, revisions, _renew, _stop }
        }

        /// Applies a change and waits until it is in force.
        async fn apply(&mut self, change: Change) {
            let next = self.revisions.borrow().unwrap_or(0) + 1;
            assert!(self.store.apply([change]));
            self.revisions.wait_for(|revision| *revision == Some(next)).await.unwrap();
        }
    }

    fn nothing() -> Change {
        Change::Replace { kind: Kind::Service, objects: vec![], refused: vec![] }
    }

    fn namespace(name: &str) -> Change {
        let key = Key::new("", name);
        Change::Upsert(Object::Namespace(Arc::new(Namespace { key, labels: [].into() })))
    }

    /// Waits until nobody holds it.
    async fn freed<T>(past: Weak<T>) {
        let freed = async {
            while past.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(10 * RETIRED_PAUSE, freed).await.expect("it is freed soon");
    }

    #[tokio::test]
    async fn no_thread_that_answers_frees_a_zone() {
        let mut followed = Followed::begin();
        followed.apply(nothing()).await;
        // As a thread that has not looked since.
        let held = followed.zone.load_full();
        let past = Arc::downgrade(&held);
        followed.apply(namespace("a")).await;
        assert_eq!(Arc::strong_count(&held), 2, "it is not the last who holds it");
        drop(held);
        followed.apply(namespace("b")).await;
        assert!(past.upgrade().is_none(), "what nobody holds does not stay");
        // Nor has anything to change.
        let past = Arc::downgrade(&followed.zone.load_full());
        followed.apply(namespace("c")).await;
        freed(past).await;
    }

    #[tokio::test]
    async fn names_of_an_earlier_run_are_not_held_beside_those_of_this_one() {
        let (mut earlier, snapshots) = Store::new([Kind::Service]);
        assert!(earlier.apply([nothing(), namespace("a")]));
        let kept = snapshots.borrow().clone().unwrap();
        let mut followed = Followed::begin();
        for is_late in [false, true] {
            // One of its own for each turn.
            let kept = Arc::new((*kept).clone());
            let past = Arc::downgrade(&kept);
            followed.stand_in.send_replace(Some(kept));
            if !is_late {
                let zone = followed.zone.clone();
                let stands_in = async {
                    while !zone.load().is_stand_in() {
                        tokio::task::yield_now().await;
                    }
                };
                timeout(10 * RETIRED_PAUSE, stands_in).await.expect("names stand in");
                assert!(past.strong_count() > 0, "new settings may need them");
                followed.apply(nothing()).await;
            }
            freed(past).await;
            assert!(!followed.zone.load().is_stand_in());
        }
    }
}
