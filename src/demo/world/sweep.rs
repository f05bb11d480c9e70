//! Takes away what a killed world left: an empty directory tree and cgroups. Its mounts, namespaces
//! and processes went with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use super::{cgroup, layout, layout::Layout};

/// Removes directories of worlds whose maker is dead.
pub(crate) fn directories() {
    for dir in dead(&std::env::temp_dir()) {
        tracing::info!(dir = %dir.display(), "left by a killed demo: removed");
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!(%error, dir = %dir.display(), "could not be removed");
        }
    }
}

/// Removes cgroups of worlds whose maker is dead, seen through this world's mount.
pub(crate) fn cgroups(own: &Layout) {
    for cgroup in dead(own.cgroup2()) {
        tracing::info!(cgroup = %cgroup.display(), "left by a killed demo: removed");
        cgroup::remove_tree(&cgroup);
    }
}

fn dead(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let owned =
        entries.filter_map(|entry| Some((entry.path(), layout::owner(&entry.file_name())?)));
    // Our own id on something that we have not made yet belonged to a process before us.
    let gone =
        |&pid: &u32| pid == process::id() || !Path::new("/proc").join(pid.to_string()).exists();
    owned.filter(|(path, pid)| path.is_dir() && gone(pid)).map(|(path, _)| path).collect()
}
