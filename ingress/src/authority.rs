//! Whom an Ingress asks about its requests, and what it said a moment ago; and who is sent copies of them.

mod finder;
mod keeping;
mod places;

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use fairlead_state::Name;
use http::{HeaderMap, HeaderValue, StatusCode};

use self::places::Places;
pub(crate) use self::{finder::Finder, keeping::Keeping};
use crate::{
    fair::{Lease, Room},
    routes::{Asking, Copies},
};

/// Copies of one Ingress under way, from their request's head on; more are not made.
const COPIES_MAX: usize = 256;
/// Answers remembered per Ingress.
const ANSWERS_MAX: usize = 4096;
/// What all answers that are remembered hold, in bytes: a field of one may be as long as a head.
const ANSWERS_BYTES_MAX: usize = 64 << 20;
/// What an answer takes of memory beside its fields, and a field beside its name and value.
const ANSWER_BYTES: usize = 512;
const FIELD_BYTES: usize = 128;

static ANSWERS: LazyLock<Room> = LazyLock::new(|| Room::new(ANSWERS_BYTES_MAX));

/// What an answer is remembered under: a hash, for a client's own words may be long, and a secret.
pub(crate) type AnswerKey = [u8; SHA256_OUTPUT_LEN];

/// Somebody who is asked.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) asking: Asking,
    pub(crate) places: Places,
    answers: Mutex<HashMap<AnswerKey, Remembered>>,
    namespace: Name,
    room: Room,
}

#[derive(Debug)]
struct Remembered {
    answer: Answer,
    keeping: Keeping,
    /// What the request it answers has of the fields that it varies by.
    mark: [u8; 32],
    until: Instant,
    _room: Lease,
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
    pub(crate) fn new(asking: Asking, finder: Finder) -> Self {
        let namespace = finder.namespace().clone();
        let places = Places::new(asking.url.tls, finder);
        Self { asking, places, answers: Mutex::default(), namespace, room: ANSWERS.clone() }
    }

    /// Why nobody can be asked, if that is plain before any request.
    pub(crate) fn problem(&self) -> Option<String> {
        let problem = self.places.problem(self.asking.url.authority.constant()?)?;
        Some(format!("{problem}; its paths answer 500 until then"))
    }

    /// What was said of a request with that key and these fields.
    pub(crate) fn remembered(&self, key: &AnswerKey, request: &HeaderMap) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = answers.get(key).filter(|known| known.until > Instant::now())?;
        (known.keeping.mark(request)? == known.mark).then(|| known.answer.clone())
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
        let Some(mark) = keeping.mark(request) else { return };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let room = || self.room.lease(&self.namespace, answer.bytes());
        let mut leased = room();
        if answers.len() >= ANSWERS_MAX || leased.is_none() {
            answers.retain(|_, known| known.until > now);
            leased = leased.or_else(room);
        }
        if answers.len() < ANSWERS_MAX
            && let Some(lease) = leased
        {
            let (answer, until) = (answer.clone(), now + duration);
            answers.insert(key, Remembered { answer, keeping, mark, until, _room: lease });
        }
    }
}

impl Answer {
    /// What it holds of memory.
    fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|(name, value)| name.as_str().len() + value.len());
        let values = self.cookies.iter().chain(&self.challenge).map(HeaderValue::len);
        ANSWER_BYTES + fields.chain(values).map(|bytes| FIELD_BYTES + bytes).sum::<usize>()
    }
}

/// `None` never happens: the hash has that length.
pub(crate) fn answer_key(text: &str) -> Option<AnswerKey> {
    digest(&SHA256, text.as_bytes()).as_ref().try_into().ok()
}

impl Mirror {
    pub(crate) fn new(copies: Copies, finder: Finder) -> Self {
        let places = Arc::new(Places::new(copies.url.tls, finder));
        Self { copies, places, under_way: Arc::default() }
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
