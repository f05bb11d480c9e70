//! Events about Ingresses that are not served as they are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_ingress::{Finding, Severity};
use fairlead_state::{
    Kind, ObjectRef, Snapshot,
    write::{Event, Weight, WriteError, Writer},
};

use super::{CONTROLLER, Fault};

/// The API server forgets Events after an hour; what is still so is said again before.
const AGAIN: Duration = Duration::from_secs(55 * 60);
/// Between two Events: a broken class of thousands of Ingresses is no reason to flood the API server.
const PACE: Duration = Duration::from_millis(50);

/// The rest waits for the next pass, behind addresses that are wanted sooner.
const AT_ONCE: usize = 100;

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    object: ObjectRef,
    severity: &'static str,
    note: Arc<str>,
}

/// What was said, and when.
#[derive(Debug)]
pub(super) struct Events {
    writer: Writer,
    instance: Arc<str>,
    said: BTreeMap<Word, Instant>,
    fault: Fault,
}

impl Events {
    pub(super) fn new(writer: Writer, instance: Arc<str>) -> Self {
        Self { writer, instance, said: BTreeMap::new(), fault: Fault::default() }
    }

    /// Somebody else speaks now.
    pub(super) fn forget(&mut self) {
        self.said.clear();
    }

    /// Says what was not said of late.
    pub(super) async fn bring(&mut self, snapshot: &Snapshot, findings: &[Finding]) {
        let words = words(snapshot, findings);
        self.said.retain(|word, at| words.contains(word) && at.elapsed() < AGAIN);
        let news = words.into_iter().filter(|word| !self.said.contains_key(word));
        for word in news.take(AT_ONCE).collect::<Vec<_>>() {
            if self.fault.holds() {
                return;
            }
            let result = self.say(&word).await;
            let is_said = matches!(result, Ok(()) | Err(WriteError::Gone { .. }));
            if is_said {
                self.said.insert(word, Instant::now());
            }
            self.fault.note(if is_said { Ok(()) } else { result });
            if !is_said {
                return;
            }
            tokio::time::sleep(PACE).await;
        }
    }

    async fn say(&self, word: &Word) -> Result<(), WriteError> {
        let weight = if word.severity == WAITING { Weight::Normal } else { Weight::Warning };
        let event = Event {
            object: &word.object,
            weight,
            reason: word.severity,
            action: "Route",
            note: &word.note,
            controller: CONTROLLER,
            instance: &self.instance,
        };
        self.writer.event(&event).await
    }
}

const WAITING: &str = "Waiting";

fn words(snapshot: &Snapshot, findings: &[Finding]) -> BTreeSet<Word> {
    let found = findings.iter().map(|finding| Word {
        object: finding.object.clone(),
        severity: match finding.severity {
            Severity::Refused => "Refused",
            Severity::Differs => "Differs",
            Severity::Waiting => WAITING,
        },
        note: finding.reason.clone(),
    });
    let refused =
        snapshot.refused().values().filter(|refusal| refusal.object.kind == Kind::Ingress);
    let refused = refused.map(|refusal| Word {
        object: refusal.object.clone(),
        severity: "Refused",
        note: refusal.reason.clone(),
    });
    found.chain(refused).filter(|word| !word.object.key.namespace.is_empty()).collect()
}
