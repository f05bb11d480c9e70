//! A BPF file system that a test mounts for itself.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// A directory with a BPF file system on it; both go when it is dropped, by a panic too.
pub(crate) struct MountedBpffs(TempDir);

impl MountedBpffs {
    /// Seen by whoever shares this process's mounts, or copies them from now on.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let kind = Some("bpf");
        mount(kind, directory.path(), kind, MsFlags::empty(), None::<&str>).expect("root mounts");
        Self(directory)
    }
}

impl Drop for MountedBpffs {
    fn drop(&mut self) {
        // The directory, dropped after this, cannot be removed before.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_test_that_panics_leaves_nothing_mounted() {
    let is_mounted = |path: &Path| {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("readable");
        mounts.contains(&format!(" {} bpf ", path.display()))
    };
    let panicking = std::panic::catch_unwind(|| {
        let mounted = MountedBpffs::new();
        assert!(is_mounted(mounted.0.path()));
        let path: Box<PathBuf> = Box::new(mounted.0.path().to_owned());
        std::panic::resume_unwind(path)
    });
    let path = panicking.map(|()| "no panic").expect_err("it panics");
    let path = path.downcast::<PathBuf>().expect("mounted");
    assert!(!is_mounted(&path) && !path.exists(), "{} is left", path.display());
}
