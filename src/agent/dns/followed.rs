//! A Corefile that is read again when it changes. A ConfigMap's mount swaps a symbolic link: so the
//! content is compared, not the file.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fairlead_dns::corefile::Corefile;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::BadConfiguration;

/// `reload` says how late a change may be seen at most; a file of a few lines is read more often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A file that was refused is tried again after so long: what it names may be mended meanwhile.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// The Corefile in force.
pub(super) struct Followed {
    path: PathBuf,
    corefile: Arc<Corefile>,
    /// Which one was in force before this one, until this one is.
    before: Option<Arc<Corefile>>,
    /// The one that was refused last, and when.
    refused: Option<(Arc<Corefile>, Instant)>,
    failures: Arc<AtomicU64>,
    /// What was last said about the file: said once.
    said: String,
    hangup: Signal,
}

impl Followed {
    /// Reads the file for the first time.
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        let corefile = Corefile::read(path).map_err(|error| BadConfiguration(error.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            corefile: Arc::new(corefile),
            before: None,
            refused: None,
            failures: Arc::default(),
            said: String::new(),
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(super) fn corefile(&self) -> Arc<Corefile> {
        self.corefile.clone()
    }

    /// How often the file was found wrong, or could not be brought into force.
    pub(super) fn failures(&self) -> Arc<AtomicU64> {
        self.failures.clone()
    }

    /// Waits until the file means something else; for ever without a file.
    pub(super) async fn changed(followed: Option<&mut Self>) -> Arc<Corefile> {
        let Some(followed) = followed else { return std::future::pending().await };
        loop {
            let pause = followed.corefile.reload().map(|interval| interval.min(LOOK_EVERY));
            let look = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    // `reload off`, or none: SIGHUP still works.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = look => {}
                _ = followed.hangup.recv() => followed.refused = None,
            }
            if let Some(corefile) = followed.look() {
                return corefile;
            }
        }
    }

    /// Says what became of the file's meaning: one that is refused leaves the old in force.
    pub(super) fn settle(&mut self, outcome: Result<(), String>) {
        match (outcome, self.before.take()) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => {
                (self.refused, self.said) = (None, String::new());
                tracing::info!(file = %self.path.display(), "DNS: the Corefile changed");
            }
            // It was something else that changed.
            (Err(why), None) => tracing::error!("{why}; the old settings stay in force"),
            (Err(why), Some(before)) => {
                let refused = std::mem::replace(&mut self.corefile, before);
                self.refused = Some((refused, Instant::now()));
                self.failed(format!("{why}; the old settings stay in force"));
            }
        }
    }

    fn failed(&mut self, text: String) {
        if text != self.said {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!("{text}");
            self.said = text;
        }
    }

    /// The file's new meaning, if it has one. A bad file leaves the old in force.
    fn look(&mut self) -> Option<Arc<Corefile>> {
        match Corefile::read(&self.path) {
            Ok(corefile) if corefile == *self.corefile => {
                self.said.clear();
                None
            }
            Ok(corefile)
                if self.refused.as_ref().is_some_and(|(refused, at)| {
                    corefile == **refused && at.elapsed() < TRY_AGAIN
                }) =>
            {
                None
            }
            Ok(corefile) => {
                self.before = Some(std::mem::replace(&mut self.corefile, Arc::new(corefile)));
                Some(self.corefile())
            }
            Err(error) => {
                self.failed(format!("{error}; the old Corefile stays in force"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_refused_is_counted_once_and_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Corefile");
        std::fs::write(&file, ".:53 {\n errors\n}\n").unwrap();
        let mut followed = Followed::new(&file).unwrap();
        let first = followed.corefile();
        let failures = followed.failures();
        assert!(followed.look().is_none(), "nothing has changed");
        std::fs::write(&file, ".:53 {\n whoami\n}\n").unwrap();
        let second = followed.look().unwrap();
        assert_ne!(second, first);
        for _ in 0..2 {
            followed.settle(Err("a file is missing".to_owned()));
            assert_eq!(followed.corefile(), first, "the old one stays");
            assert!(followed.look().is_none(), "not at once");
            // As by SIGHUP, or when the time is over.
            followed.refused = None;
            assert_eq!(followed.look(), Some(second.clone()));
        }
        assert_eq!(failures.load(Ordering::Relaxed), 1, "one reason");
        followed.settle(Ok(()));
        assert!(followed.look().is_none(), "it is in force");
        // Other settings are no affair of the file's.
        followed.settle(Err("a flag is wrong".to_owned()));
        assert_eq!((followed.corefile(), failures.load(Ordering::Relaxed)), (second, 1));
    }
}
