//! Names over restarts: kept in the state directory, and answered by when the API server cannot be
//! reached at a start.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use fairlead_state::{
    Snapshot,
    kept::{self, Kept},
    store::Snapshots,
};
use tokio::time::{sleep, timeout};

use super::Current;

/// The API server has so long to answer before names of the last run stand in.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names are written down no more often.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);

/// Lets names stand in if it must, and keeps those that are read later; ends with the store.
pub(super) async fn follow(current: Current, mut snapshots: Snapshots, directory: PathBuf) {
    let first = timeout(PATIENCE, snapshots.wait_for(Option::is_some)).await.is_ok();
    if !first {
        stand_in(&current, &directory).await;
    }
    snapshots.mark_changed();
    let mut said = String::new();
    while snapshots.changed().await.is_ok() {
        let Some(newest) = snapshots.borrow_and_update().clone() else { continue };
        if let Err(error) = keep(directory.clone(), newest).await {
            let reason = format!(
                "--state-dir {}: {error}; names are not kept for the next start",
                directory.display()
            );
            if reason != said {
                tracing::warn!("{reason}");
            }
            said = reason;
        }
        sleep(WRITE_INTERVAL).await;
    }
}

async fn stand_in(current: &Current, directory: &Path) {
    let (path, file) = (directory.to_owned(), directory.join(kept::FILE));
    let read = tokio::task::spawn_blocking(move || kept::read(&path)).await;
    match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(None) => {}
        Ok(Some(Kept { snapshot, written })) => {
            let Some(running) = current.load_full() else { return };
            let age_seconds = written.elapsed().unwrap_or_default().as_secs();
            let services = snapshot.services().len();
            tracing::warn!(
                age_seconds,
                services,
                "DNS: the API server does not answer: names of the last run stand in until it does"
            );
            running.stand_in(snapshot);
        }
        Err(error) => {
            tracing::warn!("{}: {error}; names of the last run cannot stand in", file.display());
        }
    }
}

async fn keep(directory: PathBuf, snapshot: Arc<Snapshot>) -> io::Result<()> {
    let writing =
        tokio::task::spawn_blocking(move || kept::write(&directory, &snapshot, SystemTime::now()));
    match writing.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        // Our predecessor or successor writes the same.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}
