//! Time for threads whose runtimes have none.
//!
//! A runtime with timers looks at the clock twice and has the kernel set an alarm whenever it waits
//! for events, which under load is about once a request. Data threads need a tick now and then, a
//! retry, a pace. So one thread keeps time for all, and they wait for it as for any other event.

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

/// Where time is asked for; works in every runtime.
#[derive(Clone, Debug)]
pub(crate) struct Timer {
    runtime: Handle,
    _end: Arc<DropGuard>,
}

/// Who keeps it.
#[derive(Debug)]
pub(crate) struct Keeper {
    runtime: Runtime,
    ended: CancellationToken,
}

/// A timer, and what must run for it on a thread.
///
/// # Errors
/// If a runtime cannot be made.
pub(crate) fn timer() -> io::Result<(Timer, Keeper)> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let ended = CancellationToken::new();
    let end = Arc::new(ended.clone().drop_guard());
    Ok((Timer { runtime: runtime.handle().clone(), _end: end }, Keeper { runtime, ended }))
}

impl Keeper {
    /// Keeps time for as long as there is anybody to ask.
    pub(crate) fn run(self) {
        self.runtime.block_on(self.ended.cancelled());
    }
}

impl Timer {
    /// Ends after a while; dropping it ends it.
    pub(crate) fn after(&self, duration: Duration) -> AbortOnDropHandle<()> {
        // Asked for inside, where there is time.
        let wait = async move { tokio::time::sleep(duration).await };
        AbortOnDropHandle::new(self.runtime.spawn(wait))
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        if self.after(duration).await.is_err() {
            // Nobody keeps time any more, and the role is told that a thread ended.
            std::future::pending::<()>().await;
        }
    }

    /// `None`: it took longer.
    pub(crate) async fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(duration) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_runtime_without_time_waits_as_long_as_it_should_and_not_longer() {
        const SHORT: Duration = Duration::from_millis(20);
        const ENDLESS: Duration = Duration::from_secs(3_600);
        let (timer, keeper) = timer().unwrap();
        let keeping = std::thread::spawn(|| keeper.run());
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let begun = Instant::now();
            timer.sleep(SHORT).await;
            assert!(begun.elapsed() >= SHORT);
            assert_eq!(timer.timeout(SHORT, std::future::pending::<()>()).await, None);
            assert_eq!(timer.timeout(ENDLESS, std::future::ready(1)).await, Some(1));
        });
        drop(timer);
        keeping.join().unwrap();
    }
}
