//! The synchroniser at work: newest snapshot, pass, retry, verification.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fairlead_state::{Changes, Snapshot, store::Snapshots};
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    maps::Maps,
    plan::Warning,
    sync::{Full, ProxyStatus, Report, Synchroniser},
};

/// First pause before what failed is tried again; doubled up to [`RETRY_LAST`].
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Longest pause.
const RETRY_LAST: Duration = Duration::from_secs(30);
/// How often the maps are compared with what was written to them.
const VERIFY_EVERY: Duration = Duration::from_secs(600);

/// Why the proxy cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A defect; the maps are as they are and can be taken up again.
    #[error("the pass over the maps broke down: {source}")]
    Pass {
        /// What is known of it.
        #[from]
        source: tokio::task::JoinError,
    },
}

/// What a pass is made for.
#[derive(Clone, Copy)]
enum Cause {
    Snapshot,
    Retry,
    Verify,
}

/// What the loop waits for, beside snapshots.
struct Schedule {
    retry_at: Option<Instant>,
    pause: Duration,
    verify: Interval,
}

/// Keeps the maps as the newest snapshot wants them, until `cancel`; what the maps hold stays.
/// Nothing is touched before the first snapshot. A snapshot channel that closes means that no newer
/// ones come.
///
/// # Errors
/// A defect only: whatever the kernel refuses is reported in `status` and tried again.
pub async fn run<M: Maps + Send + 'static>(
    mut sync: Synchroniser<M>,
    mut snapshots: Snapshots,
    status: watch::Sender<ProxyStatus>,
    cancel: CancellationToken,
) -> Result<(), RunError> {
    let mut schedule = Schedule::new();
    // The revision that was planned last, for the log.
    let mut known = 0;
    // A snapshot may be there already.
    snapshots.mark_changed();
    loop {
        let next = cancel.run_until_cancelled(schedule.next(&mut snapshots));
        let Some(cause) = next.await else { return Ok(()) };
        let Some(snapshot) = take(&mut snapshots, cause) else { continue };
        let started = Instant::now();
        let changed = match cause {
            Cause::Snapshot => {
                snapshot.changes_since(std::mem::replace(&mut known, snapshot.revision()))
            }
            Cause::Retry | Cause::Verify => Changes::Some(BTreeSet::new()),
        };
        // Thousands of system calls, at worst: no work for a thread that serves others.
        let pass = tokio::task::spawn_blocking(move || {
            let report = match cause {
                Cause::Snapshot => sync.reconcile(&snapshot),
                Cause::Retry => sync.retry(),
                Cause::Verify => sync.verify(),
            };
            (sync, report)
        });
        let report;
        (sync, report) = pass.await?;
        let elapsed = started.elapsed();
        schedule.plan_retry(sync.is_retry_due(), matches!(cause, Cause::Retry));
        let news = publish(&sync, &report, elapsed, &status);
        log(&report, &news);
        if report.entries() > 0 {
            log_written(&report, elapsed, &changed);
        }
    }
}

/// The snapshot a pass is made for. One that has come by the time of a retry or a comparison, which
/// go by what was planned, has its own turn afterwards.
fn take(snapshots: &mut Snapshots, cause: Cause) -> Option<Arc<Snapshot>> {
    match cause {
        Cause::Snapshot => snapshots.borrow_and_update().clone(),
        Cause::Retry | Cause::Verify => snapshots.borrow().clone(),
    }
}

impl Schedule {
    fn new() -> Self {
        let mut verify = interval_at(Instant::now() + VERIFY_EVERY, VERIFY_EVERY);
        verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { retry_at: None, pause: RETRY_FIRST, verify }
    }

    async fn next(&mut self, snapshots: &mut Snapshots) -> Cause {
        let retry_at = self.retry_at;
        let retry = async {
            match retry_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let newest = async {
            if snapshots.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = newest => Cause::Snapshot,
            () = retry => Cause::Retry,
            _ = self.verify.tick() => Cause::Verify,
        }
    }

    /// New snapshots neither hasten nor put off what failed before.
    fn plan_retry(&mut self, is_due: bool, was_retry: bool) {
        if !is_due {
            self.retry_at = None;
            self.pause = RETRY_FIRST;
        } else if was_retry || self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(RETRY_LAST);
        }
    }
}

/// Returns what is worth a word now and was not before.
fn publish<M: Maps>(
    sync: &Synchroniser<M>,
    report: &Report,
    elapsed: Duration,
    status: &watch::Sender<ProxyStatus>,
) -> News {
    let old = status.borrow().clone();
    let mut new = sync.status();
    let has_written = report.entries() > 0;
    new.passes_total = old.passes_total + u64::from(has_written);
    new.last_pass = if has_written { elapsed } else { old.last_pass };
    let warnings = new.warnings.first.iter();
    let news = News {
        warnings: warnings.filter(|w| !old.warnings.first.contains(w)).cloned().collect(),
        full: if new.full == old.full { vec![] } else { new.full.clone() },
        is_error_new: new.last_error != old.last_error,
    };
    status.send_replace(new);
    news
}

struct News {
    warnings: Vec<Warning>,
    full: Vec<Full>,
    is_error_new: bool,
}

fn log(report: &Report, news: &News) {
    if let Some(error) = &report.error
        && news.is_error_new
    {
        tracing::error!(behind = report.behind, "{error}");
    }
    for full in &news.full {
        tracing::error!("{full}");
    }
    for warning in &news.warnings {
        tracing::warn!("{warning}");
    }
    if report.drift > 0 {
        tracing::warn!(entries = report.drift, "maps were changed by somebody else: repaired");
    }
}

fn log_written(report: &Report, elapsed: Duration, changed: &Changes) {
    tracing::info!(
        revision = report.revision,
        %changed,
        services = report.services,
        frontends = report.frontends_put,
        frontends_removed = report.frontends_deleted,
        backends = report.backends_put,
        backends_removed = report.backends_deleted,
        ?elapsed,
        "services written"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_comes_with_a_retry_or_a_comparison_is_not_lost() {
        let (publisher, mut snapshots) = watch::channel(None);
        publisher.send_replace(Some(Arc::new(Snapshot::default())));
        for cause in [Cause::Retry, Cause::Verify] {
            assert!(take(&mut snapshots, cause).is_some());
            assert!(snapshots.has_changed().unwrap(), "its turn is to come");
        }
        assert!(take(&mut snapshots, Cause::Snapshot).is_some());
        assert!(!snapshots.has_changed().unwrap());
    }
}
