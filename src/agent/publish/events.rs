//! Events about objects that are not served as they are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_state::{
    ObjectRef,
    write::{Event, Weight, WriteError, Writer},
};

use super::Fault;

/// The API server forgets Events after an hour; what is still so is said again before.
const AGAIN: Duration = Duration::from_secs(55 * 60);
/// Between two Events: a broken class of thousands of Ingresses is no reason to flood the API server.
const PACE: Duration = Duration::from_millis(50);

/// The rest waits for the next pass, behind addresses that are wanted sooner.
const AT_ONCE: usize = 100;

/// What is left to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// For the next pass.
    More,
    /// It could not be said.
    Failed,
}

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Word {
    pub(super) object: ObjectRef,
    pub(super) weight: Weight,
    /// Why, as one word for machines.
    pub(super) reason: &'static str,
    pub(super) note: Arc<str>,
}

/// Who says it, and about what.
#[derive(Clone, Debug)]
pub(super) struct Speaker {
    /// `fairlead.io/ingress`.
    pub(super) controller: &'static str,
    /// What was or was not done, as one word.
    pub(super) action: &'static str,
    /// Unique among pods and over restarts.
    pub(super) instance: Arc<str>,
}

/// What was said, and when.
#[derive(Debug)]
pub(super) struct Events {
    writer: Writer,
    speaker: Speaker,
    said: BTreeMap<Word, Instant>,
    fault: Fault,
}

impl Events {
    pub(super) fn new(writer: Writer, speaker: Speaker) -> Self {
        Self { writer, speaker, said: BTreeMap::new(), fault: Fault::default() }
    }

    /// Somebody else speaks now.
    pub(super) fn forget(&mut self) {
        self.said.clear();
    }

    /// Says what was not said of late.
    pub(super) async fn bring(&mut self, words: BTreeSet<Word>) -> Left {
        self.said.retain(|word, at| words.contains(word) && at.elapsed() < AGAIN);
        let news = words.into_iter().filter(|word| !self.said.contains_key(word));
        let mut news: Vec<Word> = news.collect();
        let left = if news.len() > AT_ONCE { Left::More } else { Left::Nothing };
        news.truncate(AT_ONCE);
        for word in news {
            if self.fault.holds() {
                return Left::Failed;
            }
            let result = self.say(&word).await;
            let is_said = matches!(result, Ok(()) | Err(WriteError::Gone { .. }));
            if is_said {
                self.said.insert(word, Instant::now());
            }
            self.fault.note(if is_said { Ok(()) } else { result });
            if !is_said {
                return Left::Failed;
            }
            tokio::time::sleep(PACE).await;
        }
        left
    }

    async fn say(&self, word: &Word) -> Result<(), WriteError> {
        let event = Event {
            object: &word.object,
            weight: word.weight,
            reason: word.reason,
            action: self.speaker.action,
            note: &word.note,
            controller: self.speaker.controller,
            instance: &self.speaker.instance,
        };
        self.writer.event(&event).await
    }
}
