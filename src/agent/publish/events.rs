//! Events about objects that are not served as they are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use fairlead_state::{
    Kind, Name, ObjectRef,
    write::{Event, Weight, WriteError, Writer},
};

use super::{Complaints, FORBIDDEN, REFUSED};

/// What is gone may be made anew; until then it is in nobody's way.
const GONE: Duration = Duration::from_secs(600);
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
    /// Nobody hears it for the moment.
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

/// What was said, and what could not be.
#[derive(Debug)]
pub(super) struct Events {
    writer: Writer,
    speaker: Speaker,
    /// Until when it need not be said again.
    said: BTreeMap<Word, Instant>,
    /// What the API server refused, and until when it is not tried again.
    refused: BTreeMap<Word, Instant>,
    /// Kinds of namespaces about which nothing may be written, and until when that is believed.
    forbidden: BTreeMap<(Kind, Name), Instant>,
    complaints: Complaints,
}

impl Events {
    pub(super) fn new(writer: Writer, speaker: Speaker) -> Self {
        let (said, refused, forbidden) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { writer, speaker, said, refused, forbidden, complaints: Complaints::default() }
    }

    /// Somebody else speaks now.
    pub(super) fn forget(&mut self) {
        self.said.clear();
        self.refused.clear();
        self.forbidden.clear();
    }

    /// Says what was not said of late. What cannot be said keeps nothing else from it.
    pub(super) async fn bring(&mut self, words: BTreeSet<Word>) -> Left {
        self.said.retain(|word, until| words.contains(word) && Instant::now() < *until);
        self.refused.retain(|word, _| words.contains(word));
        self.forbidden.retain(|_, until| Instant::now() < *until);
        if self.refused.is_empty() && self.forbidden.is_empty() {
            self.complaints.forget();
        }
        let news = words.into_iter().filter(|word| !self.said.contains_key(word));
        let mut news: Vec<Word> = news.filter(|word| !self.is_held(word)).collect();
        // What was refused before comes behind what was never tried.
        news.sort_by_key(|word| self.refused.contains_key(word));
        let left = if news.len() > AT_ONCE { Left::More } else { Left::Nothing };
        news.truncate(AT_ONCE);
        for word in news {
            if self.is_held(&word) {
                continue;
            }
            if let Err(error) = self.try_word(word).await {
                self.complaints.say(&error);
                if error.is_unavailable() {
                    return Left::Failed;
                }
            }
            tokio::time::sleep(PACE).await;
        }
        left
    }

    /// Whether it is said for now.
    pub(super) fn is_said(&self, word: &Word) -> bool {
        self.said.contains_key(word)
    }

    /// Whether it is too early to try again.
    fn is_held(&self, word: &Word) -> bool {
        let refused = self.refused.get(word).into_iter();
        let mut until = refused.chain(self.forbidden.get(&place(word)));
        until.any(|until| Instant::now() < *until)
    }

    async fn try_word(&mut self, word: Word) -> Result<(), WriteError> {
        let lasts = match self.say(&word).await {
            Err(WriteError::Gone { .. }) => Ok(GONE),
            said => said,
        };
        let error = match lasts {
            Ok(lasts) => {
                self.refused.remove(&word);
                self.said.insert(word, Instant::now() + lasts);
                return Ok(());
            }
            Err(error) => error,
        };
        if error.is_forbidden() {
            self.forbidden.insert(place(&word), Instant::now() + FORBIDDEN);
        } else if !error.is_unavailable() {
            self.refused.insert(word, Instant::now() + REFUSED);
        }
        Err(error)
    }

    async fn say(&self, word: &Word) -> Result<Duration, WriteError> {
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

/// What a right is given for.
fn place(word: &Word) -> (Kind, Name) {
    (word.object.kind, word.object.key.namespace.clone())
}
