//! Where maps and links are pinned, so that they outlive the agent.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::{
    error::{KernelError, Step},
    object::is_for_answers,
    sys,
};

/// Ends the name of a link that is about to replace another.
pub(crate) const NEW: &str = "_new";

/// The directories on the BPF file system.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Below `bpffs`, which is mounted if it is no BPF file system yet.
    pub(crate) fn open(bpffs: &Path) -> Result<Self, KernelError> {
        let missing =
            |source: io::Error| KernelError::NoBpfFileSystem { path: bpffs.into(), source };
        if !fs::exists(bpffs).map_err(missing)? {
            fs::create_dir_all(bpffs).map_err(missing)?;
        }
        if !sys::is_bpf_file_system(bpffs).map_err(missing)? {
            match sys::mount_bpf_file_system(bpffs) {
                Ok(()) => tracing::info!(path = %bpffs.display(), "mounted a BPF file system"),
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    return Err(KernelError::system(Step::Mount, error));
                }
                Err(error) => return Err(missing(error)),
            }
        }
        let pins = Self { root: bpffs.join("fairlead") };
        for directory in [pins.maps(), pins.links()] {
            let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            created.map_err(|error| KernelError::pin(directory, error))?;
        }
        Ok(pins)
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// Unpins maps that programs of this version do not use. Programs of an earlier one that still
    /// run keep theirs; a name is only for the next start.
    pub(crate) fn remove_maps(&self, is_stale: impl Fn(&str) -> bool) -> Result<(), KernelError> {
        for (name, path) in entries(&self.maps())? {
            if is_stale(&name) {
                unpin(&path)?;
            }
        }
        Ok(())
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The link of a program on the cgroup.
    pub(crate) fn cgroup_link(&self, program: &str) -> PathBuf {
        self.links().join(program)
    }

    /// The link of a program on a device, by index: device names may hold dots, file names on a
    /// BPF file system may not.
    pub(crate) fn device_link(&self, program: &str, index: u32) -> PathBuf {
        self.links().join(format!("{program}_{index}"))
    }

    /// Takes away what an agent left that ended between a link's pin and its name: nobody would take it over, and its
    /// programs would run for ever, with maps that nobody writes any more.
    pub(crate) fn remove_unfinished(&self) -> Result<(), KernelError> {
        for (name, path) in entries(&self.links())? {
            if name.ends_with(NEW) {
                tracing::info!(
                    link = name,
                    "taken away: the agent that made it ended before it was done"
                );
                detach(&path)?;
            }
        }
        Ok(())
    }

    /// Every link that is pinned, by file name; not those just being made.
    pub(crate) fn all_links(bpffs: &Path) -> Result<Vec<(String, PathBuf)>, KernelError> {
        Self { root: bpffs.join("fairlead") }.all()
    }

    /// The same, of these.
    pub(crate) fn all(&self) -> Result<Vec<(String, PathBuf)>, KernelError> {
        let mut found = entries(&self.links())?;
        found.retain(|(name, _)| !name.ends_with(NEW));
        found.sort();
        Ok(found)
    }

    /// Device indices that have a link of `program`.
    pub(crate) fn device_links(&self, program: &str) -> Result<Vec<u32>, KernelError> {
        let links = entries(&self.links())?;
        let devices = links.iter().filter_map(|(name, _)| device_of(name));
        Ok(devices.filter(|(of, _)| *of == program).map(|(_, index)| index).collect())
    }
}

/// Names and paths in a directory; none if there is no such directory.
fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>, KernelError> {
    let failed = |error| KernelError::pin(directory, error);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let named =
        |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path());
    entries.map(|entry| entry.map(named).map_err(failed)).collect()
}

/// Program and device of a link by its name; `None`: it is on the cgroup.
pub(crate) fn device_of(link: &str) -> Option<(&str, u32)> {
    let (program, index) = link.rsplit_once('_')?;
    Some((program, index.parse().ok()?))
}

/// Detaches and unpins all of Fairlead's below `bpffs`, links first, so that no program outlives
/// its maps' names.
pub(crate) fn remove_all(bpffs: &Path) -> Result<(), KernelError> {
    let mut links = Pins::all_links(bpffs)?;
    links.sort_by_key(|(name, _)| is_for_answers(name));
    for (_, path) in links {
        detach(&path)?;
    }
    let root = bpffs.join("fairlead");
    for directory in ["links", "maps"].map(|name| root.join(name)) {
        remove(&directory, fs::remove_dir_all)?;
    }
    remove(&root, fs::remove_dir)
}

fn remove(path: &Path, how: impl FnOnce(PathBuf) -> io::Result<()>) -> Result<(), KernelError> {
    match how(path.into()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KernelError::pin(path, error)),
        _ => Ok(()),
    }
}

/// Detaches a pinned link and unpins it. What it was attached to may be gone already.
pub(crate) fn detach(path: &Path) -> Result<(), KernelError> {
    if let Err(error) = sys::pinned(path).and_then(sys::detach_link) {
        tracing::debug!(%error, path = %path.display(), "link not detached, only unpinned");
    }
    unpin(path)
}

/// Removes one pin; that it is gone already is no error.
pub(crate) fn unpin(path: &Path) -> Result<(), KernelError> {
    remove(path, fs::remove_file)
}
