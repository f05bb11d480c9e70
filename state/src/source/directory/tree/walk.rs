//! One look at the directory: which manifests there are now.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::source::directory::notify::Watched;

/// Directories in directories, symbolic links included.
const DEPTH_MAX: usize = 32;

/// What was found.
pub(super) struct Walk<'a> {
    watched: Option<&'a Watched>,
    pub(super) files: BTreeMap<PathBuf, Metadata>,
    /// Directories that cannot be watched or read, and why.
    pub(super) failed: BTreeMap<PathBuf, String>,
    /// Those that cannot be read: nobody knows what is below them.
    pub(super) unread: BTreeSet<PathBuf>,
    /// Directories being walked, by device and inode: links may lead back up.
    above: Vec<(u64, u64)>,
}

impl<'a> Walk<'a> {
    /// Looks at `root`, watching each directory on the way. A file that is named is taken whatever
    /// its name.
    pub(super) fn of(root: &Path, watched: Option<&'a Watched>) -> io::Result<Self> {
        let mut walk = Self {
            watched,
            files: BTreeMap::new(),
            failed: BTreeMap::new(),
            unread: BTreeSet::new(),
            above: Vec::new(),
        };
        if let Some(watched) = watched {
            watched.add_above(root);
        }
        let metadata = fs::metadata(root)?;
        if metadata.is_file() {
            walk.files.insert(root.to_owned(), metadata);
        } else {
            walk.directory(root, &metadata)?;
        }
        Ok(walk)
    }

    fn directory(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let identity = (metadata.dev(), metadata.ino());
        if self.above.contains(&identity) || self.above.len() >= DEPTH_MAX {
            return Ok(());
        }
        // First the watch, then the look: what comes in between is seen twice, not never.
        if let Some(Err(error)) = self.watched.map(|watched| watched.add(path)) {
            let cure = "raise fs.inotify.max_user_watches (sysctl)";
            let reason = format!("{}: changes go unseen: {error}; {cure}", path.display());
            self.failed.insert(path.to_owned(), reason);
        }
        self.above.push(identity);
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        if let Ok(entries) = &entries {
            entries.iter().for_each(|entry| self.entry(&entry.path()));
        }
        self.above.pop();
        entries.map(drop)
    }

    /// What vanishes while it is looked at is gone; its event will come.
    fn entry(&mut self, path: &Path) {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let Ok(metadata) = fs::metadata(path) else { return };
        if hidden {
            return;
        }
        if metadata.is_dir() {
            let Err(error) = self.directory(path, &metadata) else { return };
            if error.kind() != io::ErrorKind::NotFound {
                self.failed.insert(path.to_owned(), format!("{}: {error}", path.display()));
                self.unread.insert(path.to_owned());
            }
        } else if metadata.is_file() && is_manifest(path) {
            self.files.insert(path.to_owned(), metadata);
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    matches!(path.extension().and_then(OsStr::to_str), Some("yaml" | "yml" | "json"))
}
