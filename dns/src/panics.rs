//! Panics: bugs, but none that may silence a node's names, or leave a client without a reply.

use std::{future::Future, panic::AssertUnwindSafe, sync::atomic::Ordering};

use futures::FutureExt;

use crate::counters::Counters;

/// What some work comes to; `None`, counted and said, if it panics. CoreDNS's server.go recovers for every
/// transport, too.
///
/// Not an `async fn`: that would keep room for the work twice, where it comes in and where it is polled.
pub(crate) fn caught<T>(
    counters: &Counters,
    work: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    AssertUnwindSafe(work).catch_unwind().map(|done| {
        if done.is_err() {
            note(counters, "task");
        }
        done.ok()
    })
}

/// Counts one, and says it.
pub(crate) fn note(counters: &Counters, worker: &str) {
    counters.panics.fetch_add(1, Ordering::Relaxed);
    tracing::error!("DNS: a query made a {worker} panic; the others are answered");
}
