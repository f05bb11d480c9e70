//! Who is waited for while a request is sent, and how long.

use std::{
    cell::{Cell, RefCell},
    sync::{Arc, Weak},
    time::Instant,
};

use crate::{routes::Patience, serve::clock::Watch};

/// How far a request's body is: decides who is waited for, and how long.
#[derive(Debug)]
pub(crate) struct Progress {
    stage: Cell<Upload>,
    /// When all of it was sent last.
    done_at: Cell<Option<Instant>>,
    /// Of the connection it is sent on; gone with an answer that is over before the body is.
    watch: RefCell<Weak<Watch>>,
    client_body_ms: u64,
    upstream_send_ms: u64,
    upstream_read_ms: u64,
}

/// Who is to act next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// The upstream has not taken what is there.
    Sending,
    /// The client has not sent more.
    Receiving,
    /// The client broke off.
    Broken,
    /// The client sent more than it may.
    TooLarge,
    /// All of it was sent.
    Done,
}

impl Progress {
    pub(crate) fn new(client_body_ms: u64, patience: &Patience) -> Self {
        Self {
            stage: Cell::new(Upload::Sending),
            done_at: Cell::default(),
            watch: RefCell::default(),
            client_body_ms,
            upstream_send_ms: patience.send_ms,
            upstream_read_ms: patience.read_ms,
        }
    }

    /// The body is about to be sent on the connection of this watch. By that whoever is to act next
    /// is waited for; once there is an answer, only while somebody reads it.
    pub(crate) fn begin(&self, watch: &Arc<Watch>) {
        watch.arm(self.upstream_send_ms);
        *self.watch.borrow_mut() = Arc::downgrade(watch);
    }

    pub(crate) fn stage(&self) -> Upload {
        self.stage.get()
    }

    /// `None`: not all of it was sent yet.
    pub(crate) fn done_at(&self) -> Option<Instant> {
        self.done_at.get().filter(|_| self.stage.get() == Upload::Done)
    }

    pub(crate) fn reach(&self, stage: Upload) {
        let before = self.stage.replace(stage);
        if stage == Upload::Done && before != Upload::Done {
            self.done_at.set(Some(Instant::now()));
        }
        let waited_on = stage == Upload::Receiving && before == Upload::Receiving;
        if waited_on {
            return;
        }
        if let Some(watch) = self.watch.borrow().upgrade() {
            watch.rearm(match stage {
                Upload::Receiving => self.client_body_ms,
                Upload::Sending | Upload::Broken | Upload::TooLarge => self.upstream_send_ms,
                Upload::Done => self.upstream_read_ms,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::clock::Clock;

    /// Its ticks are of 20 ms.
    const CLOCK_MS: u64 = 160;
    const SEND_MS: u64 = 100;
    const CLIENT_MS: u64 = 200;
    const READ_MS: u64 = 300;
    const EXPECTED: [(Upload, u64); 5] = [
        (Upload::Sending, SEND_MS),
        (Upload::Receiving, CLIENT_MS),
        (Upload::Broken, SEND_MS),
        (Upload::TooLarge, SEND_MS),
        (Upload::Done, READ_MS),
    ];

    fn begun(clock: &Clock) -> (Progress, Arc<Watch>) {
        let patience = Patience { connect_ms: 1, send_ms: SEND_MS, read_ms: READ_MS };
        let (progress, watch) = (Progress::new(CLIENT_MS, &patience), clock.watch());
        progress.begin(&watch);
        (progress, watch)
    }

    /// How long somebody is waited for from now on, in milliseconds.
    fn waited_ms(clock: &Clock, watch: &Watch) -> Option<u64> {
        let begun = clock.now_ms();
        let tick_ms: u64 = clock.tick_interval().as_millis().try_into().unwrap();
        let passed = (0..4 * READ_MS).step_by(tick_ms.try_into().unwrap()).find(|passed| {
            clock.tick_at(begun + passed);
            watch.expired()
        });
        passed.map(|passed| passed - tick_ms)
    }

    #[test]
    fn who_is_to_act_next_decides_how_long_that_is_waited_for() {
        for (stage, expected) in EXPECTED {
            let clock = Clock::new(CLOCK_MS);
            let (progress, watch) = begun(&clock);
            progress.reach(stage);
            assert_eq!(waited_ms(&clock, &watch), Some(expected), "{stage:?}");
        }
    }

    /// HTTP/2: there is an answer, and the request goes on whether or not that is read.
    #[test]
    fn bug_an_upload_has_nobody_waited_for_while_nobody_reads_the_answer() {
        for (stage, expected) in EXPECTED {
            let clock = Clock::new(CLOCK_MS);
            let (progress, watch) = begun(&clock);
            watch.disarm();
            progress.reach(stage);
            assert_eq!(waited_ms(&clock, &watch), None, "{stage:?}");
            assert_eq!(progress.stage(), stage);
            // Somebody reads on: who sends on is not silent.
            let (progress, watch) = begun(&clock);
            watch.disarm();
            watch.arm_once(READ_MS);
            clock.tick_at(clock.now_ms() + READ_MS);
            progress.reach(stage);
            assert_eq!(waited_ms(&clock, &watch), Some(expected), "{stage:?}");
        }
    }

    #[test]
    fn an_answer_that_is_over_is_not_held_by_an_upload_that_goes_on() {
        let clock = Clock::new(CLOCK_MS);
        let (progress, watch) = begun(&clock);
        let held = Arc::downgrade(&watch);
        drop(watch);
        assert!(held.upgrade().is_none());
        progress.reach(Upload::Done);
        assert_eq!(progress.stage(), Upload::Done);
    }
}
