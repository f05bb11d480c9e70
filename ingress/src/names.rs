//! The thread that looks up the names Services of type ExternalName lead to. It is there if any is
//! allowed.

mod lookups;
mod turns;

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fairlead_state::{Key, Name, Snapshot, some_of, store::Snapshots};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    lookups::{Lookups, look_up},
    turns::{Places, Turns},
};
use crate::routes::{Looked, Planner, outside};

/// The resolver does not say how long an answer holds.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// For a name without any good answer, as its paths answer 503.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// A look-up is a thread that waits for the resolver, cannot be called back, and without an answer waits for
/// many seconds. Of 64 names of one namespace all are asked for before [`FIRST_LOOKUPS_MAX`] even if nobody
/// answers.
const PLACES: Places = Places { prompt: 32, late: 96 };

/// A name that is dead keeps nobody from being served longer than this.
const FIRST_LOOKUPS_MAX: Duration = Duration::from_secs(3);

/// Of all names that nobody answers the log names so many: a line is read by people.
const NAMED_MAX: usize = 8;

/// To none of its addresses a name may lead, and nobody knows them.
const NODE_UNKNOWN: &str = "this node's own Node was not read: grant the agent's account list and watch \
     on nodes (RBAC)";

/// Who wants names, and takes what they lead to.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) planner: Arc<Mutex<Planner>>,
    pub(crate) snapshots: Snapshots,
    /// The Node this runs on.
    pub(crate) node: Option<Key>,
    /// There is such a Node, whether it can be read or not.
    pub(crate) is_node_expected: bool,
    /// Changes when other names may be wanted; 0 before the first plan.
    pub(crate) planned: watch::Receiver<u64>,
    /// Becomes true when all names of the plan were looked up for the first time, or that took too long.
    pub(crate) looked_up: watch::Sender<bool>,
}

/// Looks names up when they are first wanted, and again from time to time, until cancelled.
///
/// # Errors
/// The runtime cannot be made.
pub(crate) fn run(asker: Asker, cancel: &CancellationToken) -> io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().max_blocking_threads(PLACES.all()).build()?;
    runtime.block_on(cancel.run_until_cancelled(asker.run(look_up)));
    // A look-up cannot be given up; nobody waits for it.
    runtime.shutdown_background();
    Ok(())
}

impl Asker {
    async fn run<F>(mut self, look_up: impl Fn(Name) -> F)
    where
        F: Future<Output = Looked> + Send + 'static,
    {
        let mut first_until = None;
        let mut version = 0;
        let mut turns = Turns::new(PLACES);
        let mut lookups = Lookups::default();
        loop {
            // Before the names are read: those of that plan are among them then.
            let is_planned = *self.planned.borrow_and_update() > 0;
            let others = self.planner().other_external_names(&mut version);
            let now = Instant::now();
            if is_planned && !*self.looked_up.borrow() {
                let until = *first_until.get_or_insert(now + FIRST_LOOKUPS_MAX);
                self.await_first(until, now);
            }
            let first_ends = first_until.filter(|until| *until > now);
            // A look-up that ends is no reason to go through all names.
            if let Some(wanted) = others {
                turns.want(&wanted, now);
            }
            for name in turns.take(now) {
                lookups.begin(name.clone(), look_up(name));
            }
            tokio::select! {
                Some((name, looked)) = lookups.ended() => {
                    let again = if self.learn(&name, looked) { LOOK_AGAIN } else { TRY_AGAIN };
                    let now = Instant::now();
                    turns.put_back(&name, now, now + again);
                }
                changed = self.planned.changed() => if changed.is_err() { return },
                () = reached(turns.next_after(now).into_iter().chain(first_ends).min()) => {}
            }
        }
    }

    fn await_first(&self, until: Instant, now: Instant) {
        let planner = self.planner();
        if !planner.are_names_known() {
            if now < until {
                return;
            }
            tracing::warn!("{}", unanswered(&planner.unknown_names()));
        }
        drop(planner);
        self.looked_up.send_replace(true);
    }

    fn planner(&self) -> MutexGuard<'_, Planner> {
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the name leads somewhere.
    fn learn(&self, name: &Name, looked: Looked) -> bool {
        let Some(snapshot) = self.snapshots.borrow().clone() else { return false };
        let looked = looked.and_then(|found| match self.node_addresses(&snapshot) {
            Some(node) => outside(node, name, &found),
            None => Err(NODE_UNKNOWN.into()),
        });
        self.planner().learn(&snapshot, name, looked)
    }

    /// `None`: it has some, and they are not known.
    fn node_addresses<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a [IpAddr]> {
        match self.node.as_ref().and_then(|node| snapshot.nodes().get(node)) {
            Some(node) => Some(&*node.addresses),
            None => (!self.is_node_expected).then_some(&[]),
        }
    }
}

fn unanswered(unknown: &[Name]) -> String {
    let (names, seconds) = (some_of(unknown, NAMED_MAX), FIRST_LOOKUPS_MAX.as_secs());
    format!("{names}: not looked up within {seconds} s: their paths answer 503")
}

async fn reached(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
