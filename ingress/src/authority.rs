//! Whom an Ingress asks about its requests, and what it said a moment ago; and who is sent copies of them.

mod answers;
mod finder;
mod keeping;
mod places;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use http::{HeaderMap, HeaderValue, StatusCode};

use self::{answers::Answers, places::Places};
pub(crate) use self::{finder::Finder, keeping::Keeping};
use crate::routes::{Asking, Copies};

/// Copies of one Ingress under way, from their request's head on; more are not made.
const COPIES_MAX: usize = 256;

/// What an answer is remembered under: a hash, for a client's own words may be long, and a secret.
pub(crate) type AnswerKey = [u8; SHA256_OUTPUT_LEN];

/// Somebody who is asked.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) asking: Asking,
    pub(crate) places: Arc<Places>,
    answers: Arc<Answers>,
}

/// Who is sent copies.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) copies: Copies,
    pub(crate) places: Arc<Places>,
    under_way: Arc<AtomicUsize>,
}

/// One copy under way.
#[derive(Debug)]
pub(crate) struct Turn(Arc<AtomicUsize>);

/// What was said about a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Go on with the request.
    pub(crate) fields: HeaderMap,
    /// Go to the client.
    pub(crate) cookies: Vec<HeaderValue>,
    pub(crate) challenge: Option<HeaderValue>,
}

impl Authority {
    /// `known`: who was asked for the Ingress so far. Of what is asked of the same and in the same way nothing
    /// is forgotten: an Ingress is read again for any of its annotations.
    pub(crate) fn new(asking: Asking, finder: Finder, known: Option<&Self>) -> Self {
        let namespace = finder.namespace().clone();
        let known_places = known.map(|known| (&known.asking.url, &known.places));
        let places = Places::of(&asking.url, finder, known_places);
        let answers = known
            .filter(|known| known.asking == asking && Arc::ptr_eq(&known.places, &places))
            .map_or_else(|| Arc::new(Answers::new(namespace)), |known| known.answers.clone());
        Self { asking, places, answers }
    }

    /// Why nobody can be asked, if that is plain before any request.
    pub(crate) fn problem(&self) -> Option<String> {
        let problem = self.places.problem(self.asking.url.authority.constant()?)?;
        Some(format!("{problem}; its paths answer 500 until then"))
    }

    /// What was said of a request with that key and these fields.
    pub(crate) fn remembered(&self, key: &AnswerKey, request: &HeaderMap) -> Option<Answer> {
        self.answers.find(key, request)
    }

    /// Keeps an answer as long as the Ingress and whoever gave it say, whichever is shorter.
    pub(crate) fn remember(
        &self,
        key: AnswerKey,
        request: &HeaderMap,
        answer: &Answer,
        keeping: Keeping,
    ) {
        let Some(duration) = self.asking.cached_for(answer.status.as_u16()) else { return };
        let duration = keeping.longest.map_or(duration, |longest| longest.min(duration));
        self.answers.add(key, request, answer, keeping, duration);
    }
}

/// `None` never happens: the hash has that length.
pub(crate) fn answer_key(text: &str) -> Option<AnswerKey> {
    digest(&SHA256, text.as_bytes()).as_ref().try_into().ok()
}

impl Mirror {
    /// `known`: who was sent the Ingress's copies so far. Those under way go on, and count.
    pub(crate) fn new(copies: Copies, finder: Finder, known: Option<&Self>) -> Self {
        let known_places = known.map(|known| (&known.copies.url, &known.places));
        let places = Places::of(&copies.url, finder, known_places);
        let under_way = known.map(|known| known.under_way.clone()).unwrap_or_default();
        Self { copies, places, under_way }
    }

    /// Why nothing can be copied, if that is plain before any request.
    pub(crate) fn problem(&self) -> Option<String> {
        let problem = self.places.problem(self.copies.url.authority.constant()?)?;
        Some(format!("{problem}; nothing is copied until then"))
    }

    /// `None`: too many copies are under way.
    pub(crate) fn begin(&self) -> Option<Turn> {
        let turn = Turn(self.under_way.clone());
        (self.under_way.fetch_add(1, Relaxed) < COPIES_MAX).then_some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
