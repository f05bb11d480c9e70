//! A role is started, tried again when it cannot start, and never takes another role with it.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::exit::{self, BadConfiguration};

/// Between the tries to start a role: the first pause, doubled up to the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    pub(crate) first: Duration,
    pub(crate) last: Duration,
}

/// What a role that cannot start is given.
pub(crate) const PAUSES: Pauses =
    Pauses { first: Duration::from_secs(1), last: Duration::from_secs(30) };

impl Pauses {
    /// The pause after a try, which served for so long, if at all.
    fn after(self, pause: Option<Duration>, served: Option<Duration>) -> Option<Duration> {
        match pause {
            Some(pause) if served.is_none_or(|served| served < self.last) => {
                Some(pause.saturating_mul(2).min(self.last))
            }
            _ => Some(self.first),
        }
    }
}

/// How a role fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Not ready, nothing wrong so far.
    #[default]
    Starting,
    /// Does its work.
    Ready,
    /// Has never been ready and cannot start. It is tried again.
    CannotStart(Hindrance),
    /// Was ready and ended: why, in one line. It is tried again.
    Failed(String),
    /// Ended because the agent ends.
    Stopped,
}

/// What keeps a role from being started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hindrance {
    /// In one line.
    pub(crate) reason: String,
    /// Nothing but another configuration cures it.
    pub(crate) is_configuration: bool,
}

/// Runs `role` until it ends well or `cancel`; a failure is said once per cause and retried with growing pauses,
/// both anew once it has done its work for long.
pub(crate) async fn keep<F, R>(
    name: &'static str,
    state: &watch::Sender<State>,
    cancel: &CancellationToken,
    pauses: Pauses,
    mut role: F,
) where
    F: FnMut() -> R,
    R: Future<Output = anyhow::Result<()>>,
{
    let mut pause = None;
    let mut said = String::new();
    let mut was_ready = false;
    while !cancel.is_cancelled() {
        let begun = Instant::now();
        match role().await {
            Ok(()) => break,
            Err(error) => {
                let reason = exit::one_line(&error);
                let has_served = *state.borrow() == State::Ready;
                if has_served || reason != said {
                    tracing::error!(role = name, "{reason}");
                }
                was_ready |= has_served;
                pause = pauses.after(pause, has_served.then(|| begun.elapsed()));
                said.clone_from(&reason);
                let is_configuration = exit::is_bad_configuration(&error);
                state.send_replace(match was_ready {
                    true => State::Failed(reason),
                    false => State::CannotStart(Hindrance { reason, is_configuration }),
                });
            }
        }
        let wait = tokio::time::sleep(pause.unwrap_or(pauses.first));
        if cancel.run_until_cancelled(wait).await.is_none() {
            break;
        }
    }
    state.send_replace(State::Stopped);
}

/// Waits until no role does its work, may come to it, or ever did: each has tried to start and
/// cannot. Returns who and why, in one line; that is bad configuration if it is for all of them.
pub(crate) async fn none_can_start(
    roles: &[(&'static str, watch::Receiver<State>)],
) -> anyhow::Error {
    let mut roles = roles.to_vec();
    loop {
        let (mut reasons, mut are_configuration) = (Vec::new(), true);
        for (name, state) in &mut roles {
            if let State::CannotStart(hindrance) = &*state.borrow_and_update() {
                reasons.push(format!("{name}: {}", hindrance.reason));
                are_configuration &= hindrance.is_configuration;
            }
        }
        if !roles.is_empty() && reasons.len() == roles.len() {
            let line = format!("no role can be started: {}", reasons.join("; "));
            return match are_configuration {
                true => BadConfiguration(line).into(),
                false => anyhow::Error::msg(line),
            };
        }
        let changes = roles.iter_mut().map(|(_, state)| Box::pin(state.changed()));
        let changes: Vec<_> = changes.collect();
        if changes.is_empty() || futures::future::select_all(changes).await.0.is_err() {
            // A role that is over says nothing more.
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SHORT: Pauses =
        Pauses { first: Duration::from_micros(1), last: Duration::from_micros(2) };
    /// Whoever waits that long has not been cancelled.
    const ENDLESS: Pauses = Pauses { first: Duration::MAX, last: Duration::MAX };

    fn cannot(why: &str, is_configuration: bool) -> State {
        State::CannotStart(Hindrance { reason: why.to_owned(), is_configuration })
    }

    #[tokio::test]
    async fn a_role_that_fails_is_tried_again_until_it_ends_well() {
        let tries = Cell::new(0);
        let (state, seen) = watch::channel(State::default());
        keep("test", &state, &CancellationToken::new(), SHORT, || {
            tries.set(tries.get() + 1);
            let result = if tries.get() < 4 { Err(anyhow::anyhow!("taken")) } else { Ok(()) };
            std::future::ready(result)
        })
        .await;
        assert_eq!(tries.get(), 4);
        assert_eq!(*seen.borrow(), State::Stopped);
    }

    /// Somebody unmounts the BPF file system each day: after a month it is still mounted again at once.
    #[test]
    fn pauses_grow_and_begin_anew_for_a_role_that_did_its_work_for_long() {
        let seconds = Duration::from_secs;
        for (pause, served, expected) in [
            (None, None, 1),
            (Some(1), None, 2),
            (Some(2), Some(0), 4),
            (Some(16), Some(29), 30),
            (Some(30), None, 30),
            (Some(30), Some(30), 1),
        ] {
            let next = PAUSES.after(pause.map(seconds), served.map(seconds));
            assert_eq!(next, Some(seconds(expected)), "{pause:?} {served:?}");
        }
    }

    #[tokio::test]
    async fn cancelling_ends_the_wait_between_tries() {
        let cancel = CancellationToken::new();
        let (state, mut seen) = watch::channel(State::default());
        let failing = keep("test", &state, &cancel, ENDLESS, || {
            std::future::ready(Err::<(), _>(anyhow::anyhow!("no rights")))
        });
        let stop = async {
            let failed = cannot("no rights", false);
            assert!(seen.wait_for(|state| *state == failed).await.is_ok());
            cancel.cancel();
        };
        tokio::join!(failing, stop);
        assert_eq!(*state.borrow(), State::Stopped);
    }

    #[tokio::test]
    async fn only_when_no_role_can_start_there_is_an_end() {
        let ended = State::Failed("later".into());
        let both = "no role can be started: dns: port taken; proxy: no rights";
        for (dns, proxy, expected) in [
            (cannot("port taken", false), cannot("no rights", false), Some(both)),
            (cannot("port taken", false), State::Starting, None),
            (cannot("port taken", false), State::Ready, None),
            (cannot("port taken", false), ended, None),
            (State::Starting, State::Starting, None),
        ] {
            let (sender, seen) = watch::channel(State::Starting);
            let (_other, other_seen) = watch::channel(proxy.clone());
            let roles = [("dns", seen), ("proxy", other_seen)];
            let mut waiting = Box::pin(none_can_start(&roles));
            assert!(futures::poll!(&mut waiting).is_pending(), "before dns has tried");
            sender.send_replace(dns.clone());
            let verdict = match futures::poll!(waiting) {
                std::task::Poll::Ready(error) => Some(error.to_string()),
                std::task::Poll::Pending => None,
            };
            assert_eq!(verdict.as_deref(), expected, "{dns:?}, {proxy:?}");
        }
    }

    /// It was lost on the way: a bad Corefile ended with 1, as a machine at fault does.
    #[tokio::test]
    async fn bug_the_end_is_one_of_bad_configuration_if_that_keeps_every_role_from_starting() {
        let bad = || anyhow::Error::new(BadConfiguration("line 2".into())).context("Corefile");
        let other = || anyhow::anyhow!("port taken");
        type Error = fn() -> anyhow::Error;
        let both: [(Error, Error, bool); 3] =
            [(bad, bad, true), (bad, other, false), (other, other, false)];
        for (dns, proxy, expected) in both {
            let cancel = CancellationToken::new();
            let [dns_state, proxy_state] = [(); 2].map(|()| watch::Sender::new(State::default()));
            let roles = [("dns", dns_state.subscribe()), ("proxy", proxy_state.subscribe())];
            let fails = |error: Error| move || std::future::ready(Err::<(), _>(error()));
            let both = async {
                let dns = keep("dns", &dns_state, &cancel, ENDLESS, fails(dns));
                tokio::join!(dns, keep("proxy", &proxy_state, &cancel, ENDLESS, fails(proxy)))
            };
            let error = tokio::select! {
                error = none_can_start(&roles) => error,
                _ = both => panic!("nobody cancels"),
            };
            assert_eq!(exit::is_bad_configuration(&error), expected, "{error}");
        }
    }

    #[tokio::test]
    async fn a_role_that_was_ready_is_never_taken_for_one_that_cannot_start() {
        let (state, mut seen) = watch::channel(State::default());
        let cancel = CancellationToken::new();
        let tries = Cell::new(0);
        let failing = keep("test", &state, &cancel, SHORT, || {
            tries.set(tries.get() + 1);
            if tries.get() == 1 {
                state.send_replace(State::Ready);
            }
            std::future::ready(Err::<(), _>(anyhow::anyhow!("lost")))
        });
        let stop = async {
            let failed = State::Failed("lost".into());
            assert!(seen.wait_for(|state| *state == failed).await.is_ok());
            cancel.cancel();
        };
        tokio::join!(failing, stop);
        assert!(tries.get() >= 1);
    }
}
