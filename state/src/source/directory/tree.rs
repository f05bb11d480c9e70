//! The directory and what is below it: which files are new, what they say, what they add up to.

mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use self::walk::Walk;
use super::{
    catalog::Catalog,
    file::{self, Content},
    notify::Watched,
};
use crate::{
    change::Change,
    decode::Decoder,
    model::{Kind, Name, ObjectRef},
};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// What is known of the files, and what they add up to.
#[derive(Debug)]
pub(super) struct Tree {
    decoder: Decoder,
    catalog: Catalog,
    known: BTreeMap<PathBuf, Fingerprint>,
    /// Files that cannot be used now, and why.
    bad: BTreeMap<PathBuf, String>,
    /// Directories among them.
    bad_directories: BTreeSet<PathBuf>,
    /// Kinds of other software, and where they were seen; said once.
    foreign: BTreeSet<String>,
    news: Vec<(String, Option<String>)>,
    foreign_news: Vec<String>,
    vanished: bool,
}

/// A file's identity, size and times: if they are as before, so is its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a look at the tree found.
#[derive(Debug)]
pub(super) struct Reading {
    present: BTreeSet<PathBuf>,
    read: Vec<(PathBuf, Fingerprint, Result<Content, String>)>,
    /// Directories that cannot be watched or read, and why.
    failed: BTreeMap<PathBuf, String>,
    /// Those that cannot be read: what was below them stays.
    unread: BTreeSet<PathBuf>,
    root: PathBuf,
}

impl Tree {
    pub(super) fn new(
        wanted: BTreeSet<Kind>,
        node_name: Option<Name>,
        always: BTreeSet<ObjectRef>,
        labels: bool,
    ) -> Self {
        Self {
            decoder: Decoder::new(labels),
            catalog: Catalog::new(wanted, node_name, always),
            known: BTreeMap::new(),
            bad: BTreeMap::new(),
            bad_directories: BTreeSet::new(),
            foreign: BTreeSet::new(),
            news: Vec::new(),
            foreign_news: Vec::new(),
            vanished: false,
        }
    }

    /// Reads every file that is new, that changed, or that is `touched`. Blocks.
    pub(super) fn read(
        &mut self,
        root: &Path,
        touched: &BTreeSet<PathBuf>,
        watched: Option<&Watched>,
    ) -> io::Result<Reading> {
        let walk = Walk::of(root, watched);
        self.vanished = walk.is_err();
        let Walk { files, failed, unread, .. } = walk?;
        let mut read = Vec::new();
        let mut present = BTreeSet::new();
        for (path, metadata) in files {
            let fingerprint = Fingerprint::of(&metadata);
            if self.known.get(&path) == Some(&fingerprint) && !touched.contains(&path) {
                present.insert(path);
                continue;
            }
            let content = match bytes(&path, &metadata) {
                // Removed since it was seen.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(format!("{}: {error}", path.display())),
                Ok(bytes) => content(&path, bytes, &mut self.decoder),
            };
            present.insert(path.clone());
            read.push((path, fingerprint, content));
        }
        Ok(Reading { present, read, failed, unread, root: root.to_owned() })
    }

    /// Takes a reading over, but for files that are `being_written`; returns what it changes.
    pub(super) fn merge(
        &mut self,
        reading: Reading,
        being_written: impl Fn(&Path) -> bool,
    ) -> Vec<Change> {
        let Reading { present, read, failed, unread, root } = reading;
        for (path, fingerprint, content) in read {
            if being_written(&path) {
                continue;
            }
            self.known.insert(path.clone(), fingerprint);
            self.take(&path, content);
        }
        let is_gone = |path: &&PathBuf| {
            let unread = path.ancestors().any(|above| unread.contains(above));
            path.starts_with(&root) && !present.contains(*path) && !unread
        };
        let gone: Vec<PathBuf> = self.known.keys().filter(is_gone).cloned().collect();
        for path in gone {
            self.known.remove(&path);
            self.set_bad(&path, None);
            self.catalog.replace_file(&path, Vec::new());
        }
        self.take_failed(failed);
        self.catalog.changes()
    }

    /// The whole content as one batch.
    pub(super) fn everything(&mut self) -> Vec<Change> {
        self.catalog.everything()
    }

    pub(super) fn is_vanished(&self) -> bool {
        self.vanished
    }

    /// Files that became unusable (with the reason) or usable since the last call.
    pub(super) fn news(&mut self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.news)
    }

    /// Kinds of other software seen for the first time, one line a file and kind.
    pub(super) fn new_foreign(&mut self) -> Vec<String> {
        std::mem::take(&mut self.foreign_news)
    }

    /// Files that are unusable, one line each.
    pub(super) fn problems(&self) -> Vec<String> {
        self.bad.values().cloned().collect()
    }

    /// Kinds of other software, one line a file and kind.
    pub(super) fn foreign(&self) -> Vec<String> {
        self.foreign.iter().cloned().collect()
    }

    fn take_failed(&mut self, failed: BTreeMap<PathBuf, String>) {
        let now = failed.keys().cloned().collect();
        for path in std::mem::replace(&mut self.bad_directories, now) {
            if !failed.contains_key(&path) {
                self.set_bad(&path, None);
            }
        }
        for (path, reason) in failed {
            self.set_bad(&path, Some(reason));
        }
    }

    fn take(&mut self, path: &Path, content: Result<Content, String>) {
        match content {
            Err(reason) => self.set_bad(path, Some(reason)),
            Ok(content) => {
                for kind in &content.foreign {
                    let line =
                        format!("{}: {kind} is no kind Fairlead reads; ignored", path.display());
                    if self.foreign.insert(line.clone()) {
                        self.foreign_news.push(line);
                    }
                }
                self.set_bad(path, None);
                self.catalog.replace_file(path, content.claims);
            }
        }
    }

    fn set_bad(&mut self, path: &Path, reason: Option<String>) {
        let place = path.to_string_lossy().into_owned();
        let changed = match &reason {
            Some(reason) => {
                self.bad.insert(path.to_owned(), reason.clone()).as_ref() != Some(reason)
            }
            None => self.bad.remove(path).is_some(),
        };
        if changed {
            self.news.push((place, reason));
        }
    }
}

impl Fingerprint {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn bytes(path: &Path, metadata: &Metadata) -> io::Result<Vec<u8>> {
    if metadata.size() > FILE_BYTES_MAX {
        let reason = format!("larger than {FILE_BYTES_MAX} bytes; split it");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    fs::read(path)
}

fn content(path: &Path, bytes: Vec<u8>, decoder: &mut Decoder) -> Result<Content, String> {
    let file = path.to_string_lossy();
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("{file}:{line}: not UTF-8 text")
    })?;
    file::parse(&file, &text, decoder).map_err(|syntax| syntax.to_string())
}
