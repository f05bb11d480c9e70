//! inotify: which directories are watched, what happened in them, and which files are being
//! written.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::time::Instant;

/// A writer that says nothing for so long is done, though it keeps the file open.
const WRITER_PATIENCE: Duration = Duration::from_secs(1);
/// Room for events of one read.
const EVENT_BUFFER_BYTES: usize = 16 << 10;

/// A running watch.
pub(super) struct Notify {
    events: EventStream<Vec<u8>>,
    watched: Watched,
    touched: BTreeSet<PathBuf>,
    /// Written to and not yet closed, and when last.
    writing: BTreeMap<PathBuf, Instant>,
}

/// The watched directories; shared with the thread that reads them.
#[derive(Clone)]
pub(super) struct Watched {
    watches: Watches,
    directories: Arc<Mutex<HashMap<WatchDescriptor, Directory>>>,
}

struct Directory {
    path: PathBuf,
    /// What counts in it; `None`: everything.
    names: Option<BTreeSet<OsString>>,
}

/// Where something happened.
enum Place {
    At(PathBuf),
    /// Beside what counts.
    Elsewhere,
    Unknown,
}

impl Notify {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let watched = Watched { watches: inotify.watches(), directories: Arc::default() };
        let events = inotify.into_event_stream(vec![0; EVENT_BUFFER_BYTES])?;
        Ok(Self { events, watched, touched: BTreeSet::new(), writing: BTreeMap::new() })
    }

    pub(super) fn watched(&self) -> Watched {
        self.watched.clone()
    }

    /// Waits for something to happen; returns whether it calls for reading again. If not, somebody
    /// writes, whose patience ends at another time now.
    pub(super) async fn next(&mut self) -> io::Result<bool> {
        match self.events.next().await {
            Some(event) => Ok(self.take(&event?)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Takes what has happened already; returns whether any of it calls for reading again.
    pub(super) fn drain(&mut self) -> bool {
        let mut again = false;
        while let Some(Some(Ok(event))) = self.events.next().now_or_never() {
            again |= self.take(&event);
        }
        again
    }

    /// Files to read again whatever their times and sizes say.
    pub(super) fn take_touched(&mut self) -> BTreeSet<PathBuf> {
        let now = Instant::now();
        self.writing.retain(|_, last| now.duration_since(*last) < WRITER_PATIENCE);
        let mut touched = std::mem::take(&mut self.touched);
        self.touched =
            touched.iter().filter(|path| self.writing.contains_key(*path)).cloned().collect();
        touched.retain(|path| !self.writing.contains_key(path));
        touched
    }

    pub(super) fn is_being_written(&self, path: &Path) -> bool {
        self.writing.contains_key(path)
    }

    /// When a silent writer is taken to be done.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        self.writing.values().min().map(|last| *last + WRITER_PATIENCE)
    }

    /// Notes an event; returns whether it calls for reading again.
    fn take(&mut self, event: &EventOwned) -> bool {
        let path = match self.watched.place(event) {
            Place::At(path) => path,
            Place::Elsewhere => return false,
            // The queue overflowed: anything may have happened, and times and sizes will show it.
            Place::Unknown => return event.mask.contains(EventMask::Q_OVERFLOW),
        };
        if event.mask.contains(EventMask::IGNORED) {
            self.watched.forget(&event.wd);
            return true;
        }
        if event.mask.contains(EventMask::MODIFY) {
            self.writing.insert(path.clone(), Instant::now());
            self.touched.insert(path);
            return false;
        }
        self.writing.remove(&path);
        self.touched.insert(path);
        true
    }
}

impl Watched {
    /// Watches a directory; doing so twice is as good as once.
    pub(super) fn add(&self, directory: &Path) -> io::Result<()> {
        let mask = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let descriptor = self.watches.clone().add(directory, mask)?;
        let watched = Directory { path: directory.to_owned(), names: None };
        self.lock().insert(descriptor, watched);
        Ok(())
    }

    /// Watches for what else comes under the root's name, or that of a directory above it: a symbolic link is
    /// re-pointed there, not in the directory it leads to. Where nobody may look it goes unseen.
    pub(super) fn add_above(&self, root: &Path) {
        let mask = WatchMask::CREATE
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::ONLYDIR
            // One that is below the root, too, is watched for everything.
            | WatchMask::MASK_ADD;
        for path in root.ancestors() {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let parent = if parent == Path::new("") { Path::new(".") } else { parent };
            let Ok(descriptor) = self.watches.clone().add(parent, mask) else { continue };
            let mut directories = self.lock();
            let directory = directories.entry(descriptor).or_insert_with(|| Directory {
                path: parent.to_owned(),
                names: Some(BTreeSet::new()),
            });
            if let Some(names) = &mut directory.names {
                names.insert(name.to_owned());
            }
        }
    }

    fn place(&self, event: &EventOwned) -> Place {
        let directories = self.lock();
        let Some(Directory { path, names }) = directories.get(&event.wd) else {
            return Place::Unknown;
        };
        match (&event.name, names) {
            (None, _) => Place::At(path.clone()),
            (Some(name), Some(names)) if !names.contains(name) => Place::Elsewhere,
            (Some(name), _) => Place::At(path.join(name)),
        }
    }

    fn forget(&self, descriptor: &WatchDescriptor) {
        self.lock().remove(descriptor);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WatchDescriptor, Directory>> {
        // Each change of the map is one call: it is whole whoever panicked.
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notify").field("touched", &self.touched).finish_non_exhaustive()
    }
}
