//! Tickets of sessions, by keys that change.
//!
//! rustls changes keys by one step whenever somebody comes: after a quiet day it would still take the
//! tickets from before. Here a key counts by its age alone, and by a clock that nobody sets.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{crypto::aws_lc_rs::Ticketer, server::ProducesTickets};

/// A key makes tickets for so long, and takes them twice as long.
const KEY_LIFE: Duration = Duration::from_secs(6 * 60 * 60);
const TICKET_LIFE: Duration = KEY_LIFE.saturating_mul(2);

/// Makes and takes tickets, by keys nobody else has.
pub(super) struct Rotation<N = fn() -> Instant> {
    now: N,
    keys: Mutex<Keys>,
}

/// The last two.
struct Keys {
    newest: Key,
    /// Makes no more.
    previous: Option<Key>,
}

/// rustls's own, which by itself changes no sooner.
#[derive(Clone)]
struct Key {
    ticketer: Arc<dyn ProducesTickets>,
    made: Instant,
}

impl Rotation {
    /// With a fresh key.
    ///
    /// # Errors
    /// There is no randomness.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        Self::by(Instant::now)
    }
}

impl<N: Fn() -> Instant> Rotation<N> {
    fn by(now: N) -> Result<Self, rustls::Error> {
        let newest = Key::new(now())?;
        Ok(Self { now, keys: Mutex::new(Keys { newest, previous: None }) })
    }

    /// The keys as of now; `None`: there is no randomness for a new one, and the old one is too old.
    fn keys(&self) -> Option<(Key, Option<Key>)> {
        let now = (self.now)();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.newest.age(now) >= KEY_LIFE {
            let old = std::mem::replace(&mut keys.newest, Key::new(now).ok()?);
            keys.previous = Some(old);
        }
        if keys.previous.as_ref().is_some_and(|key| key.age(now) >= TICKET_LIFE) {
            keys.previous = None;
        }
        Some((keys.newest.clone(), keys.previous.clone()))
    }
}

impl Key {
    fn new(now: Instant) -> Result<Self, rustls::Error> {
        Ok(Self { ticketer: Ticketer::new()?, made: now })
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made)
    }
}

impl<N: Fn() -> Instant + Send + Sync> ProducesTickets for Rotation<N> {
    fn enabled(&self) -> bool {
        true
    }

    /// In seconds.
    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_LIFE.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys()?.0.ticketer.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (newest, previous) = self.keys()?;
        let by_previous = || previous?.ticketer.decrypt(cipher);
        newest.ticketer.decrypt(cipher).or_else(by_previous)
    }
}

impl<N> fmt::Debug for Rotation<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotation").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
