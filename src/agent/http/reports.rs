//! Reports are work: reading maps, planning. They must not hold up those who watch.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// So many are made at once for a site: whoever hangs up and asks again does not end those that are at work.
const REPORTS_MAX: usize = 4;

/// Where a site's reports are made: on threads of their own.
#[derive(Clone, Debug)]
pub(crate) struct Reports(Arc<Semaphore>);

impl Default for Reports {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(REPORTS_MAX)))
    }
}

impl Reports {
    /// `None`: it broke down, and the log says how.
    pub(crate) async fn make<T: Send + 'static>(
        &self,
        report: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let permit = self.0.clone().acquire_owned().await.ok()?;
        let making = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            report()
        });
        making.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Mutex, mpsc},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn whoever_hangs_up_and_asks_again_has_no_more_made_at_once() {
        let reports = Reports::default();
        let (go_on, told) = mpsc::channel::<()>();
        let told = Arc::new(Mutex::new(told));
        for _ in 0..REPORTS_MAX {
            let told = told.clone();
            let mut asked = Box::pin(reports.make(move || told.lock().unwrap().recv().is_ok()));
            assert!(futures::poll!(&mut asked).is_pending());
            drop(asked);
        }
        let mut next = Box::pin(reports.make(|| "made"));
        let early = timeout(Duration::from_millis(50), &mut next).await;
        assert!(early.is_err(), "one too many: {early:?}");
        drop(go_on);
        assert_eq!(next.await, Some("made"));
    }

    #[tokio::test]
    async fn one_that_breaks_down_takes_no_place_with_it() {
        let reports = Reports::default();
        for _ in 0..=REPORTS_MAX {
            assert_eq!(reports.make(|| -> u8 { panic!("a defect") }).await, None);
        }
    }
}
