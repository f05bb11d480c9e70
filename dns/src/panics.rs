//! Panics: bugs, but none that may silence a node's names, or leave a client without a reply.

use std::{future::Future, panic::AssertUnwindSafe, sync::atomic::Ordering};

use futures::FutureExt;

use crate::counters::Counters;

/// What some work comes to; `None`, counted and said, if it panics. CoreDNS's server.go recovers for every
/// transport, too.
pub(crate) async fn caught<T>(counters: &Counters, work: impl Future<Output = T>) -> Option<T> {
    let done = AssertUnwindSafe(work).catch_unwind().await;
    if done.is_err() {
        note(counters, "task");
    }
    done.ok()
}

/// Counts one, and says it.
pub(crate) fn note(counters: &Counters, worker: &str) {
    counters.panics.fetch_add(1, Ordering::Relaxed);
    tracing::error!("DNS: a query made a {worker} panic; the others are answered");
}
