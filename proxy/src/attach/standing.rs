//! How far a load has come: who may attach its programs, and who may give it up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::KernelError;

/// Shared by all who attach programs of one load.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<Stage>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// None of its programs runs anywhere.
    #[default]
    Idle,
    /// There is a link with one of them: the maps' names are the next start's way to them.
    AtWork,
    /// It was given up.
    Withdrawn,
}

/// Somebody is attaching: for as long as this is held nobody else does, nor withdraws.
#[derive(Debug)]
pub(super) struct Attaching<'a>(MutexGuard<'a, Stage>);

impl Standing {
    /// To be held from before the first link to the last.
    pub(super) fn attaching(&self) -> Result<Attaching<'_>, KernelError> {
        let stage = self.lock();
        if *stage == Stage::Withdrawn { Err(KernelError::Withdrawn) } else { Ok(Attaching(stage)) }
    }

    /// Nothing is attached from now on. `take_back` is called if nothing was before.
    pub(super) fn withdraw(&self, take_back: impl FnOnce()) {
        let mut stage = self.lock();
        if *stage == Stage::Idle {
            take_back();
        }
        *stage = Stage::Withdrawn;
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attaching<'_> {
    /// A link has been made.
    pub(super) fn note_link(&mut self) {
        *self.0 = Stage::AtWork;
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    /// A task that nobody awaits any more went on: its links led to maps without names.
    #[test]
    fn who_withdraws_amid_an_attaching_waits_for_its_end_and_takes_nothing_back() {
        for links in [1, 8] {
            let standing = Standing::default();
            let (to_attacher, withdraws) = mpsc::channel();
            let (events, seen) = mpsc::channel();
            let mut attaching = standing.attaching().unwrap();
            thread::scope(|scope| {
                let end = events.clone();
                let standing = &standing;
                scope.spawn(move || {
                    to_attacher.send(()).unwrap();
                    standing.withdraw(|| end.send("taken back").unwrap());
                    end.send("withdrawn").unwrap();
                });
                withdraws.recv().unwrap();
                for _ in 0..links {
                    thread::yield_now();
                    attaching.note_link();
                    events.send("link").unwrap();
                }
                drop(attaching);
            });
            drop(events);
            let seen: Vec<_> = seen.iter().collect();
            let expected: Vec<_> =
                std::iter::repeat_n("link", links).chain(["withdrawn"]).collect();
            assert_eq!(seen, expected);
            assert!(matches!(standing.attaching(), Err(KernelError::Withdrawn)));
        }
    }

    #[test]
    fn who_attaches_after_a_withdrawal_is_refused_and_what_was_never_at_work_is_taken_back_once() {
        let standing = Standing::default();
        // It has begun, and failed before its first link.
        drop(standing.attaching().unwrap());
        let mut taken_back = 0;
        for _ in 0..2 {
            standing.withdraw(|| taken_back += 1);
            assert!(matches!(standing.attaching(), Err(KernelError::Withdrawn)));
        }
        assert_eq!(taken_back, 1);
    }
}
