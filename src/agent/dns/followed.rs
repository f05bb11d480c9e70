//! A Corefile that is read again when it changes. A ConfigMap's mount swaps a symbolic link: so the
//! content is compared, not the file.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fairlead_dns::corefile::Corefile;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::BadConfiguration;

/// `reload` says how late a change may be seen at most; a file of a few lines is read more often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The Corefile in force.
pub(super) struct Followed {
    path: PathBuf,
    corefile: Arc<Corefile>,
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
            failures: Arc::default(),
            said: String::new(),
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(super) fn corefile(&self) -> Arc<Corefile> {
        self.corefile.clone()
    }

    /// How often the file was found wrong.
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
                _ = followed.hangup.recv() => {}
            }
            if let Some(corefile) = followed.look() {
                return corefile;
            }
        }
    }

    /// The file's new meaning, if it has one. A bad file leaves the old in force.
    fn look(&mut self) -> Option<Arc<Corefile>> {
        match Corefile::read(&self.path) {
            Ok(corefile) if corefile == *self.corefile => {
                self.said.clear();
                None
            }
            Ok(corefile) => {
                self.said.clear();
                tracing::info!(file = %self.path.display(), "DNS: the Corefile changed");
                self.corefile = Arc::new(corefile);
                Some(self.corefile())
            }
            Err(error) => {
                let text = error.to_string();
                if text != self.said {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!("{text}; the old Corefile stays in force");
                    self.said = text;
                }
                None
            }
        }
    }
}
