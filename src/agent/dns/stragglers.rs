//! Questions that still come after the lame duck's time: some proxy learns late that this server ends.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// A server nobody has asked for so long is known to be ending.
const SILENCE: Duration = Duration::from_secs(1);
/// The longest wait for silence: some clients keep to one server for ever. The chart's grace period
/// has room for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns when no question has come for a while, or after all patience. `questions` counts them.
pub(super) async fn have_gone(questions: impl Fn() -> u64) {
    if !are_gone(questions, SILENCE, PATIENCE).await {
        tracing::info!("DNS: still asked after all; ending");
    }
}

async fn are_gone(questions: impl Fn() -> u64, silence: Duration, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    let mut seen = questions();
    while Instant::now() < until {
        sleep(silence).await;
        let now = questions();
        if now == seen {
            return true;
        }
        seen = now;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn late_questions_are_waited_for_within_limits() {
        const SHORT: Duration = Duration::from_millis(1);
        const LONG: Duration = Duration::from_secs(3600);
        for (asked_times, patience, expected) in
            [(0, LONG, true), (5, LONG, true), (5, SHORT, false)]
        {
            let looks = Cell::new(0);
            let questions = || {
                looks.set(looks.get() + 1);
                looks.get().min(asked_times)
            };
            assert_eq!(are_gone(questions, SHORT, patience).await, expected, "{asked_times}");
        }
    }
}
