//! How fast counters grow, between two looks.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Looks that are closer together say nothing.
const SPAN_MIN: Duration = Duration::from_millis(100);

/// What whoever follows a page saw last.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// The look that is made now.
    look: u64,
    seen: HashMap<String, Seen>,
}

/// A counter as it was.
#[derive(Debug)]
struct Seen {
    at: Instant,
    count: u64,
    /// The last look that asked for it.
    look: u64,
}

impl Rates {
    /// Another look begins: what the last one did not ask for is forgotten, as are the Services it
    /// belonged to.
    pub(super) fn look_again(&mut self) {
        let last = self.look;
        self.seen.retain(|_, seen| seen.look == last);
        self.look += 1;
    }

    /// A second's growth of the counter `name` since the last look; `None` at the first.
    pub(super) fn of(&mut self, name: &str, count: u64) -> Option<f64> {
        self.at(Instant::now(), name, count)
    }

    fn at(&mut self, now: Instant, name: &str, count: u64) -> Option<f64> {
        let look = self.look;
        let Some(seen) = self.seen.get_mut(name) else {
            self.seen.insert(name.to_owned(), Seen { at: now, count, look });
            return None;
        };
        seen.look = look;
        let span = now.saturating_duration_since(seen.at);
        if span < SPAN_MIN {
            return None;
        }
        // A counter that was made anew begins at nothing.
        let grown = u32::try_from(count.saturating_sub(seen.count)).unwrap_or(u32::MAX);
        (seen.at, seen.count) = (now, count);
        Some(f64::from(grown) / span.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_came_since_the_last_look() {
        let mut rates = Rates::default();
        let start = Instant::now();
        for (after_ms, count, expected) in [
            (0, 100, None),
            (2000, 150, Some(25.0)),
            (2001, 151, None),
            (4000, 150, Some(0.0)),
            (5000, 0, Some(0.0)),
            (6000, 7, Some(7.0)),
        ] {
            let now = start + Duration::from_millis(after_ms);
            assert_eq!(rates.at(now, "x", count), expected, "after {after_ms} ms");
        }
        assert_eq!(rates.at(start, "y", 1), None, "each counter by itself");
    }

    #[test]
    fn counters_of_services_that_are_gone_are_forgotten_and_others_are_not() {
        let mut rates = Rates::default();
        for look in 0..1000 {
            rates.look_again();
            let _ = rates.of("stays", look);
            let _ = rates.of(&format!("gone{look}"), look);
        }
        rates.look_again();
        assert_eq!(rates.seen.len(), 2, "the last look's");
        assert!(rates.seen.contains_key("stays"));
    }
}
