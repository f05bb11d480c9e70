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
pub(super) async fn follow(current: Current, snapshots: Snapshots, directory: PathBuf) {
    follow_after(PATIENCE, current, snapshots, directory).await;
}

async fn follow_after(
    patience: Duration,
    current: Current,
    mut snapshots: Snapshots,
    directory: PathBuf,
) {
    let is_there = timeout(patience, snapshots.wait_for(Option::is_some)).await.is_ok();
    if !is_there {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use fairlead_dns::{DnsConfig, Upstreams};
    use fairlead_state::{Change, Kind, Store};
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A server that has read nothing yet, and whose names are to be kept in a directory.
    fn started(directory: &Path) -> (Store, Arc<fairlead_dns::Running>, CancellationToken) {
        let (store, snapshots) = Store::new([Kind::Service]);
        let config = DnsConfig {
            listen: vec![([127, 0, 0, 1], 0).into()],
            upstreams: Upstreams::Addresses(vec![]),
            threads: Some(1),
            ..DnsConfig::default()
        };
        let cancel = CancellationToken::new();
        let running = fairlead_dns::start(&config, snapshots.clone(), cancel.clone()).unwrap();
        let running = Arc::new(running);
        let current = Current::default();
        current.store(Some(running.clone()));
        let following = follow_after(Duration::ZERO, current, snapshots, directory.to_owned());
        tokio::spawn(following);
        (store, running, cancel)
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < LIMIT, "{what}");
            tokio::task::yield_now().await;
        }
    }

    fn read_all() -> Change {
        Change::Replace { kind: Kind::Service, objects: vec![], refused: vec![] }
    }

    #[tokio::test]
    async fn what_one_run_has_read_stands_in_for_the_next_until_it_reads_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _, first) = started(dir.path());
        store.apply([read_all()]);
        until("names are kept", || dir.path().join(kept::FILE).exists()).await;
        first.cancel();
        let (mut store, running, second) = started(dir.path());
        until("names stand in", || running.stands_in()).await;
        assert_eq!(running.revision(), None);
        store.apply([read_all()]);
        until("in sync", || running.revision().is_some()).await;
        assert!(!running.stands_in());
        second.cancel();
    }

    #[tokio::test]
    async fn a_damaged_file_changes_nothing_and_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(kept::FILE);
        fs::write(&file, "fairlead-names-1 7\nService {\n").unwrap();
        let (mut store, running, cancel) = started(dir.path());
        store.apply([read_all()]);
        until("in sync", || running.revision().is_some()).await;
        until("written anew", || kept::read(dir.path()).is_ok_and(|kept| kept.is_some())).await;
        cancel.cancel();
    }
}
