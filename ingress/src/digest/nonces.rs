//! Nonces, and which of their counts were used: the same words let in once (RFC 7616 3.4, nc).
//!
//! A nonce says when it was made, and only this process could have made it. It is remembered only
//! once a user's right words came with it, so who knows no password fills no table.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};

/// How long a nonce may be used.
const NONCE_LIVES: Duration = Duration::from_secs(60);
/// Nonces in use; the oldest gives way, and whoever used it is given a new one.
const NONCES_MAX: usize = 4_096;
/// Counts below the highest that may still come: a browser's requests at once overtake each other.
const COUNTS_BEHIND: u32 = u64::BITS;
/// Digits of a time and of a serial number.
const NUMBER_DIGITS: usize = 16;

pub(super) struct Nonces {
    key: hmac::Key,
    next: AtomicU64,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// By serial number, which is the order in which they were made.
    counts: BTreeMap<u64, Counts>,
    /// Of those made before, only what is still there may be used.
    floor: u64,
}

/// Of one nonce.
#[derive(Debug)]
struct Counts {
    made: u64,
    highest: u32,
    /// Bit `n`: the one that is `n` below the highest was used.
    seen: u64,
}

impl Nonces {
    pub(super) fn new() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        Self { key, next: AtomicU64::new(1), used: Mutex::default() }
    }

    /// A new one; `now`: seconds.
    pub(super) fn make(&self, now: u64) -> String {
        self.write(now, self.next.fetch_add(1, Relaxed))
    }

    /// Whether a nonce and this count of it may still be used; then not once more.
    pub(super) fn take(&self, nonce: &str, count: u32, now: u64) -> bool {
        let Some((made, serial)) = self.read(nonce) else { return false };
        if made > now || is_old(made, now) {
            return false;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.take(made, serial, count, now)
    }

    fn write(&self, made: u64, serial: u64) -> String {
        let mut nonce = format!("{made:016x}{serial:016x}");
        let tag = hmac::sign(&self.key, nonce.as_bytes());
        for byte in tag.as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(nonce, "{byte:02x}");
        }
        nonce
    }

    /// `None`: it was not made here.
    fn read(&self, nonce: &str) -> Option<(u64, u64)> {
        let (made, rest) = nonce.split_at_checked(NUMBER_DIGITS)?;
        let serial = rest.get(..NUMBER_DIGITS)?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        let (made, serial) = (number(made)?, number(serial)?);
        let own = self.write(made, serial);
        verify_slices_are_equal(own.as_bytes(), nonce.as_bytes()).ok()?;
        Some((made, serial))
    }
}

fn is_old(made: u64, now: u64) -> bool {
    now.saturating_sub(made) > NONCE_LIVES.as_secs()
}

impl Used {
    fn take(&mut self, made: u64, serial: u64, count: u32, now: u64) -> bool {
        if let Some(counts) = self.counts.get_mut(&serial) {
            return counts.take(count);
        }
        if serial < self.floor {
            return false;
        }
        self.forget(now);
        self.counts.entry(serial).or_insert_with(|| Counts::none(made)).take(count)
    }

    /// Makes room for one more.
    fn forget(&mut self, now: u64) {
        while let Some((&serial, oldest)) = self.counts.first_key_value() {
            if !is_old(oldest.made, now) && self.counts.len() < NONCES_MAX {
                return;
            }
            self.counts.remove(&serial);
            self.floor = serial + 1;
        }
    }
}

impl Counts {
    /// The first is 1.
    fn none(made: u64) -> Self {
        Self { made, highest: 0, seen: 1 }
    }

    fn take(&mut self, count: u32) -> bool {
        if let Some(ahead) = count.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = count;
            return true;
        }
        let behind = self.highest - count;
        if behind >= COUNTS_BEHIND {
            return false;
        }
        let bit = 1 << behind;
        let is_new = self.seen & bit == 0;
        self.seen |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    #[test]
    fn replay_each_count_of_a_nonce_lets_in_once_in_whatever_order_they_come() {
        let nonces = Nonces::new();
        let nonce = nonces.make(NOW);
        for (count, expected) in [
            (0, false),
            (1, true),
            (1, false),
            (4, true),
            (2, true),
            (3, true),
            (2, false),
            (4, false),
            (70, true),
            (6, false),
            (7, true),
            (7, false),
            (u32::MAX, true),
            (70, false),
            (u32::MAX, false),
        ] {
            assert_eq!(nonces.take(&nonce, count, NOW), expected, "{count}");
        }
    }

    #[test]
    fn nonces_of_one_second_are_not_the_same() {
        let nonces = Nonces::new();
        let (one, other) = (nonces.make(NOW), nonces.make(NOW));
        assert!(nonces.take(&one, 1, NOW) && nonces.take(&other, 1, NOW));
    }

    #[test]
    fn what_was_made_elsewhere_or_long_ago_is_no_nonce() {
        let nonces = Nonces::new();
        let (own, forged) = (nonces.make(NOW), Nonces::new().make(NOW));
        let longer = format!("{own}0");
        let ahead = nonces.make(NOW + 1);
        for (nonce, now) in [
            (&*own, NOW + 61),
            (&*own, NOW - 1),
            (&*ahead, NOW),
            (&*forged, NOW),
            (&*longer, NOW),
            (own.get(..20).unwrap(), NOW),
            ("", NOW),
            ("\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}x", NOW),
        ] {
            assert!(!nonces.take(nonce, 1, now), "{nonce} {now}");
        }
        assert!(nonces.take(&own, 1, NOW + 60));
    }

    #[test]
    fn a_full_table_forgets_the_oldest_and_lets_nobody_in_with_it_again() {
        let nonces = Nonces::new();
        let made: Vec<String> = (0..=NONCES_MAX).map(|_| nonces.make(NOW)).collect();
        assert!(made.iter().all(|nonce| nonces.take(nonce, 1, NOW)));
        assert_eq!(nonces.used.lock().unwrap().counts.len(), NONCES_MAX);
        let (oldest, others) = made.split_first().unwrap();
        assert!(!nonces.take(oldest, 1, NOW) && !nonces.take(oldest, 2, NOW));
        assert!(others.iter().all(|nonce| nonces.take(nonce, 2, NOW)));
        let late = nonces.make(NOW + 61);
        assert!(nonces.take(&late, 1, NOW + 61));
        assert_eq!(nonces.used.lock().unwrap().counts.len(), 1, "who is too old has no place");
    }
}
