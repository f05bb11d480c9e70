//! A role is started, tried again when it cannot start, and never takes another role with it.

use std::{future::Future, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between the tries to start a role: the first pause, doubled up to the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    pub(crate) first: Duration,
    pub(crate) last: Duration,
}

/// What a role that cannot start is given.
pub(crate) const PAUSES: Pauses =
    Pauses { first: Duration::from_secs(1), last: Duration::from_secs(30) };

/// How a role fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Not ready, nothing wrong so far.
    #[default]
    Starting,
    /// Does its work.
    Ready,
    /// Cannot start, or ended: why, in one line. It is tried again.
    Failed(String),
    /// Ended because the agent ends.
    Stopped,
}

/// Runs `role` until it ends well or `cancel`; a failure is said once per cause and retried with growing pauses.
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
    let mut pause = pauses.first;
    let mut said = String::new();
    while !cancel.is_cancelled() {
        match role().await {
            Ok(()) => break,
            Err(error) => {
                let reason = crate::exit::one_line(&error);
                if reason != said {
                    tracing::error!(role = name, "{reason}");
                }
                state.send_replace(State::Failed(reason.clone()));
                said = reason;
            }
        }
        if cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            break;
        }
        pause = (pause * 2).min(pauses.last);
    }
    state.send_replace(State::Stopped);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SHORT: Pauses =
        Pauses { first: Duration::from_micros(1), last: Duration::from_micros(2) };
    /// Whoever waits that long has not been cancelled.
    const ENDLESS: Pauses = Pauses { first: Duration::MAX, last: Duration::MAX };

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

    #[tokio::test]
    async fn cancelling_ends_the_wait_between_tries() {
        let cancel = CancellationToken::new();
        let (state, mut seen) = watch::channel(State::default());
        let failing = keep("test", &state, &cancel, ENDLESS, || {
            std::future::ready(Err::<(), _>(anyhow::anyhow!("no rights")))
        });
        let stop = async {
            let failed = State::Failed("no rights".into());
            assert!(seen.wait_for(|state| *state == failed).await.is_ok());
            cancel.cancel();
        };
        tokio::join!(failing, stop);
        assert_eq!(*state.borrow(), State::Stopped);
    }
}
