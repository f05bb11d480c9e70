//! Freed memory goes back to the system. The allocator keeps it for what comes next, and after a start
//! or a list of everything nothing as large comes for days.
#![expect(unsafe_code, reason = "the allocator's own function has no safe wrapper; nowhere else")]

use std::time::Duration;

use fairlead_state::store::Snapshots;

/// What a change needs is freed by then, and many changes are one.
const PAUSE: Duration = Duration::from_secs(5);
/// Traffic frees memory, too.
const AT_LATEST: Duration = Duration::from_secs(60);

/// Gives back what is free after each change, and every minute; ends with the store.
pub(crate) async fn keep_small(mut snapshots: Snapshots) {
    loop {
        tokio::time::sleep(PAUSE).await;
        snapshots.mark_unchanged();
        // Milliseconds of system calls: no work for a thread that serves.
        if tokio::task::spawn_blocking(give_back).await.is_err() {
            return;
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AT_LATEST) => {}
        }
    }
}

fn give_back() {
    // SAFETY: it takes no pointers and may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
