//! What Ingress writes while it leads: where Ingresses are found, and Events about what of them is not
//! served.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fairlead_ingress::{Finding, Severity, explain::Explainer};
use fairlead_state::{
    Kind, Refusal, Snapshot,
    write::{Leadership, LeaseOptions, Weight, Writer},
};
use tokio::{sync::watch, time::Instant};

use super::{
    SETTLE,
    events::{Events, Left, Speaker, Word},
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

/// By what the last pass wrote. As long as it is so there is nothing new to write: endpoints come and go
/// all the time, and to look at all Ingresses for each of them would keep planning waiting.
#[derive(Debug)]
struct Written {
    at: Instant,
    told: u64,
    refused_revision: u64,
}

async fn follow(
    shared: &Shared,
    mut leads: watch::Receiver<bool>,
    statuses: &mut Statuses,
    events: &mut Events,
) {
    let mut snapshots = shared.snapshots.clone();
    let mut written = None;
    loop {
        let mut turn = TURN;
        if *leads.borrow_and_update() {
            let snapshot = snapshots.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                (written, turn) = pass(shared, &snapshot, statuses, events, written).await;
            }
        } else {
            statuses.forget();
            events.forget();
            written = None;
        }
        tokio::select! {
            changed = leads.changed() => if changed.is_err() { return },
            changed = snapshots.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(turn) => {}
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// What everything was written by, if it was, and when to come again if nothing changes.
async fn pass(
    shared: &Shared,
    snapshot: &Snapshot,
    statuses: &mut Statuses,
    events: &mut Events,
    written: Option<Written>,
) -> (Option<Written>, Duration) {
    let Some(ingress) = shared.live.ingress.load_full() else { return (None, TURN) };
    let explainer = &ingress.explainer;
    // In this order: what is planned meanwhile is looked at once more, and not taken for written.
    let revision = explainer.revision();
    let (told, refused_revision) = (explainer.told(), snapshot.refused_revision());
    if revision == 0 {
        // Without routes nobody knows whose an Ingress is.
        return (None, SETTLE);
    }
    let turn = if revision < snapshot.revision() { SETTLE } else { TURN };
    let is_so = |written: &Written| {
        let is_same = written.told == told && written.refused_revision == refused_revision;
        is_same && written.at.elapsed() < TURN
    };
    if written.as_ref().is_some_and(is_so) && !statuses.is_front_new(snapshot) {
        return (written, turn);
    }
    let served = explainer.served();
    let is_placed = statuses.bring(snapshot, &served).await;
    let refused = snapshot.refused().values();
    let refused = refused.filter(|refusal| refusal.object.kind == Kind::Ingress);
    let refused = refused.filter(|refusal| {
        served.contains(&refusal.object.key) || is_ours(explainer, snapshot, refusal)
    });
    let left = events.bring(words(&explainer.findings(), refused)).await;
    let is_whole = is_placed && left == Left::Nothing;
    let written = is_whole.then(|| Written { at: Instant::now(), told, refused_revision });
    (written, if left == Left::More { SETTLE } else { turn })
}

/// Of another's Ingress that is none its own controller speaks.
fn is_ours(explainer: &Explainer, snapshot: &Snapshot, refusal: &Refusal) -> bool {
    refusal.class.as_ref().is_some_and(|said| explainer.is_said_ours(snapshot, said))
}

fn words<'a>(findings: &[Finding], refused: impl Iterator<Item = &'a Refusal>) -> BTreeSet<Word> {
    let found = findings.iter().map(|finding| {
        let (weight, reason) = match finding.severity {
            Severity::Refused => (Weight::Warning, "Refused"),
            Severity::Differs => (Weight::Warning, "Differs"),
            Severity::Waiting => (Weight::Normal, "Waiting"),
        };
        Word { object: finding.object.clone(), weight, reason, note: finding.reason.clone() }
    });
    let refused = refused.map(|refusal| Word {
        object: refusal.object.clone(),
        weight: Weight::Warning,
        reason: "Refused",
        note: refusal.reason.clone(),
    });
    found.chain(refused).filter(|word| !word.object.key.namespace.is_empty()).collect()
}
