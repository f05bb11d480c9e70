//! What Ingress writes while it leads: where Ingresses are found, and Events about what of them is not
//! served.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fairlead_ingress::{Finding, Severity};
use fairlead_state::{
    Kind, Snapshot,
    write::{Leadership, LeaseOptions, Weight, Writer},
};
use tokio::sync::watch;

use super::{
    SETTLE,
    events::{Events, Speaker, Word},
    identity,
    statuses::Statuses,
};
use crate::agent::Shared;

/// What failed is tried again, and what may have changed unseen is looked at.
const TURN: Duration = Duration::from_secs(30);

/// Competes for the Lease, and writes while it is held, until the agent ends.
pub(crate) async fn run(shared: Shared, writer: Writer) {
    let args = shared.args();
    let Some(lease) = args.publish.leader_lease.clone() else { return };
    let instance: Arc<str> = identity(&args, &shared.node_name).into();
    let options = LeaseOptions { key: lease.0, identity: instance.clone() };
    let (mut leadership, leads) = Leadership::new(writer.clone(), options);
    let mut statuses = Statuses::new(writer.clone(), &args.publish);
    let speaker = Speaker { controller: "fairlead.io/ingress", action: "Route", instance };
    let mut events = Events::new(writer, speaker);
    let cancel = shared.cancel.clone();
    let write = follow(&shared, leads.clone(), &mut statuses, &mut events);
    tokio::join!(leadership.run(&cancel), cancel.run_until_cancelled(write));
    if *leads.borrow() {
        statuses.leave().await;
    }
    leadership.give_up().await;
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
    events.bring(words(snapshot, &ingress.explainer.findings())).await;
}

fn words(snapshot: &Snapshot, findings: &[Finding]) -> BTreeSet<Word> {
    let found = findings.iter().map(|finding| {
        let (weight, reason) = match finding.severity {
            Severity::Refused => (Weight::Warning, "Refused"),
            Severity::Differs => (Weight::Warning, "Differs"),
            Severity::Waiting => (Weight::Normal, "Waiting"),
        };
        Word { object: finding.object.clone(), weight, reason, note: finding.reason.clone() }
    });
    let refused =
        snapshot.refused().values().filter(|refusal| refusal.object.kind == Kind::Ingress);
    let refused = refused.map(|refusal| Word {
        object: refusal.object.clone(),
        weight: Weight::Warning,
        reason: "Refused",
        note: refusal.reason.clone(),
    });
    found.chain(refused).filter(|word| !word.object.key.namespace.is_empty()).collect()
}
