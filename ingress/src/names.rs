//! The thread that looks up the names Services of type ExternalName lead to. It is there if any is
//! allowed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fairlead_state::{Name, store::Snapshots};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::routes::{Looked, Planner};

/// The resolver does not say how long an answer holds.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// One that nobody answers has its place for as long as the resolver waits.
const LOOKUPS_MAX: usize = 16;

/// Who wants names, and takes what they lead to.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) planner: Arc<Mutex<Planner>>,
    pub(crate) snapshots: Snapshots,
    /// Changes when other names may be wanted.
    pub(crate) planned: watch::Receiver<u64>,
}

/// Looks names up when they are first wanted, and again from time to time, until cancelled.
///
/// # Errors
/// The runtime cannot be made.
pub(crate) fn run(asker: Asker, cancel: &CancellationToken) -> io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().max_blocking_threads(LOOKUPS_MAX).build()?;
    runtime.block_on(cancel.run_until_cancelled(asker.run()));
    // A look-up cannot be given up; nobody waits for it.
    runtime.shutdown_background();
    Ok(())
}

impl Asker {
    async fn run(mut self) {
        let mut looked_at: BTreeMap<Name, Instant> = BTreeMap::new();
        let mut asked: BTreeSet<Name> = BTreeSet::new();
        let mut lookups: JoinSet<(Name, Looked)> = JoinSet::new();
        loop {
            let wanted = self.planner().external_names();
            let now = Instant::now();
            looked_at.retain(|name, at| wanted.contains(name) && *at + LOOK_AGAIN > now);
            for name in wanted {
                let is_known = looked_at.contains_key(&name) || asked.contains(&name);
                if !is_known && lookups.len() < LOOKUPS_MAX {
                    asked.insert(name.clone());
                    lookups.spawn(look_up(name));
                }
            }
            let next = looked_at.values().min().map(|at| *at + LOOK_AGAIN);
            tokio::select! {
                Some(Ok((name, looked))) = lookups.join_next() => {
                    asked.remove(&name);
                    self.learn(&name, looked);
                    looked_at.insert(name, Instant::now());
                }
                changed = self.planned.changed() => if changed.is_err() { return },
                () = reached(next) => {}
            }
        }
    }

    fn planner(&self) -> MutexGuard<'_, Planner> {
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, name: &Name, looked: Looked) {
        let Some(snapshot) = self.snapshots.borrow().clone() else { return };
        self.planner().learn(&snapshot, name, looked);
    }
}

async fn reached(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

async fn look_up(name: Name) -> (Name, Looked) {
    // Without its last dot it would be looked for in the cluster first (resolv.conf's `search`), where
    // `api.example.com` is a pod of Service `example` in whoever's namespace `com`.
    let dot = if name.contains('.') { "." } else { "" };
    let looked = match tokio::net::lookup_host((format!("{name}{dot}"), 0)).await {
        Ok(found) => Ok(found.map(|address| address.ip()).collect()),
        Err(error) => Err(Arc::from(error.to_string())),
    };
    (name, looked)
}
