//! The cgroup whose processes are served.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::error::KernelError;

/// The cgroup2 mount, as the kernel lists it.
pub(crate) fn find_root() -> Result<PathBuf, KernelError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    root_in(&mounts).ok_or(KernelError::NoCgroup2)
}

/// proc(5): after the separating dash come file system type, source and options. The root of the
/// hierarchy is preferred: a container may see its own cgroup mounted as well.
fn root_in(mountinfo: &str) -> Option<PathBuf> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, path) = (place.next()?, place.next()?);
        kind.starts_with("cgroup2 ").then(|| (root, unescaped(path)))
    });
    mounts.min_by_key(|(root, _)| *root != "/").map(|(_, path)| path)
}

/// Spaces and the like are written in octal.
fn unescaped(path: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.iter().fold(path.to_owned(), |path, (from, to)| path.replace(from, to)).into()
}

/// The cgroup at `path`, opened, and its id: the inode number of its directory.
pub(crate) fn open(path: &Path) -> Result<(File, u64), KernelError> {
    let failed = |source| KernelError::Cgroup { path: path.into(), source };
    // Only cgroup2 directories have this file; their v1 namesakes have others.
    if !path.join("cgroup.controllers").exists() {
        return Err(failed(None));
    }
    let cgroup = File::open(path).map_err(|error| failed(Some(error)))?;
    let id = cgroup.metadata().map_err(|error| failed(Some(error)))?.ino();
    Ok((cgroup, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_mount_is_found_among_others() {
        let cases = [
            ("", None),
            ("36 24 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", None),
            (
                "30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw",
                Some("/sys/fs/cgroup"),
            ),
            ("30 23 0:26 / /with\\040space rw - cgroup2 none rw", Some("/with space")),
            (
                "40 23 0:26 /kubepods/pod1 /sys/fs/cgroup rw - cgroup2 c rw\n\
                 41 23 0:26 / /host/cgroup rw - cgroup2 c rw",
                Some("/host/cgroup"),
            ),
        ];
        for (mounts, expected) in cases {
            assert_eq!(root_in(mounts), expected.map(PathBuf::from), "{mounts}");
        }
    }
}
