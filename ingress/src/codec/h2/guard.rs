//! Floods: frames that cost us work and bring nobody an answer. What is usual on a connection that
//! is used for something is never near these.

/// Streams given up by the client before their answer (CVE-2023-44487), or for its mistakes
/// (CVE-2025-8671): each may have begun something at an endpoint.
const RESETS: Rate = Rate { most: 200, per_second: 50 };
/// PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA and CONTINUATION, frames nobody knows
/// (CVE-2019-9511 to 9518).
const IDLE_FRAMES: Rate = Rate { most: 2_000, per_second: 500 };
/// What a request, or a frame of data either way, explains: windows opened, pings to measure them.
const EXPLAINED: u32 = 8;

/// Data shorter than this is no work if there was more to send: a client that opens its windows by
/// the byte has us make a frame of each.
pub(super) const CRUMB_BYTES: i64 = 256;

/// How many at once, and how many in the long run.
#[derive(Clone, Copy, Debug)]
struct Rate {
    most: u32,
    per_second: u32,
}

/// What is left.
#[derive(Debug)]
pub(super) struct Guard {
    resets: u32,
    idle_frames: u32,
    since_ms: u64,
}

/// Too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flood;

impl Guard {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { resets: RESETS.most, idle_frames: IDLE_FRAMES.most, since_ms: now_ms }
    }

    /// Time has passed.
    pub(super) fn refill(&mut self, now_ms: u64) {
        let passed_ms = now_ms.saturating_sub(self.since_ms);
        if passed_ms == 0 {
            return;
        }
        self.since_ms = now_ms;
        for (left, rate) in [(&mut self.resets, RESETS), (&mut self.idle_frames, IDLE_FRAMES)] {
            let more = passed_ms.saturating_mul(u64::from(rate.per_second)).div_ceil(1_000);
            let more = u32::try_from(more).unwrap_or(rate.most);
            *left = left.saturating_add(more).min(rate.most);
        }
    }

    /// A stream was given up before its answer.
    pub(super) fn reset(&mut self) -> Result<(), Flood> {
        spend(&mut self.resets)
    }

    /// A frame that is part of no request.
    pub(super) fn idle_frame(&mut self) -> Result<(), Flood> {
        spend(&mut self.idle_frames)
    }

    /// A request, or a frame of data that is no crumb.
    pub(super) fn work(&mut self) {
        self.idle_frames = self.idle_frames.saturating_add(EXPLAINED).min(IDLE_FRAMES.most);
    }

    /// A stream had its answer.
    pub(super) fn answered(&mut self) {
        self.resets = self.resets.saturating_add(1).min(RESETS.most);
    }
}

fn spend(left: &mut u32) -> Result<(), Flood> {
    *left = left.checked_sub(1).ok_or(Flood)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(mut spend: impl FnMut() -> Result<(), Flood>) -> usize {
        (0..1_000_000).take_while(|_| spend().is_ok()).count()
    }

    #[test]
    fn a_burst_and_then_a_rate() {
        let mut guard = Guard::new(0);
        assert_eq!(burst(|| guard.reset()), 200);
        assert_eq!(burst(|| guard.idle_frame()), 2_000, "each has its own");
        guard.refill(0);
        assert_eq!(burst(|| guard.reset()), 0);
        guard.refill(1_000);
        assert_eq!(burst(|| guard.reset()), 50);
        assert_eq!(burst(|| guard.idle_frame()), 500);
        guard.refill(u64::MAX);
        assert_eq!(burst(|| guard.reset()), 200);
    }

    #[test]
    fn what_is_used_for_something_explains_its_frames() {
        let mut guard = Guard::new(0);
        for _ in 0..100_000 {
            guard.work();
            for _ in 0..EXPLAINED {
                guard.idle_frame().unwrap();
            }
            guard.reset().unwrap();
            guard.answered();
        }
    }
}
