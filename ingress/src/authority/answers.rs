//! What was said of requests of one Ingress a moment ago.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fairlead_state::Name;
use http::{HeaderMap, HeaderValue};

use super::{Answer, AnswerKey, Keeping};
use crate::fair::{Lease, Room};

/// Answers remembered per Ingress.
pub(super) const ANSWERS_MAX: usize = 4096;
/// What all answers that are remembered hold, in bytes: a field of one may be as long as a head.
const ANSWERS_BYTES_MAX: usize = 64 << 20;
/// What an answer takes of memory beside its fields, and a field beside its name and value.
const ANSWER_BYTES: usize = 512;
const FIELD_BYTES: usize = 128;
/// Between two looks for those whose time is over: strangers must not have all looked at for each request.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

static ANSWERS: LazyLock<Room> = LazyLock::new(|| Room::new(ANSWERS_BYTES_MAX));

/// Where there is no room for one more, another one gives way.
#[derive(Debug)]
pub(super) struct Answers {
    known: Mutex<Known>,
    namespace: Name,
    room: Room,
}

#[derive(Debug, Default)]
struct Known {
    answers: HashMap<AnswerKey, Remembered>,
    /// The same, in the order in which they give way.
    order: BTreeMap<Rank, AnswerKey>,
    tickets: u64,
    swept: Option<Instant>,
}

/// Those that let in give way last, for anybody may be refused as often as he likes; else whoever came first does.
type Rank = (bool, u64);

#[derive(Debug)]
struct Remembered {
    answer: Answer,
    keeping: Keeping,
    /// What the request it answers has of the fields that it varies by.
    mark: [u8; 32],
    until: Instant,
    rank: Rank,
    _room: Lease,
}

impl Answers {
    /// Of an Ingress of this namespace.
    pub(super) fn new(namespace: Name) -> Self {
        Self::within(ANSWERS.clone(), namespace)
    }

    pub(super) fn within(room: Room, namespace: Name) -> Self {
        Self { known: Mutex::default(), namespace, room }
    }

    /// What was said of a request with that key and these fields.
    pub(super) fn find(&self, key: &AnswerKey, request: &HeaderMap) -> Option<Answer> {
        let known = self.known();
        let found = known.answers.get(key).filter(|found| found.until > Instant::now())?;
        (found.keeping.mark(request)? == found.mark).then(|| found.answer.clone())
    }

    /// Remembers what was said of such a request for so long.
    pub(super) fn add(
        &self,
        key: AnswerKey,
        request: &HeaderMap,
        answer: &Answer,
        keeping: Keeping,
        duration: Duration,
    ) {
        let Some(mark) = keeping.mark(request) else { return };
        let (now, known) = (Instant::now(), &mut *self.known());
        known.forget(&key);
        let Some(lease) = self.room_for(answer, known, now) else { return };
        known.tickets += 1;
        let (answer, rank) = (answer.clone(), (answer.status.is_success(), known.tickets));
        known.order.insert(rank, key);
        let until = now + duration;
        known.answers.insert(key, Remembered { answer, keeping, mark, until, rank, _room: lease });
    }

    /// `None`: nobody gives way to it.
    fn room_for(&self, answer: &Answer, known: &mut Known, now: Instant) -> Option<Lease> {
        let (bytes, lets_in) = (bytes_of(answer), answer.status.is_success());
        let lease = || self.room.lease(&self.namespace, bytes);
        let mut leased = lease();
        if leased.is_none() || known.is_full() {
            known.sweep(now);
            leased = leased.or_else(lease);
        }
        // A namespace that has more than its share by now gives it back with each new one: as much as that takes.
        let mut freed = 0;
        while leased.is_none() && freed < bytes {
            freed += known.give_way(lets_in)?;
            leased = lease();
        }
        if known.is_full() {
            known.give_way(lets_in)?;
        }
        leased
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing is left half done by whoever held it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_full(&self) -> bool {
        self.answers.len() >= ANSWERS_MAX
    }

    fn forget(&mut self, key: &AnswerKey) -> Option<Remembered> {
        let forgotten = self.answers.remove(key)?;
        self.order.remove(&forgotten.rank);
        Some(forgotten)
    }

    /// Forgets one for another that lets in, or does not; how many bytes that was. `None`: none is to.
    fn give_way(&mut self, lets_in: bool) -> Option<usize> {
        let (rank, key) = self.order.first_key_value()?;
        if rank.0 && !lets_in {
            return None;
        }
        let key = *key;
        self.forget(&key).map(|forgotten| bytes_of(&forgotten.answer))
    }

    fn sweep(&mut self, now: Instant) {
        let pause = self.swept.map(|swept| now.saturating_duration_since(swept));
        if pause.is_some_and(|pause| pause < SWEEP_PAUSE) {
            return;
        }
        self.swept = Some(now);
        let order = &mut self.order;
        self.answers.retain(|_, known| {
            let is_current = known.until > now;
            if !is_current {
                order.remove(&known.rank);
            }
            is_current
        });
    }
}

/// What it holds of memory.
fn bytes_of(answer: &Answer) -> usize {
    let fields = answer.fields.iter().map(|(name, value)| name.as_str().len() + value.len());
    let values = answer.cookies.iter().chain(&answer.challenge).map(HeaderValue::len);
    ANSWER_BYTES + fields.chain(values).map(|bytes| FIELD_BYTES + bytes).sum::<usize>()
}

#[cfg(test)]
impl Answers {
    pub(super) fn len(&self) -> usize {
        self.known().answers.len()
    }

    /// The time of this one is over.
    pub(super) fn expire(&self, key: &AnswerKey) {
        if let Some(known) = self.known().answers.get_mut(key) {
            known.until = Instant::now();
        }
    }
}
