//! What Ingress writes to the API server while it leads: where Ingresses are found, and Events about
//! what of them is not served.

mod events;
mod statuses;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fairlead_state::{
    Snapshot,
    write::{Leadership, LeaseOptions, WriteError, Writer},
};
use tokio::{sync::watch, time::Instant};

use self::{events::Events, statuses::Statuses};
use super::{Shared, args::Args};

/// Who writes.
const CONTROLLER: &str = "fairlead.io/ingress";
/// Changes are waited for so long before they are written, together.
const SETTLE: Duration = Duration::from_secs(1);
/// What failed is tried again, and what may have changed unseen is looked at.
const TURN: Duration = Duration::from_secs(30);
/// A missing right is not asked for again before.
const FORBIDDEN: Duration = Duration::from_secs(600);

/// A kind of write, and what keeps it from happening.
#[derive(Debug, Default)]
struct Fault {
    said: Option<String>,
    until: Option<Instant>,
}

/// Competes for the Lease, and writes while it is held, until the agent ends.
pub(crate) async fn run(shared: Shared, writer: Writer) {
    let args = shared.args();
    let Some(lease) = args.publish.leader_lease.clone() else { return };
    let identity: Arc<str> = identity(&args, &shared.node_name).into();
    let options = LeaseOptions { key: lease.0, identity: identity.clone() };
    let (mut leadership, leads) = Leadership::new(writer.clone(), options);
    let mut statuses = Statuses::new(writer.clone(), &args.publish);
    let mut events = Events::new(writer, identity);
    let cancel = shared.cancel.clone();
    let write = follow(&shared, leads.clone(), &mut statuses, &mut events);
    tokio::join!(leadership.run(&cancel), cancel.run_until_cancelled(write));
    if *leads.borrow() {
        statuses.leave().await;
    }
    leadership.give_up().await;
}

/// Unique among pods and over restarts.
fn identity(args: &Args, node_name: &str) -> String {
    let name = args.publish.pod.as_ref().map_or(node_name, |pod| &pod.0.name);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{name}_{:x}", started.as_micros())
}

async fn follow(
    shared: &Shared,
    mut leads: watch::Receiver<bool>,
    statuses: &mut Statuses,
    events: &mut Events,
) {
    let mut snapshots = shared.snapshots.clone();
    loop {
        if *leads.borrow_and_update() {
            let snapshot = snapshots.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                pass(shared, &snapshot, statuses, events).await;
            }
        } else {
            statuses.forget();
            events.forget();
        }
        tokio::select! {
            changed = leads.changed() => if changed.is_err() { return },
            changed = snapshots.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TURN) => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

async fn pass(shared: &Shared, snapshot: &Snapshot, statuses: &mut Statuses, events: &mut Events) {
    // Without routes nobody knows whose an Ingress is.
    let Some(ingress) = shared.live.ingress.load_full() else { return };
    if ingress.explainer.revision() == 0 {
        return;
    }
    statuses.bring(snapshot, &ingress.explainer.served()).await;
    events.bring(snapshot, &ingress.explainer.findings()).await;
}

impl Fault {
    /// Whether it is too early to try again.
    fn holds(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Says what is new, once.
    fn note(&mut self, result: Result<(), WriteError>) {
        let Err(error) = result else {
            *self = Self::default();
            return;
        };
        self.until = error.is_forbidden().then(|| Instant::now() + FORBIDDEN);
        let reason = error.to_string();
        if self.said.as_ref() != Some(&reason) {
            tracing::warn!("{reason}");
            self.said = Some(reason);
        }
    }
}
