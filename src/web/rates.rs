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
    seen: HashMap<String, (Instant, u64)>,
}

impl Rates {
    /// A second's growth of the counter `name` since the last look; `None` at the first.
    pub(super) fn of(&mut self, name: &str, count: u64) -> Option<f64> {
        self.at(Instant::now(), name, count)
    }

    fn at(&mut self, now: Instant, name: &str, count: u64) -> Option<f64> {
        let Some((then, before)) = self.seen.get_mut(name) else {
            self.seen.insert(name.to_owned(), (now, count));
            return None;
        };
        let span = now.saturating_duration_since(*then);
        if span < SPAN_MIN {
            return None;
        }
        // A counter that was made anew begins at nothing.
        let grown = u32::try_from(count.saturating_sub(*before)).unwrap_or(u32::MAX);
        (*then, *before) = (now, count);
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
}
