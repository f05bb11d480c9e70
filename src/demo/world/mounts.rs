//! Mounts that nobody outside of the world sees.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use nix::{
    mount::{MntFlags, MsFlags, umount2},
    sched::{CloneFlags, unshare},
};

/// Moves the calling thread, and threads it starts later, into a mount namespace whose changes stay
/// inside.
pub(crate) fn make_private() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    nix::mount::mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
}

/// Mounts a new instance of a virtual file system, making the directory.
pub(crate) fn mount(fs_type: &str, at: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(at)?;
    nix::mount::mount(Some(fs_type), at, Some(fs_type), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting {fs_type} at {}", at.display()))
}

/// Makes `source` appear at `target`, which must exist.
pub(crate) fn bind(source: &Path, target: &Path) -> anyhow::Result<()> {
    nix::mount::mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("mounting {} at {}", source.display(), target.display()))
}

/// Unmounts at once for everybody who does not hold it open.
pub(crate) fn unmount(at: &Path) -> anyhow::Result<()> {
    umount2(at, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {}", at.display()))
}

/// Unmounts everything below a directory, the newest first.
pub(crate) fn unmount_below(root: &Path) -> anyhow::Result<()> {
    let table =
        fs::read_to_string("/proc/thread-self/mounts").context("reading the mount table")?;
    for at in points_below(&table, root).iter().rev() {
        unmount(at)?;
    }
    Ok(())
}

/// The second column of a mount table, where it is below `root`.
fn points_below(table: &str, root: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    points.map(PathBuf::from).filter(|at| at.starts_with(root)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_root_are_found() {
        let table = "bpf /tmp/fairlead-1/bpf bpf rw 0 0\n\
            bpf /tmp/fairlead-11/bpf bpf rw 0 0\n\
            proc /proc proc rw 0 0\n";
        let found = points_below(table, Path::new("/tmp/fairlead-1"));
        assert_eq!(found, [PathBuf::from("/tmp/fairlead-1/bpf")]);
    }
}
