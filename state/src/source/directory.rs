//! A directory of manifests as a source, and as a snapshot for commands that need it once.
//!
//! A file counts as a whole: it takes effect when its writer is done with it, and one that does not
//! parse keeps its last good content. Names that begin with a dot are skipped, so the `..data`
//! links
//! of a mounted ConfigMap and editors' leftovers are not read twice.

mod catalog;
pub(crate) mod file;
mod notify;
mod tree;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::{
    notify::Notify,
    tree::{Reading, Tree},
};
use super::{Sink, Source, SourceError};
use crate::{
    model::{Kind, Name, ObjectRef},
    snapshot::Snapshot,
    store::Store,
};

/// Quiet time after which a burst of changes is over. Together with [`BURST_MAX`] and reading this
/// stays below the promised 100 ms.
const QUIET: Duration = Duration::from_millis(10);
/// A burst that goes on for longer is taken in parts.
const BURST_MAX: Duration = Duration::from_millis(50);
/// How often a directory that has vanished is looked for.
const VANISHED_RETRY: Duration = Duration::from_secs(1);

/// Which directory, and what to take from it.
#[derive(Clone, Debug)]
pub struct DirectoryOptions {
    /// Every `*.yaml`, `*.yml` and `*.json` below it is read.
    pub path: PathBuf,
    /// Only Pods of this node are taken; `None` takes all.
    pub node_name: Option<Name>,
    /// Labels of Services and Namespaces are kept.
    pub labels: bool,
    /// Secrets and ConfigMaps to take though no Ingress refers to them.
    pub always: BTreeSet<ObjectRef>,
}

/// A directory of manifests, watched.
#[derive(Debug)]
pub struct Directory {
    options: DirectoryOptions,
    notify: Notify,
}

/// What a one-time reading found.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All good objects.
    pub snapshot: Arc<Snapshot>,
    /// Files that do not parse, one line each.
    pub problems: Vec<String>,
    /// Kinds of other software, one line a file and kind.
    pub foreign: Vec<String>,
}

/// Reads files and directories once, as one cluster. An earlier path wins over a later one.
///
/// # Errors
/// A path cannot be read.
pub fn load(
    paths: &[PathBuf],
    node_name: Option<Name>,
    always: BTreeSet<ObjectRef>,
) -> Result<Loaded, SourceError> {
    let kinds = BTreeSet::from(Kind::ALL);
    let (mut store, snapshots) = Store::new(kinds.iter().copied());
    let mut tree = Tree::new(kinds, node_name, always, true);
    for path in paths {
        let fail = |source| SourceError::File { path: path.clone(), source };
        let reading = tree.read(path, &BTreeSet::new(), None).map_err(fail)?;
        tree.merge(reading, |_| false);
    }
    store.apply(tree.everything());
    let snapshot = snapshots.borrow().clone().unwrap_or_default();
    Ok(Loaded { snapshot, problems: tree.problems(), foreign: tree.foreign() })
}

impl Directory {
    /// Begins to watch. Needs a tokio runtime.
    ///
    /// # Errors
    /// The directory cannot be read or watched.
    pub fn new(options: DirectoryOptions) -> Result<Self, SourceError> {
        let path = options.path.clone();
        std::fs::read_dir(&path)
            .map_err(|source| SourceError::Directory { path: path.clone(), source })?;
        let notify = Notify::new().map_err(|source| SourceError::Watch { path, source })?;
        Ok(Self { options, notify })
    }
}

impl Source for Directory {
    async fn run(mut self, sink: Sink, cancel: CancellationToken) -> Result<(), SourceError> {
        let DirectoryOptions { path, node_name, labels, always } = self.options;
        let mut tree = Tree::new(sink.wanted().clone(), node_name, always, labels);
        let mut first = true;
        loop {
            let touched = self.notify.take_touched();
            let was_vanished = tree.is_vanished();
            let (returned, reading) = read(tree, path.clone(), touched, &self.notify).await?;
            tree = returned;
            // What was written to while it was read may be half of what it will be, and what was
            // replaced after it was read brings no further event.
            let missed = self.notify.drain();
            match reading {
                Ok(reading) => {
                    let changes = tree.merge(reading, |path| self.notify.is_being_written(path));
                    let changes = if first { tree.everything() } else { changes };
                    first = false;
                    report(&mut tree, &sink, &path);
                    if sink.send(changes).await.is_err() {
                        return Ok(());
                    }
                }
                Err(source) if first => return Err(SourceError::Directory { path, source }),
                Err(error) if !was_vanished => vanished(&sink, &path, &error),
                Err(_) => {}
            }
            let retry = tree.is_vanished().then(|| Instant::now() + VANISHED_RETRY);
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                done = burst(&mut self.notify, missed, retry) => done
                    .map_err(|source| SourceError::Watch { path: path.clone(), source })?,
            }
        }
    }
}

/// Reads on a thread that may block.
async fn read(
    mut tree: Tree,
    path: PathBuf,
    touched: BTreeSet<PathBuf>,
    notify: &Notify,
) -> Result<(Tree, std::io::Result<Reading>), SourceError> {
    let watched = notify.watched();
    let reading = tokio::task::spawn_blocking(move || {
        let reading = tree.read(&path, &touched, Some(&watched));
        (tree, reading)
    });
    reading.await.map_err(|error| SourceError::Stopped(error.to_string()))
}

/// Waits for something to happen, unless it has `begun`, and for it to be over.
async fn burst(
    notify: &mut Notify,
    mut begun: bool,
    retry: Option<Instant>,
) -> std::io::Result<()> {
    let never = Instant::now() + Duration::from_secs(86_400);
    while !begun {
        // Anew for each event: who begins to write meanwhile may keep the file open for ever.
        let wake = notify.patience_ends().into_iter().chain(retry).min();
        tokio::select! {
            () = sleep_until(wake.unwrap_or(never)) => return Ok(()),
            calls = notify.next() => begun = calls?,
        }
    }
    let end = Instant::now() + BURST_MAX;
    let mut quiet = (Instant::now() + QUIET).min(end);
    loop {
        tokio::select! {
            biased;
            () = sleep_until(quiet) => return Ok(()),
            calls = notify.next() => if calls? {
                quiet = (Instant::now() + QUIET).min(end);
            },
        }
    }
}

fn report(tree: &mut Tree, sink: &Sink, root: &Path) {
    for (place, reason) in tree.news() {
        match &reason {
            Some(reason) if Path::new(&place).is_dir() => tracing::warn!("{reason}"),
            Some(reason) => tracing::warn!("{reason}; what it held before stays in force"),
            None => tracing::info!("{place} can be read again"),
        }
        sink.problem(&place, reason.as_deref());
    }
    for foreign in tree.new_foreign() {
        tracing::warn!("{foreign}");
    }
    sink.problem(&root.to_string_lossy(), None);
    sink.wanted().iter().for_each(|kind| sink.contact(*kind));
}

fn vanished(sink: &Sink, path: &Path, error: &std::io::Error) {
    let reason = format!("--manifests {}: {error}", path.display());
    tracing::warn!("{reason}; what it held stays in force until it is back");
    sink.problem(&path.to_string_lossy(), Some(&reason));
    sink.wanted().iter().for_each(|kind| sink.failed(*kind, &reason));
}
